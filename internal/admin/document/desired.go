package document

import (
	"maps"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// desired reads the desired state of a domain from a document. Its sections are validated together:
// what a department, a policy or an account names must exist once the document is applied.
func desired(d *admin.Domain, in *api.DomainDocument, cur *content, ch *store.Change, f *api.Faults) *content {
	next := &content{}
	defer func() { f.Under = "" }()
	var departments map[string]bool // nil for those of the domain
	if in.Departments != nil {
		next.departments = desiredDepartments(d, in.Departments, cur.departments, f)
		departments = map[string]bool{}
		for _, department := range next.departments {
			departments[department.Path] = true
		}
		d = d.Assume(departments, nil)
	}
	if cur.domain != nil {
		domain := *cur.domain
		next.domain = &domain
		if in.Domain != nil {
			f.Under = "/domain"
			admin.ReadSettings(in.Domain, next.domain, f)
			next.domain.SecondFactor = d.ReadSecondFactor(in.Domain.SecondFactor, f)
		}
		if in.SecurePasswordPolicy != nil {
			f.Under = "/secure_password_policy"
			next.domain.SecurePasswords = d.ReadSecurePasswordPolicy(in.SecurePasswordPolicy, f)
		}
	}
	if in.Policies != nil {
		d = d.Assume(departments, desiredNames(d, in.Policies))
		next.policies = desiredPolicies(d, in.Policies, cur.policies, ch.Now, f)
	}
	if in.IPBlocks != nil {
		next.blocks = desiredBlocks(d, in.IPBlocks, cur.blocks, ch.Now, f)
	}
	if in.MailRules != nil {
		next.rules = desiredRules(d, in.MailRules, cur.rules, ch.Now, f)
	}
	if in.Groups != nil {
		next.groups = desiredGroups(d, in.Groups, cur.groups, ch.Now, f)
	}
	if in.Accounts != nil {
		next.accounts = desiredAccounts(d, in.Accounts, cur.accounts, ch, f)
	}
	f.Under = ""
	if in.Departments != nil {
		checkReferences(d, in, departments, f)
	}
	return next
}

// desiredDepartments are those of the document, and their parents, which a document may leave out:
// they stay as they are, or are created.
func desiredDepartments(d *admin.Domain, in []api.Department, cur []*store.Department, f *api.Faults) []*store.Department {
	byPath, before := map[string]*store.Department{}, map[string]*store.Department{}
	for _, department := range cur {
		before[department.Path] = department
	}
	for i := range in {
		f.Under = api.At("/departments", i)
		next := d.ReadDepartment(&in[i], before[in[i].Path], f)
		if byPath[next.Path] != nil {
			f.Add("/path", "duplicate", "is named twice: leave it out")
		}
		byPath[next.Path] = next
	}
	all := map[string]*store.Department{}
	for path := range byPath {
		for _, parent := range admin.Parents(path) {
			if all[parent] = before[parent]; all[parent] == nil {
				all[parent] = admin.UnnamedDepartment(parent)
			}
		}
	}
	maps.Copy(all, byPath)
	return slices.AppendSeq([]*store.Department{}, maps.Values(all))
}

// desiredNames maps the folded names of policies to their ids: those of the document, and those
// that pending reverts would restore, which go first.
func desiredNames(d *admin.Domain, in []api.Policy) map[string]string {
	names := map[string]string{}
	for id, was := range guard.Confirmed(d.Store.State, d.Name()).Policies {
		if was != nil {
			names[admin.FoldName(was.Name)] = id
		}
	}
	for i := range in {
		if name := admin.FoldName(in[i].Name); names[name] == "" {
			names[name] = in[i].ID
		}
	}
	return names
}

// checkID validates the id of a policy or rule of the document, and adds it to those that were seen.
func checkID(id, what string, seen map[string]bool, f *api.Faults) {
	switch {
	case id == "":
		f.Add("/id", "required", "is needed in a document: it identifies the %s when the document is applied again", what)
	case seen[id]:
		f.Add("/id", "duplicate", "is the id of another %s of the document: choose another", what)
	default:
		admin.CheckPolicyID(id, func(code, format string, args ...any) { f.Add("/id", code, format, args...) })
	}
	seen[id] = true
}

func desiredPolicies(d *admin.Domain, in []api.Policy, cur []*store.Policy, now time.Time, f *api.Faults) []*store.Policy {
	byID := map[string]*store.Policy{}
	for _, p := range cur {
		byID[p.ID] = p
	}
	next, seen := make([]*store.Policy, 0, len(in)), map[string]bool{}
	for i := range in {
		f.Under = api.At("/policies", i)
		id := in[i].ID
		checkID(id, "policy", seen, f)
		p := d.ReadPolicy(&in[i], id, byID[id], "", f)
		if byID[id] == nil {
			p.CreatedAt = now
		}
		next = append(next, p)
	}
	f.Under = ""
	returning := guard.Returning(d.Store.State, d.Name()).Policies
	maps.DeleteFunc(returning, func(id string, _ *store.Policy) bool { return seen[id] })
	if len(next)+len(returning) > admin.MaxPolicies {
		f.Add("/policies", "limit", "are too many: a domain may have %d, and %d return unless their removal is confirmed", admin.MaxPolicies, len(returning))
	}
	return next
}

// desiredBlocks are those of the document that have not expired: a file may be older than its
// blocks last.
func desiredBlocks(d *admin.Domain, in []api.IPBlock, cur []*store.Block, now time.Time, f *api.Faults) []*store.Block {
	byRange := map[string]*store.Block{}
	for _, b := range cur {
		byRange[guard.Range(b)] = b
	}
	next, seen := make([]*store.Block, 0, len(in)), map[string]bool{}
	for i := range in {
		f.Under = api.At("/ip_blocks", i)
		b, network := admin.ReadIPBlock(&in[i], f)
		if b.Expired(now) {
			continue
		}
		if seen[network.String()] {
			f.Add("/network", "duplicate", "is blocked twice: leave one out")
		}
		seen[network.String()] = true
		b.CreatedAt = now
		if was := byRange[network.String()]; was != nil {
			b.ID, b.CreatedAt = was.ID, was.CreatedAt
		}
		next = append(next, b)
	}
	f.Under = ""
	returning := guard.Returning(d.Store.State, d.Name()).Blocks
	maps.DeleteFunc(returning, func(_ string, was *store.Block) bool { return seen[guard.Range(was)] }) // returns once
	if len(next)+len(returning) > admin.MaxIPBlocks {
		f.Add("/ip_blocks", "limit", "are too many: a domain may have %d, and %d return unless their removal is confirmed", admin.MaxIPBlocks, len(returning))
	}
	return next
}

func desiredRules(d *admin.Domain, in []api.MailRule, cur []*store.MailRule, now time.Time, f *api.Faults) []*store.MailRule {
	byID := map[string]*store.MailRule{}
	for _, r := range cur {
		byID[r.ID] = r
	}
	reader := mail.Site{}.Of(d)
	next, seen := make([]*store.MailRule, 0, len(in)), map[string]bool{}
	for i := range in {
		f.Under = api.At("/mail_rules", i)
		id := in[i].ID
		checkID(id, "rule", seen, f)
		r := reader.ReadRule(&in[i], id, byID[id], "", f)
		if byID[id] == nil {
			r.CreatedAt = now
		}
		next = append(next, r)
	}
	f.Under = ""
	if len(next) > mail.MaxRules {
		f.Add("/mail_rules", "limit", "are too many: a domain may have %d", mail.MaxRules)
	}
	return next
}

// ownAddress returns the canonical form of an address that must belong to the domain and appear once
// in its list. It adds the fault otherwise.
func ownAddress(d *admin.Domain, text string, seen map[string]bool, f *api.Faults) string {
	addr, err := address.Parse(text, d.Name())
	addr = d.Store.State.Canonical(addr)
	switch {
	case text == "":
		f.Add("/address", "required", "is needed")
	case err != nil:
		f.Add("/address", "invalid_address", "%v", err)
	case address.Domain(addr) != d.Name():
		f.Add("/address", "outside_domain", "is not an address of this domain")
	case seen[addr]:
		f.Add("/address", "duplicate", "appears twice in the document: leave one out")
	}
	seen[addr] = true
	return addr
}

func desiredGroups(d *admin.Domain, in []api.Group, cur []*store.Group, now time.Time, f *api.Faults) []*store.Group {
	created := map[string]time.Time{}
	for _, g := range cur {
		created[g.Address] = g.CreatedAt
	}
	reader := mail.Site{}.Of(d)
	next, seen := make([]*store.Group, 0, len(in)), map[string]bool{}
	for i := range in {
		f.Under = api.At("/groups", i)
		addr := ownAddress(d, in[i].Address, seen, f)
		g := reader.ReadGroup(&in[i], addr, f)
		if g.CreatedAt = created[addr]; g.CreatedAt.IsZero() {
			g.CreatedAt = now
		}
		next = append(next, g)
	}
	for i, g := range next {
		f.Under = api.At("/groups", i)
		mail.CheckGroup(g, slices.Values(next), f)
	}
	return next
}

func desiredAccounts(d *admin.Domain, in []api.AccountSettings, cur []*store.Account, ch *store.Change, f *api.Faults) []*store.Account {
	byAddress := make(map[string]*store.Account, len(cur))
	for _, a := range cur {
		byAddress[a.Address] = a
	}
	next, seen := make([]*store.Account, 0, len(in)), make(map[string]bool, len(in))
	for i := range in {
		f.Under = api.At("/accounts", i)
		addr := ownAddress(d, in[i].Address, seen, f)
		base := byAddress[addr]
		if base == nil {
			base = admin.NewAccount(addr, ch)
		}
		settings := in[i] // reading resolves its preset in place
		next = append(next, d.ReadAccount(&settings, base, f))
	}
	return next
}

// checkReferences reports departments that the document leaves out, although the sections that it
// leaves alone name them.
func checkReferences(d *admin.Domain, in *api.DomainDocument, departments map[string]bool, f *api.Faults) {
	st := d.Store.State
	named := map[string]bool{}
	scoped := func(s *access.Scope) {
		for _, department := range admin.ScopeDepartments(s) {
			named[department.Path] = true
		}
	}
	if in.Accounts == nil {
		for _, a := range st.Accounts(d.Name(), "", 0) {
			for _, path := range a.Doc.Departments {
				named[path] = true
			}
		}
	}
	if in.Policies == nil {
		for _, p := range st.Policies(d.Name()) {
			scoped(&p.Doc.Scope)
		}
	}
	if domain, ok := st.Domain(d.Name()); ok {
		if in.SecurePasswordPolicy == nil {
			scoped(&domain.Doc.SecurePasswords.Scope)
		}
		if second := domain.Doc.SecondFactor; in.Domain == nil && second != nil {
			scoped(&second.Scope)
		}
	}
	note := func(path string) (string, bool) {
		named[path] = true
		return path, false
	}
	if in.MailRules == nil {
		for _, r := range st.MailRules(d.Name()) {
			rule := *r.Doc
			rule.RenameDepartments(note)
		}
	}
	if in.Groups == nil {
		for _, g := range st.Groups(d.Name()) {
			group := *g.Doc
			group.RenameDepartments(note)
		}
	}
	for _, was := range guard.Confirmed(st, d.Name()).Policies { // which a revert would restore
		if was != nil {
			scoped(&was.Scope)
		}
	}
	var left []string
	for _, department := range st.Departments(d.Name()) {
		if path := department.Doc.Path; named[path] && !departments[path] {
			left = append(left, path)
		}
	}
	if len(left) > 0 {
		f.Add("/departments", "in_use", "leaves out %d departments, %q first, that sections outside the document name, or a policy that returns unless its change is confirmed: keep them, or remove them there too", len(left), left[0])
	}
}
