package adminapi

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// testCall is a call on an empty state, for what asks no more.
func testCall() *call {
	s := &server{API: &API{Store: &store.Store{State: store.NewState(), Logger: hclog.NewNullLogger()}}, schemas: rest.NewSchemas()}
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
		n, err := rest.Parse([]byte(body))
		if err != nil {
			return
		}
		var bad api.Faults
		in := rest.Decode[api.Account](c.schemas, n, &bad)
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
		again, err := rest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		same := c.record(&rest.Decode[api.Account](c.schemas, again, &bad).AccountSettings, base, func(string) bool { return true }, &bad)
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
			if address.Domain(e.addr) != "example.org" || seen[e.addr] || e.line < 2 || e.with.Kind != rest.Object {
				t.Fatalf("edit %+v", e)
			}
			seen[e.addr] = true
		}
	})
}

// FuzzPolicy checks that a policy that is taken reads back as it is shown.
func FuzzPolicy(f *testing.F) {
	f.Add(`{"name":"Office","type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"],"except_ips":["203.0.113.9"],"clients":["web","web"],"protocols":["imap"]}`)
	f.Add(`{"id":"x","name":"x","type":"blacklist","enabled":false,"mode":"report","scope":{"members":["ANN","ann@example.org"],"except":{"members":["bob"]}}}`)
	f.Add(`{"type":"blacklist","scope":{"departments":[{"path":"sales"}]},"regions":["DE"],"ips":["::1-::2","1.2.3.4/33"]}`)
	f.Add(`{"name":null,"scope":null,"enabled":null,"managed":"x","warnings":[1]}`)
	c := testCall()
	f.Fuzz(func(t *testing.T, body string) {
		n, err := rest.Parse([]byte(body))
		if err != nil {
			return
		}
		var bad api.Faults
		p := c.readPolicy(rest.Decode[api.Policy](c.schemas, n, &bad), "x", nil, "", &bad)
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
		again, err := rest.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if same := c.readPolicy(rest.Decode[api.Policy](c.schemas, again, &bad), "x", p, "", &bad); len(bad.List) > 0 || !reflect.DeepEqual(p, same) {
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
		read := func(text string) *rest.Node {
			n, err := rest.Parse([]byte(text))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		cur := c.record(&rest.Decode[api.Account](c.schemas, read(object("cur", settings("cur"))), &f).AccountSettings, &store.Account{Address: "ann@example.org"}, everything, &f)
		cur.Batches = []store.BatchMark{{By: "x", Settings: []string{"suspended", "protocols.pop3"}}}
		fields := settings("set")
		fields["preset"] = []string{`"imap-smtp"`, `"none"`, "null"}
		text := object("set", fields)

		in := rest.Decode[api.BatchSet](c.schemas, read(text), &f)
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
