package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
)

// Operation describes one method of one path.
type Operation struct {
	Method, Path string
	ID           string // OpenAPI's operationId
	Summary      string
	Description  string
	Public       bool     // needs no key
	In           any      // a value of the type of the body: nil for none, a string for text/csv
	InDoc        string   // describes the body
	Out          any      // a value of the type of the response: nil for none, a string for text/plain
	Line         any      // a value of the type of a line, for a client that accepts lines; nil for none
	Query        []string // names of parameters
	Large        bool     // the body may have MaxLarge bytes
	External     bool     // another handler serves it: no dry run, no conditions
	Creates      bool     // also responds 201
	Unavailable  bool     // also responds 503 with its usual body
}

// CSV reports whether the body is text/csv: a table of a spreadsheet, which is not decoded as JSON.
func (op *Operation) CSV() bool { _, ok := op.In.(string); return ok }

// Status is the status of success; operations that create or replace set 201 themselves.
func (op *Operation) Status() int {
	switch {
	case op.Method == http.MethodDelete:
		return http.StatusNoContent
	case strings.HasPrefix(op.ID, "create-"):
		return http.StatusCreated
	default:
		return http.StatusOK
	}
}

// Parameters returns the names of the query parameters, including those that every change has.
func (op *Operation) Parameters() []string {
	if op.Method == http.MethodGet || op.External {
		return op.Query
	}
	return append(slices.Clone(op.Query), "dry_run", "confirm")
}

// Params describes a parameter by its name.
type Params = func(name string) Param

// Param describes a parameter of the query.
type Param struct {
	Doc  string
	Kind ParamKind
	Enum []string
	// Header is a response header that the parameter causes.
	Header, HeaderDoc string
}

// ParamKind is the form of a parameter.
type ParamKind uint8

// The forms of parameters.
const (
	Text ParamKind = iota
	Flag
	Limit
	Time
	IP
	Span
)

const (
	// DefaultLimit is the number of items on a page that does not ask for another by the parameter
	// limit.
	DefaultLimit = 100
	// MaxLimit is the largest number of items on a page; the parameter limit is refused above it,
	// with status 422.
	MaxLimit = 1000

	maxSpan = 7 * 24 * time.Hour
)

// ReadQuery parses and validates a query. Unknown parameters are refused: a misspelt dry_run must
// not change anything.
func (op *Operation) ReadQuery(raw string, params Params) (url.Values, error) {
	query, err := url.ParseQuery(raw)
	if err != nil {
		return nil, api.Malformed("the query cannot be parsed")
	}
	known := op.Parameters()
	var f api.Faults
	for name, values := range query {
		if !slices.Contains(known, name) {
			f.Parameter(name[:min(len(name), MaxName)], "unknown_parameter", "does not exist%s", api.Suggest(name, known))
			continue
		}
		if len(values) > 1 {
			f.Parameter(name, "duplicate", "is given more than once")
			continue
		}
		p := params(name)
		p.check(name, values[0], &f)
	}
	slices.SortFunc(f.List, func(a, b api.Fault) int { return strings.Compare(a.Parameter, b.Parameter) })
	return query, f.Err()
}

func (p *Param) check(name, value string, f *api.Faults) {
	var err error
	switch p.Kind {
	case Flag:
		if value != "true" && value != "false" {
			f.Parameter(name, "not_in_list", "must be true or false")
		}
	case Limit:
		if n, err := strconv.Atoi(value); err != nil || n < 1 || n > MaxLimit {
			f.Parameter(name, "out_of_range", "must be a whole number from 1 to %d", MaxLimit)
		}
	case Time:
		if _, err = time.Parse(time.RFC3339, value); err != nil {
			f.Parameter(name, "invalid_time", "must be a time such as 2026-01-31T09:30:00Z (RFC 3339)")
		}
	case IP:
		if _, err = address.ParseIP(value); err != nil {
			f.Parameter(name, "invalid_network", "%v", err)
		}
	case Span:
		if d, err := time.ParseDuration(value); err != nil || d < time.Second || d > maxSpan {
			f.Parameter(name, "out_of_range", "must be a span from 1s to 168h, such as 90s, 10m or 24h")
		}
	case Text:
		if len(p.Enum) > 0 && !slices.Contains(p.Enum, value) {
			f.Parameter(name, "not_in_list", "must be one of %s", strings.Join(p.Enum, ", "))
		}
	}
}
