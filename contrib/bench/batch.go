package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// batched is how many accounts a batch is measured over.
const batched = 100_000

// benchBatch measures a batch that changes every account, and one that changes none.
func benchBatch(ctx context.Context) error {
	return withStack(ctx, trialstack.Options{}, func(s *trialstack.Stack) error {
		c := s.Daemons[0].HTTP()
		if _, err := call(ctx, c, "POST", "/v1/domains", map[string]any{"name": "example.org", "third_party_access": map[string]any{"allow": true}}); err != nil {
			return err
		}
		var file strings.Builder
		file.WriteString("address\n")
		for i := range batched {
			file.WriteString(account(i) + "\n")
		}
		if err := send(ctx, c, "/v1/domains/example.org/accounts/import", "text/csv", file.String()); err != nil {
			return err
		}
		var every, none []time.Duration
		for i := range rounds {
			for _, times := range []*[]time.Duration{&every, &none} { // the second time all is as it should be
				begin := time.Now()
				err := send(ctx, c, "/v1/domains/example.org/accounts/batch", "application/json", fmt.Sprintf(`{"select":{"all":true},"set":{"protocols":{"pop3":%t}}}`, i%2 == 0))
				if err != nil {
					return err
				}
				*times = append(*times, time.Since(begin))
			}
		}
		share, err := loginsBeside(ctx, s.Daemons[0], func(i int) error {
			return send(ctx, c, "/v1/domains/example.org/accounts/batch", "application/json", fmt.Sprintf(`{"select":{"all":true},"set":{"protocols":{"pop3":%t}}}`, i%2 == 0))
		})
		if err != nil {
			return err
		}
		rate := func(d time.Duration) string {
			return fmt.Sprintf("%.1f s, %.0f accounts a second", d.Seconds(), batched/d.Seconds())
		}
		line(fmt.Sprintf("batch over %d accounts, all change", batched), rate(median(every)), "-")
		line(fmt.Sprintf("batch over %d accounts, none changes", batched), rate(median(none)), "-")
		line("logins a second while all change, of undisturbed", fmt.Sprintf("%.2f", share), "≥ 0.8")
		return nil
	})
}

// loginsBeside returns the rate of logins while f runs, as a share of the rate just before, in turns.
// Four clients log in at a rate that leaves the processors time, as a site does.
func loginsBeside(ctx context.Context, d *trialstack.Daemon, f func(int) error) (float64, error) {
	const clients, pause = 4, 2 * time.Millisecond
	door := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: clients, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", d.LoginSocket)
	}}}
	var logins atomic.Int64
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed := make(chan error, clients)
	for range clients {
		go func() {
			for i := 0; ctx.Err() == nil; i++ {
				if _, err := call(ctx, door, "POST", "/v1/login", map[string]any{"account": account(i % batched), "secret": "x", "protocol": "imap", "ip": "203.0.113.9"}); err != nil && ctx.Err() == nil {
					failed <- err
					return
				}
				logins.Add(1)
				time.Sleep(pause)
			}
		}()
	}
	during := func(f func() error) (float64, time.Duration, error) {
		before, begin := logins.Load(), time.Now()
		err := f()
		took := time.Since(begin)
		return float64(logins.Load()-before) / took.Seconds(), took, err
	}
	var shares []float64
	for i := range rounds {
		busy, took, err := during(func() error { return f(i) })
		if err != nil {
			return 0, err
		}
		idle, _, _ := during(func() error { time.Sleep(took); return nil })
		shares = append(shares, busy/idle)
	}
	select {
	case err := <-failed:
		return 0, err
	default:
		return median(shares), nil
	}
}

// send posts a document and reads the answer, in lines where there are any.
func send(ctx context.Context, c *http.Client, path, kind, body string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://drawbridge"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Accept", "application/x-ndjson, application/json")
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode >= 300 || bytes.Contains(answer, []byte(`{"problem":`)) {
		return fmt.Errorf("POST %s: %d %s", path, resp.StatusCode, answer[max(0, len(answer)-500):])
	}
	return nil
}
