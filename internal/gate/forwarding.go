package gate

import (
	"context"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// noticeRate bounds the notices to an owner whose mail is not forwarded.
var noticeRate = throttle.Rate{N: 1, Per: 24 * time.Hour}

// Forwarded decides whether a message may go to a recipient that the MTA made of another one,
// e.Redirected: by an alias, or by the .forward file of e.Delivered. Rules about forwarding and
// internal-only senders decide; the others did as the message was received. What a group expands to
// is its administrator's, but a member who forwards is not hidden by it.
func (g *Gate) Forwarded(e *mailflow.Envelope) mailflow.Verdict {
	if loaded, _ := g.Store.State.Ready(); !loaded {
		return mailflow.Verdict{Refused: true, Temporary: true, Text: textUnavailable}
	}
	if e.Redirected == "" || strings.EqualFold(e.Redirected, e.Recipient) {
		return mailflow.Verdict{}
	}
	now := time.Now()
	st := g.Store.State
	var rooms [3]access.Account
	m := mailflow.Message{Time: now, Expanded: true}
	var from store.View
	m.From, from = g.party(e.Sender, st.View, &rooms[0])
	to, _ := g.party(e.Recipient, st.Recipient, nil)
	for i, by := range []string{e.Redirected, e.Delivered} {
		rules := mailflow.Applying{Sender: from.Mail}
		var view store.View
		if m.Redirected, view = g.party(by, st.Recipient, &rooms[1+i]); m.Redirected.Account != "" && to.Account == m.Redirected.Account {
			continue // its own mailbox
		}
		if to.Domain == m.Redirected.Domain && to.Domain != "" && !view.Account.Exists() {
			continue // an alias that is not known here leads to a mailbox of its domain
		}
		if _, group := st.Group(m.Redirected.Domain, m.Redirected.Account); !group {
			rules.Redirected = view.Mail
		}
		v := mailflow.Evaluate(&m, &to, &rules, nil, false)
		if !v.Refused && len(v.Reported) == 0 {
			continue
		}
		t := &transaction{began: now, envelope: *e, message: m, domains: []string{address.Domain(to.Address)}, reported: v.Reported}
		if !v.Refused {
			t.to = []mailflow.Party{to}
			g.recordMessage(t, now)
			continue
		}
		g.logRefused(&m, e, &v)
		t.refused = []refusedRecipient{{to, v.Reason, v.Rule}}
		if v.Reason == mailflow.ReasonForwarding {
			g.notifyOwner(&m.Redirected, e.Recipient, now)
		}
		g.recordMessage(t, now)
		return v
	}
	return mailflow.Verdict{}
}

// notifyOwner notifies the owner of a mailbox that its mail is not forwarded, once a day for all
// daemons, behind the decision.
func (g *Gate) notifyOwner(owner *mailflow.Party, target string, now time.Time) {
	if g.ForwardingRefused == nil {
		return
	}
	key := "notice/forwarding/" + owner.Account
	if ok, _ := g.limits.meter.Take(key, noticeRate, 1, now); !ok {
		return
	}
	domain, account := owner.Domain, owner.Account
	g.writes.do(func(ctx context.Context) {
		if g.Buckets != nil {
			take := []store.Take{{Key: key, N: 1, Rate: noticeRate.N, Per: noticeRate.Per}}
			if short, err := g.Buckets.Take(ctx, domain, store.NewID(), take); err == nil && short >= 0 {
				return
			}
		}
		if err := g.ForwardingRefused(domain, account, target); err != nil {
			g.Log.Error("notifying the owner of a mailbox that its mail is not forwarded", "account", account, "error", err)
		}
	})
}
