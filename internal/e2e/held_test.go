package e2e

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

const (
	carol = "carol@example.org"
	dave  = "dave@example.org"
	eve   = "eve@example.net" // of a domain that is not managed
)

// count returns how many messages with a subject an account has.
func (s *site) count(account, subject string) (n int) {
	s.t.Helper()
	messages, err := s.Inbox(account)
	s.must(err)
	for _, m := range messages {
		if strings.Contains(m, "\nSubject: "+subject+"\n") {
			n++
		}
	}
	return n
}

// held waits for a message with a subject to be listed.
func (s *site) held(subject string) object {
	s.t.Helper()
	var found object
	s.eventually(subject+" is held", func() bool {
		for _, item := range s.api("GET", "/v1/domains/example.org/held", nil)["items"].([]any) {
			if h := item.(object); h["subject"] == subject {
				found = h
				return true
			}
		}
		return false
	})
	return found
}

func (s *site) noneHeld() {
	s.t.Helper()
	s.eventually("nothing is held", func() bool { return len(s.api("GET", "/v1/domains/example.org/held", nil)["items"].([]any)) == 0 })
}

// asAnn sends a message from ann's account, with commands of its own for the envelope.
func (s *site) asAnn(message string, commands ...string) {
	s.t.Helper()
	c, r := s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
	for _, line := range commands {
		r, err := c.Command(line)
		s.must(err)
		s.want(line, r, "250 ")
	}
	r, err := c.Data(message)
	s.must(err)
	s.want("the message", r, "250 ")
	_ = c.Close()
}

func (s *site) rule(body object) string {
	s.t.Helper()
	return s.api("POST", "/v1/domains/example.org/mail-rules", body)["id"].(string)
}

