// Package passkey carries out the ceremonies of WebAuthn: the registration of a passkey, and the proof
// that somebody has it. It turns the JSON of a browser into bytes that a store keeps, and back.
//
//	options, session, _ := party.Register("ann@example.org", registered)
//	                                   navigator.credentials.create({publicKey: options.publicKey})
//	credential, err := party.Registered("ann@example.org", session, response)
//
//	options, session, _ = party.Assert("ann@example.org", registered)
//	                                   navigator.credentials.get({publicKey: options.publicKey})
//	which, updated, err := party.Asserted("ann@example.org", registered, session, response)
//
// A session must be used once. The origin and the domain that the browser saw are verified by
// go-webauthn; attestation is not asked for.
package passkey

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/webauthn"
)

// Party is the site that passkeys are registered at.
type Party struct{ w *webauthn.WebAuthn }

// New returns the party of an origin, such as https://mail.example.org. Browsers permit passkeys on
// https and on localhost.
func New(origin, name string) (*Party, error) {
	u, err := url.Parse(origin)
	if err != nil {
		return nil, fmt.Errorf("reading the origin of passkeys: %w", err)
	}
	w, err := webauthn.New(&webauthn.Config{RPID: u.Hostname(), RPDisplayName: name, RPOrigins: []string{u.Scheme + "://" + u.Host}})
	if err != nil {
		return nil, fmt.Errorf("preparing passkeys of %s: %w", origin, err)
	}
	return &Party{w}, nil
}

// user is an account with its passkeys.
type user struct {
	account     string
	credentials []webauthn.Credential
}

// WebAuthnID is the user handle: it names the account without showing it.
func (u *user) WebAuthnID() []byte {
	sum := sha256.Sum256([]byte("drawbridge passkey\x00" + u.account))
	return sum[:]
}
func (u *user) WebAuthnName() string                       { return u.account }
func (u *user) WebAuthnDisplayName() string                { return u.account }
func (u *user) WebAuthnCredentials() []webauthn.Credential { return u.credentials }

func userOf(account string, registered [][]byte) (*user, error) {
	u := &user{account: account, credentials: make([]webauthn.Credential, len(registered))}
	for i, b := range registered {
		if err := json.Unmarshal(b, &u.credentials[i]); err != nil {
			return nil, fmt.Errorf("reading a passkey: %w", err)
		}
	}
	return u, nil
}

// Register begins the registration of a passkey. Authenticators that have one of the registered
// ones already are excluded.
func (p *Party) Register(account string, registered [][]byte) (options, session []byte, err error) {
	u, err := userOf(account, registered)
	if err != nil {
		return nil, nil, err
	}
	exclude := webauthn.Credentials(u.credentials).CredentialDescriptors()
	creation, s, err := p.w.BeginRegistration(u, webauthn.WithExclusions(exclude))
	return encode(creation, s, err)
}

func encode(options any, s *webauthn.SessionData, err error) ([]byte, []byte, error) {
	if err != nil {
		return nil, nil, fmt.Errorf("beginning with a passkey: %w", err)
	}
	o, err1 := json.Marshal(options)
	session, err2 := json.Marshal(s)
	return o, session, errors.Join(err1, err2)
}

// ErrRefused reports that the response does not prove a passkey.
var ErrRefused = errors.New("the passkey is not accepted")

func refused(err error) error {
	if p := new(protocol.Error); errors.As(err, &p) {
		return fmt.Errorf("%w: %s", ErrRefused, p.Details)
	}
	return fmt.Errorf("%w: %w", ErrRefused, err)
}

// Registered ends a registration and returns the passkey to be kept.
func (p *Party) Registered(account string, session, response []byte) ([]byte, error) {
	var s webauthn.SessionData
	if err := json.Unmarshal(session, &s); err != nil {
		return nil, fmt.Errorf("reading the registration of a passkey: %w", err)
	}
	parsed, err := protocol.ParseCredentialCreationResponseBytes(response)
	if err != nil {
		return nil, refused(err)
	}
	c, err := p.w.CreateCredential(&user{account: account}, s, parsed)
	if err != nil {
		return nil, refused(err)
	}
	c.Attestation = webauthn.CredentialAttestation{} // kilobytes that nobody verifies
	return json.Marshal(c)
}

// Assert begins a proof with one of the registered passkeys.
func (p *Party) Assert(account string, registered [][]byte) (options, session []byte, err error) {
	u, err := userOf(account, registered)
	if err != nil {
		return nil, nil, err
	}
	assertion, s, err := p.w.BeginLogin(u)
	return encode(assertion, s, err)
}

// Asserted ends a proof. It returns which of the registered passkeys it was, and what to keep in its
// place. A counter that did not grow belongs to a copy and is refused.
func (p *Party) Asserted(account string, registered [][]byte, session, response []byte) (which int, updated []byte, err error) {
	u, err := userOf(account, registered)
	if err != nil {
		return 0, nil, err
	}
	var s webauthn.SessionData
	if err := json.Unmarshal(session, &s); err != nil {
		return 0, nil, fmt.Errorf("reading the challenge of a passkey: %w", err)
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(response)
	if err != nil {
		return 0, nil, refused(err)
	}
	c, err := p.w.ValidateLogin(u, s, parsed)
	switch {
	case err != nil:
		return 0, nil, refused(err)
	case c.Authenticator.CloneWarning:
		return 0, nil, fmt.Errorf("%w: its counter did not grow: there may be a copy", ErrRefused)
	}
	for i := range u.credentials {
		if bytes.Equal(u.credentials[i].ID, c.ID) {
			updated, err = json.Marshal(c)
			return i, updated, err
		}
	}
	return 0, nil, ErrRefused
}
