package adminapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
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
		base, err1 := parse([]byte(c[0]))
		with, err2 := parse([]byte(c[1]))
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		if got := string(merge(base, with).encode(nil)); got != c[2] {
			t.Errorf("%s over %s: %s, want %s", c[1], c[0], got, c[2])
		}
	}
}

func FuzzMergePatch(f *testing.F) {
	f.Add(`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`)
	f.Add(`{"protocols":{"imap":true}}`, `{"protocols":{"imap":null},"x":[1,{"y":null}]}`)
	f.Add(`[1]`, `{"a":"\u00e9\ud83d\ude00"}`)
	f.Fuzz(func(t *testing.T, target, patch string) {
		base, err1 := parse([]byte(target))
		with, err2 := parse([]byte(patch))
		if err1 != nil || err2 != nil {
			return
		}
		before := string(base.encode(nil)) + string(with.encode(nil))
		got := unmarshal(t, merge(base, with).encode(nil))
		want := withoutNulls(mergeAny(unmarshal(t, base.encode(nil)), unmarshal(t, []byte(patch))))
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%s over %s: %v, want %v", patch, target, got, want)
		}
		if after := string(base.encode(nil)) + string(with.encode(nil)); after != before {
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
		n, err := parse(body)
		if err != nil {
			var p *api.Problem
			if !errors.As(err, &p) || p.Status != 400 {
				t.Fatalf("%v", err)
			}
			return
		}
		if !reflect.DeepEqual(withoutNulls(unmarshal(t, n.encode(nil))), withoutNulls(unmarshal(t, body))) {
			t.Fatalf("%q reads as %q", body, n.encode(nil))
		}
		if !bytes.Equal(n.clone().encode(nil), n.encode(nil)) {
			t.Fatalf("%q: a copy differs", body)
		}
	})
}

// testCall is a call on an empty state, for what asks no more.
func testCall() *call {
	s := &server{API: &API{Store: &store.Store{State: store.NewState(), Logger: hclog.NewNullLogger()}}, schemas: newSchemas()}
	s.openAPI(operations())
	return &call{server: s, domain: "example.org", id: &identity{role: store.RoleAdmin}}
}

// FuzzAccount checks that an account that is taken reads back as it is shown.
func FuzzAccount(f *testing.F) {
	f.Add(`{"suspended":true,"protocols":{"imap":false,"pop3":null},"secure_passwords":"off"}`)
	f.Add(`{"preset":"imap-smtp","protocols":{"smtp":true},"departments":[],"aliases":[null]}`)
	f.Add(`{"address":"ann@example.org","created_at":"x","unknown":{"deep":[1]}}`)
	f.Add(`{"suspended":"yes","departments":"x","aliases":["a@b",1],"protocols":[]}`)
	c := testCall()
	f.Fuzz(func(t *testing.T, body string) {
		n, err := parse([]byte(body))
		if err != nil {
			return
		}
		var bad api.Faults
		in := decode[api.Account](c, n, &bad)
		base := &store.Account{Address: "ann@example.org"}
		next := c.record(&in.AccountSettings, base, func(string) bool { return true }, &bad)
		if len(bad.List) > 0 {
			for _, fault := range bad.List {
				if fault.Code == "" || fault.Detail == "" || fault.Pointer != "" && fault.Pointer[0] != '/' {
					t.Fatalf("fault %+v", fault)
				}
			}
			return
		}
		view := viewAccount(next)
		text, err := json.Marshal(&view)
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		same := c.record(&decode[api.Account](c, again, &bad).AccountSettings, base, func(string) bool { return true }, &bad)
		if len(bad.List) > 0 || !reflect.DeepEqual(next, same) {
			t.Fatalf("%s is taken as %+v, shown as %s, and that is taken as %+v (%v)", body, next, text, same, bad.List)
		}
		if got, err := c.patchRecord(next, next.Address, again, &bad); err != nil || len(bad.List) > 0 || !reflect.DeepEqual(c.record(&got.AccountSettings, next, func(string) bool { return true }, &bad), next) {
			t.Fatalf("patching %s with what it shows: %v, %v", text, bad.List, err)
		}
	})
}

// FuzzImport checks that a file gives either faults, each with its line, or accounts of the domain,
// each once.
func FuzzImport(f *testing.F) {
	f.Add([]byte("address,departments,imap\nann@example.org,\"a;b\",on\n"))
	f.Add([]byte("\ufeffADDRESS,preset\r\nann,none\r\nann@example.org,all\r\n"))
	f.Add([]byte("address\n\"x\ny\"\n"))
	f.Add([]byte("imap,imap,\n"))
	c := testCall()
	f.Fuzz(func(t *testing.T, file []byte) {
		c.raw = file
		var bad api.Faults
		list := c.readImport(&bad)
		for _, fault := range bad.List {
			if fault.Line < 1 || fault.Detail == "" {
				t.Fatalf("fault %+v", fault)
			}
		}
		if len(bad.List) > 0 {
			return
		}
		seen := map[string]bool{}
		for _, e := range list {
			if address.Domain(e.addr) != "example.org" || seen[e.addr] || e.line < 2 || e.with.kind != kindObject {
				t.Fatalf("edit %+v", e)
			}
			seen[e.addr] = true
		}
	})
}