// M3: what a rule wants approved waits on the disk, and goes on once as it was sent.
func TestHeldMessages(t *testing.T) {
	s := start(t, trialstack.Options{
		Daemons: 2, SharedRedis: true, Settings: object{"notify.link_url": "https://mail.example.org", "mail.hold_quota": 1},
		MainCF: "virtual_alias_maps = inline:{ { staff@example.org=bob@example.org, dave@example.org } }\n",
	})
	s.domain(object{"trace_header": true})
	s.api("PUT", "/v1/accounts/"+ann, object{})
	s.rule(object{
		"id": "contracts", "name": "Contracts leave with approval", "kind": "audit", "scope": object{"all": true}, "direction": "sent",
		"match":  object{"recipient_domains": []string{"example.net"}},
		"action": object{"approvers": []string{carol}, "need": "any", "expires": "72h", "then": "reject"},
	})
	text := "From: " + ann + "\nTo: " + eve + "\nSubject: %s\nMessage-ID: <%[1]s@client>\nX-Odd:no space\n folded\n\n.dot\nw\xfcrde \n"
	t.Run("approve", func(t *testing.T) {
		s := s.in(t)
		s.asAnn(fmt.Sprintf(text, "offer"), "MAIL FROM:<"+ann+"> BODY=8BITMIME RET=HDRS ENVID=envelope1",
			"RCPT TO:<"+bob+">", "RCPT TO:<"+eve+"> NOTIFY=SUCCESS ORCPT=rfc822;other@example.net")
		h := s.held("offer")
		id := h["id"].(string)
		s.received(bob, "offer") // needs no approval
		if h["from"] != ann || h["account"] != ann || fmt.Sprint(h["recipients"]) != "["+eve+"]" || h["rule"] != "contracts" || h["state"] != "held" || h["node_away"] == true {
			t.Errorf("%v", h)
		}
		request := s.received(carol, "Approval needed: offer")
		if !strings.Contains(request, "w\xfcrde") {
			t.Errorf("the request lacks the message: %s", request)
		}
		if out, err := s.Daemons[0].Command(s.ctx, "held", "approve", id).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		m := s.received(eve, "offer")
		for _, want := range []string{"\nX-Odd:no space\n folded\n", "\n\n.dot\nw\xfcrde \n", "(Drawbridge)"} {
			if !strings.Contains(m, want) {
				t.Errorf("lacks %q: %q", want, m)
			}
		}
		if strings.Count(m, "X-Drawbridge") != 1 || !strings.Contains(m, "\nX-Drawbridge-Client: ") || !strings.Contains(m, "with ESMTPA id ") {
			t.Errorf("%q", m)
		}
		report := s.received(ann, "Successful Mail Delivery Report") // DSN options survive
		for _, want := range []string{"envelope1", "rfc822;other@example.net", "text/rfc822-headers"} {
			if !strings.Contains(report, want) {
				t.Errorf("the delivery report lacks %q: %s", want, report)
			}
		}
		s.noneHeld()
		s.refused(404, "not_found", "GET", "/v1/held/"+id, nil)
		if n := s.count(eve, "offer") + s.count(bob, "offer"); n != 2 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("reject by a link", func(t *testing.T) {
		s := s.in(t)
		s.asAnn(fmt.Sprintf(text, "tender"), "MAIL FROM:<"+ann+">", "RCPT TO:<"+eve+">")
		id := s.held("tender")["id"].(string)
		request := strings.ReplaceAll(strings.ReplaceAll(s.received(carol, "Approval needed: tender"), "=\n", ""), "=3D", "=")
		link := regexp.MustCompile(`https://mail\.example\.org(/decide/\S+)`).FindStringSubmatch(request)
		if link == nil {
			t.Fatal(request)
		}
		page := func(method string, form url.Values) (int, string) {
			req, err := http.NewRequestWithContext(s.ctx, method, "http://"+s.Daemons[0].APIAddr+link[1], strings.NewReader(form.Encode()))
			s.must(err)
			req.Host = "mail.example.org"
			req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			resp, err := http.DefaultClient.Do(req)
			s.must(err)
			defer func() { _ = resp.Body.Close() }()
			b, err := io.ReadAll(resp.Body)
			s.must(err)
			return resp.StatusCode, string(b)
		}
		if status, body := page("GET", nil); status != 200 || !strings.Contains(body, "tender") || s.held("tender")["state"] != "held" {
			t.Fatalf("%d %s", status, body)
		}
		if status, body := page("POST", url.Values{"decision": {"reject"}, "text": {"Not like this."}}); status != 200 || !strings.Contains(body, "will not be sent") {
			t.Fatalf("%d %s", status, body)
		}
		if status, _ := page("POST", url.Values{"decision": {"approve"}}); status != 409 && status != 404 {
			t.Errorf("a second decision: %d", status)
		}
		if m := s.received(ann, "Not approved: tender"); !strings.Contains(m, "Not like this.") {
			t.Error(m)
		}
		s.noneHeld()
		if n := s.count(eve, "tender"); n > 0 {
			t.Errorf("%d messages were sent", n)
		}
		entries := s.api("GET", "/v1/audit?domain=example.org", nil)["items"].([]any)
		if !strings.Contains(fmt.Sprint(entries), "held.reject") || !strings.Contains(fmt.Sprint(entries), carol) || !strings.Contains(fmt.Sprint(entries), id) {
			t.Errorf("the audit lacks the decision: %v", entries)
		}
	})
	t.Run("the sender is the only approver", func(t *testing.T) {
		s := s.in(t)
		c, r := s.submit(outside, carol, s.passwords[carol])
		s.want("auth", r, "235 ")
		s.want("send", s.send(c, carol, eve, "From: "+carol+"\nSubject: own\n\nx\n"), "250 ")
		s.received(eve, "own")
	})
	t.Run("who may see and decide", func(t *testing.T) {
		s := s.in(t)
		s.api("POST", "/v1/domains", object{"name": "other.example"})
		s.asAnn(fmt.Sprintf(text, "secret"), "MAIL FROM:<"+ann+">", "RCPT TO:<"+eve+">")
		id := s.held("secret")["id"].(string)
		key := func(body object) *site {
			body["name"] = "k"
			return s.with(s.api("POST", "/v1/keys", body)["key"].(string))
		}
		key(object{"role": "self", "account": ann}).refused(403, "forbidden", "GET", "/v1/domains/example.org/held", nil)
		other := key(object{"role": "domain", "domain": "other.example"})
		other.refused(404, "not_found", "GET", "/v1/held/"+id, nil)
		other.refused(404, "not_found", "POST", "/v1/held/"+id+"/approve", nil)
		key(object{"role": "read"}).refused(403, "forbidden", "POST", "/v1/held/"+id+"/approve", nil)
		own := key(object{"role": "domain", "domain": "example.org"})
		own.api("POST", "/v1/held/"+id+"/reject", object{"text": ""})
		s.noneHeld()
	})
	t.Run("content", func(t *testing.T) {
		s := s.in(t)
		s.rule(object{
			"id": "code", "name": "Programs", "kind": "audit", "scope": object{"all": true}, "direction": "received",
			"match": object{"attachments": object{"names": []string{"*.exe"}}}, "action": object{"approvers": []string{dave}},
		})
		s.rule(object{
			"id": "words", "name": "Words", "kind": "audit", "scope": object{"members": []string{bob}}, "direction": "received",
			"match": object{"text": []string{"kündigung"}}, "action": object{"approvers": []string{dave}, "expires": "1s", "then": "release"},
		})
		var archive bytes.Buffer
		z := zip.NewWriter(&archive)
		_, err := z.Create("tools/setup.EXE")
		s.must(err)
		s.must(z.Close())
		inbound := func(to, message string) {
			c, err := mailclient.Client{From: outside}.SMTP(s.ctx, s.SMTP())
			s.must(err)
			defer func() { _ = c.Close() }()
			_, err = c.Hello()
			s.must(err)
			s.want("inbound", s.send(c, "someone@elsewhere.example", to, message), "250 ")
		}
		inbound(ann, "From: someone@elsewhere.example\nSubject: zipped\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n"+
			"Content-Type: application/zip; name=tools.zip\nContent-Transfer-Encoding: base64\n\n"+base64.StdEncoding.EncodeToString(archive.Bytes())+"\n--b--\n")
		id := s.held("zipped")["id"].(string)
		s.api("POST", "/v1/held/"+id+"/reject", object{"text": "No programs."})
		// Names that not all programs read alike.
		for subject, disposition := range map[string]string{
			"dotted": `attachment; filename="setup.exe ."`, "unquoted": "attachment; filename=setup.exe a.txt",
			"wide": `attachment; filename="=?utf-8?B?` + base64.StdEncoding.EncodeToString([]byte("setup．ｅｘｅ")) + `?="`,
		} {
			inbound(ann, "From: someone@elsewhere.example\nSubject: "+subject+"\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n"+
				"Content-Type: application/octet-stream\nContent-Disposition: "+disposition+"\n\nx\n--b--\n")
			s.api("POST", "/v1/held/"+s.held(subject)["id"].(string)+"/reject", object{"text": "No programs."})
		}
		// ISO-8859-1 in base64, and released when nobody decides.
		inbound(bob, "From: someone@elsewhere.example\nSubject: letter\nMIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: base64\n\n"+
			base64.StdEncoding.EncodeToString([]byte("Ihre K\xdcNDIGUNG"))+"\n")
		s.received(bob, "letter")
		s.noneHeld()
		if n := s.count(ann, "zipped"); n > 0 {
			t.Errorf("%d programs", n)
		}
		s.eventually("the files are gone", func() bool {
			left, err := filepath.Glob(filepath.Join(s.Daemons[0].StateDir, "held", "*.eml"))
			return err == nil && len(left) == 0
		})
	})
	t.Run("a group with approval, which Postfix expands", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", "/v1/groups/staff@example.org", object{"members": []string{bob, dave}, "approvers": []string{carol}}) // whose notices name the subject, too
		s.asAnn(fmt.Sprintf(text, "all-hands"), "MAIL FROM:<"+ann+">", "RCPT TO:<staff@example.org>", "RCPT TO:<"+carol+">")
		h := s.held("all-hands")
		if h["rule"] != "staff@example.org" {
			t.Errorf("%v", h)
		}
		s.received(carol, "all-hands")
		if n := s.count(bob, "all-hands") + s.count(dave, "all-hands"); n > 0 {
			t.Errorf("%d messages before approval", n)
		}
		s.api("POST", "/v1/held/"+h["id"].(string)+"/approve", nil)
		s.received(bob, "all-hands")
		s.received(dave, "all-hands")
		s.noneHeld()
	})
	t.Run("two nodes", func(t *testing.T) {
		s := s.in(t)
		s.asAnn(fmt.Sprintf(text, "far"), "MAIL FROM:<"+ann+">", "RCPT TO:<"+eve+">")
		id := s.held("far")["id"].(string)
		s.replicated()
		s.must(s.Daemons[0].Kill()) // the node that has the message is away
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for away := false; !away; { // it counts as away after more than half a minute
			status, h := s.call(1, "GET", "/v1/held/"+id, nil)
			if away = h["node_away"] == true; status != 200 || h["state"] != "held" {
				t.Fatalf("%d %v", status, h)
			}
			select {
			case <-tick.C:
			case <-s.ctx.Done():
				t.Fatal("the node does not count as away")
			}
		}
		if status, answer := s.call(1, "POST", "/v1/held/"+id+"/approve", nil); status != 200 || answer["state"] != "approved" {
			t.Fatalf("%d %v", status, answer)
		}
		if status, answer := s.call(1, "POST", "/v1/held/"+id+"/reject", object{"text": ""}); status != 409 || answer["code"] != "decided" {
			t.Fatalf("%d %v", status, answer)
		}
		if n := s.count(eve, "far"); n > 0 {
			t.Fatal("it was sent")
		}
		s.must(s.Daemons[0].Start(s.ctx))
		s.received(eve, "far")
		s.noneHeld()
	})
	t.Run("no space left by mail.hold_quota", func(t *testing.T) {
		s := s.in(t)
		c, r := s.submit(outside, ann, s.passwords[ann])
		s.want("auth", r, "235 ")
		large := fmt.Sprintf(text, "large") + strings.Repeat(strings.Repeat("x", 70)+"\n", 16<<10)
		s.want("to be held", s.send(c, ann, eve, large), "451 4.3.0 The message cannot be stored now")
		s.want("to nobody who waits for approval", s.send(c, ann, bob, large), "250 ")
		s.noneHeld()
	})
	t.Run("disk full", func(t *testing.T) {
		s := s.in(t)
		dir := filepath.Join(s.Daemons[0].StateDir, "held")
		s.must(os.Rename(dir, dir+".away")) // nothing can be written there
		defer func() { s.must(os.Rename(dir+".away", dir)) }()
		c, r := s.submit(outside, ann, s.passwords[ann])
		s.want("auth", r, "235 ")
		s.want("send", s.send(c, ann, eve, fmt.Sprintf(text, "full")), "451 ")
	})
}

// decide follows the link in a request for approval, and returns the status of the answer.
func (s *site) decide(approver, subject, decision string) int {
	s.t.Helper()
	request := strings.ReplaceAll(strings.ReplaceAll(s.received(approver, "Approval needed: "+subject), "=\n", ""), "=3D", "=")
	link := regexp.MustCompile(`https://mail\.example\.org(/decide/\S+)`).FindStringSubmatch(request)
	if link == nil {
		s.t.Fatal(request)
	}
	req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, "http://"+s.Daemons[0].APIAddr+link[1], strings.NewReader(url.Values{"decision": {decision}}.Encode()))
	s.must(err)
	req.Host = "mail.example.org"
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	s.must(err)
	_ = resp.Body.Close()
	return resp.StatusCode
}

