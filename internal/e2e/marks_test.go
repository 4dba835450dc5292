package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/mime"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// spamScript is the setting that has Dovecot file messages for the spam folder.
func spamScript(t *testing.T) string {
	t.Helper()
	script, err := filepath.Abs("../../contrib/dovecot/drawbridge-spam.sieve")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(script)
	if err != nil {
		t.Fatal(err)
	}
	// Dovecot compiles it beside itself, and reads it as the user mail.
	dir, err := os.MkdirTemp("", "sieve")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	script = filepath.Join(dir, "drawbridge-spam.sieve")
	if err := os.WriteFile(script, text, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return bySeries(t, "plugin {\n  sieve_before = "+script+"\n}\n", "sieve_script drawbridge-spam {\n  type = before\n  path = "+script+"\n}\n")
}

// M8: mail from outside is marked, and nothing else of it changes.
func TestWarning(t *testing.T) {
	s := start(t, trialstack.Options{})
	s.domain(object{"trace_header": false})
	const rules = "/v1/domains/example.org/mail-rules"
	s.api("POST", rules, object{"id": "outside", "name": "Outside", "kind": "warning", "scope": object{"all": true}, "action": object{"level": "advanced"}})
	s.api("PATCH", "/v1/accounts/"+ann, object{"aliases": []string{"ann.archer@example.org"}})
	s.api("PATCH", "/v1/accounts/"+bob, object{"display_name": "Robert Müller"})
	mark := func(subject, header string) string {
		c := s.inbound()
		s.want(subject, s.send(c, "pat@partner.example", ann, header+"\nSubject: "+subject+"\n\nHello\n"), "250 ")
		m := s.received(ann, subject)
		var marks []string
		for line := range strings.SplitSeq(m, "\n") {
			if strings.HasPrefix(line, "X-Drawbridge-") {
				marks = append(marks, line)
			}
		}
		return strings.Join(marks, "; ")
	}
	const general, advanced = "X-Drawbridge-External: general", "X-Drawbridge-External: advanced"
	for _, c := range []struct{ subject, header, want string }{
		{"usual", "From: Pat Doe <pat@partner.example>", general},
		{"forged-field", "From: Pat Doe <pat@partner.example>\nX-Drawbridge-External: none\nx-drawbridge-folder: spam\nX-Drawbridge-Client: mail", general},
		{"colleague", "From: \"Archer, Ann\" <pat@partner.example>", advanced},
		{"display-name", "From: =?iso-8859-1?q?M=FCller=2C_Robert?= <pat@partner.example>", advanced},
		{"own-domain", "From: Ann <" + ann + ">", advanced},
		{"other-tld", "From: Ann <ann@example.com>", advanced},
		{"confusables", "From: =?utf-8?b?0JBubiDQkHJjaGVy?= <pat@partner.example>", advanced},
	} {
		if got := mark(c.subject, c.header); got != c.want {
			t.Errorf("%s: %q", c.subject, got)
		}
	}
	s.api("PATCH", rules+"/outside", object{"action": object{"whitelist": []string{"partner.example"}}})
	for _, c := range []struct{ subject, header, want string }{
		{"trusted", "From: Pat Doe <pat@partner.example>", ""},
		{"trusted-envelope-only", "From: Pat Doe <pat@elsewhere.example>", general},
		{"trusted-and-another", "From: Pat Doe <pat@partner.example>\nFrom: Ann <" + ann + ">", advanced},
	} {
		if got := mark(c.subject, c.header); got != c.want {
			t.Errorf("%s: %q", c.subject, got)
		}
	}
	s.api("PATCH", rules+"/outside", object{"action": object{"whitelist": []string{}}})
	conn, r := s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	s.want("from a colleague", s.send(conn, bob, ann, "From: "+bob+"\nSubject: inside\n\nHello\n"), "250 ")
	if m := s.received(ann, "inside"); strings.Contains(m, "X-Drawbridge-External") {
		t.Errorf("mail of a colleague is marked: %s", m)
	}

	s.api("PATCH", rules+"/outside", object{"action": object{"how": []string{"header", "subject", "banner"}, "texts": object{"en": "From outside: {name}", "zh": "外部邮件"}}})
	if got := mark("[EXT] tagged", "From: Pat Doe <pat@partner.example>"); got != general {
		t.Errorf("subject and banner: %q", got)
	}
	tagged, err := mime.Parse([]byte(s.received(ann, "[EXT] tagged")), mime.Limits{})
	s.must(err)
	if texts, err := tagged.Texts(); err != nil || len(texts) != 1 || texts[0] != "From outside: Pat Doe 外部邮件 Hello" {
		t.Errorf("banner: %q, %v", texts, err)
	}
	conn, r = s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
	s.want("reply", s.send(conn, ann, bob, "From: "+ann+"\nSubject: Re: [EXT] tagged\n\nHello\n"), "250 ")
	s.received(bob, "Re: tagged")

	// Each message of the corpus, byte for byte.
	const banner = "From outside\n外部邮件"
	s.api("PATCH", rules+"/outside", object{"action": object{"texts": object{"en": "From outside"}, "advanced_texts": nil}})
	files, err := filepath.Glob("../mime/testdata/corpus/*.eml")
	s.must(err)
	want := map[string][]byte{}
	c := s.inbound()
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".eml")
		message, err := os.ReadFile(f)
		s.must(err)
		if name == "no-body-at-all" || name == "bad-header-line" || bytes.Contains(message, []byte{0}) {
			continue // Postfix makes something else of it
		}
		message = bytes.ReplaceAll(bytes.ReplaceAll(message, []byte("\r\n"), []byte("\n")), []byte("\n"), []byte("\r\n"))
		if !bytes.HasSuffix(message, []byte("\n")) {
			message = append(message, "\r\n"...)
		}
		m, fault := mime.Parse(message, mime.Limits{})
		changes, unmarked := m.Banner(banner)
		reply := s.send(c, "pat@partner.example", ann, "X-Corpus: "+name+"\n"+strings.ReplaceAll(string(message), "\r\n", "\n"))
		if fault != nil || unmarked != nil {
			s.want(name, reply, "451 4.7.1 ")
			continue
		}
		s.want(name, reply, "250 ")
		changed, _ := mime.Parse(changes.Apply(m), mime.Limits{})
		want[name] = bytes.ReplaceAll(changes.Apply(m)[changed.BodyStart():], []byte("\r\n"), []byte("\n"))
	}
	arrived := func() map[string]string {
		messages, err := s.Inbox(ann)
		s.must(err)
		bodies := map[string]string{}
		for _, m := range messages {
			if _, name, ok := strings.Cut(m, "\nX-Corpus: "); ok {
				name, _, _ = strings.Cut(name, "\n")
				_, bodies[name], _ = strings.Cut(m, "\n\n")
			}
		}
		return bodies
	}
	for name, body := range want {
		var got string
		s.eventually("the message "+name, func() (ok bool) { got, ok = arrived()[name]; return ok })
		if got != string(body) {
			t.Errorf("%s arrived as\n%q\ninstead of\n%q", name, got, body)
		}
	}
}

