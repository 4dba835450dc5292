//go:build dkim

package e2e

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"github.com/drawbridge/drawbridge/internal/freeport"
	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// milterAddress reserves an address for a milter until the test ends, so that no other server of this
// machine takes it before the milter listens.
func milterAddress(t *testing.T) (addr, port string) {
	t.Helper()
	var reserved freeport.Reservation
	n, err := reserved.Port()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(reserved.Free)
	port = strconv.Itoa(n)
	return net.JoinHostPort("127.0.0.1", port), port
}

// listens waits until a milter listens: rspamd reads its settings for half a minute.
func listens(t *testing.T, addr, name string) {
	t.Helper()
	for range 5000 {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = c.Close()
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("%s does not listen", name)
}

// opendkim starts the milter with a configuration, and returns its address for main.cf.
func opendkim(t *testing.T, dir, name, conf string) string {
	t.Helper()
	addr, port := milterAddress(t)
	file := filepath.Join(dir, name+".conf")
	conf += "Socket inet:" + port + "@127.0.0.1\nBackground no\nAutoRestart no\nSyslog no\nRequireSafeKeys no\nPidFile " + filepath.Join(dir, name+".pid") + "\n"
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "opendkim", "-f", "-x", file)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: make test-dkim installs it", err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	listens(t, addr, "opendkim "+name)
	return "inet:" + addr
}