// M3, M5: all approvers decide, those of a department among them; nobody about their own message; and
// approvers of a group write to it without approval only where that is said.
func TestApprovers(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{
		Settings: object{"notify.link_url": "https://mail.example.org"},
		MainCF:   "virtual_alias_maps = inline:{ { board@example.org=bob@example.org } }\n",
	})
	s.domain(nil)
	s.api("PUT", "/v1/domains/example.org/departments/legal", object{})
	s.api("PUT", "/v1/accounts/"+dave, object{"departments": []string{"legal"}})
	s.rule(object{
		"id": "contracts", "name": "Contracts", "kind": "audit", "scope": object{"all": true}, "direction": "sent",
		"match":  object{"recipient_domains": []string{"example.net"}},
		"action": object{"approvers": []string{carol, "department:legal"}, "need": "all"},
	})
	as := func(from, to, subject string) {
		t.Helper()
		c, r := s.submit(outside, from, s.passwords[from])
		s.want("auth", r, "235 ")
		s.want(subject, s.send(c, from, to, "From: "+from+"\nMessage-ID: <"+subject+"@client>\nSubject: "+subject+"\n\nx\n"), "250 ")
	}
	as(ann, eve, "both")
	s.held("both")
	if status := s.decide(dave, "both", "approve"); status != 200 {
		t.Errorf("the first: %d", status)
	}
	if status := s.decide(dave, "both", "approve"); status != 409 {
		t.Errorf("the first, again: %d", status)
	}
	if h := s.held("both"); h["state"] != "held" || s.count(eve, "both") != 0 {
		t.Errorf("one of two approved: %v", h)
	}
	if status := s.decide(carol, "both", "approve"); status != 200 {
		t.Errorf("the second: %d", status)
	}
	s.received(eve, "both")

	as(ann, eve, "rejected")
	s.held("rejected")
	if status := s.decide(carol, "rejected", "approve"); status != 200 {
		t.Errorf("the first: %d", status)
	}
	if status := s.decide(dave, "rejected", "reject"); status != 200 {
		t.Errorf("the second: %d", status)
	}
	s.received(ann, "Not approved: rejected")

	as(dave, eve, "own") // carol alone decides
	if h := s.held("own"); fmt.Sprint(h["approvers"]) != "["+carol+"]" {
		t.Errorf("%v", h)
	}
	if status := s.decide(carol, "own", "approve"); status != 200 {
		t.Errorf("the only one: %d", status)
	}
	s.received(eve, "own")
	s.noneHeld()
	if n := s.count(eve, "rejected") + s.count(dave, "Approval needed: own"); n != 0 {
		t.Errorf("%d messages too many", n)
	}

	s.api("PUT", "/v1/groups/board@example.org", object{"members": []string{carol, bob}, "approvers": []string{carol, dave}})
	as(carol, "board@example.org", "owner") // members and owners need approval as others do
	h := s.held("owner")
	if fmt.Sprint(h["approvers"]) != "["+dave+"]" || s.count(bob, "owner") != 0 {
		t.Errorf("%v", h)
	}
	s.api("POST", "/v1/held/"+h["id"].(string)+"/reject", object{"text": ""})
	s.api("PUT", "/v1/groups/board@example.org", object{"members": []string{carol, bob}, "approvers": []string{carol, dave}, "exempt_approvers": true})
	as(carol, "board@example.org", "exempt")
	s.received(bob, "exempt")
	c := s.inbound() // MAIL FROM makes no approver
	s.want("forged", s.send(c, carol, "board@example.org", "From: "+carol+"\nMessage-ID: <forged@client>\nSubject: forged\n\nx\n"), "250 ")
	s.api("POST", "/v1/held/"+s.held("forged")["id"].(string)+"/reject", object{"text": ""})
	s.noneHeld()
	if n := s.count(bob, "owner") + s.count(bob, "forged") + s.count(carol, "Not approved: forged"); n != 0 {
		t.Errorf("%d messages too many", n)
	}
}