// junk returns the messages in an account's spam folder.
func (s *site) junk(account string) []string {
	s.t.Helper()
	messages, err := s.Mailbox(account, "Junk")
	s.must(err)
	return messages
}

// filed sends a message that is spam for bob and for nobody else.
func (s *site) filed(subject string, commands ...string) string {
	s.t.Helper()
	c := s.inbound()
	for _, line := range commands {
		r, err := c.Command(line)
		s.must(err)
		s.want(line, r, "250 ")
	}
	r, err := c.Data("From: " + pat + "\nTo: undisclosed-recipients:;\nMessage-ID: <" + subject + "@partner.example>\nSubject: " + subject + "\nX-Drawbridge-Folder: spam\nX-Odd:no space\n folded\n\n.dot\nw\xfcrde \n")
	s.must(err)
	return r
}

// mark returns the field of a filter in a message with a subject, which must be there once.
func (s *site) mark(messages []string, subject string) string {
	s.t.Helper()
	var found []string
	for _, m := range messages {
		if strings.Contains(m, "\nSubject: "+subject+"\n") {
			found = append(found, m)
		}
	}
	if len(found) != 1 {
		s.t.Fatalf("%s is there %d times", subject, len(found))
	}
	for _, want := range []string{"\nX-Odd:no space\n folded\n", "\n\n.dot\nw\xfcrde \n"} {
		if !strings.Contains(found[0], want) {
			s.t.Errorf("%s lacks %q: %q", subject, want, found[0])
		}
	}
	var marks []string
	for line := range strings.SplitSeq(found[0], "\n") {
		if strings.HasPrefix(line, "X-Drawbridge-") {
			marks = append(marks, line)
		}
	}
	return strings.Join(marks, "; ")
}

