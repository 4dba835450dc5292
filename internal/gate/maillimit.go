package gate

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/submission"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// limits counts sent messages and recipients (M9). A recipient counts at once on this daemon, and
// on the others once its message was received: no decision waits for Redis, so that daemons
// together may permit a little more than a bound while the news is on its way, or while Redis is
// away.
type limits struct{ meter *throttle.Meter }

// charge is the amount that a recipient or a message took from a bucket.
type charge struct {
	key  string
	rate throttle.Rate
	n    int
	// message: it is taken for a message, not for a recipient.
	message bool
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
	message bool
	name    string
	unit    string
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
					reached := fmt.Sprintf("%d %s for this %s", b.rate.N, b.unit, per(r))
					if r.Action.Then == mailflow.ThenSuspend && r.Mode != access.Report {
						g.suspendCredential(w.message.Sender.Account, e, r, reached, now)
					}
					return false, reached
				}
				took = append(took, charge{key, b.rate, 1, b.message})
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

// spend counts a received message on all daemons.
func (g *Gate) spend(t *transaction, now time.Time) {
	total := map[charge]int{}
	for _, c := range t.charges {
		n := c.n
		c.n = 0
		total[c] += n
	}
	for c, n := range total {
		g.writes.event(store.Event{
			Origin: g.origin, Time: now, Kind: store.EventSpend, Account: c.key, Token: uint64(n), //nolint:gosec // small
			Service: strconv.Itoa(c.rate.N) + "/" + c.rate.Per.String(),
		})
	}
}

// spent counts what another daemon's messages took. What is announced late was taken at its time;
// otherwise the clocks of daemons are not compared.
func (g *Gate) spent(e *store.Event, now time.Time) {
	n, span, _ := strings.Cut(e.Service, "/")
	number, err := strconv.Atoi(n)
	length, spanErr := time.ParseDuration(span)
	if err != nil || spanErr != nil {
		return
	}
	at := now
	if age := now.Sub(e.Time); age > time.Minute {
		at = now.Add(-age)
	}
	g.limits.meter.Spend(e.Account, throttle.Rate{N: number, Per: length}, int(e.Token), at, now) //nolint:gosec // small
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
