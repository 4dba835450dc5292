package sieve

import (
	"fmt"
	"strings"
	"testing"
)

func TestActions(t *testing.T) {
	for _, c := range []struct{ script, want string }{
		{``, ``},
		{`keep; stop;`, ``},
		{`redirect "eve@example.net";`, `1 redirect eve@example.net`},
		{`require ["copy"]; ReDirect :COPY "eve@example.net";`, `1 redirect eve@example.net copy`},
		{"# redirect \"a@b\";\nredirect /* \"x@y\" */ \"eve@example.net\" # here\n;", `2 redirect eve@example.net`},
		{`/* redirect "a@b"; */ discard;`, `1 discard`},
		{`# redirect "a@b";`, ``},
		{`vacation "redirect \"a@b\"; later";`, `1 vacation`},
		{"vacation :addresses [\"a@b\"] text: # a note\r\nredirect \"a@b\";\r\n..\r\n.\r\n;\r\ndiscard;", `1 vacation|6 discard`},
		{"redirect text:\neve@example.net\n.\n;", `1 redirect eve@example.net`},
		{
			`if header :contains "subject" "redirect" { fileinto :flags "\\Seen" :create "Junk.a\"b"; } else { redirect "a@example.net"; }`,
			`1 fileinto Junk.a"b|1 redirect a@example.net`,
		},
		{`if anyof (not exists ["x","y"], address :is "from" "a@b") { if true { redirect "a@example.net"; stop; } }`, `1 redirect a@example.net`},
		{`require "variables"; set "to" "eve@example.net"; redirect "${to}";`, `1 redirect ${to} computed`},
		{`redirect "eve${hex:40}example.net";`, `1 redirect eve${hex:40}example.net computed`},
		{`redirect :list "tag:x";`, `1 redirect tag:x computed`},
		{`include :personal "other"; include :global "site";`, `1 include other|1 include site`},
		{`notify :importance "1" :message "${subject}" "mailto:eve@example.net";`, `1 notify mailto:eve@example.net computed`},
		{`notify :method "mailto" :options ["eve@example.net"] :message "new";`, `1 notify new computed`},
		{`redirect "eve\@example.net"`, `1 redirect eve@example.net`},
		{`reject "no"; ereject text:` + "\nno\n.", `1 reject|1 ereject`},
		{`set "redirect" "x"; redirects "a@b"; addflag "discard";`, ``},
		{`discard; redirect "eve@example.net`, `1 discard|1 redirect|line 1: the script ends within a string or comment`},
		{"discard;\n/* ", "1 discard|line 2: the script ends within a string or comment"},
		{"discard; \x00", "1 discard|line 1: the script contains NUL"},
		{"vacation text:\nx", "1 vacation|line 2: the script ends within a string or comment"},
	} {
		if got := printed(Actions(c.script)); got != c.want {
			t.Errorf("%q:\n got %s\nwant %s", c.script, got, c.want)
		}
	}
	if list, err := Actions(strings.Repeat("discard;", maxActions+1)); len(list) != maxActions || err == nil {
		t.Errorf("%d actions, %v", len(list), err)
	}
	if list, err := Actions(`fileinto "` + strings.Repeat("é", maxTarget) + `";`); err != nil || len(list[0].Target) > maxTarget+len("…") {
		t.Errorf("%v, %v", list, err)
	}
}

func printed(list []Action, err error) string {
	var words []string
	for _, a := range list {
		s := fmt.Sprint(a.Line, " ", a.Name)
		if a.Target != "" {
			s += " " + a.Target
		}
		if a.Copy {
			s += " copy"
		}
		if a.Computed {
			s += " computed"
		}
		words = append(words, s)
	}
	if err != nil {
		words = append(words, err.Error())
	}
	return strings.Join(words, "|")
}

// An action that stands after any complete script is found, and its target is read as it was quoted.
func FuzzActions(f *testing.F) {
	f.Add(`if true { keep; }`, "eve@example.net")
	f.Add("vacation text:\nx\n.\n;", `a"b\c`)
	f.Add(`/* x */ # y`, "")
	f.Fuzz(func(t *testing.T, script, target string) {
		before, err := Actions(script + "\n;")
		if err != nil || len(before) == maxActions || len(target) > maxTarget {
			return
		}
		quoted := `"` + strings.NewReplacer(`"`, `\"`, `\`, `\\`).Replace(target) + `"`
		after, err := Actions(script + "\n;redirect " + quoted + ";")
		if err != nil || len(after) != len(before)+1 || after[len(before)].Target != strings.TrimSpace(target) {
			t.Errorf("%q then %q: %v, %v", script, target, after, err)
		}
	})
}
