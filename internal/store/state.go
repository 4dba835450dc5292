package store

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// State holds in memory all documents that decisions need. Accounts, of which there may be a
// million, are packed ([Record]); the other documents are in plain maps.
//
// Documents that it returns, except accounts, are shared and must not be changed.
type State struct {
	loaded  atomic.Bool
	synced  atomic.Pointer[time.Time] // when the store was last known to agree; nil for never
	version atomic.Uint64             // counts changes of the fields guarded by mu

	// alone serialises the changes of a shard. mu is locked only to put a compiled change in place,
	// so that decisions do not wait for the compilation.
	alone [Shards]sync.Mutex

	watching sync.Mutex // locked while the list of watchers changes
	watchers atomic.Pointer[map[*Watcher]bool]

	mu      sync.RWMutex
	heads   [Shards]Head
	domains map[string]*domainState
	names   map[string]string // a domain's or alias domain's name → the domain's name
	types   map[access.ClientType]*revised[ClientType]
	clients *access.Clients
	keys    map[string]*revised[Key]
	byHash  map[string]string // key hash → key id
	claims  map[string]Claim  // by the name that is claimed
	pepper  string

	// Delimiters each separate an account from an extension in names, as Postfix'
	// recipient_delimiter; "" for none. They are set before the state is used.
	Delimiters string
	aliases    map[string][]string // the addresses of the accounts that have an address as an alias
}

type revised[T any] struct {
	doc *T
	rev uint64
}

// Revised is a document with its revision.
type Revised[T any] struct {
	Doc *T
	Rev uint64
}

type domainState struct {
	*domainRules // the one in place
	accounts     accounts
	names        map[string]int // how many accounts have a display name, by [mailflow.NameKey]
}

// domainRules is a domain without its accounts. Once in place it never changes: a new one replaces
// it.
type domainRules struct {
	doc         *revised[Domain] // nil while only leftovers of a deleted domain are there
	departments map[string]*revised[Department]
	policies    map[string]*revised[Policy]
	blocks      map[string]*revised[Block]
	reverts     map[string]*revised[Revert] // no rule changes by them until they are due
	mailRules   map[string]*revised[MailRule]
	groups      map[string]*revised[Group] // by address
	held        map[string]*revised[Held]  // messages
	suspensions map[string]*revised[Suspension]

	// Compiled of these, at some time.
	inOrder []Revised[Policy] // oldest first, so that traces and lists read the same everywhere
	pending []Revised[Revert] // the next one due first
	expires time.Time         // when the rules' next block ends; zero for never
	ended   time.Time         // when the last block ended that the rules leave out; zero for none
	rules   *access.Rules
	sendAs  map[string][]string // by department, see [domainRules.compileSendAs]
	mail    *mailflow.Rules     // nil for none
	halted  map[halted]bool     // nil for none
}

// NewState returns an empty state that is not loaded.
func NewState() *State {
	st := &State{}
	st.reset()
	return st
}

func (st *State) reset() {
	st.heads = [Shards]Head{}
	st.domains = map[string]*domainState{}
	st.names = map[string]string{}
	st.types = map[access.ClientType]*revised[ClientType]{}
	st.clients = &access.Clients{}
	st.keys = map[string]*revised[Key]{}
	st.byHash = map[string]string{}
	st.claims = map[string]Claim{}
	st.pepper = ""
	st.aliases = map[string][]string{}
	st.version.Add(1)
}

// forget empties the state.
func (st *State) forget() {
	for i := range st.alone {
		st.alone[i].Lock()
		defer st.alone[i].Unlock()
	}
	st.mu.Lock()
	st.reset()
	st.mu.Unlock()
	st.publish(StateEvent{Resync: true})
}

// View is the part of the state that one decision needs, read at one moment.
type View struct {
	Known    bool   // the domain is managed
	Domain   string // canonical
	Rules    *access.Rules
	Account  Record
	Settings *Domain
	Clients  *access.Clients
	Mail     *mailflow.Rules // nil for none
	Version  uint64          // of the state

	sendAs map[string][]string // of the domain's departments
	halted map[halted]bool
}

