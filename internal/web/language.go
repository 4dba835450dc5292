package web

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"
)

// Language is a catalogue of texts. Texts are written in English in the templates; what a catalogue
// lacks is shown in English.
type Language struct {
	Code  string // as in HTML's lang
	Name  string // in the language itself
	texts map[string]string
}

const english = "en"

// Each file maps the English texts to those of its language; "" is the language's own name. That of
// English has words for codes only.
//
//go:embed languages/*.json
var catalogues embed.FS

var languages = func() []*Language {
	list := []*Language{{Code: english}}
	files, _ := catalogues.ReadDir("languages") // embedded
	for _, f := range files {
		b, _ := catalogues.ReadFile("languages/" + f.Name())
		l := &Language{Code: strings.TrimSuffix(f.Name(), path.Ext(f.Name()))}
		if l.Code == list[0].Code {
			l = list[0]
		}
		if err := json.Unmarshal(b, &l.texts); err != nil {
			panic(fmt.Sprintf("languages/%s: %v", f.Name(), err)) // a test reads them, too
		}
		l.Name = l.texts[""]
		if l != list[0] {
			list = append(list, l)
		}
	}
	return list
}()

// T returns a text in the language, formatted like [fmt.Sprintf] if there are arguments. What the catalogue
// lacks stays English.
func (l *Language) T(text string, args ...any) string {
	if t, ok := l.texts[text]; ok {
		text = t
	}
	if len(args) == 0 {
		return text
	}
	return fmt.Sprintf(text, args...)
}

// Has reports whether the catalogue has a text; English has all, since the texts are English in the code.
func (l *Language) Has(text string) bool {
	_, ok := l.texts[text]
	return ok || l.Code == english
}

// Problem returns a problem in the language. What its faults say, with their values, is in the catalogue
// by their English words, else by their codes; what the problem says by its code. Of a code that the
// catalogue lacks, the code is named.
func (l *Language) Problem(p *api.Problem) *api.Problem {
	if l.Code == english {
		return p
	}
	text := func(code, other string) string {
		if t, ok := l.texts[codePrefix+code]; ok {
			return t
		}
		return l.T(other, code)
	}
	said := *p
	said.Detail = text(p.Code, "This did not work (%s)")
	said.Errors = slices.Clone(p.Errors)
	for i := range said.Errors {
		fault := &said.Errors[i]
		fault.Detail = text(fault.Code, "is not accepted (%s)")
		format, values := fault.Words()
		if _, ok := l.texts[format]; ok && format != "" {
			fault.Detail = l.T(format, values...)
		}
	}
	return &said
}

// codePrefix begins the keys of a catalogue that are codes of problems.
const codePrefix = "code: "

// Languages returns all languages, English first, then by their codes. The list is shared: callers must
// not change it.
func (*Language) Languages() []*Language { return languages }

// ofUsers reports whether a path is one of the users' pages.
func ofUsers(path string) bool {
	return path == "/language" || path == "/account" || strings.HasPrefix(path, "/account/")
}

const languageCookie = "drawbridge-language"

// languageOf returns the language that the user chose, or that the browser asks for. The console is in
// English.
func languageOf(r *http.Request) *Language {
	if !ofUsers(r.URL.Path) {
		return languages[0]
	}
	var asked []string
	if cookie, err := r.Cookie(languageCookie); err == nil {
		asked = append(asked, cookie.Value)
	}
	for part := range strings.SplitSeq(r.Header.Get("Accept-Language"), ",") {
		tag, _, _ := strings.Cut(part, ";")
		asked = append(asked, strings.TrimSpace(tag))
		if len(asked) > 8 {
			break
		}
	}
	for _, tag := range asked {
		code, _, _ := strings.Cut(strings.ToLower(tag), "-")
		if i := slices.IndexFunc(languages, func(l *Language) bool { return l.Code == code }); i >= 0 {
			return languages[i]
		}
	}
	return languages[0]
}

// ChooseLanguage handles the form with which a user chooses a language: it is kept in a cookie for a year.
// Unknown codes change nothing.
func ChooseLanguage(c *Call) error {
	if err := c.Form(); err != nil {
		return err
	}
	code := c.Value("language")
	if slices.ContainsFunc(languages, func(l *Language) bool { return l.Code == code }) {
		http.SetCookie(c.W, &http.Cookie{ //nolint:gosec // G124: Secure where the site is
			Name: languageCookie, Value: code, Path: "/", MaxAge: 365 * 24 * 3600, HttpOnly: true, Secure: c.sessions.Cookie.Secure, SameSite: http.SameSiteLaxMode,
		})
	}
	back := Local(c.Value("back"))
	if back == "" {
		back = "/account"
	}
	return c.Redirect(back)
}
