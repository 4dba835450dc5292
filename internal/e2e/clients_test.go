package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// evidence says what proves a client type, and returns the codes of the warnings.
func (s *site) evidence(name string, evidence object) (warnings []string) {
	s.t.Helper()
	a := s.api("PUT", "/v1/client-types/"+name, object{"evidence": []object{evidence}})
	list, _ := a["warnings"].([]any)
	for _, w := range list {
		warnings = append(warnings, w.(object)["code"].(string))
	}
	return warnings
}

// imaps logs in over TLS as a client of any kind, after telling an ID, and returns the server's
// words.
func (s *site) imaps(c mailclient.Client, id []string) string {
	s.t.Helper()
	conn, err := c.IMAPS(s.ctx, s.IMAPS())
	s.must(err)
	defer func() { _ = conn.Close() }()
	if id != nil {
		_, err = conn.ID(id...)
		s.must(err)
	}
	r, err := conn.Login(ann, s.passwords[ann])
	s.must(err)
	return r.Status
}

// smtps logs in at the submission service with TLS from the start, and keeps the session.
func (s *site) smtps(from, hello string) (*mailclient.SMTP, string) {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.SMTPS(s.ctx, s.SMTPS())
	s.must(err)
	s.t.Cleanup(func() { _ = c.Close() })
	_, err = c.Command("EHLO " + hello)
	s.must(err)
	r, err := c.Authenticate(ann, s.passwords[ann])
	s.must(err)
	return c, r
}

func port(s *site, address string) int {
	s.t.Helper()
	_, text, err := net.SplitHostPort(address)
	s.must(err)
	n, err := strconv.Atoi(text)
	s.must(err)
	return n
}

