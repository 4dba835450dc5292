package hold

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drawbridge/drawbridge/internal/store"
)

// actor is the author of the daemon's own changes.
var actor = store.Actor{Name: "daemon"}

// document is the first document of a held message in the store.
func (k *Keeper) document(item *Item) *store.Held {
	a := item.Held
	d := &store.Held{
		ID: item.ID, Rule: a.Rule, Account: a.Account, From: item.Envelope.Sender, Subject: a.Subject, MessageID: a.MessageID,
		Size: item.Size, Node: k.Node, HeldAt: item.Created, ExpiresAt: a.Expires, Approvers: a.Approvers, All: a.All, Release: a.Release,
		State: store.HeldWaiting,
	}
	for _, r := range item.Envelope.Recipients {
		d.Recipients = append(d.Recipients, r.Address)
	}
	return d
}

// errNoDomain: the domain whose rule holds a message is not managed any more.
var errNoDomain = errors.New("the domain is not managed any more")

// update changes the document of a held message, or does nothing if f returns nil. A message whose
// domain is gone has none.
func (k *Keeper) update(ctx context.Context, item *Item, action string, f func(cur *store.Held) *store.Held) error {
	domain := item.Held.Domain
	return k.Store.Update(context.WithoutCancel(ctx), store.ShardOf(domain), actor, false, func(c *store.Change) error {
		if _, managed := k.Store.State.Domain(domain); !managed {
			return errNoDomain
		}
		cur, _ := k.Store.State.Held(domain, item.ID)
		next := f(cur.Doc)
		if next == nil {
			return nil
		}
		c.PutHeld(domain, next)
		c.Audit.Action, c.Audit.Domain, c.Audit.Target = action, domain, item.ID
		c.Diff(cur.Doc, next)
		return nil
	})
}

// index writes the document of a held message, and sends notices to the approvers.
func (k *Keeper) index(ctx context.Context, e *entry) error {
	item := e.item
	err := k.update(ctx, item, "held.hold", func(cur *store.Held) *store.Held {
		if cur != nil {
			return nil
		}
		return k.document(item)
	})
	if errors.Is(err, errNoDomain) { // as when it expires
		if item.Held.Release {
			return k.release(ctx, e)
		}
		return k.drop(e, "The domain is not managed any more.")
	}
	if err != nil {
		return fmt.Errorf("listing a held message: %w", err)
	}
	return k.notify(k.requests(item)...)
}

// expire decides a message whose approvers did not decide in time. A message of an account that was
// suspended meanwhile is not released without a decision by a person.
func (k *Keeper) expire(ctx context.Context, e *entry) error {
	d := store.Decision{Approve: e.item.Held.Release, By: "expiry", Text: "Nobody approved it in time."}
	if a, ok := k.Store.State.Account(e.item.Held.Account); ok && a.Doc.Suspended {
		d.Approve, d.Text = false, "The account is suspended."
	}
	return k.update(ctx, e.item, "held.expire", func(cur *store.Held) *store.Held {
		if cur == nil || cur.State != store.HeldWaiting {
			return nil
		}
		next, err := cur.Decide(d, time.Now().UTC().Truncate(time.Millisecond))
		if err != nil {
			return nil // somebody was first
		}
		return next
	})
}

// reject drops a rejected message.
func (k *Keeper) reject(_ context.Context, e *entry) error {
	doc, _ := k.Store.State.Held(e.item.Held.Domain, e.item.ID)
	return k.drop(e, doc.Doc.Text)
}

// drop ends a held message that is not released. Only an authenticated sender is notified: any
// other address may be forged.
func (k *Keeper) drop(e *entry, text string) error {
	if e.item.Held.Account != "" {
		if err := k.notify(rejected(e.item, text)); err != nil {
			return err
		}
	}
	return k.set(e, func(i *Item) { i.State = Done })
}

// reportStuck writes to the store that a message needs another decision.
func (k *Keeper) reportStuck(ctx context.Context, e *entry) error {
	item := e.item
	note := cmp.Or(item.Trouble, fmt.Sprintf("the daemon was stopped while Postfix stored it as %s: look for that id in Postfix's log; "+
		"if it is there, reject the message here, otherwise approve it again", cmp.Or(item.QueueID, "an id not known")))
	k.Log.Error("a released message needs a decision", "id", item.ID, "note", note)
	err := k.update(ctx, item, "held.stuck", func(cur *store.Held) *store.Held {
		next := k.document(item)
		if cur != nil {
			*next = *cur
		}
		next.State, next.Note, next.Approvals = store.HeldStuck, note, nil
		return next
	})
	if err != nil && !errors.Is(err, errNoDomain) {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e.stuck = true
	return nil
}

// unindex removes the document of a message.
func (k *Keeper) unindex(ctx context.Context, item *Item) error {
	domain := item.Held.Domain
	return k.Store.Update(context.WithoutCancel(ctx), store.ShardOf(domain), actor, false, func(c *store.Change) error {
		cur, ok := k.Store.State.Held(domain, item.ID)
		if !ok {
			return nil
		}
		c.DeleteHeld(domain, item.ID)
		c.Audit.Action, c.Audit.Domain, c.Audit.Target = "held.reject", domain, item.ID
		if cur.Doc.State == store.HeldApproved {
			c.Audit.Action, c.Audit.Note = "held.release", item.QueueID
		}
		return nil
	})
}
