package store

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
)

// The kinds of documents. A document's key begins with its kind.
const (
	kindDomain     = "domain"     // domain/example.org
	kindDepartment = "department" // department/example.org/sales/emea
	kindPolicy     = "policy"     // policy/example.org/ID
	kindBlock      = "block"      // block/example.org/ID
	kindRevert     = "revert"     // revert/example.org/ID
	kindMailRule   = "mailrule"   // mailrule/example.org/ID
	kindGroup      = "group"      // group/example.org/team@example.org
	kindHeld       = "held"       // held/example.org/ID
	kindSuspension = "suspension" // suspension/example.org/ID
	kindAccount    = "account"    // account/ann@example.org
	kindClient     = "client"     // client/web
	kindKey        = "key"        // key/ID
	kindName       = "name"       // name/example.net: the domain that owns this domain name
	kindPepper     = "pepper"     // pepper/fingerprint
)

// kind is one row of the table of document kinds. A new kind needs a row here and its type.
type kind struct {
	// put stages a document, del its deletion. rest is the key without its kind.
	put func(c *stagedChange, rest string, d Doc) error
	del func(c *stagedChange, rest string)
	// all passes every document of one shard to yield. The state must be locked for reading.
	all func(st *State, s Shard, yield func(rest string, rev uint64, v any))
}

// kinds is the table of document kinds by name. It never changes.
var kinds = map[string]kind{
	kindDomain: {
		put: func(c *stagedChange, rest string, d Doc) error {
			v, err := decode[Domain](d)
			if err == nil {
				c.domain(rest).doc, c.renamed = v, true
			}
			return err
		},
		del: func(c *stagedChange, rest string) { c.domain(rest).doc, c.renamed = nil, true },
		all: func(st *State, s Shard, yield func(string, uint64, any)) {
			st.eachDomain(s, func(name string, d *domainState) {
				if d.doc != nil {
					yield(name, d.doc.rev, d.doc.doc)
				}
			})
		},
	},
	kindDepartment: inDomain(func(r *domainRules) map[string]*revised[Department] { return r.departments }),
	kindPolicy:     inDomain(func(r *domainRules) map[string]*revised[Policy] { return r.policies }),
	kindBlock:      inDomain(func(r *domainRules) map[string]*revised[Block] { return r.blocks }),
	kindRevert:     inDomain(func(r *domainRules) map[string]*revised[Revert] { return r.reverts }),
	kindMailRule:   inDomain(func(r *domainRules) map[string]*revised[MailRule] { return r.mailRules }),
	kindSuspension: inDomain(func(r *domainRules) map[string]*revised[Suspension] { return r.suspensions }),
	kindGroup:      inDomain(func(r *domainRules) map[string]*revised[Group] { return r.groups }),
	kindHeld:       inDomain(func(r *domainRules) map[string]*revised[Held] { return r.held }),
	kindAccount: {
		put: func(c *stagedChange, rest string, d Doc) error {
			if d.account.Exists() && d.account.Address() == rest {
				c.records = append(c.records, d.account)
				return nil
			}
			v, err := decode[Account](d)
			if err == nil {
				c.records = append(c.records, pack(rest, v.doc, v.rev))
			}
			return err
		},
		del: func(c *stagedChange, rest string) {
			c.removed = append(c.removed, rest)
		},
		all: func(st *State, s Shard, yield func(string, uint64, any)) {
			st.eachDomain(s, func(_ string, d *domainState) {
				for r := range d.accounts.all() {
					a := r.revised()
					yield(a.Doc.Address, a.Rev, a.Doc)
				}
			})
		},
	},
	kindClient: {
		put: func(c *stagedChange, rest string, d Doc) error {
			v, err := decode[ClientType](d)
			if err == nil {
				c.clientTypes()[access.ClientType(rest)] = v
				c.event.ClientTypes = append(c.event.ClientTypes, access.ClientType(rest))
			}
			return err
		},
		del: func(c *stagedChange, rest string) {
			delete(c.clientTypes(), access.ClientType(rest))
			c.event.ClientTypes = append(c.event.ClientTypes, access.ClientType(rest))
		},
		all: global(func(st *State, yield func(string, uint64, any)) {
			for name, t := range st.types {
				yield(string(name), t.rev, t.doc)
			}
		}),
	},
	kindKey: {
		put: func(c *stagedChange, rest string, d Doc) error {
			v, err := decode[Key](d)
			if err == nil {
				c.later(func(st *State) { st.keys[rest], st.byHash[v.doc.Hash] = v, rest })
				c.event.Keys = append(c.event.Keys, rest)
			}
			return err
		},
		del: func(c *stagedChange, rest string) {
			c.later(func(st *State) {
				if k := st.keys[rest]; k != nil {
					delete(st.byHash, k.doc.Hash)
				}
				delete(st.keys, rest)
			})
			c.event.Keys = append(c.event.Keys, rest)
		},
		all: global(func(st *State, yield func(string, uint64, any)) {
			for id, k := range st.keys {
				yield(id, k.rev, k.doc)
			}
		}),
	},
	kindName: {
		put: func(c *stagedChange, rest string, d Doc) error {
			v, err := decode[Claim](d)
			if err == nil {
				c.later(func(st *State) { st.claims[rest] = *v.doc })
			}
			return err
		},
		del: func(c *stagedChange, rest string) {
			c.later(func(st *State) { delete(st.claims, rest) })
		},
		all: global(func(st *State, yield func(string, uint64, any)) {
			for name, claim := range st.claims {
				yield(name, st.heads[Global].N, claim)
			}
		}),
	},
	kindPepper: {
		put: func(c *stagedChange, _ string, d Doc) error {
			v, err := decode[string](d)
			if err == nil {
				c.later(func(st *State) { st.pepper = *v.doc })
			}
			return err
		},
		del: func(*stagedChange, string) {}, // a pepper's fingerprint stays
		all: global(func(st *State, yield func(string, uint64, any)) {
			if st.pepper != "" {
				yield("fingerprint", st.heads[Global].N, st.pepper)
			}
		}),
	},
}