// Site returns the settings of the site as they are for the account: its domain may keep mailbox
// passwords elsewhere than the site does.
func (v *View) Site(site access.Site) access.Site {
	if !v.Known {
		return site
	}
	switch v.Settings.MailboxPasswords {
	case PasswordsOfSite:
	case PasswordsHere:
		site.NextPassdb = false
	case PasswordsNext:
		site.NextPassdb = true
	case PasswordsStored:
		site.NextPassdb = v.Account.MailboxHash() == ""
	}
	return site
}

// Ready reports whether the state was ever loaded, and when it last agreed with the store, zero for
// never.
func (st *State) Ready() (loaded bool, synced time.Time) {
	if t := st.synced.Load(); t != nil {
		synced = *t
	}
	return st.loaded.Load(), synced
}

// Every calls pass once the state is loaded and then at intervals, until ctx ends. Calls do not overlap.
func (st *State) Every(ctx context.Context, interval time.Duration, pass func(ctx context.Context, now time.Time)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if loaded, _ := st.Ready(); !loaded {
				continue
			}
			tick.Reset(interval)
			pass(ctx, now)
		}
	}
}

// Version counts the changes of the state. A decision stays valid as long as the version is the
// same.
func (st *State) Version() uint64 { return st.version.Load() }

// View looks up the account that a name means. The returned address is the account's: that of the
// record of this name; else of the one account that has it as an alias; else of what remains
// without an extension; else the name, with an alias domain resolved.
func (st *State) View(addr string) (account string, v View) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	v.Clients, v.Version = st.clients, st.version.Load()
	addr, d, r := st.person(addr)
	if d == nil {
		return addr, v
	}
	v.of(d, r)
	return addr, v
}

// of completes the view for an account of a domain, which need not have a record.
func (v *View) of(d *domainState, r Record) {
	v.Known, v.Domain, v.Rules, v.Settings, v.Mail = true, d.doc.doc.Name, d.rules, d.doc.doc, d.mail
	v.Account, v.sendAs, v.halted = r, d.sendAs, d.halted
}

// halted is a credential that is suspended.
type halted struct{ account, credential string }

// Suspends reports whether a credential of an account of the domain is suspended.
func (v *View) Suspends(account, credential string) bool {
	return v.halted != nil && v.halted[halted{account, credential}]
}

// Recipient looks up the account that receives mail to an address, or the group: then the returned
// address is the group's.
func (st *State) Recipient(addr string) (account string, v View) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	v.Clients, v.Version = st.clients, st.version.Load()
	addr, d := st.managed(addr)
	if d == nil {
		return addr, v
	}
	base, _ := address.Base(addr, st.Delimiters)
	for _, name := range [...]string{addr, base} {
		if g, ok := d.mail.Group(name); ok {
			v.of(d, d.accounts.get(g.Address))
			return g.Address, v
		}
	}
	addr, d, r := st.person(addr)
	if d == nil {
		return addr, v
	}
	v.of(d, r)
	return addr, v
}

// MailNeeds returns the parts of messages that the rules of all domains use.
func (st *State) MailNeeds() (n mailflow.Needs) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	for _, d := range st.domains {
		n = n.Or(d.mail.Needs())
	}
	return n
}

// person returns the address of the account that a name means, its domain, nil if that is not
// managed, and its record, if there is one. The state must be locked.
func (st *State) person(addr string) (string, *domainState, Record) {
	addr, d := st.managed(addr)
	if d == nil {
		return addr, nil, Record{}
	}
	r := d.accounts.get(addr)
	if r.Exists() {
		return addr, d, r
	}
	if owners := st.aliases[addr]; len(owners) == 1 {
		return st.owner(owners[0])
	}
	base, extended := address.Base(addr, st.Delimiters)
	if !extended {
		return addr, d, r
	}
	r = d.accounts.get(base)
	if owners := st.aliases[base]; len(owners) == 1 && !r.Exists() {
		return st.owner(owners[0])
	}
	return base, d, r
}

