package doveconf

import (
	"bytes"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	all, version, err := Parse(strings.NewReader(`# 2.3.19.1 (9b53102964): dovecot.conf
auth_policy_hash_nonce = # hidden, use -P to show it
auth_policy_server_url =
auth_realms = " a b "
namespace inbox {
  mailbox "a = b {" {
    special_use = \Sent
  }
}
passdb {
  args = a "b" \ c
  default_fields = "a=\"x\" # \\ "
}
passdb {
  driver = pam
}
`))
	if err != nil {
		t.Fatal(err)
	}
	settings := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	want := Section{
		Settings: settings("auth_policy_hash_nonce", "# hidden, use -P to show it", "auth_policy_server_url", "", "auth_realms", " a b "),
		Sections: []Section{
			{Kind: "namespace", Name: "inbox", Settings: settings(), Sections: []Section{{Kind: "mailbox", Name: "a = b {", Settings: settings("special_use", `\Sent`)}}},
			{Kind: "passdb", Settings: settings("args", `a "b" \ c`, "default_fields", `a="x" # \ `)},
			{Kind: "passdb", Settings: settings("driver", "pam")},
		},
	}
	if version != "2.3.19.1" || !reflect.DeepEqual(all, want) {
		t.Errorf("version %q\n%+v", version, all)
	}
	for text, what := range map[string]string{
		"}\n":                          "line 1: a } too many",
		"a = b\npassdb {\n":            "ends within passdb",
		"nonsense\n":                   "line 1 is neither",
		strings.Repeat("a {\n", 30):    "nested",
		strings.Repeat("a", maxLine+1): "too long",
	} {
		if _, _, err := Parse(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%.40q: %v, want %q", text, err, what)
		}
	}
}

// render prints a section as doveconf does.
func render(b *bytes.Buffer, s Section) {
	quote := func(v string) string {
		if v == strings.TrimSpace(v) && !strings.HasPrefix(v, `"`) {
			return v
		}
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
	}
	for _, name := range slices.Sorted(maps.Keys(s.Settings)) {
		fmt.Fprintf(b, "%s = %s\n", name, quote(s.Settings[name]))
	}
	for _, sub := range s.Sections {
		fmt.Fprintf(b, "%s %s {\n", sub.Kind, quote(sub.Name))
		render(b, sub)
		b.WriteString("}\n")
	}
}

// A section that was parsed, printed and parsed again is the same.
func FuzzParse(f *testing.F) {
	f.Add("passdb {\n driver = checkpassword\n args = %u\n}\nservice auth {\n vsz_limit = 18446744073709551615 B\n}\n")
	f.Add("a = \"\\\"\"\nb \"c {\" {\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, _, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		b.WriteString("# \n")
		render(&b, all)
		again, _, err := Parse(&b)
		if err != nil || !reflect.DeepEqual(all, again) {
			t.Fatalf("%v\n%+v\n%+v", err, all, again)
		}
	})
}
