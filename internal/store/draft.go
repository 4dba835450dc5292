package store

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// draft is a change on its way into the state: read and compiled beside it, which may take long,
// then put in place, which does not.
type draft struct {
	st      *State
	rulings map[string]*ruling                         // the changed domains, as they will be
	types   map[access.ClientType]*revised[ClientType] // all, as they will be; nil when none changes
	clients *access.Clients
	records []Record // of the accounts that are put
	rest    []func() // put the other documents in place that no rule is made of
	renamed bool     // a domain comes, goes, or has other aliases
}

func (st *State) draft() *draft { return &draft{st: st, rulings: map[string]*ruling{}} }

// prepare reads and compiles a change. Its shard must not change until the draft is in place.
func (st *State) prepare(puts []Doc, dels []string, now time.Time) (*draft, error) {
	dr := st.draft()
	for _, d := range puts {
		if err := dr.put(d); err != nil {
			return nil, fmt.Errorf("document %s: %w", d.Key, err)
		}
	}
	for _, key := range dels {
		dr.del(key)
	}
	for _, r := range dr.rulings {
		r.compile(now)
	}
	if dr.types != nil {
		evidence := make(map[access.ClientType][]access.Evidence, len(dr.types))
		for name, t := range dr.types {
			evidence[name] = t.doc.Evidence
		}
		dr.clients = access.CompileClients(evidence)
	}
	for _, r := range dr.records {
		// Nothing is asked: so the processor has at hand what place changes, which otherwise waits
		// for main memory with the state locked, 5000 accounts for 2.5 ms.
		_, _ = st.View(r.Address())
	}
	return dr, nil
}

// place puts a draft in place. The state must be locked.
func (st *State) place(dr *draft) {
	defer st.version.Add(1) // under the lock, when all is in place
	for _, r := range dr.records {
		st.putAccount(r.Address(), r)
	}
	for _, put := range dr.rest {
		put()
	}
	if dr.types != nil {
		st.types, st.clients = dr.types, dr.clients
	}
	for name, r := range dr.rulings {
		d := st.domain(name)
		d.ruling = r
		if r.doc == nil && len(d.accounts)+len(r.departments)+len(r.policies)+len(r.blocks)+len(r.reverts) == 0 {
			delete(st.domains, name)
		}
	}
	if dr.renamed {
		st.rename()
	}
}

// ruling returns a domain as it will be, to be changed.
func (dr *draft) ruling(name string) *ruling {
	r := dr.rulings[name]
	if r == nil {
		r = dr.st.ruling(name).clone()
		dr.rulings[name] = r
	}
	return r
}

// clientTypes returns the client types as they will be, to be changed.
func (dr *draft) clientTypes() map[access.ClientType]*revised[ClientType] {
	if dr.types == nil {
		dr.st.mu.RLock()
		dr.types = maps.Clone(dr.st.types)
		dr.st.mu.RUnlock()
	}
	return dr.types
}

func (dr *draft) later(f func()) { dr.rest = append(dr.rest, f) }

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

func (dr *draft) put(d Doc) error {
	kind, rest, _ := strings.Cut(d.Key, "/")
	st := dr.st
	switch kind {
	case kindDomain:
		v, err := decode[Domain](d)
		if err != nil {
			return err
		}
		dr.ruling(rest).doc, dr.renamed = v, true
	case kindDepartment:
		name, path, _ := strings.Cut(rest, "/")
		v, err := decode[Department](d)
		if err != nil {
			return err
		}
		dr.ruling(name).departments[path] = v
	case kindPolicy:
		name, id, _ := strings.Cut(rest, "/")
		v, err := decode[Policy](d)
		if err != nil {
			return err
		}
		dr.ruling(name).policies[id] = v
	case kindBlock:
		name, id, _ := strings.Cut(rest, "/")
		v, err := decode[Block](d)
		if err != nil {
			return err
		}
		dr.ruling(name).blocks[id] = v
	case kindRevert:
		name, id, _ := strings.Cut(rest, "/")
		v, err := decode[Revert](d)
		if err != nil {
			return err
		}
		dr.ruling(name).reverts[id] = v
	case kindAccount:
		v, err := decode[Account](d)
		if err != nil {
			return err
		}
		dr.records = append(dr.records, pack(rest, v.doc, v.rev))
	case kindClient:
		v, err := decode[ClientType](d)
		if err != nil {
			return err
		}
		dr.clientTypes()[access.ClientType(rest)] = v
	case kindKey:
		v, err := decode[Key](d)
		if err != nil {
			return err
		}
		dr.later(func() { st.keys[rest], st.byHash[v.doc.Hash] = v, rest })
	case kindName:
		v, err := decode[Claim](d)
		if err != nil {
			return err
		}
		dr.later(func() { st.claims[rest] = *v.doc })
	case kindPepper:
		var fingerprint string
		if err := json.Unmarshal(d.Body, &fingerprint); err != nil {
			return err
		}
		dr.later(func() { st.pepper = fingerprint })
	default:
		return fmt.Errorf("kind %q: %w", kind, ErrNewerSchema)
	}
	return nil
}

func (dr *draft) del(key string) {
	kind, rest, _ := strings.Cut(key, "/")
	st := dr.st
	switch kind {
	case kindDomain:
		dr.ruling(rest).doc, dr.renamed = nil, true
	case kindDepartment:
		name, path, _ := strings.Cut(rest, "/")
		delete(dr.ruling(name).departments, path)
	case kindPolicy:
		name, id, _ := strings.Cut(rest, "/")
		delete(dr.ruling(name).policies, id)
	case kindBlock:
		name, id, _ := strings.Cut(rest, "/")
		delete(dr.ruling(name).blocks, id)
	case kindRevert:
		name, id, _ := strings.Cut(rest, "/")
		delete(dr.ruling(name).reverts, id)
	case kindAccount:
		dr.later(func() {
			if st.domains[address.Domain(rest)] != nil {
				st.putAccount(rest, Record{})
			}
		})
	case kindClient:
		delete(dr.clientTypes(), access.ClientType(rest))
	case kindKey:
		dr.later(func() {
			if k := st.keys[rest]; k != nil {
				delete(st.byHash, k.doc.Hash)
			}
			delete(st.keys, rest)
		})
	case kindName:
		dr.later(func() { delete(st.claims, rest) })
	}
}
