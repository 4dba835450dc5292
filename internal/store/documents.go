package store

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// NewID returns a random identifier of 16 lower-case hex digits (64 bits), such as those of secure
// passwords, policies and records. It cannot fail.
func NewID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

func newStoreID() (string, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return "", fmt.Errorf("making a store id: %w", err)
	}
	return hex.EncodeToString(b[:]), nil
}

func get[T any](r *revised[T]) (Revised[T], bool) {
	if r == nil {
		return Revised[T]{}, false
	}
	return Revised[T]{r.doc, r.rev}, true
}

// named is a document with the name that it is sorted by.
type named[T any] struct {
	name string
	*revised[T]
}

// behind returns the documents of a map whose names follow after, in no order.
func behind[K ~string, T any](m map[K]*revised[T], after string) []named[T] {
	list := make([]named[T], 0, len(m))
	for name, r := range m {
		if string(name) > after {
			list = append(list, named[T]{string(name), r})
		}
	}
	return list
}

// page returns up to limit documents, 0 for all, sorted. Not to be called with the state locked: a
// million take a second.
func page[T any](list []named[T], limit int) []Revised[T] {
	slices.SortFunc(list, func(a, b named[T]) int { return strings.Compare(a.name, b.name) })
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	items := make([]Revised[T], len(list))
	for i, e := range list {
		items[i] = Revised[T]{e.doc, e.rev}
	}
	return items
}

// byTime returns the documents of a map by a time of theirs, those of one time by id.
func byTime[T any](m map[string]*revised[T], of func(*T) (at time.Time, id string)) []Revised[T] {
	list := make([]Revised[T], 0, len(m))
	for _, r := range m {
		list = append(list, Revised[T]{r.doc, r.rev})
	}
	slices.SortFunc(list, func(a, b Revised[T]) int {
		at, id := of(a.Doc)
		otherAt, otherID := of(b.Doc)
		return cmp.Or(at.Compare(otherAt), strings.Compare(id, otherID))
	})
	return list
}

// Domain returns a managed domain by its own canonical name; an alias domain is not found (see
// [State.ResolveDomain]). The document is shared.
func (st *State) Domain(name string) (Revised[Domain], bool) { return get(st.rulesOf(name).doc) }

// Domains returns up to limit managed domains, 0 for all, whose names are greater than after,
// sorted by name: a page of a list.
func (st *State) Domains(after string, limit int) []Revised[Domain] {
	var list []named[Domain]
	st.mu.RLock()
	for name, d := range st.domains {
		if d.doc != nil && name > after {
			list = append(list, named[Domain]{name, d.doc})
		}
	}
	st.mu.RUnlock()
	return page(list, limit)
}

// Department returns a department of a domain by its whole path, such as "sales/emea". Domain is
// the canonical name, not an alias.
func (st *State) Department(domain, path string) (Revised[Department], bool) {
	return get(st.rulesOf(domain).departments[path])
}

// Departments returns all departments of a domain, sorted by path, so that each follows the one
// above it. It is empty for an unknown domain.
func (st *State) Departments(domain string) []Revised[Department] {
	return page(behind(st.rulesOf(domain).departments, ""), 0)
}

// Policy returns an access policy of a domain by its id, enabled or not. The document is shared and
// must not be changed.
func (st *State) Policy(domain, id string) (Revised[Policy], bool) {
	return get(st.rulesOf(domain).policies[id])
}

// Policies returns all access policies of a domain, oldest first. The list is shared and must not
// be changed.
func (st *State) Policies(domain string) []Revised[Policy] { return st.rulesOf(domain).inOrder }

// NamingRegions returns the names of the domains with an enabled access policy that names regions,
// sorted: they depend on the region database.
func (st *State) NamingRegions() []string {
	domains := st.domainsWhere(func(r *domainRules) bool {
		return r.doc != nil && slices.ContainsFunc(r.inOrder, func(p Revised[Policy]) bool { return p.Doc.Enabled && len(p.Doc.Regions) > 0 })
	})
	slices.Sort(domains)
	return domains
}

// Rules returns the rules of a domain as they would be after an edit of its settings, whose lists
// are the edit's to change and whose documents are not; nil for a domain that is not managed.
func (st *State) Rules(domain string, now time.Time, edit func(*access.Settings)) *access.Rules {
	r := st.rulesOf(domain)
	if r.doc == nil {
		return nil
	}
	set := r.settings(now)
	edit(&set)
	return r.rules.Recompile(&set)
}

// Block returns a blocked address of a domain by its id, expired or not: an expired one stays until
// it is deleted, without effect.
func (st *State) Block(domain, id string) (Revised[Block], bool) {
	return get(st.rulesOf(domain).blocks[id])
}

