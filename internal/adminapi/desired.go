package adminapi

import (
	"maps"
	"slices"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// desired reads what a document wants the domain to be. Its parts are judged by each other: what a
// department, a policy or an account names must be there when all is done.
func (c *call) desired(in *api.DomainDocument, cur *content, ch *store.Change, f *api.Faults) *content {
	next := &content{}
	defer func() { c.planned, f.Under = planned{}, "" }()
	if in.Departments != nil {
		next.departments = c.desiredDepartments(in.Departments, cur.departments, f)
		c.planned.departments = map[string]bool{}
		for _, d := range next.departments {
			c.planned.departments[d.Path] = true
		}
	}
	if cur.domain != nil {
		domain := *cur.domain
		next.domain = &domain
		if in.Domain != nil {
			f.Under = "/domain"
			applySettings(in.Domain, next.domain, f)
		}
		if in.SecurePasswordPolicy != nil {
			f.Under = "/secure_password_policy"
			next.domain.SecurePasswords = c.readSecurePolicy(in.SecurePasswordPolicy, f)
		}
	}
	if in.Policies != nil {
		next.policies = c.desiredPolicies(in.Policies, cur.policies, ch, f)
	}
	if in.IPBlocks != nil {
		next.blocks = c.desiredBlocks(in.IPBlocks, cur.blocks, ch, f)
	}
	if in.Accounts != nil {
		next.accounts = c.desiredAccounts(in.Accounts, cur.accounts, ch, f)
	}
	f.Under = ""
	if in.Departments != nil {
		c.stillNamed(in, f)
	}
	return next
}

// desiredDepartments are those of a document, with those above them, which a document may leave out
// as PUT may: they stay as they are, or are made.
func (c *call) desiredDepartments(in []api.Department, cur []*store.Department, f *api.Faults) []*store.Department {
	byPath, before := map[string]*store.Department{}, map[string]*store.Department{}
	for _, d := range cur {
		before[d.Path] = d
	}
	for i := range in {
		f.Under = api.At("/departments", i)
		d := c.departmentOf(&in[i], before[in[i].Path], f)
		if byPath[d.Path] != nil {
			f.Add("/path", "duplicate", "is named twice: leave it out")
		}
		byPath[d.Path] = d
	}
	above := map[string]*store.Department{}
	for path := range byPath {
		for _, parent := range parents(path) {
			above[parent] = &store.Department{Path: parent, Name: lastPart(parent)}
		}
	}
	for _, d := range cur {
		if above[d.Path] != nil {
			above[d.Path] = d
		}
	}
	maps.Copy(above, byPath)
	return slices.AppendSeq([]*store.Department{}, maps.Values(above))
}

func (c *call) desiredPolicies(in []api.Policy, cur []*store.Policy, ch *store.Change, f *api.Faults) []*store.Policy {
	byID := map[string]*store.Policy{}
	for _, p := range cur {
		byID[p.ID] = p
	}
	c.planned.policies = map[string]string{}
	for id, was := range guard.Confirmed(c.Store.State, c.domain).Policies { // undone, a change brings its name back
		if was != nil {
			c.planned.policies[foldName(was.Name)] = id
		}
	}
	for i := range in {
		if name := foldName(in[i].Name); c.planned.policies[name] == "" {
			c.planned.policies[name] = in[i].ID
		}
	}
	next, seen := make([]*store.Policy, 0, len(in)), map[string]bool{}
	for i := range in {
		f.Under = api.At("/policies", i)
		id := in[i].ID
		switch {
		case id == "":
			f.Add("/id", "required", "is needed in a document: it tells which policy is meant when the document is applied again")
		case seen[id]:
			f.Add("/id", "duplicate", "is the id of another policy of the document: choose another")
		default:
			checkPolicyID(id, func(code, format string, args ...any) { f.Add("/id", code, format, args...) })
		}
		seen[id] = true
		p := c.readPolicy(&in[i], id, byID[id], "", f)
		if byID[id] == nil {
			p.CreatedAt = ch.Now
		}
		next = append(next, p)
	}
	f.Under = ""
	returning := guard.Returning(c.Store.State, c.domain).Policies
	maps.DeleteFunc(returning, func(id string, _ *store.Policy) bool { return seen[id] })
	if len(next)+len(returning) > maxPolicies {
		f.Add("/policies", "limit", "are too many: a domain may have %d, and %d come back unless their removal is confirmed", maxPolicies, len(returning))
	}
	return next
}

// desiredBlocks are those of a document that have not ended: one that is kept may well outlive its
// blocks.
func (c *call) desiredBlocks(in []api.IPBlock, cur []*store.Block, ch *store.Change, f *api.Faults) []*store.Block {
	byRange := map[string]*store.Block{}
	for _, b := range cur {
		byRange[guard.Range(b)] = b
	}
	next, seen := make([]*store.Block, 0, len(in)), map[string]bool{}
	for i := range in {
		f.Under = api.At("/ip_blocks", i)
		b, network := readBlock(&in[i], f)
		if b.Expired(ch.Now) {
			continue
		}
		if seen[network.String()] {
			f.Add("/network", "duplicate", "is blocked twice: leave one out")
		}
		seen[network.String()] = true
		b.CreatedAt = ch.Now
		if was := byRange[network.String()]; was != nil {
			b.ID, b.CreatedAt = was.ID, was.CreatedAt
		}
		next = append(next, b)
	}
	f.Under = ""
	returning := guard.Returning(c.Store.State, c.domain).Blocks
	maps.DeleteFunc(returning, func(_ string, was *store.Block) bool { return seen[guard.Range(was)] }) // which comes back once
	if len(next)+len(returning) > maxBlocks {
		f.Add("/ip_blocks", "limit", "are too many: a domain may have %d, and %d come back unless their removal is confirmed", maxBlocks, len(returning))
	}
	return next
}

func (c *call) desiredAccounts(in []api.AccountSettings, cur []*store.Account, ch *store.Change, f *api.Faults) []*store.Account {
	byAddress := make(map[string]*store.Account, len(cur))
	for _, a := range cur {
		byAddress[a.Address] = a
	}
	next, seen := make([]*store.Account, 0, len(in)), make(map[string]bool, len(in))
	for i := range in {
		f.Under = api.At("/accounts", i)
		addr, err := address.Parse(in[i].Address, c.domain)
		addr = c.Store.State.Canonical(addr)
		switch {
		case in[i].Address == "":
			f.Add("/address", "required", "is needed")
		case err != nil:
			f.Add("/address", "invalid_address", "%v", err)
		case address.Domain(addr) != c.domain:
			f.Add("/address", "outside_domain", "is no address of this domain")
		case seen[addr]:
			f.Add("/address", "duplicate", "is the address of another account of the document: leave one out")
		}
		seen[addr] = true
		base := byAddress[addr]
		if base == nil {
			base = newRecord(addr, ch)
		}
		settings := in[i] // a preset is written into it
		next = append(next, c.record(&settings, base, c.department, f))
	}
	return next
}

// stillNamed notes a fault when a document leaves out departments that what it leaves alone goes on
// naming.
func (c *call) stillNamed(in *api.DomainDocument, f *api.Faults) {
	named := map[string]bool{}
	scoped := func(s *access.Scope) {
		for _, d := range slices.Concat(s.Departments, s.Except.Departments) {
			named[d.Path] = true
		}
	}
	if in.Accounts == nil {
		for _, a := range c.Store.State.Accounts(c.domain, "", 0) {
			for _, path := range a.Doc.Departments {
				named[path] = true
			}
		}
	}
	if in.Policies == nil {
		for _, p := range c.Store.State.Policies(c.domain) {
			scoped(&p.Doc.Scope)
		}
	}
	if d, ok := c.Store.State.Domain(c.domain); ok && in.SecurePasswordPolicy == nil {
		scoped(&d.Doc.SecurePasswords.Scope)
	}
	for _, was := range guard.Confirmed(c.Store.State, c.domain).Policies { // undone, a change brings them back
		if was != nil {
			scoped(&was.Scope)
		}
	}
	var left []string
	for _, d := range c.Store.State.Departments(c.domain) {
		if path := d.Doc.Path; named[path] && !c.planned.departments[path] {
			left = append(left, path)
		}
	}
	if len(left) > 0 {
		f.Add("/departments", "in_use", "leaves out %d departments, %q first, that are still named by what the document leaves alone, or by a policy that comes back unless its change is confirmed: keep them, or take them out there as well", len(left), left[0])
	}
}
