package admin

import (
	"context"
	"errors"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// ProblemOf returns the problem for an error of this package. Unknown errors are internal: their
// text is for the log and not in the problem.
func ProblemOf(err error) *api.Problem {
	var p *api.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, store.ErrUnconfirmed):
		return api.Unavailable("unconfirmed", "the change was made, but too few replicas confirmed it in time: check the result before repeating it")
	case errors.Is(err, store.ErrDamaged):
		return api.Unavailable("damaged_store",
			"the store is damaged: documents are missing, altered or added, or a key has the wrong type; nothing was changed: run 'drawbridge store repair' against a daemon that was running before the damage; without one, restore a backup of Redis, or accept the documents that are left with 'drawbridge store adopt'")
	case errors.Is(err, store.ErrForeign):
		return api.Unavailable("store_unavailable", "the store is empty, older than, or other than the known one, and is not accepted: 'drawbridge store status' shows why, 'drawbridge store adopt' accepts it")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrNewerSchema),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return api.Unavailable("store_unavailable", "the store is unavailable: nothing was acknowledged; try again later")
	case errors.Is(err, store.ErrBadCursor):
		return api.BadCursor("%v", store.ErrBadCursor)
	case errors.Is(err, store.ErrNothingToRepair):
		return api.Conflict("nothing_to_repair", "%v", store.ErrNothingToRepair)
	case errors.Is(err, store.ErrCannotRepair):
		return api.Conflict("cannot_repair", "%v", store.ErrCannotRepair)
	case errors.Is(err, store.ErrNothingToAdopt):
		return api.Conflict("nothing_to_adopt", "%v", store.ErrNothingToAdopt)
	default:
		return api.Internal()
	}
}
