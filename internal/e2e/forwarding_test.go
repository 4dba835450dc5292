package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// A Sieve redirect that a rule forbids is refused at the end of the message, and the mailbox keeps its
// copy (M6). What virtual_alias_maps, alias_maps and .forward files send out is dropped as it leaves,
// and nobody gets a bounce. The owner gets one notice.
func TestForwarding(t *testing.T) {
	t.Parallel()
	forward := t.TempDir()
	s := start(t, trialstack.Options{
		Outgoing: []string{"example.net"},
		MainCF: "virtual_alias_maps = inline:{ { carol@example.org = carol@example.org, eve@example.net }, { staff@example.org = eve@example.net } }\n" +
			"mydestination = host.test\nlocal_transport = local\nalias_maps = inline:{ { dave = eve@example.net } }\nforward_path = " + forward + "/$user\n",
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

	// Vacation replies are no forwarding, though the script redirects as well.
	if status, err := c.Install("away", "require [\"vacation\"];\nvacation :subject \"Away\" \"Later.\";\nredirect \""+bob+"\";\n"); err != nil || !strings.HasPrefix(status, "OK") {
		t.Fatalf("the script: %s, %v", status, err)
	}
	conn, r = s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	send("question", "")
	s.received(ann, "question")
	s.received(bob, "Away")

	// Expanded by Postfix: what leaves is judged at the smtpd that outgoing mail passes.
	s.command("mail-rule", "create", "host.test", "forwarding", "--id", "stay", "--name", "Stay", "--all")
	conn, r = s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	for i, to := range []string{carol, "dave@host.test", "games@host.test", carol} {
		subject := fmt.Sprint("expanded ", i)
		s.want(subject, s.send(conn, bob, to, "From: "+bob+"\nTo: "+to+"\nMessage-ID: <e"+fmt.Sprint(i)+"@example.org>\nSubject: "+subject+"\n\nx\n"), "250 ")
	}
	refusals := func(account string, want int) {
		t.Helper()
		s.eventually(fmt.Sprint(want, " are refused as they leave: ", account), func() bool {
			domain := account[strings.IndexByte(account, '@')+1:]
			items, _ := s.api("GET", "/v1/domains/"+domain+"/messages?account="+account+"&rule=stay", nil)["items"].([]any)
			items = slices.DeleteFunc(items, func(item any) bool { return item.(object)["sender"] == "" }) // the notice
			return len(items) == want
		})
	}
	refusals(carol, 2)
	refusals("dave@host.test", 1)
	refusals("games@host.test", 1)
	s.eventually("the mailbox has its copies", func() bool { return s.count(carol, "expanded 0")+s.count(carol, "expanded 3") == 2 })
	if rec := s.messageRecord("account=" + carol + "&rule=stay"); rec["reason"] != "forwarding" || rec["redirected_by"] != carol {
		t.Errorf("record: %v", rec)
	}
	// An original recipient that the client names does not hide the mailbox that forwards.
	for i, c := range []*mailclient.SMTP{in, conn} {
		from := []string{elsewhere, bob}[i]
		r, err = c.Mail(from)
		s.must(err)
		s.want("MAIL", r, "250 ")
		params := []string{"ORCPT=rfc822;" + eve + " NOTIFY=SUCCESS,FAILURE", "ORCPT=x400;none NOTIFY=SUCCESS,FAILURE"}[i]
		r, err = c.Command("RCPT TO:<" + carol + "> " + params)
		s.must(err)
		s.want(params, r, "250 ")
		r, err = c.Data(fmt.Sprintf("From: %s\nMessage-ID: <hidden%d@example.org>\nSubject: hidden %[2]d\n\nx\n", from, i))
		s.must(err)
		s.want("the message", r, "250 ")
		s.received(carol, fmt.Sprint("hidden ", i))
	}
	refusals(carol, 4)
	s.eventually("the sender gets the report that was asked for", func() bool { return s.count(bob, "Successful Mail Delivery Report") == 1 })
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
		if strings.Contains(m, "Subject: expanded") || strings.Contains(m, "Subject: hidden") {
			t.Errorf("it was forwarded: %s", m)
		}
	}
	if n := s.count(bob, "Undelivered Mail Returned to Sender"); n != 0 {
		t.Errorf("the sender got %d bounces", n)
	}
	s.command("mail-rule", "delete", "example.org", "stay")
}

// Where the domains that this server delivers itself pass the smtpd for outgoing mail as well, aliases
// do not lead from one managed domain to another either; what is not forwarded arrives once, and with
// the reports that were asked for.
func TestForwardingWithinTheServer(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{
		Outgoing: []string{"example.net", "example.org"},
		MainCF:   "virtual_alias_maps = inline:{ { carol@example.org = carol@example.org, eve@example.net }, { dave@example.org = bob@example.org } }\n",
	})
	s.domain(nil)
	s.api("POST", "/v1/domains", object{"name": "example.net"})
	s.command("mail-rule", "create", "example.org", "forwarding", "--id", "stay", "--name", "Stay", "--all", "--allow", "inside")
	conn, r := s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	send := func(subject string, commands ...string) {
		t.Helper()
		for _, line := range append([]string{"MAIL FROM:<" + bob + ">"}, commands...) {
			r, err := conn.Command(line)
			s.must(err)
			s.want(line, r, "250 ")
		}
		r, err := conn.Data("From: " + bob + "\nMessage-ID: <" + subject + "@example.org>\nSubject: " + subject + "\n\nx\n")
		s.must(err)
		s.want(subject, r, "250 ")
	}
	send("expanded", "RCPT TO:<"+carol+">", "RCPT TO:<"+ann+"> NOTIFY=SUCCESS")
	s.received(carol, "expanded")
	s.received(ann, "expanded")
	s.received(bob, "Successful Mail Delivery Report")
	if rec := s.messageRecord("account=" + carol + "&rule=stay&verdict=refused"); rec["reason"] != "forwarding" || rec["redirected_by"] != carol {
		t.Errorf("record: %v", rec)
	}
	send("inside", "RCPT TO:<"+dave+">") // an alias within the domain
	s.received(bob, "inside")
	send("direct", "RCPT TO:<"+eve+">", "RCPT TO:<"+ann+">")
	s.received(eve, "direct")
	s.received(ann, "direct")
	s.command("mail-rule", "set", "example.org", "stay", "--except-domain", "example.net")
	send("excepted", "RCPT TO:<"+carol+">")
	s.received(eve, "excepted")
	s.received(carol, "excepted")
	for _, c := range []struct {
		account, subject string
		want             int
	}{{eve, "expanded", 0}, {eve, "direct", 1}, {carol, "expanded", 1}, {ann, "expanded", 1}, {ann, "direct", 1}, {carol, "excepted", 1}} {
		if n := s.count(c.account, c.subject); n != c.want {
			t.Errorf("%s has %s %d times", c.account, c.subject, n)
		}
	}
	if n := s.count(bob, "Undelivered Mail Returned to Sender"); n != 0 {
		t.Errorf("the sender got %d bounces", n)
	}
}

