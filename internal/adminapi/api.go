// Package adminapi is the administrators' HTTP API: rules, credentials, records and the store's
// state under /v1, as JSON.
//
//	PATCH /v1/accounts/ann@example.org HTTP/1.1
//	Authorization: Bearer dbk_…
//	If-Match: "41"
//	Content-Type: application/json
//
//	{"protocols":{"pop3":false}}
//
//	HTTP/1.1 200 OK
//	ETag: "42"
//
//	{"address":"ann@example.org","suspended":false,"protocols":{"pop3":false}, …}
//
// Every operation is one line of the table in operations.go: who may call it, what it takes and
// answers. The router and /openapi.json are both made from that table, and bodies are held against
// the schemas that /openapi.json shows.
//
// # Who may
//
// A key is sent as "Authorization: Bearer". On the unix socket, root and the daemon's own user are
// administrators without a key, unless the request carries Authorization, Cookie, Origin, Referer,
// Sec-*, Forwarded, Via, X-Real-IP or X-Forwarded-*, which say that somebody else may speak through
// them. Roles: admin; read (every GET, and the tests and previews of policies); login (POST
// /v1/login); domain (its domain); self (one account: its secure passwords, its own switch, its
// login records). What is out of a key's reach is 404, what it may not do within its reach 403. A
// key makes only weaker keys: admin any but admin, domain those of its accounts; one that expires
// makes none that lasts longer. /livez, /readyz, /metrics and /openapi.json are open to whoever
// reaches the listener: they name no account.
//
// # Writes
//
// A write is validated on the state that it changes, is durable, and holds on this daemon before it
// is answered. If-Match makes it conditional on the resource's ETag, "If-None-Match: *" on there
// being none. With ?dry_run=true the answer is 200 with the object as it would be (or would have
// been, for DELETE) and a header Dry-Run, and nothing changes. PATCH is RFC 7396: null means
// inherit, arrays are replaced.
//
// A whole domain is written as one document (GET …/export, POST …/apply). The answer is the plan,
// and a dry run's has the ETag that the change is to be made conditional on. A document with the
// revision that it was exported with does not overwrite what others changed since.
//
// A change of policies or blocked addresses that would lock people out is refused (409 lockout)
// unless it says ?confirm=true or ?revert_after=10m. With the latter it is undone by itself unless
// it is confirmed in time: pending and the header Revert say when and where (POST
// …/reverts/{id}/confirm).
//
// # What takes long
//
// A preview of a long history may take minutes. "Accept: application/x-ndjson" is answered with
// lines that tell how far it is, a few a second, and a last one with the result, or the problem
// that came up after the status was sent:
//
//	{"progress":{"examined":24000,"at":"2026-11-20T08:15:00Z","share":0.16}}
//	{"result":{"since":"2026-10-26T09:00:00Z","examined":150000, …}}
//
// Without it there is the result alone. Either ends when the caller goes away.
//
// A batch is answered in lines as well, each chunk of it once it is durable:
//
//	{"item":{"address":"ann@example.org","result":"changed","changes":{"protocols.pop3":[null,false]}}}
//	{"progress":{"done":5000,"selected":12000,"cursor":"…"}}
//	{"result":{"selected":12000,"changed":1, …}}
//
// When the caller goes away it stops behind a chunk, and ?resume= with the cursor goes on from
// there. Without lines it runs to its end.
//
// # Diagnostics
//
// Refusals are RFC 9457 problem documents. 422 lists all faults at once, each with a JSON pointer,
// a code and what to do; no refusal repeats a value.
//
//	400 malformed                the body or the query cannot be read
//	400 bad_cursor               the cursor was not handed out by this list, or for this batch
//	401 unauthorized, key_expired
//	403 forbidden                the key's role does not go that far
//	404 not_found                also for what belongs to others
//	405 method_not_allowed       Allow says which are
//	409 exists                   the name is taken
//	409 limit                    there are as many as there may be
//	409 in_use                   referrers counts by what
//	409 confirm_required         detail says what would be deleted: say ?confirm=true
//	409 suspended                lift the suspension before deleting the account
//	409 unknown_account          nothing has this address, and accounts are listed: say ?create=true
//	409 secure_password_limit    revoke one first
//	409 lockout                  it would lock people out; lockout.who lists them: say ?confirm=true or ?revert_after=
//	409 next_passdb              mailbox passwords are not kept here
//	409 too_large                one transaction would become too big
//	409 interrupted              a batch, an import or a document was overtaken by another change half way: resume it, or run it again
//	409 nothing_to_adopt
//	409 nothing_to_repair        the store is not damaged
//	409 cannot_repair            this daemon does not hold the last change in memory
//	409 stale                    what a document would change was changed since it was exported
//	409 regions_unavailable      there is no database of regions to look in
//	412 precondition_failed      the ETag is another by now
//	413 too_large                the body is over 1 MiB (imports and documents: 16 MiB)
//	415 unsupported_media_type
//	421 misdirected              the Host header names another site: without a key, say localhost, drawbridge or an IP address
//	422 invalid
//	500 internal                 the log says why
//	429 busy                     a few requests that take long, or have bodies over 1 MiB, or 16 of one domain's keys, run already; Retry-After
//	503 damaged_store            documents of the store are missing or altered; nothing was changed
//	503 store_unavailable        nothing was acknowledged; Retry-After
//	503 unconfirmed              made, but too few replicas confirmed it
//
// # Metrics
//
//	drawbridge_decisions_total{protocol,outcome,reason}  logins decided
//	drawbridge_api_requests_total{operation,code}        requests answered here
//	drawbridge_store_up                                  1 when changes are taken
//	drawbridge_store_evicting                            1 when Redis may delete rules
//	drawbridge_store_synced_timestamp_seconds            when the store last agreed
//	drawbridge_domains, drawbridge_accounts              records held
//	drawbridge_build_info{version}
//
// and the Go runtime's and the process's own.
//
// # What it does not do
//
// It serves no page, sets no cookie, answers no cross-origin request, and takes no key from a URL.
// It does not limit rates: whoever has no key learns nothing, and a key has 160 random bits.
package adminapi

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Limits of requests that are processed at the same time.
const (
	// maxLarge is the number of bodies over rest.MaxBody, maxLargeEach that of one tenant.
	maxLarge, maxLargeEach = 2, 1
	// maxEach is the number of requests of one tenant: a body of 1 MiB takes 40 times that.
	maxEach = 16
)

