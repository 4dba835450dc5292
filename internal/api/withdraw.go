package api

import "time"

// Withdrawal selects the messages that a credential sent between two times.
type Withdrawal struct {
	CredentialID string    `json:"credential_id" required:"true" doc:"A secure password's id, or mailbox with account."`
	Account      string    `json:"account" doc:"Only messages of this account; needed for mailbox."`
	Since        time.Time `json:"since" required:"true"`
	Until        time.Time `json:"until,omitzero" doc:"Now if it is left out."`
	Uncertain    bool      `json:"uncertain" doc:"Also messages that may have been sent with another password of the account."`
}

// Withdrawn is what was found and what became of it.
type Withdrawn struct {
	Node      string             `json:"node,omitempty" doc:"This daemon's node: no other node's queue was searched."`
	Messages  []WithdrawnMessage `json:"messages"`
	Queued    int                `json:"queued" doc:"Number of messages that were in this node's queue."`
	Held      int                `json:"held" doc:"Number of messages that waited for approval, on all nodes. They are rejected."`
	Delivered int                `json:"delivered" doc:"Number of copies in mailboxes."`
	Removed   int                `json:"removed" doc:"Number of the three that were deleted."`
	Left      int                `json:"left" doc:"Number of the three that are still there after it."`
	Uncertain int                `json:"uncertain,omitempty" doc:"Number of messages that were left alone because they may have been sent with another password of the account."`
	Outside   int                `json:"outside" doc:"Number of recipients outside of the site, where nothing can be withdrawn."`
	Elsewhere []string           `json:"elsewhere,omitempty" doc:"Nodes that took some of the messages: ask their daemons too."`
	More      bool               `json:"more,omitempty" doc:"There are further messages: repeat it, with an earlier until."`
	Problems  []string           `json:"problems,omitempty" doc:"Steps that failed, with the reason."`
	Warnings  []Warning          `json:"warnings,omitempty" doc:"Other nodes' queues that were not searched, messages left alone, and a credential that nobody has now."`
}

// WithdrawnMessage is one message.
type WithdrawnMessage struct {
	QueueID   string             `json:"queue_id"`
	MessageID string             `json:"message_id"`
	Time      time.Time          `json:"time"`
	Account   string             `json:"account" doc:"The sender's."`
	Node      string             `json:"node,omitempty"`
	Queued    bool               `json:"queued"`
	Uncertain bool               `json:"uncertain,omitempty" doc:"Whether it may have been sent with another password of the account."`
	Held      bool               `json:"held,omitempty" doc:"Whether it waited for approval."`
	Mailboxes []WithdrawnMailbox `json:"mailboxes"`
}

// WithdrawnMailbox is an account that has the message.
type WithdrawnMailbox struct {
	Account string `json:"account"`
	Copies  int    `json:"copies"`
}
