package access

import (
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
)

// Settings are the rules of one domain as stored; [Compile] prepares them for decisions. The caller
// has validated them: an unreadable entry matches nothing.
type Settings struct {
	Protocols   Switches // the domain's defaults; absent means enabled
	Departments []string // all paths of the domain's tree
	Policies    []Policy
	Enforced    bool // secure passwords are enforced (F5) ...
	// EnforceLater: they are not enforced yet, and logins that this would refuse are recorded (F33).
	EnforceLater bool
	EnforceFor   Scope // ... for these
	Blocked      []string
	MaxAge       time.Duration // of mailbox passwords kept here; 0 for ever (F17)
	FactorFor    *Scope        // a second factor is required for these (F18); nil for none
}

// PutPolicy adds a policy, or replaces the one with its id.
func (s *Settings) PutPolicy(p *Policy) {
	if i := s.policy(p.ID); i >= 0 {
		s.Policies[i] = *p
		return
	}
	s.Policies = append(s.Policies, *p)
}

// RemovePolicy removes the policy with an id, if any.
func (s *Settings) RemovePolicy(id string) {
	if i := s.policy(id); i >= 0 {
		s.Policies = slices.Delete(s.Policies, i, i+1)
	}
}

func (s *Settings) policy(id string) int {
	return slices.IndexFunc(s.Policies, func(p Policy) bool { return p.ID == id })
}

// Rules are a domain's compiled rules. They are immutable and safe for concurrent use. A decision
// costs time for the policies that apply to the account, not for other policies, accounts or
// prefixes.
//
// Scopes are numbered: policies by position, then the scope of enforcement, then that of second
// factors.
type Rules struct {
	protocols  Switched
	policies   []policy // enabled ones, in order
	scopes     scopes
	byClient   map[ClientType]*selection // including the policies for any client
	anyClient  selection                 // for types without a policy of their own
	byProtocol [len(protocolNames)]bits  // policies that select a protocol
	listOnly   bits                      // blacklists by networks alone: none matches an address that is not near
	near       address.Networks          // networks of all policies, including exceptions and some removed policies
	gone       int                       // number of those removed policies
	enforced   bool
	later      bool          // secure passwords will be enforced
	factors    bool          // second factors are required for some
	maxAge     time.Duration // of mailbox passwords kept here; 0 for ever
	blocked    address.Networks
	blockList  []string // as written, for explanations
}

// selection is the set of policies that select a client type.
type selection struct {
	policies bits
	everyone reach // policies of the selection whose scope is all members
}

type policy struct {
	id        string
	source    *Policy // as written
	deny      bool    // blacklist
	report    bool
	anywhere  bool
	hasExcept bool
	ips       address.Networks
	except    address.Networks
	regions   map[string]struct{}
}

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

// Compile compiles a domain's settings for decisions. The rules keep references to the policies,
// for explanations: their lists must not change afterwards.
func Compile(s *Settings) *Rules { return new(Rules).Recompile(s) }

// Recompile compiles settings most of which r (nil for none) has compiled before: it reuses the
// networks of policies with unchanged lists, which are most of the work. r itself does not change.
func (r *Rules) Recompile(s *Settings) *Rules {
	if r == nil {
		r = new(Rules)
	}
	before := make(map[string]*policy, len(r.policies))
	for i := range r.policies {
		before[r.policies[i].id] = &r.policies[i]
	}
	n := &Rules{protocols: s.Protocols.Compile(), enforced: s.Enforced, later: s.EnforceLater, maxAge: s.MaxAge, byClient: map[ClientType]*selection{}}
	n.blocked, _ = address.ParseNetworks(s.Blocked)
	n.blockList = s.Blocked
	sources := slices.Clone(s.Policies)
	for i := range sources {
		if p := &sources[i]; p.Enabled {
			n.policies = append(n.policies, compilePolicy(p, before[p.ID]))
			for _, c := range p.Clients {
				n.byClient[c] = &selection{}
			}
		}
	}
	var said audience
	for i := range n.policies {
		p, number := &n.policies[i], uint32(i) // bounded far below 2^32
		said.add(number, &p.source.Scope)
		n.selects(p.source, number)
		if p.deny && !p.anywhere && len(p.regions) == 0 {
			n.listOnly.set(number)
		}
	}
	said.add(n.enforcement(), &s.EnforceFor)
	if n.factors = s.FactorFor != nil; n.factors {
		said.add(n.enforcement()+1, s.FactorFor)
	}
	n.scopes = said.scopes(s.Departments)
	n.anyClient.everyone = n.scopes.everyone.only(n.anyClient.policies)
	for _, sel := range n.byClient {
		sel.everyone = n.scopes.everyone.only(sel.policies)
	}
	n.nearby(r, before)
	return n
}

