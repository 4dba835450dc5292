package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// What administrators see of a site of two daemons, and do about it.
func TestWatch(t *testing.T) {
	t.Parallel()
	hook, api := newHook(t), freePort(t)
	s := start(t, trialstack.Options{DovecotConf: fmt.Sprintf("doveadm_api_key = a key\nservice doveadm {\n  inet_listener http {\n    port = %d\n  }\n}\n", api), Daemons: 2, SharedRedis: true, Outgoing: []string{"example.com"}, MainCF: "defer_transports = drawbridge-outgoing\n", Settings: map[string]any{
		"notify.abnormal_logins": "mail", "notify.webhook_url": hook.URL, "notify.webhook_key_file": hook.keyFile,
		"login.next_passdb": false, "throttle.wrong_secrets_per_account": 3, "throttle.wrong_secrets_per_address": 4, "throttle.distributed_addresses": 20,
		"mail.alias_maps": []string{"inline:{ { carol@example.org = carol@example.org, eve@example.com, bob@example.org } }"},
	}})
	s.domain(nil)
	for _, account := range []string{ann, bob, carol} {
		s.api("PUT", "/v1/accounts/"+account, object{})
		s.api("PUT", "/v1/accounts/"+account+"/mailbox-password", object{"password": s.passwords[account]})
	}
	s.api("POST", "/v1/domains", object{"name": "example.net", "third_party_access": object{"allow": true}})
	theirs := s.api("POST", "/v1/keys", object{"name": "theirs", "role": "domain", "domain": "example.net"})["key"].(string)
	ours := s.api("POST", "/v1/keys", object{"name": "ours", "role": "domain", "domain": "example.org"})["key"].(string)

	t.Run("throttle", func(t *testing.T) { s.in(t).throttles(theirs, ours) })
	t.Run("withdraw", func(t *testing.T) { s.in(t).withdraws(theirs) })
	t.Run("withdraw held and re-injected", func(t *testing.T) { s.in(t).withdrawsHeld(api) })
	t.Run("abnormal logins", func(t *testing.T) { s.in(t).abnormal(hook, theirs) })
	t.Run("forwards", func(t *testing.T) { s.in(t).forwards(theirs, api) })
	t.Run("records", func(t *testing.T) { s.in(t).exports(theirs) })
	t.Run("metrics", func(t *testing.T) { s.in(t).measures() })
	t.Run("inspection", func(t *testing.T) { s.in(t).inspects(theirs) })
	t.Run("inspection on a schedule", func(t *testing.T) { s.in(t).inspectsItself(hook, theirs) })
	t.Run("audit", func(t *testing.T) { s.in(t).verifiesAudit(ours) })
	t.Run("distributed guessing", func(t *testing.T) { s.in(t).distributed(theirs, ours) })
	t.Run("retention", func(t *testing.T) { s.in(t).forgets(theirs) })
}

// heldBack lists who is held back, as daemon n sees it.
func (s *site) heldBack(n int) (accounts, addresses map[string]object) {
	s.t.Helper()
	accounts, addresses = map[string]object{}, map[string]object{}
	_, list := s.call(n, "GET", "/v1/throttle", nil)
	for _, item := range list["items"].([]any) {
		switch entry := item.(object); {
		case entry["account"] != nil:
			accounts[entry["account"].(string)] = entry
		default:
			addresses[entry["address"].(string)] = entry
		}
	}
	return accounts, addresses
}

