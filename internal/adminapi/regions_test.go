package adminapi_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/adminapi"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/store"
)

// regions are a database in which 203.0.113.0/24 is German, 203.0.114.0/24 in Kosovo, and
// 2001:db8::/32 French. It is forty days old.
func regions(t *testing.T) func(*adminapi.API) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "geoip")
	dated := "# Generated: " + time.Now().AddDate(0, 0, -40).UTC().Format(time.RFC1123) + "\n"
	for name, text := range map[string]string{
		path:       dated + "3405803776,3405804031,DE\n3405804032,3405804287,XK\n",
		path + "6": "2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,FR\n",
	} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	source, err := region.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return func(a *adminapi.API) { a.Regions = source }
}

func TestRegions(t *testing.T) {
	d := start(t, true, regions(t)).site()
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	d.admin.get("/v1/regions").want(200).has("kind", `"csv"`).has("age_days", `40`).has("ranges_v4", `2`).has("ranges_v6", `1`).has("domains", `[]`)
	if d.admin.get("/v1/regions").text("paths.0") == "" {
		t.Error("administrators of the site are not told where it is")
	}
	d.key(`"role":"domain","domain":"example.org"`).get("/v1/regions").want(200).has("kind", `"csv"`).has("age_days", `40`).has("paths", `[]`)
	for ip, want := range map[string]string{
		"203.0.113.9":            `{"ip":"203.0.113.9","region":"DE","name":"Germany"}`,
		"203.0.114.9":            `{"ip":"203.0.114.9","region":"XK","name":""}`,
		"2001:DB8:0::7":          `{"ip":"2001:db8::7","region":"FR","name":"France"}`,
		"198.51.100.7":           `{"ip":"198.51.100.7","region":"unknown","name":""}`,
		"10.0.0.1":               `{"ip":"10.0.0.1","region":"","name":""}`,
		"%3A%3Affff:203.0.113.9": `{"ip":"203.0.113.9","region":"DE","name":"Germany"}`,
	} {
		if got := d.admin.get("/v1/regions/" + ip).want(200); string(got.body) != want+"\n" {
			t.Errorf("%s: %s", ip, got.body)
		}
	}
	d.admin.get("/v1/regions/203.0.113.300").faults("?ip invalid_network")
	all := d.admin.get("/v1/regions/codes?limit=1000").want(200).each("items", "region")
	if len(all) != 253 || !slices.Contains(all, "XK") || !slices.Contains(all, "EU") || !slices.IsSorted(all) {
		t.Errorf("%d regions: %v", len(all), all)
	}
	first := d.admin.get("/v1/regions/codes?limit=100").want(200)
	second := d.admin.get("/v1/regions/codes?limit=1000&cursor="+first.text("next")).want(200).each("items", "region")
	if got := append(first.each("items", "region"), second...); !slices.Equal(got, all) {
		t.Errorf("page by page: %v", got)
	}

	// Policies: written any way, kept one way; all that is wrong is told at once.
	d.admin.post(policies, `{"name":"x","type":"whitelist","scope":{"all":true},"regions":["UK","unknown","Germany","QQ","DEU","de","DE","xk",""]}`).faults(
		"/regions/0 unknown_region", "/regions/1 unknown_region", "/regions/2 unknown_region", "/regions/3 unknown_region", "/regions/4 unknown_region", "/regions/8 unknown_region")
	d.admin.put(policies+"/home", `{"name":"Home","type":"whitelist","scope":{"all":true},"regions":["de","DE","xk"]}`).want(201).has("regions", `["DE","XK"]`)
	tested := func(ip, verdict, region string) {
		t.Helper()
		d.admin.post(policies+"/home/test", `{"login":{"account":"ann@example.org","protocol":"imap","ip":"`+ip+`"}}`).want(200).has("verdict", `"`+verdict+`"`).has("region", `"`+region+`"`)
	}
	tested("203.0.113.9", "match", "DE")
	tested("203.0.114.9", "match", "XK")
	tested("2001:db8::7", "no_match", "FR")
	tested("198.51.100.7", "no_match", "unknown")
	tested("10.0.0.1", "no_match", "")
	d.admin.post(policies+"/test", `{"policy":{"type":"blacklist","scope":{"all":true},"regions":["fr"]},"login":{"account":"ann@example.org","protocol":"imap","ip":"2001:db8::7"}}`).
		want(200).has("verdict", `"match"`).has("outcome", `"deny"`)
	d.admin.post(policies+"/test", `{"policy":{"type":"blacklist","scope":{"all":true},"regions":["UK"]},"login":{"account":"ann@example.org","protocol":"imap","ip":"2001:db8::7"}}`).
		faults("/policy/regions/0 unknown_region")
	// Excepted addresses leave something of a region, whatever else is named.
	d.admin.patch(policies+"/home", `{"ips":["192.0.2.0/24"],"except_ips":["192.0.2.0/24"]}`).want(200)

	// Who may know which domains name regions.
	d.admin.get("/v1/regions").want(200).has("domains", `["example.org"]`)
	d.key(`"role":"domain","domain":"example.org"`).get("/v1/regions").want(200).has("domains", `["example.org"]`)
	d.key(`"role":"domain","domain":"example.net"`).get("/v1/regions").want(200).has("domains", `[]`)
	d.admin.patch(policies+"/home", `{"enabled":false}`).want(200)
	d.admin.get("/v1/regions").want(200).has("domains", `[]`)
}

