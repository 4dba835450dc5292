package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/drawbridge/drawbridge/internal/mailclient"
)

// subjectField is the Subject field of a header, with its folded lines.
var subjectField = regexp.MustCompile(`(?mi)^Subject[ \t]*:.*\n(?:[ \t].*\n)*`)

// withoutSubject removes the first Subject field.
func withoutSubject(message string) string {
	head, body, found := strings.Cut(message, "\n\n")
	head += "\n"
	if at := subjectField.FindStringIndex(head); at != nil {
		head = head[:at[0]] + head[at[1]:]
	}
	if !found {
		return head
	}
	return head + "\n" + body
}

// corpus sends every message of the corpus through rules of every kind at once, received and sent. What
// arrives is what arrives without a rule, byte for byte, below what Postfix and Drawbridge put above it;
// but for the Subject where it is tagged. The alias crew leads to ann.
func (s *site) corpus() {
	s.t.Helper()
	files, err := filepath.Glob("../mime/testdata/corpus/*.eml")
	s.must(err)
	messages := map[string]string{}
	for _, f := range files {
		message, err := os.ReadFile(f)
		s.must(err)
		name := strings.TrimSuffix(filepath.Base(f), ".eml")
		if name == "no-body-at-all" || name == "bad-header-line" || bytes.Contains(message, []byte{0}) {
			continue // Postfix makes something else of it
		}
		messages[name] = strings.TrimSuffix(strings.ReplaceAll(string(message), "\r\n", "\n"), "\n") + "\n"
	}
	send := func(c *mailclient.SMTP, kind, from string, to ...string) {
		s.t.Helper()
		for name, message := range messages {
			for _, reply := range s.answers(c, from, to...) {
				s.want(kind+name, reply, "250 ")
			}
			reply, err := c.Data("X-Corpus: " + kind + name + "\n" + message)
			s.must(err)
			s.want(kind+name, reply, "250 ")
		}
	}
	arrived := func(what, kind string, list func() []string) map[string]string {
		s.t.Helper()
		var found map[string]string
		s.eventually(what, func() bool {
			found = map[string]string{}
			for _, m := range list() {
				if _, rest, ok := strings.Cut(m, "\nX-Corpus: "+kind); ok {
					name, text, _ := strings.Cut(rest, "\n")
					found[name] = text
				}
			}
			return len(found) == len(messages)
		})
		return found
	}
	inbox := func(account string) func() []string {
		return func() []string {
			list, err := s.Inbox(account)
			s.must(err)
			return list
		}
	}
	bare := messages["plain-no-mime"] // the site's Postfix adds what mail from its own machine lacks
	messages["plain-no-mime"] = "Date: Sun, 29 Nov 2026 00:00:00 +0000\nMessage-ID: <bare@partner.example>\n" + bare
	send(s.inbound(), "none/", pat, ann)
	plain := arrived("the corpus without rules", "none/", inbox(ann))

	rule := func(kind string, scope object, more object) {
		body := object{"id": "corpus-" + kind, "name": kind, "kind": kind, "scope": scope}
		for k, v := range more {
			body[k] = v
		}
		s.api("PUT", "/v1/domains/example.org/mail-rules/corpus-"+kind, body)
	}
	all := object{"all": true}
	members := func(who string) object { return object{"members": []string{who}} }
	rule("internal_only", all, object{"except_domains": []string{"partner.example", "example.net"}})
	rule("limit", all, object{"action": object{"recipients_per_day": 100_000}})
	rule("forwarding", all, object{"action": object{"allow": "none"}})
	rule("filter", members(bob), object{"direction": "received", "match": object{"headers": []object{{"name": "X-Corpus", "regex": "^received/"}}}, "action": object{"do": "spam"}})
	rule("audit", members(dave), object{"direction": "received", "action": object{"approvers": []string{bob}, "expires": "1s", "then": "release"}})
	rule("monitor", members(bob), object{"action": object{"to": []string{carol}}})
	rule("warning", members(bob), object{"action": object{"how": []string{"header", "subject"}}})
	s.api("PUT", "/v1/groups/crew@example.org", object{"members": []string{ann}, "senders": []string{pat}, "who_may_send": "listed"})
	s.api("PATCH", "/v1/domains/example.org", object{"trace_header": true, "sender_check": "envelope"})

	send(s.inbound(), "received/", pat, bob, dave, "crew@example.org")
	c, r := s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
	send(c, "sent/", ann, eve)
	for _, where := range []struct {
		what, kind string
		list       func() []string
		field      string // of ours, in each
		tagged     bool
	}{
		{"spam folder", "received/", func() []string { return s.junk(bob) }, "X-Drawbridge-Folder: spam\n", true},
		{"monitor", "received/", inbox(carol), "X-Drawbridge-Copy: ", false},
		{"group", "received/", inbox(ann), "", false}, // neither filed nor marked, as others are
		{"approved", "received/", inbox(dave), "", false},
		{"sent", "sent/", inbox(eve), "X-Drawbridge-Client: ", false},
	} {
		for name, got := range arrived(where.what, where.kind, where.list) {
			want := plain[name]
			if where.tagged {
				got, want = withoutSubject(got), withoutSubject(want)
			}
			if got != want {
				s.t.Errorf("%s: %s arrived as\n%q\ninstead of\n%q", where.what, name, got, want)
			}
		}
		for _, m := range where.list() {
			if !strings.Contains(m, "\nX-Corpus: "+where.kind) {
				continue
			}
			if !strings.Contains(m, "\n"+where.field) {
				s.t.Errorf("%s: a message lacks %s: %.1000s", where.what, where.field, m)
			}
			if head, _, _ := strings.Cut(m, "\nX-Corpus: "); where.field == "" && strings.Contains(head, "X-Drawbridge-") {
				s.t.Errorf("%s: a message has a field of ours: %s", where.what, head)
			}
		}
	}
}
