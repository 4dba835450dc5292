package store

import (
	"fmt"
	"slices"
	"time"
)

// Held is a message that waits for approval, without its text, which is on the node that accepted
// it. The document is deleted when the message has been released or rejected.
type Held struct {
	ID         string    `json:"id"`
	Rule       string    `json:"rule"`              // id of the rule that held it
	Account    string    `json:"account,omitempty"` // the authenticated submitter; "" for none
	From       string    `json:"from"`              // envelope sender
	Recipients []string  `json:"recipients"`
	Subject    string    `json:"subject"`
	MessageID  string    `json:"message_id,omitempty"`
	Size       int64     `json:"size"`
	Node       string    `json:"node"`
	HeldAt     time.Time `json:"held_at"`
	ExpiresAt  time.Time `json:"expires_at"`
	// Approvers are the addresses that may decide by mail; All of them have to approve, or any.
	Approvers []string `json:"approvers,omitempty"`
	All       bool     `json:"all,omitempty"`
	// Release: the message is released when it expires, otherwise rejected.
	Release   bool       `json:"release,omitempty"`
	Approvals []string   `json:"approvals,omitempty"` // approvers who have approved
	State     HeldState  `json:"state"`
	DecidedBy string     `json:"decided_by,omitempty"`
	DecidedAt *time.Time `json:"decided_at,omitempty"`
	Text      string     `json:"text,omitempty"` // of a rejection
	Note      string     `json:"note,omitempty"` // why it is stuck
}

// HeldState says how far the decision on a held message is. A decided message stays in this list
// until its node has carried the decision out.
type HeldState string

// The states of held messages.
const (
	HeldWaiting  HeldState = "held"
	HeldApproved HeldState = "approved" // its node releases it
	HeldRejected HeldState = "rejected" // its node deletes it
	// HeldStuck: it was approved and could not be released, or may have been; see the note. It
	// waits for another decision.
	HeldStuck HeldState = "stuck"
)

// Open reports whether a held message needs a decision: it waits for its first one, or is stuck and
// waits for another.
func (h *Held) Open() bool { return h.State == HeldWaiting || h.State == HeldStuck }

// Decision is what an approver, an administrator or the daemon, when a message expires, decides
// about it. The zero value rejects without a text.
type Decision struct {
	Approve bool
	Text    string // to the sender of a rejected message
	// Approver is the address of an approver who decides for themselves; "" decides for all.
	Approver string
	By       string // name in the records
}

// DecidedError reports that a held message, or the part of an approver in it, is decided already,
// and by whom: the first decision counts.
type DecidedError struct{ Held Held }

func (e *DecidedError) Error() string {
	return fmt.Sprintf("the message is %s already, by %s", e.Held.State, e.Held.DecidedBy)
}

// Decide returns the message after a decision. Where all approvers are needed, one of them approves
// in part only. The error is a [*DecidedError].
func (h *Held) Decide(d Decision, now time.Time) (*Held, error) {
	if !h.Open() {
		return nil, &DecidedError{*h}
	}
	next := *h
	if d.Approve && d.Approver != "" {
		if slices.Contains(h.Approvals, d.Approver) {
			return nil, &DecidedError{Held{State: HeldApproved, DecidedBy: d.Approver}}
		}
		next.Approvals = append(slices.Clone(h.Approvals), d.Approver)
		if h.All && slices.ContainsFunc(h.Approvers, func(a string) bool { return !slices.Contains(next.Approvals, a) }) {
			return &next, nil
		}
	}
	next.State, next.Text, next.DecidedBy, next.DecidedAt, next.Note = HeldRejected, d.Text, d.By, &now, ""
	if d.Approve {
		next.State, next.Text = HeldApproved, ""
	}
	return &next, nil
}

// Held returns a held message of a domain by its id, decided or not; false once its node has sent
// or deleted it.
func (st *State) Held(domain, id string) (Revised[Held], bool) {
	return get(st.rulesOf(domain).held[id])
}

// HeldIn returns the held messages of a domain on all nodes, decided ones that are not carried out
// included, oldest first.
func (st *State) HeldIn(domain string) []Revised[Held] {
	return byTime(st.rulesOf(domain).held, func(h *Held) (time.Time, string) { return h.HeldAt, h.ID })
}

// FindHeld returns a held message by its id alone, and the domain whose rule held it. It looks
// through all domains.
func (st *State) FindHeld(id string) (domain string, h Revised[Held], ok bool) {
	for _, name := range st.domainsWhere(func(r *domainRules) bool { return r.held[id] != nil }) {
		h, ok = st.Held(name, id)
		return name, h, ok
	}
	return "", Revised[Held]{}, false
}

// HeldCount returns how many messages are held, in all domains and on all nodes, decided ones that
// are not carried out included.
func (st *State) HeldCount() (n int) {
	st.mu.RLock()
	defer st.mu.RUnlock()
	for _, d := range st.domains {
		n += len(d.held)
	}
	return n
}

// PutHeld adds a held message of a domain under its id, or replaces it after a decision. The text
// stays on the disk of its node.
func (c *Change) PutHeld(domain string, h *Held) { c.put(kindHeld+"/"+domain+"/"+h.ID, h) }

// DeleteHeld removes a held message of a domain from the list, once its node has sent or deleted
// it, for good.
func (c *Change) DeleteHeld(domain, id string) { c.del(kindHeld + "/" + domain + "/" + id) }
