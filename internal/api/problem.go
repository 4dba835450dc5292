package api

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// Problem is a refusal, RFC 9457, with an HTTP status. Code is stable, for programs; texts are for
// people and may change.
type Problem struct {
	Type   string  `json:"type"` // always about:blank
	Title  string  `json:"title"`
	Status int     `json:"status"`
	Code   string  `json:"code"`
	Detail string  `json:"detail"`
	Errors []Fault `json:"errors,omitempty"`
	// RepeatWith lists query parameters, e.g. confirm=true, of which each makes the same request
	// acceptable. No text repeats them: each client shows them in its own words.
	RepeatWith []string `json:"repeat_with,omitempty"`
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

	words *words
}

// words are a detail before it was formatted.
type words struct {
	format string
	args   []any
}

// Words returns the format of the detail and its values, for who says it in another language; "" if it
// was not formatted by [Faults].
func (f Fault) Words() (format string, args []any) {
	if f.words == nil {
		return "", nil
	}
	return f.words.format, f.words.args
}

// OfServer reports whether the cause is the daemon or its store, and not the request.
func (p *Problem) OfServer() bool { return p.Status >= http.StatusInternalServerError }

// Error describes the problem and its faults in one line.
func (p *Problem) Error() string {
	text := p.Title
	if p.Detail != "" {
		text = p.Detail
	}
	for _, f := range p.Errors {
		text += "; " + f.String()
	}
	return text
}

// String is "pointer: detail"; the detail of an imported line names its place itself.
func (f Fault) String() string {
	if f.Pointer == "" || f.Line > 0 {
		return f.Detail
	}
	return f.Pointer + ": " + f.Detail
}

// Refuse returns a problem with an HTTP status and a stable code; the detail is formatted and shown
// to the caller, so it must not contain secrets.
func Refuse(status int, code, format string, args ...any) *Problem {
	return &Problem{
		Type: "about:blank", Title: http.StatusText(status), Status: status, Code: code,
		Detail: fmt.Sprintf(format, args...),
	}
}

// NotFound refuses a resource that does not exist, or that the caller may not see, which must not
// be distinguishable: 404 not_found.
func NotFound(what string) *Problem {
	return Refuse(http.StatusNotFound, "not_found", "there is no such %s", what)
}

// Missing is [NotFound] for resources that need more words than their kind: the text is the whole
// detail. Also 404 not_found.
func Missing(format string, args ...any) *Problem {
	return Refuse(http.StatusNotFound, "not_found", format, args...)
}

// Unavailable refuses an operation that the store does not take now: 503 with a code such as
// store_unavailable. The caller may try again.
func Unavailable(code, format string, args ...any) *Problem {
	return Refuse(http.StatusServiceUnavailable, code, format, args...)
}

// Internal reports an unexpected error: 500 internal. Its text is for the log only; the caller
// reads that the log has the cause.
func Internal() *Problem {
	return Refuse(http.StatusInternalServerError, "internal", "internal error: the log of the daemon has the cause")
}

// BadCursor refuses a cursor that another list or batch returned, or that is altered: 400
// bad_cursor. The list begins again without one.
func BadCursor(format string, args ...any) *Problem {
	return Refuse(http.StatusBadRequest, "bad_cursor", format, args...)
}

// Forbidden refuses an operation that the role of the caller does not allow, whatever the resource:
// 403 forbidden. See [NotFound] for resources out of reach.
func Forbidden(format string, args ...any) *Problem {
	return Refuse(http.StatusForbidden, "forbidden", format, args...)
}

// Unproven refuses an operation until the caller proves a second factor: 403 with a stable code.
func Unproven(code, format string, args ...any) *Problem {
	return Refuse(http.StatusForbidden, code, format, args...)
}

// TooMany refuses an operation that was repeated too often: 429 with a stable code.
func TooMany(code, format string, args ...any) *Problem {
	return Refuse(http.StatusTooManyRequests, code, format, args...)
}

// Conflict refuses an operation that the present state does not allow, such as a name that is
// taken: 409 with a stable code.
func Conflict(code, format string, args ...any) *Problem {
	return Refuse(http.StatusConflict, code, format, args...)
}