// filedApart sends messages that only bob's filter files as spam: he gets his apart, in the spam
// folder, and nobody else does.
func (s *site) filedApart() {
	s.t.Helper()
	inbox := func(account string) []string {
		list, err := s.Inbox(account)
		s.must(err)
		return list
	}
	s.rule(object{"id": "bobs", "name": "Bob's", "kind": "filter", "scope": object{"members": []string{bob}}, "direction": "received", "match": object{"senders": []string{pat}}, "action": object{"do": "spam"}})
	const spam = "X-Drawbridge-Folder: spam"
	s.want("apart", s.filed("apart", "MAIL FROM:<"+pat+"> BODY=8BITMIME RET=HDRS ENVID=envelope1", "RCPT TO:<"+ann+">",
		"RCPT TO:<"+bob+"> NOTIFY=SUCCESS ORCPT=rfc822;other@example.org", "RCPT TO:<"+eve+">"), "250 ")
	s.received(ann, "apart")
	s.received(eve, "apart")
	s.eventually("bob's spam folder has it", func() bool { return len(s.junk(bob)) == 1 })
	if got := s.mark(s.junk(bob), "apart"); got != spam {
		s.t.Errorf("bob's: %q", got)
	}
	for _, who := range []string{ann, eve} {
		if got := s.mark(inbox(who), "apart"); got != "" {
			s.t.Errorf("%s: %q", who, got)
		}
	}
	for _, account := range []string{bob, ann} {
		if n := s.count(account, "apart"); account == bob && n != 0 {
			s.t.Errorf("bob's inbox has it")
		}
	}
	if m := s.junk(bob)[0]; !strings.Contains(m, "(Drawbridge)") || !strings.Contains(m, "Return-Path: <"+pat+">") {
		s.t.Errorf("bob's: %s", m)
	}

	// All alike: no message of its own.
	s.want("alike", s.filed("alike", "MAIL FROM:<"+pat+"> BODY=8BITMIME", "RCPT TO:<"+bob+">"), "250 ")
	s.eventually("bob's spam folder has two", func() bool { return len(s.junk(bob)) == 2 })
	if got := s.mark(s.junk(bob), "alike"); got != spam {
		s.t.Errorf("alike: %q", got)
	}
	for _, m := range s.junk(bob) {
		if strings.Contains(m, "\nSubject: alike\n") && strings.Contains(m, "(Drawbridge)") {
			s.t.Errorf("alike: it was sent apart: %s", m)
		}
	}

	// What is held is filed as spam once it is released, and marks are those of the recipient's own rules.
	s.rule(object{"id": "all", "name": "all", "kind": "audit", "scope": object{"members": []string{bob}}, "direction": "received", "action": object{"approvers": []string{carol}}})
	s.rule(object{"id": "outside", "name": "outside", "kind": "warning", "scope": object{"members": []string{bob}}})
	s.want("held", s.filed("filed", "MAIL FROM:<"+pat+"> BODY=8BITMIME", "RCPT TO:<"+ann+">", "RCPT TO:<"+bob+">"), "250 ")
	s.api("POST", "/v1/held/"+s.held("filed")["id"].(string)+"/approve", nil)
	s.eventually("bob's spam folder has three", func() bool { return len(s.junk(bob)) == 3 })
	if got := s.mark(s.junk(bob), "filed"); got != "X-Drawbridge-External: general; "+spam && got != spam+"; X-Drawbridge-External: general" {
		s.t.Errorf("held: %q", got)
	}
	s.received(ann, "filed")
	if got := s.mark(inbox(ann), "filed"); got != "" {
		s.t.Errorf("ann's: %q", got)
	}
	s.noneHeld()
	// A content filter that returns a message once it was released does not have it held again, and a
	// program that hands in one that waits does not get it past the approver.
	returned := func(id, subject string) {
		s.t.Helper()
		s.must(s.Sendmail(s.ctx, pat, bob, "From: "+pat+"\nMessage-ID: <"+id+"@partner.example>\nX-Drawbridge-Folder: spam\nX-Odd:no space\n folded\nSubject: "+subject+"\n\n.dot\nw\xfcrde \n"))
	}
	returned("filed", "returned")
	s.eventually("bob's spam folder has four", func() bool { return len(s.junk(bob)) == 4 })
	s.mark(s.junk(bob), "returned")
	s.want("held", s.filed("waits", "MAIL FROM:<"+pat+"> BODY=8BITMIME", "RCPT TO:<"+bob+">"), "250 ")
	waits := s.held("waits")["id"].(string)
	returned("waits", "in-between")
	for _, id := range []string{waits, s.held("in-between")["id"].(string)} {
		s.api("POST", "/v1/held/"+id+"/reject", object{"text": ""})
	}
	s.noneHeld()
	s.api("DELETE", "/v1/domains/example.org/mail-rules/all", nil)
	s.api("DELETE", "/v1/domains/example.org/mail-rules/outside", nil)

	// Without space for it, the client reads so before it is told that the message is accepted.
	dir := filepath.Join(s.Daemons[0].StateDir, "held")
	s.must(os.Rename(dir, dir+".away"))
	mixed := []string{"MAIL FROM:<" + pat + "> BODY=8BITMIME", "RCPT TO:<" + ann + ">", "RCPT TO:<" + bob + ">"}
	s.want("disk full", s.filed("full", mixed...), "451 4.3.0 ")
	s.must(os.Rename(dir+".away", dir))
	s.want("again", s.filed("full", mixed...), "250 ")
	s.received(ann, "full")
	s.eventually("bob's spam folder has five", func() bool { return len(s.junk(bob)) == 5 })

	// The daemon is killed while it takes the message, or sends it apart: a client that was not told
	// that it is accepted sends it again, and each recipient has it once.
	rounds := 3
	if text := os.Getenv("DRAWBRIDGE_KILLS"); text != "" {
		var err error
		rounds, err = strconv.Atoi(text)
		s.must(err)
	}
	d := s.Daemons[0]
	for round := range rounds {
		subject := fmt.Sprint("killed-", round)
		killed := make(chan error, 1)
		go func() {
			time.Sleep(time.Duration(rand.IntN(60)) * time.Millisecond) // a random moment is what is tested
			killed <- d.Kill()
		}()
		submit := func() bool {
			c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
			if err != nil {
				return false
			}
			defer func() { _ = c.Close() }()
			for _, line := range append([]string{"EHLO client"}, mixed...) {
				if r, err := c.Command(line); err != nil || !strings.HasPrefix(r, "2") {
					return false
				}
			}
			r, err := c.Data("From: " + pat + "\nDate: Sun, 29 Nov 2026 00:00:00 +0000\nMessage-ID: <" + subject + "@partner.example>\nSubject: " + subject + "\n\nx\n")
			return err == nil && strings.HasPrefix(r, "250 ")
		}
		accepted := submit()
		s.must(<-killed)
		s.must(d.Start(s.ctx))
		s.eventually("it is accepted", func() bool { return accepted || submit() })
		s.received(ann, subject)
		s.eventually("bob's spam folder has it, too", func() bool {
			for _, item := range s.api("GET", "/v1/domains/example.org/held", nil)["items"].([]any) {
				h := item.(object)
				if h["state"] != "stuck" {
					continue
				}
				path := "/v1/held/" + h["id"].(string) // Postfix' log says whether it has the message
				if s.postfixStored(h["note"].(string)) {
					s.api("POST", path+"/reject", object{"text": ""})
				} else {
					s.api("POST", path+"/approve", nil)
				}
			}
			return len(s.junk(bob)) >= 6+round
		})
	}
	for round := range rounds {
		subject := fmt.Sprint("killed-", round)
		n := 0
		for _, m := range s.junk(bob) {
			if strings.Contains(m, "\nSubject: "+subject+"\n") {
				n++
			}
		}
		if n != 1 || s.count(ann, subject) != 1 || s.count(bob, subject) != 0 {
			s.t.Errorf("%s: bob has it %d times, ann %d times", subject, n, s.count(ann, subject))
		}
	}
	s.api("DELETE", "/v1/domains/example.org/mail-rules/bobs", nil)
}

