// Package factor is the arithmetic of second factors: time-based codes (TOTP, RFC 6238), recovery
// codes, and the one-time codes that are sent to people.
//
//	secret, _ := factor.NewSecret()
//	factor.URI("Drawbridge", "ann@example.org", secret)  otpauth://totp/Drawbridge:ann@example.org?secret=…
//	step, ok := factor.Match(secret, "492039", now)      accepted once: remember the step
//
// # Codes
//
// A TOTP code has six digits (SHA-1, 30 seconds a step), and the steps before and after that of the
// clock are accepted as well. [Match] returns the step: a caller that accepts only later steps than
// the last one refuses replays. A recovery code is 10 characters, 50 random bits, and is typed as
// k7fm2-xq9hb. A proof is what a verified passkey is exchanged for, 26 characters, 128 bits.
//
// The package is pure but for crypto/rand: it has no clock, no I/O and no store, and does not limit
// guesses.
package factor

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6238; what authenticator apps implement
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"
)

// Kind is a kind of second factor, as the API and the store name it. Of these only [TOTP] is
// verified by this package: see [Match].
type Kind string

// The kinds.
const (
	TOTP     Kind = "totp"
	Passkey  Kind = "passkey"
	Recovery Kind = "recovery"
	Mail     Kind = "mail" // a one-time code to an address outside of the mailbox
	SMS      Kind = "sms"  // a one-time code to a telephone
)

const (
	period   = 30 // seconds of a step
	skew     = 1  // steps of difference that are accepted, each way
	digits   = 6
	secretSz = 20 // bytes, as long as SHA-1's result
)

// NewSecret returns a secret for time-based codes: 20 random bytes (RFC 4226 section 4). It is the caller's
// to wipe.
func NewSecret() ([]byte, error) {
	secret := make([]byte, secretSz)
	if _, err := rand.Read(secret); err != nil {
		return nil, fmt.Errorf("generating a secret for one-time codes: %w", err)
	}
	return secret, nil
}

var secretText = base32.StdEncoding.WithPadding(base32.NoPadding)

// Text returns a secret as people type it into an authenticator: base32 without padding (RFC 4648), 32
// characters for 20 bytes.
func Text(secret []byte) []byte { return secretText.AppendEncode(nil, secret) }

// URI returns what an authenticator reads from a QR code: an otpauth address with the secret in clear.
// Colons of the issuer are left out.
func URI(issuer, account string, secret []byte) string {
	u := url.URL{Scheme: "otpauth", Host: "totp", Path: "/" + strings.ReplaceAll(issuer, ":", "") + ":" + account}
	q := url.Values{
		"secret": {string(Text(secret))}, "issuer": {issuer},
		"algorithm": {"SHA1"}, "digits": {"6"}, "period": {"30"},
	}
	u.RawQuery = strings.ReplaceAll(q.Encode(), "+", "%20") // some authenticators show the plus
	return u.String()
}

// Step is the step of a time: the number of whole periods of 30 seconds since 1970 (RFC 6238 section 4).
func Step(t time.Time) int64 { return t.Unix() / period }

// CodeAt returns the code of a step: six digits with leading zeros, by HMAC-SHA-1 (RFC 4226 section 5.3).
func CodeAt(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	var counter [8]byte
	binary.BigEndian.PutUint64(counter[:], uint64(step)) //nolint:gosec // since 1970
	mac.Write(counter[:])
	sum := mac.Sum(nil)
	offset := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[offset:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", digits, n%1_000_000)
}

// Match returns the step that a code belongs to: the present one, the one before or the one after.
// All are compared.
func Match(secret []byte, code string, now time.Time) (step int64, ok bool) {
	at := Step(now)
	for s := at - skew; s <= at+skew; s++ {
		if subtle.ConstantTimeCompare([]byte(CodeAt(secret, s)), []byte(code)) == 1 {
			step, ok = s, true
		}
	}
	return step, ok
}

// NewCode returns a one-time code of six random digits, leading zeros included, for sending. It fails
// only if the system has no randomness.
func NewCode() (string, error) {
	n, err := rand.Int(rand.Reader, big.NewInt(1_000_000))
	if err != nil {
		return "", fmt.Errorf("generating a one-time code: %w", err)
	}
	return fmt.Sprintf("%0*d", digits, n.Int64()), nil
}

const (
	// alphabet is that of secure passwords: 32 characters without look-alikes.
	alphabet    = "abcdefghijkmnpqrstuvwxyz23456789"
	recoveryLen = 10
	proofLen    = 26
	// RecoveryCodes is the number of recovery codes that an account gets at once.
	RecoveryCodes = 10
)

// NewRecoveryCode returns a recovery code: 10 characters without look-alikes, 50 random bits, in two groups
// with a dash between them.
func NewRecoveryCode() (string, error) {
	code, err := letters(recoveryLen)
	if err != nil {
		return "", err
	}
	return code[:recoveryLen/2] + "-" + code[recoveryLen/2:], nil
}

// NewProof returns what stands for a verified passkey at one login: 26 characters, 130 random bits. The
// caller keeps it, and accepts it once.
func NewProof() (string, error) { return letters(proofLen) }

func letters(n int) (string, error) {
	b := make([]byte, n)
	if _, err := rand.Read(b); err != nil {
		return "", fmt.Errorf("generating a code: %w", err)
	}
	for i := range b {
		b[i] = alphabet[b[i]%32]
	}
	return string(b), nil
}

// Form is the form of what somebody typed, by its length and characters alone. The zero value is no code.
type Form uint8

// The forms.
const (
	Unreadable   Form = iota // no code at all
	DigitsForm               // a time-based code, or one that was sent
	RecoveryForm             // a recovery code
	ProofForm                // a proof
)

// Read returns a typed code in normal form, without spaces and dashes and in lower case; "" if it has the
// form of none. More than 64 bytes are never one.
func Read(typed string) (code string, form Form) {
	if len(typed) > 64 {
		return "", Unreadable
	}
	code = strings.ToLower(strings.NewReplacer(" ", "", "-", "").Replace(typed))
	outside := func(set string) bool {
		return strings.ContainsFunc(code, func(r rune) bool { return !strings.ContainsRune(set, r) })
	}
	switch {
	case len(code) == digits && !outside("0123456789"):
		return code, DigitsForm
	case len(code) == recoveryLen && !outside(alphabet):
		return code, RecoveryForm
	case len(code) == proofLen && !outside(alphabet):
		return code, ProofForm
	}
	return "", Unreadable
}
