package store

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// stagedChange is a change that is decoded and compiled outside the state, which may take long, and
// then put in place, which is quick.
type stagedChange struct {
	st      *State
	domains map[string]*domainRules                    // the changed domains, as they will be
	types   map[access.ClientType]*revised[ClientType] // all, as they will be; nil when none changes
	clients *access.Clients
	records []Record         // of the accounts that are put
	tables  map[string]table // of domains whose index of accounts has to grow
	removed []string         // addresses of the accounts that are deleted
	rest    []func(*State)   // put other documents in place, which no rule depends on
	renamed bool             // a domain is created or deleted, or its aliases change
	event   StateEvent
}

func (st *State) stage() *stagedChange {
	return &stagedChange{st: st, domains: map[string]*domainRules{}}
}

// prepare decodes and compiles a change. Its shard must not change until the change is in place.
func (st *State) prepare(puts []Doc, dels []string, now time.Time) (*stagedChange, error) {
	c := st.stage()
	for _, d := range puts {
		name, rest, _ := strings.Cut(d.Key, "/")
		k, ok := kinds[name]
		if !ok {
			return nil, fmt.Errorf("document %s: kind %q: %w", d.Key, name, ErrNewerSchema)
		}
		if err := k.put(c, rest, d); err != nil {
			return nil, fmt.Errorf("document %s: %w", d.Key, err)
		}
	}
	for _, key := range dels {
		name, rest, _ := strings.Cut(key, "/")
		if k, ok := kinds[name]; ok {
			k.del(c, rest)
		}
	}
	for _, r := range c.domains {
		r.compile(now)
	}
	if c.types != nil {
		evidence := make(map[access.ClientType][]access.Evidence, len(c.types))
		for name, t := range c.types {
			evidence[name] = t.doc.Evidence
		}
		c.clients = access.CompileClients(evidence)
	}
	if len(c.records) > 0 {
		c.tables = st.roomFor(c.records)
	}
	for _, r := range c.records {
		// The result is not used. It loads the memory that place changes into the processor's
		// cache, which otherwise waits for main memory while the state is locked: 2.5 ms for 5000
		// accounts.
		_, _ = st.View(r.Address())
	}
	return c, nil
}

// roomFor returns larger tables for the domains whose index has no room for records, so that
// [State.place] need not make them while decisions wait.
func (st *State) roomFor(records []Record) map[string]table {
	counts := map[string]int{}
	for _, r := range records {
		counts[address.Domain(r.Address())]++
	}
	tables := map[string]table{}
	for name, n := range counts {
		st.mu.RLock()
		d := st.domains[name]
		st.mu.RUnlock()
		if d == nil {
			d = &domainState{}
		}
		// Nobody changes the accounts of this shard now.
		if slots := d.accounts.room(n); slots != nil {
			tables[name] = table{slots, d.accounts.changes}
		}
	}
	return tables
}

// place puts a staged change in place. The state must be locked.
func (st *State) place(c *stagedChange) {
	defer st.version.Add(1) // under the lock, when everything is in place
	for name, t := range c.tables {
		st.domain(name).accounts.use(t)
	}
	for _, r := range c.records {
		st.putAccount(r.Address(), r)
	}
	for _, addr := range c.removed {
		if st.domains[address.Domain(addr)] != nil {
			st.putAccount(addr, Record{})
		}
	}
	for _, put := range c.rest {
		put(st)
	}
	if c.types != nil {
		st.types, st.clients = c.types, c.clients
	}
	for name, r := range c.domains {
		d := st.domain(name)
		d.domainRules = r
		if r.doc == nil && d.accounts.count+len(r.departments)+len(r.policies)+len(r.blocks)+len(r.reverts)+len(r.mailRules)+len(r.groups)+len(r.held)+len(r.suspensions) == 0 {
			delete(st.domains, name)
		}
	}
	if c.renamed {
		st.rename()
	}
}

// domain returns a domain's rules as they will be, for the caller to change.
func (c *stagedChange) domain(name string) *domainRules {
	r := c.domains[name]
	if r == nil {
		r = c.st.rulesOf(name).clone()
		c.domains[name] = r
	}
	return r
}

// clientTypes returns the client types as they will be, for the caller to change.
func (c *stagedChange) clientTypes() map[access.ClientType]*revised[ClientType] {
	if c.types == nil {
		c.st.mu.RLock()
		c.types = maps.Clone(c.st.types)
		c.st.mu.RUnlock()
	}
	return c.types
}

func (c *stagedChange) later(f func(*State)) { c.rest = append(c.rest, f) }
