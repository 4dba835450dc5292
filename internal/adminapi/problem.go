package adminapi

import (
	"context"
	"errors"
	"net/http"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// problemOf makes any error one that can be answered. What is none of the API's own is an internal
// error, whose text stays here.
func problemOf(err error) *api.Problem {
	var p *api.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, store.ErrUnconfirmed):
		return api.Refuse(http.StatusServiceUnavailable, "unconfirmed",
			"the change was made, but too few replicas confirmed it in time: look before repeating it")
	case errors.Is(err, store.ErrForeign):
		return api.Refuse(http.StatusServiceUnavailable, "store_unavailable",
			"the store is empty, older or another than the one known, and is not believed: see GET /v1/store")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrNewerSchema),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return api.Refuse(http.StatusServiceUnavailable, "store_unavailable",
			"the store cannot take or answer this now: nothing was acknowledged; try again later")
	case errors.Is(err, store.ErrBadCursor):
		return api.Refuse(http.StatusBadRequest, "bad_cursor", "%v", store.ErrBadCursor)
	case errors.Is(err, store.ErrNothingToAdopt):
		return api.Conflict("nothing_to_adopt", "%v", store.ErrNothingToAdopt)
	default:
		return api.Refuse(http.StatusInternalServerError, "internal", "the daemon could not do this; its log says why")
	}
}

func orUnknown(version string) string {
	if version == "" {
		return "unknown"
	}
	return version
}