// Blocks returns all blocked addresses of a domain, expired or not, oldest first and those of one
// time by id.
func (st *State) Blocks(domain string) []Revised[Block] {
	return byTime(st.rulesOf(domain).blocks, func(b *Block) (time.Time, string) { return b.CreatedAt, b.ID })
}

// Reverts returns the changes of a domain that undo themselves unless they are confirmed, the next
// one due first. The list is shared and must not be changed.
func (st *State) Reverts(domain string) []Revised[Revert] { return st.rulesOf(domain).pending }

// dueReverts returns the domains that have a revert which is due.
func (st *State) dueReverts(now time.Time) []string {
	return st.domainsWhere(func(r *domainRules) bool {
		return r.doc != nil && len(r.pending) > 0 && !now.Before(r.pending[0].Doc.At)
	})
}

// MailRule returns a mail rule of a domain by its id, enabled or not. The document is shared and
// must not be changed.
func (st *State) MailRule(domain, id string) (Revised[MailRule], bool) {
	return get(st.rulesOf(domain).mailRules[id])
}

// MailRules returns all mail rules of a domain, enabled or not, oldest first and those of one time
// by id.
func (st *State) MailRules(domain string) []Revised[MailRule] {
	return byTime(st.rulesOf(domain).mailRules, func(m *MailRule) (time.Time, string) { return m.CreatedAt, m.ID })
}

// Group returns a group of a domain by its canonical address; its aliases and extensions are not
// resolved (see [State.Recipient]).
func (st *State) Group(domain, addr string) (Revised[Group], bool) {
	return get(st.rulesOf(domain).groups[addr])
}

// Groups returns all groups of a domain, sorted by address. It is empty for an unknown domain, or
// for an alias of one.
func (st *State) Groups(domain string) []Revised[Group] {
	return page(behind(st.rulesOf(domain).groups, ""), 0)
}

// Suspension returns a credential of a domain that a sending limit has suspended, by the id of the
// suspension, not of the credential.
func (st *State) Suspension(domain, id string) (Revised[Suspension], bool) {
	return get(st.rulesOf(domain).suspensions[id])
}

// Suspensions returns all credentials of a domain that sending limits have suspended, oldest first
// and those of one time by id.
func (st *State) Suspensions(domain string) []Revised[Suspension] {
	return byTime(st.rulesOf(domain).suspensions, func(s *Suspension) (time.Time, string) { return s.At, s.ID })
}

// Account returns the record of a canonical address: the caller's own copy, unpacked. Aliases and
// extensions are not resolved; see [State.View].
func (st *State) Account(addr string) (Revised[Account], bool) {
	r := st.record(addr)
	return r.revised(), r.Exists()
}

// record returns the record of a canonical address.
func (st *State) record(addr string) Record {
	st.mu.RLock()
	defer st.mu.RUnlock()
	if d := st.domains[address.Domain(addr)]; d != nil {
		return d.accounts.get(addr)
	}
	return Record{}
}

// Accounts returns up to limit accounts of a domain whose addresses follow after, sorted; limit 0
// means all.
func (st *State) Accounts(domain, after string, limit int) []Revised[Account] {
	list := st.first(domain, after, limit)
	items := make([]Revised[Account], len(list))
	for i, r := range list {
		items[i] = r.revised()
	}
	return items
}

// first returns the first records of a domain whose addresses follow after, 0 for all, sorted.
func (st *State) first(domain, after string, limit int) []Record {
	if limit == 0 {
		return firstRecords(st.records(domain, after), 0)
	}
	list, sorted := st.following(domain, after, limit)
	if !sorted && st.listedAgain(domain) {
		st.sort(domain)
		list, sorted = st.following(domain, after, limit)
	}
	if !sorted {
		list = firstRecords(st.records(domain, after), limit)
	}
	return list
}

func (st *State) following(domain, after string, limit int) (list []Record, sorted bool) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	d := st.domains[domain]
	if d == nil {
		return nil, true
	}
	return d.accounts.following(after, limit)
}

// listedAgain reports whether a domain's accounts were listed before since one came or went.
func (st *State) listedAgain(domain string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	d := st.domains[domain]
	if d == nil || d.accounts.listed {
		return d != nil
	}
	d.accounts.listed = true
	return false
}

// sort sorts the addresses of a domain, unless one comes or goes meanwhile.
func (st *State) sort(domain string) {
	st.mu.RLock()
	var version uint64
	if d := st.domains[domain]; d != nil {
		version = d.accounts.version
	}
	st.mu.RUnlock()
	sorted := newOrder(st.records(domain, ""))
	st.mu.Lock()
	defer st.mu.Unlock()
	if d := st.domains[domain]; d != nil && d.accounts.version == version {
		d.accounts.order = sorted
	}
}