// Wrong passwords at Dovecot hold an account and an address back on all daemons, with the reason;
// lifting holds on all of them, is audited, and is refused to other tenants.
func (s *site) throttles(theirs, ours string) {
	const attacker = "127.0.9.13"
	for i := range 3 {
		s.refuse("a wrong password", s.imap(attacker, ann, fmt.Sprint("wrong ", i)), "OK ")
	}
	s.eventually("ann is held back at the second daemon", func() bool {
		accounts, _ := s.heldBack(1)
		return accounts[ann] != nil
	})
	accounts, _ := s.heldBack(1)
	entry := accounts[ann]
	if entry["reason"] != "wrong_secrets_per_account" || entry["wrong_secrets"] != 3.0 || fmt.Sprint(entry["from"]) != "["+attacker+"]" || entry["since"] == nil {
		s.t.Errorf("why ann is held back: %v", entry)
	}
	s.refuse("ann while she is held back", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.refuse("a fourth wrong password", s.imap(attacker, bob, "wrong"), "OK ")
	s.eventually("the attacker is held back", func() bool {
		_, addresses := s.heldBack(1)
		return addresses[attacker] != nil
	})

	text := s.command("throttle")
	for _, want := range []string{ann, attacker} {
		if !strings.Contains(text, want) {
			s.t.Errorf("the command does not show %s:\n%s", want, text)
		}
	}
	if list := s.with(theirs).api("GET", "/v1/throttle", nil)["items"].([]any); len(list) != 0 {
		s.t.Errorf("another tenant sees %v", list)
	}
	if list := s.with(ours).api("GET", "/v1/throttle", nil)["items"].([]any); len(list) != 1 {
		s.t.Errorf("the domain's key sees %v", list)
	}
	s.with(theirs).refused(http.StatusNotFound, "not_found", "DELETE", "/v1/throttle/"+ann, nil)
	s.with(ours).refused(http.StatusNotFound, "not_found", "DELETE", "/v1/throttle/"+attacker, nil)
	s.refused(http.StatusUnprocessableEntity, "invalid", "DELETE", "/v1/throttle/nonsense", nil)
	if accounts, _ := s.heldBack(0); accounts[ann] == nil {
		s.t.Error("ann was lifted by a refused request")
	}

	if status, answer := s.call(1, "DELETE", "/v1/throttle/"+ann, nil); status != http.StatusNoContent {
		s.t.Fatalf("lifting ann: %d %v", status, answer)
	}
	s.eventually("ann may log in again, as the other daemon decides", func() bool {
		return strings.HasPrefix(s.imap(outside, ann, s.passwords[ann]), "OK ")
	})
	s.command("throttle", "unblock", attacker)
	if _, addresses := s.heldBack(0); addresses[attacker] != nil {
		s.t.Errorf("the attacker is still held back: %v", addresses)
	}
	if text := s.command("audit"); strings.Count(text, "throttle.lift") != 2 {
		s.t.Errorf("the audit does not show both:\n%s", text)
	}
}

// guessesElsewhere is how many addresses guess at accounts of the second domain, once each.
const guessesElsewhere = 25

// Many addresses with one wrong password each are reported for their domain, to whom it concerns, and
// nobody is shut out.
func (s *site) distributed(theirs, ours string) {
	for i := range guessesElsewhere {
		s.api("POST", "/v1/login", object{
			"account": fmt.Sprintf("user%d@example.net", i%12), "secret": fmt.Sprint("wrong ", i), "protocol": "imap", "ip": fmt.Sprintf("198.51.100.%d", i+1),
		})
	}
	noticed := func(n int) []any {
		_, list := s.with(theirs).call(n, "GET", "/v1/throttle", nil)
		domains, _ := list["distributed"].([]any)
		return domains
	}
	s.eventually("the second daemon reports it", func() bool { return len(noticed(1)) == 1 })
	if d := noticed(0)[0].(object); d["domain"] != "example.net" || d["addresses"].(float64) < 20 || d["accounts"].(float64) < 10 {
		s.t.Errorf("reported as %v", d)
	}
	if list := s.with(ours).api("GET", "/v1/throttle", nil)["distributed"].([]any); len(list) != 0 {
		s.t.Errorf("another tenant sees %v", list)
	}
	if ready := s.api("GET", "/readyz", nil); ready["distributed_guessing"] != 1.0 || ready["status"] != "ok" {
		s.t.Errorf("readyz: %v", ready)
	}
	if text := s.command("throttle"); !strings.Contains(text, "distributed guessing at example.net") {
		s.t.Errorf("the command does not say so:\n%s", text)
	}
	if d := s.api("POST", "/v1/login", object{"account": ann, "secret": s.passwords[ann], "protocol": "imap", "ip": "198.51.100.99"}); d["outcome"] != "allow" {
		s.t.Errorf("somebody is shut out: %v", d)
	}
}

// The audit is verified in Redis and as an exported file, against an anchor; what somebody does to it in
// Redis is named.
func (s *site) verifiesAudit(ours string) {
	dir := s.t.TempDir()
	file, anchor := filepath.Join(dir, "audit.jsonl"), filepath.Join(dir, "anchor")
	before := s.api("GET", "/v1/audit/verify", nil)
	if before["ok"] != true || before["entries"].(float64) < 5 || before["broken_at"] != nil {
		s.t.Fatalf("an intact audit: %v", before)
	}
	s.with(ours).refused(http.StatusForbidden, "forbidden", "GET", "/v1/audit/verify", nil)
	s.must(os.WriteFile(anchor, []byte(s.command("audit", "verify")), 0o600))
	s.command("audit", "export", file)
	s.command("audit", "verify", file, "--anchor", anchor)
	s.api("PATCH", "/v1/domains/example.org", object{"trace_header": true})
	if after := s.api("GET", "/v1/audit/verify?anchor="+before["anchor"].(string), nil); after["ok"] != true || after["head"] == before["head"] {
		s.t.Errorf("after another change: %v", after)
	}

	text, err := os.ReadFile(file)
	s.must(err)
	lines := strings.SplitAfter(string(text), "\n")
	for name, tampered := range map[string]string{
		"removed":   strings.Join(slices.Delete(slices.Clone(lines), 1, 2), ""),
		"changed":   strings.Replace(string(text), "domain.create", "domain.delete", 1),
		"truncated": strings.Join(lines[:len(lines)-3], ""),
	} {
		bad := filepath.Join(dir, name)
		s.must(os.WriteFile(bad, []byte(tampered), 0o600))
		if status, out, complaint := s.status("audit", "verify", bad); status != 65 || !strings.Contains(out+complaint, "broken") {
			s.t.Errorf("%s: status %d\n%s%s", name, status, out, complaint)
		}
	}

	// In Redis: the entry that gave a key away is taken out.
	out, err := exec.CommandContext(s.ctx, redistest.Client(s.t), "-s", s.RedisSocket(), "XDEL", "drawbridge:{g}:audit", "1-0").CombinedOutput()
	if err != nil {
		s.t.Fatalf("XDEL: %v: %s", err, out)
	}
	if broken := s.api("GET", "/v1/audit/verify", nil); broken["ok"] != false || broken["broken_at"] != "32-1" {
		s.t.Errorf("with an entry removed: %v", broken)
	}
	if status, _, complaint := s.status("audit", "verify"); status != 65 || !strings.Contains(complaint, "32-1") {
		s.t.Errorf("the command: %d %s", status, complaint)
	}
}

// hook is a program of the site that receives notices.
type hook struct {
	*httptest.Server
	keyFile string
	notices chan object
}

const hookKey = "a key for the hook"

func newHook(t *testing.T) *hook {
	t.Helper()
	h := &hook{keyFile: filepath.Join(t.TempDir(), "hook.key"), notices: make(chan object, 100)}
	if err := os.WriteFile(h.keyFile, []byte(hookKey+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var notice object
		_ = json.Unmarshal(body, &notice)
		at, signature, _ := strings.Cut(strings.TrimPrefix(r.Header.Get("X-Drawbridge-Signature"), "t="), ",v1=")
		mac := hmac.New(sha256.New, []byte(hookKey))
		mac.Write([]byte(at + "." + string(body)))
		notice["signed"] = signature == hex.EncodeToString(mac.Sum(nil))
		h.notices <- notice
	}))
	t.Cleanup(h.Close)
	return h
}

