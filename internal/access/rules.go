package access

import (
	mathbits "math/bits"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// Settings are the rules of one domain as they are kept; [Compile] makes them
// fit for decisions. They must have been validated: what cannot be read is an
// entry that matches nothing.
type Settings struct {
	Protocols   Switches // the domain's defaults; absent means on
	Departments []string // all paths of the domain's tree
	Policies    []Policy
	Enforced    bool  // secure passwords are enforced (F5) ...
	EnforceFor  Scope // ... for these
	Blocked     []string
}

// PutPolicy adds a policy, or puts it in place of the one of its id.
func (s *Settings) PutPolicy(p *Policy) {
	if i := s.policy(p.ID); i >= 0 {
		s.Policies[i] = *p
		return
	}
	s.Policies = append(s.Policies, *p)
}

// RemovePolicy removes the policy of an id, if there is one.
func (s *Settings) RemovePolicy(id string) {
	if i := s.policy(id); i >= 0 {
		s.Policies = slices.Delete(s.Policies, i, i+1)
	}
}

func (s *Settings) policy(id string) int {
	return slices.IndexFunc(s.Policies, func(p Policy) bool { return p.ID == id })
}

// Rules are a domain's rules, compiled. They are immutable and safe for
// concurrent use. The cost of a decision grows with the policies that select
// the login's client type, not with accounts or prefixes.
type Rules struct {
	protocols   Switches
	departments map[string]uint32    // path → index into the scopes' bit sets
	members     map[string]memberRef // accounts that some scope names
	policies    []policy
	byClient    map[ClientType]*selection // includes the policies for any client
	anyClient   selection                 // for types that no policy names
	near        address.Networks          // all that some policy names, in or out
	enforced    bool
	enforceFor  scope
	blocked     address.Networks
	blockList   []string // as it is written, for explanations
}

// selection are the policies that select a client type, in their order, and
// which of them can concern an account at all: one bit for each, so that the
// others cost nothing.
type selection struct {
	policies    []*policy
	every       bits
	everyone    bits            // their scope is all members
	members     bits            // their scope names accounts
	departments map[uint32]bits // their scope has the department
}

func (s *selection) add(p *policy) {
	n := uint32(len(s.policies)) //nolint:gosec // bounded far below 2^32
	s.policies = append(s.policies, p)
	s.every.set(n)
	if p.scope.all {
		s.everyone.set(n)
	}
	if p.scope.members {
		s.members.set(n)
	}
	for w, word := range p.scope.in {
		for ; word != 0; word &= word - 1 {
			d := uint32(w<<6 + mathbits.TrailingZeros64(word)) //nolint:gosec // bounded far below 2^32
			b := s.departments[d]
			b.set(n)
			if s.departments == nil {
				s.departments = map[uint32]bits{}
			}
			s.departments[d] = b
		}
	}
}

// concerns returns the w-th word of the policies that may have the subject in their scope.
func (s *selection) concerns(w int, sub *subject) uint64 {
	word := s.everyone.word(w)
	if len(sub.ref.in) > 0 {
		word |= s.members.word(w)
	}
	for _, d := range sub.departments {
		word |= s.departments[d].word(w)
	}
	return word
}

type policy struct {
	id        string
	source    *Policy // as it is written, for explanations
	deny      bool    // blacklist
	report    bool
	anywhere  bool
	hasExcept bool
	protocols uint8 // bit set; 0 selects all
	scope     scope
	ips       address.Networks
	except    address.Networks
	regions   map[string]struct{}
}

// scope is a compiled [Scope]; number is its position in the members' references.
type scope struct {
	number  uint32
	all     bool
	members bool // some account is named, in or out
	in, out bits
}

// memberRef lists the numbers of the scopes that name an account.
type memberRef struct{ in, out []uint32 }

type bits []uint64

func (b *bits) set(i uint32) {
	for int(i>>6) >= len(*b) {
		*b = append(*b, 0)
	}
	(*b)[i>>6] |= 1 << (i & 63)
}

func (b bits) word(w int) uint64 {
	if w < len(b) {
		return b[w]
	}
	return 0
}

func (b bits) has(i uint32) bool { return int(i>>6) < len(b) && b[i>>6]&(1<<(i&63)) != 0 }

// Compile prepares a domain's settings for decisions. The rules keep what it is
// given, for explanations: it must not be changed any more.
func Compile(s *Settings) *Rules {
	r := &Rules{
		protocols:   s.Protocols,
		departments: make(map[string]uint32, len(s.Departments)),
		members:     map[string]memberRef{},
		byClient:    map[ClientType]*selection{},
		enforced:    s.Enforced,
	}
	for i, path := range s.Departments {
		r.departments[path] = uint32(i) // a tree is bounded far below 2^32
	}
	r.blocked, _ = address.ParseNetworks(s.Blocked)
	r.blockList = s.Blocked
	r.policies = make([]policy, 0, len(s.Policies))
	var number uint32
	next := func(sc *Scope) scope {
		number++
		return r.compileScope(sc, number)
	}
	r.enforceFor = next(&s.EnforceFor)
	var enabled []*Policy
	var networks []string
	for i := range s.Policies {
		if p := &s.Policies[i]; p.Enabled {
			enabled = append(enabled, p)
			networks = append(append(networks, p.IPs...), p.ExceptIPs...)
			for _, c := range p.Clients {
				r.byClient[c] = &selection{}
			}
		}
	}
	r.near, _ = address.ParseNetworks(networks)
	r.policies = make([]policy, len(enabled))
	for i, p := range enabled {
		compiled := &r.policies[i]
		*compiled = compilePolicy(p, next(&p.Scope))
		if len(p.Clients) == 0 {
			r.anyClient.add(compiled)
			for _, sel := range r.byClient {
				sel.add(compiled)
			}
			continue
		}
		for n, c := range p.Clients {
			if !contains(p.Clients[:n], c) {
				r.byClient[c].add(compiled)
			}
		}
	}
	return r
}

func contains(list []ClientType, c ClientType) bool {
	for _, x := range list {
		if x == c {
			return true
		}
	}
	return false
}

func compilePolicy(p *Policy, s scope) policy {
	c := policy{
		id: p.ID, source: p, scope: s,
		deny:   p.Type == Blacklist,
		report: p.Mode == Report,
		// A list that names nothing readable is still a list: only absence means anywhere.
		anywhere:  len(p.IPs) == 0 && len(p.Regions) == 0,
		hasExcept: len(p.ExceptIPs) != 0,
	}
	c.ips, _ = address.ParseNetworks(p.IPs)
	c.except, _ = address.ParseNetworks(p.ExceptIPs)
	if len(p.Regions) > 0 {
		c.regions = make(map[string]struct{}, len(p.Regions))
		for _, region := range p.Regions {
			if region != RegionUnknown {
				c.regions[region] = struct{}{}
			}
		}
	}
	for _, name := range p.Protocols {
		c.protocols |= 1 << ParseProtocol(name)
	}
	return c
}

func (r *Rules) compileScope(s *Scope, number uint32) scope {
	c := scope{number: number, all: s.All}
	c.in = r.departmentBits(s.Departments)
	c.out = r.departmentBits(s.Except.Departments)
	c.members = len(s.Members)+len(s.Except.Members) > 0
	for _, m := range s.Members {
		ref := r.members[m]
		ref.in = append(ref.in, number)
		r.members[m] = ref
	}
	for _, m := range s.Except.Members {
		ref := r.members[m]
		ref.out = append(ref.out, number)
		r.members[m] = ref
	}
	return c
}

func (r *Rules) departmentBits(list []ScopeDepartment) bits {
	var b bits
	for _, d := range list {
		if i, ok := r.departments[d.Path]; ok {
			b.set(i)
		}
		if !d.Sub {
			continue
		}
		for path, i := range r.departments {
			if strings.HasPrefix(path, d.Path) && len(path) > len(d.Path) && path[len(d.Path)] == '/' {
				b.set(i)
			}
		}
	}
	return b
}

// subject is an account as the scopes see it, looked up once per decision.
type subject struct {
	departments []uint32
	ref         memberRef
}

// subjectRoom is in how many departments an account can be without an allocation.
type subjectRoom [16]uint32

// subject looks an account up; the departments' numbers go to the caller's
// room, so that they can stay on its stack.
func (r *Rules) subject(account string, departments []string, room *subjectRoom) subject {
	s := subject{departments: room[:0]}
	for _, path := range departments {
		if i, ok := r.departments[path]; ok {
			s.departments = append(s.departments, i)
		}
	}
	if len(r.members) > 0 {
		s.ref = r.members[account]
	}
	return s
}

// covers reports whether the scope concerns the subject. Exceptions win.
func (c *scope) covers(s *subject) bool {
	if c.members && has(s.ref.out, c.number) {
		return false
	}
	in := c.all || c.members && has(s.ref.in, c.number)
	for _, d := range s.departments {
		if c.out.has(d) {
			return false
		}
		in = in || c.in.has(d)
	}
	return in
}

func has(list []uint32, n uint32) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// place reports whether the policy's place matches. A missing address is in
// no whitelist, and in every blacklist, whose place it might be; so is, of the
// policies that name regions, an address whose region nobody tells. An address
// that is not near is in no policy's lists.
func (p *policy) place(l *Login, region string, near bool) bool {
	if !l.IP.IsValid() {
		return p.deny
	}
	if near && p.hasExcept && p.except.Contains(l.IP) {
		return false
	}
	if p.anywhere || near && p.ips.Contains(l.IP) {
		return true
	}
	if region == "" || len(p.regions) == 0 {
		return false
	}
	if region == RegionUntold {
		return p.deny
	}
	_, ok := p.regions[region]
	return ok
}

// namesPlace reports whether the policy asks where the login comes from.
func (p *policy) namesPlace() bool { return !p.anywhere || p.hasExcept }

// Covers reports whether a scope concerns an account of the given departments,
// with the departments of the domain given in all. It is the slow form of
// what decisions do, for batches and warnings.
func (s *Scope) Covers(account string, departments []string, all []string) bool {
	r := &Rules{departments: make(map[string]uint32, len(all)), members: map[string]memberRef{}}
	for i, path := range all {
		r.departments[path] = uint32(i) // a tree is bounded far below 2^32
	}
	c := r.compileScope(s, 1)
	sub := r.subject(account, departments, new(subjectRoom))
	return c.covers(&sub)
}
