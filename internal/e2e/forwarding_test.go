package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// A Sieve redirect that a rule forbids is refused at the end of the message, and the mailbox keeps its
// copy (M6). What virtual_alias_maps, alias_maps and .forward files send out is refused as it leaves.
// The owner gets one notice.
func TestForwarding(t *testing.T) {
	t.Parallel()
	forward := t.TempDir()
	s := start(t, trialstack.Options{
		Outgoing: []string{"example.net"},
		MainCF: "virtual_alias_maps = inline:{ { carol@example.org = carol@example.org, eve@example.net }, { staff@example.org = eve@example.net } }\n" +
			"smtpd_discard_ehlo_keywords = dsn\nmydestination = host.test\nlocal_transport = local\nalias_maps = inline:{ { dave = eve@example.net } }\nforward_path = " + forward + "/$user\n",
	})
	s.must(os.Chmod(filepath.Dir(forward), 0o755))
	s.must(os.Chmod(forward, 0o755))
	s.must(os.WriteFile(forward+"/games", []byte(eve+"\n"), 0o644))
	s.domain(nil)
	s.api("POST", "/v1/domains", object{"name": "host.test"})
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

	// Expanded by Postfix: what leaves is judged at the smtpd that outgoing mail passes.
	s.command("mail-rule", "create", "host.test", "forwarding", "--id", "stay", "--name", "Stay", "--all")
	conn, r = s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	for i, to := range []string{carol, "dave@host.test", "games@host.test", carol} {
		subject := fmt.Sprint("expanded ", i)
		s.want(subject, s.send(conn, bob, to, "From: "+bob+"\nTo: "+to+"\nMessage-ID: <e"+fmt.Sprint(i)+"@example.org>\nSubject: "+subject+"\n\nx\n"), "250 ")
	}
	s.eventually("four bounces", func() bool { return s.count(bob, "Undelivered Mail Returned to Sender") == 4 })
	s.eventually("the mailbox has its copies", func() bool { return s.count(carol, "expanded 0")+s.count(carol, "expanded 3") == 2 })
	if rec := s.messageRecord("account=" + carol + "&rule=stay"); rec["reason"] != "forwarding" || rec["redirected_by"] != carol {
		t.Errorf("record: %v", rec)
	}
	_, err = in.Mail(elsewhere)
	s.must(err)
	r, err = in.Command("RCPT TO:<" + carol + "> ORCPT=rfc822;someone@elsewhere.example")
	s.must(err)
	s.want("an original recipient that hides the mailbox", r, "501 ")
	s.want("to the target itself", s.send(conn, bob, eve, "From: "+bob+"\nTo: "+eve+"\nMessage-ID: <direct@example.org>\nSubject: direct\n\nx\n"), "250 ")
	s.received(eve, "direct")
	s.command("group", "set", "staff@example.org", "--member", eve)
	s.want("to a group", s.send(conn, bob, "staff@example.org", "From: "+bob+"\nTo: staff@example.org\nMessage-ID: <group@example.org>\nSubject: group\n\nx\n"), "250 ")
	s.received(eve, "group")
	for _, owner := range []string{ann, carol} {
		s.received(owner, "Your mail is not forwarded")
		if n := s.count(owner, "Your mail is not forwarded"); n != 1 {
			t.Errorf("%s got %d notices", owner, n)
		}
	}
	s.command("mail-rule", "set", "example.org", "stay", "--except-domain", "example.net")
	s.want("to an excepted domain", s.send(conn, bob, carol, "From: "+bob+"\nTo: "+carol+"\nMessage-ID: <excepted@example.org>\nSubject: excepted\n\nx\n"), "250 ")
	s.received(eve, "excepted")
	messages, err = s.Inbox(eve)
	s.must(err)
	for _, m := range messages {
		if strings.Contains(m, "Subject: expanded") {
			t.Errorf("it was forwarded: %s", m)
		}
	}
	s.command("mail-rule", "delete", "example.org", "stay")
}
