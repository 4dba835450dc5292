package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

const (
	elsewhere = "someone@elsewhere.example"
	pat       = "pat@partner.example"
)

// inbound is a session of a client that does not authenticate.
func (s *site) inbound() *mailclient.SMTP {
	s.t.Helper()
	c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = c.Close() })
	if _, err := c.Hello(); err != nil {
		s.t.Fatal(err)
	}
	return c
}

// answers begins a message and returns the replies to its recipients.
func (s *site) answers(c *mailclient.SMTP, from string, to ...string) (replies []string) {
	s.t.Helper()
	for _, step := range append([]string{""}, to...) {
		var r string
		var err error
		if step == "" {
			if r, err = c.Command("RSET"); err == nil {
				r, err = c.Mail(from)
			}
		} else {
			r, err = c.Recipient(step)
			replies = append(replies, r)
		}
		if err != nil {
			s.t.Fatal(err)
		}
		if step == "" {
			s.want("MAIL", r, "250 ")
		}
	}
	return replies
}

// permitted fails if Drawbridge refused a recipient: whether Postfix knows it does not matter here.
func (s *site) permitted(what, reply string) {
	s.t.Helper()
	if !strings.HasPrefix(reply, "250 ") && !strings.HasPrefix(reply, "550 5.1.") {
		s.t.Errorf("%s: %q", what, reply)
	}
}

// messageRecord waits for a message record.
func (s *site) messageRecord(query string) object {
	s.t.Helper()
	var found object
	s.eventually("a message record "+query, func() bool {
		items, _ := s.api("GET", "/v1/domains/example.org/messages?"+query, nil)["items"].([]any)
		if len(items) > 0 {
			found, _ = items[0].(map[string]any)
		}
		return found != nil
	})
	return found
}

