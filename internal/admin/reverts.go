package admin

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

func viewRevert(r *store.Revert) api.Revert {
	return api.Revert{ID: r.ID, At: r.At, CreatedAt: r.CreatedAt, By: api.Actor(r.By), Action: r.Action, Target: r.Target}
}

// Reverts returns one page of the changes that undo themselves unless they are confirmed, the next
// one due first.
func (d *Domain) Reverts(p Page) (*api.List[api.Revert], error) {
	return PageOf(p, d.Store.State.Reverts(d.name), func(r *store.Revert) string { return ByAge(r.At, r.ID) }, viewRevert)
}

// Revert returns a pending revert by its id; 404 if it was confirmed, reverted or replaced by one
// of a later change.
func (d *Domain) Revert(id string) (*Result[api.Revert], error) {
	r, ok := guard.Find(d.Store.State, d.name, id)
	if !ok {
		return nil, errNoRevert()
	}
	return &Result[api.Revert]{View: viewRevert(r.Doc), Rev: r.Rev}, nil
}

func errNoRevert() error {
	return api.Missing("no revert of this id is pending: it was confirmed, reverted or replaced")
}

// ConfirmRevert keeps a change: it cancels the pending revert and returns it. 404 if it is no
// longer pending.
func (d *Domain) ConfirmRevert(ctx context.Context, id string) (*api.Revert, error) {
	view := &api.Revert{}
	err := d.Change(ctx, func(ch *store.Change) error {
		r, ok := guard.Find(d.Store.State, d.name, id)
		if !ok {
			return errNoRevert()
		}
		if err := d.Match(true, r.Rev); err != nil {
			return err
		}
		*view = viewRevert(r.Doc)
		Describe(ch, "revert.confirm", d.name, r.Doc.Target)
		ch.Audit.Note = r.Doc.Action + " by " + r.Doc.By.Name
		ch.DeleteRevert(d.name, r.Doc.ID)
		return nil
	})
	return view, err
}

// UndoRevert reverts a change now instead of when it is due. A daemon does so within a second.
func (d *Domain) UndoRevert(ctx context.Context, id string) error {
	return d.Change(ctx, func(ch *store.Change) error {
		r, ok := guard.Find(d.Store.State, d.name, id)
		if !ok {
			return errNoRevert()
		}
		next := *r.Doc
		next.At = ch.Now
		Describe(ch, "revert.undo", d.name, r.Doc.Target)
		ch.Audit.Note = r.Doc.Action + " by " + r.Doc.By.Name
		ch.PutRevert(d.name, &next)
		return nil
	})
}

// guarded is the request as the lock-out guard sees it.
func (d *Domain) guarded() *guard.Request {
	return &guard.Request{
		Domain: d.name, Actor: d.Caller.Actor, From: d.Caller.From, Time: d.Time,
		Confirm: d.Confirm, RevertAfter: d.RevertAfter,
	}
}

// BeginRules starts an edit of policies and blocked addresses, before its transaction.
func (d *Domain) BeginRules(ctx context.Context) (*guard.Edit, error) {
	return d.guard().Begin(ctx, d.guarded())
}

// CheckRules refuses an edit that would lock people out.
func (d *Domain) CheckRules(ch *store.Change, e *guard.Edit) error {
	return d.guard().Check(ch.Now, d.guarded(), e)
}

// ApplyRules adds an edit to a change, or refuses it. It returns the pending revert, nil for none.
func (d *Domain) ApplyRules(ch *store.Change, e *guard.Edit) (*api.PendingRevert, error) {
	return d.guard().Apply(ch, d.guarded(), e)
}

// changeRules makes one change of policies and blocked addresses: f fills the edit and applies it.
func (d *Domain) changeRules(ctx context.Context, f func(*store.Change, *guard.Edit) error) error {
	if err := d.Caller.May(ForDomain); err != nil {
		return err
	}
	e, err := d.BeginRules(ctx)
	if err != nil {
		return err
	}
	return d.Change(ctx, func(ch *store.Change) error { return f(ch, e) })
}
