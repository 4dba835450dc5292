package adminapi

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// documentFormat is the form of documents that this version writes and reads.
const documentFormat = 1

// maxDocumentAccounts bounds the accounts of one document, as the schema does.
const maxDocumentAccounts = 100_000

// section is a part of a document that is left alone when the document does not have it.
type section int

// The sections, in the order of a revision.
const (
	sectionDomain section = iota // with the secure password policy
	sectionDepartments
	sectionPolicies
	sectionBlocks
	sectionAccounts
	sections
)

// field is where a section stands in a document.
func (s section) field() string {
	return [sections]string{"/domain", "/departments", "/policies", "/ip_blocks", "/accounts"}[s]
}

// content is what documents say of a domain, as the store keeps it. A section that a document does
// not have is nil.
type content struct {
	domain      *store.Domain
	departments []*store.Department
	policies    []*store.Policy
	blocks      []*store.Block
	accounts    []*store.Account
}

// content reads sections of the call's domain; nil when it is not managed.
func (c *call) content(has [sections]bool, now time.Time) *content {
	d, ok := c.Store.State.Domain(c.domain)
	if !ok {
		return nil
	}
	h := &content{}
	if has[sectionDomain] {
		h.domain = d.Doc
	}
	if has[sectionDepartments] {
		h.departments = docs(c.Store.State.Departments(c.domain))
	}
	if has[sectionPolicies] {
		h.policies = docs(c.Store.State.Policies(c.domain))
	}
	if has[sectionBlocks] {
		h.blocks = docs(c.blocks(now))
	}
	if has[sectionAccounts] {
		h.accounts = docs(c.Store.State.Accounts(c.domain, "", 0))
	}
	return h
}

func docs[T any](list []store.Revised[T]) []*T {
	items := make([]*T, len(list))
	for i, r := range list {
		items[i] = r.Doc
	}
	return items
}

// What a document shows of a resource is what can be set: no secret, no count, no time, and no id
// that a domain on another site could not have.

func shownDomain(d *store.Domain) api.Domain {
	v := viewDomain(d)
	v.CreatedAt = time.Time{}
	return v
}

func shownPolicy(p *store.Policy) api.Policy {
	v := viewPolicy(p)
	v.CreatedAt, v.Managed = time.Time{}, ""
	return v
}

func shownBlock(b *store.Block) api.IPBlock {
	v := viewBlock(b)
	v.CreatedAt, v.ID = time.Time{}, ""
	return v
}

func shownAccount(a *store.Account) api.AccountSettings {
	v := viewAccount(a).AccountSettings
	v.Preset = "" // told by the switches: whoever edits one of them should not have to edit both
	return v
}

// document shows a content, always in the same order, with its revision.
func (h *content) document() *api.DomainDocument {
	d := &api.DomainDocument{Format: documentFormat}
	if h.domain != nil {
		domain, enforcement := shownDomain(h.domain), viewSecurePolicy(&h.domain.SecurePasswords)
		d.Domain, d.SecurePasswordPolicy = &domain, &enforcement
	}
	d.Departments = shown(h.departments, func(v *store.Department) string { return v.Path }, viewDepartment)
	d.Policies = shown(h.policies, func(v *store.Policy) string { return v.ID }, shownPolicy)
	d.IPBlocks = shown(h.blocks, guard.Range, shownBlock)
	d.Accounts = shown(h.accounts, func(v *store.Account) string { return v.Address }, shownAccount)
	d.Revision = revisionOf(d).String()
	return d
}

// shown shows what there is of a section, sorted; nil for a section that is not there.
func shown[D, V any](items []*D, id func(*D) string, view func(*D) V) []V {
	if items == nil {
		return nil
	}
	views := make([]V, len(items))
	for i, d := range slices.SortedFunc(slices.Values(items), func(a, b *D) int { return strings.Compare(id(a), id(b)) }) {
		views[i] = view(d)
	}
	return views
}

// revision tells contents apart, section by section: a hash of each, "" for one that is not there.
type revision [sections]string

// missing stands in a revision's text for a section that is not there.
const missing = "-"

// revisionHash is the bytes of a section's hash that are kept: enough to tell the states apart that
// one domain goes through, and no proof against anybody.
const revisionHash = 6

// has tells which sections a document has.
func sectionsOf(d *api.DomainDocument) [sections]bool {
	return [sections]bool{d.Domain != nil || d.SecurePasswordPolicy != nil, d.Departments != nil, d.Policies != nil, d.IPBlocks != nil, d.Accounts != nil}
}

// revision is that of what a document shows.
func revisionOf(d *api.DomainDocument) (r revision) {
	domain := []any{d.Domain, d.SecurePasswordPolicy}
	for s, part := range [sections]any{domain, d.Departments, d.Policies, d.IPBlocks, d.Accounts} {
		if sectionsOf(d)[s] {
			text, _ := json.Marshal(part) // wire types always have a JSON form
			sum := sha256.Sum256(text)
			r[s] = hex.EncodeToString(sum[:revisionHash])
		}
	}
	return r
}

func (r revision) String() string {
	for s := range r {
		if r[s] == "" {
			r[s] = missing
		}
	}
	return strings.Join(r[:], ".")
}

// parseRevision reads what [revision.String] wrote.
func parseRevision(text string) (r revision, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != len(r) {
		return r, false
	}
	for s, part := range parts {
		if part == missing {
			continue
		}
		if sum, err := hex.DecodeString(part); err != nil || len(sum) != revisionHash {
			return revision{}, false
		}
		r[s] = part
	}
	return r, true
}

func exportDomain(c *call) (*answer, error) {
	has := [sections]bool{true, true, true, true, c.query.Get("accounts") != "false"}
	h := c.content(has, c.now)
	if h == nil {
		return nil, api.NotFound("domain")
	}
	if len(h.accounts) > maxDocumentAccounts {
		return nil, api.Conflict("too_large", "the domain has more than %d accounts: leave them out with ?accounts=false", maxDocumentAccounts)
	}
	doc := h.document()
	return &answer{tag: quoted(doc.Revision), body: doc}, nil
}
