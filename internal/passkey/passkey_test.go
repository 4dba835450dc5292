package passkey_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"testing"

	"github.com/drawbridge/drawbridge/internal/passkey"
)

const (
	ann    = "ann@example.org"
	origin = "https://mail.example.org:8443"
)

// authenticator has a passkey of ES256 without attestation, as a browser shows it to a page.
type authenticator struct {
	t       *testing.T
	key     *ecdsa.PrivateKey
	id      []byte
	origin  string // of the page that asks
	rp      string // the domain that the passkey is for
	counter uint32
}

func newAuthenticator(t *testing.T) *authenticator {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &authenticator{t: t, key: key, id: []byte(rand.Text()), origin: origin, rp: "mail.example.org"}
}

func text(s string) []byte { return append([]byte{0x60 + byte(len(s))}, s...) }

func bytesOf(b []byte) []byte {
	return append([]byte{0x59, byte(len(b) >> 8), byte(len(b))}, b...)
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// data is the authenticator data of WebAuthn section 6.1, with the public key if it is attested.
func (a *authenticator) data(attested bool) []byte {
	rp := sha256.Sum256([]byte(a.rp))
	flags := byte(0x05) // present and verified
	if attested {
		flags |= 0x40
	}
	b := append(rp[:], flags)
	b = binary.BigEndian.AppendUint32(b, a.counter)
	if !attested {
		return b
	}
	point, err := a.key.PublicKey.Bytes()
	if err != nil {
		a.t.Fatal(err)
	}
	b = append(b, make([]byte, 16)...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.id)))
	return join(b, a.id, []byte{0xa5, 0x01, 0x02, 0x03, 0x26, 0x20, 0x01, 0x21}, bytesOf(point[1:33]), []byte{0x22}, bytesOf(point[33:]))
}

// client is the client data, with the challenge of the options.
func (a *authenticator) client(kind string, options []byte) []byte {
	var o struct {
		PublicKey struct {
			Challenge string `json:"challenge"`
		} `json:"publicKey"`
	}
	if err := json.Unmarshal(options, &o); err != nil {
		a.t.Fatal(err)
	}
	return a.encode(map[string]any{"type": kind, "challenge": o.PublicKey.Challenge, "origin": a.origin, "crossOrigin": false})
}

func (a *authenticator) encode(v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

func (a *authenticator) response(fields map[string][]byte) []byte {
	r := map[string]string{}
	for name, b := range fields {
		r[name] = base64.RawURLEncoding.EncodeToString(b)
	}
	id := base64.RawURLEncoding.EncodeToString(a.id)
	return a.encode(map[string]any{"id": id, "rawId": id, "type": "public-key", "response": r})
}

func (a *authenticator) create(options []byte) []byte {
	object := join([]byte{0xa3}, text("fmt"), text("none"), text("attStmt"), []byte{0xa0}, text("authData"), bytesOf(a.data(true)))
	return a.response(map[string][]byte{"clientDataJSON": a.client("webauthn.create", options), "attestationObject": object})
}

func (a *authenticator) get(options []byte) []byte {
	client, data := a.client("webauthn.get", options), a.data(false)
	hash := sha256.Sum256(client)
	sum := sha256.Sum256(join(data, hash[:]))
	sig, err := ecdsa.SignASN1(rand.Reader, a.key, sum[:])
	if err != nil {
		a.t.Fatal(err)
	}
	return a.response(map[string][]byte{"clientDataJSON": client, "authenticatorData": data, "signature": sig})
}

// begun is a ceremony that was begun: what the browser and the site got.
type begun struct{ options, session []byte }

func begin(options, session []byte, err error) func(*testing.T) begun {
	return func(t *testing.T) begun {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return begun{options, session}
	}
}

// Of one passkey, registration and proof are accepted for the site's origin and domain, and refused
// for any other, for another account, challenge or key, and for a copy.
func TestCeremonies(t *testing.T) {
	t.Parallel()
	party, err := passkey.New(origin, "Drawbridge")
	if err != nil {
		t.Fatal(err)
	}
	phishing := map[string]func(*authenticator){
		"another site":                 func(a *authenticator) { a.origin = "https://evil.example" },
		"another port":                 func(a *authenticator) { a.origin = "https://mail.example.org" },
		"without TLS":                  func(a *authenticator) { a.origin = "http://mail.example.org:8443" },
		"a site below":                 func(a *authenticator) { a.origin = "https://x.mail.example.org:8443" },
		"a passkey of another domain":  func(a *authenticator) { a.rp = "evil.example" },
		"a passkey of a domain above":  func(a *authenticator) { a.rp = "example.org" },
		"a passkey of a domain's name": func(a *authenticator) { a.rp = origin },
	}
	for name, alter := range phishing {
		a := newAuthenticator(t)
		alter(a)
		b := begin(party.Register(ann, nil))(t)
		if _, err := party.Registered(ann, b.session, a.create(b.options)); !errors.Is(err, passkey.ErrRefused) {
			t.Errorf("registered by %s: %v", name, err)
		}
	}
	a := newAuthenticator(t)
	b := begin(party.Register(ann, nil))(t)
	other := begin(party.Register(ann, nil))(t)
	if _, err := party.Registered(ann, b.session, a.create(other.options)); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("registered with another challenge: %v", err)
	}
	if _, err := party.Registered("bob@example.org", b.session, a.create(b.options)); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("registered for another account: %v", err)
	}
	key, err := party.Registered(ann, b.session, a.create(b.options))
	if err != nil {
		t.Fatal(err)
	}
	keys := [][]byte{key}

	asserted := func(a *authenticator, account string) error {
		t.Helper()
		b := begin(party.Assert(account, keys))(t)
		_, updated, err := party.Asserted(account, keys, b.session, a.get(b.options))
		if err == nil {
			keys = [][]byte{updated}
		}
		return err
	}
	for name, alter := range phishing {
		phished := *a
		alter(&phished)
		if err := asserted(&phished, ann); !errors.Is(err, passkey.ErrRefused) {
			t.Errorf("proved at %s: %v", name, err)
		}
	}
	forged := newAuthenticator(t)
	forged.id = a.id
	if err := asserted(forged, ann); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("proved by another key: %v", err)
	}
	if err := asserted(newAuthenticator(t), ann); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("proved by an unknown passkey: %v", err)
	}
	b = begin(party.Assert(ann, keys))(t)
	other = begin(party.Assert(ann, keys))(t)
	if _, _, err := party.Asserted(ann, keys, other.session, a.get(b.options)); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("proved for another challenge: %v", err)
	}
	for _, count := range []uint32{0, 7, 8} {
		a.counter = count
		if err := asserted(a, ann); err != nil {
			t.Errorf("with the counter at %d: %v", count, err)
		}
	}
	a.counter = 8
	if err := asserted(a, ann); !errors.Is(err, passkey.ErrRefused) {
		t.Errorf("a copy, whose counter did not grow: %v", err)
	}
}
