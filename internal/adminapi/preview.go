package adminapi

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// previewDays is how far back a preview looks when it is not said.
const previewDays = 30

// previewPolicy holds the recorded logins of the last days against the domain's rules as they are,
// and as they would be with a policy made or changed, or without one.
func previewPolicy(c *call) (*answer, error) {
	var f api.Faults
	in := rest.Decode[api.PolicyPreview](c.schemas, c.body, &f)
	var draft *store.Policy
	if in.Policy != nil {
		draft = c.draftPolicy(in.Policy, "", &f)
		draft.Mode = access.Enforce // the question is what it would refuse
	}
	_, stored := c.Store.State.Policy(c.domain, in.Remove)
	switch {
	case in.Policy == nil && in.Remove == "":
		f.Add("/policy", "required", "is needed, or the id of a stored policy in remove")
	case in.Policy != nil && in.Remove != "":
		f.Add("/remove", "conflict", "cannot go with policy: ask for one change at a time")
	case in.Remove != "" && !stored:
		f.Add("/remove", "unknown_policy", "the domain has no such policy: list them")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if in.Days == 0 {
		in.Days = previewDays
	}
	var change history.Change
	change.Would = c.Store.State.Rules(c.domain, c.now, func(set *access.Settings) {
		change.Are = access.Compile(set) // all of the same moment
		change.Others = change.Are
		if draft == nil {
			set.RemovePolicy(in.Remove)
			return
		}
		if _, stored := c.Store.State.Policy(c.domain, draft.ID); stored {
			set.RemovePolicy(draft.ID)
			change.Others = change.Are.Recompile(set)
		}
		set.PutPolicy(&draft.Policy)
	})
	if change.Would == nil {
		return nil, api.NotFound("domain")
	}
	now := c.now.UTC().Truncate(time.Second)
	return c.long(func(ctx context.Context, report rest.Progress) (any, error) {
		return c.history.Compare(ctx, c.domain, now.AddDate(0, 0, -in.Days), now, change,
			func(p api.PreviewProgress) error { return report(p) })
	})
}
