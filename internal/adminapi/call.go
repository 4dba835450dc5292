package adminapi

import (
	"bytes"
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// call is one request.
type call struct {
	*server
	op     *operation
	w      http.ResponseWriter
	r      *http.Request
	ctx    context.Context // the request's, for everything that package admin does
	caller *admin.Caller   // nil for public operations
	req    *admin.Request  // of the caller; its options are those of the query
	// Named in the path, or nil.
	domain  *admin.Domain
	account *admin.Account
	logins  *admin.Logins // of the domain, for operations on login records
	query   url.Values
	dryRun  bool
	raw     []byte
	body    *rest.Node // of a JSON body
	done    func()     // returns the permit for a large body; nil for none
}

func (s *server) serve(op *operation, w http.ResponseWriter, r *http.Request) {
	c := &call{server: s, op: op, w: w, r: r, ctx: r.Context()}
	err := c.admit()
	if err == nil && c.caller != nil {
		var giveBack func()
		if giveBack, err = s.working.Take(c.caller.Tenant()); err == nil {
			defer giveBack()
		}
	}
	if err == nil && op.serve == nil { // a handler of its own answers
		if err = c.parameters(); err == nil {
			s.Login.ServeHTTP(w, r)
			return
		}
	}
	var ans *answer
	if err == nil {
		ans, err = c.answer()
	}
	if err == nil {
		s.count(op.ID, ans.write(c))
		return
	}
	p := c.problem(err)
	rest.WriteProblem(w, p)
	s.count(op.ID, p.Status)
}

// problem returns the problem for an error, and logs the errors that callers do not see.
func (c *call) problem(err error) *api.Problem {
	p := admin.ProblemOf(err)
	if p.Status >= http.StatusInternalServerError {
		c.Log.Error("api request", "operation", c.op.ID, "status", p.Status, "error", err)
	}
	return p
}

// admit identifies and authorises the caller.
func (c *call) admit() error {
	if c.op.public {
		return nil
	}
	var err error
	if c.caller, err = c.identify(c.r, time.Now()); err != nil {
		return err
	}
	c.req = c.As(*c.caller, admin.Options{})
	if loaded, _ := c.Store.State.Ready(); !loaded && !c.op.always {
		return store.ErrUnavailable
	}
	return c.authorise()
}

// answer reads the request and executes the operation.
func (c *call) answer() (*answer, error) {
	defer func() {
		clear(c.raw) // it may hold a password
		if c.done != nil {
			c.done()
		}
	}()
	if err := c.parameters(); err != nil {
		return nil, err
	}
	if err := c.read(); err != nil {
		return nil, err
	}
	if err := c.prove(); err != nil {
		return nil, err
	}
	if !c.op.ends {
		return c.op.serve(c)
	}
	domain, account := "", ""
	if c.account != nil {
		account = c.account.Address()
	} else {
		domain = c.domain.Name()
	}
	ending := c.Open.Ending(c.req, domain, account)
	ans, err := c.op.serve(c)
	ended := ending.Settle(c.ctx, err)
	if err != nil {
		return nil, err
	}
	ans.ended = ended
	return ans, nil
}

// prove verifies the second factor that a key of role self sends with a change.
func (c *call) prove() error {
	otp := c.r.Header.Get("Second-Factor")
	if otp == "" || c.account == nil || c.caller.Role != store.RoleSelf || c.r.Method == http.MethodGet {
		return nil
	}
	if err := c.Factors.Of(c.account).Prove(c.ctx, otp); err != nil {
		return err
	}
	c.req.Caller.Proven = c.req.Time
	return nil
}

// authorise checks the caller's role, and resolves the domain or account in the path. Whatever the
// role, a resource out of the caller's reach is not found.
func (c *call) authorise() (err error) {
	inPath := func(name string) bool { return strings.Contains(c.op.Path, "{"+name+"}") }
	name, addr := c.r.PathValue("domain"), c.r.PathValue("address")
	if subject := c.r.PathValue("subject"); strings.Contains(subject, "@") {
		addr = subject
	}
	if inPath("domain") || addr != "" {
		if err := c.req.Reach(name, addr); err != nil {
			return err
		}
	}
	if err := c.caller.May(c.op.roles); err != nil {
		return err
	}
	switch {
	case inPath("address"):
		c.account, err = c.req.Account(addr)
	case strings.Contains(c.op.Path, "{domain}/logins"), strings.Contains(c.op.Path, "{domain}/messages"):
		c.logins, err = c.req.Logins(name)
	case inPath("domain"):
		c.domain, err = c.req.Domain(name)
	}
	return err
}

// parameters reads the query.
func (c *call) parameters() (err error) {
	c.query, err = c.op.ReadQuery(c.r.URL.RawQuery, parameter)
	c.dryRun = c.flag("dry_run")
	if c.req != nil {
		c.req.Options = admin.Options{
			DryRun: c.dryRun, Confirm: c.flag("confirm"), Create: c.flag("create"), RevertAfter: c.duration("revert_after"),
			If: func(exists bool, tag string) error { return matches(c.r.Header, exists, quoted(tag)) },
		}
	}
	return err
}

// flag returns a parameter that is true or false.
func (c *call) flag(name string) bool { return c.query.Get(name) == "true" }

// duration returns a parameter that is a time span, 0 when it is left out.
func (c *call) duration(name string) time.Duration {
	d, _ := time.ParseDuration(c.query.Get(name)) // was validated
	return d
}

// limit returns the number of items of a page.
func (c *call) limit() int {
	n, err := strconv.Atoi(c.query.Get("limit"))
	if err != nil {
		return rest.DefaultLimit // missing: invalid ones were refused
	}
	return n
}

// read reads the body.
func (c *call) read() error {
	if c.op.In == nil {
		return c.readNothing()
	}
	want, most := []string{"application/json"}, int64(rest.MaxBody)
	switch {
	case c.op.CSV():
		want, most = []string{"text/csv"}, rest.MaxLarge
	case c.op.Large:
		most = rest.MaxLarge
	case c.r.Method == http.MethodPatch:
		want = append(want, "application/merge-patch+json")
	}
	kind, params, err := mime.ParseMediaType(c.r.Header.Get("Content-Type"))
	if charset := params["charset"]; err != nil || !slices.Contains(want, kind) || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return api.Refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "send Content-Type: %s in UTF-8", strings.Join(want, " or "))
	}
	if c.raw, err = readAll(c.w, c.r, most); err != nil {
		return err
	}
	if len(c.raw) > rest.MaxBody { // parsed, it takes many times the memory
		if c.done, err = c.large.Take(c.caller.Tenant()); err != nil {
			return err
		}
	}
	if c.op.CSV() {
		return nil
	}
	if c.body, err = rest.Parse(c.raw); err != nil {
		return err
	}
	if c.body.Kind != rest.Object { // null would decode as an empty value
		var f api.Faults
		f.Add("", "wrong_type", "must be an object")
		return f.Err()
	}
	return nil
}

