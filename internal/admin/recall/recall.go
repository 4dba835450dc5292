// Package recall has the operation of administrators that withdraws what a credential sent.
//
// Role domain withdraws messages of its domain from its own accounts' mailboxes and this machine's queue;
// administrators also from the mailboxes of other domains of the site.
package recall

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/withdraw"
)

// maxMessages bounds the messages of one withdrawal.
const maxMessages = 1000

// Withdraw looks for what a credential sent between two times, and deletes it unless the request is a dry
// run.
func Withdraw(ctx context.Context, site *withdraw.Site, d *admin.Domain, in *api.Withdrawal, f *api.Faults) (*api.Withdrawn, error) {
	if err := d.Caller.May(admin.ForDomain); err != nil {
		return nil, err
	}
	if in.CredentialID == store.CredentialMailbox && in.Account == "" {
		f.Add("/account", "required", "is needed with credential_id mailbox: every account has one")
	}
	until := in.Until
	if until.IsZero() {
		until = d.Time
	}
	if until.Before(in.Since) {
		f.Add("/until", "conflict", "is before since")
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	w := &api.Withdrawn{Node: site.Node, Messages: []api.WithdrawnMessage{}}
	list, err := messages(ctx, d, in, until, w)
	if err != nil {
		return nil, err
	}
	found, fault := site.Find(ctx, list)
	view(w, found)
	if fault != nil {
		w.Problems = append(w.Problems, fault.Error())
	}
	if w.Left = w.Queued + w.Delivered; d.DryRun || w.Left == 0 {
		return w, nil
	}
	err = d.Change(ctx, func(ch *store.Change) error {
		admin.Describe(ch, "message.withdraw", d.Name(), in.CredentialID)
		ch.Audit.Note = fmt.Sprintf("%d in the queue, %d copies in mailboxes, sent from %s until %s",
			w.Queued, w.Delivered, in.Since.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
		ch.AuditOnly()
		return nil
	})
	if err != nil {
		return nil, err
	}
	left, fault := site.Remove(ctx, list, found)
	if fault != nil {
		w.Problems = append(w.Problems, fault.Error())
	}
	was := w.Left
	w.Left = 0
	for i := range left {
		if left[i].Queued {
			w.Left++
		}
		for _, box := range left[i].Mailboxes {
			w.Left += box.Copies
		}
	}
	w.Removed = max(0, was-w.Left)
	return w, nil
}

// messages reads the records of what the credential sent.
func messages(ctx context.Context, d *admin.Domain, in *api.Withdrawal, until time.Time, w *api.Withdrawn) ([]withdraw.Message, error) {
	q := store.MessageQuery{Domain: d.Name(), Credential: in.CredentialID, Since: in.Since, Until: until, Limit: 1000}
	var list []withdraw.Message
	for {
		page, next, err := d.ReadMessages(ctx, q)
		if err != nil {
			return nil, err
		}
		for i := range page {
			r := &page[i]
			if r.Direction != "sent" || r.QueueID == "" || in.Account != "" && r.Account != in.Account {
				continue
			}
			if len(list) == maxMessages {
				w.More = true
				return list, nil
			}
			m := withdraw.Message{QueueID: r.QueueID, MessageID: r.MessageID, Node: r.Node, Time: r.Time, Accounts: slices.Clone(r.Accounts)}
			inside := len(m.Accounts)
			if d.Caller.Role == store.RoleAdmin {
				others, err := elsewhere(ctx, d, r)
				if err != nil {
					return nil, err
				}
				m.Accounts = append(m.Accounts, others...)
				inside += len(others)
			}
			w.Outside += max(0, r.Recipients-inside)
			if r.Node != "" && r.Node != w.Node && !slices.Contains(w.Elsewhere, r.Node) {
				w.Elsewhere = append(w.Elsewhere, r.Node)
			}
			list = append(list, m)
			w.Messages = append(w.Messages, api.WithdrawnMessage{QueueID: r.QueueID, MessageID: r.MessageID, Time: r.Time, Account: r.Account, Node: r.Node})
		}
		if next == "" {
			return list, nil
		}
		q.Cursor = next
	}
}

// elsewhere returns the recipients of a message in other domains of the site.
func elsewhere(ctx context.Context, d *admin.Domain, r *api.MessageRecord) (accounts []string, err error) {
	for _, domain := range r.RecipientDomains {
		name, managed := d.Store.State.ResolveDomain(domain)
		if !managed || name == d.Name() {
			continue
		}
		page, _, err := d.ReadMessages(ctx, store.MessageQuery{Domain: name, QueueID: r.QueueID, Since: r.Time.Add(-time.Minute), Until: r.Time.Add(time.Minute), Limit: 10})
		if err != nil {
			return nil, err
		}
		for i := range page {
			if page[i].MessageID == r.MessageID && page[i].Node == r.Node {
				for _, a := range page[i].Accounts {
					if address.Domain(a) == name {
						accounts = append(accounts, a)
					}
				}
			}
		}
	}
	return accounts, nil
}

// view shows what was found.
func view(w *api.Withdrawn, found []withdraw.Found) {
	for i := range found {
		m := &w.Messages[i]
		if m.Queued = found[i].Queued; m.Queued {
			w.Queued++
		}
		m.Mailboxes = []api.WithdrawnMailbox{}
		for _, box := range found[i].Mailboxes {
			if box.Err != nil {
				w.Problems = append(w.Problems, box.Err.Error())
			}
			w.Delivered += box.Copies
			m.Mailboxes = append(m.Mailboxes, api.WithdrawnMailbox{Account: box.Account, Copies: box.Copies})
		}
	}
}