// dkimKey writes a private key and returns its file and its record in the DNS.
func dkimKey(t *testing.T, dir, domain string) (file, record string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	file = filepath.Join(dir, domain+".pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return file, "s1._domainkey." + domain + " v=DKIM1; k=rsa; p=" + base64.StdEncoding.EncodeToString(public) + "\n"
}

// signatures is a program that verifies signatures before Drawbridge, and signs behind it what comes from
// this machine: that is how the test makes messages of the partner's.
type signatures struct {
	own, theirs string // files of keys
	public      string // their records, one a line
}

// opendkim starts opendkim twice.
func (k *signatures) opendkim(t *testing.T, dir string) (verifies, signs string) {
	for name, text := range map[string]string{
		"keys": "org example.org:s1:" + k.own + "\npartner partner.example:s1:" + k.theirs + "\n", "signing": "*@example.org org\n*@partner.example partner\n",
		"public": k.public,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verifies = opendkim(t, dir, "verify", "Mode v\nInternalHosts 192.0.2.1\nAlwaysAddARHeader yes\nTestPublicKeys "+filepath.Join(dir, "public")+"\n")
	signs = opendkim(t, dir, "sign", "Mode s\nInternalHosts 127.0.0.1\nKeyTable "+filepath.Join(dir, "keys")+"\nSigningTable refile:"+filepath.Join(dir, "signing")+"\n")
	return verifies, signs
}

// rspamd starts rspamd twice, with Debian's settings and these.
func (k *signatures) rspamd(t *testing.T, dir string) (verifies, signs string) {
	const never = "enabled = false;\n"
	settings := map[string]string{
		"actions.conf":  "reject = null;\nadd_header = null;\ngreylist = null;\nrewrite_subject = null;\n",
		"options.inc":   "disable_hyperscan = true;\nfilters = \"dkim\";\nlocal_addrs = [\"127.0.0.1\"];\ndns { nameserver = [\"" + nameServer(t, k.public) + "\"]; timeout = 5s; }\n",
		"greylist.conf": never, "fuzzy_check.conf": never, "rbl.conf": never, "asn.conf": never, "phishing.conf": never, "neural.conf": never, "ratelimit.conf": never,
		"worker-normal.inc": never, "worker-controller.inc": never, "worker-fuzzy.inc": never, "arc.conf": never,
	}
	verifies, verifier := rspamd(t, filepath.Join(dir, "verify"), settings, map[string]string{
		"dkim.conf": "check_local = true;\ncheck_authed = true;\n", "dkim_signing.conf": never,
		"milter_headers.conf": "use = [\"authentication-results\"];\nskip_local = false;\nskip_authenticated = false;\n",
	})
	domain := func(name, key string) string { return name + " { path = \"" + key + "\"; selector = \"s1\"; }\n" }
	signs, signer := rspamd(t, filepath.Join(dir, "sign"), settings, map[string]string{
		"milter_headers.conf": never,
		"dkim_signing.conf": "allow_username_mismatch = true;\nallow_hdrfrom_mismatch = true;\nsign_inbound = false;\nsign_local = false;\nsign_networks = [\"127.0.0.1\"];\nuse_esld = false;\ntry_fallback = false;\n" +
			"domain {\n" + domain("example.org", k.own) + domain("partner.example", k.theirs) + "}\n",
	})
	verifier()
	signer()
	return verifies, signs
}

// rspamd starts rspamd's milter with these settings. It returns the milter's address for main.cf and a
// function that waits until the milter listens.
func rspamd(t *testing.T, dir string, settings ...map[string]string) (milter string, ready func()) {
	t.Helper()
	addr, _ := milterAddress(t)
	settings = append(settings, map[string]string{
		"worker-proxy.inc": "bind_socket = \"" + addr + "\";\nupstream \"local\" { default = yes; self_scan = yes; }\n",
		"logging.inc":      "type = \"console\";\nlevel = \"notice\";\n",
	})
	if err := os.MkdirAll(filepath.Join(dir, "local.d"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, files := range settings {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, "local.d", name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.CommandContext(t.Context(), "rspamd", "-f", "-i", "-c", "/etc/rspamd/rspamd.conf", "--var=LOCAL_CONFDIR="+dir, "--var=DBDIR="+dir, "--var=RUNDIR="+dir)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatalf("%v: make test-dkim installs it", err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its workers, too
		_ = cmd.Wait()
	})
	return "inet:" + addr, func() { t.Helper(); listens(t, addr, "rspamd") }
}

// nameServer answers for the names of keys, one record a line, and denies that others exist. It returns
// its address as rspamd has it.
func nameServer(t *testing.T, records string) string {
	t.Helper()
	texts := map[string]string{}
	for line := range strings.Lines(records) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		texts[name+"."] = text
	}
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	go func() {
		packet := make([]byte, 4096)
		for {
			n, from, err := conn.ReadFrom(packet)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(packet[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			q := m.Questions[0]
			answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionDesired: true, RecursionAvailable: true}, Questions: m.Questions}
			text, known := texts[strings.ToLower(q.Name.String())]
			switch {
			case !known:
				answer.RCode = dnsmessage.RCodeNameError
			case q.Type == dnsmessage.TypeTXT:
				var pieces []string
				for len(text) > 0 {
					k := min(len(text), 250)
					pieces, text = append(pieces, text[:k]), text[k:]
				}
				answer.Answers = []dnsmessage.Resource{{
					Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}, Body: &dnsmessage.TXTResource{TXT: pieces},
				}}
			}
			if out, err := answer.Pack(); err == nil {
				_, _ = conn.WriteTo(out, from)
			}
		}
	}()
	host, port, _ := net.SplitHostPort(conn.LocalAddr().String())
	return host + ":" + port
}

// Drawbridge stands between the program that verifies and the one that signs, as the documentation
// has it. What it says about a message before and after Drawbridge is all that is compared.
func TestSignatures(t *testing.T) {
	dir := t.TempDir()
	own, ownRecord := dkimKey(t, dir, "example.org")
	theirs, theirRecord := dkimKey(t, dir, "partner.example")
	k := &signatures{own, theirs, ownRecord + theirRecord}
	t.Run("opendkim", func(t *testing.T) {
		verifies, signs := k.opendkim(t, dir)
		survive(t, verifies, signs)
	})
	t.Run("rspamd", func(t *testing.T) {
		verifies, signs := k.rspamd(t, dir)
		survive(t, verifies, signs)
	})
}

// results are the fields in which verdicts are written.
var results = regexp.MustCompile(`(?m)^Authentication-Results:.*\n([ \t].*\n)*`)

// survive tests that signatures survive what Drawbridge does, and that it does it, between two milters.
func survive(t *testing.T, verifies, signs string) {
	s := start(t, trialstack.Options{MainCF: "smtpd_milters = " + verifies + ", $drawbridge_milter, " + signs + "\n"})
	s.domain(object{"trace_header": true})
	s.api("PATCH", "/v1/accounts/"+ann, object{})

	// send opens a session of its own: rules that change end older ones.
	send := func(from, to, message string, more ...string) {
		t.Helper()
		c, err := mailclient.Client{From: from}.SMTP(s.ctx, s.SMTP())
		s.must(err)
		defer func() { _ = c.Close() }()
		_, err = c.Hello()
		s.must(err)
		s.answers(c, pat, append([]string{to}, more...)...)
		r, err := c.Data(message)
		s.must(err)
		s.want("the message", r, "250 ")
	}
	// verdict returns what was written into a message about its signature as it arrived.
	verdict := func(message string) string {
		_, results, _ := strings.Cut(message, "\nAuthentication-Results: ")
		_, results, _ = strings.Cut(results, "dkim=")
		word, _, _ := strings.Cut(results, " ")
		return strings.Trim(word, ";\n")
	}
	// signed returns a message with the partner's signature.
	signed := func(header, subject, body string) string {
		send("127.0.0.1", dave, header+"Subject: "+subject+"\n\n"+body)
		m := s.received(dave, subject)
		i := strings.Index(m, "\nDKIM-Signature: ")
		if i < 0 {
			t.Fatalf("nobody has signed: %s", m)
		}
		return m[i+1:]
	}
	// now returns the verdict on a message as a mailbox has it.
	now := func(message string) string {
		_, at, _ := strings.Cut(message, "\nSubject: ")
		subject, _, _ := strings.Cut(at, "\n")
		before := s.count(bob, subject)
		send(outside, bob, message)
		s.eventually("the message for bob", func() bool { return s.count(bob, subject) == before+1 })
		messages, err := s.Inbox(bob)
		s.must(err)
		for i := len(messages) - 1; i >= 0; i-- {
			if strings.Contains(messages[i], "\nSubject: "+subject+"\n") {
				fresh := results.FindAllString(messages[i], -1) // rspamd leaves earlier ones above its own
				for _, old := range results.FindAllString(message, -1) {
					if k := slices.Index(fresh, old); k >= 0 {
						fresh = slices.Delete(fresh, k, k+1)
					}
				}
				if len(fresh) == 0 { // opendkim replaces them, here by the same
					fresh = results.FindAllString(messages[i], 1)
				}
				return verdict("\n" + strings.Join(fresh, ""))
			}
		}
		return ""
	}
	header := func(name string) string {
		return "From: Pat <" + pat + ">\nTo: " + ann + "\nDate: Sun, 29 Nov 2026 00:00:00 +0000\nMessage-ID: <" + name + "@partner.example>\nMIME-Version: 1.0\n"
	}
	const plain = "Content-Type: text/plain; charset=utf-8\n"
	const parts = "Content-Type: multipart/signed; protocol=\"application/pkcs7-signature\"; micalg=sha-256; boundary=b\n"
	const smime = "--b\nContent-Type: text/plain\n\nHello\n--b\nContent-Type: application/pkcs7-signature; name=smime.p7s\nContent-Transfer-Encoding: base64\n\nMIIB\n--b--\n"
	rule := func(id, kind string, more object) {
		body := object{"id": id, "name": id, "kind": kind, "scope": object{"members": []string{ann}}}
		for k, v := range more {
			body[k] = v
		}
		s.api("PUT", "/v1/domains/example.org/mail-rules/"+id, body)
	}
	remove := func(id string) { s.api("DELETE", "/v1/domains/example.org/mail-rules/"+id, nil) }

	if got := now(signed(header("none")+plain, "untouched", "Hello\n")); got != "pass" {
		t.Fatalf("without a rule the verdict is %q", got)
	}
	if got := now(strings.Replace(signed(header("forged")+plain, "forged", "Hello\n"), "\n\nHello", "\n\nHullo", 1)); got != "fail" {
		t.Fatalf("of a changed message the verdict is %q", got)
	}
	for i, c := range []struct {
		how          []string
		header, body string
		after        string // with what Drawbridge has done to it
	}{
		{[]string{"header"}, plain, "Hello\n", "pass"},
		{[]string{"header", "subject"}, plain, "Hello\n", "fail"},
		{[]string{"header", "banner"}, plain, "Hello\n", "fail"},
		{[]string{"header", "banner"}, parts, smime, "pass"}, // no octet of what is signed changes
	} {
		subject := fmt.Sprint("marked ", i)
		message := signed(header(fmt.Sprint("marked", i))+c.header, subject, c.body)
		rule("outside", "warning", object{"action": object{"how": c.how}})
		send(outside, ann, message)
		if len(c.how) > 1 && c.how[1] == "subject" {
			subject = "[EXT] " + subject
		}
		m := s.received(ann, subject)
		if !strings.Contains(m, "\nX-Drawbridge-External: general\n") || verdict(m) != "pass" {
			t.Errorf("%v: %q, before Drawbridge: %q", c.how, m, verdict(m))
		}
		if got := now(m); got != c.after {
			t.Errorf("%v: the verdict afterwards is %q, want %q", c.how, got, c.after)
		}
	}
	rule("outside", "warning", object{"action": object{"how": []string{"header"}}})

	// Held and released, with a copy for a monitor.
	rule("held", "audit", object{"direction": "received", "match": object{"subject": []string{"held"}}, "action": object{"approvers": []string{carol}, "expires": "1h", "then": "reject"}})
	rule("watch", "monitor", object{"direction": "both", "action": object{"to": []string{carol}}})
	message := signed(header("held")+plain, "held", "Hello\n.dot\n  w\u00fcrde \n\n")
	send(outside, ann, message)
	s.command("held", "approve", s.held("held")["id"].(string))
	m := s.received(ann, "held")
	if !strings.Contains(m, "\nX-Drawbridge-External: general\n") || verdict(m) != "pass" {
		t.Errorf("released: %q", m)
	}
	if got := now(m); got != "pass" {
		t.Errorf("of a released message the verdict is %q", got)
	}
	if got := now(s.received(carol, "held")); got != "pass" {
		t.Errorf("of a monitor's copy the verdict is %q", got)
	}
	remove("watch")

	// Sent apart: spam for ann, and not for dave.
	rule("spam", "filter", object{"direction": "received", "match": object{"subject": []string{"apart"}}, "action": object{"do": "spam"}})
	message = signed(header("apart")+plain, "apart", "Hello\n.dot\n  w\u00fcrde \n\n")
	send(outside, ann, message, dave)
	m = s.received(ann, "apart")
	if !strings.Contains(m, "\nX-Drawbridge-Folder: spam\n") || verdict(m) != "pass" {
		t.Errorf("sent apart: %q", m)
	}
	if got := now(m); got != "pass" {
		t.Errorf("of a message sent apart the verdict is %q", got)
	}
	remove("spam")

	// Redirected by Sieve: the mark goes, the signature stays.
	sieve, err := mailclient.Client{From: outside}.Sieve(s.ctx, s.Sieve())
	s.must(err)
	defer func() { _ = sieve.Close() }()
	r, err := sieve.Authenticate(ann, s.passwords[ann])
	s.must(err)
	s.want("ManageSieve", r, "OK")
	r, err = sieve.Install("forward", "redirect \""+eve+"\";\n")
	s.must(err)
	s.want("the script", r, "OK")
	message = signed(header("redirected")+plain, "redirected", "Hello\n")
	send(outside, ann, message)
	m = s.received(eve, "redirected")
	if head, _, _ := strings.Cut(m, "\n\n"); strings.Contains(head, "X-Drawbridge-External") {
		t.Errorf("the mark is passed on: %s", m)
	}
	if got := now(m); got != "pass" {
		t.Errorf("of a redirected message the verdict is %q", got)
	}

	// What leaves is signed as Drawbridge has left it: with the trace, without the tag, and after it
	// was held.
	rule("outside", "warning", object{"action": object{"how": []string{"subject"}}})
	rule("held", "audit", object{"direction": "sent", "match": object{"subject": []string{"contract"}}, "action": object{"approvers": []string{carol}, "expires": "1h", "then": "reject"}})
	c, r := s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
	s.want("another's address", s.send(c, ann, eve, "From: "+bob+"\nSubject: forged\n\nHello\n"), "550 5.7.1 ")
	for _, subject := range []string{"answer", "contract"} {
		s.want(subject, s.send(c, ann, eve, "From: "+ann+"\nMessage-ID: <"+subject+"@example.org>\nSubject: Re: [EXT] "+subject+"\n\nHello\n"), "250 ")
		if subject == "contract" {
			s.command("held", "approve", s.held("Re: [EXT] contract")["id"].(string))
		}
		m := s.received(eve, "Re: "+subject)
		if !strings.Contains(m, "\nX-Drawbridge-Client: ") || !strings.Contains(m, "d=example.org") {
			t.Errorf("%s: %q", subject, m)
		}
		if got := now(m); got != "pass" {
			t.Errorf("of %s the verdict is %q", subject, got)
		}
	}
}