// readNothing reads the body of an operation that has no fields. Clients that send JSON with every
// POST send an empty object.
func (c *call) readNothing() error {
	if c.r.ContentLength == 0 {
		return nil
	}
	body, err := readAll(c.w, c.r, rest.MaxBody)
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	n, err := rest.Parse(body)
	if err != nil || n.Kind != rest.Object || c.r.Method != http.MethodPost {
		return api.Malformed("this request takes no body")
	}
	var f api.Faults
	for _, field := range n.Fields {
		f.Add(api.At("", field.Name[:min(len(field.Name), rest.MaxName)]), "unknown_field", "there is no such field: this request has none")
	}
	return f.Err()
}

// readAll reads a body of known length into one allocation, so that a password in it exists once.
// Its errors are problems.
func readAll(w http.ResponseWriter, r *http.Request, most int64) (body []byte, err error) {
	limited := http.MaxBytesReader(w, r.Body, most)
	if r.ContentLength < 0 || r.ContentLength > most {
		body, err = io.ReadAll(limited)
	} else {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(limited, body)
	}
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return nil, api.Refuse(http.StatusRequestEntityTooLarge, "too_large", "the body is longer than %d bytes", most)
	case err != nil:
		return nil, api.Malformed("the body ended early")
	}
	return body, nil
}

// matches applies the conditions of a request (RFC 9110 section 13.1) to an ETag.
func matches(h http.Header, exists bool, current string) error {
	met := func(header string) bool {
		for tag := range strings.SplitSeq(strings.Join(h.Values(header), ","), ",") {
			if tag = strings.TrimSpace(tag); exists && (tag == "*" || tag == current) {
				return true
			}
		}
		return false
	}
	if len(h.Values("If-Match")) > 0 && !met("If-Match") {
		return api.Refuse(http.StatusPreconditionFailed, "precondition_failed", "the resource has another ETag than If-Match: read it again")
	}
	if len(h.Values("If-None-Match")) > 0 && met("If-None-Match") {
		return api.Refuse(http.StatusPreconditionFailed, "precondition_failed", "the resource exists already, which If-None-Match excludes")
	}
	return nil
}

// decode validates and decodes the body.
func decode[T any](c *call, f *api.Faults) *T { return rest.Decode[T](c.schemas, c.body, f) }

// decoder decodes the body, for use in a transaction.
func decoder[T any](c *call) func(*api.Faults) *T {
	return func(f *api.Faults) *T { return decode[T](c, f) }
}

// patch applies the body as a merge patch.
func patch[T any](c *call) admin.Edit[T] {
	return func(cur *T, f *api.Faults) (*T, error) { return rest.Patch(c.schemas, cur, c.body, f) }
}

// page is the part of a list that the query asks for.
func (c *call) page() admin.Page { return admin.Page{Limit: c.limit(), Cursor: c.query.Get("cursor")} }
