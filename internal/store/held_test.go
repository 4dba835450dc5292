package store

import (
	"errors"
	"testing"
	"time"
)

func TestDecide(t *testing.T) {
	now := time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	const ann, bob, eve = "ann@example.org", "bob@example.org", "eve@example.org"
	waiting := Held{ID: "1", State: HeldWaiting, Approvers: []string{ann, bob}}
	needsAll := waiting
	needsAll.All = true
	by := func(who string, approve bool) Decision { return Decision{Approve: approve, Approver: who, By: who} }
	tests := []struct {
		name      string
		held      Held
		decisions []Decision
		want      HeldState
		refused   bool // the last decision is
	}{
		{"any approves", waiting, []Decision{by(bob, true)}, HeldApproved, false},
		{"any rejects", waiting, []Decision{by(ann, false)}, HeldRejected, false},
		{"one of all approves", needsAll, []Decision{by(ann, true)}, HeldWaiting, false},
		{"the same one twice", needsAll, []Decision{by(ann, true), by(ann, true)}, HeldWaiting, true},
		{"all approve", needsAll, []Decision{by(ann, true), by(bob, true)}, HeldApproved, false},
		{"one of all rejects", needsAll, []Decision{by(ann, true), by(bob, false)}, HeldRejected, false},
		{"an administrator decides for all", needsAll, []Decision{{Approve: true, By: "root"}}, HeldApproved, false},
		{"approved, then rejected", waiting, []Decision{by(ann, true), by(bob, false)}, HeldApproved, true},
		{"rejected, then approved", waiting, []Decision{by(ann, false), {Approve: true, By: "root"}}, HeldRejected, true},
		{"somebody else does not complete all", needsAll, []Decision{by(ann, true), by(eve, true)}, HeldWaiting, false},
		{"stuck", Held{State: HeldStuck, Note: "why"}, []Decision{{Approve: true, By: "root"}}, HeldApproved, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &tt.held
			var err error
			for _, d := range tt.decisions {
				var next *Held
				if next, err = h.Decide(d, now); err == nil {
					h = next
				}
			}
			decided := new(DecidedError)
			if h.State != tt.want || errors.As(err, &decided) != tt.refused || (err != nil) != tt.refused {
				t.Errorf("%s, error %v", h.State, err)
			}
			if !h.Open() && (h.DecidedBy == "" || h.DecidedAt == nil || h.Note != "") {
				t.Errorf("%+v", h)
			}
		})
	}
}
