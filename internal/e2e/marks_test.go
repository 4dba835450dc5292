package e2e

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/mime"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// inbound opens an SMTP session from outside.
func (s *site) inbound() *mailclient.SMTP {
	s.t.Helper()
	c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
	s.must(err)
	_, err = c.Hello()
	s.must(err)
	return c
}

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
	if err := os.WriteFile(script, text, 0o644); err != nil { //nolint:gosec // read by another user
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // read by another user
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
		{"own-domain", "From: Ann <" + ann + ">", advanced},
		{"other-tld", "From: Ann <ann@example.com>", advanced},
		{"confusables", "From: =?utf-8?b?0JBubiDQkHJjaGVy?= <pat@partner.example>", advanced},
	} {
		if got := mark(c.subject, c.header); got != c.want {
			t.Errorf("%s: %q", c.subject, got)
		}
	}
	conn, r := s.submit(outside, bob, s.passwords[bob])
	s.want("auth", r, "235 ")
	s.want("from a colleague", s.send(conn, bob, ann, "From: "+bob+"\nSubject: inside\n\nHello\n"), "250 ")
	if m := s.received(ann, "inside"); strings.Contains(m, "X-Drawbridge-External") {
		t.Errorf("mail of a colleague is marked: %s", m)
	}

	s.command("mail-rule", "set", "example.org", "outside", "--how", "header", "--how", "subject", "--how", "banner", "--warning-text", "en=From outside: {name}", "--warning-text", "zh=外部邮件")
	if got := mark("[EXT] tagged", "From: Pat Doe <pat@partner.example>"); got != general {
		t.Errorf("subject and banner: %q", got)
	}
	if m := s.received(ann, "[EXT] tagged"); !strings.Contains(m, "From outside: Pat Doe") {
		t.Errorf("no banner: %s", m)
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
		message, err := os.ReadFile(f) //nolint:gosec // testdata
		s.must(err)
		if strings.HasPrefix(name, "no-body") || bytes.Contains(message, []byte{0}) {
			continue // not what SMTP carries
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
	s.eventually(fmt.Sprint(len(want), " messages of the corpus"), func() bool {
		messages, err := s.Inbox(ann)
		s.must(err)
		n := 0
		for _, m := range messages {
			if strings.Contains(m, "\nX-Corpus: ") {
				n++
			}
		}
		return n == len(want)
	})
	messages, err := s.Inbox(ann)
	s.must(err)
	for _, m := range messages {
		_, name, ok := strings.Cut(m, "\nX-Corpus: ")
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, "\n")
		_, body, _ := strings.Cut(m, "\n\n")
		if body != string(want[name]) {
			t.Errorf("%s arrived as\n%q\ninstead of\n%q", name, body, want[name])
		}
	}
}