func TestSuggestions(t *testing.T) {
	known := []string{"dry_run", "limit", "cursor"}
	for name, want := range map[string]string{
		"dryrun": "did you mean dry_run?", "limits": "did you mean limit?", "curser": "did you mean cursor?",
		"page": "known are dry_run, limit, cursor", "": "known are dry_run, limit, cursor", strings.Repeat("x", 1000): "known are",
	} {
		if got := suggest(name, known); !strings.Contains(got, want) {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// FuzzPolicy checks that a policy that is taken reads back as it is shown.
func FuzzPolicy(f *testing.F) {
	f.Add(`{"name":"Office","type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"],"except_ips":["203.0.113.9"],"clients":["web","web"],"protocols":["imap"]}`)
	f.Add(`{"id":"x","name":"x","type":"blacklist","enabled":false,"mode":"report","scope":{"members":["ANN","ann@example.org"],"except":{"members":["bob"]}}}`)
	f.Add(`{"type":"blacklist","scope":{"departments":[{"path":"sales"}]},"regions":["DE"],"ips":["::1-::2","1.2.3.4/33"]}`)
	f.Add(`{"name":null,"scope":null,"enabled":null,"managed":"x","warnings":[1]}`)
	c := testCall()
	f.Fuzz(func(t *testing.T, body string) {
		n, err := parse([]byte(body))
		if err != nil {
			return
		}
		var bad api.Faults
		p := c.readPolicy(decode[api.Policy](c, n, &bad), "x", nil, "", &bad)
		if len(bad.List) > 0 {
			for _, fault := range bad.List {
				if fault.Code == "" || fault.Detail == "" || fault.Pointer != "" && fault.Pointer[0] != '/' {
					t.Fatalf("fault %+v", fault)
				}
			}
			return
		}
		text, err := json.Marshal(viewPolicy(p))
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if same := c.readPolicy(decode[api.Policy](c, again, &bad), "x", p, "", &bad); len(bad.List) > 0 || !reflect.DeepEqual(p, same) {
			t.Fatalf("%s is taken as %+v, shown as %s, and that is taken as %+v (%v)", body, p, text, same, bad.List)
		}
	})
}

// A batch does to each account what a merge patch of it would do.
func TestBatchPatchesEach(t *testing.T) {
	c := testCall()
	everything := func(string) bool { return true }
	rapid.Check(t, func(t *rapid.T) {
		maybe := func(name string, values ...string) string {
			return rapid.SampledFrom(append(values, "")).Draw(t, name)
		}
		object := func(label string, fields map[string][]string) string {
			var list []string
			for _, name := range slices.Sorted(maps.Keys(fields)) {
				if v := maybe(label+name, fields[name]...); v != "" {
					list = append(list, `"`+name+`":`+v)
				}
			}
			return "{" + strings.Join(list, ",") + "}"
		}
		switches := func(label string) string {
			on := []string{"true", "false", "null"}
			return object(label, map[string][]string{"imap": on, "pop3": on, "smtp": on, "sieve": on})
		}
		settings := func(label string) map[string][]string {
			return map[string][]string{
				"suspended": {"true", "false", "null"}, "departments": {`["a"]`, `["b","a"]`, "[]", "null"},
				"secure_passwords": {`"required"`, `"off"`, "null"}, "protocols": {switches(label), "null"},
			}
		}
		var f api.Faults
		read := func(text string) *node {
			n, err := parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		cur := c.record(&decode[api.Account](c, read(object("cur", settings("cur"))), &f).AccountSettings, &store.Account{Address: "ann@example.org"}, everything, &f)
		cur.Batches = []store.BatchMark{{By: "x", Settings: []string{"suspended", "protocols.pop3"}}}
		fields := settings("set")
		fields["preset"] = []string{`"imap-smtp"`, `"none"`, "null"}
		text := object("set", fields)

		in := decode[api.BatchSet](c, read(text), &f)
		applyPreset(&in.Protocols, in.Preset, "/set", &f)
		if len(f.List) > 0 {
			return // refused before any account is looked at
		}
		patched, err := c.patchRecord(cur, cur.Address, read(text), &f)
		if err != nil {
			t.Fatal(err)
		}
		want := c.record(&patched.AccountSettings, cur, everything, &f)
		got := c.record(&readSet(in, read(text)).over(cur).AccountSettings, cur, everything, &f)
		if len(f.List) > 0 || !same(got, want) {
			t.Fatalf("%s over %+v: %+v, patched %+v (%v)", text, cur, got, want, f.List)
		}
	})
}