// clientCertificate is its own issuer, whose PEM is the authority's as well.
func clientCertificate(t *testing.T, name string) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// F12, F28: what kind of program logs in, by what the servers tell of it, and the settings of
// former days.
func TestClientTypes(t *testing.T) {
	t.Parallel()
	certificate, authority := clientCertificate(t, "ann's laptop")
	dir := t.TempDir()
	ca := filepath.Join(dir, "clients.pem")
	if err := os.WriteFile(ca, authority, 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, trialstack.Options{
		SASLServices: true,
		Settings:     map[string]any{"login.services": map[string]string{"submission587": "smtp", "submission465": "smtp"}},
		DovecotConf: bySeries(t,
			"ssl_ca = <"+ca+"\nssl_require_crl = no\nssl_verify_client_cert = yes\n",
			"ssl_server_ca_file = "+ca+"\nssl_server_require_crl = no\nssl_server_request_client_cert = yes\n"),
	})
	s.domain(object{"third_party_access": object{"allow": false}})
	pw := s.passwords[ann]

	t.Run("what a program says of itself proves nothing", func(t *testing.T) {
		s := s.in(t)
		names, ports := []string{"clients.example.org"}, []int{port(s, s.IMAPS())}
		if w := s.evidence("native-desktop", object{"networks": []string{office}, "server_names": names, "local_ports": ports}); len(w) != 1 || w[0] != "not_at_postfix" {
			t.Errorf("warnings %q", w)
		}
		id := []string{"name", "native-desktop", "vendor", "example.org", "x-originating-ip", office, "x-connected-ip", office}
		s.refuse("the right name and port, from elsewhere", s.imaps(mailclient.Client{From: outside, ServerName: names[0]}, id), "OK ")
		s.refuse("without the name", s.imaps(mailclient.Client{From: office}, nil), "OK ")
		s.refuse("with another name", s.imaps(mailclient.Client{From: office, ServerName: "mail.example.org"}, nil), "OK ")
		s.refuse("on another port", s.imap(office, ann, pw), "OK ")
		s.want("all of it", s.imaps(mailclient.Client{From: office, ServerName: "CLIENTS.example.org"}, nil), "OK ")
		r := s.record("account="+ann+"&ip="+outside, func(object) bool { return true })
		if label, _ := r["client_id"].(string); r["client"] != "third-party" || !strings.Contains(label, "native-desktop") {
			t.Errorf("the record: %v", r)
		}
		_, reply := s.smtps(office, names[0])
		s.refuse("submission, which tells neither name nor port, whatever it says at EHLO", reply, "235 ")
	})
	t.Run("a listener of Postfix by its service", func(t *testing.T) {
		s := s.in(t)
		if w := s.evidence("native-desktop", object{"networks": []string{office}, "services": []string{"submission465"}}); w != nil {
			t.Errorf("warnings %q", w)
		}
		s.refuse("at the other listener", s.smtp(office, ann, pw), "235 ")
		_, reply := s.smtps(outside, "mail.example.org")
		s.refuse("from elsewhere", reply, "235 ")
		open, reply := s.smtps(office, "mail.example.org")
		s.want("at its listener", reply, "235 ")
		s.want("and on in the session", s.send(open, ann, bob, "From: "+ann+"\nSubject: by service\n\nHello\n"), "250 ")
		// The session stays what it was, and rules for that hold at once.
		s.policy("no-desktop", "blacklist", everybody(), object{"clients": []string{"native-desktop"}})
		if r, err := open.Mail(ann); err != nil || strings.HasPrefix(r, "250 ") {
			s.must(err)
			r, err = open.Recipient(bob)
			s.must(err)
			s.want("the open session", r, "554 5.7.1 ")
		}
		s.api("DELETE", policies+"/no-desktop", nil)
	})
	t.Run("a certificate that Dovecot verified", func(t *testing.T) {
		s := s.in(t)
		if w := s.evidence("native-desktop", object{"client_cert": "valid", "services": []string{"imap"}}); w != nil {
			t.Errorf("warnings %q", w)
		}
		foreign, _ := clientCertificate(t, "ann's laptop")
		s.want("shown", s.imaps(mailclient.Client{From: outside, Certificates: []tls.Certificate{certificate}}, nil), "OK ")
		s.refuse("not shown", s.imaps(mailclient.Client{From: outside}, nil), "OK ")
		s.refuse("of another authority", s.imaps(mailclient.Client{From: outside, Certificates: []tls.Certificate{foreign}}, nil), "OK ")
		s.api("DELETE", "/v1/client-types/native-desktop", nil)
	})
	t.Run("cloud fetchers by a list of prefixes", func(t *testing.T) {
		s := s.in(t)
		list := filepath.Join(dir, "fetchers")
		text := "# their published ranges\n192.0.2.0/24\n\n" + outside + " # from tomorrow\n2001:db8::/32\n"
		s.must(os.WriteFile(list, []byte(text), 0o600))
		out, err := s.Daemons[0].Command(s.ctx, "client-type", "set", "cloud-fetcher", "--network-file", list).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		s.refuse("blocked like any third party", s.imap(outside, ann, pw), "OK ")
		s.record("account="+ann+"&policy=third-party-access&ip="+outside, func(r object) bool { return r["client"] == "cloud-fetcher" })
		s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true})
		s.policy("no-fetchers", "blacklist", everybody(), object{"clients": []string{"cloud-fetcher"}})
		s.refuse("by a policy for them", s.imap(outside, ann, pw), "OK ")
		s.want("which concerns no others", s.imap(office, ann, pw), "OK ")
		s.api("DELETE", policies+"/no-fetchers", nil)
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"imap": false}})
		s.refuse("the protocol's switch binds them", s.imap(outside, ann, pw), "OK ")
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"imap": nil}})
		s.api("DELETE", "/v1/client-types/cloud-fetcher", nil)
	})
	t.Run("old settings", func(t *testing.T) {
		s := s.in(t)
		const phones = "127.0.3.3"
		s.evidence("native-mobile", object{"networks": []string{phones}})
		former := object{
			"third_party_allowed": false, "secure_login_ips": []string{office},
			"native_clients": []object{{"client": "native-mobile", "allowed": false, "scope": object{"members": []string{bob}}}},
		}
		if a := s.api("POST", policies+"/migrate?dry_run=true", former); a["created"] != 1.0 || a["changed"] != 1.0 {
			t.Errorf("the preview: %v", a)
		}
		s.want("before, from elsewhere", s.imap(outside, ann, pw), "OK ")
		s.want("before, bob's phone", s.imap(phones, bob, s.passwords[bob]), "OK ")
		made := s.api("POST", policies+"/migrate", former)
		for _, d := range doors {
			s.refuse(d.name+" from elsewhere", d.login(s, outside, ann, pw), d.yes)
			s.want(d.name+" from a secure address", d.login(s, office, ann, pw), d.yes)
			s.want(d.name+" by ann's phone", d.login(s, phones, ann, pw), d.yes)
			s.refuse(d.name+" by bob's phone", d.login(s, phones, bob, s.passwords[bob]), d.yes)
			s.want(d.name+" by webmail", d.login(s, webmail, bob, s.passwords[bob]), d.yes)
		}
		id := made["policies"].([]any)[1].(object)["id"].(string)
		s.record("account="+bob+"&policy="+id, func(r object) bool { return r["client"] == "native-mobile" })
		if a := s.api("POST", policies+"/migrate", former); a["created"] != 0.0 || a["changed"] != 0.0 {
			t.Errorf("again: %v", a)
		}
	})
}
