package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// State is what a daemon holds in memory: all that decisions need. Plain maps
// for now; nothing outside this file knows.
//
// Documents that it hands out are shared and must not be changed.
type State struct {
	loaded  atomic.Bool
	synced  atomic.Int64  // when the store was last known to agree, unix nanoseconds
	version atomic.Uint64 // counts changes of what is below

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
	expires time.Time // when the next block of any domain ends; zero for never
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
	doc         *revised[Domain] // nil while only leftovers of a deleted domain are there
	departments map[string]*revised[Department]
	policies    map[string]*revised[Policy]
	blocks      map[string]*revised[Block]
	accounts    map[string]*revised[Account]
	reverts     map[string]*revised[Revert]
	expires     time.Time // when the rules' next block ends; zero for never
	rules       *access.Rules
	paths       []string
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
	st.expires = time.Time{}
	st.version.Add(1)
}

// View is what a decision needs of the state, read at one moment.
type View struct {
	Known    bool   // the domain is managed
	Domain   string // canonical
	Rules    *access.Rules
	Account  *Account // nil without a record
	Settings *Domain
	Clients  *access.Clients
}

// Ready reports whether the state was ever loaded, and when it last agreed
// with the store.
func (st *State) Ready() (loaded bool, synced time.Time) {
	return st.loaded.Load(), time.Unix(0, st.synced.Load())
}

// Version counts the changes of the state. What was decided at a version holds
// as long as it stays the same.
func (st *State) Version() uint64 { return st.version.Load() }

// View looks up an address whose domain may still be an alias domain. The
// returned address is canonical.
func (st *State) View(addr string) (canonical string, v View) {
	domain := address.Domain(addr)
	st.mu.RLock()
	defer st.mu.RUnlock()
	v.Clients = st.clients
	name, ok := st.names[domain]
	if !ok {
		return addr, v
	}
	if name != domain {
		addr = address.Local(addr) + "@" + name
	}
	d := st.domains[name]
	v.Known, v.Domain, v.Rules, v.Settings = true, name, d.rules, d.doc.doc
	if a := d.accounts[addr]; a != nil {
		v.Account = a.doc
	}
	return addr, v
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

// Pepper returns the fingerprint of the pepper that the store's hashes were
// made with, or "".
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
		accounts += len(d.accounts)
	}
	return domains, accounts
}

// agreed notes that the store was seen to agree with the state.
func (st *State) agreed(now time.Time) {
	st.synced.Store(now.UnixNano())
}

// replace puts the documents of one shard in place of what was there: all, or
// none when one of them cannot be read. They are read and compiled beside the
// state, which goes on deciding meanwhile.
func (st *State) replace(s Shard, h Head, docs []Doc) error {
	fresh := NewState()
	if err := fresh.change(s, h, docs, nil); err != nil {
		return err
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	defer st.version.Add(1) // under the lock, when all is in place
	if s == Global {
		st.types, st.clients = fresh.types, fresh.clients
		st.keys, st.byHash = fresh.keys, fresh.byHash
		st.claims, st.pepper = fresh.claims, fresh.pepper
	} else {
		maps.DeleteFunc(st.domains, func(name string, _ *domainState) bool { return ShardOf(name) == s })
		maps.Copy(st.domains, fresh.domains)
		st.expires = earlier(st.expires, fresh.expires)
		st.rename()
	}
	st.heads[s] = h
	return nil
}

// apply carries out one entry that follows the shard's head.
func (st *State) apply(s Shard, h Head, e *Entry) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.change(s, h, e.Puts, e.Dels)
}

