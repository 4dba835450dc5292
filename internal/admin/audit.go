package admin

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Audit returns one page of administrative changes and credential events, newest first. domain ""
// means all that the caller reaches; it may name a domain that no longer exists.
func (r *Request) Audit(ctx context.Context, domain string, since time.Time, p Page) (*api.List[api.AuditEntry], error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	q := store.AuditQuery{Since: since, Limit: p.limit(), Cursor: p.Cursor}
	if domain != "" {
		name, err := address.ParseDomain(domain)
		if err != nil {
			var f api.Faults
			f.Parameter("domain", "invalid_domain", "%v", err)
			return nil, f.Err()
		}
		q.Domain = name
	}
	if r.Caller.Role == store.RoleDomain {
		if q.Domain != "" && q.Domain != r.Caller.Domain {
			return nil, api.NotFound("domain")
		}
		q.Domain = r.Caller.Domain
	}
	entries, next, err := r.Journal.Audit(ctx, q)
	if err != nil {
		return nil, err
	}
	page := &api.List[api.AuditEntry]{Items: make([]api.AuditEntry, len(entries)), Next: next}
	for i := range entries {
		e := &entries[i]
		page.Items[i] = api.AuditEntry{
			ID: e.ID, Time: e.Time, Actor: api.Actor(e.Actor), Action: e.Action, Domain: e.Domain, Target: e.Target, Note: e.Note, Changes: e.Changes,
		}
	}
	return page, nil
}

// VerifyAuditChain verifies the chains of the audit. Each anchor that was kept of an earlier
// verification must still be on its chain.
func (r *Request) VerifyAuditChain(ctx context.Context, anchor string) (*api.AuditVerification, error) {
	if err := r.Caller.May(ForRead); err != nil {
		return nil, err
	}
	report, err := r.VerifyAudit(ctx, anchor)
	if errors.Is(err, store.ErrBadAnchor) {
		var f api.Faults
		f.Parameter("anchor", "invalid_anchor", "%v", err)
		return nil, f.Err()
	}
	if err != nil {
		return nil, err
	}
	v := &api.AuditVerification{Entries: report.Entries, Head: report.Digest(), Anchor: report.Anchor(), OK: len(report.Breaks) == 0}
	for _, b := range report.Breaks {
		v.Breaks = append(v.Breaks, api.AuditBreak{ID: fmt.Sprintf("%d-%d", b.Shard, b.N), Reason: b.Reason})
	}
	if !v.OK {
		v.BrokenAt = v.Breaks[0].ID
	}
	return v, nil
}

// ExportAudit passes all audit entries to pass, each with what verifies it, and returns the ends of
// the chains. It verifies nothing.
func (r *Request) ExportAudit(ctx context.Context, pass func(*api.AuditLine) error) (*api.AuditExport, error) {
	if err := r.Caller.May(ForRead); err != nil {
		return nil, err
	}
	var report store.AuditReport
	for s := range store.Shard(store.Shards) {
		line, entries := api.AuditLine{Shard: int(s)}, 0
		_, err := r.AuditEntries(ctx, s, func(n uint64, link string, entry []byte) error {
			line.N, line.Link, line.Entry = n, link, entry
			entries++
			return pass(&line)
		})
		if err != nil {
			return nil, err
		}
		report.Add(store.AuditHead{Shard: int(s), N: line.N, Link: line.Link}, entries, nil)
	}
	return &api.AuditExport{Entries: report.Entries, Head: report.Digest(), Anchor: report.Anchor()}, nil
}
