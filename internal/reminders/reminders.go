// Package reminders notifies users ahead of time: of a mailbox password that expires, 30, 14, 7 and 1
// days before (F17), and of secure passwords that will be required, 14, 7 and 1 days before (F33).
//
// Each notice is sent once by one of the daemons, which claims it in Redis. Those of one day are spread
// over the day before: each account has its own hour. A daemon that was away sends the latest notice
// only.
//
// # Limits
//
// Passwords whose age is not known are never reminded of. The notices about secure passwords go to the
// accounts that used the mailbox password in a third-party client within the last 30 days, at most
// 1000 of a domain.
package reminders

import (
	"context"
	"fmt"
	"hash/fnv"
	"hash/maphash"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Site is what reminders depend on.
type Site struct {
	State *store.State
	// Advance remembers a number of a domain if it is larger than the one before, and reports whether
	// it was, as redisstore does.
	Advance func(ctx context.Context, domain, name string, to int64, keep time.Duration) (bool, error)
	Notify  func(*notify.Notice)
	// Progress returns who still uses the mailbox password of a domain.
	Progress func(ctx context.Context, domain string) (*api.EnforcementProgress, error)
	Log      hclog.Logger

	// claimed has the notices that this daemon or another one has sent, by a hash of their names, and their stage:
	// Redis is not asked again while they are due. Each pass makes it anew, so it does not grow.
	claimed, next map[uint64]int64
	seed          maphash.Seed
}

const (
	day   = 24 * time.Hour
	every = 15 * time.Minute
	// remembered is for how long a notice is not repeated: longer than from the first to the last.
	remembered = 60 * day
)

var (
	passwordDays    = []int{30, 14, 7, 1}
	enforcementDays = []int{14, 7, 1}
)

// Run sends what is due until ctx ends: as soon as the rules are known, so that restarts delay no
// notice, and every quarter of an hour.
func (s *Site) Run(ctx context.Context) { s.State.Every(ctx, every, s.Pass) }

// Pass sends what is due at a time. Passes must not overlap.
func (s *Site) Pass(ctx context.Context, now time.Time) {
	if s.claimed == nil {
		s.seed = maphash.MakeSeed()
	}
	s.next = make(map[uint64]int64, len(s.claimed))
	defer func() { s.claimed = s.next }()
	for _, d := range s.State.Domains("", 0) {
		if err := s.domain(ctx, d.Doc, now); err != nil && ctx.Err() == nil {
			s.Log.Warn("notifying users ahead of time", "domain", d.Doc.Name, "error", err)
		}
	}
}

func (s *Site) domain(ctx context.Context, d *store.Domain, now time.Time) error {
	if d.Passwords != nil && d.Passwords.MaxAge > 0 {
		for _, a := range s.State.Accounts(d.Name, "", 0) {
			set := a.Doc.MailboxSetAt
			if a.Doc.MailboxHash == "" || set.IsZero() || a.Doc.MustChange || a.Doc.Suspended {
				continue
			}
			ends := set.Add(d.Passwords.MaxAge)
			stage, ok := due(passwordDays, a.Doc.Address, ends.Sub(now), d.Passwords.MaxAge)
			if !ok {
				continue
			}
			err := s.once(ctx, d.Name, a.Doc.Address, "password:"+strconv.FormatInt(set.Unix(), 10), stage, &notify.Notice{
				Event: "password_expires", Time: now, Subject: "Your password expires on " + ends.UTC().Format(time.DateOnly),
				Text: fmt.Sprintf("The password of your mailbox %s expires at %s. Set a new one before: after that, programs and pages refuse it.\n", a.Doc.Address, stamp(ends)),
				Data: map[string]any{"expires_at": ends.UTC()},
			})
			if err != nil {
				return err
			}
		}
	}
	p := &d.SecurePasswords
	if p.State(now) != store.EnforceGrace || s.Progress == nil {
		return nil
	}
	if p.GraceUntil.Sub(now) > time.Duration(enforcementDays[0]+1)*day { // nothing is due for anybody
		return nil
	}
	progress, err := s.Progress(ctx, d.Name)
	if err != nil {
		return err
	}
	for i := range progress.Accounts {
		a := &progress.Accounts[i]
		stage, ok := due(enforcementDays, a.Address, p.GraceUntil.Sub(now), 0)
		if !ok {
			continue
		}
		err := s.once(ctx, d.Name, a.Address, "enforcement:"+strconv.FormatInt(p.GraceUntil.Unix(), 10), stage, &notify.Notice{
			Event: "secure_password_required", Time: now, Subject: "Your mail program needs a secure password from " + p.GraceUntil.UTC().Format(time.DateOnly),
			Text: fmt.Sprintf("From %s on, mail programs need a secure password of their own. Yours used the mailbox password of %s, last at %s from %s (%s).\nCreate a secure password for each of your devices before.\n",
				stamp(p.GraceUntil), a.Address, stamp(a.LastLogin.Time), a.LastLogin.IP, a.LastLogin.Protocol),
			Data: map[string]any{"from": p.GraceUntil.UTC(), "secure_passwords": a.SecurePasswords, "last_login": a.LastLogin},
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// due returns which of the notices, from the first, is the latest that is due when so much time is
// left. Notices that would come before the time began are left out; whole 0 leaves out none.
func due(days []int, account string, left, whole time.Duration) (stage int64, ok bool) {
	if left <= 0 {
		return 0, false
	}
	for i, n := range days {
		ahead := time.Duration(n) * day
		if (whole == 0 || ahead < whole) && left <= ahead+spread(account) {
			stage, ok = int64(i)+1, true
		}
	}
	return stage, ok
}

// spread is how much earlier than others an account is notified, less than a day.
func spread(account string) time.Duration {
	h := fnv.New32a()
	_, _ = h.Write([]byte(account)) // never fails
	return time.Duration(h.Sum32()%uint32(day/time.Second)) * time.Second
}

// once sends a notice unless it, or a later one, was sent.
func (s *Site) once(ctx context.Context, domain, account, what string, stage int64, n *notify.Notice) error {
	name := "reminder:" + account + ":" + what
	key := maphash.String(s.seed, domain+" "+name)
	if s.claimed[key] == stage {
		s.next[key] = stage
		return nil
	}
	first, err := s.Advance(ctx, domain, name, stage, remembered)
	if err != nil {
		return err
	}
	if s.next[key] = stage; !first {
		return nil
	}
	n.ID, n.Domain, n.Account = store.NewID(), domain, account
	s.Notify(n)
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
