package adminapi_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// came records a login some time ago.
func (d *daemon) came(account, ip string, client access.ClientType, ago time.Duration, more ...func(*store.LoginRecord)) {
	d.t.Helper()
	rec := login(time.Now().Add(-ago), account, ip, more...)
	rec.Client = client
	d.on(rec)
}

const (
	third     = access.ClientThirdParty
	fromHere  = `{"name":"Only from the office","type":"whitelist","scope":{"all":true},"ips":["203.0.113.0/24"]}`
	switchOff = dom + "/policies/third-party-access"
)

// F24: a change that would lock people out is refused, and lists them.
func TestLockout(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.came("carol@example.org", "198.51.100.3", third, 3*time.Hour)
	d.came("bob@example.org", "203.0.113.9", third, 2*time.Hour)
	d.came("ann@example.org", "198.51.100.2", access.ClientWeb, 2*time.Hour)
	d.came("ann@example.org", "198.51.100.1", third, time.Hour)
	// None of these counts: too long ago, a master's, refused.
	d.came("old@example.org", "198.51.100.9", third, 8*24*time.Hour)
	d.came("dan@example.org", "198.51.100.9", third, time.Hour, func(r *store.LoginRecord) { r.MasterUser = "admin" })
	d.came("eve@example.org", "198.51.100.9", third, time.Hour, func(r *store.LoginRecord) { r.Outcome = access.Deny })
	before := d.api.Store.State.Heads()

	refused := d.admin.put(office, fromHere).want(409, "lockout").says("the change would lock out 2 of the 3 members who logged in recently: ")
	refused.has("lockout.active", `3`).has("lockout.locked_out", `2`).has("lockout.who.0.account", `"ann@example.org"`).has("lockout.who.0.ip", `"198.51.100.1"`).
		has("lockout.who.0.policy_id", `"office"`).has("lockout.who.0.as", `["member"]`).has("lockout.who.1.account", `"carol@example.org"`)
	d.admin.put(office+"?dry_run=true", fromHere).want(409, "lockout")
	d.admin.post(dom+"/ip-blocks", `{"network":"198.51.100.0/24"}`).want(409, "lockout").has("lockout.locked_out", `2`)
	if d.api.Store.State.Heads() != before {
		t.Error("what was refused changed the store")
	}

	t.Run("half of the members, or those with another way in, are no lock-out", func(t *testing.T) {
		for what, body := range map[string]string{
			"one of three":           `{"name":"x","type":"blacklist","scope":{"all":true},"ips":["198.51.100.3"]}`,
			"webmail stays":          `{"name":"x","type":"blacklist","scope":{"members":["ann@example.org","carol@example.org"]},"clients":["third-party"]}`,
			"report mode":            strings.Replace(fromHere, `"type"`, `"mode":"report","type"`, 1),
			"disabled":               strings.Replace(fromHere, `"type"`, `"enabled":false,"type"`, 1),
			"those who do not apply": strings.Replace(fromHere, `"ips"`, `"protocols":["pop3"],"ips"`, 1),
		} {
			if got := d.admin.put(office+"?dry_run=true", body); got.status != 200 {
				t.Errorf("%s: %s", what, got.body)
			}
		}
	})
	t.Run("confirmed, and then nobody more is locked out", func(t *testing.T) {
		d.admin.put(office+"?confirm=true", fromHere).want(201)
		d.admin.patch(office, `{"ips":["203.0.113.0/25"]}`).want(200)
		d.admin.patch(office, `{"ips":["203.0.113.128/25"]}`).want(409, "lockout").has("lockout.active", `1`).has("lockout.who.0.account", `"bob@example.org"`)
	})
	t.Run("taking a whitelist away can lock out", func(t *testing.T) {
		d.admin.put(policies+"/home", `{"name":"Home","type":"whitelist","scope":{"all":true},"ips":["198.51.100.0/24"]}`).want(201)
		d.admin.del(policies+"/home").want(409, "lockout")
		d.admin.patch(policies+"/home", `{"enabled":false}`).want(409, "lockout")
		d.admin.del(policies + "/home?confirm=true").want(204)
		d.admin.del(office).want(204)
	})
	t.Run("the simple switch is never refused", func(t *testing.T) {
		d.admin.put(dom+"/third-party-access", `{"allow":false}`).want(200)
		d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
		d.admin.patch(switchOff, `{"enabled":true}`).want(200) // nor by its policy
		d.admin.patch(switchOff, `{"enabled":false}`).want(200)
		d.admin.patch(switchOff, `{"enabled":true,"clients":["third-party","web"]}`).want(409, "lockout") // which is then another's
	})
}

