package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// Call is one request of a page, with the language of its user. It is for the goroutine of the request
// alone.
type Call struct {
	*Site
	*Language
	W   http.ResponseWriter
	R   *http.Request
	IP  netip.Addr // of the client
	Now time.Time

	bare bool // outside of sessions
}

// Pages are parsed templates, by the name of their file without ".html": each file but layout.html
// defines "content" of a page.
type Pages map[string]*template.Template

// View is what a template gets. [Call.Show] fills in Call and Note; with a Problem, its status is that of
// the answer.
type View struct {
	*Call
	Title   string
	Nav     any // what the layout shows around the page
	Note    string
	Problem *api.Problem
	Repeat  []Repeat // how the form that was refused can be sent again
	Sent    url.Values
	Data    any
}

// Repeat is a button that sends a refused form again with another field, such as confirm. The label is
// translated where it is shown.
type Repeat struct{ Name, Value, Label string }

var shared = template.Must(template.New("shared").Funcs(functions).Parse(`
{{define "problem"}}{{with .Problem}}<article class="problem" role="alert" id="problem" aria-labelledby="what">
<h2 id="what">{{$.T "That did not work"}}</h2><p>{{$.Explain .}}</p>
{{with .Errors}}<ul>{{range .}}<li>{{with .Pointer}}<code>{{.}}</code>: {{end}}{{.Detail}}</li>{{end}}</ul>{{end}}
{{with .Lockout}}<p>{{$.T "Active accounts: %d; locked out: %d" .Active .LockedOut}}</p><ul>{{range .Who}}<li>{{.Account}} ({{range $i, $a := .As}}{{if $i}}, {{end}}{{$a}}{{end}}) {{.IP}} {{.Client}} {{.Protocol}} {{.PolicyID}}</li>{{end}}</ul>{{end}}
{{if $.Repeat}}<form method="post" action="{{$.R.URL.Path}}">{{range $name, $values := $.Sent}}{{range $values}}<input type="hidden" name="{{$name}}" value="{{.}}">{{end}}{{end}}
{{range $.Repeat}}<button name="{{.Name}}" value="{{.Value}}">{{$.T .Label}}</button> {{end}}</form>{{end}}
</article>{{end}}{{end}}
{{define "note"}}{{with .Note}}<p class="note" role="status">{{.}}</p>{{end}}{{end}}
{{define "region"}}<span data-region="{{.}}">{{.}}</span>{{end}}
{{define "head"}}<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<meta name="htmx-config" content='{"includeIndicatorStyles":false,"allowEval":false,"selfRequestsOnly":true}'>
<title>{{.Title}} – Drawbridge</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="{{static "pico.min.css"}}">
<link rel="stylesheet" href="{{static "style.css"}}">
<script src="{{static "htmx.min.js"}}" defer></script>
<script src="{{static "pages.js"}}" defer></script>{{end}}
{{define "languages"}}<form method="post" action="/language" class="languages"><input type="hidden" name="back" value="{{if eq .R.Method "GET"}}{{.R.URL.RequestURI}}{{end}}">
{{range .Languages}}<button name="language" value="{{.Code}}" lang="{{.Code}}" class="plain"{{if eq .Code $.Code}} aria-current="true"{{end}}>{{.Name}}</button> {{end}}</form>{{end}}
`))

var functions = template.FuncMap{
	"static": staticURL,
	"join":   strings.Join,
	"escape": url.PathEscape,
	"time": func(t time.Time) template.HTML {
		if t.IsZero() {
			return "–"
		}
		return template.HTML(fmt.Sprintf(`<time datetime="%s">%s</time>`, t.UTC().Format(time.RFC3339), t.UTC().Format("2006-01-02 15:04 UTC"))) //nolint:gosec // G203: digits
	},
	"json": func(v any) (string, error) {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		err := e.Encode(v)
		return b.String(), err
	},
	"seconds": func(from, until time.Time) int { return int(until.Sub(from).Seconds()) },
	"boolean": func(on *bool) bool { return on == nil || *on },
	"has":     slices.Contains[[]string],
	"list":    func(v ...any) []any { return v },
}

