package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/api"
)

// mergeAny is RFC 7396 as its section 2 writes it.
func mergeAny(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for name, value := range p {
		if value == nil {
			delete(t, name)
		} else {
			t[name] = mergeAny(t[name], value)
		}
	}
	return t
}

// withoutNulls drops members that are null, as a document that was encoded has none.
func withoutNulls(v any) any {
	switch x := v.(type) {
	case map[string]any:
		for name, value := range x {
			if value == nil {
				delete(x, name)
			} else {
				x[name] = withoutNulls(value)
			}
		}
	case []any:
		for i := range x {
			x[i] = withoutNulls(x[i])
		}
	}
	return v
}

func unmarshal(t *testing.T, text []byte) any {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

func TestMergePatch(t *testing.T) {
	for _, c := range [][3]string{ // RFC 7396 appendix A, but for nulls in the target
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"b"}`, `["c"]`, `["c"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"a":"foo"}`, `"bar"`, `"bar"`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		base, err1 := Parse([]byte(c[0]))
		with, err2 := Parse([]byte(c[1]))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got := string(Merge(base, with).Encode(nil)); got != c[2] {
			t.Errorf("%s over %s: %s, want %s", c[1], c[0], got, c[2])
		}
	}
}

func FuzzMergePatch(f *testing.F) {
	f.Add(`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`)
	f.Add(`{"protocols":{"imap":true}}`, `{"protocols":{"imap":null},"x":[1,{"y":null}]}`)
	f.Add(`[1]`, `{"a":"\u00e9\ud83d\ude00"}`)
	f.Fuzz(func(t *testing.T, target, patch string) {
		base, err1 := Parse([]byte(target))
		with, err2 := Parse([]byte(patch))
		if err1 != nil || err2 != nil {
			return
		}
		before := string(base.Encode(nil)) + string(with.Encode(nil))
		got := unmarshal(t, Merge(base, with).Encode(nil))
		want := withoutNulls(mergeAny(unmarshal(t, base.Encode(nil)), unmarshal(t, []byte(patch))))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s over %s: %v, want %v", patch, target, got, want)
		}
		if after := string(base.Encode(nil)) + string(with.Encode(nil)); after != before {
			t.Fatalf("merging changed what was merged: %s, before %s", after, before)
		}
	})
}

// FuzzParse checks that what parses is what encoding/json reads as well, and that what is refused
// is refused without repeating it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"a":[1,-2.5e3,true,false,null,"x\"\\\u0000"],"b":{}}`, ` [ ] `, `"\ud800"`, `0`, `{"a":1,"a":2}`, "\xff", `{"a":1}x`, strings.Repeat("[", 50), `{"":{"":[]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		n, err := Parse(body)
		if err != nil {
			var p *api.Problem
			if !errors.As(err, &p) || p.Status != 400 {
				t.Fatalf("%v", err)
			}
			return
		}
		if !reflect.DeepEqual(withoutNulls(unmarshal(t, n.Encode(nil))), withoutNulls(unmarshal(t, body))) {
			t.Fatalf("%q reads as %q", body, n.Encode(nil))
		}
		if !bytes.Equal(n.Clone().Encode(nil), n.Encode(nil)) {
			t.Fatalf("%q: a copy differs", body)
		}
	})
}
