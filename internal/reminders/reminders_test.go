package reminders_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/reminders"
	"github.com/drawbridge/drawbridge/internal/store"
)

const day = 24 * time.Hour

// Two daemons look every few hours for half a year: each account is notified of its password four
// times, of enforcement three times, and each time once, not all in the same hour.
func TestEachOnceAndSpread(t *testing.T) {
	t.Parallel()
	server := redistest.Start(t)
	start := time.Now().UTC().Truncate(time.Second)
	grace := start.Add(20 * day)
	type sent struct {
		at      time.Time
		account string
		event   string
	}
	var log []sent
	var sites [2]*reminders.Site
	for i := range sites {
		st, redis := redistest.NewStore(t, server.Options())
		redistest.Run(t, st)
		redistest.Ready(t, st)
		sites[i] = &reminders.Site{
			State: st.State, Advance: redis.Advance, Log: hclog.NewNullLogger(),
			Notify: func(n *notify.Notice) { log = append(log, sent{n.Time, n.Account, n.Event}) },
			Progress: func(context.Context, string) (*api.EnforcementProgress, error) {
				return &api.EnforcementProgress{CutOff: api.CutOff{Accounts: []api.CutOffAccount{{Address: "ann@example.org"}}}}, nil
			},
		}
		if i > 0 {
			redistest.Eventually(t, "the other daemon has the domain", func() bool { _, ok := st.State.Domain("example.org"); return ok })
			continue
		}
		err := st.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
			c.PutDomain(&store.Domain{
				Name: "example.org", Passwords: &store.PasswordPolicy{MaxAge: 90 * day},
				SecurePasswords: store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}, GraceUntil: grace},
			})
			for _, name := range []string{"ann", "bob", "carl"} {
				c.PutAccount(&store.Account{Address: name + "@example.org", MailboxHash: "{X}y", MailboxSetAt: start})
			}
			c.PutAccount(&store.Account{Address: "old@example.org", MailboxHash: "{X}y"}) // of unknown age
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for now := start; now.Before(start.Add(100 * day)); now = now.Add(6 * time.Hour) {
		for _, s := range sites {
			s.Pass(t.Context(), now)
		}
	}
	count := map[string]int{}
	var first []time.Time
	for _, s := range log {
		count[s.event+" "+s.account]++
		if s.event == "password_expires" && count[s.event+" "+s.account] == 1 {
			first = append(first, s.at)
			if left := start.Add(90 * day).Sub(s.at); left > 31*day || left < 29*day {
				t.Errorf("the first notice of %s comes %v ahead", s.account, left)
			}
		}
	}
	want := map[string]int{
		"password_expires ann@example.org": 4, "password_expires bob@example.org": 4, "password_expires carl@example.org": 4,
		"secure_password_required ann@example.org": 3,
	}
	for key, n := range want {
		if count[key] != n {
			t.Errorf("%s: %d notices, want %d", key, count[key], n)
		}
	}
	if len(count) != len(want) {
		t.Errorf("sent: %v", count)
	}
	slices.SortFunc(first, time.Time.Compare)
	if len(first) > 0 && first[0].Equal(first[len(first)-1]) {
		t.Error("all accounts are notified in the same hour")
	}
}

// Who is found on the last day only is notified then: of a grace that is as short, or because no daemon
// ran on the day before.
func TestLastDay(t *testing.T) {
	t.Parallel()
	st, redis := redistest.NewStore(t, redistest.Start(t).Options())
	redistest.Run(t, st)
	redistest.Ready(t, st)
	now := time.Now().UTC()
	err := st.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutDomain(&store.Domain{
			Name: "example.org", SecurePasswords: store.SecurePasswordPolicy{Enforced: true, Scope: access.Scope{All: true}, GraceUntil: now.Add(day)},
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	s := &reminders.Site{
		State: st.State, Advance: redis.Advance, Log: hclog.NewNullLogger(), Notify: func(n *notify.Notice) { told = append(told, n.Account) },
		Progress: func(context.Context, string) (*api.EnforcementProgress, error) {
			return &api.EnforcementProgress{CutOff: api.CutOff{Accounts: []api.CutOffAccount{{Address: "ann@example.org"}}}}, nil
		},
	}
	for range 2 {
		s.Pass(t.Context(), now.Add(23*time.Hour))
	}
	if !slices.Equal(told, []string{"ann@example.org"}) {
		t.Errorf("told an hour before the end: %v", told)
	}
}

// Redis is asked once for each notice, not at each pass; after a fault it is asked again.
func TestNoticesAreClaimedOnce(t *testing.T) {
	t.Parallel()
	st, redis := redistest.NewStore(t, redistest.Start(t).Options())
	redistest.Run(t, st)
	redistest.Ready(t, st)
	now := time.Now().UTC()
	err := st.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: "example.org", Passwords: &store.PasswordPolicy{MaxAge: 90 * day}})
		for _, name := range []string{"ann", "bob", "carl"} {
			c.PutAccount(&store.Account{Address: name + "@example.org", MailboxHash: "{X}y", MailboxSetAt: now.Add(-80 * day)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	asked, sent, away := 0, 0, true
	s := &reminders.Site{
		State: st.State, Log: hclog.NewNullLogger(), Notify: func(*notify.Notice) { sent++ },
		Advance: func(ctx context.Context, domain, name string, to int64, keep time.Duration) (bool, error) {
			asked++
			if away {
				return false, store.ErrUnavailable
			}
			return redis.Advance(ctx, domain, name, to, keep)
		},
	}
	s.Pass(t.Context(), now)
	away = false
	for range 3 {
		s.Pass(t.Context(), now)
	}
	if asked != 1+3 || sent != 3 {
		t.Errorf("asked %d times, sent %d notices", asked, sent)
	}
	s.Pass(t.Context(), now.Add(4*day)) // the next stage
	s.Pass(t.Context(), now.Add(4*day))
	if asked != 1+3+3 || sent != 6 {
		t.Errorf("at the next stage: asked %d times, sent %d notices", asked, sent)
	}
}
