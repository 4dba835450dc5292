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
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// withStack runs f on a trial stack of its own.
func withStack(ctx context.Context, opts trialstack.Options, f func(*trialstack.Stack) error) error {
	dir, err := trialstack.TempDir()
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if !opts.WithoutDrawbridge {
		commands, err := trialstack.TempDir()
		if err != nil {
			return err
		}
		defer func() { _ = os.RemoveAll(commands) }()
		if opts.Bin, err = trialstack.Build(ctx, commands); err != nil {
			return err
		}
	}
	stack, err := trialstack.New(dir, opts)
	if err != nil {
		return err
	}
	defer func() { _ = stack.Stop() }()
	if err := stack.Start(ctx); err != nil {
		return err
	}
	return f(stack)
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

// benchLogins counts logins through a real Dovecot, with and without Drawbridge.
func benchLogins(ctx context.Context) error {
	var plain float64
	err := withStack(ctx, trialstack.Options{WithoutDrawbridge: true}, func(s *trialstack.Stack) (err error) {
		plain, err = logins(ctx, s, s.Accounts[0].Password)
		return err
	})
	if err != nil {
		return err
	}
	return withStack(ctx, trialstack.Options{}, func(s *trialstack.Stack) error {
		if _, err := call(ctx, s.Daemons[0].HTTP(), "POST", "/v1/domains", map[string]any{"name": "example.org", "third_party_access": map[string]any{"allow": true}}); err != nil {
			return err
		}
		made, err := call(ctx, s.Daemons[0].HTTP(), "POST", "/v1/accounts/"+s.Accounts[0].Address+"/secure-passwords", map[string]any{"label": "bench"})
		if err != nil {
			return err
		}
		secret, err := logins(ctx, s, made["secret"].(string))
		if err != nil {
			return err
		}
		next, err := logins(ctx, s, s.Accounts[0].Password)
		if err != nil {
			return err
		}
		line("IMAP logins a second, secure password / site without", fmt.Sprintf("%.2f  (%.0f / %.0f)", secret/plain, secret, plain), "-")
		line("IMAP logins a second, next passdb / site without", fmt.Sprintf("%.2f  (%.0f / %.0f)", next/plain, next, plain), "-")
		return nil
	})
}

// logins logs in for five seconds, eight at a time.
func logins(ctx context.Context, s *trialstack.Stack, password string) (float64, error) {
	var done atomic.Int64
	var failed atomic.Value
	var all sync.WaitGroup
	begin := time.Now()
	for range 8 {
		all.Go(func() {
			for time.Since(begin) < 5*time.Second {
				c, err := mailclient.Client{From: trialstack.Outside}.IMAP(ctx, s.IMAP())
				if err != nil {
					failed.Store(err)
					return
				}
				r, err := c.Login(s.Accounts[0].Address, password)
				_ = c.Close()
				if err != nil || !strings.HasPrefix(r.Status, "OK ") {
					failed.Store(fmt.Errorf("login: %q, %w", r.Status, err))
					return
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	if err, ok := failed.Load().(error); ok {
		return 0, err
	}
	return float64(done.Load()) / time.Since(begin).Seconds(), nil
}