// owner is person for the address of an account that has an alias.
func (st *State) owner(addr string) (string, *domainState, Record) {
	addr, d := st.managed(addr)
	if d == nil {
		return addr, nil, Record{}
	}
	return addr, d, d.accounts.get(addr)
}

// managed returns an address with its alias domain resolved, and the domain, nil if it is not
// managed. The state must be locked.
func (st *State) managed(addr string) (string, *domainState) {
	domain := address.Domain(addr)
	if d := st.domains[domain]; d != nil && d.doc != nil {
		return addr, d
	}
	name, ok := st.names[domain]
	if !ok {
		return addr, nil
	}
	return address.Local(addr) + "@" + name, st.domains[name]
}

// Person returns the address of the account that a name means, as [State.View] does. Addresses of
// domains that are not managed are returned as they are.
func (st *State) Person(addr string) string {
	st.mu.RLock()
	defer st.mu.RUnlock()
	account, _, _ := st.person(addr)
	return account
}

// Canonical returns an address with its alias domain resolved.
func (st *State) Canonical(addr string) string {
	domain := address.Domain(addr)
	st.mu.RLock()
	defer st.mu.RUnlock()
	if name, ok := st.names[domain]; ok && name != domain {
		return address.Local(addr) + "@" + name
	}
	return addr
}

// ResolveDomain returns the managed domain that a name means.
func (st *State) ResolveDomain(name string) (string, bool) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	d, ok := st.names[name]
	return d, ok
}

// AnyDomain reports whether some managed domain satisfies f.
func (st *State) AnyDomain(f func(*Domain) bool) bool {
	st.mu.RLock()
	defer st.mu.RUnlock()
	for _, d := range st.domains {
		if d.doc != nil && f(d.doc.doc) {
			return true
		}
	}
	return false
}

// Head returns the head of a shard.
func (st *State) Head(s Shard) Head {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.heads[s]
}

// Heads returns all heads.
func (st *State) Heads() [Shards]Head {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.heads
}

// Pepper returns the fingerprint of the pepper that the store's hashes were made with, or "".
func (st *State) Pepper() string {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return st.pepper
}

// KeyByHash returns the API key with a hash.
func (st *State) KeyByHash(hash string) (*Key, bool) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	if k, ok := st.keys[st.byHash[hash]]; ok {
		return k.doc, true
	}
	return nil, false
}

// Counts returns how many domains and accounts there are.
func (st *State) Counts() (domains, accounts int) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	for _, d := range st.domains {
		if d.doc != nil {
			domains++
		}
		accounts += d.accounts.count
	}
	return domains, accounts
}

// MailboxHashes returns the stored hashes of up to n accounts of a domain, in no particular order.
func (st *State) MailboxHashes(domain string, n int) []string {
	st.mu.RLock()
	defer st.mu.RUnlock()
	var hashes []string
	if d := st.domains[domain]; d != nil {
		for r := range d.accounts.all() {
			if n--; n < 0 {
				break
			}
			if h := r.MailboxHash(); h != "" {
				hashes = append(hashes, h)
			}
		}
	}
	return hashes
}

// MailboxPasswordsBefore returns the number of mailbox passwords of a domain that were set before a
// time. Those of unknown age are not counted.
func (st *State) MailboxPasswordsBefore(domain string, t time.Time) int {
	st.mu.RLock()
	defer st.mu.RUnlock()
	n := 0
	if d := st.domains[domain]; d != nil {
		for r := range d.accounts.all() {
			if set := r.MailboxSetAt(); !set.IsZero() && set.Before(t) {
				n++
			}
		}
	}
	return n
}

// agreed notes that the store was seen to agree with the state. The time keeps its monotonic part, so
// that the state does not become stale because the clock is set.
func (st *State) agreed(now time.Time) { st.synced.Store(&now) }