// A login from elsewhere is marked, and its account and the hook are told once, with the login before;
// after "it was me" it is usual. One call secures the account.
func (s *site) abnormal(h *hook, theirs string) {
	const away = "127.0.9.77"
	_, phone := s.device(bob, "phone")
	s.want("bob's first login", s.imap(office, bob, phone), "OK ")
	first := s.record("account="+bob+"&ip="+office, func(r object) bool { return r["outcome"] == "allow" })
	if fmt.Sprint(first["abnormal"]) != "[]" {
		s.t.Errorf("the first login: %v", first["abnormal"])
	}
	s.want("bob from elsewhere", s.imap(away, bob, phone), "OK ")
	unusual := s.record("account="+bob+"&ip="+away, func(r object) bool { return r["outcome"] == "allow" })
	if fmt.Sprint(unusual["abnormal"]) != "[new_network]" {
		s.t.Errorf("a login from elsewhere: %v", unusual["abnormal"])
	}
	var notice object
	for notice["account"] != bob {
		select {
		case notice = <-h.notices:
		case <-s.ctx.Done():
			s.t.Fatal("the hook was not called")
		}
	}
	data, _ := notice["data"].(object)
	previous, _ := data["previous"].(object)
	if notice["signed"] != true || notice["event"] != "abnormal_login" || previous["ip"] != office {
		s.t.Errorf("the hook received %v", notice)
	}
	mail := s.received(bob, "New login to "+bob)
	for _, want := range []string{away, office, "The login before"} {
		if !strings.Contains(mail, want) {
			s.t.Errorf("the notice lacks %q:\n%s", want, mail)
		}
	}

	id, _ := unusual["id"].(string)
	s.with(theirs).refused(http.StatusNotFound, "not_found", "POST", "/v1/domains/example.org/logins/"+id+"/it-was-me", nil)
	s.command("logins", "it-was-me", "example.org", id)
	s.want("bob from there again", s.pop3(away, bob, phone), "+OK ")
	again := s.record("account="+bob+"&ip="+away+"&reason=ok", func(r object) bool { return r["protocol"] == "pop3" && r["outcome"] == "allow" })
	if strings.Contains(fmt.Sprint(again["abnormal"]), "new_network") {
		s.t.Errorf("after it was bob: %v", again["abnormal"])
	}

	// Whoever is logged in to the users' page just before has to log in again.
	loggedIn := func(password string) *browser {
		thief := s.browse(office)
		thief.shows("the users' page", thief.post("/account/login", "account", bob, "password", password), 200, "My devices")
		return thief
	}
	thief := loggedIn(s.passwords[bob])
	link := phoneLink.FindStringSubmatch(thief.post("/account/devices", "once", thief.field(thief.get("/account/devices/new"), "once"), "label", "thief", "as", "link").text)[1]
	s.api("POST", "/v1/accounts/"+bob+"/secure", object{"revoke_secure_passwords": true})
	thief.shows("after it was secured", thief.get("/account/devices/new"), 200, "Mailbox password")
	thief.shows("a link made before", thief.post(link, "as", "show"), 200, "This link was used")
	thief = loggedIn(s.passwords[bob])
	s.api("PUT", "/v1/accounts/"+bob+"/mailbox-password", object{"password": s.passwords[bob]})
	thief.shows("after the password was set", thief.get("/account/devices/new"), 200, "Mailbox password")
	_, phone = s.device(bob, "phone")

	secured := s.api("POST", "/v1/accounts/"+bob+"/secure", object{"block_ip": away, "revoke_secure_passwords": true, "reset_mailbox_password": true, "switch_off": true})
	if secured["blocked_ip"] != away || len(secured["revoked"].([]any)) != 1 || len(secured["switched_off"].([]any)) != 4 || secured["password"] == "" {
		s.t.Errorf("secured: %v", secured)
	}
	remains := fmt.Sprint(secured["remains"])
	for _, want := range []string{"kind:second_factor", "kind:switched_off", "kind:sessions"} {
		if !strings.Contains(remains, want) {
			s.t.Errorf("what remains has no %s: %s", want, remains)
		}
	}
	for _, dealtWith := range []string{"mailbox_password", "kind:secure_password", "kind:protocols", "forward"} {
		if strings.Contains(remains, dealtWith) {
			s.t.Errorf("what remains has %s: %s", dealtWith, remains)
		}
	}
	s.refuse("the stolen password", s.imap(office, bob, phone), "OK ")
	s.refuse("the old mailbox password", s.imap(office, bob, s.passwords[bob]), "OK ")
	s.with(theirs).refused(http.StatusNotFound, "not_found", "POST", "/v1/accounts/"+bob+"/secure", object{"switch_off": true})
}

