package adminapi

import (
	"net/http"
	"net/url"

	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

func revertPath(domain, id string) string {
	return "/v1/domains/" + url.PathEscape(domain) + "/reverts/" + url.PathEscape(id)
}

func viewRevert(r *store.Revert) api.Revert {
	return api.Revert{ID: r.ID, At: r.At, CreatedAt: r.CreatedAt, By: api.Actor(r.By), Action: r.Action, Target: r.Target}
}

func listReverts(c *call) (*answer, error) {
	return listed(c, c.Store.State.Reverts(c.domain), func(r *store.Revert) string { return byAge(r.At, r.ID) }, viewRevert)
}

func getRevert(c *call) (*answer, error) {
	r, ok := guard.Find(c.Store.State, c.domain, c.r.PathValue("id"))
	if !ok {
		return nil, errNoRevert()
	}
	return found(r.Rev, viewRevert(r.Doc)), nil
}

func errNoRevert() error {
	return api.Refuse(http.StatusNotFound, "not_found", "no revert of this id is pending: it was confirmed, reverted or replaced")
}

// confirmRevert keeps a change: it is not reverted.
func confirmRevert(c *call) (*answer, error) {
	ans := &answer{}
	err := c.change(store.ShardOf(c.domain), func(ch *store.Change) error {
		r, ok := guard.Find(c.Store.State, c.domain, c.r.PathValue("id"))
		if !ok {
			return errNoRevert()
		}
		if err := c.match(true, r.Rev); err != nil {
			return err
		}
		ans.body = viewRevert(r.Doc)
		audit(ch, "revert.confirm", c.domain, r.Doc.Target)
		ch.Audit.Note = r.Doc.Action + " by " + r.Doc.By.Name
		ch.DeleteRevert(c.domain, r.Doc.ID)
		return nil
	})
	return ans, err
}
