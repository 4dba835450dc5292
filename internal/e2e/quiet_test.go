package e2e

import (
	"fmt"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// With notify.abnormal_logins = "report", a login from elsewhere is marked and the webhook is called, and no mail is
// sent; with "off", logins are not compared at all.
func TestQuietAbnormalLogins(t *testing.T) {
	t.Parallel()
	for setting, want := range map[string]string{"report": "[new_network]", "off": "[]"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			h := newHook(t)
			s := start(t, trialstack.Options{Settings: map[string]any{
				"notify.abnormal_logins": setting, "notify.webhook_url": h.URL, "notify.webhook_key_file": h.keyFile,
			}})
			s.domain(nil)
			login := func(ip, want string) {
				t.Helper()
				s.want("bob from "+ip, s.imap(ip, bob, s.passwords[bob]), "OK ")
				r := s.record("account="+bob+"&ip="+ip, func(r object) bool { return r["outcome"] == "allow" })
				if fmt.Sprint(r["abnormal"]) != want {
					t.Errorf("from %s: %v, want %s", ip, r["abnormal"], want)
				}
			}
			login(office, "[]")
			login("127.0.8.8", want)
			if setting == "report" {
				if n := h.told(s.ctx, t, "abnormal_login"); n["account"] != bob {
					t.Errorf("the hook received %v", n)
				}
			}
			// What is sent later arrives, and nothing else has.
			c, reply := s.submit(office, ann, s.passwords[ann])
			s.want("submission", reply, "235 ")
			s.want("a message", s.send(c, ann, bob, "From: "+ann+"\r\nTo: "+bob+"\r\nSubject: later\r\n\r\nx\r\n"), "250 ")
			s.received(bob, "later")
			messages, err := s.Inbox(bob)
			s.must(err)
			if strings.Contains(strings.Join(messages, ""), "New login") {
				t.Errorf("bob was told by mail:\n%s", strings.Join(messages, "\n"))
			}
			select {
			case n := <-h.notices:
				t.Errorf("the hook received %v", n)
			default:
			}
		})
	}
}
