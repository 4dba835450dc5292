package e2e

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// threads returns the numbers of the messages in an account's inbox, by thread, as Dovecot threads them.
func (s *site) threads(account, algorithm string) [][]int {
	s.t.Helper()
	c, err := mailclient.Client{From: outside}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	defer func() { _ = c.Close() }()
	var untagged []string
	for _, command := range []string{"LOGIN " + account + " " + s.passwords[account], "SELECT INBOX", "THREAD " + algorithm + " UTF-8 ALL"} {
		r, err := c.Command(command)
		s.must(err)
		s.want(command, r.Status, "OK")
		untagged = r.Untagged
	}
	var list [][]int
	depth, number := 0, regexp.MustCompile(`[0-9]+|[()]`)
	for _, line := range untagged {
		line, ok := strings.CutPrefix(line, "THREAD ")
		if !ok {
			continue
		}
		for _, word := range number.FindAllString(line, -1) {
			switch word {
			case "(":
				if depth++; depth == 1 {
					list = append(list, nil)
				}
			case ")":
				depth--
			default:
				n, err := strconv.Atoi(word)
				s.must(err)
				list[len(list)-1] = append(list[len(list)-1], n)
			}
		}
	}
	for _, thread := range list {
		slices.Sort(thread)
	}
	slices.SortFunc(list, slices.Compare)
	return list
}

// A conversation with somebody outside is one thread, by its references and by its subjects alone, though
// what comes from outside is tagged and replies are not (M8).
func TestTagsKeepThreads(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("PUT", "/v1/domains/example.org/mail-rules/outside", object{
		"name": "Outside", "kind": "warning", "scope": object{"all": true}, "action": object{"how": []string{"header", "subject", "banner"}, "texts": object{"en": "From outside"}},
	})
	n := 0
	send := func(from, subject, arrives, references string) {
		t.Helper()
		n++
		message := fmt.Sprintf("From: <%s>\nTo: %s, %s, %s\nDate: Sun, 29 Nov 2026 10:%02d:00 +0000\nMessage-ID: <%[5]d@thread.example>\n", from, ann, bob, eve, n)
		if references != "" {
			message += "In-Reply-To: " + references[strings.LastIndexByte(references, '<'):] + "\nReferences: " + references + "\n"
		}
		message += "Subject: " + subject + "\n\nHello\n"
		commands := []string{"MAIL FROM:<" + from + ">", "RCPT TO:<" + bob + ">", "RCPT TO:<" + eve + ">"}
		conn := s.inbound()
		if from != eve {
			var r string
			conn, r = s.submit(outside, from, s.passwords[from])
			s.want("auth", r, "235 ")
		}
		for _, command := range commands {
			r, err := conn.Command(command)
			s.must(err)
			s.want(command, r, "250 ")
		}
		r, err := conn.Data(message)
		s.must(err)
		s.want(subject, r, "250 ")
		s.received(bob, arrives)
		if from != eve {
			s.received(eve, arrives)
		}
	}
	encoded := "=?utf-8?B?W+WklumDqF0=?=" // [外部]
	send(eve, "Budget", "[EXT] Budget", "")
	send(eve, "Figures", "[EXT] Figures", "")
	send(ann, "Re: [EXT] Figures", "Re: Figures", "<2@thread.example>")
	send(eve, "Re: Figures", "[EXT] Re: Figures", "<2@thread.example> <3@thread.example>")
	send(bob, "AW: [EXT] Re: Figures", "AW: Re: Figures", "<4@thread.example>")
	send(eve, "Re: AW: Re: Figures", "[EXT] Re: AW: Re: Figures", "<5@thread.example>")
	s.api("PATCH", "/v1/domains/example.org/mail-rules/outside", object{"action": object{"tag": "[外部]"}})
	send(eve, "Re: Figures", encoded+" Re: Figures", "<3@thread.example>")
	send(ann, "Re: "+encoded+" Re: Figures", "Re: Re: Figures", "<7@thread.example>")
	s.api("PATCH", "/v1/domains/example.org/mail-rules/outside", object{"action": object{"tag": "EXTERN"}})
	send(eve, "Re: Figures", "EXTERN Re: Figures", "<8@thread.example>") // without brackets it is part of the subject

	if got, want := fmt.Sprint(s.threads(bob, "REFERENCES")), "[[1] [2 3 4 5 6 7 8 9]]"; got != want {
		t.Errorf("by references: %s, not %s", got, want)
	}
	// "AW:" is no reply to programs that know the standard's words only: the thread that it makes is its own
	// with and without tags.
	if got, want := fmt.Sprint(s.threads(bob, "ORDEREDSUBJECT")), "[[1] [2 3 4 7 8] [5 6] [9]]"; got != want {
		t.Errorf("by subjects: %s, not %s", got, want)
	}
}