// M4: messages that match go to the spam folder, or nowhere, or back.
func TestFilter(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{DovecotConf: spamScript(t), MainCF: "virtual_alias_maps = inline:{ { crew@example.org=ann@example.org } }\n"})
	s.domain(object{"trace_header": false})
	const rules = "/v1/domains/example.org/mail-rules"
	rule := func(id, do string, match object) {
		s.api("POST", rules, object{"id": id, "name": id, "kind": "filter", "scope": object{"all": true}, "direction": "received", "match": match, "action": object{"do": do}})
	}
	rule("lottery", "spam", object{"subject": []string{"lottery"}})
	rule("secret", "delete", object{"text": []string{"機密の数字"}})
	rule("programs", "return", object{"attachments": object{"names": []string{"*.exe", "*.scr"}}})
	rule("disguised", "return", object{"attachments": object{"types": []string{"application/x-msdownload"}}})
	rule("lists", "spam", object{"headers": []object{{"name": "List-Id", "regex": "^users .*<users\\.lists\\.example>$"}}})
	corpus := func(name string) string {
		message, err := os.ReadFile("../mime/testdata/corpus/" + name + ".eml")
		s.must(err)
		return "X-Corpus: " + name + "\n" + strings.ReplaceAll(string(message), "\r\n", "\n")
	}
	c := s.inbound()
	deliver := func(message string) string { return s.send(c, "pat@partner.example", ann, message) }
	const returned = "550 5.7.1 The message is not accepted here."
	for _, m := range []struct{ name, message, want string }{
		{"encoded subject", "From: pat@partner.example\nSubject: =?utf-8?b?TE9UVEVSWQ==?=\n\nx\n", "250 "},
		{"forged field", "From: pat@partner.example\nX-Drawbridge-Folder: spam\nSubject: forged\n\nx\n", "250 "},
		{"list", "From: pat@partner.example\nList-Id: users here <users.lists.example>\nSubject: list\n\nx\n", "250 "},
		{"text in ISO-2022-JP", corpus("iso-2022-jp"), "250 "},
		{"text in Shift_JIS", corpus("shift-jis"), "250 "},
		{"flowed text", corpus("format-flowed-delsp"), "250 "},
		{"zip in a zip", corpus("zip-in-zip"), returned},
		{"winmail.dat", corpus("outlook-winmail"), returned},
		{"uuencode", corpus("uuencode"), returned},
		{"within a forwarded message", corpus("forward-base64"), returned},
		{"program with the name of another type", strings.Replace(corpus("exe-as-pdf"), "invoice.pdf.exe", "invoice.pdf", 1), returned},
		{"malformed", corpus("bad-deep-inner"), "451 4.7.1 The message cannot be checked now."},
		{"cut off", corpus("bad-truncated"), "451 4.7.1 The message cannot be checked now."},
		{"innocent", "From: pat@partner.example\nSubject: innocent\n\nx\n", "250 "},
	} {
		s.want(m.name, deliver(m.message), m.want)
	}
	for _, id := range []string{"programs", "disguised", "secret"} {
		s.api("PATCH", rules+"/"+id, object{"on_fault": "ignore"})
	}
	c = s.inbound()
	s.want("malformed, and faults ignored", deliver(corpus("bad-deep-inner")), "250 ")
	s.received(ann, "forged")
	s.received(ann, "innocent")
	s.received(ann, "Quarterly figures")
	s.eventually("two messages in the spam folder", func() bool { return len(s.junk(ann)) == 2 })
	messages, err := s.Inbox(ann)
	s.must(err)
	for _, m := range append(messages, s.junk(ann)...) {
		if strings.Contains(m, "X-Corpus: iso-2022-jp\n") || strings.Contains(m, "X-Corpus: shift-jis\n") || strings.Contains(m, "X-Corpus: format") {
			t.Errorf("this should have been deleted: %s", m)
		}
	}

	// Nothing is returned to a program on the machine that did not authenticate: it would send a
	// bounce to a sender that may be forged.
	s.must(s.Sendmail(s.ctx, "pat@partner.example", ann, corpus("zip-in-zip")))
	s.eventually("a third message in the spam folder", func() bool { return len(s.junk(ann)) == 3 })

	for _, id := range []string{"lottery", "secret", "programs", "disguised", "lists"} {
		s.api("DELETE", rules+"/"+id, nil)
	}
	t.Run("for some recipients", func(t *testing.T) { s.in(t).filedApart() })
	s.corpus()
}