// API is the parts and settings of the HTTP API. All are needed but DefaultDomain, Services,
// Version, PeerUID, Guard, Regions and Metrics.
type API struct {
	Store   *store.Store
	Journal Journal
	// Forget removes the login records and last uses of a deleted domain and its accounts.
	Forget        func(ctx context.Context, domain string, accounts []string) error
	Pepper        *credential.Pepper
	Hasher        *credential.Hasher
	Log           hclog.Logger
	Site          access.Site
	DefaultDomain string
	Services      map[string]string // further service names → protocol
	Version       string
	// Login serves POST /v1/login, for roles admin and login.
	Login http.Handler
	// Explain decides, step by step, a login that nobody makes: the credential is the id of a
	// secure password of the account, "" its mailbox password; rules, unless nil, take the place of
	// its domain's.
	Explain func(l *access.Login, credential string, rules *access.Rules) access.Decision
	Guard   guard.Limits
	Regions *region.Source // nil for none
	// Available reports whether decisions are possible now.
	Available func() bool
	// PeerUID tells who is at the other end of a unix socket; without it everybody needs a key. See
	// [API.ConnContext].
	PeerUID func(net.Conn) (uid uint32, ok bool)
	Metrics *Metrics
}

// Journal reads what daemons store beside the rules. The errors wrap those of store.
type Journal interface {
	Records(ctx context.Context, q store.RecordQuery) (items []store.LoginRecord, next string, err error)
	// Record returns one login record of a domain, or [store.ErrNoRecord].
	Record(ctx context.Context, domain, id string) (*store.LoginRecord, error)
	// LastUses returns when the secure passwords of an account were last used, by their ids.
	LastUses(ctx context.Context, account string) (map[string]store.LastUse, error)
	Audit(ctx context.Context, q store.AuditQuery) (items []store.AuditEntry, next string, err error)
}

// server is an API with what is made of it once.
type server struct {
	*API
	schemas  rest.Schemas
	document []byte // /openapi.json
	history  *history.History
	guard    *guard.Guard
	lasting  *rest.Limiter // of long operations
	large    *rest.Limiter // of large bodies
	working  *rest.Limiter // of one domain's keys, or one account's, whatever they ask
	// names makes changes of domain names take turns on this daemon: they go through two shards.
	names sync.Mutex
}