// OrRepeat adds parameters of the query, such as "confirm=true", that would make the same request
// acceptable; each client words them for its users.
func (p *Problem) OrRepeat(parameters ...string) *Problem {
	p.RepeatWith = append(p.RepeatWith, parameters...)
	return p
}

// Malformed refuses a request that cannot be read, such as broken JSON: 400 malformed. What can be
// read and is wrong is a fault instead.
func Malformed(format string, args ...any) *Problem {
	return Refuse(http.StatusBadRequest, "malformed", format, args...)
}

// Invalid is the code of the problem, HTTP status 422, that [Faults.Err] returns: errors lists all
// faults of the request.
const Invalid = "invalid"

// maxFaults is the number of faults that one problem lists.
const maxFaults = 500

// Faults collects the faults of a request. Of several at one place only the first is kept, because
// the others follow from it. The zero value is ready to use.
type Faults struct {
	List []Fault
	// Line is the line of an imported file that is being read, from 1; 0 for other requests.
	Line int
	// Under is a JSON pointer that is put before the pointers of the faults that follow.
	Under string

	seen map[string]bool
	more int
}

// Add adds a fault of a field, by its JSON pointer below f.Under and with the present line. Beyond
// 500 faults only their number is kept.
func (f *Faults) Add(pointer, code, format string, args ...any) {
	f.put(Fault{Pointer: f.Under + pointer, Line: f.Line, Code: code, Detail: fmt.Sprintf(format, args...), words: &words{format, args}})
}

// Parameter adds a fault of a parameter of the query or the path, by its name; the detail begins
// with it. The same bound holds.
func (f *Faults) Parameter(name, code, format string, args ...any) {
	f.put(Fault{Parameter: name, Code: code, Detail: fmt.Sprintf("parameter %s: %s", name, fmt.Sprintf(format, args...))})
}

func (f *Faults) put(fault Fault) {
	at := fmt.Sprintf("%d %s %s", fault.Line, fault.Parameter, fault.Pointer)
	if f.seen[at] {
		return
	}
	if f.seen == nil {
		f.seen = map[string]bool{}
	}
	f.seen[at] = true
	if len(f.List) >= maxFaults {
		f.more++
		return
	}
	if fault.Line > 0 {
		fault.Detail = fmt.Sprintf("line %d%s: %s", fault.Line, cellOf(fault.Pointer), fault.Detail)
	}
	f.List = append(f.List, fault)
}

// Has reports whether there is a fault at exactly this pointer, on any line. f.Under is not put
// before it, unlike in [Faults.Within].
func (f *Faults) Has(pointer string) bool {
	return slices.ContainsFunc(f.List, func(fault Fault) bool { return fault.Pointer == pointer })
}

// Within reports whether there is a fault at a pointer below f.Under, or at a field inside of what
// it points to.
func (f *Faults) Within(pointer string) bool {
	pointer = f.Under + pointer
	return slices.ContainsFunc(f.List, func(fault Fault) bool {
		return fault.Pointer == pointer || strings.HasPrefix(fault.Pointer, pointer+"/")
	})
}

// cellOf describes a pointer into an imported line: the column, and from the second entry on the
// entry.
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

// Err returns a problem with status 422 that lists the faults, at most 500 with the number of all,
// or nil if there are none.
func (f *Faults) Err() error {
	if len(f.List) == 0 {
		return nil
	}
	p := Refuse(http.StatusUnprocessableEntity, Invalid, "the request is invalid: errors lists every fault")
	if f.more > 0 {
		p.Detail = fmt.Sprintf("the request has %d faults: errors lists the first %d", len(f.List)+f.more, len(f.List))
	}
	p.Errors = f.List
	return p
}

// At appends a part, a name or an index, to a JSON pointer, and escapes "~" and "/" in it (RFC
// 6901, section 3).
func At(pointer string, part any) string {
	text := fmt.Sprint(part)
	if strings.ContainsAny(text, "~/") {
		text = strings.NewReplacer("~", "~0", "/", "~1").Replace(text)
	}
	return pointer + "/" + text
}