// Parse reads the templates of a directory: templates/*.html with templates/layout.html and those of
// templates/parts. It panics on a fault, since they are embedded.
func Parse(files fs.FS) Pages {
	layout := template.Must(template.Must(shared.Clone()).ParseFS(files, "templates/layout.html", "templates/parts/*.html"))
	names, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		panic(err) // the pattern is right
	}
	pages := Pages{}
	for _, name := range names {
		if path.Base(name) != "layout.html" {
			pages[strings.TrimSuffix(path.Base(name), ".html")] = template.Must(template.Must(layout.Clone()).ParseFS(files, name))
		}
	}
	return pages
}

// Show sends a page within its layout, with status 200 or that of the problem. The error is a fault of
// the template; nothing was sent then.
func (c *Call) Show(p Pages, name string, v View) error {
	v.Call = c
	status := http.StatusOK
	if v.Problem != nil {
		status = v.Problem.Status
	}
	if v.Note == "" && !c.bare {
		v.Note = c.sessions.PopString(c.R.Context(), "note")
	}
	return c.send(p[name], "layout.html", status, v)
}

// Part sends one template of a page, without the layout, for a script that asks for it again and again,
// unless it is the last time.
func (c *Call) Part(p Pages, name, part string, last bool, data any) error {
	status := http.StatusOK
	if last {
		status = 286 // htmx stops asking
	}
	return c.send(p[name], part, status, View{Call: c, Data: data})
}

// Unchanged answers a script that what it shows is still true, with status 204: nothing is shown, or read
// out, again, and the focus stays.
func (c *Call) Unchanged() error {
	c.W.WriteHeader(http.StatusNoContent)
	return nil
}

func (c *Call) send(t *template.Template, name string, status int, v View) error {
	var b bytes.Buffer
	if err := t.ExecuteTemplate(&b, name, v); err != nil {
		return fmt.Errorf("showing the page %s: %w", name, err)
	}
	c.W.Header().Set("Content-Type", "text/html; charset=utf-8")
	c.W.WriteHeader(status)
	_, _ = b.WriteTo(c.W) // the browser is gone
	return nil
}

// Again returns the view for a form that was refused: with the problem in the page's language, the fields that were sent
// and, where the problem names them, the buttons that send them again. An error of the server is
// returned as it is.
func (c *Call) Again(v View, err error) (View, error) {
	p := c.ProblemOf(err)
	if p.OfServer() || p.Status == http.StatusNotFound || p.Status == http.StatusForbidden {
		return v, err
	}
	v.Problem, v.Sent = c.Problem(p), url.Values{}
	for name, values := range c.R.PostForm {
		if !secret(name) {
			v.Sent[name] = values
		}
	}
	for _, q := range p.RepeatWith {
		name, value, _ := strings.Cut(q, "=")
		label := "Apply it anyway"
		if name == "revert_after" {
			label = "Apply it, and revert it after ten minutes unless I confirm it"
		}
		v.Repeat = append(v.Repeat, Repeat{name, value, label})
		v.Sent.Del(name)
	}
	return v, nil
}

// Field is a field of a form that is sent again: its name and one of its values, as [Call.Resend]
// returns them.
type Field struct{ Name, Value string }

// Resend returns the fields of the form that was sent, but secrets and do, for a form that sends
// them again.
func (c *Call) Resend() (list []Field) {
	for name, values := range c.R.PostForm {
		for _, value := range values {
			if !secret(name) && name != "do" {
				list = append(list, Field{name, value})
			}
		}
	}
	return list
}

// secret reports whether a field of a form is never sent back.
func secret(name string) bool {
	return slices.Contains([]string{"password", "new_password", "key", "code", "credential", "challenge", "send"}, name)
}

// Explain describes a problem to somebody who sees no fields of an API: as a sentence, which begins with
// a capital and ends with a full stop.
func (c *Call) Explain(p *api.Problem) string {
	if len(p.Errors) > 0 {
		return c.T("Please correct the fields below; nothing was changed.")
	}
	first, size := utf8.DecodeRuneInString(p.Detail)
	return string(unicode.ToUpper(first)) + p.Detail[size:] + c.T(".")
}

// Redirect continues at a path of this site by 303, so that a form is not sent twice. Any other address
// leads to "/".
func (c *Call) Redirect(path string) error {
	if path = Local(path); path == "" {
		path = "/"
	}
	http.Redirect(c.W, c.R, path, http.StatusSeeOther) //nolint:gosec // G710: Local refuses other sites
	return nil
}