// records returns the records of a domain whose addresses follow after, in no order.
func (st *State) records(domain, after string) []Record {
	st.mu.RLock()
	defer st.mu.RUnlock()
	d := st.domains[domain]
	if d == nil {
		return nil
	}
	list := make([]Record, 0, d.accounts.count)
	for r := range d.accounts.all() {
		if r.Address() > after {
			list = append(list, r)
		}
	}
	return list
}

// firstRecords returns the first records, 0 for all, sorted by address. It reuses the list.
func firstRecords(list []Record, limit int) []Record {
	byAddress := func(a, b Record) int { return strings.Compare(a.Address(), b.Address()) }
	if limit > 0 { // for a page, a million accounts need not be put in order
		first := list[:0]
		var last Record // none behind it is wanted
		for _, r := range list {
			if last.Exists() && byAddress(r, last) > 0 {
				continue
			}
			if first = append(first, r); len(first) == 2*limit {
				slices.SortFunc(first, byAddress)
				first, last = first[:limit], first[limit-1]
			}
		}
		list = first
	}
	slices.SortFunc(list, byAddress)
	if limit > 0 && len(list) > limit {
		list = list[:limit]
	}
	return list
}

// ClientType returns what proves a client type. A type without a document, predefined ones
// included, is not found: nothing proves it.
func (st *State) ClientType(name access.ClientType) (Revised[ClientType], bool) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	return get(st.types[name])
}

// ClientTypes returns the client types that have evidence, predefined ones and those of the site,
// sorted by name.
func (st *State) ClientTypes() []Revised[ClientType] {
	st.mu.RLock()
	list := behind(st.types, "")
	st.mu.RUnlock()
	return page(list, 0)
}

// Keys returns all API keys, expired ones too, sorted by id. They hold the hashes of the secrets,
// never the secrets.
func (st *State) Keys() []Revised[Key] {
	st.mu.RLock()
	list := behind(st.keys, "")
	st.mu.RUnlock()
	return page(list, 0)
}

// Claim returns the claim on a domain name, its own or an alias: for which managed domain it is
// taken, in all shards.
func (st *State) Claim(name string) (Claim, bool) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	claim, ok := st.claims[name]
	return claim, ok
}

// Put adds a resource to the change. Resources must be complete: they replace what was there.

// PutDomain adds a domain to the change, or replaces it. All Put methods need the complete
// document; an encoding fault fails the change.
func (c *Change) PutDomain(d *Domain) { c.put(kindDomain+"/"+d.Name, d) }

// PutDepartment adds a department of a domain under its path, or replaces it. The departments above
// it are the caller's to add.
func (c *Change) PutDepartment(domain string, d *Department) {
	c.put(kindDepartment+"/"+domain+"/"+d.Path, d)
}

// PutPolicy adds an access policy of a domain under its id, or replaces it. The caller has
// validated it: the state compiles it as it is.
func (c *Change) PutPolicy(domain string, p *Policy) { c.put(kindPolicy+"/"+domain+"/"+p.ID, p) }

// PutBlock adds a blocked address of a domain under its id, or replaces it. One that is expired
// already has no effect.
func (c *Change) PutBlock(domain string, b *Block) { c.put(kindBlock+"/"+domain+"/"+b.ID, b) }

// PutMailRule adds a mail rule of a domain under its id, or replaces it. The caller has validated
// it, regular expressions included.
func (c *Change) PutMailRule(domain string, m *MailRule) {
	c.put(kindMailRule+"/"+domain+"/"+m.ID, m)
}

// PutGroup adds a group of a domain under its address, or replaces it. The mail server expands it;
// nothing here does.
func (c *Change) PutGroup(domain string, g *Group) { c.put(kindGroup+"/"+domain+"/"+g.Address, g) }

// PutSuspension suspends a credential of a domain's account under an id: a secure password
// everywhere, the mailbox password for submissions.
func (c *Change) PutSuspension(domain string, s *Suspension) {
	c.put(kindSuspension+"/"+domain+"/"+s.ID, s)
}

// PutRevert adds what a domain returns to at a time unless the revert is deleted before. Any daemon
// applies it when it is due.
func (c *Change) PutRevert(domain string, r *Revert) { c.put(kindRevert+"/"+domain+"/"+r.ID, r) }

// PutAccount adds an account with its secrets, or replaces it: [Account.KeepSecrets] keeps those of
// the present record. It is packed here.
func (c *Change) PutAccount(a *Account) {
	c.put(kindAccount+"/"+a.Address, a)
	if c.err == nil {
		c.puts[len(c.puts)-1].account = pack(a.Address, a, c.Rev)
	}
}

