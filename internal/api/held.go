package api

import "time"

// Held is a message that waits for approval on the disk of one node, as the store lists it for all.
// Its text is not part of it.
type Held struct {
	ID         string     `json:"id"`
	Domain     string     `json:"domain" doc:"Domain of the rule that holds the message."`
	Rule       string     `json:"rule" doc:"The id of the mail rule, or the address of the group."`
	Account    string     `json:"account,omitempty" doc:"Who submitted it, authenticated. Missing for mail from outside."`
	From       string     `json:"from" doc:"The envelope sender; empty for bounces."`
	Recipients []string   `json:"recipients" doc:"Those for whom it is held."`
	Subject    string     `json:"subject"`
	MessageID  string     `json:"message_id,omitempty"`
	Size       int64      `json:"size" doc:"Octets."`
	Node       string     `json:"node" doc:"The daemon that has the message, and carries out the decision."`
	NodeAway   bool       `json:"node_away,omitempty" doc:"That daemon does not answer: a decision is carried out when it is back."`
	HeldAt     time.Time  `json:"held_at"`
	ExpiresAt  time.Time  `json:"expires_at"`
	Then       string     `json:"then" enum:"reject,release" doc:"Action at expiry."`
	Approvers  []string   `json:"approvers,omitempty"`
	Need       string     `json:"need" enum:"any,all"`
	Approvals  []string   `json:"approvals,omitempty" doc:"Approvers who have approved so far."`
	State      string     `json:"state" enum:"held,approved,rejected,stuck" doc:"approved, rejected: its node has not carried it out yet. stuck: see the note; it waits for another decision."`
	DecidedBy  string     `json:"decided_by,omitempty"`
	DecidedAt  *time.Time `json:"decided_at,omitempty"`
	Text       string     `json:"text,omitempty" doc:"Of the rejection."`
	Note       string     `json:"note,omitempty" doc:"Why it is stuck."`
}

// Rejection says why a message is rejected, in at most 2000 characters. Only an authenticated
// sender is notified.
type Rejection struct {
	Text string `json:"text" maxLength:"2000" doc:"For the sender, if they authenticated. Others are not notified."`
}