// Handler returns what an API listener serves.
func (a *API) Handler() (http.Handler, error) {
	s := &server{
		API: a, schemas: rest.NewSchemas(), lasting: rest.NewLimiter(maxLong, maxLongEach), large: rest.NewLimiter(maxLarge, maxLargeEach), working: rest.NewLimiter(math.MaxInt, maxEach),
		history: &history.History{State: a.Store.State, Records: a.Journal.Records, Region: a.Regions.Lookup},
	}
	s.guard = &guard.Guard{Limits: a.Guard, State: a.Store.State, History: s.history, Exempt: exempt}
	mux := http.NewServeMux()
	ops := operations()
	for i := range ops {
		op := &ops[i]
		mux.HandleFunc(op.Method+" "+op.Path, func(w http.ResponseWriter, r *http.Request) { s.serve(op, w, r) })
	}
	doc, err := json.MarshalIndent(s.openAPI(ops), "", "  ")
	if err != nil {
		return nil, fmt.Errorf("making the OpenAPI document: %w", err)
	}
	s.document = doc
	if a.Metrics != nil {
		if err := a.Metrics.watch(a.Version, a.Store); err != nil {
			return nil, fmt.Errorf("registering metrics: %w", err)
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := misdirected(r)
		switch {
		case p != nil:
		case routes(mux, r, r.Method):
			mux.ServeHTTP(w, r)
			return
		default:
			p = unrouted(mux, w, r)
		}
		rest.WriteProblem(w, p)
		s.Metrics.request("none", p.Status)
	}), nil
}

// openAPI describes the operations, and completes the schemas that bodies are validated against.
func (s *server) openAPI(ops []operation) any {
	list := make([]*rest.Operation, len(ops))
	for i := range ops {
		op := &ops[i]
		op.Public, op.External = op.roles&forAnyone != 0, op.serve == nil
		if !op.Public {
			op.Description = "Roles: " + op.roles.String() + "."
		}
		list[i] = &op.Operation
	}
	return rest.Document(list, parameter, s.schemas, orUnknown(s.Version))
}

// routes reports whether there is an operation for a request. Left alone, the mux would answer in
// plain text, and redirect paths that it takes for another's spelling, by a handler that is none of
// ours.
func routes(mux *http.ServeMux, r *http.Request, method string) bool {
	h, pattern := mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host})
	_, ours := h.(http.HandlerFunc)
	return ours && pattern != ""
}

func unrouted(mux *http.ServeMux, w http.ResponseWriter, r *http.Request) *api.Problem {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
		if routes(mux, r, method) {
			allowed = append(allowed, method)
		}
	}
	if len(allowed) == 0 {
		return api.Refuse(http.StatusNotFound, "not_found", "nothing exists at this path: GET /openapi.json lists all operations")
	}
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	return api.Refuse(http.StatusMethodNotAllowed, "method_not_allowed", "use %s here", strings.Join(allowed, " or "))
}

// call is one request.
type call struct {
	*server
	op      *operation
	w       http.ResponseWriter
	r       *http.Request
	ctx     context.Context // the request's; that of a write does not end with the connection
	now     time.Time
	id      *identity
	domain  string // canonical and managed; "" when the path names neither domain nor account
	account string // canonical
	query   url.Values
	dryRun  bool
	raw     []byte
	body    *rest.Node // of a JSON body
	planned planned
	done    func() // gives back the turn of a large body; nil for none
}

// planned is what a domain would have, where a document is judged that makes it so. A nil map
// stands for what the domain has now.
type planned struct {
	departments map[string]bool   // by path
	policies    map[string]string // the id by the name, as [foldName] spells it
}

// answer is the result of an operation.
type answer struct {
	status   int    // the operation's own when zero
	rev      uint64 // becomes the ETag when etag is set
	etag     bool
	pending  *api.PendingRevert // named by the header Revert
	tag      string             // an ETag that is no revision's; that of a dry run too, which the change can be made conditional on
	location string
	body     any              // none for nil
	wipe     []byte           // once it is answered
	handler  http.HandlerFunc // answers instead; what is no JSON of ours
}

func found(rev uint64, body any) *answer { return &answer{rev: rev, etag: true, body: body} }

