package admin

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

// PreviewDays is the number of days that a preview covers by default.
const PreviewDays = 30

// Preview is a validated preview. It may take minutes; report is called with its progress, and an
// error of report ends it.
type Preview func(ctx context.Context, report func(api.PreviewProgress) error) (*api.PolicyPreviewed, error)

// PreviewPolicy compares how recorded logins are evaluated by the present rules, and by the rules
// with a policy added, changed or removed.
func (d *Domain) PreviewPolicy(in *api.PolicyPreview, f *api.Faults) (Preview, error) {
	var draft *store.Policy
	if in.Policy != nil {
		draft = d.readDraft(in.Policy, "", f)
		draft.Mode = access.Enforce // the question is what it would refuse
	}
	_, stored := d.Store.State.Policy(d.name, in.Remove)
	switch {
	case in.Policy == nil && in.Remove == "":
		f.Add("/policy", "required", "is needed, or the id of a stored policy in remove")
	case in.Policy != nil && in.Remove != "":
		f.Add("/remove", "conflict", "cannot be combined with policy: preview one change at a time")
	case in.Remove != "" && !stored:
		f.Add("/remove", "unknown_policy", "the domain has no such policy: list them")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	days := in.Days
	if days == 0 {
		days = PreviewDays
	}
	var change history.Change
	change.Would = d.Store.State.Rules(d.name, d.Time, func(set *access.Settings) {
		change.Are = access.Compile(set) // of the same state as the other rules
		change.Others = change.Are
		if draft == nil {
			set.RemovePolicy(in.Remove)
			return
		}
		if _, stored := d.Store.State.Policy(d.name, draft.ID); stored {
			set.RemovePolicy(draft.ID)
			change.Others = change.Are.Recompile(set)
		}
		set.PutPolicy(&draft.Policy)
	})
	if change.Would == nil {
		return nil, api.NotFound("domain")
	}
	now := d.Time.UTC().Truncate(time.Second)
	return func(ctx context.Context, report func(api.PreviewProgress) error) (*api.PolicyPreviewed, error) {
		return d.history().Compare(ctx, d.name, now.AddDate(0, 0, -days), now, change, report)
	}, nil
}
