package gate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/submission"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// limits counts sent messages and recipients (M9). A recipient counts at once on this daemon. While
// a bound is far away its message is taken from Redis later, with others ([farBelow], [maxAhead]).
// Nearer to it Redis decides for all daemons when the message ends, if it answers in time; if it
// does not, this daemon decides alone, and what was taken is taken from Redis later. Other daemons
// learn what was taken by events, for their recipients and for times without Redis.
type limits struct {
	meter   *throttle.Meter
	unknown *throttle.Meter // what this daemon took and Redis does not know yet
	shared  *throttle.Meter // what all daemons took, as Redis last said
	// away is until when Redis is not asked because it did not answer, in Unix nanoseconds.
	away atomic.Int64
}

const (
	// shareTimeout bounds the wait for Redis at the end of a message.
	shareTimeout = 100 * time.Millisecond
	// askAgain is how long it waits for what this daemon took to be known there.
	askAgain = 5 * time.Millisecond
	// sharePause is how long it is not asked after that.
	sharePause = time.Second
)

// charge is the amount that a recipient or a message took from a bucket.
type charge struct {
	rule *mailflow.Rule
	bound
	key string
	n   int
}

func (l *limits) giveBack(charges []charge, now time.Time) {
	for _, c := range charges {
		l.meter.Spend(c.key, c.rate, -c.n, now, now)
	}
}

// uncount gives back what n recipients of a message took.
func (l *limits) uncount(t *transaction, n int, now time.Time) {
	back := map[string]int{}
	t.charges = slices.DeleteFunc(t.charges, func(c charge) bool {
		if c.message || back[c.key] == n {
			return false
		}
		back[c.key]++
		l.giveBack([]charge{c}, now)
		return true
	})
}

// bound is one of the bounds of a limit.
type bound struct {
	rate    throttle.Rate
	message bool // it is taken for a message, not for a recipient
	name    string
	unit    string
}

// reached says in words that the bound of a rule is reached.
func (b *bound) reached(r *mailflow.Rule) string {
	return fmt.Sprintf("%d %s for this %s", b.rate.N, b.unit, per(r))
}

func bounds(a *mailflow.Action) [4]bound {
	return [4]bound{
		{throttle.Rate{N: a.MessagesPerHour, Per: time.Hour}, true, "mh", "messages an hour"},
		{throttle.Rate{N: a.MessagesPerDay, Per: 24 * time.Hour}, true, "md", "messages a day"},
		{throttle.Rate{N: a.RecipientsPerHour, Per: time.Hour}, false, "rh", "recipients an hour"},
		{throttle.Rate{N: a.RecipientsPerDay, Per: 24 * time.Hour}, false, "rd", "recipients a day"},
	}
}

// allowance counts one more recipient. charges is what it took, warned the rules whose bounds are
// near.
func (g *Gate) allowance(w *mailView, e *mailflow.Envelope, now time.Time, charges *[]charge, warned *[]string) mailflow.Allowance {
	return func(r *mailflow.Rule) (bool, string) {
		first := true
		g.mails.mu.Lock()
		if t, ok := g.mails.open.Get(e.Instance, now); ok {
			first = len(t.to) == 0
		}
		g.mails.mu.Unlock()
		subjects := g.subjects(w, r, e, now)
		var took []charge
		for _, b := range bounds(&r.Action) {
			if b.rate.None() || b.message && !first {
				continue
			}
			for _, subject := range subjects {
				key := w.message.Sender.Domain + "/" + r.ID + "/" + b.name + "/" + subject
				ok, used := g.limits.meter.Take(key, b.rate, 1, now)
				if !ok {
					g.limits.giveBack(took, now)
					reached := b.reached(r)
					if r.Action.Then == mailflow.ThenSuspend && r.Mode != access.Report {
						g.suspendCredential(w.message.Sender.Account, e, r, reached, now)
					}
					return false, reached
				}
				took = append(took, charge{r, b, key, 1})
				if at := r.Action.WarnAt; at > 0 && used*100 >= at*b.rate.N {
					*warned = union(*warned, []string{r.ID})
					if (used-1)*100 < at*b.rate.N { // once, as it is passed
						g.Log.Warn("sending limit is near", "account", w.message.Sender.Account, "rule", r.ID, "subject", subject, "used", used, "of", b.rate.N, "unit", b.unit)
					}
				}
			}
		}
		*charges = append(*charges, took...)
		return true, ""
	}
}

func per(r *mailflow.Rule) string {
	switch r.Action.Per {
	case mailflow.PerCredential:
		return "password"
	case mailflow.PerDomain:
		return "domain"
	}
	return "account"
}