// inDomain is the row of documents that a domain keeps by id or path.
func inDomain[T any](of func(*domainRules) map[string]*revised[T]) kind {
	return kind{
		put: func(c *stagedChange, rest string, d Doc) error {
			v, err := decode[T](d)
			if err == nil {
				domain, id, _ := strings.Cut(rest, "/")
				of(c.domain(domain))[id] = v
			}
			return err
		},
		del: func(c *stagedChange, rest string) {
			domain, id, _ := strings.Cut(rest, "/")
			delete(of(c.domain(domain)), id)
		},
		all: func(st *State, s Shard, yield func(string, uint64, any)) {
			st.eachDomain(s, func(name string, d *domainState) {
				for id, r := range of(d.domainRules) {
					yield(name+"/"+id, r.rev, r.doc)
				}
			})
		},
	}
}

// global limits all of a row to the shard that holds what all domains share.
func global(all func(*State, func(string, uint64, any))) func(*State, Shard, func(string, uint64, any)) {
	return func(st *State, s Shard, yield func(string, uint64, any)) {
		if s == Global {
			all(st, yield)
		}
	}
}

func (st *State) eachDomain(s Shard, yield func(name string, d *domainState)) {
	for name, d := range st.domains {
		if ShardOf(name) == s {
			yield(name, d)
		}
	}
}

func decode[T any](d Doc) (*revised[T], error) {
	v := new(T)
	if err := json.Unmarshal(d.Body, v); err != nil {
		return nil, err
	}
	return &revised[T]{v, d.Rev}, nil
}

// documents returns all documents of a shard and the head that they belong to.
func (st *State) documents(s Shard) (Head, []Doc, error) {
	st.alone[s].Lock() // nothing changes the shard while it is encoded
	defer st.alone[s].Unlock()
	st.mu.RLock()
	defer st.mu.RUnlock()
	var docs []Doc
	var fault error
	for name, k := range kinds {
		k.all(st, s, func(rest string, rev uint64, v any) {
			body, err := json.Marshal(v)
			if err != nil && fault == nil {
				fault = fmt.Errorf("encoding %s/%s: %w", name, rest, err)
			}
			docs = append(docs, Doc{Key: name + "/" + rest, Rev: rev, Body: body})
		})
	}
	return st.heads[s], docs, fault
}