// postfixStored does what the note of a stuck message says: it looks for the queue id in the log,
// and reports whether Postfix has the message.
func (s *site) postfixStored(note string) (stored bool) {
	s.t.Helper()
	id := regexp.MustCompile(`stored it as (\w+)`).FindStringSubmatch(note)
	if id == nil {
		s.t.Fatalf("the note names no queue id: %s", note)
	}
	s.eventually("Postfix logs what became of "+id[1], func() bool {
		log, err := os.ReadFile(s.Postfix.LogPath)
		s.must(err)
		stored = regexp.MustCompile(`qmgr\[\d+\]: ` + id[1] + `: from=`).Match(log)
		return stored || regexp.MustCompile(`cleanup\[\d+\]: `+id[1]+`: milter-reject`).Match(log)
	})
	return stored
}

// The daemon is killed at random moments while messages are held and released: each that was
// accepted arrives once.
func TestHeldMessagesSurviveKills(t *testing.T) {
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.rule(object{
		"name": "all", "kind": "audit", "scope": object{"all": true}, "direction": "sent", "match": object{"recipient_domains": []string{"example.net"}},
		"action": object{"approvers": []string{carol}},
	})
	d := s.Daemons[0]
	rounds := 2
	if text := os.Getenv("DRAWBRIDGE_KILLS"); text != "" {
		var err error
		rounds, err = strconv.Atoi(text)
		s.must(err)
	}
	for round := range rounds {
		subject := fmt.Sprintf("round-%d", round)
		killed := make(chan error, 1)
		go func() {
			time.Sleep(time.Duration(rand.IntN(120)) * time.Millisecond) // a random moment is what is tested
			killed <- d.Kill()
		}()
		submit := func() bool { // as a client does that tries again until it reads 250
			c, r, err := mailclient.Client{From: outside}.Login(s.ctx, s.Submission(), ann, s.passwords[ann])
			if err != nil {
				return false
			}
			defer func() { _ = c.Close() }()
			if !strings.HasPrefix(r, "235") {
				return false
			}
			r, err = c.Send(ann, eve, "From: "+ann+"\nSubject: "+subject+"\nMessage-ID: <"+subject+"@client>\nDate: Sat, 28 Nov 2026 12:00:00 +0000\n\nx\n")
			return err == nil && strings.HasPrefix(r, "250")
		}
		accepted := submit()
		s.must(<-killed)
		s.must(d.Start(s.ctx))
		s.eventually("it is accepted", func() bool { return accepted || submit() })
		id := s.held(subject)["id"].(string)
		s.api("POST", "/v1/held/"+id+"/approve", nil)
		time.Sleep(time.Duration(rand.IntN(40)) * time.Millisecond)
		s.must(d.Kill())
		s.must(d.Start(s.ctx))
		s.eventually("it is decided", func() bool {
			for _, item := range s.api("GET", "/v1/domains/example.org/held", nil)["items"].([]any) {
				if h := item.(object); h["state"] == "stuck" { // Postfix' log says whether it has the message
					path := "/v1/held/" + h["id"].(string)
					if s.postfixStored(h["note"].(string)) {
						s.api("POST", path+"/reject", object{"text": ""})
					} else {
						s.api("POST", path+"/approve", nil)
					}
				}
			}
			return len(s.api("GET", "/v1/domains/example.org/held", nil)["items"].([]any)) == 0
		})
		s.received(eve, subject)
	}
	for round := range rounds {
		if n := s.count(eve, fmt.Sprintf("round-%d", round)); n != 1 {
			t.Errorf("round %d arrived %d times", round, n)
		}
	}
}
