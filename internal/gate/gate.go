// Package gate is the one door: every protocol's question goes through it, is decided from the
// state in memory, and leaves its record.
//
// Decisions never wait for Redis. Records, last uses and counters' events are written behind them,
// in a bounded queue; a full queue drops the oldest and logs it.
//
// Diagnostics: a gate whose state was never loaded, or has not agreed with the store for longer
// than the setting store.max_staleness, answers every login with a temporary failure, reason
// store_unavailable. Look-ups that are no logins continue to the next passdb all the same: mail is
// delivered meanwhile.
package gate

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/submission"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// Options are the parts and settings of a gate. All but Site, DefaultDomain, Services, Unmanaged
// and Region are needed.
type Options struct {
	Store         *store.Store
	Journal       Journal
	Buckets       Buckets // nil: each daemon counts sending limits for itself
	Spool         Spool   // nil: records that wait for Redis are lost when the daemon ends
	Pepper        *credential.Pepper
	Hasher        *credential.Hasher
	Log           hclog.Logger
	Site          access.Site
	DefaultDomain string
	Services      map[string]string // further service names → protocol
	Unmanaged     Unmanaged
	MaxStaleness  time.Duration
	Throttle      throttle.Limits
	Exempt        address.Networks // never throttled as source addresses
	Internal      address.Networks // clients whose mail counts as internal without authentication
	Node          string           // the name of this host in message records
	// Region returns the region of an address, as region.Source does; nil means no address has one.
	// Call [Gate.RegionsChanged] when its answers change.
	Region func(netip.Addr) string
	// Network names the network of an address for records, as [region.Source.Network] does; nil for
	// none.
	Network func(netip.Addr) string
	// GuessingBegan is told when distributed guessing at a domain begins; nil for nobody.
	GuessingBegan func(throttle.Distributed)
	// Decided receives every decision on a login; nil for none.
	Decided func(access.Protocol, *access.Decision)
	// MessageDecided receives the verdict on every message and why; nil for none.
	MessageDecided func(verdict, reason string)
	// Examine marks what is unusual about logins before their records are stored; nil for none. The
	// function that it returns, unless nil, is called once they are.
	Examine func(ctx context.Context, records []store.LoginRecord, closings []store.Closing) (learned func(context.Context))
	// Sessions follows the sessions that logins open; nil for none.
	Sessions Sessions
	// ForwardingRefused notifies the owner of a mailbox, once a day at most, that its mail is not
	// forwarded to a target; nil if nobody is notified.
	ForwardingRefused func(domain, account, target string) error
	// Factor verifies a second factor of an account from an address: the refusal says why it is not
	// accepted, "" if it is. nil verifies none: logins that need one are refused.
	Factor func(ctx context.Context, account, otp string, from netip.Addr) (refusal string, err error)
	// Pass returns what is known about the message that this daemon sends from an address and port;
	// nil for nothing.
	Pass func(netip.Addr, uint16) *mailflow.Pass
}

// Sessions follows the sessions that logins open at the mail server, so that a changed rule can end
// them. It must not block.
type Sessions interface {
	// Opened is called for each login that is allowed or left to the next passdb. The version is
	// that of the state it was decided on.
	Opened(s *access.Session, version uint64)
	// Closed is called when Dovecot reports how the next passdb decided the login of a session.
	Closed(id string, success bool)
}

// Journal stores what decisions leave behind, for all daemons. The errors wrap those of store.
type Journal interface {
	// AppendRecords writes a batch of records unless it has written a batch of this id. After
	// [store.ErrDamaged] all are written that ever can be.
	AppendRecords(ctx context.Context, id store.BatchID, b *store.Batch) error
	// Touch writes when the secure passwords of an account were last used, by their ids.
	Touch(ctx context.Context, account string, uses map[string]store.LastUse) error
	AppendEvents(ctx context.Context, events []store.Event) error
	// FollowEvents delivers the events behind a place, or when that is empty those of the last time,
	// oldest first, until ctx ends or Redis fails. Their times are those of this machine's clock.
	FollowEvents(ctx context.Context, after string, last time.Duration, deliver func(store.Event)) error
}

// Buckets are the sending limits that all daemons share, in Redis. Messages wait for them only as
// long as the context allows.
type Buckets interface {
	// Take takes from all buckets of a domain. If one has not enough, short is its index and
	// nothing is taken; else short is -1. Repeated with the same id it takes nothing more.
	Take(ctx context.Context, domain, id string, takes []store.Take) (short int, err error)
	// Spend takes from buckets that need not have enough, or gives back. It returns what is missing
	// from each now; nothing for a call that is repeated.
	Spend(ctx context.Context, s *store.Spend) (used []int, err error)
}