// Without a database: what is there stays as it is, and nothing new is promised.
func TestNoRegions(t *testing.T) {
	with := start(t, true, regions(t)).site()
	with.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	with.admin.put(policies+"/home", `{"name":"Home","type":"whitelist","scope":{"all":true},"regions":["DE","XK"]}`).want(201)
	with.admin.put(policies+"/away", `{"name":"Away","type":"blacklist","scope":{"all":true},"regions":["FR"],"enabled":false}`).want(201)

	d := join(t, with.redis, true)
	d.admin.get("/v1/regions").want(200).has("kind", `"none"`).has("paths", `[]`).has("age_days", `0`).has("domains", `["example.org"]`)
	d.admin.get("/v1/regions/203.0.113.9").want(409, "regions_unavailable")
	d.admin.get("/v1/regions/10.0.0.1").want(200)
	d.admin.patch(policies+"/home", `{"regions":["DE","FR","XK","QQ"]}`).faults("/regions/1 regions_unavailable", "/regions/3 unknown_region")
	d.admin.patch(policies+"/home", `{"enabled":false}`).want(200).has("regions", `["DE","XK"]`)

	login := `{"login":{"account":"ann@example.org","protocol":"imap","ip":"203.0.113.9"}}`
	d.admin.post(policies+"/home/test", login).want(200).has("verdict", `"not_evaluated"`).has("outcome", `"next"`)
	d.admin.patch(policies+"/away", `{"enabled":true}`).want(200)
	d.admin.post(policies+"/away/test", login).want(200).has("verdict", `"match"`).has("outcome", `"deny"`).has("region", `""`)
	d.admin.patch(policies+"/away", `{"enabled":false}`).want(200)
	d.admin.patch(policies+"/home", `{"enabled":true}`).want(200)
	d.admin.post(policies+"/home/test", login).want(200).has("verdict", `"no_match"`).has("outcome", `"deny"`)
}

// A whitelist of regions warns when recent logins came from addresses without a country. EU, AP and
// ZZ can be named, and are then no loss.
func TestRegionWarning(t *testing.T) {
	d := start(t, true, regions(t)).site()
	const policies = "/v1/domains/example.org/policies"
	from := func(code string) func(*store.LoginRecord) { return func(r *store.LoginRecord) { r.Region = code } }
	now := time.Now()
	d.on(login(now, "ann@example.org", "203.0.113.9", from("DE")), login(now, "ann@example.org", "2a00::1", from("EU")), login(now, "bob@example.org", "2a01::1", from("unknown")), login(now, "bob@example.org", "10.0.0.1"))
	const members = `"scope":{"members":["ann@example.org"]}`
	d.admin.put(policies+"/home", `{"name":"Home","type":"whitelist",`+members+`,"regions":["DE"]}`).want(201).has("regions", `["DE"]`).
		has("warnings.0.code", `"regions_without_country"`)
	d.admin.put(policies+"/home", `{"name":"Home","type":"whitelist",`+members+`,"regions":["DE","eu"]}`).want(200).has("regions", `["DE","EU"]`).
		has("warnings.0.code", `"regions_without_country"`)
	d.on(login(now, "ann@example.org", "203.0.113.9", from("DE")))
	if got := d.admin.patch(policies+"/home", `{"type":"blacklist"}`).want(200).text("warnings.0.code"); got != "" {
		t.Errorf("a blacklist warns: %s", got)
	}
}
