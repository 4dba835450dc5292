package recall_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/recall"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/withdraw"
)

// mailboxes have messages by account and queue id. What they do with Dovecot is tested end to end.
type mailboxes map[string][]string

func (m mailboxes) Count(_ context.Context, user string, s *doveadm.Sent) (n int, _ error) {
	for _, id := range m[user] {
		if id == s.QueueID {
			n++
		}
	}
	return n, nil
}

func (m mailboxes) Expunge(_ context.Context, user string, s *doveadm.Sent) error {
	m[user] = slices.DeleteFunc(m[user], func(id string) bool { return id == s.QueueID })
	return nil
}

const phone = "0123456789abcdef"

type site struct {
	*testing.T
	a     *admin.Admin
	boxes mailboxes
}

// start returns a site on which ann's phone sent a message to an account of her domain, to one of another and
// to elsewhere, ann's mailbox password sent another, and a third one waits for approval.
func start(t *testing.T) *site {
	t.Helper()
	a, red := admintest.New(t)
	a.ReadMessages, a.AuditEntry = red.Messages, red.AuditEntry
	admintest.Populate(t, a, "example.org", "example.net")
	now := time.Now().UTC()
	sent := func(queue, credential string, accounts ...string) mailflow.Record {
		return mailflow.Record{
			ID: store.NewID(), Time: now, Domain: "example.org", Direction: mailflow.Sent, QueueID: queue, MessageID: "<" + queue + "@client>", Account: "ann@example.org", Sender: "ann@example.org",
			CredentialID: credential, Recipients: 3, RecipientDomains: []string{"example.org", "example.net", "elsewhere.example"}, Accounts: accounts, Verdict: mailflow.Accepted, Node: "mx1",
		}
	}
	got := sent("3F2A11C", "", "bob@example.net")
	got.Domain, got.Direction, got.Account, got.Recipients = "example.net", mailflow.Received, "", 1
	batch := store.Batch{Messages: []mailflow.Record{sent("3F2A11C", phone, "bob@example.org"), got, sent("4A00000", store.CredentialMailbox, "bob@example.org"), sent("5B00000", phone)}}
	either := sent("6C00000", phone+","+store.CredentialMailbox, "bob@example.org")
	either.Account, either.Recipients = "dan@example.org", 1
	batch.Messages = append(batch.Messages, either)
	if err := red.AppendRecords(t.Context(), store.BatchID{Origin: "test", N: 1}, &batch); err != nil {
		t.Fatal(err)
	}
	err := a.Store.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(ch *store.Change) error {
		for id, account := range map[string]string{"hers": "ann@example.org", "another": "bob@example.org"} {
			ch.PutHeld("example.org", &store.Held{
				ID: id, Rule: "r", Account: account, From: "ann@example.org", Recipients: []string{"x@elsewhere.example"}, MessageID: "<5B00000@client>",
				Node: "mx1", HeldAt: now, ExpiresAt: now.Add(time.Hour), State: store.HeldWaiting, Approvers: []string{"bob@example.org"},
			})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return &site{t, a, mailboxes{"bob@example.org": {"3F2A11C", "4A00000", "6C00000"}, "bob@example.net": {"3F2A11C"}}}
}

func (s *site) withdraw(role store.Role, dry bool, in api.Withdrawal) (*api.Withdrawn, error) {
	s.Helper()
	domain := ""
	if role != store.RoleAdmin && role != store.RoleRead {
		domain = "example.org"
	}
	r := admintest.As(s.a, role, domain, "")
	r.DryRun = dry
	d, err := r.Domain("example.org")
	if err != nil {
		s.Fatal(err)
	}
	if in.Since.IsZero() {
		in.Since = time.Now().Add(-time.Hour)
	}
	empty := []string{"/bin/sh", "-c", "true"}
	return recall.Withdraw(s.Context(), &withdraw.Site{Node: "mx1", Postqueue: empty, Postsuper: empty, Dovecots: []withdraw.Mailboxes{s.boxes}}, d, &in, &api.Faults{})
}

func (s *site) open() (ids []string) {
	for _, h := range s.a.Store.State.HeldIn("example.org") {
		if h.Doc.Open() {
			ids = append(ids, h.Doc.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// A domain's key takes back from its own domain, an administrator from the others of the site as well; what left
// the site is counted; other credentials' messages and other accounts' held ones stay.
func TestReach(t *testing.T) {
	t.Parallel()
	s := start(t)
	for role, want := range map[store.Role]struct{ delivered, outside int }{store.RoleDomain: {1, 5}, store.RoleAdmin: {2, 4}} {
		w, err := s.withdraw(role, true, api.Withdrawal{CredentialID: phone})
		if err != nil || len(w.Messages) != 2 || w.Delivered != want.delivered || w.Outside != want.outside || w.Held != 1 || w.Removed != 0 || w.Uncertain != 1 {
			t.Errorf("%s: %+v, %v", role, w, err)
		}
	}
	if len(s.boxes["bob@example.org"]) != 3 || len(s.open()) != 2 {
		t.Error("a dry run deleted something")
	}
	w, err := s.withdraw(store.RoleDomain, false, api.Withdrawal{CredentialID: phone})
	if err != nil || w.Removed != 2 || w.Left != 0 || len(w.Problems) != 0 {
		t.Errorf("withdrawn: %+v, %v", w, err)
	}
	if !slices.Equal(s.boxes["bob@example.org"], []string{"4A00000", "6C00000"}) || len(s.boxes["bob@example.net"]) != 1 || !slices.Equal(s.open(), []string{"another"}) {
		t.Errorf("left: %v, held %v", s.boxes, s.open())
	}
	audit, _, err := s.a.Journal.Audit(t.Context(), store.AuditQuery{Domain: "example.org", Limit: 10})
	if err != nil || !slices.ContainsFunc(audit, func(e store.AuditEntry) bool {
		return e.Action == "message.withdraw" && e.Target == phone && strings.Contains(e.Note, "1 held, 1 copies in mailboxes")
	}) {
		t.Errorf("the audit: %+v, %v", audit, err)
	}
	if w, err := s.withdraw(store.RoleAdmin, false, api.Withdrawal{CredentialID: phone}); err != nil || w.Removed != 1 || len(s.boxes["bob@example.net"]) != 0 {
		t.Errorf("by an administrator: %+v, %v", w, err)
	}
}

// The mailbox password is everybody's: it needs an account; times must be in order; and reading is not enough.
func TestWhatIsRefused(t *testing.T) {
	t.Parallel()
	s := start(t)
	_, err := s.withdraw(store.RoleDomain, false, api.Withdrawal{CredentialID: store.CredentialMailbox})
	if p := admin.ProblemOf(err); len(p.Errors) != 1 || p.Errors[0].Pointer != "/account" {
		t.Errorf("the mailbox password of everybody: %+v", p)
	}
	_, err = s.withdraw(store.RoleDomain, false, api.Withdrawal{CredentialID: phone, Until: time.Now().Add(-2 * time.Hour)})
	if p := admin.ProblemOf(err); len(p.Errors) != 1 || p.Errors[0].Pointer != "/until" {
		t.Errorf("times in the wrong order: %+v", p)
	}
	if _, err := s.withdraw(store.RoleRead, true, api.Withdrawal{CredentialID: phone}); admin.ProblemOf(err).Code != "forbidden" {
		t.Errorf("role read: %v", err)
	}
	w, err := s.withdraw(store.RoleDomain, false, api.Withdrawal{CredentialID: store.CredentialMailbox, Account: "Ann@Example.ORG"})
	if err != nil || w.Removed != 1 || len(s.open()) != 2 || !slices.Equal(s.boxes["bob@example.org"], []string{"3F2A11C", "6C00000"}) {
		t.Errorf("ann's mailbox password: %+v, %v", w, err)
	}
	if w, err := s.withdraw(store.RoleDomain, true, api.Withdrawal{CredentialID: phone, Account: "bob@example.org"}); err != nil || len(w.Messages) != 0 {
		t.Errorf("of another account: %+v, %v", w, err)
	}
}

// What another password of the account may have sent is left alone, unless it is asked for.
func TestUncertainMessages(t *testing.T) {
	t.Parallel()
	s := start(t)
	in := api.Withdrawal{CredentialID: phone, Account: "dan@example.org"}
	w, err := s.withdraw(store.RoleDomain, false, in)
	if err != nil || w.Uncertain != 1 || len(w.Messages) != 0 || len(w.Warnings) != 1 || w.Warnings[0].Code != "uncertain_messages" || len(s.boxes["bob@example.org"]) != 3 {
		t.Errorf("left alone: %+v, %v", w, err)
	}
	in.Uncertain = true
	w, err = s.withdraw(store.RoleDomain, false, in)
	if err != nil || w.Uncertain != 0 || len(w.Messages) != 1 || !w.Messages[0].Uncertain || w.Removed != 1 || len(w.Warnings) != 0 || len(s.boxes["bob@example.org"]) != 2 {
		t.Errorf("asked for: %+v, %v", w, err)
	}
}

// Whoever finds nothing is told when nobody has the credential, and who took messages elsewhere whose queue was
// not searched.
func TestWarnings(t *testing.T) {
	t.Parallel()
	s := start(t)
	err := s.a.Store.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(ch *store.Change) error {
		a, _ := s.a.Store.State.Account("ann@example.org")
		a.Doc.Address = "ann@example.org"
		a.Doc.Secrets = append(a.Doc.Secrets, store.SecurePassword{ID: "8d900e59619a888a", Label: "unused", CreatedAt: time.Now()})
		ch.PutAccount(a.Doc)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ credential, account, want string }{
		{phone, "ann@example.org", ""},
		{"8d900e59619a888a", "", ""},
		{"8d900e59619a888a", "ann@example.org", ""},
		{store.CredentialMailbox, "bob@example.org", ""},
		{store.CredentialMailbox, "bob@example.net", "bob@example.net is not an address of example.org."},
		{phone, "ann", "ann is not an address of example.org."},
		{"8d900e59619a888a", "bob@example.org", "bob@example.org has no secure password 8d900e59619a888a now. Check the id, unless it was revoked."},
		{"fedcba9876543210", "", "No account of example.org has the secure password fedcba9876543210 now. Check the id, unless it was revoked."},
	} {
		w, err := s.withdraw(store.RoleDomain, true, api.Withdrawal{CredentialID: c.credential, Account: c.account})
		if err != nil || c.want == "" && len(w.Warnings) != 0 || c.want != "" && (len(w.Warnings) != 1 || w.Warnings[0] != api.Warning{Code: "unknown_credential", Detail: c.want}) {
			t.Errorf("%s of %q: %+v, %v", c.credential, c.account, w, err)
		}
	}
}