// nearby collects the networks of all policies. It adds new ones to the previous collection, unless
// half of that belongs to removed policies.
func (r *Rules) nearby(last *Rules, before map[string]*policy) {
	var all, fresh []address.Networks
	kept := 0
	for i := range r.policies {
		p := &r.policies[i]
		all = append(all, p.ips, p.except)
		if b := before[p.id]; b != nil && b.ips == p.ips && b.except == p.except {
			kept++
		} else {
			fresh = append(fresh, p.ips, p.except)
		}
	}
	if r.gone = last.gone + len(last.policies) - kept; 2*r.gone < len(r.policies) {
		r.near = last.near.With(fresh)
		return
	}
	r.near, r.gone = address.Networks{}.With(all), 0
}

// enforcement is the number of the scope of enforced secure passwords.
func (r *Rules) enforcement() uint32 { return uint32(len(r.policies)) } //nolint:gosec // bounded far below 2^32

// FactorRequired reports whether a second factor is required for an account (nil without a record).
func (r *Rules) FactorRequired(addr string, acc *Account) bool {
	if !r.factors {
		return false
	}
	if acc == nil {
		acc = &Account{}
	}
	sub := r.scopes.subject(addr, acc.Departments, new(subjectRoom))
	return sub.covered(r.enforcement() + 1)
}

// selects records the client types and protocols of a policy.
func (r *Rules) selects(p *Policy, number uint32) {
	for _, c := range p.Clients {
		r.byClient[c].policies.set(number)
	}
	if len(p.Clients) == 0 {
		r.anyClient.policies.set(number)
		for _, sel := range r.byClient {
			sel.policies.set(number)
		}
	}
	for _, name := range p.Protocols {
		r.byProtocol[ParseProtocol(name)].set(number)
	}
	if len(p.Protocols) == 0 {
		for i := range r.byProtocol {
			r.byProtocol[i].set(number)
		}
	}
}

// compilePolicy compiles one policy, and reuses the networks of its previous version (nil for none)
// if the lists are the same.
func compilePolicy(p *Policy, before *policy) policy {
	c := policy{
		id: p.ID, source: p,
		deny:   p.Type == Blacklist,
		report: p.Mode == Report,
		// A list without readable entries is still a list: only absence means anywhere.
		anywhere:  len(p.IPs) == 0 && len(p.Regions) == 0,
		hasExcept: len(p.ExceptIPs) != 0,
	}
	if before != nil && slices.Equal(before.source.IPs, p.IPs) {
		c.ips = before.ips
	} else {
		c.ips, _ = address.ParseNetworks(p.IPs)
	}
	if before != nil && slices.Equal(before.source.ExceptIPs, p.ExceptIPs) {
		c.except = before.except
	} else {
		c.except, _ = address.ParseNetworks(p.ExceptIPs)
	}
	if len(p.Regions) > 0 {
		c.regions = make(map[string]struct{}, len(p.Regions))
		for _, region := range p.Regions {
			if region != RegionUnknown {
				c.regions[region] = struct{}{}
			}
		}
	}
	return c
}

// place reports whether the policy's place matches. A missing address matches no whitelist and
// every blacklist; so does, for policies with regions, an address of unknown region. An address
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
	if region == RegionNoDatabase {
		return p.deny
	}
	_, ok := p.regions[region]
	return ok
}

// namesPlace reports whether the policy depends on the address.
func (p *policy) namesPlace() bool { return !p.anywhere || p.hasExcept }