// Administrators are guarded whatever their number, and the author at the address that they call
// from.
func TestLockoutOfAdministrators(t *testing.T) {
	d := start(t, true).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	for i := range 9 {
		d.came(fmt.Sprintf("user%d@example.org", i), "203.0.113.9", third, time.Hour)
	}
	d.came("postmaster@example.org", "198.51.100.1", access.ClientWeb, time.Hour)
	d.admin.put(office, fromHere).want(409, "lockout").has("lockout.locked_out", `1`).has("lockout.who.0.as", `["administrator"]`).
		says("the change would lock out all administrators who logged in recently: ")
	d.admin.patch(dom, `{"administrators":["user1@alias.example"]}`).want(200).has("administrators", `["user1@example.org"]`)
	d.admin.put(office+"?dry_run=true", fromHere).want(200)

	key := d.key(`"role":"domain","domain":"example.org"`) // calls from 127.0.0.1
	key.put(office, fromHere).want(409, "lockout").has("lockout.who", `[{"account":"user1@example.org","as":["author"],"client":"console","ip":"127.0.0.1","policy_id":"office","protocol":"web"}]`).
		says("the change would lock out all administrators at your address, 127.0.0.1: ")
	key.put(office+"?dry_run=true", strings.Replace(fromHere, `"ips":[`, `"ips":["127.0.0.1",`, 1)).want(200)
	key.put(office+"?dry_run=true", strings.Replace(fromHere, `{"all":true}`, `{"all":true,"except":{"members":["user1@example.org"]}}`, 1)).want(200)
	key.put(office+"?dry_run=true", strings.Replace(fromHere, `"ips"`, `"clients":["third-party"],"ips"`, 1)).want(200)
	key.post(dom+"/ip-blocks", `{"network":"127.0.0.0/8"}`).want(409, "lockout")
	d.admin.patch(dom, `{"administrators":["a@example.net","user1@example.org","user1@alias.example",""]}`).
		faults("/administrators/0 outside_domain", "/administrators/2 duplicate", "/administrators/3 invalid_address")
}

// says checks how the detail of a problem begins.
func (a *answer) says(start string) *answer {
	a.t.Helper()
	if detail := a.text("detail"); !strings.HasPrefix(detail, start) {
		a.t.Errorf("it says %q, not %q …", detail, start)
	}
	return a
}

func gone(d *daemon, path string) func() bool {
	return func() bool { return d.admin.get(path).status == http.StatusNotFound }
}

