package adminapi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/store"
)

// Problem is a refusal, RFC 9457. Code is stable; texts are not.
type Problem struct {
	Type   string  `json:"type"` // always about:blank
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Code   string  `json:"code"`
	Detail string  `json:"detail"`
	Errors []Fault `json:"errors,omitempty"`
	// Referrers counts what still names a resource that was to be deleted, by kind.
	Referrers map[string]int `json:"referrers,omitempty"`
	// Lockout lists whom a change would lock out.
	Lockout *Lockout `json:"lockout,omitempty"`
	// Written counts the accounts that were changed before a batch or an import stopped; Cursor is
	// where the batch can be resumed.
	Written int    `json:"written,omitempty"`
	Cursor  string `json:"cursor,omitempty"`
}

// Fault is one thing wrong with a request. Its detail says what to do, and never repeats a value.
type Fault struct {
	Pointer   string `json:"pointer" doc:"JSON pointer of the field; for an import, slash and column."`
	Parameter string `json:"parameter,omitempty" doc:"Of the query or the path, when the fault is there."`
	Line      int    `json:"line,omitempty" doc:"Of an imported file, from 1."`
	Code      string `json:"code"`
	Detail    string `json:"detail"`
}

// Error says what is wrong in one line.
func (p *Problem) Error() string {
	text := p.Detail
	for _, f := range p.Errors {
		text += "; " + f.Pointer + ": " + f.Detail
	}
	return text
}

func refuse(status int, code, format string, args ...any) *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code,
		Detail: fmt.Sprintf(format, args...),
	}
}

// The refusals that more than one operation gives.
func notFound(what string) *Problem {
	return refuse(http.StatusNotFound, "not_found", "there is no such %s", what)
}

func forbidden(format string, args ...any) *Problem {
	return refuse(http.StatusForbidden, "forbidden", format, args...)
}

func conflict(code, format string, args ...any) *Problem {
	return refuse(http.StatusConflict, code, format, args...)
}

func malformed(format string, args ...any) *Problem {
	return refuse(http.StatusBadRequest, "malformed", format, args...)
}

// problemOf makes any error one that can be answered. What is none of the API's own is an internal
// error, whose text stays here.
func problemOf(err error) *Problem {
	var p *Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, store.ErrUnconfirmed):
		return refuse(http.StatusServiceUnavailable, "unconfirmed",
			"the change was made, but too few replicas confirmed it in time: look before repeating it")
	case errors.Is(err, store.ErrForeign):
		return refuse(http.StatusServiceUnavailable, "store_unavailable",
			"the store is empty, older or another than the one known, and is not believed: see GET /v1/store")
	case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrNewerSchema),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return refuse(http.StatusServiceUnavailable, "store_unavailable",
			"the store cannot take or answer this now: nothing was acknowledged; try again later")
	case errors.Is(err, store.ErrBadCursor):
		return refuse(http.StatusBadRequest, "bad_cursor", "%v", store.ErrBadCursor)
	case errors.Is(err, store.ErrNothingToAdopt):
		return conflict("nothing_to_adopt", "%v", store.ErrNothingToAdopt)
	default:
		return refuse(http.StatusInternalServerError, "internal", "the daemon could not do this; its log says why")
	}
}

func (p *Problem) write(w http.ResponseWriter) {
	switch p.Status {
	case http.StatusUnauthorized:
		w.Header().Set("WWW-Authenticate", "Bearer")
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		w.Header().Set("Retry-After", "5")
	}
	writeJSON(w, "application/problem+json", p.Status, p)
}

// writeJSON answers a body. What cannot be written any more concerns the caller only, who is gone.
func writeJSON(w http.ResponseWriter, contentType string, status int, body any) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(body)
}

// maxFaults bounds what one answer lists.
const maxFaults = 500

// faults collects all that is wrong with a request. Of several at one place the first is kept: the
// others follow from it.
type faults struct {
	list []Fault
	seen map[string]bool
	line int // of an import; 0 elsewhere
	more int
	// under is the pointer of the part that is being read: what is noted of it is below.
	under string
}

func (f *faults) add(pointer, code, format string, args ...any) {
	f.put(Fault{Pointer: f.under + pointer, Line: f.line, Code: code, Detail: fmt.Sprintf(format, args...)})
}

func (f *faults) parameter(name, code, format string, args ...any) {
	f.put(Fault{Parameter: name, Code: code, Detail: fmt.Sprintf("parameter %s: %s", name, fmt.Sprintf(format, args...))})
}

func (f *faults) put(fault Fault) {
	at := fmt.Sprintf("%d %s %s", fault.Line, fault.Parameter, fault.Pointer)
	if f.seen[at] {
		return
	}
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[at] = true
	if len(f.list) >= maxFaults {
		f.more++
		return
	}
	if fault.Line > 0 {
		fault.Detail = fmt.Sprintf("line %d%s: %s", fault.Line, cellOf(fault.Pointer), fault.Detail)
	}
	f.list = append(f.list, fault)
}

// has reports whether a fault was noted at a place.
func (f *faults) has(pointer string) bool {
	return slices.ContainsFunc(f.list, func(fault Fault) bool { return fault.Pointer == pointer })
}

// within reports whether a fault was noted at a place of the part that is being read, or below it:
// what follows from it alone needs no telling.
func (f *faults) within(pointer string) bool {
	pointer = f.under + pointer
	return slices.ContainsFunc(f.list, func(fault Fault) bool {
		return fault.Pointer == pointer || strings.HasPrefix(fault.Pointer, pointer+"/")
	})
}

// cellOf words where in an imported line a pointer leads: to a column, and beyond its first entry
// to which one.
func cellOf(pointer string) string {
	column, entry, _ := strings.Cut(strings.TrimPrefix(pointer, "/"), "/")
	switch i, err := strconv.Atoi(entry); {
	case column == "":
		return ""
	case err == nil && i > 0:
		return fmt.Sprintf(", %s, entry %d", column, i+1)
	default:
		return ", " + column
	}
}

// err returns the refusal for what was collected, or nil.
func (f *faults) err() error {
	if len(f.list) == 0 {
		return nil
	}
	p := refuse(http.StatusUnprocessableEntity, "invalid", "the request has faults; errors lists them all")
	if f.more > 0 {
		p.Detail = fmt.Sprintf("the request has %d faults; errors lists the first %d", len(f.list)+f.more, len(f.list))
	}
	p.Errors = f.list
	return p
}

// at appends a part to a JSON pointer (RFC 6901).
func at(pointer string, part any) string {
	text := fmt.Sprint(part)
	if strings.ContainsAny(text, "~/") {
		text = strings.NewReplacer("~", "~0", "/", "~1").Replace(text)
	}
	return pointer + "/" + text
}