// What is on and unused is found, reclaimed after a preview, and given back by an undo.
func (s *site) inspects(theirs string) {
	const inspection = "/v1/domains/example.org/inspection"
	s.want("ann by IMAP", s.imap(office, ann, s.passwords[ann]), "OK ")
	s.record("account="+ann+"&ip="+office, func(r object) bool { return r["outcome"] == "allow" })
	kinds := func() map[string]object {
		found := map[string]object{}
		for _, item := range s.api("GET", inspection+"?days=0&account="+ann, nil)["items"].([]any) {
			found[item.(object)["id"].(string)] = item.(object)
		}
		return found
	}
	const pop3, smtp, imap = "unused_protocol:" + ann + ":pop3", "unused_sending:" + ann + ":smtp", "unused_protocol:" + ann + ":imap"
	found := kinds()
	if found[pop3] == nil || found[smtp] == nil || found[imap] != nil || found[pop3]["proposal"] == nil {
		s.t.Fatalf("found %v", found)
	}
	if text := s.command("inspect", "example.org", "--days", "0"); !strings.Contains(text, "unused_protocol") || !strings.Contains(text, "switch off") {
		s.t.Errorf("the command prints\n%s", text)
	}
	s.with(theirs).refused(http.StatusNotFound, "not_found", "GET", inspection, nil)
	s.with(theirs).refused(http.StatusNotFound, "not_found", "POST", inspection+"/reclaim", object{"kinds": []string{"unused_protocol"}})
	what := object{"findings": []string{pop3, smtp}, "days": 0, "account": ann}
	if preview := s.api("POST", inspection+"/reclaim?dry_run=true", what); len(preview["items"].([]any)) != 2 || kinds()[pop3] == nil {
		s.t.Errorf("the preview: %v", preview)
	}
	done := s.api("POST", inspection+"/reclaim", what)
	if kinds()[pop3] != nil {
		s.t.Error("pop3 is still on")
	}
	s.refuse("POP3 after it was reclaimed", s.pop3(office, ann, s.passwords[ann]), "+OK ")
	s.command("inspect", "undo", "example.org", done["id"].(string))
	if kinds()[pop3] == nil {
		s.t.Error("the undo did not give pop3 back")
	}
	s.want("POP3 after the undo", s.pop3(office, ann, s.passwords[ann]), "+OK ")
}

// What a stolen device has sent is taken back: from the queue, and from a mailbox; nothing else is.
func (s *site) withdraws(theirs string) {
	id, secret := s.device(carol, "stolen")
	other, own := s.device(carol, "own")
	send := func(password, to, subject string) {
		c, reply := s.submit(office, carol, password)
		s.want("submission", reply, "235 ")
		s.want(subject, s.send(c, carol, to, "From: "+carol+"\r\nTo: "+to+"\r\nSubject: "+subject+"\r\nMessage-ID: <"+strings.ReplaceAll(subject, " ", "-")+"@example.org>\r\n\r\nx\r\n"), "250 ")
	}
	send(secret, ann, "stolen inside")
	send(secret, "zoe@example.com", "stolen outside")
	send(own, ann, "kept inside")
	s.received(ann, "stolen inside")
	s.received(ann, "kept inside")
	what := object{"credential_id": id, "since": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}
	const path = "/v1/domains/example.org/withdraw"
	var preview object
	defer func() {
		if s.t.Failed() {
			s.t.Logf("the preview: %v", preview)
		}
	}()
	s.eventually("both are found", func() bool {
		preview = s.api("POST", path+"?dry_run=true", what)
		return preview["queued"] == 1.0 && preview["delivered"] == 1.0
	})
	if preview["removed"] != 0.0 || preview["problems"] != nil {
		s.t.Errorf("the preview: %v", preview)
	}
	s.received(ann, "stolen inside")
	s.with(theirs).refused(http.StatusNotFound, "not_found", "POST", path, what)
	if text := s.command("withdraw", "example.org", "--credential", id, "--since", "1h"); !strings.Contains(text, "removed") {
		s.t.Errorf("the command prints\n%s", text)
	}
	messages, err := s.Inbox(ann)
	s.must(err)
	if all := strings.Join(messages, "\n"); strings.Contains(all, "Subject: stolen inside") || !strings.Contains(all, "Subject: kept inside") {
		s.t.Errorf("ann's mailbox:\n%s", all)
	}
	if after := s.api("POST", path+"?dry_run=true", what); after["queued"] != 0.0 || after["delivered"] != 0.0 {
		s.t.Errorf("after it was withdrawn: %v", after)
	}
	what["credential_id"] = other
	s.eventually("the other device's message is there", func() bool { return s.api("POST", path+"?dry_run=true", what)["delivered"] == 1.0 })
	if !strings.Contains(s.command("audit", "example.org", "--wide"), "message.withdraw") {
		s.t.Error("the audit does not show it")
	}
}