// Bounces, which have no sender, come to a mailbox that redirects by Sieve. Where a rule forbids that
// the mailbox keeps them; where it does not they go on, once, also if the target redirects back. None
// is lost, and none makes a bounce of its own.
func TestForwardingOfBounces(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{MainCF: "transport_maps = inline:{ { bounces.example = local } }\n"})
	s.domain(nil)
	const returned = "Undelivered Mail Returned to Sender"
	install := func(account, script string) {
		t.Helper()
		c, err := mailclient.Client{From: outside}.Sieve(s.ctx, s.Sieve())
		s.must(err)
		defer func() { _ = c.Close() }()
		status, err := c.Authenticate(account, s.passwords[account])
		s.must(err)
		s.want("ManageSieve", status, "OK")
		status, err = c.Install("forward", script)
		s.must(err)
		s.want("the script", status, "OK")
	}
	// bounced sends a message that comes back, and another bounce from outside, as an MTA there sends it.
	bounced := func(subject string) {
		t.Helper()
		conn, r := s.submit(outside, ann, s.passwords[ann])
		defer func() { _ = conn.Close() }()
		s.want("auth", r, "235 ")
		s.want(subject, s.send(conn, ann, "no-such-user@bounces.example", "From: "+ann+"\nMessage-ID: <"+subject+"@example.org>\nSubject: "+subject+"\n\nx\n"), "250 ")
		in := s.inbound()
		s.want("from outside", s.send(in, "", ann, "From: MAILER-DAEMON@elsewhere.example\nTo: "+ann+"\nMessage-ID: <"+subject+"@elsewhere.example>\nAuto-Submitted: auto-replied\n"+
			"Subject: Delivery failed: "+subject+"\nMIME-Version: 1.0\nContent-Type: multipart/report; report-type=delivery-status; boundary=r\n\n--r\n\nNo such mailbox.\n"+
			"--r\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx.elsewhere.example\n\nFinal-Recipient: rfc822; nobody@elsewhere.example\nAction: failed\nStatus: 5.1.1\n--r--\n"), "250 ")
	}
	// has waits until nothing is under way, and compares the bounces in the mailboxes.
	has := func(subject string, want map[string]int) {
		t.Helper()
		s.eventually("nothing is left in the queue", func() bool { return len(s.queue()) == 0 })
		for account, n := range want {
			messages, err := s.Inbox(account)
			s.must(err)
			own, other := 0, 0
			for _, m := range messages {
				switch {
				case strings.Contains(m, "Subject: Delivery failed: "+subject):
					other++
				case strings.Contains(m, "Subject: "+returned) && strings.Contains(m, "<"+subject+"@example.org>"):
					own++
				case strings.Contains(m, "Subject: "+returned) && strings.Contains(m, "Delivery failed: "+subject):
					t.Errorf("%s: a bounce of a bounce", account)
				}
			}
			if own != n || other != n {
				t.Errorf("%s: %s has %d and %d bounces, not %d", subject, account, own, other, n)
			}
		}
	}
	install(ann, "redirect \""+eve+"\";\n")
	s.command("mail-rule", "create", "example.org", "forwarding", "--id", "stay", "--name", "Stay", "--all", "--allow", "none")
	bounced("forbidden")
	s.eventually("both redirects are refused, and the one of the notice", func() bool {
		items, _ := s.api("GET", "/v1/domains/example.org/messages?account="+ann+"&rule=stay", nil)["items"].([]any)
		return len(items) == 3
	})
	s.eventually("the mailbox has both", func() bool { return s.count(ann, returned)+s.count(ann, "Delivery failed: forbidden") == 2 })
	has("forbidden", map[string]int{ann: 1, eve: 0})
	if rec := s.messageRecord("account=" + ann + "&rule=stay"); rec["redirected_by"] != ann || rec["sender"] != nil && rec["sender"] != "" || rec["reason"] != "forwarding" {
		t.Errorf("record: %v", rec)
	}

	s.command("mail-rule", "set", "example.org", "stay", "--except-domain", "example.net")
	bounced("permitted")
	s.eventually("the target has both", func() bool { return s.count(eve, returned)+s.count(eve, "Delivery failed: permitted") == 2 })
	has("permitted", map[string]int{ann: 0, eve: 1})

	s.command("mail-rule", "set", "example.org", "stay", "--allow", "inside")
	install(ann, "require [\"copy\"];\nredirect :copy \""+bob+"\";\n")
	install(bob, "require [\"copy\"];\nredirect :copy \""+ann+"\";\n")
	bounced("circular")
	s.eventually("both came back once, and the loop ends", func() bool {
		return s.count(ann, returned) == 3 && s.count(ann, "Delivery failed: circular") == 2
	})
	has("circular", map[string]int{ann: 2, bob: 1})
}