// subjects returns the keys that are counted together. If a session may have authenticated with one
// of several credentials, it counts for all of them.
func (g *Gate) subjects(w *mailView, r *mailflow.Rule, e *mailflow.Envelope, now time.Time) []string {
	account := w.message.Sender.Account
	switch r.Action.Per {
	case mailflow.PerDomain:
		return []string{"*"}
	case mailflow.PerCredential:
		ids := g.credentials(account, e, now)
		for i := range ids {
			ids[i] = account + "/" + ids[i]
		}
		return ids
	}
	return []string{account}
}

// credentials returns the credentials that a session may have authenticated with.
func (g *Gate) credentials(account string, e *mailflow.Envelope, now time.Time) (ids []string) {
	if b := g.sessions.Find(account, e.IP, e.Port, now); b != nil && b.State() == submission.Bound {
		for _, m := range b.Methods() {
			ids = union(ids, []string{m.Credential})
		}
	}
	if ids == nil {
		ids = []string{unknownMethod().Credential}
	}
	return ids
}

// total returns what a message took, once for each bucket.
func total(charges []charge) (list []charge) {
	for _, c := range charges {
		if i := slices.IndexFunc(list, func(t charge) bool { return t.key == c.key }); i >= 0 {
			list[i].n += c.n
		} else {
			list = append(list, c)
		}
	}
	return list
}

func takes(charges []charge, sign int) []store.Take {
	list := make([]store.Take, len(charges))
	for i, c := range charges {
		list[i] = store.Take{Key: c.key, N: sign * c.n, Rate: c.rate.N, Per: c.rate.Per}
	}
	return list
}

// share takes what a message took here from the buckets that all daemons share. It returns what one
// of them lacks: then nothing is taken anywhere. It returns nil if all have enough, if Redis does
// not answer, and if the message is received in any case.
func (g *Gate) share(t *transaction, received bool, now time.Time) *charge {
	all := total(t.charges)
	if len(all) == 0 {
		return nil
	}
	domain := t.message.Sender.Domain
	enforced, reported := all, []charge(nil)
	if slices.ContainsFunc(all, func(c charge) bool { return c.rule.Mode == access.Report }) {
		enforced = nil
		for _, c := range all {
			if c.rule.Mode == access.Report {
				reported = append(reported, c)
			} else {
				enforced = append(enforced, c)
			}
		}
	}
	if !received && g.limits.isAhead(enforced, now) {
		g.spendLater(domain, all, 1, now)
		t.shared, t.later = true, true
		return nil
	}
	id := store.NewID()
	short, err := g.askShared(domain, id, enforced, received, now)
	if short != nil {
		g.limits.giveBack(t.charges, now)
		t.charges = nil
		if short.rule.Action.Then == mailflow.ThenSuspend {
			g.suspendCredential(t.message.Sender.Account, &t.envelope, short.rule, short.reached(short.rule), now)
		}
		return short
	}
	if err != nil { // by the same id: Redis may have taken it, and only its answer was lost
		g.spend(store.Spend{ID: id, Domain: domain, Time: now, Takes: takes(enforced, 1)})
	}
	g.spendLater(domain, reported, 1, now)
	g.announce(enforced, 1, now)
	t.shared = true
	return nil
}

// pausing reports whether Redis is not asked now. A time further away than a pause is from before the
// clock was set back.
func (l *limits) pausing(now time.Time) bool {
	left := time.Duration(l.away.Load() - now.UnixNano())
	return 0 < left && left <= sharePause
}

// errNotAsked reports that the shared buckets were not asked.
var errNotAsked = errors.New("the shared buckets were not asked")

// askShared takes charges from the shared buckets if they have enough; short is one that has not.
func (g *Gate) askShared(domain, id string, charges []charge, received bool, now time.Time) (short *charge, err error) {
	switch {
	case len(charges) == 0:
		return nil, nil
	case g.Buckets == nil, received, g.limits.pausing(now):
		return nil, errNotAsked
	}
	ctx, cancel := context.WithTimeout(context.Background(), shareTimeout)
	defer cancel()
	for {
		ask := takes(charges, 1) // what Redis does not know yet must be there, too
		for i, c := range charges {
			ask[i].Besides = g.limits.unknown.Used(c.key, c.rate, now)
		}
		i, err := g.Buckets.Take(ctx, domain, id, ask)
		switch {
		case err != nil && short != nil:
			return short, nil
		case err != nil:
			g.limits.away.Store(now.Add(sharePause).UnixNano())
			g.Log.Debug("sending limits are counted on this daemon alone", "error", err)
			return nil, err
		case i < 0:
			return nil, nil
		case ask[i].Besides == 0:
			return &charges[i], nil
		}
		short = &charges[i]
		select { // Redis may have learnt of it just now
		case <-ctx.Done():
			return short, nil
		case <-time.After(askAgain):
		}
	}
}