// Gate decides logins, submission sessions and messages from memory, and records them behind the
// decision. It is safe for concurrent use.
type Gate struct {
	Options
	origin    string // distinguishes this daemon's events from others'
	throttle  *throttle.Throttle
	pending   *pendingLogins
	mailboxes *mailboxes
	sessions  *submission.Sessions
	room      sync.Pool     // of *session, so that a request needs no memory of its own
	regions   atomic.Uint64 // number of changes of the regions of addresses
	writes    *writeBehind
	mails     *mails
	mailRoom  sync.Pool // of *mailView
	limits    limits
}

// New returns a gate that decides at once; [Gate.Run] starts its background work, without which
// nothing is recorded or followed.
func New(o Options) *Gate {
	origin := store.NewID()
	g := &Gate{
		Options:   o,
		origin:    origin,
		throttle:  throttle.New(o.Throttle),
		pending:   newPendingLogins(),
		mailboxes: newMailboxes(o.Hasher, o.Store.State),
		sessions:  submission.New(),
		room:      sync.Pool{New: func() any { return new(session) }},
		writes:    newWriteBehind(origin, o.Journal, o.Buckets, o.Spool, o.Log),
		mails:     newMails(),
		mailRoom:  sync.Pool{New: func() any { return new(mailView) }},
		limits:    limits{meter: throttle.NewMeter(), unknown: throttle.NewMeter(), shared: throttle.NewMeter()},
	}
	g.writes.examine, g.writes.confirmed = o.Examine, g.limits.confirmed
	return g
}

// Run writes records and follows other daemons' events until ctx ends, then writes the remaining
// ones, for at most five seconds.
func (g *Gate) Run(ctx context.Context) {
	var beside sync.WaitGroup
	beside.Go(func() { g.followEvents(ctx) })
	beside.Go(func() { g.writes.work(ctx) })
	beside.Go(func() { g.followMessages(ctx) })
	g.writes.run(ctx, g.sweep)
	beside.Wait()
}

// Available reports whether decisions are possible now: the rules were loaded once, and agreed with
// the store within store.max_staleness.
func (g *Gate) Available(now time.Time) bool {
	loaded, synced := g.Store.State.Ready()
	return loaded && now.Sub(synced) <= g.MaxStaleness
}

// Login decides one login, records it and counts it. The zero Time means now. A Protocol that is
// not set is taken from the Service. The secret is not kept.
func (g *Gate) Login(ctx context.Context, l *access.Login) access.Decision {
	d := g.login(ctx, l)
	if g.Decided != nil && !l.NoLogin() {
		g.Decided(l.Protocol, &d)
	}
	return d
}

func (g *Gate) login(ctx context.Context, l *access.Login) access.Decision {
	g.complete(l)
	if !g.Available(l.Time) && !l.NoLogin() {
		return g.unavailable(l)
	}
	q, v, token := g.presented(l)
	exempt := g.exempt(l, q, v.Clients)
	leave, waited, err := g.admit(ctx, l, q, v.Account, token, exempt)
	if leave != nil {
		defer leave()
	}
	if waited && err == nil {
		q, v, token = g.presented(l)
	}
	a := &asker{g: g, ctx: ctx, login: l, account: q.Address, record: v.Account, token: token, exempt: exempt}
	var d access.Decision
	if err == nil {
		d = access.Decide(q, a, false)
		err = a.err
		if n := len(l.Secret); n > credential.MaxPassword && d.Guess {
			// Nothing of that length is kept here: a token, or a file, but no guess.
			d.Guess, d.Note = false, fmt.Sprintf("the secret has %d bytes: mailbox passwords kept here have at most %d", n, credential.MaxPassword)
		}
	}
	if err == nil && g.provesNow(l, &d) {
		err = g.prove(ctx, l, q, &v, &d)
	}
	if err != nil {
		// Too many slow hashes at once, or no store for a second factor: the client gets no reason.
		d = access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable, Account: q.Address, Client: q.Client}
	}
	if d.Outcome == access.Allow || d.Outcome == access.Next {
		d.User = g.handBack(l.Account, d.Account, v, l.NoLogin())
	}
	g.after(l, &d, v, q.Secret.Label, token)
	return d
}

// presented gathers the input of a decision, including the secret that the login shows. The token
// names the secret in the throttle.
func (g *Gate) presented(l *access.Login) (q *access.Query, v store.View, token uint64) {
	q, v = g.query(l)
	switch {
	case l.MasterUser != "": // the secret is the master's
	case l.Lookup == access.LookupNone:
		q.Secret, token = g.lookUpSecret(l.Secret, q.Address, v.Account)
		refuseSuspended(&q.Secret, &v, q.Address)
	default:
		token = g.Pepper.Token(q.Address, nil) // all secrets that are not shown count as one
	}
	return q, v, token
}