// builder makes a state that holds one shard alone.
type builder struct {
	st   *State
	rest []Doc // that are no accounts
	one  *stagedChange
}

func newBuilder() *builder {
	st := NewState()
	return &builder{st: st, one: st.stage()}
}

// put adds a document.
func (b *builder) put(d Doc) error {
	if !strings.HasPrefix(d.Key, kindAccount+"/") {
		b.rest = append(b.rest, d)
		return nil
	}
	b.one.records = b.one.records[:0]
	if err := kinds[kindAccount].put(b.one, strings.TrimPrefix(d.Key, kindAccount+"/"), d); err != nil {
		return fmt.Errorf("document %s: %w", d.Key, err)
	}
	for _, r := range b.one.records {
		b.st.putAccount(r.Address(), r)
	}
	return nil
}

// build returns the state.
func (b *builder) build(s Shard, h Head) (*State, error) {
	return b.st, b.st.apply(s, h, &Entry{Puts: b.rest})
}

// freshState returns a state that holds one shard alone.
func freshState(s Shard, h Head, docs []Doc) (*State, error) {
	b := newBuilder()
	for _, d := range docs {
		if err := b.put(d); err != nil {
			return nil, err
		}
	}
	return b.build(s, h)
}

// swap replaces a shard by the content of a fresh state, which holds that shard alone.
func (st *State) swap(s Shard, h Head, fresh *State) {
	st.alone[s].Lock()
	defer st.alone[s].Unlock()
	st.mu.Lock()
	if s == Global {
		st.types, st.clients = fresh.types, fresh.clients
		st.keys, st.byHash = fresh.keys, fresh.byHash
		st.claims, st.pepper = fresh.claims, fresh.pepper
	} else {
		maps.DeleteFunc(st.domains, func(name string, _ *domainState) bool { return ShardOf(name) == s })
		maps.Copy(st.domains, fresh.domains)
		for alias, owners := range st.aliases {
			st.setAlias(alias, slices.DeleteFunc(slices.Clone(owners), func(o string) bool { return ShardOf(address.Domain(o)) == s }))
		}
		for alias, owners := range fresh.aliases {
			st.setAlias(alias, append(slices.Clone(st.aliases[alias]), owners...))
		}
		st.rename()
	}
	st.heads[s] = h
	st.version.Add(1) // under the lock, when everything is in place
	st.mu.Unlock()
	st.publish(StateEvent{Resync: true})
}

// apply carries out one entry that follows the shard's head.
func (st *State) apply(s Shard, h Head, e *Entry) error {
	st.alone[s].Lock()
	defer st.alone[s].Unlock()
	next, err := st.prepare(e.Puts, e.Dels, time.Now())
	if err != nil {
		return err
	}
	next.complete()
	st.mu.Lock()
	st.place(next)
	st.heads[s] = h
	st.mu.Unlock()
	st.publish(next.event)
	return nil
}

// expire takes the blocks that have ended out of the rules.
func (st *State) expire(now time.Time) {
	for _, name := range st.domainsWhere(func(r *domainRules) bool { return r.due(now) }) {
		st.expireIn(name, now)
	}
}

func (st *State) expireIn(name string, now time.Time) {
	s := ShardOf(name)
	st.alone[s].Lock()
	defer st.alone[s].Unlock()
	next := st.stage()
	r := next.domain(name)
	if !r.due(now) {
		return // a change was first, and may be of a later time
	}
	r.compile(now)
	next.complete()
	st.mu.Lock()
	st.place(next)
	st.mu.Unlock()
	st.publish(next.event)
}

// rename rebuilds the names of domains. Where two domains name the same alias, which claims
// prevent, the domain that bears the name or sorts first has it.
func (st *State) rename() {
	names := make(map[string]string, len(st.domains))
	order := slices.Sorted(maps.Keys(st.domains))
	for _, name := range order {
		if st.domains[name].doc != nil {
			names[name] = name
		}
	}
	for _, name := range order {
		if d := st.domains[name]; d.doc != nil {
			for _, alias := range d.doc.doc.AliasDomains {
				if _, taken := names[alias]; !taken {
					names[alias] = name
				}
			}
		}
	}
	st.names = names
}

