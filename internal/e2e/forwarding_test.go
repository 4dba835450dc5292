package e2e

import (
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// A Sieve redirect that a rule forbids is refused at the end of the message, and the mailbox keeps its
// copy (M6).
func TestForwarding(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("PATCH", "/v1/accounts/"+bob, object{})
	c, err := mailclient.Client{From: outside}.Sieve(s.ctx, s.Sieve())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if status, err := c.Authenticate(ann, s.passwords[ann]); err != nil || !strings.HasPrefix(status, "OK") {
		t.Fatalf("ManageSieve: %s, %v", status, err)
	}
	if status, err := c.Install("forward", "redirect \""+bob+"\";\n"); err != nil || !strings.HasPrefix(status, "OK") {
		t.Fatalf("the script: %s, %v", status, err)
	}
	conn, r := s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	send := func(subject, more string) {
		t.Helper()
		s.want(subject, s.send(conn, bob, ann, "From: "+bob+"\nTo: "+ann+"\nMessage-ID: <"+subject+"@example.org>\n"+more+"Subject: "+subject+"\n\nx\n"), "250 ")
	}
	send("allowed", "")
	s.received(bob, "allowed")

	s.command("mail-rule", "create", "example.org", "forwarding", "--id", "stay", "--name", "Stay", "--all", "--allow", "none")
	in := s.inbound()
	s.want("inbound", s.send(in, elsewhere, ann, "From: "+elsewhere+"\nTo: "+ann+"\nMessage-ID: <kept@elsewhere.example>\nSubject: kept\n\nx\n"), "250 ")
	s.received(ann, "kept")
	rec := s.messageRecord("rule=stay")
	if rec["reason"] != "forwarding" || rec["redirected_by"] != ann {
		t.Errorf("record: %v", rec)
	}
	messages, err := s.Inbox(bob)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range messages {
		if strings.Contains(m, "Subject: kept") {
			t.Error("the message was forwarded")
		}
	}
	s.command("mail-rule", "delete", "example.org", "stay")
}
