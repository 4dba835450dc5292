package phonesetup

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

var settings = &Settings{
	Account: "ann@example.org", Device: `<b>"&`, Secret: []byte("abcd efgh"),
	IMAP: Server{"mail.example.org", 993}, SMTP: Server{"mail.example.org", 587},
}

func TestThunderbird(t *testing.T) {
	got, err := Thunderbird(settings)
	want := `[1,[1,1],[0,"mail.example.org",993,3,1,"ann@example.org","ann@example.org","abcd efgh"],` +
		`[[[0,"mail.example.org",587,2,1,"ann@example.org","abcd efgh"],["ann@example.org","ann@example.org"]]]]`
	if err != nil || got != want {
		t.Errorf("%s, %v", got, err)
	}
}

func apple(t *testing.T, s *Settings) string {
	t.Helper()
	b, err := Apple(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// openssl, which is none of ours, verifies a signed profile and finds the profile in it; a change of one
// byte is noticed, and so is another certificate.
func TestSignedProfile(t *testing.T) {
	dir := t.TempDir()
	openssl := func(args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), "openssl", args...)
		cmd.Dir = dir
		out, err := cmd.Output()
		return string(out), err
	}
	must := func(args ...string) {
		t.Helper()
		if out, err := openssl(args...); err != nil {
			t.Fatalf("openssl %q: %v %s", args, err, out)
		}
	}
	for _, kind := range [][]string{{"-newkey", "rsa:2048"}, {"-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"}} {
		ca := append([]string{"req", "-x509", "-nodes", "-subj", "/CN=CA", "-keyout", "ca.key", "-out", "ca.pem"}, kind...)
		must(ca...)
		must(append([]string{"req", "-new", "-nodes", "-subj", "/CN=mail.example.org", "-keyout", "key.pem", "-out", "csr.pem"}, kind...)...)
		must("x509", "-req", "-in", "csr.pem", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", "cert.pem")
		must("req", "-x509", "-nodes", "-subj", "/CN=CA", "-keyout", "other.key", "-out", "other.pem", "-newkey", "rsa:2048")
		pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		key, ok := pair.PrivateKey.(crypto.Signer)
		if !ok {
			t.Fatalf("a key of %T", pair.PrivateKey)
		}
		s := *settings
		s.Signer = &Signer{Chain: []*x509.Certificate{pair.Leaf}, Key: key}
		signed := apple(t, &s)
		if err := os.WriteFile(filepath.Join(dir, "signed"), []byte(signed), 0o600); err != nil {
			t.Fatal(err)
		}
		verify := []string{"smime", "-verify", "-binary", "-inform", "DER", "-in", "signed", "-purpose", "any", "-CAfile"}
		if got, err := openssl(append(verify, "ca.pem")...); err != nil || got != apple(t, settings) {
			t.Errorf("%v: %v: %.200q", kind, err, got)
		}
		if _, err := openssl(append(verify, "other.pem")...); err == nil {
			t.Errorf("%v: the certificate of another authority is accepted", kind)
		}
		forged := strings.Replace(signed, "mail.example.org", "evil.example.org", 1)
		if err := os.WriteFile(filepath.Join(dir, "signed"), []byte(forged), 0o600); err != nil || forged == signed {
			t.Fatal(err, "nothing to forge")
		}
		if _, err := openssl(append(verify, "ca.pem")...); err == nil {
			t.Errorf("%v: a changed profile is accepted", kind)
		}
	}
}

func TestApple(t *testing.T) {
	profile := apple(t, settings)
	if err := xml.Unmarshal([]byte(profile), new(struct{})); err != nil {
		t.Fatalf("%v: %s", err, profile)
	}
	for _, want := range []string{
		"<string>com.apple.mail.managed</string>", "<key>IncomingPassword</key><string>abcd efgh</string>",
		"<key>OutgoingPassword</key><string>abcd efgh</string>", "<key>OutgoingMailServerPortNumber</key><integer>587</integer>",
	} {
		if !strings.Contains(profile, want) {
			t.Errorf("no %s in %s", want, profile)
		}
	}
	other := *settings
	other.Device = "other"
	if apple(t, settings) != profile || apple(t, &other) == profile {
		t.Error("identifiers are not those of account and device")
	}
}

func TestQR(t *testing.T) {
	svg, err := QR("https://mail.example.org/account/phone/ABC", `"><script>`)
	if err != nil || strings.Contains(svg, "<script") || !strings.HasPrefix(svg, "<svg") {
		t.Errorf("%v %s", err, svg)
	}
	if err := xml.Unmarshal([]byte(svg), new(struct{})); err != nil {
		t.Error(err)
	}
	if _, err := QR(strings.Repeat("x", 5000), ""); err == nil {
		t.Error("5000 characters fit")
	}
}

func TestServer(t *testing.T) {
	for text, want := range map[string]bool{"h:993": true, "h:143": false, "h:587": false, "h:465": true, "h:10993": true, "h:24465": true, "h:24587": false, "h:10587": false, "": false} {
		if s := ParseServer(text); s.TLS() != want || s.Known() != (text != "") {
			t.Errorf("%q: %+v", text, s)
		}
	}
}
