package document

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"
)

// revision identifies contents by section: a hash of each, "" for a missing one.
type revision [sections]string

// missing stands for a missing section in the text of a revision.
const missing = "-"

// revisionHash is the number of bytes of a section's hash: enough to distinguish the states of one
// domain, and no protection against forgery.
const revisionHash = 6

func revisionOf(d *api.DomainDocument) (r revision) {
	domain := []any{d.Domain, d.SecurePasswordPolicy}
	for s, part := range [sections]any{domain, d.Departments, d.Policies, d.IPBlocks, d.Accounts, d.MailRules, d.Groups} {
		if sectionsOf(d)[s] {
			text, _ := json.Marshal(part) // types of package api: never fails
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

// parseRevision parses the text of a revision.
func parseRevision(text string) (r revision, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != len(r) && len(parts) != int(sectionMailRules) { // an export of a version without mail rules
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