// complete fills in the time and the protocol of a login that does not name them.
func (g *Gate) complete(l *access.Login) {
	if l.Time.IsZero() {
		l.Time = time.Now()
	}
	if l.Protocol == 0 {
		l.Protocol = access.ProtocolOfService(l.Service, g.Services)
	}
}

// unavailable is the answer while nothing can be decided.
func (g *Gate) unavailable(l *access.Login) access.Decision {
	d := access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable}
	g.Log.Info(line("login", newRecord(l, &d)))
	return d
}

// Explain decides a hypothetical login step by step: it leaves no record, no count and no last use.
// The credential is the id of a secure password of the account; "" stands for its mailbox password,
// verified. Rules, unless nil, take the place of those that the account's domain has.
func (g *Gate) Explain(l *access.Login, credential string, rules *access.Rules) access.Decision {
	l.Time = time.Now()
	if l.Protocol == 0 {
		l.Protocol = access.ProtocolOfService(l.Service, g.Services)
	}
	q, v := g.query(l)
	if rules != nil {
		q.Rules = rules
	}
	q.Secret = access.Secret{State: access.SecretUnseen}
	if credential != "" {
		q.Secret = v.Account.SecretOf(credential)
		refuseSuspended(&q.Secret, &v, q.Address)
	}
	return access.Decide(q, noAsker{}, true)
}

// query gathers the input of a decision.
func (g *Gate) query(l *access.Login) (*access.Query, store.View) {
	q := &access.Query{Site: g.Site, Login: l}
	addr, err := address.Parse(l.Account, g.DefaultDomain)
	var v store.View
	if err == nil {
		q.Address, v = g.Store.State.View(addr)
		q.Unmanaged = g.Unmanaged.Next(address.Domain(q.Address))
	} else {
		_, v = g.Store.State.View("")
		q.Unmanaged = g.unreadable(l.Account)
	}
	if v.Known {
		q.Site = v.Site(g.Site)
		q.Rules = v.Rules
		q.Account = v.Account.Facts(new(access.Account))
	}
	q.Client, q.Region = g.client(l, v.Clients), g.region(l.IP)
	return q, v
}

// client returns the client type of a login. A passdb behind Drawbridge's own pages asks about their
// logins under a session id that nobody else knows.
func (g *Gate) client(l *access.Login, clients *access.Clients) access.ClientType {
	if l.Page {
		return access.ClientConsole
	}
	if l.Protocol == access.Web && strings.HasPrefix(l.Session, access.RelayedSession) {
		if p := g.pending.same(l.Session, false); p != nil {
			return p.rec.Client
		}
	}
	return clients.Classify(l)
}

// unreadable reports whether a name that is no address is left to the next passdb: where its domain
// is not managed and is one of those that are.
func (g *Gate) unreadable(name string) bool {
	_, after, found := strings.Cut(name, "@")
	if !found {
		return g.DefaultDomain == "" && g.Unmanaged.Next("")
	}
	// Another program may read a second "@", or an invalid domain, in another way.
	domain, err := address.ParseDomain(after)
	if err != nil {
		return false
	}
	_, managed := g.Store.State.ResolveDomain(domain)
	return !managed && g.Unmanaged.Next(domain)
}

// handBack returns the name that Dovecot continues with: the account's, without its domain if it
// was typed so; for a look-up, not a login, and a name that no rules apply to, the name as typed.
func (g *Gate) handBack(typed, account string, v store.View, noLogin bool) string {
	bare := !strings.Contains(typed, "@")
	switch {
	case !v.Known:
		return typed
	case noLogin: // mail is delivered as before: only an alias domain is resolved
		if addr, err := address.Parse(typed, g.DefaultDomain); err == nil {
			account = g.Store.State.Canonical(addr)
		}
	}
	if bare && address.Domain(account) == g.defaultDomain() {
		return address.Local(account)
	}
	return account
}

// defaultDomain returns the default domain with an alias domain resolved.
func (g *Gate) defaultDomain() string {
	if name, ok := g.Store.State.ResolveDomain(g.DefaultDomain); ok {
		return name
	}
	return g.DefaultDomain
}

// Unmanaged selects the unmanaged domains that are left to the next passdb. The zero value is none:
// their logins are refused.
type Unmanaged struct {
	All     bool
	Domains map[string]bool // canonical
}