// What sends an account's mail on, or hides it, is listed: of the active Sieve script and others, with
// their times, and of an alias map; comments and texts are no actions.
func (s *site) forwards(theirs string, api int) {
	began := time.Now().Add(-time.Minute)
	c, err := mailclient.Client{From: office}.Sieve(s.ctx, s.Sieve())
	s.must(err)
	defer func() { _ = c.Close() }()
	answered := func(name, status string, err error) {
		s.t.Helper()
		s.must(err)
		s.want(name, status, "OK")
	}
	status, err := c.Authenticate(carol, s.passwords[carol])
	answered("ManageSieve", status, err)
	status, err = c.Install("-old", "redirect \"bob@example.org\";\n")
	answered("another script", status, err)
	status, err = c.Install("\u00fcber all", "require [\"fileinto\", \"copy\", \"variables\", \"vacation\"];\n# redirect \"nobody@example.com\";\n"+
		"vacation \"redirect \\\"nobody@example.com\\\";\";\nif header :contains \"subject\" \"bank\" { REDIRECT :copy text:\neve@example.com\n.\n; fileinto \"Archive\"; }\n"+
		"set \"to\" \"x@example.com\"; redirect \"${to}\";\n")
	answered("the active script", status, err)

	const path = "/v1/accounts/" + carol + "/forwards"
	var list object
	s.eventually("the login by ManageSieve is listed", func() bool {
		list = s.api("GET", path, nil)
		return len(list["manage_sieve"].([]any)) == 1
	})
	var got []string
	for _, item := range list["items"].([]any) {
		i := item.(object)
		got = append(got, fmt.Sprint(i["name"], " ", i["active"], " ", i["action"], " ", i["target"], " ", i["outside"], " ", i["computed"] == true, " ", i["copy"] == true))
		changed, _ := time.Parse(time.RFC3339, fmt.Sprint(i["changed_at"]))
		if i["source"] == "sieve" && (changed.Before(began) || changed.After(time.Now().Add(time.Minute))) {
			s.t.Errorf("changed at %v: %v", i["changed_at"], i)
		}
	}
	const all, inline = "\u00fcber all", "inline:{ { carol@example.org = carol@example.org, eve@example.com, bob@example.org } }"
	want := []string{
		all + " true vacation <nil> false false false", all + " true redirect eve@example.com true false true", all + " true fileinto Archive false false false",
		all + " true redirect ${to} true true false", "-old false redirect bob@example.org false false false",
		inline + " true alias eve@example.com true false true", inline + " true alias bob@example.org false false true",
	}
	if !slices.Equal(got, want) || list["problems"] != nil {
		s.t.Errorf("problems: %v\n got %s\nwant %s", list["problems"], strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
	if text := s.command("account", "forwards", carol); !strings.Contains(text, "eve@example.com") || !strings.Contains(text, "computed") || !strings.Contains(text, "ManageSieve from "+office) {
		s.t.Errorf("the command prints\n%s", text)
	}
	s.with(theirs).refused(http.StatusNotFound, "not_found", "GET", path, nil)
	for at, d := range s.doveadms(api) {
		scripts, err := d.Scripts(s.ctx, carol)
		slices.SortFunc(scripts, func(a, b doveadm.Script) int { return strings.Compare(a.Name, b.Name) })
		if err != nil || len(scripts) != 2 || scripts[0].Name != "-old" || scripts[0].Active || strings.TrimSpace(scripts[0].Text) != `redirect "bob@example.org";` ||
			scripts[1].Name != all || !scripts[1].Active || !strings.Contains(scripts[1].Text, "\neve@example.com\n.\n") {
			s.t.Errorf("%s: %+v, %v", at, scripts, err)
		}
		users, err := d.Users(s.ctx, "example.org")
		if slices.Sort(users); err != nil || !slices.Equal(users, []string{ann, bob, carol, dave}) {
			s.t.Errorf("%s: users %v, %v", at, users, err)
		}
		if users, err := d.Users(s.ctx, "nowhere.example"); err != nil || len(users) > 0 {
			s.t.Errorf("%s: users of another domain: %v, %v", at, users, err)
		}
		if scripts, err := d.Scripts(s.ctx, "nobody@example.org"); err == nil && len(scripts) > 0 {
			s.t.Errorf("%s: of nobody: %+v", at, scripts)
		}
	}
	_, own := s.device(carol, "left")
	text := s.command("account", "secure", carol, "--end-sessions")
	for _, want := range []string{"what remains:", `the secure password "left"`, "may be used: imap", "the mailbox password is that of", "sends its mail on to eve@example.com", "${to}, which it makes when it runs"} {
		if !strings.Contains(text, want) {
			s.t.Errorf("what remains lacks %q:\n%s", want, text)
		}
	}
	s.want("the secure password works", s.imap(office, carol, own), "OK ")
	if text := s.command("inspect", "example.org", "--account", carol, "--wide"); strings.Count(text, "sends its mail on to") != 3 || strings.Contains(text, "forwards_unknown") {
		s.t.Errorf("the inspection of %s:\n%s", carol, text)
	}
	if none := s.api("GET", "/v1/accounts/"+bob+"/forwards", nil); fmt.Sprint(none["items"], none["scripts"], none["problems"]) != "[] [] <nil>" {
		s.t.Errorf("of an account without forwards: %v", none)
	}
}

// doveadms are the ways to ask the site's Dovecot.
func (s *site) doveadms(api int) map[string]*doveadm.Doveadm {
	s.t.Helper()
	all := map[string]*doveadm.Doveadm{}
	for _, at := range []string{"exec:/usr/bin/doveadm -c " + s.DovecotConf(), fmt.Sprintf("http://127.0.0.1:%d", api), "unix:" + filepath.Join(s.Dir, "dovecot", "run", "doveadm-server")} {
		d, err := doveadm.Parse(at, []byte("a key"))
		s.must(err)
		all[at] = d
	}
	return all
}

// What waits for approval is rejected, and what was approved, and came under another queue id, is deleted;
// through each way to ask Dovecot, a message is found and deleted by what is recorded of it.
func (s *site) withdrawsHeld(api int) {
	id, secret := s.device(carol, "stolen later")
	sendTo := func(to, subject string) {
		s.t.Helper()
		c, reply := s.submit(office, carol, secret)
		s.want("submission", reply, "235 ")
		defer func() { _ = c.Close() }()
		s.want(subject, s.send(c, carol, to, "From: "+carol+"\r\nTo: "+to+"\r\nSubject: "+subject+"\r\nMessage-ID: <"+strings.ReplaceAll(subject, " ", "-")+"@client>\r\n\r\nx\r\n"), "250 ")
	}
	send := func(subject string) { s.t.Helper(); sendTo(ann, subject) }
	rule := s.rule(object{
		"name": "carol's need approval", "kind": "audit", "scope": object{"members": []string{carol}}, "direction": "sent",
		"match":  object{"recipient_domains": []string{"example.org", "example.com"}},
		"action": object{"approvers": []string{bob}, "need": "any", "expires": "72h", "then": "reject"},
	})
	send("held and approved")
	send("held and waiting")
	s.api("POST", "/v1/held/"+s.held("held and approved")["id"].(string)+"/approve", nil)
	s.received(ann, "held and approved")
	sendTo("zoe@example.com", "held and outside") // stays in the queue
	s.api("POST", "/v1/held/"+s.held("held and outside")["id"].(string)+"/approve", nil)
	waiting := s.held("held and waiting")["id"].(string)
	const path = "/v1/domains/example.org/withdraw"
	what := object{"credential_id": id, "since": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)}
	var preview object
	s.eventually("all are found", func() bool {
		preview = s.api("POST", path+"?dry_run=true", what)
		return preview["held"] == 1.0 && preview["delivered"] == 1.0 && preview["queued"] == 1.0
	})
	if preview["problems"] != nil {
		s.t.Errorf("the preview: %v", preview)
	}
	s.held("held and waiting")
	if done := s.api("POST", path, what); done["removed"] != 3.0 || done["left"] != 0.0 {
		s.t.Errorf("withdrawn: %v", done)
	}
	s.noneHeld()
	s.refused(http.StatusNotFound, "not_found", "GET", "/v1/held/"+waiting, nil)
	if n := s.count(ann, "held and approved") + s.count(ann, "held and waiting"); n != 0 {
		s.t.Errorf("%d messages are left", n)
	}
	s.api("DELETE", "/v1/domains/example.org/mail-rules/"+rule, nil)

	n := 0
	for at, d := range s.doveadms(api) {
		n++
		subject := fmt.Sprint("by way ", n)
		messageID := fmt.Sprintf("<by-way-%d@client>", n)
		send(subject)
		s.received(ann, subject)
		var sent object
		s.eventually(subject+" is recorded", func() bool {
			for _, item := range s.api("GET", "/v1/domains/example.org/messages?account="+carol, nil)["items"].([]any) {
				if sent = item.(object); sent["message_id"] == messageID && sent["direction"] == "sent" {
					return true
				}
			}
			return false
		})
		since := time.Now().Add(-time.Hour)
		for what, q := range map[string]struct {
			sent doveadm.Sent
			want int
		}{
			"its queue id":                  {doveadm.Sent{QueueID: sent["queue_id"].(string), Since: since}, 1},
			"its Message-ID and sender":     {doveadm.Sent{QueueID: "3F2A11C", MessageID: messageID, Sender: carol, Since: since}, 1},
			"its Message-ID, another's":     {doveadm.Sent{QueueID: "3F2A11C", MessageID: messageID, Sender: bob, Since: since}, 0},
			"a part of its queue id":        {doveadm.Sent{QueueID: sent["queue_id"].(string)[:4], Since: since}, 0},
			"its queue id, later than that": {doveadm.Sent{QueueID: sent["queue_id"].(string), Since: time.Now().Add(time.Hour)}, 0},
		} {
			if got, err := d.Count(s.ctx, ann, &q.sent); err != nil || got != q.want {
				s.t.Errorf("%s, by %s: %d copies, %v", at, what, got, err)
			}
		}
		s.must(d.Expunge(s.ctx, ann, &doveadm.Sent{QueueID: sent["queue_id"].(string), Since: since}))
		if s.count(ann, subject) != 0 {
			s.t.Errorf("%s did not delete the message", at)
		}
	}
}

// A domain is inspected on its schedule, forwards to outside included; every daemon shows the report, and the
// domain's administrators and the hook receive the new findings, and only those.
func (s *site) inspectsItself(h *hook, theirs string) {
	const domain, path = "/v1/domains/example.org", "/v1/domains/example.org/inspection/report"
	s.refused(http.StatusConflict, "no_report", "GET", path, nil)
	for _, bad := range []string{"5s", "soon"} {
		if status, body := s.call(0, "PATCH", domain, object{"inspection": object{"every": bad}}); status != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(body), "/inspection/every") {
			s.t.Errorf("every %s: %d %v", bad, status, body)
		}
	}
	// Dave has no record and never logged in.
	put := exec.CommandContext(s.ctx, "doveadm", "-c", s.DovecotConf(), "sieve", "put", "-u", dave, "-a", "old")
	put.Stdin = strings.NewReader("redirect \"mallory@example.com\";\n")
	if out, err := put.CombinedOutput(); err != nil {
		s.t.Fatalf("%v: %s", err, out)
	}
	if text := s.command("inspect", "example.org", "--forwards", "--wide"); !strings.Contains(text, "forward_outside:"+dave+":") {
		s.t.Errorf("the command does not find the forward of %s:\n%s", dave, text)
	}
	if text := s.command("inspect", "example.org", "--forwards", "--wide"); !strings.Contains(text, "forward_outside:"+carol+":") {
		s.t.Errorf("the command finds no forward:\n%s", text)
	}
	s.api("PATCH", domain, object{"administrators": []string{ann}})
	s.command("domain", "set", "example.org", "--inspect-every", "60s", "--inspect-days", "30")
	report := func(what string, shows func(r object) bool) (r object) {
		s.t.Helper()
		s.eventually(what, func() bool {
			var status int
			status, r = s.call(1, "GET", path, nil)
			return status == http.StatusOK && shows(r)
		})
		return r
	}
	notice := func() (n object) {
		for n["event"] != "inspection" {
			select {
			case n = <-h.notices:
			case <-s.ctx.Done():
				s.t.Fatal("the hook was not called")
			}
		}
		return n
	}
	first := report("the first report", func(object) bool { return true })
	kinds := map[string]bool{}
	for _, item := range first["items"].([]any) {
		f := item.(object)
		kinds[fmt.Sprint(f["kind"], " ", f["account"])] = f["new"] == true
	}
	if !kinds["forward_outside "+carol] || first["found"] != first["new"] || first["node"] == nil {
		s.t.Errorf("the first report: %v", first)
	}
	if n := notice(); n["signed"] != true || n["domain"] != "example.org" || n["data"].(object)["new"] != first["new"] {
		s.t.Errorf("the hook received %v", n)
	}
	mail := s.received(ann, fmt.Sprintf("Inspection of example.org: %v new findings", first["new"]))
	if !strings.Contains(mail, "forward_outside") {
		s.t.Errorf("the mail:\n%s", mail)
	}

	endless := s.api("POST", "/v1/keys", object{"name": "endless", "role": "domain", "domain": "example.org"})["id"].(string)
	isNew := func(r object) bool {
		for _, item := range r["items"].([]any) {
			if f := item.(object); f["id"] == "key_without_end::"+endless {
				return f["new"] == true
			}
		}
		return false
	}
	for n := notice(); !isNew(n["data"].(object)); n = notice() { // in a minute
		s.t.Logf("another notice: %v", n) // of what happened meanwhile
	}
	second := report("a later report has the new key", isNew)
	if second["new"].(float64) >= second["found"].(float64) {
		s.t.Errorf("what was known is new: %v", second)
	}
	if text := s.command("inspect", "report", "example.org"); !strings.Contains(text, "endless") {
		s.t.Errorf("the command prints\n%s", text)
	}
	s.with(theirs).refused(http.StatusNotFound, "not_found", "GET", path, nil)
	s.command("domain", "set", "example.org", "--inspect-every", "")
	if after := s.api("GET", domain, nil); after["inspection"] != nil {
		s.t.Errorf("it is still inspected: %v", after["inspection"])
	}
}

