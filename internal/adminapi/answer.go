package adminapi

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// answer is the result of an operation.
type answer struct {
	status    int    // that of the operation if zero
	tag       string // becomes the ETag, also of a dry run: the revision of a document
	rev       uint64 // becomes the ETag if versioned
	versioned bool
	pending   *api.PendingRevert // named by the header Revert
	ended     *api.SessionsEnded // because of the change; nil for none
	location  string
	body      any              // none for nil
	wipe      []byte           // cleared after the response
	handler   http.HandlerFunc // responds instead, with another type than JSON
}

// reported answers with a view without a revision.
func reported[V any](v *V, err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	return &answer{body: v}, nil
}

// shown answers a resource with its revision.
func shown[V any](r *admin.Result[V], err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	return &answer{body: &r.View, rev: r.Rev, versioned: true, pending: r.Pending}, nil
}

// created answers a resource that was created at a path, or changed.
func created[V any](path string, r *admin.Result[V], err error) (*answer, error) {
	ans, err := shown(r, err)
	if err == nil && r.Created {
		ans.status, ans.location = http.StatusCreated, path
	}
	return ans, err
}

// deleted answers a resource that was deleted; only a dry run shows it.
func deleted[V any](r *admin.Result[V], err error) (*answer, error) {
	if err != nil {
		return nil, err
	}
	return &answer{body: &r.View, pending: r.Pending}, nil
}

// write responds. Only here are headers set: a transaction may run several times.
func (ans *answer) write(c *call) (status int) {
	if ans.handler != nil {
		ans.handler(c.w, c.r)
		return http.StatusOK
	}
	h := c.w.Header()
	status = ans.status
	if ans.tag != "" {
		h.Set("ETag", quoted(ans.tag))
	}
	switch {
	case c.dryRun:
		h.Set("Dry-Run", "true")
		status = http.StatusOK
	case ans.versioned:
		h.Set("ETag", quoted(strconv.FormatUint(ans.rev, 10)))
	}
	if !c.dryRun { // which has made nothing that could be named
		if ans.pending != nil {
			h.Set("Revert", revertPath(c.domain.Name(), ans.pending.ID))
		}
		if ans.location != "" {
			h.Set("Location", ans.location)
		}
	}
	if status == 0 {
		status = c.op.Status()
	}
	if ans.ended != nil {
		h.Set("Sessions", fmt.Sprintf("ended=%d, failed=%d, unreachable=%d", ans.ended.Ended, ans.ended.Failed, ans.ended.Unreachable))
		ans.body = withSessions{ans.body, ans.ended}
	}
	if status == http.StatusNoContent {
		h.Set("Cache-Control", "no-store")
		c.w.WriteHeader(status)
		return status
	}
	rest.WriteJSON(c.w, "application/json", status, ans.body)
	clear(ans.wipe)
	return status
}

// withSessions adds the member sessions to an object.
type withSessions struct {
	body     any
	sessions *api.SessionsEnded
}

// MarshalJSON implements [json.Marshaler].
func (w withSessions) MarshalJSON() ([]byte, error) {
	body, err := json.Marshal(w.body)
	if err != nil || len(body) < 3 || body[0] != '{' {
		return body, err
	}
	ended, err := json.Marshal(w.sessions)
	return slices.Concat([]byte(`{"sessions":`), ended, []byte(","), body[1:]), err
}

func quoted(tag string) string { return `"` + tag + `"` }