func (s *server) serve(op *operation, w http.ResponseWriter, r *http.Request) {
	c := &call{server: s, op: op, w: w, r: r, ctx: r.Context(), now: time.Now()}
	if op.Method != http.MethodGet {
		c.ctx = context.WithoutCancel(c.ctx) // what goes through several changes is not left half done
	}
	err := c.admit()
	if err == nil && c.id != nil {
		var giveBack func()
		if giveBack, err = s.working.Take(c.id.tenant()); err == nil {
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
		s.Metrics.request(op.ID, ans.write(c))
		return
	}
	p := c.problem(err)
	rest.WriteProblem(w, p)
	s.Metrics.request(op.ID, p.Status)
}

// problem returns the problem for an error, and logs the errors that callers do not see.
func (c *call) problem(err error) *api.Problem {
	p := problemOf(err)
	if p.Status >= http.StatusInternalServerError {
		c.Log.Error("api request", "operation", c.op.ID, "status", p.Status, "error", err)
	}
	return p
}

func (ans *answer) write(c *call) (status int) {
	if ans.handler != nil {
		ans.handler(c.w, c.r)
		return http.StatusOK
	}
	h := c.w.Header()
	status = ans.status
	if ans.tag != "" {
		h.Set("ETag", ans.tag)
	}
	switch {
	case c.dryRun:
		h.Set("Dry-Run", "true")
		status = http.StatusOK
	case ans.etag:
		h.Set("ETag", etag(ans.rev))
	}
	if ans.pending != nil && !c.dryRun { // a dry run has no revert that could be confirmed
		h.Set("Revert", revertPath(c.domain, ans.pending.ID))
	}
	if ans.location != "" && !c.dryRun {
		h.Set("Location", ans.location)
	}
	if status == 0 {
		status = c.op.Status()
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

// admit identifies and authorises the caller.
func (c *call) admit() error {
	if c.op.roles&forAnyone != 0 {
		return nil
	}
	var err error
	if c.id, err = c.identify(c.r, c.now); err != nil {
		return err
	}
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
	return c.op.serve(c)
}

// authorise resolves the domain or account in the path, and checks the caller's role. Resources out
// of reach are reported as not found.
func (c *call) authorise() error {
	var what string
	var malformedAddress error
	switch {
	case strings.Contains(c.op.Path, "{domain}"):
		what = "domain"
		c.domain, _ = address.ParseDomain(c.r.PathValue("domain")) // "" is managed by nobody
	case strings.Contains(c.op.Path, "{address}"):
		what = "account"
		addr, err := address.Parse(c.r.PathValue("address"), c.DefaultDomain)
		malformedAddress = err
		c.account = c.Store.State.Canonical(addr)
		c.domain = address.Domain(c.account)
	}
	self := c.id.role == store.RoleSelf && what == "account" && c.account != c.id.account
	if what != "" && malformedAddress == nil && (!c.id.reaches(c.domain) || self) {
		return api.NotFound(what)
	}
	if c.id.role != store.RoleAdmin && c.op.roles&rolesOf(c.id.role) == 0 {
		return api.Forbidden("a key of role %s may not do this", c.id.role)
	}
	if malformedAddress != nil {
		var f api.Faults
		f.Parameter("address", "invalid_address", "%v", malformedAddress)
		return f.Err()
	}
	if what == "" {
		return nil
	}
	if _, managed := c.Store.State.Domain(c.domain); managed {
		return nil
	}
	if of, ok := c.Store.State.ResolveDomain(c.domain); ok {
		return api.Refuse(http.StatusNotFound, "not_found", "this is an alias domain of %s: use that name", of)
	}
	return api.Refuse(http.StatusNotFound, "not_found", "the domain is not managed: create it first")
}

// parameters reads the query.
func (c *call) parameters() (err error) {
	c.query, err = c.op.ReadQuery(c.r.URL.RawQuery, parameter)
	c.dryRun = c.flag("dry_run")
	return err
}

// flag returns a parameter that is true or false.
func (c *call) flag(name string) bool { return c.query.Get(name) == "true" }

// duration returns a parameter that is a time span, 0 when it is left out.
func (c *call) duration(name string) time.Duration {
	d, _ := time.ParseDuration(c.query.Get(name)) // was checked
	return d
}

// limit returns how many items a list is to have.
func (c *call) limit() int {
	n, err := strconv.Atoi(c.query.Get("limit"))
	if err != nil {
		return rest.DefaultLimit // left out: anything else was refused
	}
	return n
}

// read reads the body.
func (c *call) read() error {
	if c.op.In == nil {
		if c.r.ContentLength > 0 {
			return api.Malformed("this request takes no body")
		}
		return nil
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
		var long *http.MaxBytesError
		if errors.As(err, &long) {
			return api.Refuse(http.StatusRequestEntityTooLarge, "too_large", "the body is longer than %d bytes", most)
		}
		return api.Malformed("the body ended early")
	}
	if len(c.raw) > rest.MaxBody { // read, it takes many times the memory
		if c.done, err = c.large.Take(c.id.tenant()); err != nil {
			return err
		}
	}
	if c.op.CSV() {
		return nil
	}
	if c.body, err = rest.Parse(c.raw); err != nil {
		return err
	}
	if c.body.Kind != rest.Object { // null would stand for a value that has nothing in it
		var f api.Faults
		f.Add("", "wrong_type", "must be an object")
		return f.Err()
	}
	return nil
}

// readAll reads a body into one piece of memory when its length is known, so that a password in it
// is in one place only.
func readAll(w http.ResponseWriter, r *http.Request, most int64) ([]byte, error) {
	limited := http.MaxBytesReader(w, r.Body, most)
	if r.ContentLength < 0 || r.ContentLength > most {
		return io.ReadAll(limited)
	}
	body := make([]byte, r.ContentLength)
	_, err := io.ReadFull(limited, body)
	return body, err
}

// change makes one change of a shard as the caller.
func (c *call) change(shard store.Shard, f func(*store.Change) error) error {
	return c.Store.Update(c.ctx, shard, c.id.actor, c.dryRun, f)
}

// audit says what a change is, for the record.
func audit(ch *store.Change, action, domain, target string) {
	ch.Audit.Action, ch.Audit.Domain, ch.Audit.Target = action, domain, target
}

func etag(rev uint64) string { return quoted(strconv.FormatUint(rev, 10)) }

func quoted(tag string) string { return `"` + tag + `"` }

// match holds the request's conditions against a resource, or against there being none.
func (c *call) match(exists bool, rev uint64) error { return c.matchTag(exists, etag(rev)) }

// matchTag holds the request's conditions (RFC 9110 section 13.1) against an ETag.
func (c *call) matchTag(exists bool, current string) error {
	met := func(header string) bool {
		for tag := range strings.SplitSeq(strings.Join(c.r.Header.Values(header), ","), ",") {
			if tag = strings.TrimSpace(tag); exists && (tag == "*" || tag == current) {
				return true
			}
		}
		return false
	}
	if len(c.r.Header.Values("If-Match")) > 0 && !met("If-Match") {
		return api.Refuse(http.StatusPreconditionFailed, "precondition_failed", "the resource has another ETag than If-Match: read it again")
	}
	if len(c.r.Header.Values("If-None-Match")) > 0 && met("If-None-Match") {
		return api.Refuse(http.StatusPreconditionFailed, "precondition_failed", "the resource exists already, which If-None-Match excludes")
	}
	return nil
}

// cursorOf hides a name in a cursor, so that nobody builds on what it is.
func cursorOf(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

// after returns the name behind which a list goes on.
func (c *call) after() (string, error) {
	name, err := base64.RawURLEncoding.DecodeString(c.query.Get("cursor"))
	if err != nil {
		return "", store.ErrBadCursor
	}
	return string(name), nil
}

// listed answers one page of what is sorted by its name, of which all that there is is at hand.
func listed[D, V any](c *call, docs []store.Revised[D], name func(*D) string, view func(*D) V) (*answer, error) {
	after, err := c.after()
	if err != nil {
		return nil, err
	}
	page := api.List[V]{Items: []V{}}
	last := ""
	for _, d := range docs {
		switch is := name(d.Doc); {
		case is <= after:
		case len(page.Items) == c.limit():
			page.Next = cursorOf(last)
			return &answer{body: page}, nil
		default:
			page.Items, last = append(page.Items, view(d.Doc)), is
		}
	}
	return &answer{body: page}, nil
}

// paged cuts a list that was read with one item more than wanted, and makes the cursor of the next
// page from the last item's name.
func paged[T any](items []T, limit int, name func(T) string) api.List[T] {
	if len(items) <= limit {
		return api.List[T]{Items: items}
	}
	items = items[:limit]
	return api.List[T]{Items: items, Next: cursorOf(name(items[limit-1]))}
}