// OfUsers reports whether the page is one of the users', and not of the console.
func (c *Call) OfUsers() bool { return ofUsers(c.R.URL.Path) }

// NotFound is the error for what is not there, or out of the reach of whoever asks, which must look the
// same: 404.
func NotFound() error { return api.Missing("there is no such page") }

func (c *Call) fail(err error) {
	p := c.ProblemOf(err)
	if long := new(http.MaxBytesError); errors.As(err, &long) {
		p = api.Refuse(http.StatusRequestEntityTooLarge, "too_large", "the form is over 1 MiB")
	}
	if p.Status == http.StatusInternalServerError {
		c.Log.Error("showing a page", "path", c.R.URL.Path, "error", err)
	}
	c.showProblem(c.Problem(p))
}

var problemPage = template.Must(template.Must(shared.Clone()).Parse(`<!DOCTYPE html>
<html lang="{{.Code}}">
<head>{{template "head" .}}</head>
<body><main class="container"><h1>{{.Title}}</h1><p>{{$.Explain .Data}}</p>
{{if .Data.OfServer}}<p>{{.T "Logins of mail programs continue by the rules that this server knows. Pages return when the store does."}}</p>{{end}}
<p>{{if .OfUsers}}<a href="/account">{{.T "To my devices"}}</a>{{else}}<a href="/">{{.T "To the console"}}</a>{{end}}</p></main></body>
</html>
`))

// showProblem sends a page that describes a problem.
func (c *Call) showProblem(p *api.Problem) {
	title := map[int]string{
		http.StatusForbidden: "Not allowed", http.StatusNotFound: "Not found", http.StatusServiceUnavailable: "The store cannot be reached",
		http.StatusTooManyRequests: "Too many attempts",
	}[p.Status]
	if title == "" {
		title = "That did not work"
	}
	if err := c.send(problemPage, problemPage.Name(), p.Status, View{Call: c, Title: c.T(title), Data: p}); err != nil {
		c.Log.Error("showing a page", "error", err)
	}
}

// Form reads the form of a request, at most 1 MiB. The errors are problems: 413 if it is longer, 400 if
// it cannot be read.
func (c *Call) Form() error {
	if err := c.R.ParseForm(); err != nil {
		if long := new(http.MaxBytesError); errors.As(err, &long) {
			return err
		}
		return api.Malformed("the form cannot be read")
	}
	return nil
}

// Value returns a field of the form, without blanks around it; "" if it was not sent. Of several values
// it is the first.
func (c *Call) Value(name string) string { return strings.TrimSpace(c.R.PostFormValue(name)) }

// Lines returns the lines or words of a field: what lies between line ends, commas, blanks and tabs, never
// empty.
func (c *Call) Lines(name string) []string {
	return strings.FieldsFunc(c.R.PostFormValue(name), func(r rune) bool { return r == '\n' || r == '\r' || r == ',' || r == ' ' || r == '\t' })
}

// Check validates a value by the schema of its type, as the API does with what it receives. Lists
// that are nil are missing.
func Check[T any](c *Call, v *T, f *api.Faults) *T {
	b, err := json.Marshal(v)
	if err != nil {
		f.Add("", "invalid", "cannot be read")
		return v
	}
	n, err := rest.Parse(b)
	if err == nil {
		n, err = rest.Parse(n.Encode(nil)) // without members that are null
	}
	if err != nil {
		f.Add("", "invalid", "cannot be read")
		return v
	}
	return decode[T](c, n, f)
}

// DecodeJSON reads a value from JSON by the schema of its type, as the API does. Faults go to f; the
// value is not nil.
func DecodeJSON[T any](c *Call, text []byte, f *api.Faults) *T {
	n, err := rest.Parse(text)
	if err != nil || n.Kind != rest.Object {
		f.Add("", "malformed", "is not a JSON object")
		return new(T)
	}
	return decode[T](c, n, f)
}

func decode[T any](c *Call, n *rest.Node, f *api.Faults) *T {
	if !slices.Contains(forms(), reflect.TypeFor[T]()) {
		panic(fmt.Sprintf("%T is not in the list of forms", *new(T))) // its schema would be made now, beside other requests
	}
	return rest.Decode[T](c.schemas, n, f)
}
