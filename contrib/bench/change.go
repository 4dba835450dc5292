package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// withStack runs f on a trial stack of its own.
func withStack(ctx context.Context, opts trialstack.Options, f func(*trialstack.Stack) error) error {
	return withStacks(ctx, []trialstack.Options{opts}, func(stacks []*trialstack.Stack) error { return f(stacks[0]) })
}

// withStacks runs f on trial stacks that run at the same time.
func withStacks(ctx context.Context, options []trialstack.Options, f func([]*trialstack.Stack) error) error {
	commands, err := trialstack.TempDir()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(commands) }()
	bin, err := trialstack.Build(ctx, commands)
	if err != nil {
		return err
	}
	stacks := make([]*trialstack.Stack, len(options))
	for i, opts := range options {
		dir, err := trialstack.TempDir()
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		if !opts.WithoutDrawbridge {
			opts.Bin = bin
		}
		if stacks[i], err = trialstack.New(dir, opts); err != nil {
			return err
		}
		defer func() { _ = stacks[i].Stop() }()
		if err := stacks[i].Start(ctx); err != nil {
			return err
		}
	}
	return f(stacks)
}

func call(ctx context.Context, c *http.Client, method, path string, body any) (map[string]any, error) {
	b, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://drawbridge"+path, bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, answer)
	}
	m := map[string]any{}
	return m, json.Unmarshal(answer, &m)
}

// benchChange measures from sending a change to one daemon until another daemon decides by it.
func benchChange(ctx context.Context) error {
	return withStack(ctx, trialstack.Options{Daemons: 2, SharedRedis: true}, func(s *trialstack.Stack) error {
		one, two := s.Daemons[0].HTTP(), &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return (&net.Dialer{}).DialContext(ctx, "unix", s.Daemons[1].LoginSocket)
			},
		}}
		if _, err := call(ctx, one, "POST", "/v1/domains", map[string]any{"name": "example.org", "third_party_access": map[string]any{"allow": true}}); err != nil {
			return err
		}
		login := map[string]any{"account": "ann@example.org", "secret": "x", "protocol": "imap", "ip": "203.0.113.9"}
		var times []time.Duration
		for i := range 300 {
			off := i%2 == 0
			begin := time.Now()
			if _, err := call(ctx, one, "PATCH", "/v1/accounts/ann@example.org", map[string]any{"protocols": map[string]any{"imap": !off}}); err != nil {
				return err
			}
			for {
				d, err := call(ctx, two, "POST", "/v1/login", login)
				if err != nil {
					return err
				}
				if (d["reason"] == "protocol_disabled") == off {
					break
				}
			}
			times = append(times, time.Since(begin))
		}
		line("change → effect on a second daemon (300 changes)",
			fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", ms(percentile(times, 0.5)), ms(percentile(times, 0.99))), "p99 ≤ 100 ms")
		return nil
	})
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
