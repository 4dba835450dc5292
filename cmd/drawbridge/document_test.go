package main

import (
	"encoding/json"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func TestReadDocument(t *testing.T) {
	for _, c := range []struct{ name, file, want string }{
		{"JSON as it is", ` {"a":1e3} `, ` {"a":1e3} `},
		{"scalars", "a: yes\nb: true\nc: FALSE\nd: 2026-01-01T00:00:00Z\ne: 12\nf: 1.5\ng:\nh: ~\ni: '1'\nj: 2001:db8::1\non: \"\\u2028\"", `{"a":"yes","b":true,"c":false,"d":"2026-01-01T00:00:00Z","e":12,"f":1.5,"g":null,"h":null,"i":"1","j":"2001:db8::1","on":"\u2028"}`},
		{"lists and flow", "a:\n- x\n- {b: [1, 2]}\nc: []\nd: {}", `{"a":["x",{"b":[1,2]}],"c":[],"d":{}}`},
		{"aliases", "a: &o [192.0.2.1]\nb: *o\nc: {d: *o}", `{"a":["192.0.2.1"],"b":["192.0.2.1"],"c":{"d":["192.0.2.1"]}}`},
		{"no mapping", "x", `"x"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := readDocument([]byte(c.file))
			if err != nil || string(d.json) != c.want {
				t.Errorf("%s, %v; want %s", d.json, err, c.want)
			}
		})
	}
	bomb := "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
	for c := 'b'; c < 'l'; c++ {
		bomb += string(c) + ": &" + string(c) + " [" + strings.TrimSuffix(strings.Repeat("*"+string(c-1)+",", 10), ",") + "]\n"
	}
	for _, c := range []struct{ name, file, want string }{
		{"twice", "a: 1\nb: 2\na: 3\n", "line 3: a is given twice"},
		{"twice, below", "p:\n- a: 1\n  a: 2\n", "line 3: a is given twice"},
		{"no YAML", "a:\n  - 1\n b: [\n", "line 3: not valid YAML or JSON"},
		{"a tab", "a:\n\tb: 1\n", "line 2: not valid YAML or JSON"},
		{"nothing", "# nothing\n", "not JSON or a single YAML document"},
		{"two documents", "a: 1\n---\nb: 1\n", "not JSON or a single YAML document"},
		{"no text", "a: \xff\n", "not JSON or a single YAML document"},
		{"octal", "a: 1\nb: 010\n", "line 2: write the number in plain digits"},
		{"infinite", "a: .inf\n", "line 1: write the number"},
		{"a tag", "a: !secret x\n", "line 1: the tag !secret"},
		{"a name that is none", "1: x\n", "line 1: the name of a field"},
		{"a merge", "a: &a {x: 1}\nb:\n  <<: *a\n", "line 3: <<:"},
		{"itself", "a: &x [*x]\n", "nested deeper"},
		{"deep", strings.Repeat("[", 100) + strings.Repeat("]", 100) + " #", "nested deeper"},
		{"a bomb", bomb, "more than 16 MiB"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := readDocument([]byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, %v; want %q", d, err, c.want)
			}
		})
	}
}

func TestFaultsHaveLines(t *testing.T) {
	d, err := readDocument([]byte("revision: x\npolicies:\n- id: a\n  ips: &o\n  - 192.0.2.1\n- id: b\n  ips: *o\n  a/b: {c~d: 1}\n"))
	if err != nil {
		t.Fatal(err)
	}
	for pointer, want := range map[string]int{
		"": 1, "/revision": 1, "/policies": 2, "/policies/0": 3, "/policies/0/name": 3, "/policies/0/ips/0": 5, "/policies/1/ips/0": 5, "/policies/1/a~1b/c~0d": 8, "/policies/7/x": 2, "/nothing": 1,
	} {
		p := &adminclient.Problem{Problem: api.Problem{Errors: []api.Fault{{Pointer: pointer, Detail: "is wrong"}}}}
		d.locate(p)
		if p.Errors[0].Line != want || !strings.HasSuffix(p.Errors[0].String(), ": is wrong") {
			t.Errorf("%s: %+v, want line %d", pointer, p.Errors[0], want)
		}
	}
}

// What the daemon prints as JSON comes back the same when it went through YAML.
func FuzzYAML(f *testing.F) {
	f.Add("true", "- x", "a\nb", 7)
	f.Add("<<", "0x1F", " \t# ", -1)
	f.Add("\u2028\u0007\U0001F600", "null", "~", 0)
	f.Add("=", "12:30:45", "it's \"x\": &a *b !c", 1<<40)
	f.Fuzz(func(t *testing.T, a, b, c string, n int) {
		want, err := json.Marshal(map[string]any{"a": a, "l": []any{b, c, n, true, nil, map[string]any{"c": c, "n": n}}, "e": []any{}, "o": map[string]any{}, "k" + strings.ToValidUTF8(b, "?"): a})
		if err != nil {
			t.Fatal(err)
		}
		text, err := toYAML(want)
		if err != nil {
			t.Fatalf("%s: %v", want, err)
		}
		d, err := readDocument(text)
		if err != nil {
			t.Fatalf("%s, from %s: %v", text, want, err)
		}
		var x, y any
		if json.Unmarshal(want, &x) != nil || json.Unmarshal(d.json, &y) != nil || !reflect.DeepEqual(x, y) {
			t.Fatalf("%s became %s, by\n%s", want, d.json, text)
		}
	})
}

// Strings that YAML 1.1 reads as something else are in quotes, as keys too; others are not.
func TestYAML11(t *testing.T) {
	for _, text := range []string{
		"on", "off", "yes", "no", "NO", "No", "y", "N", "true", "False", "null", "~", "1e3", "1E3", "1.", ".5", "0o17", "017", "0x1F", "0b11", "1_000",
		"12:30", "190:20:30", "2026-11-28", "2026-11-28 10:00:00", "2026-11-28T10:00:00Z", "-1", "+1", ".inf", "-.INF", ".nan", "=", "<<",
	} {
		out, err := toYAML([]byte(`{"a":` + strconv.Quote(text) + `,` + strconv.Quote(text) + `:"x"}`))
		if want := "a: " + strconv.Quote(text) + "\n" + strconv.Quote(text) + ": x\n"; err != nil || string(out) != want {
			t.Errorf("%q is written as %q (%v), want %q", text, out, err, want)
		}
	}
	for _, text := range []string{"ann@example.org", "Norway", "offer", "1st", "2026-11-28x", "nobody", "e3"} {
		if out, err := toYAML([]byte(`{"a":` + strconv.Quote(text) + `}`)); err != nil || string(out) != "a: "+text+"\n" {
			t.Errorf("%q is written as %q (%v)", text, out, err)
		}
	}
}