// Records are selected by network and device, and exported as CSV, JSON Lines and syslog messages.
func (s *site) exports(theirs string) {
	list := func(query string) int {
		return len(s.api("GET", "/v1/domains/example.org/logins?"+query, nil)["items"].([]any))
	}
	if list("network=127.0.9.0/24") == 0 || list("network=192.0.2.0/24") != 0 || list("device=stolen") == 0 || list("device=nobody") != 0 {
		s.t.Error("network or device select other records")
	}
	s.refused(http.StatusUnprocessableEntity, "invalid", "GET", "/v1/domains/example.org/logins?network=nonsense", nil)
	dir := s.t.TempDir()
	for format, want := range map[string]string{
		"csv": `,bob@example.org,127.0.1.7,`, "jsonl": `"account":"bob@example.org"`, "syslog": `[login@32473 id="`,
	} {
		file := filepath.Join(dir, format)
		s.command("logins", "export", "example.org", file, "--format", format, "--account", bob)
		text, err := os.ReadFile(file)
		s.must(err)
		if !strings.Contains(string(text), want) || strings.Contains(string(text), ann) {
			s.t.Errorf("%s:\n%.2000s", format, text)
		}
	}
	s.with(theirs).refused(http.StatusNotFound, "not_found", "GET", "/v1/domains/example.org/logins/export", nil)
}

