// Package recall has the operation of administrators that withdraws what a credential sent.
//
// Role domain withdraws messages of its domain from its own accounts' mailboxes, from this machine's queue and
// from its approvers; administrators also from the mailboxes and approvers of other domains of the site.
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
	account := in.Account
	if parsed, err := address.Parse(account, d.DefaultDomain); err == nil {
		account = d.Store.State.Canonical(parsed)
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
	list, domains, err := messages(ctx, d, in, account, until, w)
	if err != nil {
		return nil, err
	}
	w.Warnings = warnings(d, in.CredentialID, account, w)
	found, fault := site.Find(ctx, list)
	view(w, found)
	if fault != nil {
		w.Problems = append(w.Problems, fault.Error())
	}
	held := waiting(d, domains, w, list)
	if w.Left = w.Queued + w.Delivered + w.Held; d.DryRun || w.Left == 0 {
		return w, nil
	}
	err = d.Change(ctx, func(ch *store.Change) error {
		admin.Describe(ch, "message.withdraw", d.Name(), in.CredentialID)
		ch.Audit.Note = fmt.Sprintf("%d in the queue, %d held, %d copies in mailboxes, sent from %s until %s",
			w.Queued, w.Held, w.Delivered, in.Since.UTC().Format(time.RFC3339), until.UTC().Format(time.RFC3339))
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
	for _, id := range held {
		if _, err := d.DecideHeld(ctx, id, false, ""); err != nil {
			w.Problems = append(w.Problems, fmt.Sprintf("rejecting the held message %s: %v", id, err))
			w.Left++
		}
	}
	for i := range left {
		w.Left += len(left[i].Queued)
		for _, box := range left[i].Mailboxes {
			w.Left += box.Copies
		}
	}
	w.Removed = max(0, was-w.Left)
	return w, nil
}

// warnings returns what may have been overlooked: other nodes' queues, and an id that is wrong.
func warnings(d *admin.Domain, credential, account string, w *api.Withdrawn) (list []api.Warning) {
	for _, node := range w.Elsewhere {
		n := 0
		for i := range w.Messages {
			if w.Messages[i].Node == node {
				n++
			}
		}
		list = append(list, api.Warning{Code: "other_queue", Detail: fmt.Sprintf("Node %s took %d of the messages. Its queue was not searched: repeat this at its daemon.", node, n)})
	}
	if w.Uncertain > 0 {
		list = append(list, api.Warning{Code: "uncertain_messages", Detail: fmt.Sprintf("Messages that were left alone: %d. Another password of the account was used at the same address, and it is not known which sent them. --uncertain (uncertain in the API) includes them.", w.Uncertain)})
	}
	if len(w.Messages)+w.Uncertain == 0 && !known(d, credential, account) {
		const check = " now. Check the id, unless it was revoked."
		detail := "No account of " + d.Name() + " has the secure password " + credential + check
		switch {
		case account != "" && address.Domain(account) != d.Name():
			detail = account + " is not an address of " + d.Name() + "."
		case account != "":
			detail = account + " has no secure password " + credential + check
		}
		list = append(list, api.Warning{Code: "unknown_credential", Detail: detail})
	}
	return list
}

// known reports whether the credential is one of the account's, or of any of the domain's. Secure passwords
// that were revoked long ago are not known.
func known(d *admin.Domain, credential, account string) bool {
	if credential == store.CredentialMailbox {
		return address.Domain(account) == d.Name()
	}
	has := func(a store.Revised[store.Account]) bool {
		return slices.ContainsFunc(a.Doc.Secrets, func(p store.SecurePassword) bool { return p.ID == credential })
	}
	if account != "" {
		a, ok := d.Store.State.Account(account)
		return ok && has(a)
	}
	return slices.ContainsFunc(d.Store.State.Accounts(d.Name(), "", 0), has)
}

// messages reads the records of what the credential sent, and returns the domains that may hold them.
func messages(ctx context.Context, d *admin.Domain, in *api.Withdrawal, account string, until time.Time, w *api.Withdrawn) (list []withdraw.Message, domains []string, err error) {
	q := store.MessageQuery{Domain: d.Name(), Credential: in.CredentialID, Since: in.Since, Until: until, Limit: 1000}
	domains = []string{d.Name()}
	for {
		page, next, err := d.ReadMessages(ctx, q)
		if err != nil {
			return nil, nil, err
		}
		for i := range page {
			r := &page[i]
			if r.Direction != "sent" || r.QueueID == "" || account != "" && r.Account != account {
				continue
			}
			uncertain := r.CredentialID != in.CredentialID
			if uncertain && !in.Uncertain {
				w.Uncertain++
				continue
			}
			if len(list) == maxMessages {
				w.More = true
				return list, domains, nil
			}
			m := withdraw.Message{QueueID: r.QueueID, MessageID: r.MessageID, Sender: r.Sender, Node: r.Node, Time: r.Time, Accounts: slices.Clone(r.Accounts)}
			inside := len(m.Accounts)
			if d.Caller.Role == store.RoleAdmin {
				others, err := elsewhere(ctx, d, r)
				if err != nil {
					return nil, nil, err
				}
				for _, name := range r.RecipientDomains {
					if name, managed := d.Store.State.ResolveDomain(name); managed && !slices.Contains(domains, name) {
						domains = append(domains, name)
					}
				}
				m.Accounts = append(m.Accounts, others...)
				inside += len(others)
			}
			w.Outside += max(0, r.Recipients-inside)
			if r.Node != "" && r.Node != w.Node && !slices.Contains(w.Elsewhere, r.Node) {
				w.Elsewhere = append(w.Elsewhere, r.Node)
			}
			list = append(list, m)
			w.Messages = append(w.Messages, api.WithdrawnMessage{QueueID: r.QueueID, MessageID: r.MessageID, Time: r.Time, Account: r.Account, Node: r.Node, Uncertain: uncertain})
		}
		if next == "" {
			return list, domains, nil
		}
		q.Cursor = next
	}
}

// waiting returns the ids of the messages that rules of domains hold for approval, and marks them in the
// answer.
func waiting(d *admin.Domain, domains []string, w *api.Withdrawn, list []withdraw.Message) (ids []string) {
	for _, domain := range domains {
		for _, h := range d.Store.State.HeldIn(domain) {
			i := slices.IndexFunc(list, func(m withdraw.Message) bool {
				return m.MessageID != "" && m.MessageID == h.Doc.MessageID && m.Sender == h.Doc.From && h.Doc.HeldAt.Sub(m.Time).Abs() <= time.Minute
			})
			if i >= 0 && h.Doc.Open() && h.Doc.Account == w.Messages[i].Account {
				w.Messages[i].Held = true
				w.Held++
				ids = append(ids, h.Doc.ID)
			}
		}
	}
	return ids
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
		m.Queued = len(found[i].Queued) > 0
		w.Queued += len(found[i].Queued)
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