// Rules for messages through Postfix: internal-only accounts (M7), groups (M5), limits (M9), and
// the records of it all (M11).
func TestMailRules(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{MainCF: "smtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000\nvirtual_alias_maps = inline:{ { board@example.org=bob@example.org, dave@example.org } }\n"})
	s.domain(nil)
	s.api("PATCH", "/v1/domains/example.org", object{"alias_domains": []string{"example.net"}})
	rule := func(id string, body object) {
		s.t.Helper()
		body["name"] = id
		s.api("PUT", "/v1/domains/example.org/mail-rules/"+id, body)
	}
	conn, r := s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")

	// Postfix takes routes in local parts; where there are rules, they are refused.
	routed := []string{"ann%example.org@[127.0.0.1]", "example.org!ann@[127.0.0.1]", "\"ann@example.org\"@[127.0.0.1]", "ann%example.net%x@[127.0.0.1]"}
	for _, to := range routed[:3] {
		s.permitted(to, s.answers(conn, ann, to)[0])
	}
	_, err := conn.Command("RSET")
	s.must(err)

	// M7. Of mixed recipients only those outside are refused, with a text.
	rule("inside", object{"kind": "internal_only", "scope": object{"members": []string{ann}}, "except_domains": []string{"*.partner.example"}})
	// A session that the milter saw before a rule needed more of it has to begin again.
	if r, err := conn.Mail(ann); err != nil || !strings.HasPrefix(r, "421 ") {
		t.Errorf("an older session: %s (%v)", r, err)
	}
	if conn, r = s.submit(outside, ann, s.passwords[ann]); !strings.HasPrefix(r, "235 ") {
		t.Fatal(r)
	}
	to := []string{bob, elsewhere, "bob@example.net", "x@mail.partner.example", "bob@example.org@elsewhere.example", "\"bob\"@elsewhere.example"}
	for i, reply := range s.answers(conn, ann, to...) {
		if !strings.HasSuffix(to[i], "elsewhere.example") {
			s.permitted(to[i], reply)
		} else if s.want(to[i], reply, "550 5.7.1 <"); !strings.Contains(reply, "Your account may only send mail within example.org.") && !strings.Contains(reply, "without a route") {
			t.Errorf("%s: %s", to[i], reply)
		}
	}
	in := s.inbound()
	forged := []string{"someone@elsewhere.example", ann, "bob@example.net", "", "ann@mail.partner.example"}
	for _, from := range forged { // MAIL FROM proves nothing, except that an excepted domain is believed
		for i, reply := range s.answers(in, from, ann, "Ann+x@EXAMPLE.net") {
			what := fmt.Sprintf("from %s, recipient %d", from, i)
			if strings.HasSuffix(from, "partner.example") {
				s.permitted(what, reply)
			} else {
				s.want(what, reply, "550 5.7.1 <")
			}
		}
	}
	s.want("to a colleague without the rule", s.answers(in, elsewhere, bob)[0], "250 ")
	s.command("mail-rule", "set", "example.org", "inside", "--mode", "report")
	s.permitted("reported", s.answers(conn, ann, elsewhere)[0])
	s.command("mail-rule", "delete", "example.org", "inside")

	// M5. Who may write to a group is who logged in, however the group is addressed.
	s.command("group", "set", "team@example.org", "--member", ann, "--alias", "crew@example.org", "--who-may-send", "members")
	s.command("group", "set", "all@example.org", "--member", "team@example.org", "--member", bob, "--who-may-send", "domain")
	bobs, r := s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	s.api("PATCH", "/v1/accounts/"+bob, object{"send_as": []string{"team@example.org", ann}})
	for _, group := range []string{"team@example.org", "Team@example.net", "team+x@example.org", "crew@example.org", "\"team\"@example.org"} {
		s.permitted("a member to "+group, s.answers(conn, ann, group)[0])
		for _, from := range []string{bob, "team@example.org", ann, ""} { // permission to send as a member makes no member
			s.want("bob as "+from+" to "+group, s.answers(bobs, from, group)[0], "550 5.7.1 <")
		}
		for _, from := range []string{ann, "team@example.org", "", elsewhere} {
			s.want("outside as "+from+" to "+group, s.answers(in, from, group)[0], "550 5.7.1 <")
		}
	}
	for _, to := range routed {
		to = strings.ReplaceAll(to, "ann", "team")
		s.want("a route to a group: "+to, s.answers(bobs, bob, to)[0], "550 5.7.1 <")
	}
	reply := s.answers(bobs, bob, "all@example.org")[0]
	if !strings.Contains(reply, "contains the group team@example.org, which only accepts mail from its members") {
		t.Errorf("a group within a group: %s", reply)
	}
	s.command("group", "delete", "team@example.org")
	s.command("group", "set", "all@example.org", "--who-may-send", "listed", "--sender", elsewhere, "--sender", bob)
	s.permitted("a listed sender elsewhere", s.answers(in, elsewhere, "all@example.org")[0])
	s.want("a listed sender who did not log in", s.answers(in, bob, "all@example.org")[0], "550 5.7.1 <")
	s.permitted("a listed sender who did", s.answers(bobs, bob, "all@example.org")[0])

	// A group alone has messages approved: no audit rule is needed for that.
	s.command("group", "set", "board@example.org", "--member", bob, "--member", dave, "--approver", carol)
	s.want("to the board", s.send(s.inbound(), elsewhere, "board@example.org", "From: "+elsewhere+"\nMessage-ID: <board@elsewhere.example>\nSubject: board\n\nx\n"), "250 ")
	s.command("held", "approve", s.held("board")["id"].(string))
	s.received(bob, "board")
	s.received(dave, "board")
	s.command("group", "delete", "board@example.org")
	if conn, r = s.submit(outside, ann, s.passwords[ann]); !strings.HasPrefix(r, "235 ") {
		t.Fatal(r)
	}
	s.want("the person", s.answers(conn, ann, bob)[0], "250 ")

	// M9. Recipients that were refused, and messages that were not sent, do not count.
	rule("few", object{"kind": "limit", "scope": object{"all": true}, "action": object{"recipients_per_hour": 3, "per": "credential", "then": "suspend_credential"}})
	id, secret := s.device(ann, "phone")
	phone, r := s.submit(outside, ann, secret)
	s.want("auth", r, "235 ")
	for range 3 {
		s.answers(phone, ann, bob, bob, "nobody-like-this@example.org") // and RSET: given back
	}
	if _, err := phone.Command("RSET"); err != nil {
		t.Fatal(err)
	}
	for range 3 { // the milter refuses their headers: given back, too
		s.want("with another's From", s.send(phone, ann, bob, "From: "+bob+"\nMessage-ID: <forged@example.org>\nSubject: m9\n\nx\n"), "550 5.7.1 ")
	}
	s.want("sent", s.send(phone, ann, bob, "From: "+ann+"\nMessage-ID: <m9@example.org>\nSubject: m9\n\nx\n"), "250 ")
	for i, reply := range s.answers(phone, ann, bob, "bob+1@example.org", "bob+2@example.org") {
		s.want("recipients after one", reply, []string{"250 ", "250 ", "450 4.7.1 <"}[i])
	}
	s.eventually("the phone is suspended", func() bool {
		items, _ := s.api("GET", "/v1/domains/example.org/suspensions", nil)["items"].([]any)
		return len(items) == 1 && items[0].(map[string]any)["credential"] == id
	})
	s.want("the phone's session", s.answersOrEnd(phone, ann), "421 ")
	_, r = s.submit(outside, ann, secret)
	s.want("the phone again", r, "535 ")
	s.want("the person goes on", s.answers(conn, ann, bob)[0], "250 ")
	list := s.api("GET", "/v1/domains/example.org/suspensions", nil)["items"].([]any)
	s.command("mail-rule", "unsuspend", "example.org", list[0].(map[string]any)["id"].(string))
	_, r = s.submit(outside, ann, secret)
	s.want("the phone, no longer suspended", r, "235 ")

	// M11.
	rec := s.messageRecord("account=" + ann + "&credential=" + id + "&verdict=accepted")
	if rec["credential"] != "phone" || rec["sender"] != ann || rec["recipients"] != 1.0 || rec["direction"] != "sent" || rec["size"] == nil || rec["queue_id"] == nil {
		t.Errorf("record: %v", rec)
	}
	s.eventually("the refused headers are on record", func() bool {
		refused := 0
		items, _ := s.api("GET", "/v1/domains/example.org/messages?account="+ann+"&credential="+id+"&verdict=refused", nil)["items"].([]any)
		for _, item := range items {
			if item.(map[string]any)["reason"] == "sender_not_owned" {
				refused++
			}
		}
		return refused == 3
	})
	if rec := s.messageRecord("rule=inside&verdict=refused"); rec["reason"] != "internal_only" {
		t.Errorf("record of a refusal: %v", rec)
	}
	queue := rec["queue_id"].(string)
	if text := s.command("messages", "explain", "example.org", "--queue-id", queue); !strings.Contains(text, bob) {
		t.Errorf("explained: %s", text)
	}
	if text := s.command("messages", "example.org", "--queue-id", queue, "--wide"); !strings.Contains(text, queue) || !strings.Contains(text, "m9@example.org") {
		t.Errorf("messages: %s", text)
	}
}

// answersOrEnd begins a message in a session that may have to end, and returns the last reply.
func (s *site) answersOrEnd(c *mailclient.SMTP, from string) string {
	s.t.Helper()
	_, _ = c.Command("RSET")
	if r, err := c.Mail(from); err != nil || !strings.HasPrefix(r, "250 ") {
		return r
	}
	r, _ := c.Recipient(bob)
	return r
}
