package adminapi

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/history"
)

// previewDays is how far back a preview looks when it is not said.
const previewDays = 30

// previewPolicy holds the recorded logins of the last days against the
// domain's rules as they are, and as they would be with a policy made or
// changed, or without one.
func previewPolicy(c *call) (*answer, error) {
	var f faults
	in := decode[PolicyPreview](c, c.body, &f)
	change := func(set *access.Settings) { set.RemovePolicy(in.Remove) }
	if in.Policy != nil {
		p := c.draftPolicy(in.Policy, "", &f)
		p.Mode = access.Enforce // the question is what it would refuse
		change = func(set *access.Settings) { set.PutPolicy(&p.Policy) }
	}
	_, stored := c.Store.State.Policy(c.domain, in.Remove)
	switch {
	case in.Policy == nil && in.Remove == "":
		f.add("/policy", "required", "is needed, or the id of a stored policy in remove")
	case in.Policy != nil && in.Remove != "":
		f.add("/remove", "conflict", "cannot go with policy: ask for one change at a time")
	case in.Remove != "" && !stored:
		f.add("/remove", "unknown_policy", "the domain has no such policy: list them")
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	if in.Days == 0 {
		in.Days = previewDays
	}
	var are *access.Rules // of the same moment
	would := c.Store.State.Rules(c.domain, c.now, func(set *access.Settings) {
		are = access.Compile(set)
		change(set)
	})
	if would == nil {
		return nil, notFound("domain")
	}
	now := c.now.UTC().Truncate(time.Second)
	return c.long(func(ctx context.Context, tell progress) (any, error) {
		e, err := c.history.Compare(ctx, c.domain, now.AddDate(0, 0, -in.Days), now, are, would,
			func(p history.Progress) error { return tell(p) })
		if err != nil {
			return nil, err
		}
		return PolicyPreviewed{*e}, nil
	})
}
