package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// queue returns the subjects of the messages in Postfix' queue, in alphabetical order.
func (s *site) queue() []string {
	s.t.Helper()
	out, err := exec.CommandContext(s.ctx, "/usr/sbin/postqueue", "-c", s.PostfixDir(), "-j").Output()
	s.must(err)
	subjects := []string{}
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var m struct {
			ID string `json:"queue_id"`
		}
		s.must(json.Unmarshal(lines.Bytes(), &m))
		text, err := exec.CommandContext(s.ctx, "/usr/sbin/postcat", "-c", s.PostfixDir(), "-qh", m.ID).Output()
		if err != nil {
			continue // it has left the queue meanwhile
		}
		for line := range strings.Lines(string(text)) {
			if subject, ok := strings.CutPrefix(line, "Subject: "); ok {
				subjects = append(subjects, strings.TrimSpace(subject))
			}
		}
	}
	slices.Sort(subjects)
	return subjects
}

// A site of two machines, each with its Postfix and its daemon, and one Dovecot: each daemon searches the mailboxes
// and its own Postfix' queue, and names the other. The command, repeated at the other, leaves nothing.
func TestWithdrawOnTwoMachines(t *testing.T) {
	t.Parallel()
	options := func(node string) trialstack.Options {
		return trialstack.Options{
			Outgoing: []string{"example.com"}, MainCF: "defer_transports = drawbridge-outgoing\n", Settings: map[string]any{"mail.node": node},
		}
	}
	one, two := options("mx1"), options("mx2")
	one.SharedRedis = true
	s := start(t, one)
	two.StoreOf = s.Stack
	two.MainCF += "virtual_transport = lmtp:unix:" + filepath.Join(s.Dir, "postfix", "queue", "private", "dovecot-lmtp") + "\n"
	two.Settings["sessions.doveadm"] = "unix:" + filepath.Join(s.Dir, "dovecot", "run", "doveadm-server")
	other := start(t, two)
	s.domain(nil)
	stolen, secret := s.device(carol, "stolen")
	_, own := s.device(carol, "own")
	s.eventually("the second machine knows the passwords", func() bool {
		_, list := other.call(0, "GET", "/v1/accounts/"+carol+"/secure-passwords", nil)
		items, _ := list["items"].([]any)
		return len(items) == 2
	})
	send := func(at *site, password, to, subject string) {
		t.Helper()
		from := office
		if password == own { // elsewhere: or it would not be known which of them is used at two machines at once
			from = outside
		}
		c, reply := at.submit(from, carol, password)
		at.want("submission", reply, "235 ")
		at.want(subject, at.send(c, carol, to, "From: "+carol+"\r\nTo: "+to+"\r\nSubject: "+subject+"\r\n\r\nx\r\n"), "250 ")
		_ = c.Close()
	}
	for name, at := range map[string]*site{"one": s, "two": other} {
		send(at, secret, ann, "stolen inside "+name)
		send(at, secret, "zoe@example.com", "stolen outside "+name)
		send(at, own, "zoe@example.com", "kept outside "+name)
		s.received(ann, "stolen inside "+name)
	}
	queued := func(at *site, want ...string) {
		t.Helper()
		if got := at.queue(); !slices.Equal(got, want) {
			t.Errorf("in the queue: %q, want %q", got, want)
		}
	}
	queued(s, "kept outside one", "stolen outside one")
	queued(other, "kept outside two", "stolen outside two")

	var preview object
	defer func() {
		if t.Failed() {
			t.Logf("the preview: %v", preview)
		}
	}()
	const path = "/v1/domains/example.org/withdraw"
	what := object{"credential_id": stolen, "since": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}
	for name, at := range map[string]*site{"mx1": s, "mx2": other} {
		away := map[string]string{"mx1": "mx2", "mx2": "mx1"}[name]
		at.eventually("all four are found from "+name, func() bool {
			preview = at.api("POST", path+"?dry_run=true", what)
			return len(preview["messages"].([]any)) == 4 && preview["delivered"] == 2.0
		})
		if preview["node"] != name || preview["queued"] != 1.0 || preview["left"] != 3.0 || fmt.Sprint(preview["elsewhere"]) != "["+away+"]" || preview["problems"] != nil {
			t.Errorf("from %s: %v", name, preview)
		}
		for _, item := range preview["messages"].([]any) {
			if m := item.(object); m["queued"] == true && m["node"] != name {
				t.Errorf("from %s: %v", name, m)
			}
		}
		if got := fmt.Sprint(preview["warnings"]); !strings.Contains(got, "Node "+away+" took 2 of the messages") || !strings.Contains(got, "other_queue") {
			t.Errorf("warnings from %s: %s", name, got)
		}
	}

	if status, _, notes := s.status("withdraw", "example.org", "--credential", stolen, "--since", "1h"); status != 0 || !strings.Contains(notes, "warning: Node mx2 took 2 of the messages. Its queue was not searched: repeat this at its daemon.") {
		t.Errorf("the command: %d %s", status, notes)
	}
	queued(s, "kept outside one")
	queued(other, "kept outside two", "stolen outside two")
	if n := s.count(ann, "stolen inside one") + s.count(ann, "stolen inside two"); n != 0 {
		t.Errorf("%d messages are left in ann's mailbox", n)
	}
	if done := other.api("POST", path, what); done["queued"] != 1.0 || done["delivered"] != 0.0 || done["removed"] != 1.0 || done["left"] != 0.0 {
		t.Errorf("at the other machine: %v", done)
	}
	queued(s, "kept outside one")
	queued(other, "kept outside two")

	if _, _, notes := s.status("withdraw", "example.org", "--credential", "0123456789abcdef", "--since", "1h"); !strings.Contains(notes, "No account of example.org has the secure password 0123456789abcdef now.") {
		t.Errorf("of a password that nobody has: %s", notes)
	}
}

// A message is left alone if another password of the account, used at the same address meanwhile, may have sent
// it, and is withdrawn on demand.
func TestWithdrawUncertain(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	stolen, secret := s.device(carol, "stolen")
	_, own := s.device(carol, "own")
	c, err := mailclient.Client{From: office}.SMTP(s.ctx, s.Submission())
	s.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.Encrypt()
	s.must(err)
	s.want("the owner's, while the connection is open", s.smtp(office, carol, own), "235 ")
	reply, err := c.Authenticate(carol, secret)
	s.must(err)
	s.want("the stolen one", reply, "235 ")
	s.want("sending", s.send(c, carol, ann, "From: "+carol+"\r\nTo: "+ann+"\r\nSubject: uncertain\r\n\r\nx\r\n"), "250 ")
	s.received(ann, "uncertain")
	s.eventually("the message is recorded", func() bool {
		return len(s.api("GET", "/v1/domains/example.org/messages?credential="+stolen, nil)["items"].([]any)) == 1
	})
	status, out, notes := s.status("withdraw", "example.org", "--credential", stolen, "--since", "1h")
	if status != 0 || !strings.Contains(notes, "warning: Messages that were left alone: 1") || s.count(ann, "uncertain") != 1 {
		t.Errorf("the command: %d %s%s", status, out, notes)
	}
	status, out, notes = s.status("withdraw", "example.org", "--credential", stolen, "--since", "1h", "--uncertain")
	if status != 0 || notes != "" || s.count(ann, "uncertain") != 0 {
		t.Errorf("on demand: %d %s%s", status, out, notes)
	}
}