// An unconfirmed change is reverted, by whichever daemon runs.
func TestRevert(t *testing.T) {
	t.Parallel()
	d := start(t, true).site()
	d.came("ann@example.org", "198.51.100.1", access.ClientWeb, time.Hour)
	for _, span := range []string{"0s", "-5m", "200h", "ten%20minutes", ""} {
		d.admin.put(office+"?revert_after="+span, fromHere).faults("?revert_after out_of_range")
	}
	d.admin.put(dom+"/secure-password-policy?revert_after=5m", `{"enforced":false}`).faults("?revert_after unknown_parameter")

	t.Run("a dry run names no revert", func(t *testing.T) {
		d.admin.post(dom+"/policies?confirm=true", strings.Replace(fromHere, `"name"`, `"id":"there","name"`, 1)).want(201)
		block := d.admin.post(dom+"/ip-blocks", `{"network":"192.0.2.77"}`).want(201).text("id")
		for what, dry := range map[string]*answer{
			"PUT policy":          d.admin.put(dom+"/policies/there?revert_after=1h&dry_run=true", strings.Replace(fromHere, "203.0.113.0", "203.0.114.0", 1)),
			"DELETE policy":       d.admin.del(dom + "/policies/there?revert_after=1h&dry_run=true"),
			"POST block":          d.admin.post(dom+"/ip-blocks?revert_after=1h&dry_run=true", `{"network":"192.0.2.78"}`),
			"DELETE block":        d.admin.del(dom + "/ip-blocks/" + block + "?revert_after=1h&dry_run=true"),
			"PUT switch":          d.admin.put(dom+"/third-party-access?revert_after=1h&dry_run=true", `{"allow":true}`),
			"POST apply":          d.admin.post(dom+"/apply?revert_after=1h&dry_run=true", `{"ip_blocks":[]}`),
			"POST policy migrate": d.admin.post(dom+"/policies/migrate?revert_after=1h&dry_run=true", `{"third_party_allowed":true}`),
		} {
			if dry.want(200); dry.header.Get("Dry-Run") != "true" || dry.header.Get("Revert") != "" {
				t.Errorf("%s: Dry-Run is %q, Revert is %q", what, dry.header.Get("Dry-Run"), dry.header.Get("Revert"))
			}
		}
		made := d.admin.del(dom + "/ip-blocks/" + block + "?revert_after=1h").want(204) // only the header names it
		d.admin.get(made.header.Get("Revert")).want(200).has("action", `"ip_block.delete"`)
		d.admin.post(made.header.Get("Revert")+"/confirm", "").want(200)
		d.admin.del(dom + "/policies/there").want(204)
		d.admin.get(dom+"/reverts").want(200).has("items", `[]`)
	})
	t.Run("made, undone", func(t *testing.T) {
		made := d.admin.put(office+"?revert_after=1s", fromHere).want(201)
		if at, err := time.Parse(time.RFC3339, made.text("pending.at")); err != nil || time.Until(at) > time.Second {
			t.Errorf("pending %s", made.body)
		}
		redistest.Eventually(t, "the policy is gone again", gone(d, office))
		d.admin.get(dom+"/reverts").want(200).has("items", `[]`)
		last := d.admin.get("/v1/audit?domain=example.org&limit=1").want(200)
		last.has("items.0.action", `"revert"`).has("items.0.target", `"office"`).has("items.0.actor.name", `"daemon"`)
	})
	t.Run("confirmed", func(t *testing.T) {
		made := d.admin.put(office+"?revert_after=1h", fromHere).want(201)
		path := made.header.Get("Revert")
		d.admin.get(path).want(200).has("action", `"policy.create"`).has("by.name", `"root"`)
		d.admin.get(office).want(200).has("pending.id", `"`+made.text("pending.id")+`"`)
		d.admin.post(path+"/confirm?dry_run=true", "").want(200)
		d.admin.post(path+"/confirm", "").want(200)
		d.admin.post(path+"/confirm", "").want(404)
		d.admin.get(office).want(200).has("pending", `null`)
	})
	t.Run("the same once more with confirm confirms", func(t *testing.T) {
		d.admin.patch(office+"?revert_after=1h", `{"ips":["192.0.2.0/24"]}`).want(200)
		d.admin.patch(office, `{"ips":["192.0.2.0/24"]}`).want(200)
		d.admin.get(dom+"/reverts").want(200).has("items.0.target", `"office"`)
		d.admin.patch(office+"?confirm=true", `{"ips":["192.0.2.0/24"]}`).want(200).has("pending", `null`)
		d.admin.get(dom+"/reverts").want(200).has("items", `[]`)
	})
	t.Run("changed, deleted, blocked: what was there before comes back", func(t *testing.T) {
		old := d.admin.get(office).want(200)
		d.admin.patch(office+"?revert_after=1h", `{"enabled":false}`).want(200)
		d.admin.patch(office+"?revert_after=1s", `{"enabled":true,"ips":["192.0.2.7"]}`).want(200) // goes back to what was certain
		redistest.Eventually(t, "the change is undone", func() bool { return string(d.admin.get(office).body) == string(old.body) })
		d.admin.del(office + "?revert_after=1s").want(204)
		redistest.Eventually(t, "the deletion is undone", func() bool { return string(d.admin.get(office).body) == string(old.body) })
		d.admin.post(dom+"/ip-blocks?revert_after=1s", `{"network":"0.0.0.0/0"}`).want(201)
		redistest.Eventually(t, "the block is undone", func() bool { return d.admin.get(dom+"/ip-blocks").text("items.0.id") == "" })
		d.admin.put(dom+"/third-party-access?revert_after=1s", `{"allow":true}`).want(200)
		redistest.Eventually(t, "the switch is undone", func() bool { return d.admin.get(dom+"/third-party-access").value("allow") == false })
	})
	t.Run("an edit keeps the revert", func(t *testing.T) {
		old := d.admin.get(office).want(200)
		pending := d.admin.patch(office+"?revert_after=1h", `{"ips":["192.0.2.9"]}`).want(200)
		edited := d.admin.patch(office, `{"name":"Office","ips":["192.0.2.10"]}`).want(200).has("pending.id", `"`+pending.text("pending.id")+`"`)
		if edited.header.Get("Revert") != pending.header.Get("Revert") {
			t.Errorf("Revert is %q", edited.header.Get("Revert"))
		}
		d.admin.get(dom+"/reverts").want(200).has("items.0.id", `"`+pending.text("pending.id")+`"`)
		d.admin.put(office, string(old.body)).want(200) // as it was before: nothing is left to revert
		d.admin.get(dom+"/reverts").want(200).has("items", `[]`)
	})
	t.Run("an edit with confirm ends the revert", func(t *testing.T) {
		d.admin.patch(office+"?revert_after=1h", `{"ips":["192.0.2.9"]}`).want(200)
		d.admin.patch(office+"?confirm=true", `{"name":"Office"}`).want(200)
		d.admin.get(dom+"/reverts").want(200).has("items", `[]`)
	})
	t.Run("what is blocked again is not blocked twice", func(t *testing.T) {
		const blocks = dom + "/ip-blocks"
		first := d.admin.post(blocks, `{"network":"192.0.2.0/24"}`).want(201).text("id")
		d.admin.del(blocks + "/" + first + "?revert_after=1h").want(204)
		second := d.admin.post(blocks, `{"network":"192.0.2.0-192.0.2.255"}`).want(201).text("id")
		d.admin.get(dom+"/reverts").want(200).has("items", `[]`)
		d.admin.del(blocks + "/" + second + "?revert_after=1h").want(204)
		d.admin.post(blocks+"?revert_after=1s", `{"network":"192.0.2.0/24"}`).want(201)
		redistest.Eventually(t, "what was certain is back, alone", func() bool {
			return slices.Equal(d.admin.get(blocks).want(200).each("items", "id"), []string{second})
		})
		d.admin.del(blocks + "/" + second).want(204)
	})
	t.Run("its departments wait", func(t *testing.T) {
		d.admin.patch(office+"?confirm=true", `{"scope":{"all":null,"departments":[{"path":"board"}]}}`).want(200)
		made := d.admin.patch(office+"?revert_after=1h", `{"scope":{"departments":[{"path":"sales"}]}}`).want(200)
		d.admin.del(dom+"/departments/board").want(409, "in_use").has("referrers", `{"reverts":1}`)
		d.admin.patch(dom+"/departments/board", `{"path":"directors"}`).want(409, "in_use")
		d.admin.post(made.header.Get("Revert")+"/confirm", "").want(200)
		d.admin.patch(dom+"/departments/board", `{"path":"directors"}`).want(200)
	})
	t.Run("by another daemon, after a restart of the store", func(t *testing.T) {
		d.admin.put(policies+"/late?revert_after=2s", strings.Replace(fromHere, "Only", "Late", 1)).want(201)
		d.redis.Kill()
		d.redis.Restart()
		other := join(t, d.redis, true)
		redistest.Eventually(t, "it is undone on both", func() bool {
			return gone(d, policies+"/late")() && gone(other, policies+"/late")()
		})
	})
	t.Run("it goes with its domain", func(t *testing.T) {
		d.admin.patch(office+"?revert_after=1h", `{"enabled":false}`).want(200)
		d.admin.del(dom + "?confirm=true").want(204)
		d.admin.post("/v1/domains", `{"name":"example.org"}`).want(201)
		d.admin.get(dom+"/reverts").want(200).has("items", `[]`)
	})
}

