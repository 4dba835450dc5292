//go:build soak

package e2e

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// filling is how many accounts and addresses guess before the clock starts: more than the largest
// of the daemon's bounded tables holds.
const filling = 220_000

// gauges are what must not grow.
type gauges struct {
	rss, heap, descriptors, goroutines float64 // MiB, MiB, number, number
}

// read reads the gauges of the first daemon from its metrics.
func (s *site) gauges() (g gauges) {
	s.t.Helper()
	for line := range strings.Lines(s.metrics()) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		v, _ := strconv.ParseFloat(value, 64)
		switch name {
		case "process_resident_memory_bytes":
			g.rss = v / (1 << 20)
		case "go_memstats_heap_inuse_bytes":
			g.heap = v / (1 << 20)
		case "process_open_fds":
			g.descriptors = v
		case "go_goroutines":
			g.goroutines = v
		}
	}
	return g
}

// middle returns the medians of samples.
func middle(list []gauges) gauges {
	of := func(f func(gauges) float64) float64 {
		var v []float64
		for _, g := range list {
			v = append(v, f(g))
		}
		slices.Sort(v)
		return v[len(v)/2]
	}
	return gauges{
		of(func(g gauges) float64 { return g.rss }), of(func(g gauges) float64 { return g.heap }),
		of(func(g gauges) float64 { return g.descriptors }), of(func(g gauges) float64 { return g.goroutines }),
	}
}

// anybody logs in by the login API as somebody from somewhere.
func anybody(door *http.Client, n int) string {
	ip := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}) //nolint:gosec // G115: digits
	_, a := ask(door, "POST", "/v1/login", object{
		"account": fmt.Sprintf("user%d@example.org", n), "secret": fmt.Sprintf("guess %d", n), "protocol": "smtp", "service": "smtp", "ip": ip.String(),
	})
	return fmt.Sprint(a["outcome"])
}