// due reports whether a block in the rules has ended, or one that they leave out has not, because
// the clock was set back.
func (r *domainRules) due(now time.Time) bool {
	return !r.expires.IsZero() && !now.Before(r.expires) || now.Before(r.ended)
}

// clone returns a copy that may be changed until it is in place.
func (r *domainRules) clone() *domainRules {
	c := *r
	c.departments, c.policies = maps.Clone(r.departments), maps.Clone(r.policies)
	c.blocks, c.reverts = maps.Clone(r.blocks), maps.Clone(r.reverts)
	c.mailRules, c.groups, c.suspensions = maps.Clone(r.mailRules), maps.Clone(r.groups), maps.Clone(r.suspensions)
	c.held = maps.Clone(r.held)
	return &c
}

// compile compiles the documents into the rules that are in effect at a time.
func (r *domainRules) compile(now time.Time) {
	r.inOrder = byTime(r.policies, func(p *Policy) (time.Time, string) { return p.CreatedAt, p.ID })
	r.pending = byTime(r.reverts, func(v *Revert) (time.Time, string) { return v.At, v.ID })
	if r.doc == nil {
		r.rules, r.expires, r.ended, r.mail = nil, time.Time{}, time.Time{}, nil
		return
	}
	r.sendAs = r.compileSendAs()
	r.halted = nil
	for _, s := range r.suspensions {
		if r.halted == nil {
			r.halted = map[halted]bool{}
		}
		r.halted[halted{s.doc.Account, s.doc.Credential}] = true
	}
	set := r.settings(now)
	r.expires, r.ended = r.blockTimes(now)
	r.rules = r.rules.Recompile(&set)
	r.mail = mailflow.Compile(r.mailSettings(set.Departments))
}

// mailSettings returns the mail rules and groups of the domain, in lists of their own.
func (r *domainRules) mailSettings(departments []string) *mailflow.Settings {
	set := &mailflow.Settings{Domain: r.doc.doc.Name, Names: r.doc.doc.AliasDomains, Departments: departments}
	for _, m := range byTime(r.mailRules, func(m *MailRule) (time.Time, string) { return m.CreatedAt, m.ID }) {
		set.Rules = append(set.Rules, m.Doc.Rule)
	}
	for _, g := range page(behind(r.groups, ""), 0) {
		set.Groups = append(set.Groups, g.Doc.Group)
	}
	return set
}

// MailSettings returns the mail rules and groups of a managed domain, for the caller to change.
func (st *State) MailSettings(domain string) *mailflow.Settings {
	r := st.rulesOf(domain)
	if r.doc == nil {
		return &mailflow.Settings{Domain: domain}
	}
	return r.mailSettings(slices.Sorted(maps.Keys(r.departments)))
}

// settings returns the domain's rules as they are at a time, in lists of their own.
func (r *domainRules) settings(now time.Time) (set access.Settings) {
	set = access.Settings{
		Protocols:   r.doc.doc.Protocols,
		Departments: slices.Sorted(maps.Keys(r.departments)),
		Policies:    make([]access.Policy, len(r.inOrder)),
		EnforceFor:  r.doc.doc.SecurePasswords.Scope,
		MaxAge:      r.doc.doc.Passwords.maxAge(),
	}
	switch p := &r.doc.doc.SecurePasswords; p.State(now) {
	case EnforceInEffect:
		set.Enforced = true
	case EnforceGrace, EnforceReport, EnforcePaused:
		set.EnforceLater = true
	case EnforceOff:
	}
	if p := r.doc.doc.SecondFactor; p != nil && p.Required {
		set.FactorFor = &p.Scope
	}
	for i, p := range r.inOrder {
		set.Policies[i] = p.Doc.Policy
	}
	for _, b := range r.blocks {
		if !b.doc.Expired(now) {
			set.Blocked = append(set.Blocked, b.doc.Network)
		}
	}
	return set
}