// What comes back when nobody confirms its removal finds its place as it was: its departments, its
// name in a document, and the room for it.
func TestWhatComesBackFindsItsPlace(t *testing.T) {
	t.Parallel()
	d := start(t, true).site()
	d.admin.put(office, `{"name":"Office","type":"blacklist","scope":{"departments":[{"path":"board"}]}}`).want(201)
	export := func() string { return string(d.admin.get(dom + "/export?accounts=false").want(200).body) }

	t.Run("a department", func(t *testing.T) {
		d.admin.patch(office+"?revert_after=1h", `{"scope":{"departments":[{"path":"sales"}]}}`).want(200)
		d.admin.post(dom+"/apply", `{"departments":[{"path":"sales"},{"path":"sales/emea"}]}`).faults("/departments in_use")
		d.admin.patch(office+"?confirm=true", `{"scope":{"departments":[{"path":"board"}]}}`).want(200)
	})
	t.Run("a name", func(t *testing.T) {
		d.admin.patch(office+"?revert_after=1h", `{"name":"Elsewhere"}`).want(200)
		taken := `{"id":"second","name":"OFFICE","type":"blacklist","scope":{"all":true},"ips":["192.0.2.1"]}`
		d.admin.post(policies, taken).faults("/name duplicate")
		doc := export()
		d.admin.post(dom+"/apply", doc).want(200)
		d.admin.post(dom+"/apply", strings.Replace(doc, `"policies":[`, `"policies":[`+taken+`,`, 1)).faults("/policies/0/name duplicate")
		d.admin.patch(office+"?confirm=true", `{"name":"Office"}`).want(200)
	})
	t.Run("room", func(t *testing.T) {
		var list, blocks []string
		for i := range 10_000 {
			list = append(list, fmt.Sprintf(`{"id":"p%d","name":"p%d","type":"blacklist","enabled":false,"scope":{"all":true}}`, i, i))
			blocks = append(blocks, fmt.Sprintf(`{"network":"10.0.%d.%d"}`, i/250, i%250))
		}
		full := `{"policies":[` + strings.Join(list, ",") + `],"ip_blocks":[` + strings.Join(blocks, ",") + `]}`
		d.admin.post(dom+"/apply?confirm=true", full).want(200)
		d.admin.del(policies + "/p7?revert_after=1h").want(204)
		more := `{"id":"more","name":"more","type":"blacklist","scope":{"all":true},"ips":["192.0.2.1"]}`
		d.admin.post(policies, more).want(409, "limit")
		d.admin.post(policies+"/migrate", `{"native_clients":[{"client":"social","allowed":false}]}`).want(409, "limit")
		d.admin.put(policies+"/p7", list[7]).want(201)
		d.admin.del(policies + "/p7?revert_after=1h").want(204)
		first := d.admin.get(dom + "/ip-blocks?limit=1")
		d.admin.del(dom + "/ip-blocks/" + first.text("items.0.id") + "?revert_after=1h").want(204)
		d.admin.post(dom+"/ip-blocks?confirm=true", `{"network":"192.0.2.1"}`).want(409, "limit")
		d.admin.post(dom+"/apply?confirm=true", strings.NewReplacer(`"p7"`, `"p7b"`, `"`+first.text("items.0.network")+`"`, `"192.0.2.1"`).Replace(full)).
			faults("/ip_blocks limit", "/policies limit")
	})
}

// A pending revert is stored whole, and rewritten when a part of it is confirmed.
func TestRevertIsBounded(t *testing.T) {
	t.Parallel()
	d := start(t, true).site()
	for i := range 9 {
		var members []string
		for k := range 10_000 {
			members = append(members, fmt.Sprintf(`"%s%d@example.org"`, strings.Repeat("m", 40), k))
		}
		d.admin.put(fmt.Sprintf("%s/p%d", policies, i), fmt.Sprintf(`{"name":"p%d","type":"blacklist","scope":{"members":[%s]}}`, i, strings.Join(members, ","))).want(201)
	}
	d.admin.post(dom+"/apply?revert_after=1h", `{"policies":[]}`).want(409, "too_large")
	d.admin.del(policies + "/p0?revert_after=1h").want(204)
	d.admin.post(dom+"/apply?confirm=true", `{"policies":[]}`).want(200)
}
