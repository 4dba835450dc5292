package credential

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"testing"
)

// One password is verified in every Unicode spelling, and so are hashes of spellings other than
// NFC, which are outdated.
func TestPasswordSpellings(t *testing.T) {
	ctx, h := context.Background(), NewHasher(0)
	const composed, decomposed = "gr\u00fc\u00dfe-\u00e9", "gru\u0308\u00dfe-e\u0301"
	for _, set := range []string{composed, decomposed} {
		stored, err := h.Hash(ctx, []byte(set))
		if err != nil {
			t.Fatal(err)
		}
		for _, typed := range []string{composed, decomposed} {
			if ok, outdated, err := h.Verify(ctx, stored, []byte(typed)); !ok || outdated || err != nil {
				t.Errorf("hash of %+q, typed %+q: %t, outdated %t, %v", set, typed, ok, outdated, err)
			}
		}
		if ok, _, _ := h.Verify(ctx, stored, []byte("gruss-e")); ok {
			t.Error("another password matches")
		}
	}
	sum := sha256.Sum256([]byte(decomposed))
	older := "{SHA256}" + base64.StdEncoding.EncodeToString(sum[:])
	for _, typed := range []string{composed, decomposed} {
		if ok, outdated, err := h.Verify(ctx, older, []byte(typed)); !ok || !outdated || err != nil {
			t.Errorf("an older hash, typed %+q: %t, outdated %t, %v", typed, ok, outdated, err)
		}
	}
}

// Secure passwords are read as mail programs and word processors paste them.
func TestPastedSecrets(t *testing.T) {
	secret, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	s := string(secret)
	wide := ""
	for _, c := range s {
		wide += string(c + 0xff01 - '!')
	}
	group := func(sep string) string { return s[:4] + sep + s[4:8] + sep + s[8:12] + sep + s[12:] }
	for name, typed := range map[string]string{
		"no-break space": group("\u00a0"), "no-break hyphen": group("\u2011"), "en dash": group("\u2013"),
		"zero-width space": group("\u200b"), "byte order mark": "\ufeff" + s, "full-width": wide, "minus": group("\u2212"),
	} {
		if got, ok := Normalise([]byte(typed)); !ok || string(got) != s {
			t.Errorf("%s: %q is not read", name, typed)
		}
	}
	mistyped := []byte(group("\u2011"))
	for i, c := range mistyped[:4] {
		if c != 'a' {
			mistyped[i] = 'a'
			break
		}
	}
	if _, ok := Normalise(mistyped); ok || !Shaped(mistyped) {
		t.Errorf("%q is not recognised as a mistyped secure password", mistyped)
	}
}
