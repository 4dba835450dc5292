package admin

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Suspensions returns one page of the suspended credentials, oldest first.
func (d *Domain) Suspensions(p Page) (*api.List[api.Suspension], error) {
	return pageOf(p, d.Store.State.Suspensions(d.name), func(s *store.Suspension) string { return byAge(s.At, s.ID) }, viewSuspension)
}

func viewSuspension(s *store.Suspension) api.Suspension { return api.Suspension(*s) }

// Unsuspend lifts the suspension of a credential, and returns its last state.
func (d *Domain) Unsuspend(ctx context.Context, id string) (*Result[api.Suspension], error) {
	res := &Result[api.Suspension]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok := d.Store.State.Suspension(d.name, id)
		if err := d.existing(ok, cur.Rev, "suspended credential"); err != nil {
			return err
		}
		res.View = viewSuspension(cur.Doc)
		Describe(ch, "credential.unsuspend", d.name, cur.Doc.Account)
		ch.Audit.Note = cur.Doc.Credential + " " + cur.Doc.Label
		ch.Diff(cur.Doc, nil)
		ch.DeleteSuspension(d.name, id)
		return nil
	})
	return res, err
}
