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
// Every operation is one line of the table in operations.go: who may call it, its input and its
// output. The router and /openapi.json are both made from that table, and bodies are validated
// against the schemas that /openapi.json shows. What an operation does is in internal/admin, which
// knows no HTTP: handlers decode the request, call it, and answer.
//
// # Roles
//
// A key is sent as "Authorization: Bearer". On the unix socket, root and the daemon's own user are
// administrators without a key, unless the request carries Authorization, Cookie, Origin, Referer,
// Sec-*, Forwarded, Via, X-Real-IP or X-Forwarded-*, which say that somebody else may speak through
// them. Roles: admin; read (every GET, and the tests and previews of policies); login (POST
// /v1/login); domain (its domain); self (one account: its secure passwords, its own switch, its
// login records). A resource out of a key's reach is 404, an operation that its role does not allow
// 403. A key creates only weaker keys: admin any but admin, domain those of its accounts; a key that expires
// creates none that lasts longer. Where the account has a second factor, a key of role self needs one
// of its codes in the header Second-Factor to create a secure password, to switch them off, and to
// change second factors; the code is used up. /livez, /readyz, /metrics and /openapi.json need no key: they
// name no account.
//
// # Changes
//
// A change is validated on the state that it changes. When it is answered it is durable, and this
// daemon applies it. If-Match makes it conditional on the resource's ETag, "If-None-Match: *" on
// its absence. With ?dry_run=true nothing changes: the answer is 200 with a header Dry-Run and the
// resource as it would be (for DELETE: as it is). PATCH is RFC 7396: null means inherit, arrays are
// replaced.
//
// A change that ends open sessions of Dovecot waits for them, for at most two seconds. Its answer
// has the header "Sessions: ended=2, failed=0, unreachable=0" and, if it has a body, a member
// sessions with the same counts. A dry run of enforcement, switches or suspension has cut_off:
// whose logins of the last 30 days it would refuse, and how many open sessions it would end.
//
// A whole domain is written as one document (GET …/export, POST …/apply). The answer is the plan;
// that of a dry run has the ETag for If-Match of the change. A document with the revision that it
// was exported with does not overwrite what others changed since.
//
// A change of policies or blocked addresses that would lock people out is refused (409 lockout)
// without ?confirm=true or ?revert_after=10m. The latter reverts the change unless it is confirmed
// in time: pending and the header Revert say when and where (POST …/reverts/{id}/confirm).
//
// # Long operations
//
// A preview of a long history may take minutes. "Accept: application/x-ndjson" is answered with a
// few lines of progress per second, and a last line with the result, or the problem that occurred
// after the status was sent:
//
//	{"progress":{"examined":24000,"at":"2026-11-20T08:15:00Z","share":0.16}}
//	{"result":{"since":"2026-10-26T09:00:00Z","examined":150000, …}}
//
// Without it there is the result alone. Both end when the caller goes away.
//
// A batch is answered in lines as well, each chunk of it once it is durable:
//
//	{"item":{"address":"ann@example.org","result":"changed","changes":{"protocols.pop3":[null,false]}}}
//	{"progress":{"done":1000,"selected":12000,"cursor":"…"}}
//	{"result":{"selected":12000,"changed":1, …}}
//
// When the caller goes away it stops after a chunk, and ?resume= with the cursor continues. Without
// lines it runs to its end.
//
// # Diagnostics
//
// Refusals are RFC 9457 problem documents. 422 lists all faults at once, each with a JSON pointer,
// a code and what to do; no refusal repeats a secret. repeat_with lists query parameters with which
// the same request would be accepted.
//
//	400 malformed                the body or the query cannot be read
//	400 bad_cursor               the cursor is of another list or batch
//	401 unauthorized, key_expired
//	403 forbidden                the key's role does not allow it
//	403 second_factor_required   send the header Second-Factor, or set up a second factor
//	403 second_factor_refused    the code or the passkey is not accepted
//	404 not_found                also for resources out of the key's reach
//	405 method_not_allowed       the header Allow lists the methods
//	409 exists                   the name is taken
//	409 limit                    the maximum number is reached
//	409 in_use                   referrers counts by what
//	409 cannot_send              the site cannot send codes in this way
//	409 confirmed                the second factor counts already
//	409 no_passkeys, no_passkey  console.public_url is not set; the account has no passkey
//	409 no_second_factor         recovery codes need another second factor
//	409 enforced                 secure passwords are enforced by the domain
//	409 confirm_required         detail says what would be deleted; repeat_with has confirm=true
//	409 suspended                lift the suspension before deleting the account
//	409 unknown_account          the account has no record, and accounts are listed; repeat_with has create=true
//	409 secure_password_limit    revoke one first
//	409 lockout                  lockout.who lists whom it would lock out; repeat_with has confirm=true and revert_after=10m
//	409 next_passdb              mailbox passwords are not kept here
//	409 too_large                one transaction would become too big
//	409 interrupted              another change came between, within a batch, an import or a document: resume it, or run it again
//	409 no_doveadm               open sessions are not known: set sessions.doveadm
//	409 nothing_to_adopt
//	409 nothing_to_repair        the store is not damaged
//	409 cannot_repair            this daemon does not have the last change in memory
//	409 stale                    a section that the document changes was changed since the export
//	409 regions_unavailable      there is no region database
//	412 precondition_failed      the ETag has changed
//	413 too_large                the body is over 1 MiB (imports and documents: 16 MiB)
//	415 unsupported_media_type
//	421 misdirected              the Host header names another site: without a key, use localhost, drawbridge or an IP address
//	422 invalid
//	429 too_many_codes           wait an hour
//	429 busy                     too many long operations, bodies over 1 MiB, or requests of one domain's keys (16) are running; Retry-After
//	500 internal                 the log has the cause
//	503 damaged_store            documents of the store are missing or altered; nothing was changed
//	503 store_unavailable        nothing was acknowledged; Retry-After
//	503 unconfirmed              the change was made, but too few replicas confirmed it
//
// # Metrics
//
//	drawbridge_decisions_total{protocol,outcome,reason}  logins decided
//	drawbridge_api_requests_total{operation,code}        requests answered here
//	drawbridge_messages_total{verdict,reason}            messages decided
//	drawbridge_login_duration_seconds{door}              histogram: time to decide a login
//	drawbridge_policy_duration_seconds{question}         the same for policy requests
//	drawbridge_milter_duration_seconds{stage}            the same for messages in the milter
//	drawbridge_store_duration_seconds{operation}         histogram: writes to Redis
//	drawbridge_hash_duration_seconds{scheme}             histogram: slow hashes of mailbox passwords kept here
//	drawbridge_sessions{server,protocol}                 open sessions
//	drawbridge_connections{service,listener}             open connections, their limit and how often it was reached
//	drawbridge_throttle_entries{kind}                    counters of wrong passwords
//	drawbridge_distributed_guessing                      domains at which many addresses guess
//	drawbridge_records_waiting{where}                    records to be written: memory, spool
//	drawbridge_records_dropped_total                     records that were lost
//	drawbridge_held_messages                             messages that wait for approval
//	drawbridge_feed_lag_seconds                          time since the daemon was last in sync
//	drawbridge_region_database_age_seconds               age of the region data
//	drawbridge_network_database_age_seconds              age of the data of networks (AS)
//	drawbridge_snapshot_age_seconds                      time since the snapshot was last written
//	drawbridge_store_up                                  1 when changes are possible
//	drawbridge_store_evicting                            1 when Redis may delete rules
//	drawbridge_store_synced_timestamp_seconds            when the daemon was last in sync with the store
//	drawbridge_domains, drawbridge_accounts              records in memory
//	drawbridge_build_info{version}
//
// and the metrics of the Go runtime and the process.
//
// # Limits
//
// It serves no page, sets no cookie, answers no cross-origin request, and takes no key from a URL.
// It does not limit rates: without a key nothing can be learned, and a key has 160 random bits.
package adminapi

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"net/http"
	"strings"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/admin/opensessions"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// Limits of requests that are processed at the same time.