// takeBack gives back what a message took, here and on all daemons if it is known there. What Redis
// was asked for is given back at once, so that the client's next message finds it.
func (g *Gate) takeBack(t *transaction, now time.Time) {
	g.limits.giveBack(t.charges, now)
	switch all := total(t.charges); {
	case !t.shared || len(all) == 0:
	case t.later:
		g.spendLater(t.message.Sender.Domain, all, -1, now)
	default:
		back := store.Spend{ID: store.NewID(), Domain: t.message.Sender.Domain, Time: now, Takes: takes(all, -1)}
		if err := g.spendNow(&back, now); err != nil {
			g.spend(back)
		}
		g.announce(all, -1, now)
	}
	t.charges, t.shared, t.later = nil, false, false
}

// spendNow is spend, if Redis answers in time.
func (g *Gate) spendNow(s *store.Spend, now time.Time) error {
	if g.Buckets == nil || now.UnixNano() < g.limits.away.Load() {
		return errNotAsked
	}
	ctx, cancel := context.WithTimeout(context.Background(), shareTimeout)
	defer cancel()
	_, err := g.Buckets.Spend(ctx, s)
	if err != nil {
		g.limits.away.Store(now.Add(sharePause).UnixNano())
	}
	return err
}

// spend takes from the shared buckets behind the decision.
func (g *Gate) spend(s store.Spend) {
	if len(s.Takes) > 0 && g.Buckets != nil {
		g.writes.spend(s)
	}
}

// announce reports to the other daemons what a message took, or for sign -1 gave back. What is taken
// from Redis later is announced then, see [announcement].
func (g *Gate) announce(charges []charge, sign int, now time.Time) {
	for _, c := range charges {
		g.writes.event(store.Event{
			Origin: g.origin, Time: now, Kind: store.EventSpend, Account: c.key, Token: uint64(sign * c.n), //nolint:gosec // small, and read back as signed
			Service: strconv.Itoa(c.rate.N) + "/" + c.rate.Per.String(),
		})
	}
}

// spent counts what another daemon's messages took.
func (g *Gate) spent(e *store.Event, now time.Time) {
	n, span, _ := strings.Cut(e.Service, "/")
	number, err := strconv.Atoi(n)
	length, spanErr := time.ParseDuration(span)
	if err != nil || spanErr != nil {
		return
	}
	g.tookElsewhere(e, &store.Take{Key: e.Account, N: int(e.Token), Rate: number, Per: length}, now) //nolint:gosec // small
}

// tookElsewhere counts what another daemon took from a bucket. What is announced late was taken at its
// time; otherwise the clocks of daemons are not compared.
func (g *Gate) tookElsewhere(e *store.Event, t *store.Take, now time.Time) {
	at := now
	if age := now.Sub(e.Time); age > time.Minute {
		at = now.Add(-age)
	}
	g.limits.meter.Spend(t.Key, throttle.Rate{N: t.Rate, Per: t.Per}, t.N, at, now)
}

// suspendCredential suspends the credential of a session, behind the decision; nothing if it is not
// known which of several it is.
func (g *Gate) suspendCredential(account string, e *mailflow.Envelope, r *mailflow.Rule, reached string, now time.Time) {
	ids := g.credentials(account, e, now)
	if len(ids) != 1 || ids[0] == store.CredentialMaster {
		g.Log.Warn("a sending limit is reached, but it is not known which credential to suspend", "account", account, "rule", r.ID)
		return
	}
	_, v := g.Store.State.View(account)
	domain, credential := v.Domain, ids[0]
	if !v.Known || v.Suspends(account, credential) {
		return
	}
	s := &store.Suspension{ID: store.NewID(), Account: account, Credential: credential, Rule: r.ID, Note: reached}
	if p, ok := v.Account.Secret(credential); ok {
		s.Label = p.Label
	}
	g.writes.do(func(ctx context.Context) {
		err := g.Store.Update(ctx, store.ShardOf(domain), store.Actor{Name: "daemon"}, false, func(c *store.Change) error {
			if _, v := g.Store.State.View(account); !v.Known || v.Suspends(account, credential) {
				return nil
			}
			s.At = c.Now
			c.Audit.Action, c.Audit.Domain, c.Audit.Target, c.Audit.Note = "credential.suspend", domain, account, "limit "+s.Rule+": "+reached
			c.PutSuspension(domain, s)
			return nil
		})
		if err != nil {
			g.Log.Error("suspending a credential", "account", account, "error", err)
		}
	})
}

const textSendingSuspended = "Sending is suspended for this password because it reached a limit. Ask your administrator."

// refuseSuspended treats a suspended secure password as one that was revoked.
func refuseSuspended(s *access.Secret, v *store.View, account string) {
	if s.State == access.SecretLive && v.Suspends(account, s.CredentialID) {
		s.State = access.SecretRevoked
	}
}