var metricName = regexp.MustCompile(`drawbridge_[a-z_]+`)

// The dashboard and the alert rules name only metrics that there are, and all of them; the contract's are
// there.
func (s *site) measures() {
	names := map[string]bool{}
	for line := range strings.Lines(s.metrics()) {
		if name := metricName.FindString(line); name != "" && strings.HasPrefix(line, name) {
			names[name] = true
		}
	}
	for _, name := range []string{
		"drawbridge_login_duration_seconds_bucket", "drawbridge_policy_duration_seconds_bucket", "drawbridge_milter_duration_seconds_bucket",
		"drawbridge_sessions", "drawbridge_throttle_entries", "drawbridge_region_database_age_seconds", "drawbridge_feed_lag_seconds", "drawbridge_held_messages",
	} {
		if !names[name] {
			s.t.Errorf("%s is missing", name)
		}
	}
	part := regexp.MustCompile(`_(bucket|sum|count)$`)
	shown := map[string]bool{}
	for _, file := range []string{"dashboard.json", "alerts.yml"} {
		text, err := os.ReadFile("../../contrib/monitoring/" + file)
		s.must(err)
		for _, name := range metricName.FindAllString(string(text), -1) {
			if !names[name] {
				s.t.Errorf("%s names %s, which is not measured", file, name)
			}
			shown[part.ReplaceAllString(name, "")] = true
		}
	}
	for name := range names {
		if name = part.ReplaceAllString(name, ""); !shown[name] {
			s.t.Errorf("%s is in no panel of the dashboard and in no alert", name)
		}
	}
}

