package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/oauth2-proxy/mockoidc"
)

// signOns are an OpenID provider and a webmail that log users in, and a certificate for profiles.
type signOns struct {
	*mockoidc.MockOIDC
	key      []byte // of the webmail
	settings map[string]any
}

const webmailOrigin = "https://webmail.example.org"

func newSignOns(t *testing.T) *signOns {
	t.Helper()
	m, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Shutdown() })
	dir := t.TempDir()
	p := &signOns{MockOIDC: m, key: []byte(rand.Text() + rand.Text())}
	file := func(name string, text []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate})
	private = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	p.settings = map[string]any{
		"console.oidc_issuer": m.Issuer(), "console.oidc_client_id": m.Config().ClientID, "console.oidc_client_secret_file": file("secret", []byte(m.Config().ClientSecret)),
		"console.oidc_name": "Example <login>", "console.oidc_domains": []string{"example.org"},
		"console.profile_certificate": file("cert.pem", certificate), "console.profile_key": file("key.pem", private),
		"console.handover_origin": webmailOrigin, "console.handover_key_file": file("key", p.key),
	}
	return p
}

// token is what the webmail signs to hand a user over.
func (p *signOns) token(s *site, base, account string, now time.Time) string {
	s.t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: p.key}, nil)
	s.must(err)
	text, err := jwt.Signed(signer).Claims(jwt.Claims{
		Audience: jwt.Audience{base}, Subject: account, ID: rand.Text(), IssuedAt: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(now.Add(time.Minute)),
	}).Serialize()
	s.must(err)
	return text
}

// test logs users in by the provider and from webmail: as the account that they name, with its second
// factor, and by its rules.
func (p *signOns) test(s *site) {
	const carol = "carol@example.org"
	base := s.Daemons[0].PagesURL()
	at := func(email string, verified bool) *browser {
		p.QueueUser(&mockoidc.MockUser{Subject: email, Email: email, EmailVerified: verified})
		b := s.browse(outside)
		b.base = base
		return b
	}
	b := at(carol, true)
	b.shows("the button", b.get("/account/login"), 200, "Log in with Example <login>")
	b.shows("by the provider", b.get("/account/oidc?next=/account/devices/new"), 200, "Logged in")
	b.shows("logged in", b.get("/account"), 200, "My devices")
	s.record("account="+carol+"&client=console", func(r object) bool { return r["mechanism"] == "OIDC" && r["outcome"] == "allow" && r["ip"] == outside })
	for email, verified := range map[string]bool{carol: false, "eve@example.net": true, "unknown@example.org": true} {
		b := at(email, verified)
		b.shows(email, b.get("/account/oidc"), 401, "The login was refused")
		b.shows("not logged in", b.get("/account"), 200, "Mailbox password")
	}
	s.api("PATCH", "/v1/accounts/"+carol, object{"suspended": true})
	b = at(carol, true)
	if got := b.get("/account/oidc"); got.status == 200 {
		s.t.Error("a suspended account logs in")
	}
	s.api("PATCH", "/v1/accounts/"+carol, object{"suspended": false})

	// A second factor.
	made := s.api("POST", "/v1/accounts/"+carol+"/second-factors/totp", object{"label": "phone"})
	secret := made["secret"].(string)
	s.api("POST", "/v1/accounts/"+carol+"/second-factors/"+made["id"].(string)+"/confirm", object{"code": s.otp(secret, -1)})
	b = at(carol, true)
	asked := b.shows("its factor is asked for", b.get("/account/oidc"), 200, "Show a second factor to log in")
	b.shows("not logged in yet", b.get("/account"), 200, "Mailbox password")
	b.shows("the code", b.post("/account/login/factor", "token", b.field(asked, "token"), "code", s.otp(secret, 0)), 200, "My devices")
	s.api("DELETE", "/v1/accounts/"+carol+"/second-factors", nil)

	// From webmail.
	token := func(account string) string { return p.token(s, base, account, time.Now()) }
	b = s.browse(outside)
	b.base, b.header = base, http.Header{"Origin": {webmailOrigin}, "Sec-Fetch-Site": {"cross-site"}}
	once := token(carol)
	b.shows("handed over", b.post("/account/handover", "token", once), 200, "Logged in")
	b.shows("used twice", b.post("/account/handover", "token", once), 401, "The login was refused")
	b.header = http.Header{}
	b.shows("logged in", b.get("/account"), 200, "My devices")
	s.record("account="+carol+"&client=console", func(r object) bool { return r["mechanism"] == "HANDOVER" && r["outcome"] == "allow" })
	evil := s.browse(outside)
	evil.base, evil.header = base, http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}}
	evil.shows("another site's form", evil.post("/account/handover", "token", token(carol)), 401, "The login was refused")
	if strings.Contains(evil.get("/account").text, "My devices") {
		s.t.Error("another site logs a browser in")
	}
}
