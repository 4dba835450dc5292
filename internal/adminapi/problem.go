package adminapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// problemOf returns the problem for an error. Unknown errors are internal: their text is logged and
// not sent.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, store.ErrUnconfirmed):
		return api.Refuse(http.StatusServiceUnavailable, "unconfirmed",
			"the change was made, but too few replicas confirmed it in time: check the result before repeating it")
	case errors.Is(err, store.ErrDamaged):
		return api.Refuse(http.StatusServiceUnavailable, "damaged_store",
			"the store is damaged: documents are missing, altered or added, or a key has the wrong type; nothing was changed: run 'drawbridge store repair' against a daemon that was running before the damage; without one, restore a backup of Redis, or accept the documents that are left with 'drawbridge store adopt'")
	case errors.Is(err, store.ErrForeign):
		return api.Refuse(http.StatusServiceUnavailable, "store_unavailable",
			"the store is empty, older than, or other than the known one, and is not accepted: see GET /v1/store")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrNewerSchema),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return api.Refuse(http.StatusServiceUnavailable, "store_unavailable",
			"the store is unavailable: nothing was acknowledged; try again later")
	case errors.Is(err, store.ErrBadCursor):
		return api.Refuse(http.StatusBadRequest, "bad_cursor", "%v", store.ErrBadCursor)
	case errors.Is(err, store.ErrNothingToRepair):
		return api.Conflict("nothing_to_repair", "%v", store.ErrNothingToRepair)
	case errors.Is(err, store.ErrCannotRepair):
		return api.Conflict("cannot_repair", "%v", store.ErrCannotRepair)
	case errors.Is(err, store.ErrNothingToAdopt):
		return api.Conflict("nothing_to_adopt", "%v", store.ErrNothingToAdopt)
	default:
		return api.Refuse(http.StatusInternalServerError, "internal", "internal error: the log of the daemon has the cause")
	}
}

func orUnknown(version string) string {
	if version == "" {
		return "unknown"
	}
	return version
}
