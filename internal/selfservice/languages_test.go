package selfservice

import (
	"errors"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"

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
	for _, source := range []string{"selfservice.go", "login.go", "password.go", "devices.go", "factors.go", "../web/page.go", "../web/session.go", "../signon/signon.go"} {
		b, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		collect(b)
	}
	if len(texts) < 100 {
		t.Fatalf("only %d texts were found", len(texts))
	}
	verbs := regexp.MustCompile(`%[sd]`)
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

// Problems are described in the language of the page where its catalogue has their code; English keeps
// the detail.
func TestProblemsInLanguage(t *testing.T) {
	fault := &api.Problem{Status: 422, Code: "invalid", Errors: []api.Fault{{Pointer: "/password", Code: "used_before", Detail: "was used before"}}}
	for _, l := range new(web.Language).Languages() {
		c := &web.Call{Site: web.New(web.Options{ProblemOf: func(error) *api.Problem { return fault }}), Language: l}
		p := new(api.Problem)
		if !errors.As(explained(c, fault), &p) || l.Code != "en" && p.Errors[0].Detail == fault.Errors[0].Detail || l.Code == "en" && p.Errors[0].Detail != "was used before" {
			t.Errorf("%s: %+v", l.Code, p)
		}
	}
	if fault.Errors[0].Pointer != "/password" {
		t.Error("the problem itself was changed")
	}
}
