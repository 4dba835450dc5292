package policyd

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// rules is a gate that refuses recipients by name, and notes how messages end.
type rules struct {
	mu    sync.Mutex
	ended []string
}

func (*rules) Submission(access.Submission) access.Decision {
	return access.Decision{Outcome: access.Next}
}
func (*rules) Needs() mailflow.Needs { return mailflow.Needs{Recipients: true} }

func (*rules) Recipient(e *mailflow.Envelope) mailflow.Verdict {
	switch e.Recipient {
	case "never@example.org":
		return mailflow.Verdict{Refused: true, Text: "No."}
	case "later@example.org":
		return mailflow.Verdict{Refused: true, Temporary: true, Text: "Too many."}
	}
	return mailflow.Verdict{}
}

func (r *rules) MessageEnded(e *mailflow.Envelope, accepted bool) (v mailflow.Verdict) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ended = append(r.ended, fmt.Sprintf("%s %t %t %d %s", e.Instance, accepted, e.Data, e.Recipients, e.QueueID))
	if e.QueueID == "shared" {
		return mailflow.Verdict{Refused: true, Temporary: true, Text: "Together too many."}
	}
	return v
}

// Recipients are refused one by one, and the end of each message is reported once: received,
// refused after DATA, or abandoned for the next one or with the connection.
func TestRecipients(t *testing.T) {
	gate := &rules{}
	tr := start(t, gate)
	c := tr.dial()
	for _, step := range []struct{ request, answer string }{
		{"protocol_state=RCPT instance=1 recipient=ann@example.org", "DUNNO"},
		{"protocol_state=RCPT instance=1 recipient=never@example.org", "550 5.7.1 No."},
		{"protocol_state=RCPT instance=1 recipient=later@example.org", "450 4.7.1 Too many."},
		{"protocol_state=DATA instance=1", "DUNNO"},
		{"protocol_state=END-OF-MESSAGE instance=1 recipient_count=1 queue_id=Q1 size=77", "DUNNO"},
		{"protocol_state=RCPT instance=5 recipient=ann@example.org", "DUNNO"},
		{"protocol_state=END-OF-MESSAGE instance=5 recipient_count=1 queue_id=shared", "450 4.7.1 Together too many."},
		{"protocol_state=RCPT instance=2 recipient=ann@example.org", "DUNNO"},
		{"protocol_state=RCPT instance=3 recipient=ann@example.org", "DUNNO"},
		{"protocol_state=DATA instance=3", "DUNNO"},
		{"protocol_state=MAIL instance=4", "DUNNO"},
		{"protocol_state=RCPT instance=4 recipient=ann@example.org", "DUNNO"},
	} {
		c.send(lines(strings.Fields(step.request)...))
		c.expect(step.answer)
	}
	_ = c.Close()
	tr.Stop()
	if err := tr.Wait(); err != nil {
		t.Fatal(err)
	}
	want := []string{"1 true false 1 Q1", "5 true false 1 shared", "2 false false 0 ", "3 false true 0 ", "4 false false 0 "}
	if gate.mu.Lock(); !slices.Equal(gate.ended, want) {
		t.Errorf("ended: %q, want %q", gate.ended, want)
	}
	gate.mu.Unlock()
}