func (st *State) change(s Shard, h Head, puts []Doc, dels []string) error {
	defer st.version.Add(1) // under the lock, when all is in place
	touched, renamed := map[string]bool{}, false
	for _, d := range puts {
		domain, err := st.put(d)
		if err != nil {
			return fmt.Errorf("document %s: %w", d.Key, err)
		}
		touched[domain] = true
		renamed = renamed || strings.HasPrefix(d.Key, kindDomain+"/")
	}
	for _, key := range dels {
		touched[st.del(key)] = true
		renamed = renamed || strings.HasPrefix(key, kindDomain+"/")
	}
	if s == Global {
		types := make(map[access.ClientType][]access.Evidence, len(st.types))
		for name, t := range st.types {
			types[name] = t.doc.Evidence
		}
		st.clients = access.CompileClients(types)
	} else {
		delete(touched, "")
		for name := range touched {
			st.compile(name)
		}
		if renamed {
			st.rename()
		}
	}
	st.heads[s] = h
	return nil
}

// rename rebuilds the names of domains. Where two domains name the same alias,
// which claims prevent, the domain that bears the name or sorts first has it.
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

func (st *State) compile(name string) {
	d := st.domains[name]
	if d == nil {
		return
	}
	if d.doc == nil && len(d.accounts)+len(d.departments)+len(d.policies)+len(d.blocks)+len(d.reverts) == 0 {
		delete(st.domains, name)
		return
	}
	if d.doc == nil {
		return
	}
	d.paths = slices.Sorted(maps.Keys(d.departments))
	set, expires := d.settings(time.Now())
	d.rules, d.expires = access.Compile(&set), expires
	st.expires = earlier(st.expires, expires)
}

// settings returns the domain's rules as they are at a time, and when a block
// among them ends.
func (d *domainState) settings(now time.Time) (set access.Settings, expires time.Time) {
	set = access.Settings{
		Protocols:   d.doc.doc.Protocols,
		Departments: d.paths,
		Enforced:    d.doc.doc.SecurePasswords.Enforced,
		EnforceFor:  d.doc.doc.SecurePasswords.Scope,
	}
	for _, p := range d.policiesInOrder() {
		set.Policies = append(set.Policies, p.Doc.Policy)
	}
	for _, b := range d.blocks {
		if !b.doc.Expired(now) {
			set.Blocked = append(set.Blocked, b.doc.Network)
			expires = earlier(expires, b.doc.ExpiresAt)
		}
	}
	return set, expires
}

