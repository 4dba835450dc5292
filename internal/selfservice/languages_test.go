package selfservice

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/web"
)

var translated = regexp.MustCompile(`\.T[ (]"((?:[^"\\]|\\.)*)"`)

// Every text of the users' pages is in every language, with the same verbs of formatting.
func TestLanguages(t *testing.T) {
	var texts []string
	collect := func(b []byte) {
		for _, m := range translated.FindAllSubmatch(b, -1) {
			texts = append(texts, string(m[1]))
		}
	}
	err := fs.WalkDir(files, ".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			b, err := files.ReadFile(path)
			collect(b)
			return err
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, source := range []string{"selfservice.go", "login.go", "password.go", "devices.go", "factors.go", "../web/language.go", "../web/page.go", "../web/session.go", "../signon/signon.go"} {
		b, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		collect(b)
	}
	if len(texts) < 100 {
		t.Fatalf("only %d texts were found", len(texts))
	}
	all := new(web.Language).Languages()
	if len(all) < 3 {
		t.Fatalf("%d languages", len(all))
	}
	for _, l := range all {
		for _, text := range texts {
			if !l.Has(text) {
				t.Errorf("%s lacks %q", l.Code, text)
			}
			if got := l.T(text); strings.Join(verbs.FindAllString(got, -1), " ") != strings.Join(verbs.FindAllString(text, -1), " ") {
				t.Errorf("%s: %q for %q", l.Code, got, text)
			}
		}
	}
}

// detailed finds what faults say in source text, with their codes.
var detailed = regexp.MustCompile(`(?:(?:\badd|fault)\(|(?:\.Add|Parameter)\([^,()\n]+(?:\([^()]*\))?, )"([a-z_]+)", "((?:[^"\\]|\\.)*)"`)

var verbs = regexp.MustCompile(`%(?:\.0)?[sdqfv]`)

// codes finds the codes of problems and faults in source text.
var codes = regexp.MustCompile(`(?:(?:Conflict|TooMany|Unavailable|Unproven|\badd|fault)\(|(?:Refuse|\.Add|Parameter)\([^,()\n]+(?:\([^()]*\))?, |\bCode: )"([a-z][a-z_]{2,})"`)

// Every problem that a user can meet on the pages is described in the language of the page, by its code.
func TestProblemsInLanguage(t *testing.T) {
	const here = "../"
	var sources []string
	for _, pattern := range []string{
		"admin/accounts.go", "admin/caller.go", "admin/domain.go", "admin/logins.go", "admin/mailboxpassword.go", "admin/problem.go", "admin/secure.go",
		"admin/securepasswords.go", "admin/stepup.go", "admin/text.go", "admin/factors/*.go", "admin/opensessions/*.go", "credential/rules.go", "rest/schema.go",
		"rest/limiter.go", "secondfactor/*.go", "selfservice/*.go", "signon/*.go", "web/*.go",
	} {
		files, err := filepath.Glob(here + pattern)
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		sources = append(sources, files...)
	}
	// Those of constructors in package api, beside those that are found.
	found := map[string]bool{"not_found": true, "forbidden": true, "malformed": true, "bad_cursor": true, "internal": true, api.Invalid: true}
	for _, source := range sources {
		b, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range codes.FindAllSubmatch(b, -1) {
			found[string(m[1])] = !strings.HasSuffix(source, "_test.go") || found[string(m[1])]
		}
	}
	// What has values keeps them.
	values := 0
	for _, l := range new(web.Language).Languages() {
		for _, source := range sources {
			b, err := os.ReadFile(source)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range detailed.FindAllSubmatch(b, -1) {
				format := string(m[2])
				if strings.HasSuffix(source, "_test.go") || string(m[1]) == "unknown_client_type" || !strings.ContainsAny(strings.Join(verbs.FindAllString(format, -1), ""), "dqf") {
					continue
				}
				if values++; !l.Has(format) || len(verbs.FindAllString(l.T(format), -1)) != len(verbs.FindAllString(format, -1)) {
					t.Errorf("%s: %q for %q in %s", l.Code, l.T(format), format, source)
				}
			}
		}
	}
	if values < 3*9 {
		t.Errorf("only %d details with values were found", values/3)
	}
	// What only administrators meet in these files.
	for _, code := range []string{
		"cannot_repair", "nothing_to_adopt", "nothing_to_repair", "unknown_client_type", "unknown_department", "unknown_address", "invalid_hash", "no_mailbox_password", "separate_account", "alias_is_account",
	} {
		if !found[code] {
			t.Errorf("the code %s is gone: it needs no exception", code)
		}
		found[code] = false
	}
	n := 0
	for _, l := range new(web.Language).Languages() {
		for code, met := range found {
			if met && l.Code != "en" && !l.Has("code: "+code) {
				t.Errorf("%s lacks a text for the code %s", l.Code, code)
			}
			if met {
				n++
			}
		}
		fault := &api.Problem{Status: 422, Code: "new_code", Detail: "English", Errors: []api.Fault{{Pointer: "/password", Code: "used_before", Detail: "English"}, {Code: "new", Detail: "English"}}}
		said := l.Problem(fault)
		text := said.Detail + said.Errors[0].Detail + said.Errors[1].Detail
		if strings.Contains(text, "English") == (l.Code != "en") || fault.Errors[0].Detail != "English" {
			t.Errorf("%s: %+v", l.Code, said)
		}
	}
	if n < 3*50 {
		t.Errorf("only %d codes were found", n/3)
	}
}

// What a decision about a login says to the user, and its reason, is in every language.
func TestDecisionsInLanguage(t *testing.T) {
	b, err := os.ReadFile("../access/vocabulary.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := regexp.MustCompile(`\t(?:text[A-Z]\w+ +|Reason\w+ +Reason )= "([^"]+)"`).FindAllSubmatch(b, -1)
	if len(texts) < 9+12 {
		t.Fatalf("only %d texts were found", len(texts))
	}
	for _, l := range new(web.Language).Languages() {
		for _, m := range texts {
			if !l.Has(string(m[1])) {
				t.Errorf("%s lacks %q", l.Code, m[1])
			}
		}
	}
}

// The predefined client types have names for people; those that a site adds are shown as they are.
func TestClientTypesInLanguage(t *testing.T) {
	for _, l := range new(web.Language).Languages() {
		for _, c := range access.KnownClientTypes {
			if l.T(string(c)) == string(c) {
				t.Errorf("%s lacks %s", l.Code, c)
			}
		}
	}
}