// A domain's own ages: old records keep no address and are still found by it, then they are deleted, while
// those of a domain that keeps its own for longer stay as they are; all of it by command, audited, and refused to other tenants.
func (s *site) forgets(theirs string) {
	logins := func() []any {
		return s.api("GET", "/v1/domains/example.org/logins?ip="+outside, nil)["items"].([]any)
	}
	if len(logins()) == 0 {
		s.t.Fatal("there are no records of the address")
	}
	if status, _ := s.with(theirs).call(0, "PATCH", "/v1/domains/example.org", object{"records": object{"retention": "1s"}}); status != http.StatusNotFound {
		s.t.Errorf("another tenant's retention: %d", status)
	}
	bad := object{"records": object{"retention": "1d", "pseudonymise_after": "2d"}}
	if status, body := s.call(0, "PATCH", "/v1/domains/example.org", bad); status != http.StatusUnprocessableEntity || !strings.Contains(fmt.Sprint(body), "/records/pseudonymise_after") {
		s.t.Errorf("pseudonyms of deleted records: %d %v", status, body)
	}
	kept := func() (ids string) {
		for _, item := range s.api("GET", "/v1/domains/example.net/logins?limit=1000", nil)["items"].([]any) {
			r := item.(object)
			ids += fmt.Sprint(r["id"], " ", r["ip"], " ", r["pseudonymised"] == true, "\n")
		}
		return ids
	}
	s.command("domain", "set", "example.net", "--records-retention", "90d")
	var others string
	s.eventually("the second domain has its records", func() bool {
		others = kept()
		return strings.Count(others, " 198.51.100.") == guessesElsewhere
	})
	if strings.Contains(others, " true") {
		s.t.Fatalf("the records of the second domain:\n%s", others)
	}
	s.command("domain", "set", "example.org", "--pseudonymise-after", "1s")
	var old object
	s.eventually("a record is pseudonymised", func() bool {
		list := logins()
		if len(list) == 0 {
			return false
		}
		old = list[len(list)-1].(object)
		return old["pseudonymised"] == true
	})
	if ip := fmt.Sprint(old["ip"]); !strings.HasPrefix(ip, "ip-") || strings.Contains(fmt.Sprint(old), outside) || old["session"] != nil {
		s.t.Errorf("the record still identifies the connection: %v", old)
	}
	path := "/v1/domains/example.org/logins/" + old["id"].(string)
	if got := s.api("GET", path, nil); got["ip"] != old["ip"] {
		s.t.Errorf("the record by its id: %v", got)
	}
	file := filepath.Join(s.t.TempDir(), "logins.csv")
	s.command("logins", "export", "example.org", file, "--format", "csv")
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), old["ip"].(string)) {
		s.t.Errorf("the export has no pseudonym: %v\n%.500s", err, text)
	}
	s.command("domain", "set", "example.org", "--records-retention", "2s")
	s.eventually("old records are deleted", func() bool {
		for _, item := range logins() {
			if item.(object)["id"] == old["id"] {
				return false
			}
		}
		return true
	})
	if now := kept(); now != others {
		s.t.Errorf("the second domain, which keeps its records, has\n%snow, and had\n%s", now, others)
	}
	last := time.Now() // the rules take effect at a change, and every hour
	s.eventually("they are old enough", func() bool { return time.Since(last) > 2*time.Second })
	s.command("domain", "set", "example.net", "--records-retention", "2s")
	s.eventually("its records are deleted once it says so", func() bool { return kept() == "" })
	if audit := fmt.Sprint(s.api("GET", "/v1/audit?domain=example.org", nil)["items"]); !strings.Contains(audit, "retention") {
		s.t.Error("the audit has no change of the retention")
	}
}
