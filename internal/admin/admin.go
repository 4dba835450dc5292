// Package admin has the operations of administrators: view and change domains, accounts,
// credentials and rules. It knows no HTTP: the API, a console, a self-service page and a scheduled
// job call it alike, each with a [Caller].
//
//	r := a.As(caller, admin.Options{DryRun: true})
//	d, err := r.Domain("example.org")       // not found unless the caller reaches it
//	res, err := d.PatchPolicy(ctx, "office", edit)
//
// A [Request] sees the site, a [Domain] one domain and an [Account] one account, as far as the
// caller reaches. A resource out of reach is not found; a change that the caller's role does not
// allow is forbidden, and both hold whichever method is called.
//
// Edits are functions of the current view. They run inside the transaction, which runs again after
// a conflict, so they must not write anywhere else. Methods that take decoded input also take the
// faults found so far, so that all faults of a request are reported together.
//
// Errors are [api.Problem] values, or those of the store: [ProblemOf] turns any of them into a
// problem. A change is validated on the state that it changes, and does not end with its context:
// operations of several transactions are not left half done.
package admin

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Admin is the store that administrators change, and the site's settings. All fields are needed but
// DefaultDomain, Services, Version, Guard, Regions, Nodes and WouldEnd.
type Admin struct {
	Store   *store.Store
	Journal Journal
	// Forget removes what is stored beside the documents of deleted accounts, and of their domain
	// unless that is "": login records, last uses, usual logins, sessions of the users' page.
	Forget        func(ctx context.Context, domain string, accounts []string) error
	Pepper        *credential.Pepper
	Hasher        *credential.Hasher
	Log           hclog.Logger
	Site          access.Site
	DefaultDomain string
	Services      map[string]string // further service names → protocol
	Version       string
	// Explain decides a hypothetical login. The credential is the id of a secure password of the
	// account, "" its mailbox password. Non-nil rules replace those of its domain.
	Explain func(l *access.Login, credential string, rules *access.Rules) access.Decision
	// ReadMessages returns message records of a domain, newest first.
	ReadMessages func(ctx context.Context, q store.MessageQuery) (items []api.MessageRecord, next string, err error)
	Guard        guard.Limits
	Regions      *region.Source // nil for none
	Networks     *region.Source // of autonomous systems; nil for none
	// Throttled returns the accounts and addresses that are throttled.
	Throttled func(time.Time) api.Throttle
	// Lift forgets the wrong secrets of an account, or of an address if the account is "", on all
	// nodes.
	Lift func(account string, ip netip.Addr, now time.Time) bool
	// Learn learns that a recorded login is usual for its account.
	Learn func(ctx context.Context, r *store.LoginRecord) error
	// VerifyAudit verifies the chains of the audit, and that they pass through anchors, as text.
	VerifyAudit func(ctx context.Context, anchors string) (*store.AuditReport, error)
	// AuditEntry returns an audit entry by its id, nil for none.
	AuditEntry func(ctx context.Context, id string) (*store.AuditEntry, error)
	// AuditEntries passes the audit entries of a shard as they are stored.
	AuditEntries func(ctx context.Context, s store.Shard, pass func(n uint64, link string, entry []byte) error) (upTo uint64, err error)
	// ExportLogins writes the login records that a query selects, oldest first, in parts of a format:
	// csv, syslog, or jsonl if it is "". total is about how many records there are.
	ExportLogins func(ctx context.Context, q store.RecordQuery, format string, begin func(contentType string, total int64), write func([]byte) error) error
	// FindForwards finds what sends mail of accounts on, or hides it. nil if nobody can be asked.
	FindForwards ForwardFinder
	// LastInspection returns the report of a domain's latest inspection on its schedule; nil for none.
	LastInspection func(ctx context.Context, domain string) (*api.InspectionReport, error)
	// KeyUses remembers when API keys were last used; nil if nobody does.
	KeyUses KeyUses
	// Nodes returns when each daemon that holds messages was last seen; nil if nobody knows.
	Nodes func(context.Context) (map[string]time.Time, error)
	// WouldEnd counts the open sessions of a domain, or of one account unless that is "", that
	// other rules and account facts would end. nil if open sessions are not known.
	WouldEnd func(ctx context.Context, domain, account string, rules *access.Rules, facts *access.Account) int

	// names serialises changes of domain names on this daemon: they go through two shards.
	names sync.Mutex
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

// ForwardFinder finds what sends mail of accounts on, or hides it, as forwards.Site does.
type ForwardFinder interface {
	Of(ctx context.Context, account string) *api.Forwards
	// Each passes the forwards of many accounts of a domain, and of its users that Dovecot lists, to f, with pauses. What was not read of many of them
	// comes last, as the problems of the account "".
	Each(ctx context.Context, domain string, accounts []string, f func(*api.Forwards)) error
}

// KeyUses remembers when API keys were last used, as redisstore does.
type KeyUses interface {
	Used(id string, now time.Time)
	// List returns when keys were last used, and since when that is recorded.
	List(ctx context.Context) (uses map[string]time.Time, began time.Time, err error)
	Forget(ctx context.Context, ids ...string) error
}

func (a *Admin) history() *history.History {
	return &history.History{State: a.Store.State, Records: a.Journal.Records, Region: a.Regions.Lookup}
}

func (a *Admin) guard() *guard.Guard {
	return &guard.Guard{Limits: a.Guard, State: a.Store.State, History: a.history(), Exempt: exempt}
}

// Options are how a change is made.
type Options struct {
	// DryRun validates a change and returns its result, without making it.
	DryRun bool
	// Confirm makes a change that is otherwise refused because it deletes secrets, lifts a
	// suspension or locks people out.
	Confirm bool
	// Create creates an account that has no record, where the domain's accounts are listed.
	Create bool
	// RevertAfter reverts a change of policies or blocked addresses unless it is confirmed in time;
	// 0 for never.
	RevertAfter time.Duration
	// If refuses a change depending on the resource's tag: its revision in decimal, or the revision
	// of a document. nil for no condition.
	If func(exists bool, tag string) error
}

// Request is what one caller asks for, at one time.
type Request struct {
	*Admin
	Options
	Caller Caller
	Time   time.Time
}

// As starts a request of a caller.
func (a *Admin) As(caller Caller, o Options) *Request {
	return &Request{Admin: a, Options: o, Caller: caller, Time: time.Now()}
}

// Result is a resource after an operation, as the caller sees it.
type Result[V any] struct {
	View V
	// Rev is the revision of the document that the view shows.
	Rev     uint64
	Created bool
	Pending *api.PendingRevert // of the change, nil for none
}

// Edit returns the input of a change, given the current view. Faults that it adds are reported with
// those of the validation that follows.
type Edit[V any] func(cur *V, f *api.Faults) (*V, error)

// change makes one change of a shard as the caller, if the caller's role is allowed to.
func (r *Request) change(ctx context.Context, allowed Roles, shard store.Shard, f func(*store.Change) error) error {
	return r.changeFor(ctx, allowed, shard, r.DryRun, f)
}

func (r *Request) changeFor(ctx context.Context, allowed Roles, shard store.Shard, dry bool, f func(*store.Change) error) error {
	if err := r.Caller.May(allowed); err != nil {
		return err
	}
	return r.Store.Update(context.WithoutCancel(ctx), shard, r.Caller.Actor, dry, f)
}

// Describe names a change in the audit.
func Describe(ch *store.Change, action, domain, target string) {
	ch.Audit.Action, ch.Audit.Domain, ch.Audit.Target = action, domain, target
}
