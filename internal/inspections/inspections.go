// Package inspections inspects domains on the schedule that they set (F19), stores the reports, and
// notifies a domain's administrators by mail, and the site by its webhook, of new findings.
//
// One of the daemons inspects a domain: it has a lease in Redis, which it prolongs. The lease of a
// daemon that died ends within a minute, and another daemon begins anew. A daemon inspects one domain
// at a time; an inspection with forwards takes some 50 ms for each account.
//
// # New findings
//
// A finding is new if the inspection before did not have it, by its id. Of the ids, hashes are stored, at
// most 250 000 (2 MB): the smallest ones, and those beyond are never new. When forwards of some accounts
// could not be read, what was found before counts as found still.
//
// # Diagnostics
//
// An inspection that fails is logged and tried again after a minute. A daemon that dies between the
// notice and the report leaves it to another to repeat the notice: administrators may get one twice,
// and never none.
package inspections

import (
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Leases gives the inspection of a domain to one of the daemons, as redisstore does.
type Leases interface {
	Lease(ctx context.Context, domain, name, holder string, keep time.Duration) (bool, error)
	TakeKept(ctx context.Context, domain, name string, want []byte) ([]byte, error)
}

// Reports keeps reports for all daemons, as redisstore does.
type Reports interface {
	Inspection(ctx context.Context, domain string) ([]byte, error)
	Inspected(ctx context.Context, domain string) ([]byte, error)
	PutInspection(ctx context.Context, domain string, report, found []byte) error
}

// Site is what inspections depend on. [Site.Last] needs the reports only.
type Site struct {
	State   *store.State
	Leases  Leases
	Reports Reports
	// Inspect inspects a domain, with all findings.
	Inspect func(ctx context.Context, domain string, days int) (*api.Inspection, error)
	Notify  func(*notify.Notice)
	Log     hclog.Logger
	// Node names this daemon in reports; Holder is another one for each daemon, and holds leases.
	Node, Holder string
	// Leased is how long a lease lasts; 0 for a minute.
	Leased time.Duration

	next map[string]planned
}

// planned is when a domain is looked at again, unless its settings change.
type planned struct {
	policy store.InspectionPolicy
	at     time.Time
}

const (
	every = 10 * time.Second
	// again is when an inspection that failed is tried again, and when a domain is looked at again that
	// another daemon inspects.
	again = time.Minute
	// leaseName is the lease of a domain's inspection.
	leaseName = "inspection"
	// maxReported bounds the findings of a report, and maxFound those of which it is known whether they
	// are new.
	maxReported, maxFound = 1000, 250_000
	// maxNotified bounds the findings of a notice.
	maxNotified = 50
)

// Run inspects domains when they are due, until ctx ends.
func (s *Site) Run(ctx context.Context) { s.State.Every(ctx, every, s.Pass) }

// Pass inspects what is due at a time. Passes must not overlap.
func (s *Site) Pass(ctx context.Context, now time.Time) {
	next := map[string]planned{}
	for _, d := range s.State.Domains("", 0) {
		p := d.Doc.Inspection
		if p == nil || ctx.Err() != nil {
			continue
		}
		plan := s.next[d.Doc.Name]
		if plan.policy != *p || !now.Before(plan.at) {
			at, err := s.domain(ctx, d.Doc, now)
			if err != nil && ctx.Err() == nil {
				s.Log.Warn("inspecting a domain", "domain", d.Doc.Name, "error", err)
				at = now.Add(again)
			}
			plan = planned{*p, at}
		}
		next[d.Doc.Name] = plan
	}
	s.next = next
}

// domain inspects a domain if it is due and no other daemon does, and returns when it is due next.
func (s *Site) domain(ctx context.Context, d *store.Domain, now time.Time) (time.Time, error) {
	if at, err := s.due(ctx, d, now); err != nil || now.Before(at) {
		return at, err
	}
	leased := cmp.Or(s.Leased, time.Minute)
	prolong := func() (bool, error) { return s.Leases.Lease(ctx, d.Name, leaseName, s.Holder, leased) }
	if mine, err := prolong(); err != nil || !mine {
		return now.Add(leased / 2), err
	}
	defer func() {
		_, err := s.Leases.TakeKept(context.WithoutCancel(ctx), d.Name, leaseName, []byte(s.Holder))
		if err != nil {
			s.Log.Debug("giving a lease back", "domain", d.Name, "error", err)
		}
	}()
	// Another daemon may have had the lease just before.
	if at, err := s.due(ctx, d, now); err != nil || now.Before(at) {
		return at, err
	}
	var found *api.Inspection
	err := s.while(ctx, leased, prolong, func(ctx context.Context) (err error) {
		found, err = s.Inspect(ctx, d.Name, d.Inspection.Days)
		return err
	})
	if err != nil {
		return time.Time{}, err
	}
	if err := s.report(ctx, d, found, now); err != nil {
		return time.Time{}, err
	}
	return now.Add(d.Inspection.Every), nil
}

// due returns when a domain is to be inspected.
func (s *Site) due(ctx context.Context, d *store.Domain, now time.Time) (time.Time, error) {
	last, err := s.Last(ctx, d.Name)
	if err != nil || last == nil || last.Time.Before(d.CreatedAt.Truncate(time.Second)) || last.Time.After(now.Add(time.Minute)) {
		return now, err // never yet, or the clock was set back
	}
	return last.Time.Add(d.Inspection.Every), nil
}

// while calls f with a lease, which it prolongs. The context of f ends if another daemon has it.
func (s *Site) while(ctx context.Context, leased time.Duration, prolong func() (bool, error), f func(context.Context) error) error {
	ctx, lost := context.WithCancelCause(ctx)
	defer lost(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(leased / 3)
		defer tick.Stop()
		for until := time.Now().Add(leased); ; {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			switch mine, err := prolong(); {
			case err == nil && mine:
				until = time.Now().Add(leased)
			case err == nil:
				lost(errors.New("another daemon inspects the domain"))
				return
			case time.Now().After(until):
				lost(fmt.Errorf("another daemon may inspect the domain by now: %w", err))
				return
			}
		}
	}()
	err := f(ctx)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	lost(nil)
	<-done
	return err
}

// Last returns the report of a domain's latest inspection; nil for none.
func (s *Site) Last(ctx context.Context, domain string) (*api.InspectionReport, error) {
	text, err := s.Reports.Inspection(ctx, domain)
	if err != nil || text == nil {
		return nil, err
	}
	r := &api.InspectionReport{}
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("reading the report of the inspection of %s: %w", domain, err)
	}
	return r, nil
}