// earlier returns the earlier of two times; zero is never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// expire takes the blocks that have ended out of the rules.
func (st *State) expire(now time.Time) {
	st.mu.RLock()
	due := !st.expires.IsZero() && !now.Before(st.expires)
	st.mu.RUnlock()
	if !due {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	defer st.version.Add(1)
	st.expires = time.Time{}
	for name, d := range st.domains {
		if d.expires.IsZero() || now.Before(d.expires) {
			st.expires = earlier(st.expires, d.expires)
			continue
		}
		st.compile(name)
	}
}

// policiesInOrder: oldest first, so that traces and lists read the same everywhere.
func (d *domainState) policiesInOrder() []Revised[Policy] {
	list := make([]Revised[Policy], 0, len(d.policies))
	for _, p := range d.policies {
		list = append(list, Revised[Policy]{p.doc, p.rev})
	}
	slices.SortFunc(list, func(a, b Revised[Policy]) int {
		if c := a.Doc.CreatedAt.Compare(b.Doc.CreatedAt); c != 0 {
			return c
		}
		return strings.Compare(a.Doc.ID, b.Doc.ID)
	})
	return list
}

func (st *State) domain(name string) *domainState {
	d := st.domains[name]
	if d == nil {
		d = &domainState{
			departments: map[string]*revised[Department]{},
			policies:    map[string]*revised[Policy]{},
			blocks:      map[string]*revised[Block]{},
			accounts:    map[string]*revised[Account]{},
			reverts:     map[string]*revised[Revert]{},
		}
		st.domains[name] = d
	}
	return d
}

func decode[T any](d Doc) (*revised[T], error) {
	v := new(T)
	if err := json.Unmarshal(d.Body, v); err != nil {
		return nil, err
	}
	return &revised[T]{v, d.Rev}, nil
}

// The kinds of documents, as their keys begin.
const (
	kindDomain     = "domain"     // domain/example.org
	kindDepartment = "department" // department/example.org/sales/emea
	kindPolicy     = "policy"     // policy/example.org/ID
	kindBlock      = "block"      // block/example.org/ID
	kindRevert     = "revert"     // revert/example.org/ID
	kindAccount    = "account"    // account/ann@example.org
	kindClient     = "client"     // client/web
	kindKey        = "key"        // key/ID
	kindName       = "name"       // name/example.net: who has this domain name
	kindPepper     = "pepper"     // pepper/fingerprint
)

func (st *State) put(d Doc) (domain string, err error) {
	kind, rest, _ := strings.Cut(d.Key, "/")
	switch kind {
	case kindDomain:
		v, err := decode[Domain](d)
		if err != nil {
			return "", err
		}
		st.domain(rest).doc = v
		return rest, nil
	case kindDepartment:
		name, path, _ := strings.Cut(rest, "/")
		v, err := decode[Department](d)
		if err != nil {
			return "", err
		}
		st.domain(name).departments[path] = v
		return name, nil
	case kindPolicy:
		name, id, _ := strings.Cut(rest, "/")
		v, err := decode[Policy](d)
		if err != nil {
			return "", err
		}
		st.domain(name).policies[id] = v
		return name, nil
	case kindBlock:
		name, id, _ := strings.Cut(rest, "/")
		v, err := decode[Block](d)
		if err != nil {
			return "", err
		}
		st.domain(name).blocks[id] = v
		return name, nil
	case kindRevert:
		name, id, _ := strings.Cut(rest, "/")
		v, err := decode[Revert](d)
		if err != nil {
			return "", err
		}
		st.domain(name).reverts[id] = v
		return "", nil // no rule changes by it until it is due
	case kindAccount:
		v, err := decode[Account](d)
		if err != nil {
			return "", err
		}
		st.domain(address.Domain(rest)).accounts[rest] = v
		return "", nil // no rule of the domain changes with an account
	case kindClient:
		v, err := decode[ClientType](d)
		if err != nil {
			return "", err
		}
		st.types[access.ClientType(rest)] = v
	case kindKey:
		v, err := decode[Key](d)
		if err != nil {
			return "", err
		}
		st.keys[rest] = v
		st.byHash[v.doc.Hash] = rest
	case kindName:
		v, err := decode[Claim](d)
		if err != nil {
			return "", err
		}
		st.claims[rest] = *v.doc
	case kindPepper:
		return "", json.Unmarshal(d.Body, &st.pepper)
	default:
		return "", fmt.Errorf("kind %q: %w", kind, ErrNewerSchema)
	}
	return "", nil
}

func (st *State) del(key string) (domain string) {
	kind, rest, _ := strings.Cut(key, "/")
	switch kind {
	case kindDomain:
		if d := st.domains[rest]; d != nil {
			d.doc, d.rules, d.expires = nil, nil, time.Time{}
		}
		return rest
	case kindDepartment:
		name, path, _ := strings.Cut(rest, "/")
		if d := st.domains[name]; d != nil {
			delete(d.departments, path)
		}
		return name
	case kindPolicy:
		name, id, _ := strings.Cut(rest, "/")
		if d := st.domains[name]; d != nil {
			delete(d.policies, id)
		}
		return name
	case kindBlock:
		name, id, _ := strings.Cut(rest, "/")
		if d := st.domains[name]; d != nil {
			delete(d.blocks, id)
		}
		return name
	case kindRevert:
		name, id, _ := strings.Cut(rest, "/")
		if d := st.domains[name]; d != nil {
			delete(d.reverts, id)
		}
		return ""
	case kindAccount:
		name := address.Domain(rest)
		if d := st.domains[name]; d != nil {
			delete(d.accounts, rest)
		}
		return ""
	case kindClient:
		delete(st.types, access.ClientType(rest))
	case kindKey:
		if k := st.keys[rest]; k != nil {
			delete(st.byHash, k.doc.Hash)
		}
		delete(st.keys, rest)
	case kindName:
		delete(st.claims, rest)
	}
	return ""
}
