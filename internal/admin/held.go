package admin

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// nodeAway is how long a node may be silent before it counts as away: it reports every ten seconds.
const nodeAway = 35 * time.Second

// viewHeld shows a held message. Which node has it is the site's business, and that of whoever
// waits for one that is away.
func (r *Request) viewHeld(domain string, h *store.Held, nodes map[string]time.Time) api.Held {
	v := api.Held{
		ID: h.ID, Domain: domain, Rule: h.Rule, Account: h.Account, From: h.From, Recipients: h.Recipients, Subject: h.Subject,
		MessageID: h.MessageID, Size: h.Size, Node: h.Node, HeldAt: h.HeldAt, ExpiresAt: h.ExpiresAt, State: string(h.State),
		Approvers: h.Approvers, Need: "any", Then: "reject", Approvals: h.Approvals, DecidedBy: h.DecidedBy, DecidedAt: h.DecidedAt,
		Text: h.Text, Note: h.Note,
	}
	if h.All {
		v.Need = "all"
	}
	if h.Release {
		v.Then = "release"
	}
	if nodes != nil {
		v.NodeAway = r.Time.Sub(nodes[h.Node]) > nodeAway
	}
	return v
}

// nodes returns when each node was last seen; nil if that is not known.
func (r *Request) nodes(ctx context.Context) map[string]time.Time {
	if r.Nodes == nil {
		return nil
	}
	nodes, err := r.Nodes(ctx)
	if err != nil {
		r.Log.Warn("reading the list of nodes", "error", err)
		return nil
	}
	return nodes
}

// HeldMessages returns one page of the messages that rules of the domain hold, oldest first.
func (d *Domain) HeldMessages(ctx context.Context, p Page) (*api.List[api.Held], error) {
	nodes := d.nodes(ctx)
	return PageOf(p, d.Store.State.HeldIn(d.name), func(h *store.Held) string { return ByAge(h.HeldAt, h.ID) },
		func(h *store.Held) api.Held { return d.viewHeld(d.name, h, nodes) })
}

func errNotHeld() error {
	return api.Missing("no message of this id is held: it was released, rejected or never existed")
}

// Held returns a held message that the caller reaches.
func (r *Request) Held(ctx context.Context, id string) (*Result[api.Held], error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	domain, h, ok := r.Store.State.FindHeld(id)
	if !ok || !r.Caller.Reaches(domain) {
		return nil, errNotHeld()
	}
	return &Result[api.Held]{View: r.viewHeld(domain, h.Doc, r.nodes(ctx)), Rev: h.Rev}, nil
}

// DecideHeld approves or rejects a held message for all of its approvers. The node that has the
// message carries it out.
func (r *Request) DecideHeld(ctx context.Context, id string, approve bool, text string) (*Result[api.Held], error) {
	if err := r.Caller.May(ForDomain); err != nil {
		return nil, err
	}
	domain, h, ok := r.Store.State.FindHeld(id)
	if !ok || !r.Caller.Reaches(domain) {
		return nil, errNotHeld()
	}
	if err := r.Match(true, h.Rev); err != nil {
		return nil, err
	}
	var f api.Faults
	CheckLines(text, "/text", &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return r.decideHeld(ctx, domain, id, store.Decision{Approve: approve, Text: text, By: r.Caller.Actor.Name})
}

func (r *Request) decideHeld(ctx context.Context, domain, id string, d store.Decision) (*Result[api.Held], error) {
	nodes := r.nodes(ctx)
	res := &Result[api.Held]{}
	err := r.Store.Update(context.WithoutCancel(ctx), store.ShardOf(domain), r.Caller.Actor, r.DryRun, func(ch *store.Change) error {
		cur, ok := r.Store.State.Held(domain, id)
		if !ok {
			return errNotHeld()
		}
		if d.Approver != "" && cur.Doc.State == store.HeldStuck {
			return api.Conflict("decided", "the message is decided already, and an administrator must resolve it")
		}
		next, err := cur.Doc.Decide(d, ch.Now)
		if decided := new(store.DecidedError); errors.As(err, &decided) {
			return api.Conflict("decided", "%v", decided)
		}
		action := "held.reject"
		if d.Approve {
			action = "held.approve"
		}
		Describe(ch, action, domain, id)
		ch.Diff(cur.Doc, next)
		ch.PutHeld(domain, next)
		res.View, res.Rev = r.viewHeld(domain, next, nodes), ch.Rev
		return nil
	})
	return res, err
}

// HeldForApprover returns a held message that waits for an approver's own decision. The caller has
// proved to be that approver.
func (a *Admin) HeldForApprover(domain, id, approver string) (*api.Held, error) {
	h, ok := a.Store.State.Held(domain, id)
	if !ok || !slices.Contains(h.Doc.Approvers, approver) {
		return nil, errNotHeld()
	}
	if account, v := a.Store.State.View(approver); v.Known {
		if rec, ok := a.Store.State.Account(account); ok && rec.Doc.Suspended {
			return nil, errNotHeld()
		}
	}
	view := a.As(Caller{}, Options{}).viewHeld(domain, h.Doc, nil)
	if h.Doc.State != store.HeldWaiting || slices.Contains(h.Doc.Approvals, approver) {
		return &view, api.Conflict("decided", "the message is decided already, or you have decided")
	}
	return &view, nil
}

// DecideAsApprover decides about a held message in the name of an approver.
func (a *Admin) DecideAsApprover(ctx context.Context, domain, id, approver string, approve bool, text string) (*api.Held, error) {
	if view, err := a.HeldForApprover(domain, id, approver); err != nil {
		return view, err
	}
	var f api.Faults
	CheckLines(text, "/text", &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	r := a.As(Caller{Actor: store.Actor{Name: approver}}, Options{})
	res, err := r.decideHeld(ctx, domain, id, store.Decision{Approve: approve, Text: text, Approver: approver, By: approver})
	return &res.View, err
}
