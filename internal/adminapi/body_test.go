package adminapi

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// testCall is a call at an empty domain with the departments a and b, for reading only.
func testCall(t testing.TB) *call {
	a, _ := admintest.New(t)
	s := &server{API: &API{Admin: a}, schemas: rest.NewSchemas()}
	s.openAPI(operations())
	req := s.As(admin.Caller{Role: store.RoleAdmin}, admin.Options{})
	if _, err := req.CreateDomain(t.Context(), &api.NewDomain{Domain: api.Domain{Name: "example.org"}}, &api.Faults{}); err != nil {
		t.Fatal(err)
	}
	d, err := req.Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	return &call{server: s, req: req, domain: d.Assume(map[string]bool{"a": true, "b": true}, nil)}
}

// FuzzAccount checks that an accepted account reads back as it is shown.
func FuzzAccount(f *testing.F) {
	f.Add(`{"suspended":true,"protocols":{"imap":false,"pop3":null},"secure_passwords":"off"}`)
	f.Add(`{"preset":"imap-smtp","protocols":{"smtp":true},"departments":[],"aliases":[null]}`)
	f.Add(`{"address":"ann@example.org","created_at":"x","unknown":{"deep":[1]}}`)
	f.Add(`{"suspended":"yes","departments":"x","aliases":["a@b",1],"protocols":[]}`)
	c := testCall(f)
	f.Fuzz(func(t *testing.T, body string) {
		n, err := rest.Parse([]byte(body))
		if err != nil {
			return
		}
		var bad api.Faults
		in := rest.Decode[api.Account](c.schemas, n, &bad)
		base := &store.Account{Address: "ann@example.org"}
		next := c.domain.ReadAccount(&in.AccountSettings, base, &bad)
		if len(bad.List) > 0 {
			for _, fault := range bad.List {
				if fault.Code == "" || fault.Detail == "" || fault.Pointer != "" && fault.Pointer[0] != '/' {
					t.Fatalf("fault %+v", fault)
				}
			}
			return
		}
		view := admin.ViewAccount(next)
		text, err := json.Marshal(&view)
		if err != nil {
			t.Fatal(err)
		}
		again, err := rest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		same := c.domain.ReadAccount(&rest.Decode[api.Account](c.schemas, again, &bad).AccountSettings, base, &bad)
		if len(bad.List) > 0 || !reflect.DeepEqual(next, same) {
			t.Fatalf("%s is taken as %+v, shown as %s, and that is taken as %+v (%v)", body, next, text, same, bad.List)
		}
		view.Preset = "" // as a patch sees it
		if got, err := patchOfAccount(c, again)(&view, &bad); err != nil || len(bad.List) > 0 || !reflect.DeepEqual(c.domain.ReadAccount(&got.AccountSettings, next, &bad), next) {
			t.Fatalf("patching %s with what it shows: %v, %v", text, bad.List, err)
		}
	})
}

// FuzzImport checks that a file results in accounts, or in faults that each name a line.
func FuzzImport(f *testing.F) {
	f.Add([]byte("address,departments,imap\nann@example.org,\"a;b\",on\n"))
	f.Add([]byte("\ufeffADDRESS,preset\r\nann,none\r\nann@example.org,all\r\n"))
	f.Add([]byte("address\n\"x\ny\"\n"))
	f.Add([]byte("imap,imap,\n"))
	c := testCall(f)
	f.Fuzz(func(t *testing.T, file []byte) {
		c.raw = file
		var bad api.Faults
		list := readImport(c, &bad)
		for _, fault := range bad.List {
			if fault.Line < 1 || fault.Detail == "" {
				t.Fatalf("fault %+v", fault)
			}
		}
		if len(bad.List) > 0 {
			return
		}
		for _, e := range list {
			if e.Line < 2 || e.Edit == nil {
				t.Fatalf("line %+v", e)
			}
		}
	})
}

// FuzzPolicy checks that an accepted policy reads back as it is shown.
func FuzzPolicy(f *testing.F) {
	f.Add(`{"name":"Office","type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"],"except_ips":["203.0.113.9"],"clients":["web","web"],"protocols":["imap"]}`)
	f.Add(`{"id":"x","name":"x","type":"blacklist","enabled":false,"mode":"report","scope":{"members":["ANN","ann@example.org"],"except":{"members":["bob"]}}}`)
	f.Add(`{"type":"blacklist","scope":{"departments":[{"path":"sales"}]},"regions":["DE"],"ips":["::1-::2","1.2.3.4/33"]}`)
	f.Add(`{"name":null,"scope":null,"enabled":null,"managed":"x","warnings":[1]}`)
	c := testCall(f)
	f.Fuzz(func(t *testing.T, body string) {
		n, err := rest.Parse([]byte(body))
		if err != nil {
			return
		}
		var bad api.Faults
		p := c.domain.ReadPolicy(rest.Decode[api.Policy](c.schemas, n, &bad), "x", nil, "", &bad)
		if len(bad.List) > 0 {
			for _, fault := range bad.List {
				if fault.Code == "" || fault.Detail == "" || fault.Pointer != "" && fault.Pointer[0] != '/' {
					t.Fatalf("fault %+v", fault)
				}
			}
			return
		}
		text, err := json.Marshal(admin.ViewPolicy(p))
		if err != nil {
			t.Fatal(err)
		}
		again, err := rest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if same := c.domain.ReadPolicy(rest.Decode[api.Policy](c.schemas, again, &bad), "x", p, "", &bad); len(bad.List) > 0 || !reflect.DeepEqual(p, same) {
			t.Fatalf("%s is taken as %+v, shown as %s, and that is taken as %+v (%v)", body, p, text, same, bad.List)
		}
	})
}

// A batch does to each account what a merge patch of it would do.
func TestBatchPatchesEach(t *testing.T) {
	c := testCall(t)
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
		read := func(text string) *rest.Node {
			n, err := rest.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		cur := c.domain.ReadAccount(&rest.Decode[api.Account](c.schemas, read(object("cur", settings("cur"))), &f).AccountSettings, &store.Account{Address: "ann@example.org"}, &f)
		cur.Batches = []store.BatchMark{{By: "x", Settings: []string{"suspended", "protocols.pop3"}}}
		fields := settings("set")
		fields["preset"] = []string{`"imap-smtp"`, `"none"`, "null"}
		text := object("set", fields)

		in := rest.Decode[api.BatchSet](c.schemas, read(text), &f)
		view := admin.ViewAccount(cur)
		view.Preset = ""
		patched, err := patchOfAccount(c, read(text))(&view, &f)
		if err != nil {
			t.Fatal(err)
		}
		want := c.domain.ReadAccount(&patched.AccountSettings, cur, &f)
		if len(f.List) > 0 {
			return // refused
		}
		got := c.domain.ReadAccount(&admin.BatchSettings(in, namedSettings(read(text)))(cur).AccountSettings, cur, &f)
		if len(f.List) > 0 || !admin.Same(got, want) {
			t.Fatalf("%s over %+v: %+v, patched %+v (%v)", text, cur, got, want, f.List)
		}
	})
}
