package dovecot_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/checkpassword"
	"github.com/drawbridge/drawbridge/contrib/dovecot"
)

// luaWord is what the script calls one of checkpassword's answers.
func luaWord(s checkpassword.Speech) string {
	switch {
	case s.Fields == checkpassword.TellWhy:
		return "nologin"
	case s.Fields == checkpassword.PassOn:
		return "next"
	case s.Fields == checkpassword.AdmitUser:
		return "ok"
	case s.Status == 1:
		return "mismatch"
	case s.Status == 3:
		return "unknown"
	}
	return "internal"
}

// Both passdbs answer a decision alike: the script's table is the one of checkpassword.
func TestScriptHasCheckpasswordsWords(t *testing.T) {
	var want strings.Builder
	want.WriteString("local words = {\n")
	for _, asker := range []struct {
		name string
		is   checkpassword.Asker
	}{
		{"proxy", checkpassword.LoginProxy},
		{"dovecot", checkpassword.Dovecot},
		{"sasl", checkpassword.SASL},
		{"lookup", checkpassword.DovecotLookup},
	} {
		word := func(o checkpassword.Outcome, withText bool) string {
			return luaWord(checkpassword.Words(o, asker.is, withText))
		}
		fmt.Fprintf(&want, "  %s = { allow = %q, deny = %q, deny_text = %q, next = %q, tempfail = %q },\n", asker.name,
			word(checkpassword.Allow, false), word(checkpassword.Deny, false), word(checkpassword.Deny, true),
			word(checkpassword.Next, false), word(checkpassword.TempFail, false))
	}
	want.WriteString("}\n")
	_, rest, _ := strings.Cut(dovecot.Script(), "-- BEGIN words")
	_, rest, _ = strings.Cut(rest, "\n")
	got, _, _ := strings.Cut(rest, "-- END words")
	if got != want.String() {
		t.Errorf("drawbridge.lua has\n%s\nwant\n%s", got, want.String())
	}
}

// Defining a cache key would answer one password by another's; a nologin to Postfix would admit.
func TestScriptDefinesNoCacheKey(t *testing.T) {
	if strings.Contains(dovecot.Script(), "get_cache_key") {
		t.Error("the script defines a cache key")
	}
	for _, line := range []string{"result_success = return-ok", "result_failure = return-fail", "result_internalfail = return-fail"} {
		if !strings.Contains(dovecot.Conf24(), "\n  "+line+"\n") {
			t.Errorf("the snippet for 2.4 lacks %q", line)
		}
	}
}