// For SOAK minutes (15m unless set) there are logins by all doors, right and wrong ones, messages,
// changes and previews. Afterwards the daemon is as large as at the beginning.
func TestSoak(t *testing.T) {
	lasts := 15 * time.Minute
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if lasts, err = time.ParseDuration(text); err != nil {
			t.Fatalf("SOAK: %v: want a duration such as 5m", err)
		}
	}
	s := start(t, trialstack.Options{SharedRedis: true, SASLDoor: true, Settings: map[string]any{"log.level": "warn"}})
	s.ctx = t.Context()
	s.domain(nil)
	_, secret := s.device(ann, "phone")
	d := s.Daemons[0]
	api, door := overUnix(d.APISocket), overUnix(d.LoginSocket)

	began := time.Now()
	var next atomic.Int64
	var fill sync.WaitGroup
	for range 8 {
		fill.Go(func() {
			client := overUnix(d.LoginSocket)
			for n := next.Add(1); n <= filling; n = next.Add(1) {
				anybody(client, int(n))
			}
		})
	}
	fill.Wait()
	fmt.Printf("tables filled by %d logins in %.0f s\n", filling, time.Since(began).Seconds())

	var stop atomic.Bool
	var counts [6]atomic.Int64
	var load sync.WaitGroup
	do := func(kind int, pause time.Duration, f func(n int) error) {
		load.Go(func() {
			for n := 0; !stop.Load(); n++ {
				if err := f(n); err != nil && !stop.Load() {
					t.Error(err)
					return
				}
				counts[kind].Add(1)
				time.Sleep(pause)
			}
		})
	}
	right := func(got, yes string) error {
		if !strings.HasPrefix(got, yes) {
			return errors.New("a right login: " + got)
		}
		return nil
	}
	for _, door := range doors {
		do(0, 0, func(int) error { return right(door.login(s, outside, ann, secret), door.yes) })
	}
	do(1, 0, func(n int) error {
		got := s.imap(fmt.Sprintf("127.1.%d.%d", n>>8&255, n&255), bob, fmt.Sprint("wrong ", n))
		if strings.HasPrefix(got, "OK ") {
			return errors.New("a wrong login: " + got)
		}
		return nil
	})
	do(2, 5*time.Millisecond, func(n int) error {
		if got := anybody(door, filling+n); got == "allow" {
			return errors.New("a guess was right")
		}
		return nil
	})
	do(3, 0, func(n int) error {
		c, r, err := mailclient.Client{From: outside}.Login(s.ctx, s.Submission(), ann, secret)
		if err != nil {
			return err
		}
		defer func() { _ = c.Close() }()
		if err := right(r, "235 "); err != nil {
			return err
		}
		r, err = c.Send(ann, bob, fmt.Sprintf("From: %s\nSubject: %d\n\n%s\n", ann, n, strings.Repeat("text\n", 400)))
		return errors.Join(err, right(r, "250 "))
	})
	do(4, 20*time.Millisecond, func(n int) error {
		status, made := ask(api, "POST", "/v1/accounts/"+bob+"/secure-passwords", object{"label": "tablet"})
		if status >= 300 {
			return fmt.Errorf("a secure password: %d %v", status, made)
		}
		if status, a := ask(api, "DELETE", "/v1/accounts/"+bob+"/secure-passwords/"+made["id"].(string), nil); status >= 300 {
			return fmt.Errorf("revoking it: %d %v", status, a)
		}
		if status, a := ask(api, "PUT", "/v1/domains/example.org/policies/soak", object{
			"name": "soak", "type": "blacklist", "enabled": true, "mode": "enforce", "scope": object{"all": true}, "ips": []string{fmt.Sprintf("192.0.2.%d", n&255)},
		}); status >= 300 {
			return fmt.Errorf("a policy: %d %v", status, a)
		}
		return nil
	})
	do(5, 2*time.Second, func(int) error {
		draft := object{"name": "x", "type": "whitelist", "enabled": true, "mode": "enforce", "scope": object{"all": true}, "ips": []string{office}}
		if status, a := ask(api, "POST", "/v1/domains/example.org/policies/preview", object{"policy": draft}); status >= 300 {
			return fmt.Errorf("a preview: %d %v", status, a)
		}
		return nil
	})

	// The second and the last fifth are compared: in the first, garbage of the filling is collected and
	// what wakes up late begins, such as connections of a pool.
	var samples []gauges
	ctx, cancel := context.WithTimeout(s.ctx, lasts)
	defer cancel()
	tick := time.NewTicker(max(lasts/150, 100*time.Millisecond))
	defer tick.Stop()
	for ctx.Err() == nil && !t.Failed() {
		select {
		case <-ctx.Done():
		case <-tick.C:
			samples = append(samples, s.gauges())
		}
	}
	stop.Store(true)
	load.Wait()
	if len(samples) < 10 {
		t.Fatalf("%d samples are too few to compare", len(samples))
	}
	fifth := len(samples) / 5
	first, last := middle(samples[fifth:2*fifth]), middle(samples[len(samples)-fifth:])
	for i, what := range []string{"right logins by four doors", "wrong logins by IMAP", "guesses by the login API", "messages", "rounds of three changes", "previews"} {
		fmt.Printf("%-30s %8d\n", what, counts[i].Load())
	}
	for _, c := range []struct {
		what              string
		first, last, more float64 // more is what noise may add
	}{
		{"resident memory, MiB", first.rss, last.rss, 0.05*first.rss + 4},
		{"heap in use, MiB", first.heap, last.heap, 0.1*first.heap + 4},
		{"descriptors", first.descriptors, last.descriptors, 8},
		{"goroutines", first.goroutines, last.goroutines, 8},
	} {
		fmt.Printf("%-30s %8.1f at the beginning, %8.1f at the end\n", c.what, c.first, c.last)
		if c.last > c.first+c.more {
			t.Errorf("%s grew from %.1f to %.1f in %s", c.what, c.first, c.last, lasts)
		}
	}
}
