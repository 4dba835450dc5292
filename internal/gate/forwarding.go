package gate

import (
	"context"
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
// e.Redirected: by an alias, or by the owner's .forward file. Other rules do not concern it: they
// decided about the message as it was received. What a group expands to is its administrator's.
func (g *Gate) Forwarded(e *mailflow.Envelope) mailflow.Verdict {
	if loaded, _ := g.Store.State.Ready(); !loaded {
		return mailflow.Verdict{Refused: true, Temporary: true, Text: textUnavailable}
	}
	now := time.Now()
	st := g.Store.State
	m := mailflow.Message{Time: now}
	var by store.View
	var room access.Account
	if m.Redirected, by = g.party(e.Redirected, st.Recipient, &room); m.Redirected.Account == "" {
		return mailflow.Verdict{}
	}
	m.From, _ = g.party(e.Sender, st.View, nil)
	to, _ := g.party(e.Recipient, st.Recipient, nil)
	if _, group := st.Group(m.Redirected.Domain, m.Redirected.Account); group || to.Account == m.Redirected.Account {
		return mailflow.Verdict{}
	}
	v := mailflow.Evaluate(&m, &to, &mailflow.Applying{Redirected: by.Mail}, nil, false)
	if !v.Refused && len(v.Reported) == 0 {
		return v
	}
	t := &transaction{began: now, envelope: *e, message: m, domains: []string{address.Domain(to.Address)}, reported: v.Reported}
	if v.Refused {
		g.logRefused(&m, e, &v)
		t.refused = []refusedRecipient{{to, v.Reason, v.Rule}}
		g.notifyOwner(&m.Redirected, e.Recipient, now)
	} else {
		t.to = []mailflow.Party{to}
	}
	g.recordMessage(t, now)
	return v
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
