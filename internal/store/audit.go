package store

import (
	"errors"

	"github.com/drawbridge/drawbridge/internal/auditchain"
)

// AuditHead is the end of a shard's chain of audit entries.
type AuditHead = auditchain.Head

// ErrBadAnchor reports that a text is no anchor of the audit.
var ErrBadAnchor = errors.New("is no anchor: take it from an earlier verification, as it is")

// AuditReport is the result of verifying the audit.
type AuditReport struct {
	Entries int
	Heads   []auditchain.Head  // of the shards that have entries
	Breaks  []auditchain.Break // the first of each shard whose chain is broken
}

// Add adds the result of one shard.
func (r *AuditReport) Add(h auditchain.Head, entries int, broken *auditchain.Break) {
	r.Entries += entries
	if entries > 0 {
		r.Heads = append(r.Heads, h)
	}
	if broken != nil {
		r.Breaks = append(r.Breaks, *broken)
	}
}

// Anchor is the heads as one text, which a later verification takes.
func (r *AuditReport) Anchor() string { return auditchain.Text(r.Heads) }

// Digest is one hash of all heads.
func (r *AuditReport) Digest() string { return auditchain.Digest(r.Heads) }
