package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// M2: monitors get one copy of what monitored accounts send and receive, and nobody else notices.
func TestMonitoring(t *testing.T) {
	s := start(t, trialstack.Options{Settings: object{"mail.internal_networks": []string{"127.0.0.1"}}})
	s.domain(nil)
	s.api("PUT", "/v1/domains/example.org/departments/sales", object{})
	for _, who := range []string{ann, bob} {
		s.api("PUT", "/v1/accounts/"+who, object{"departments": []string{"sales"}})
	}
	s.rule(object{
		"id": "watch", "name": "Sales", "kind": "monitor", "scope": object{"departments": []object{{"path": "sales"}}}, "direction": "both",
		"action": object{"to": []string{carol}},
	})
	s.rule(object{
		"name": "The monitor is monitored", "kind": "monitor", "scope": object{"members": []string{carol}}, "action": object{"to": []string{dave, carol}},
	})
	s.rule(object{
		"name": "Over", "kind": "monitor", "scope": object{"all": true}, "until": "2026-01-01T00:00:00Z", "action": object{"to": []string{eve}},
	})
	message := func(subject string) string {
		return "From: " + ann + "\nTo: list@example.org\nSubject: " + subject + "\nMessage-ID: <" + subject + "@client>\n\nx\n"
	}
	send := func(subject string, recipients ...string) {
		t.Helper()
		commands := []string{"MAIL FROM:<" + ann + ">"}
		for _, r := range recipients {
			commands = append(commands, "RCPT TO:<"+r+">")
		}
		s.asAnn(message(subject), commands...)
	}
	// What is sent last arrives when everything before it has.
	settled := func(account string) {
		t.Helper()
		mark := "mark-" + fmt.Sprint(len(account)) + fmt.Sprint(s.count(account, "x")) + strings.ReplaceAll(t.Name(), "/", "-")
		c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
		s.must(err)
		defer func() { _ = c.Close() }()
		_, err = c.Hello()
		s.must(err)
		s.want("mark", s.send(c, "mark@elsewhere.example", account, "From: mark@elsewhere.example\nSubject: "+mark+"\n\nx\n"), "250 ")
		s.received(account, mark)
	}
	copies := func(monitor, subject string, want int) {
		t.Helper()
		if want > 0 {
			s.received(monitor, subject)
		}
		if n := s.count(monitor, subject); n != want {
			t.Errorf("%s has %d copies of %s, want %d", monitor, n, subject, want)
		}
	}
	send("outbound", eve)
	send("both-monitored", bob, ann, eve)
	send("to-oneself", ann)
	send("to-the-monitor", carol)
	copies(carol, "outbound", 1)
	copies(carol, "both-monitored", 1)
	copies(carol, "to-oneself", 1)
	copies(carol, "to-the-monitor", 1) // as its recipient
	m := s.received(carol, "both-monitored")
	for _, want := range []string{"X-Drawbridge-Copy: from=<" + ann + ">", "to=<" + eve + ">", "\nTo: list@example.org\n", "Return-Path: <>"} {
		if !strings.Contains(m, want) {
			t.Errorf("the copy lacks %q: %s", want, m)
		}
	}
	for _, who := range []string{bob, eve} {
		if m := s.received(who, "both-monitored"); strings.Contains(m, "Drawbridge") || strings.Contains(m, carol) {
			t.Errorf("%s sees it: %s", who, m)
		}
	}
	copies(dave, "to-the-monitor", 1) // what carol receives as a person
	settled(dave)
	for _, subject := range []string{"outbound", "both-monitored", "to-oneself"} {
		copies(dave, subject, 0) // copies are not copied
	}
	copies(eve, "to-oneself", 0)

	t.Run("a copy that cannot be delivered", func(t *testing.T) {
		s := s.in(t)
		s.api("PATCH", "/v1/domains/example.org/mail-rules/watch", object{"action": object{"to": []string{"nobody@example.org"}}})
		send("bounces", eve)
		s.received(eve, "bounces")
		settled(ann)
		messages, err := s.Inbox(ann)
		s.must(err)
		for _, m := range messages {
			if strings.Contains(m, "nobody@example.org") {
				t.Errorf("the sender reads of the monitor: %s", m)
			}
		}
	})
	t.Run("sent again by a filter of the site", func(t *testing.T) {
		s := s.in(t)
		s.api("PATCH", "/v1/domains/example.org/mail-rules/watch", object{"action": object{"to": []string{dave}}})
		send("filtered", eve)
		s.received(dave, "filtered")
		s.must(s.Sendmail(s.ctx, ann, eve, "Received: from filter\n"+message("filtered")))
		s.eventually("it came back", func() bool { return s.count(eve, "filtered") == 2 })
		settled(dave)
		copies(dave, "filtered", 1)
	})
	t.Run("sent again by a client that is not of the site", func(t *testing.T) {
		s := s.in(t)
		for n := range 2 {
			c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
			s.must(err)
			_, err = c.Hello()
			s.must(err)
			s.want("message", s.send(c, "x@elsewhere.example", ann, message("repeated")), "250 ")
			s.must(c.Close())
			s.eventually("a copy of each", func() bool { return s.count(dave, "repeated") == n+1 })
		}
	})
	t.Run("who sees it", func(t *testing.T) {
		s := s.in(t)
		self := s.with(s.api("POST", "/v1/keys", object{"name": "k", "role": "self", "account": ann})["key"].(string))
		self.refused(403, "forbidden", "GET", "/v1/domains/example.org/mail-rules", nil)
		audit := fmt.Sprint(s.api("GET", "/v1/audit?domain=example.org", nil)["items"])
		if !strings.Contains(audit, "mail_rule.create") || !strings.Contains(audit, "root") {
			t.Errorf("the audit lacks who set it: %s", audit)
		}
		for _, path := range []string{"/v1/accounts/" + ann + "/effective", "/v1/accounts/" + ann} {
			if answer := fmt.Sprint(self.api("GET", path, nil)); strings.Contains(answer, "watch") || strings.Contains(answer, carol) {
				t.Errorf("%s shows the rule: %s", path, answer)
			}
		}
	})
}