const (
	// maxLarge is the number of bodies over rest.MaxBody, maxLargeEach that of one tenant.
	maxLarge, maxLargeEach = 2, 1
	// maxEach is the number of requests of one tenant: a body of 1 MiB takes 40 times that.
	maxEach = 16
)

// API is the parts of the HTTP API. All are needed but PeerUID and Metrics.
type API struct {
	*admin.Admin
	Open opensessions.Site
	// Factors has what verifies second factors.
	Factors factors.Site
	Mail    mail.Site
	// Withdraw deletes what a credential of a domain has sent; a dry run only looks.
	Withdraw func(ctx context.Context, d *admin.Domain, in *api.Withdrawal, f *api.Faults) (*api.Withdrawn, error)
	// Login serves POST /v1/login, for roles admin and login.
	Login http.Handler
	// TestPolicy evaluates a hypothetical login with a stored policy, "" for none, and a draft.
	TestPolicy func(d *admin.Domain, id string, in *api.PolicyTest, f *api.Faults) (*api.PolicyTested, error)
	// EndPages ends the sessions of an account's owner, or of who passes for that, on the users'
	// page; nil where there is none.
	EndPages func(ctx context.Context, account string) error
	// Available reports whether decisions are possible now.
	Available func() bool
	// MilterNeeded reports whether rules in force read headers or bodies.
	MilterNeeded func() bool
	// Distributed returns the number of domains at which many addresses guess.
	Distributed func() int
	// HoldUsage returns the octets of held messages and copies on this node, and their bound; nil
	// if none are kept here.
	HoldUsage func() (used, quota int64)
	// PeerUID returns the user at the other end of a unix socket; without it everybody needs a key.
	// See [API.ConnContext].
	PeerUID func(net.Conn) (uid uint32, ok bool)
	// Metrics counts the requests and reports all metrics; nil counts and reports none.
	Metrics interface {
		http.Handler
		Request(operation string, status int)
	}
}

// server is an API with the values derived from it at its start.
type server struct {
	*API
	schemas  rest.Schemas
	document []byte        // /openapi.json
	lasting  *rest.Limiter // of long operations
	large    *rest.Limiter // of large bodies
	working  *rest.Limiter // of all requests, per tenant
}

// Handler returns the handler of an API listener.
func (a *API) Handler() (http.Handler, error) {
	s := &server{
		API: a, schemas: rest.NewSchemas(),
		lasting: rest.NewLimiter(maxLong, maxLongEach), large: rest.NewLimiter(maxLarge, maxLargeEach), working: rest.NewLimiter(math.MaxInt, maxEach),
	}
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
		s.count("none", p.Status)
	}), nil
}

func (s *server) count(operation string, status int) {
	if s.Metrics != nil {
		s.Metrics.Request(operation, status)
	}
}

// openAPI describes the operations, and completes the schemas that bodies are validated against.
func (s *server) openAPI(ops []operation) any {
	list := make([]*rest.Operation, len(ops))
	for i := range ops {
		op := &ops[i]
		op.Public, op.External = op.public, op.serve == nil
		if !op.Public {
			op.Description = "Roles: " + op.roles.String() + "."
		}
		list[i] = &op.Operation
	}
	return rest.Document(list, parameter, s.schemas, s.VersionText())
}

// routes reports whether there is an operation for a request. Otherwise the mux would answer in
// plain text, or redirect to a cleaned path.
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