// Next reports whether logins to a domain are left to the next passdb; "" stands for names without
// a domain.
func (u Unmanaged) Next(domain string) bool { return u.All || u.Domains[domain] }

// region returns the region of an address, "" when there is none.
func (g *Gate) region(ip netip.Addr) string {
	if g.Region == nil {
		return ""
	}
	return g.Region(ip)
}

// lookUpSecret classifies a secret, at the cost of one keyed hash for any number of devices, and
// returns its token for the counters.
func (g *Gate) lookUpSecret(secret []byte, account string, record store.Record) (access.Secret, uint64) {
	if len(secret) == 0 {
		return access.Secret{State: access.SecretEmpty}, 0
	}
	token := g.Pepper.Token(account, secret)
	normal, shaped := credential.Normalise(secret)
	if !shaped {
		if credential.Shaped(secret) {
			return access.Secret{State: access.SecretShaped}, token
		}
		return access.Secret{State: access.SecretOther}, token
	}
	hash := g.Pepper.Hash(account, normal)
	if &normal[0] != &secret[0] {
		clear(normal) // a copy: the secret itself is the caller's
	}
	if found, ok := record.Match(g.Pepper.ID(), hash); ok {
		return found, token
	}
	return access.Secret{State: access.SecretShaped}, token
}

// sessionCredential names the credential that a submission session begins with.
func sessionCredential(l *access.Login, d *access.Decision) string {
	switch {
	case l.MasterUser != "":
		return store.CredentialMaster
	case d.CredentialID != "":
		return d.CredentialID
	case d.Outcome == access.Next:
		return store.CredentialUnverified
	}
	return store.CredentialMailbox
}

// after records a decision, counts wrong secrets and keeps a login pending that the next passdb
// decides.
func (g *Gate) after(l *access.Login, d *access.Decision, v store.View, label string, token uint64) {
	if l.NoLogin() {
		return
	}
	rec := g.newRecord(l, d)
	rec.Domain, rec.Credential = v.Domain, label // no domain when it is not managed
	if d.Guess {
		g.guess(d.Account, l.IP, token, l.Time)
	}
	if first := g.pending.same(rec.Session, l.Relayed); first != nil {
		g.repeated(first, d, l.Time)
		return
	}
	g.pending.forget(rec.Session) // its former login ended without a report
	g.opened(l, d, v)
	switch d.Outcome {
	case access.Allow:
		if l.MasterUser == "" { // a master's login does not make an address the account's own
			g.success(d.Account, l.IP, l.Time)
		}
		if d.CredentialID != "" {
			g.writes.touch(d.Account, d.CredentialID, store.LastUse{Time: l.Time.UTC(), IP: rec.IP, Protocol: rec.Protocol})
		}
	case access.Next:
		if v.Known {
			g.pending.add(rec, l, token)
		}
	case access.Deny, access.TempFail:
	}
	if l.Protocol == access.SMTP && v.Known && (d.Outcome == access.Allow || d.Outcome == access.Next) {
		g.authenticated(d.Account, l.IP, sessionCredential(l, d), rec.Service, l.Time)
	}
	g.Log.Info(line("login", rec))
	if rec.Domain != "" {
		g.writes.record(rec)
	}
}

// throttled reports whether a login must be refused without verifying its secret.
func (g *Gate) throttled(account string, l *access.Login, exempt bool) bool {
	return g.throttle.Throttled(account, l.IP, exempt, l.Time)
}

// exempt reports whether the address of a login is that of many users, and so neither throttled nor
// queued for as one source: an address of the settings, or the site's own webmail when it does not
// pass on its users' addresses.
func (g *Gate) exempt(l *access.Login, q *access.Query, clients *access.Clients) bool {
	if g.Exempt.Contains(l.IP) {
		return true
	}
	forwarded := l.RealIP.IsValid() && l.RealIP != l.IP
	return q.Client == access.ClientWeb && !forwarded && clients.Proven(l, access.ClientWeb)
}

// guess counts a wrong secret here and on all daemons.
func (g *Gate) guess(account string, ip netip.Addr, token uint64, at time.Time) {
	g.wrong(account, ip, token, at)
	g.writes.event(store.Event{Origin: g.origin, Time: at, Kind: store.EventGuess, Token: token, Account: account, IP: address.IPText(ip)})
}

// success notes here and on all daemons that an account logged in from an address.
func (g *Gate) success(account string, ip netip.Addr, at time.Time) {
	if g.throttle.Succeeded(account, ip, at) {
		g.writes.event(store.Event{Origin: g.origin, Time: at, Kind: store.EventSuccess, Account: account, IP: address.IPText(ip)})
	}
}
