package admin

import (
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

func viewRecordPolicy(p *store.RecordPolicy) *api.RecordPolicy {
	if p == nil {
		return nil
	}
	return &api.RecordPolicy{Retention: viewAge(p.Retention), PseudonymiseAfter: viewAge(p.PseudonymiseAfter)}
}

// readRecordPolicy validates how long a domain's records are kept; nil if it has no rule of its own.
func readRecordPolicy(in *api.RecordPolicy, f *api.Faults) *store.RecordPolicy {
	if in == nil {
		return nil
	}
	p := &store.RecordPolicy{}
	var err error
	if p.Retention, err = readAge(in.Retention); err != nil {
		f.Add("/records/retention", "invalid_duration", "%v", err)
	}
	if p.PseudonymiseAfter, err = readAge(in.PseudonymiseAfter); err != nil {
		f.Add("/records/pseudonymise_after", "invalid_duration", "%v", err)
	}
	if p.Retention > 0 && p.PseudonymiseAfter >= p.Retention {
		f.Add("/records/pseudonymise_after", "conflict", "records are deleted at %s: choose a lower age, or leave it out", in.Retention)
	}
	if *p == (store.RecordPolicy{}) {
		return nil
	}
	return p
}