// report compares what was found with the inspection before, notifies of what is new, and stores the
// report.
func (s *Site) report(ctx context.Context, d *store.Domain, in *api.Inspection, now time.Time) error {
	stored, err := s.Reports.Inspected(ctx, d.Name)
	if err != nil {
		return err
	}
	before := unpack(stored)
	r := &api.InspectionReport{
		Domain: d.Name, Time: now.UTC().Truncate(time.Second), Node: s.Node, Since: in.Since, Accounts: in.Accounts, Records: in.Records,
		Found: len(in.Items), Kinds: []api.FindingCount{}, Items: []api.ReportedFinding{},
	}
	kinds, unread := map[string]*api.FindingCount{}, false
	found := make([]uint64, 0, len(in.Items))
	var rest []api.ReportedFinding
	for _, f := range in.Items {
		unread = unread || f.Kind == "forwards_unknown"
		h := hash(f.ID)
		found = append(found, h)
		k := kinds[f.Kind]
		if k == nil {
			k = &api.FindingCount{Kind: f.Kind}
			kinds[f.Kind] = k
		}
		k.Found++
		if isNew(before, h) {
			k.New++
			r.New++
			r.Items = append(r.Items, api.ReportedFinding{Finding: f, New: true})
		} else if len(rest) < maxReported {
			rest = append(rest, api.ReportedFinding{Finding: f})
		}
	}
	r.Items = append(r.Items, rest...)
	r.Items = r.Items[:min(len(r.Items), maxReported)]
	for _, k := range kinds {
		r.Kinds = append(r.Kinds, *k)
	}
	slices.SortFunc(r.Kinds, func(a, b api.FindingCount) int { return strings.Compare(a.Kind, b.Kind) })
	if unread {
		found = append(found, before...)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if r.New > 0 {
		s.Notify(notice(d, r))
	}
	return s.Reports.PutInspection(ctx, d.Name, text, pack(found))
}

// notice is the notice of a report with new findings.
func notice(d *store.Domain, r *api.InspectionReport) *notify.Notice {
	to := d.Administrators
	if len(to) == 0 {
		to = []string{"postmaster@" + d.Name}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "The inspection of %s at %s has %d findings, and the one before did not have %d of them.\n\n",
		r.Domain, r.Time.Format("2006-01-02 15:04 UTC"), r.Found, r.New)
	for _, k := range r.Kinds {
		if k.New > 0 {
			fmt.Fprintf(&b, "%s: %d new\n", k.Kind, k.New)
		}
	}
	b.WriteString("\n")
	items := r.Items[:min(r.New, maxNotified, len(r.Items))]
	for i := range items {
		fmt.Fprintf(&b, "- %s\n", line(&items[i].Finding))
	}
	if more := r.New - len(items); more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	fmt.Fprintf(&b, "\ndrawbridge inspect report %s shows the report, drawbridge inspect reclaim closes what has a proposal.\n", r.Domain)
	what := "1 new finding"
	if r.New > 1 {
		what = fmt.Sprintf("%d new findings", r.New)
	}
	return &notify.Notice{
		ID: store.NewID(), Event: "inspection", Time: r.Time, Domain: r.Domain, To: to, Subject: "Inspection of " + r.Domain + ": " + what, Text: b.String(),
		Data: map[string]any{"found": r.Found, "new": r.New, "kinds": r.Kinds, "items": items},
	}
}

// line is a finding in a line.
func line(f *api.Finding) string {
	if f.Account == "" {
		return f.Detail
	}
	return f.Account + ": " + f.Detail
}

func hash(id string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(id)) // never fails
	return h.Sum64()
}

// isNew reports whether a finding is not among those before. Of those that were not stored, that is not known.
func isNew(before []uint64, h uint64) bool {
	if n := len(before); n == maxFound && h > before[n-1] {
		return false
	}
	_, had := slices.BinarySearch(before, h)
	return !had
}

// pack stores hashes in order, the smallest ones.
func pack(found []uint64) []byte {
	slices.Sort(found)
	found = slices.Compact(found)
	found = found[:min(len(found), maxFound)]
	packed := make([]byte, 0, 8*len(found))
	for _, h := range found {
		packed = binary.BigEndian.AppendUint64(packed, h)
	}
	return packed
}

func unpack(packed []byte) []uint64 {
	found := make([]uint64, 0, len(packed)/8)
	for ; len(packed) >= 8; packed = packed[8:] {
		found = append(found, binary.BigEndian.Uint64(packed))
	}
	return found
}