// blockTimes returns when the first block that is in effect at a time ends, and when the last one
// ended that is not. The grace before secure passwords are enforced counts as a block.
func (r *domainRules) blockTimes(now time.Time) (expires, ended time.Time) {
	for _, b := range r.blocks {
		if !b.doc.Expired(now) {
			expires = earlier(expires, b.doc.ExpiresAt)
		} else if b.doc.ExpiresAt.After(ended) {
			ended = b.doc.ExpiresAt
		}
	}
	switch p := &r.doc.doc.SecurePasswords; p.State(now) {
	case EnforceGrace:
		expires = earlier(expires, p.GraceUntil)
	case EnforceInEffect:
		if p.GraceUntil.After(ended) {
			ended = p.GraceUntil
		}
	case EnforceOff, EnforceReport, EnforcePaused:
	}
	return expires, ended
}

// earlier returns the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// rulesOf returns a domain without its accounts; an empty one if the domain is not known.
func (st *State) rulesOf(name string) *domainRules {
	st.mu.RLock()
	defer st.mu.RUnlock()
	if d := st.domains[name]; d != nil {
		return d.domainRules
	}
	return newDomainRules()
}

// domainsWhere returns the domains whose rules satisfy f, in no order.
func (st *State) domainsWhere(f func(*domainRules) bool) []string {
	st.mu.RLock()
	defer st.mu.RUnlock()
	var names []string
	for name, d := range st.domains {
		if f(d.domainRules) {
			names = append(names, name)
		}
	}
	return names
}

func newDomainRules() *domainRules {
	return &domainRules{
		departments: map[string]*revised[Department]{},
		policies:    map[string]*revised[Policy]{},
		blocks:      map[string]*revised[Block]{},
		reverts:     map[string]*revised[Revert]{},
		mailRules:   map[string]*revised[MailRule]{},
		groups:      map[string]*revised[Group]{},
		held:        map[string]*revised[Held]{},
		suspensions: map[string]*revised[Suspension]{},
	}
}

// putAccount puts or replaces the account at an address.
func (st *State) putAccount(addr string, r Record) {
	d := st.domain(address.Domain(addr))
	old := d.accounts.get(addr)
	for _, alias := range old.Aliases() {
		st.setAlias(alias, slices.DeleteFunc(slices.Clone(st.aliases[alias]), func(o string) bool { return o == addr }))
	}
	for _, alias := range r.Aliases() {
		st.setAlias(alias, append(slices.Clone(st.aliases[alias]), addr))
	}
	d.countName(old.DisplayName(), -1)
	d.countName(r.DisplayName(), 1)
	if r.Exists() {
		d.accounts.put(r)
	} else {
		d.accounts.remove(addr)
	}
}

// countName counts an account more, or less, that has a display name.
func (d *domainState) countName(name string, n int) {
	if name == "" {
		return
	}
	if d.names == nil {
		d.names = map[string]int{}
	}
	key := mailflow.NameKey(name)
	if d.names[key] += n; d.names[key] == 0 {
		delete(d.names, key)
	}
}

// Named reports whether an account of a domain has a display name that reads like this one.
func (st *State) Named(domain, name string) bool {
	st.mu.RLock()
	defer st.mu.RUnlock()
	d := st.domains[domain]
	return d != nil && len(d.names) > 0 && d.names[mailflow.NameKey(name)] > 0
}

func (st *State) setAlias(alias string, owners []string) {
	if len(owners) == 0 {
		delete(st.aliases, alias)
		return
	}
	st.aliases[alias] = owners
}

func (st *State) domain(name string) *domainState {
	d := st.domains[name]
	if d == nil {
		d = &domainState{domainRules: newDomainRules()}
		st.domains[name] = d
	}
	return d
}
