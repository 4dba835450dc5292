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
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// opendkim starts the milter with a configuration, and returns its address for main.cf.
func opendkim(t *testing.T, dir, name, conf string) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	_ = ln.Close()
	_, port, _ := net.SplitHostPort(addr)
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
	for range 200 {
		if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
			_ = c.Close()
			return "inet:" + addr
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("opendkim %s does not listen", name)
	return ""
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

// Drawbridge stands between the opendkim that verifies and the one that signs, as the documentation
// has it. What opendkim says about a message before and after Drawbridge is all that is compared.
func TestSignatures(t *testing.T) {
	dir := t.TempDir()
	own, ownRecord := dkimKey(t, dir, "example.org")
	theirs, theirRecord := dkimKey(t, dir, "partner.example")
	for name, text := range map[string]string{
		"keys": "org example.org:s1:" + own + "\npartner partner.example:s1:" + theirs + "\n", "signing": "*@example.org org\n*@partner.example partner\n",
		"public": ownRecord + theirRecord,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	verifies := opendkim(t, dir, "verify", "Mode v\nInternalHosts 192.0.2.1\nAlwaysAddARHeader yes\nTestPublicKeys "+filepath.Join(dir, "public")+"\n")
	// Only this machine's own mail is signed, which is how the test makes messages of the partner's.
	signs := opendkim(t, dir, "sign", "Mode s\nInternalHosts 127.0.0.1\nKeyTable "+filepath.Join(dir, "keys")+"\nSigningTable refile:"+filepath.Join(dir, "signing")+"\n")
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
	// verdict returns what opendkim wrote into a message about its signature as it arrived.
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
			t.Fatalf("opendkim has not signed: %s", m)
		}
		return m[i+1:]
	}
	// now returns opendkim's verdict on a message as a mailbox has it.
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
				return verdict(messages[i])
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
		t.Fatalf("without a rule opendkim says %q", got)
	}
	if got := now(strings.Replace(signed(header("forged")+plain, "forged", "Hello\n"), "\n\nHello", "\n\nHullo", 1)); got != "fail" {
		t.Fatalf("of a changed message opendkim says %q", got)
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
			t.Errorf("%v: afterwards opendkim says %q, want %q", c.how, got, c.after)
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
		t.Errorf("of a released message opendkim says %q", got)
	}
	if got := now(s.received(carol, "held")); got != "pass" {
		t.Errorf("of a monitor's copy opendkim says %q", got)
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
		t.Errorf("of a message sent apart opendkim says %q", got)
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
		t.Errorf("of a redirected message opendkim says %q", got)
	}

	// What leaves is signed as Drawbridge has left it: with the trace, without the tag, and after it
	// was held.
	rule("outside", "warning", object{"action": object{"how": []string{"subject"}}})
	rule("held", "audit", object{"direction": "sent", "match": object{"subject": []string{"contract"}}, "action": object{"approvers": []string{carol}, "expires": "1h", "then": "reject"}})
	c, r := s.submit(outside, ann, s.passwords[ann])
	s.want("auth", r, "235 ")
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
			t.Errorf("of %s opendkim says %q", subject, got)
		}
	}
}