// PutClientType adds what proves a client type, or replaces it. The change must be one of shard
// [Global].
func (c *Change) PutClientType(t *ClientType) { c.put(kindClient+"/"+string(t.Type), t) }

// PutKey adds an API key under its id, or replaces it. The change must be one of shard [Global].
func (c *Change) PutKey(k *Key) { c.put(kindKey+"/"+k.ID, k) }

// PutClaim claims a domain name, own or alias, for a domain: no other may take it. The change must
// be one of shard [Global].
func (c *Change) PutClaim(name string, claim Claim) { c.put(kindName+"/"+name, claim) }

// PutPepper records the fingerprint of the pepper in use, which daemons compare with theirs. The
// change must be one of shard [Global].
func (c *Change) PutPepper(fingerprint string) { c.put(kindPepper+"/fingerprint", fingerprint) }

// DeleteDomain removes a domain with all that belongs to it, but no more than so many accounts: a
// transaction has to stay small. The rest belongs to no domain, and is removed by the next call.
func (c *Change) DeleteDomain(st *State, name string, accounts int) {
	for _, d := range st.Departments(name) {
		c.DeleteDepartment(name, d.Doc.Path)
	}
	for _, p := range st.Policies(name) {
		c.DeletePolicy(name, p.Doc.ID)
	}
	for _, b := range st.Blocks(name) {
		c.DeleteBlock(name, b.Doc.ID)
	}
	for _, r := range st.Reverts(name) {
		c.DeleteRevert(name, r.Doc.ID)
	}
	for _, m := range st.MailRules(name) {
		c.DeleteMailRule(name, m.Doc.ID)
	}
	for _, s := range st.Suspensions(name) {
		c.DeleteSuspension(name, s.Doc.ID)
	}
	for _, g := range st.Groups(name) {
		c.DeleteGroup(name, g.Doc.Address)
	}
	for _, h := range st.HeldIn(name) {
		c.DeleteHeld(name, h.Doc.ID)
	}
	for _, a := range st.Accounts(name, "", accounts) {
		c.DeleteAccount(a.Doc.Address)
	}
	c.del(kindDomain + "/" + name)
}

// DeleteDepartment removes a department by its path. References in accounts, policies and rules are
// the caller's to refuse or to change.
func (c *Change) DeleteDepartment(domain, path string) {
	c.del(kindDepartment + "/" + domain + "/" + path)
}

// DeletePolicy removes an access policy of a domain. One that does not exist is no error: Redis
// deletes nothing.
func (c *Change) DeletePolicy(domain, id string) { c.del(kindPolicy + "/" + domain + "/" + id) }

// DeleteBlock removes a blocked address of a domain, expired or not. One that does not exist is no
// error.
func (c *Change) DeleteBlock(domain, id string) { c.del(kindBlock + "/" + domain + "/" + id) }

// DeleteMailRule removes a mail rule of a domain. What it has counted for a limit, held or
// suspended stays.
func (c *Change) DeleteMailRule(domain, id string) { c.del(kindMailRule + "/" + domain + "/" + id) }

// DeleteGroup removes a group of a domain by its address: afterwards it is an address like others,
// to which anyone may write.
func (c *Change) DeleteGroup(domain, addr string) { c.del(kindGroup + "/" + domain + "/" + addr) }

// DeleteSuspension lifts a suspension of a domain by its id. The credential works again at once, on
// every daemon that follows the shard.
func (c *Change) DeleteSuspension(domain, id string) {
	c.del(kindSuspension + "/" + domain + "/" + id)
}

// DeleteRevert removes a pending revert of a domain, which confirms the change that it was for:
// that stays as it is.
func (c *Change) DeleteRevert(domain, id string) { c.del(kindRevert + "/" + domain + "/" + id) }

// DeleteAccount removes an account's record with its secrets, suspension and switches. The domain's
// rules still hold for the address.
func (c *Change) DeleteAccount(addr string) { c.del(kindAccount + "/" + addr) }

// DeleteClientType removes what proves a client type: afterwards nothing does. The change must be
// one of shard [Global].
func (c *Change) DeleteClientType(t access.ClientType) { c.del(kindClient + "/" + string(t)) }

// DeleteKey removes an API key by its id, and so revokes it. The change must be one of shard
// [Global].
func (c *Change) DeleteKey(id string) { c.del(kindKey + "/" + id) }

// DeleteClaim gives up the claim on a domain name, so that another domain may take it. The change
// must be one of shard [Global].
func (c *Change) DeleteClaim(name string) { c.del(kindName + "/" + name) }

// InDepartment reports whether an account belongs to a department, given by its path, or to one
// below it at any depth.
func (a *Account) InDepartment(path string) bool {
	return slices.ContainsFunc(a.Departments, func(d string) bool { return d == path || strings.HasPrefix(d, path+"/") })
}
