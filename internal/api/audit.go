package api

import "encoding/json"

// AuditVerification is the result of verifying the chains of the audit.
type AuditVerification struct {
	Entries  int          `json:"entries"`
	Head     string       `json:"head" doc:"One hash of the ends of all chains: it changes with every change."`
	Anchor   string       `json:"anchor" doc:"The ends of all chains. Keep it elsewhere: a later verification with anchor proves that nothing before it was changed."`
	OK       bool         `json:"ok"`
	BrokenAt string       `json:"broken_at,omitempty" doc:"The id of the first entry that was removed, changed, reordered or cut off."`
	Breaks   []AuditBreak `json:"breaks,omitempty" doc:"The first of each broken chain; there is one chain for each of the store's 33 shards."`
}

// AuditBreak is where a chain is broken.
type AuditBreak struct {
	ID     string `json:"id" doc:"The id of the audit entry."`
	Reason string `json:"reason"`
}

// AuditLine is an exported audit entry with what verifies it.
type AuditLine struct {
	Shard int             `json:"shard"`
	N     uint64          `json:"n"`
	Link  string          `json:"link"`
	Entry json.RawMessage `json:"entry"`
}

// AuditExport is the last line of an export.
type AuditExport struct {
	Entries int    `json:"entries"`
	Head    string `json:"head"`
	Anchor  string `json:"anchor"`
}

// AuditExportLine is one line of an export: one of its fields. The last line is result or problem.
type AuditExportLine struct {
	Item    *AuditLine   `json:"item,omitempty"`
	Result  *AuditExport `json:"result,omitempty"`
	Problem *Problem     `json:"problem,omitempty"`
}
