package e2e

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// wire is an SMTP session of a client that does not wait for answers.
type wire struct {
	net.Conn
	s *site
	r *bufio.Reader
}

func (s *site) wire() *wire {
	s.t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(outside)}}
	c, err := d.DialContext(s.ctx, "tcp", s.SMTP())
	s.must(err)
	s.must(c.SetDeadline(time.Now().Add(2 * time.Minute)))
	s.t.Cleanup(func() { _ = c.Close() })
	w := &wire{c, s, bufio.NewReader(c)}
	w.expect("220 ")
	w.say("EHLO client.example")
	w.expect("250 ")
	return w
}

func (w *wire) say(lines ...string) {
	w.s.t.Helper()
	_, err := w.Write([]byte(strings.Join(lines, "\r\n") + "\r\n"))
	w.s.must(err)
}

// expect reads one reply.
func (w *wire) expect(want string) {
	w.s.t.Helper()
	for {
		line, err := w.r.ReadString('\n')
		w.s.must(err)
		if len(line) > 3 && line[3] == '-' {
			continue
		}
		if !strings.HasPrefix(line, want) {
			w.s.t.Fatalf("%q, want %q", line, want)
		}
		return
	}
}

// Messages with as many recipients as Drawbridge remembers, in chunks, in UTF-8, and cut off, by rules
// that look at all of them.
func TestOddMessages(t *testing.T) {
	t.Parallel()
	const most = 10_000
	s := start(t, trialstack.Options{MainCF: "smtpd_recipient_limit = 20000\nsmtputf8_enable = yes\nsmtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000\n"})
	s.domain(nil)
	s.api("POST", "/v1/domains/example.org/mail-rules", object{
		"id": "burn", "name": "burn", "kind": "filter", "scope": object{"all": true}, "direction": "received",
		"match": object{"text": []string{"燒毀"}}, "action": object{"do": "delete"},
	})
	s.command("group", "set", "team@example.org", "--member", ann)
	const text = "From: pat@partner.example\r\nContent-Type: text/plain; charset=utf-8\r\nSubject: %s\r\nMessage-ID: <%[1]s@partner.example>\r\n\r\n%s\r\n"

	w := s.wire()
	w.say("MAIL FROM:<pat@partner.example>")
	w.expect("250 ")
	go func() {
		var b strings.Builder
		for i := range most + 1 {
			fmt.Fprintf(&b, "RCPT TO:<bob+%d@example.org>\r\n", i)
		}
		_, _ = w.Write([]byte(b.String()))
	}()
	for range most {
		w.expect("250 ")
	}
	w.expect("450 4.7.1 <bob+10000@example.org>: Recipient address rejected: The message has too many recipients")
	w.say("DATA")
	w.expect("354 ")
	w.say(fmt.Sprintf(text, "many", "燒毀"), ".")
	w.expect("250 ")
	if rec := s.messageRecord("account=" + bob); rec["recipients"] != float64(most) {
		t.Errorf("record: %v", rec)
	}

	chunks := func(subject, body string) {
		t.Helper()
		message := fmt.Sprintf(text, subject, body)
		w.say("MAIL FROM:<pat@partner.example> BODY=8BITMIME", "RCPT TO:<"+ann+">")
		w.expect("250 ")
		w.expect("250 ")
		for _, part := range []string{message[:7], message[7:90], message[90:]} {
			_, err := fmt.Fprintf(w, "BDAT %d\r\n%s", len(part), part)
			s.must(err)
			w.expect("250 ")
		}
		w.say("BDAT 0 LAST")
		w.expect("250 ")
	}
	chunks("chunks", "x")
	chunks("burnt chunks", "燒"+"毀")

	w.say("MAIL FROM:<pät@partner.example> SMTPUTF8", "RCPT TO:<"+ann+">", "DATA")
	w.expect("250 ")
	w.expect("250 ")
	w.expect("354 ")
	w.say(fmt.Sprintf(text, "utf8", "燒毀"), ".")
	w.expect("250 ")
	if rec := s.messageRecord("account=" + ann + "&message_id=%3Cutf8@partner.example%3E"); rec["rule"] != "burn" || rec["sender"] != "pät@partner.example" {
		t.Errorf("record: %v", rec)
	}

	// What is held, or sent apart, goes on as it came: in UTF-8, after chunks.
	s.rule(object{"name": "dave's", "kind": "audit", "scope": object{"members": []string{dave}}, "direction": "received", "action": object{"approvers": []string{carol}}})
	s.rule(object{
		"name": "bob's", "kind": "filter", "scope": object{"members": []string{bob}}, "direction": "received",
		"match": object{"subject": []string{"kept"}}, "action": object{"do": "spam"},
	})
	for _, from := range []string{"pat@partner.example", "gr\u00fcn@partner.example"} {
		w := s.wire() // of the present rules
		subject := fmt.Sprint("kept", len(from))
		w.say("MAIL FROM:<"+from+"> SMTPUTF8 BODY=8BITMIME", "RCPT TO:<"+ann+">", "RCPT TO:<"+bob+">", "RCPT TO:<"+dave+">")
		for range 4 {
			w.expect("250 ")
		}
		message := fmt.Sprintf(text, subject, "gr\u00fcn\r\n.\r\n..dot \x80")
		for _, part := range []string{message[:100], message[100:]} {
			_, err := fmt.Fprintf(w, "BDAT %d\r\n%s", len(part), part)
			s.must(err)
			w.expect("250 ")
		}
		w.say("BDAT 0 LAST")
		w.expect("250 ")
		s.api("POST", "/v1/held/"+s.held(subject)["id"].(string)+"/approve", nil)
		s.noneHeld()
		if from == "pat@partner.example" { // Dovecot takes no address in UTF-8
			for _, account := range []string{ann, bob, dave} {
				if m := s.received(account, subject); !strings.HasSuffix(m, "\n\ngr\u00fcn\n.\n..dot \x80\n") {
					t.Errorf("%s has %q", account, m)
				}
			}
		}
		s.eventually("Postfix has three messages of "+from, func() bool {
			log, err := os.ReadFile(s.Postfix.LogPath)
			s.must(err)
			return strings.Count(string(log), ": from=<"+from+">, size=") >= 3
		})
	}

	for _, end := range []string{"", "BDAT"} { // the client hangs up
		cut := s.wire()
		cut.say("MAIL FROM:<pat@partner.example>", "RCPT TO:<"+ann+">")
		cut.expect("250 ")
		cut.expect("250 ")
		if end == "" {
			cut.say("DATA")
			cut.expect("354 ")
			cut.say(fmt.Sprintf(text, "cut off", strings.Repeat("x\r\n", 100_000)))
		} else {
			cut.say("BDAT 1000000", fmt.Sprintf(text, "cut off", "x"))
		}
		s.must(cut.Close())
	}
	chunks("after that", "x")
	s.received(ann, "chunks")
	s.received(ann, "after that")
	if n := s.count(ann, "burnt chunks") + s.count(ann, "cut off") + s.count(ann, "utf8") + s.count(bob, "many"); n != 0 {
		t.Errorf("%d messages should not have been delivered", n)
	}
}
