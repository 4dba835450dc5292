package daemon

import (
	"context"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// timedLogins is the gate as one door asks it, with the time that each decision takes.
type timedLogins struct {
	*gate.Gate
	took func(time.Duration)
}

// Login times [gate.Gate.Login].
func (t timedLogins) Login(ctx context.Context, l *access.Login) access.Decision {
	began := time.Now()
	d := t.Gate.Login(ctx, l)
	t.took(time.Since(began))
	return d
}

// timedPolicy is the gate as the policy service asks it.
type timedPolicy struct {
	*gate.Gate
	session, recipient func(time.Duration)
}

// Submission times [gate.Gate.Submission].
func (t timedPolicy) Submission(s access.Submission) access.Decision {
	began := time.Now()
	d := t.Gate.Submission(s)
	t.session(time.Since(began))
	return d
}

// Recipient times [gate.Gate.Recipient].
func (t timedPolicy) Recipient(e *mailflow.Envelope) mailflow.Verdict {
	began := time.Now()
	v := t.Gate.Recipient(e)
	t.recipient(time.Since(began))
	return v
}

// timedMilter is the gate as the milter asks it: about the submitter when a message begins, about the
// session and the rules at its end.
type timedMilter struct {
	*gate.Gate
	begin, session, end func(time.Duration)
}

// Submitter times [gate.Gate.Submitter].
func (t timedMilter) Submitter(sub access.Submission) mailflow.Submitter {
	began := time.Now()
	s := t.Gate.Submitter(sub)
	t.begin(time.Since(began))
	return s
}

// Submission times [gate.Gate.Submission].
func (t timedMilter) Submission(s access.Submission) access.Decision {
	began := time.Now()
	d := t.Gate.Submission(s)
	t.session(time.Since(began))
	return d
}

// Message times [gate.Gate.Message].
func (t timedMilter) Message(e *mailflow.Envelope, recipients []string, content *mailflow.Content) mailflow.Judgement {
	began := time.Now()
	j := t.Gate.Message(e, recipients, content)
	t.end(time.Since(began))
	return j
}
