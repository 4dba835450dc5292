package mail

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Suspensions returns one page of the suspended credentials, oldest first.
func (d *Domain) Suspensions(p admin.Page) (*api.List[api.Suspension], error) {
	return admin.PageOf(p, d.Store.State.Suspensions(d.Name()), func(s *store.Suspension) string { return admin.ByAge(s.At, s.ID) }, viewSuspension)
}

func viewSuspension(s *store.Suspension) api.Suspension { return api.Suspension(*s) }

// Unsuspend lifts the suspension of a credential, and returns its last state.
func (d *Domain) Unsuspend(ctx context.Context, id string) (*admin.Result[api.Suspension], error) {
	res := &admin.Result[api.Suspension]{}
	err := d.Change(ctx, func(ch *store.Change) error {
		cur, ok := d.Store.State.Suspension(d.Name(), id)
		if err := d.Existing(ok, cur.Rev, "suspended credential"); err != nil {
			return err
		}
		res.View = viewSuspension(cur.Doc)
		admin.Describe(ch, "credential.unsuspend", d.Name(), cur.Doc.Account)
		ch.Audit.Note = cur.Doc.Credential + " " + cur.Doc.Label
		ch.Diff(cur.Doc, nil)
		ch.DeleteSuspension(d.Name(), id)
		return nil
	})
	return res, err
}
