package factor

import (
	"net/url"
	"strings"
	"testing"
	"time"
)

// RFC 6238 appendix B, SHA-1, cut to six digits.
func TestCodesOfTheRFC(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, want := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		if got := CodeAt(secret, Step(time.Unix(at, 0))); got != want {
			t.Errorf("at %d: %s, want %s", at, got, want)
		}
	}
}

// A clock may be a step off, either way, and not two.
func TestSkew(t *testing.T) {
	secret, err := NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1_700_000_000, 0)
	for off := int64(-3); off <= 3; off++ {
		code := CodeAt(secret, Step(now)+off)
		step, ok := Match(secret, code, now)
		if want := -1 <= off && off <= 1; ok != want || ok && step != Step(now)+off {
			t.Errorf("%d steps off: %v, step %d", off, ok, step-Step(now))
		}
	}
	if _, ok := Match(secret, "", now); ok {
		t.Error("no code is a code")
	}
}

func TestURI(t *testing.T) {
	u, err := url.Parse(URI("Mail: example.org", "ann+x@example.org", []byte("12345678901234567890")))
	if err != nil {
		t.Fatal(err)
	}
	if u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/Mail example.org:ann+x@example.org" ||
		u.Query().Get("secret") != "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" || u.Query().Get("issuer") != "Mail: example.org" || strings.Contains(u.RawQuery, "+") {
		t.Errorf("%s", u)
	}
}

func TestRead(t *testing.T) {
	recovery, err := NewRecoveryCode()
	if err != nil {
		t.Fatal(err)
	}
	proof, err := NewProof()
	if err != nil {
		t.Fatal(err)
	}
	code, err := NewCode()
	if err != nil {
		t.Fatal(err)
	}
	bare := strings.ReplaceAll(recovery, "-", "")
	for typed, want := range map[string]struct {
		code string
		form Form
	}{
		"492 039": {"492039", DigitsForm}, code: {code, DigitsForm},
		recovery: {bare, RecoveryForm}, strings.ToUpper(recovery): {bare, RecoveryForm}, proof: {proof, ProofForm},
		"": {}, "49203": {}, "4920391": {}, "４９２０３９": {}, "l0l0l0l0l0": {}, strings.Repeat("a", 100): {}, strings.Repeat(" ", 60) + "492039": {},
	} {
		if got, form := Read(typed); got != want.code || form != want.form {
			t.Errorf("%q: %q %d, want %q %d", typed, got, form, want.code, want.form)
		}
	}
}
