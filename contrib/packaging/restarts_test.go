//go:build servers

package packaging_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/machine"
	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

const (
	submitters = 8
	restarts   = 20
)

// tally is the results of submissions that ran beside restarts.
type tally struct {
	mu       sync.Mutex
	accepted int
	failed   map[string]int // by the first words of the answer
	longest  time.Duration
}

func (r *tally) add(answer string, took time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.longest = max(r.longest, took)
	if strings.HasPrefix(answer, "250 ") {
		r.accepted++
		return
	}
	r.failed[answer[:min(len(answer), 60)]]++
}

func (r *tally) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}

// submitUntil submits messages one after the other and notes the answers.
func submitUntil(t *testing.T, m *machine.Machine, stop <-chan struct{}, secret string, r *tally) {
	if err := m.Enter(); err != nil {
		t.Error(err)
		return
	}
	for {
		select {
		case <-stop:
			return
		default:
		}
		begin := time.Now()
		answer := func() string {
			c, login, err := mailclient.Client{}.Login(t.Context(), "127.0.0.1:587", "ann", secret)
			if err != nil {
				return err.Error()
			}
			defer func() { _ = c.Close() }()
			if !strings.HasPrefix(login, "235 ") {
				return login
			}
			message, err := c.Send(machine.Ann, machine.Ann, hello(machine.Ann))
			if err != nil {
				return err.Error()
			}
			return message
		}()
		r.add(answer, time.Since(begin))
	}
}

// Submissions continue while the daemon restarts: nobody is refused for good, and systemd, which
// keeps the sockets, has new connections wait.
func TestRestarts(t *testing.T) {
	m := machine.Boot(t, "bookworm")
	m.Site()
	m.Install("current")
	m.Join("2.3")
	secret := introduce(m)
	for what, commands := range map[string]string{
		"restarts": "",
		"kills":    "systemctl kill --signal KILL --kill-whom main drawbridge; ",
	} {
		results := tally{failed: map[string]int{}}
		stop := make(chan struct{})
		var all sync.WaitGroup
		for range submitters {
			all.Go(func() { submitUntil(t, m, stop, secret, &results) })
		}
		var away []time.Duration
		for range restarts {
			before := results.count()
			redistest.Eventually(t, "submissions continue", func() bool { return results.count() >= before+2*submitters })
			begin := time.Now()
			m.Run(commands + "systemctl reset-failed drawbridge; systemctl restart drawbridge")
			away = append(away, time.Since(begin))
		}
		before := results.count()
		redistest.Eventually(t, "submissions continue", func() bool { return results.count() >= before+2*submitters })
		close(stop)
		all.Wait()
		slices.Sort(away)
		t.Logf("%d %s: median %v, longest %v; %d submissions accepted, the longest took %v; failed: %v",
			restarts, what, away[restarts/2], away[restarts-1], results.accepted, results.longest, results.failed)
		failed := 0
		for answer, n := range results.failed {
			failed += n
			if strings.HasPrefix(answer, "5") {
				t.Errorf("a submission was refused for good: %s", answer)
			}
		}
		if what == "restarts" && failed >= restarts {
			t.Errorf("%d submissions failed in %d restarts", failed, restarts)
		}
	}
}
