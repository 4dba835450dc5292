package adminapi_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// Evidence that a mail server does not report is accepted with a warning.
func TestEvidenceWarnings(t *testing.T) {
	d := start(t, true).site()
	d.api.Services = map[string]string{"submission587": "smtp", "imap-office": "imap"}
	const path = "/v1/client-types/native-desktop"
	for _, c := range []struct {
		evidence string
		codes    []string
	}{
		{`{"networks":["192.0.2.1"]}`, nil},
		{`{"networks":["192.0.2.1"],"services":["submission587","imap","sieve","imap-office"]}`, nil},
		{`{"networks":["192.0.2.1"],"local_ports":[993]}`, []string{"not_at_postfix"}},
		{`{"networks":["192.0.2.1"],"server_names":["mail.example.org"],"services":["imap","submission587"]}`, []string{"not_at_postfix"}},
		{`{"networks":["192.0.2.1"],"local_ports":[993],"services":["imap","pop3","submission"]}`, nil},
		{`{"networks":["192.0.2.1"],"services":["submission465"]}`, []string{"unmapped_service"}},
		{`{"client_cert":"valid"}`, []string{"not_at_postfix"}},
		{`{"client_cert":"valid","services":["imap"]}`, nil},
		{`{"client_cert":"SHA256:ab","services":["web"]}`, []string{"certificate_not_reported"}},
		{`{"networks":["192.0.2.1"]},{"client_cert":"SHA256:ab","local_ports":[993]}`, []string{"not_at_postfix", "certificate_not_reported"}},
	} {
		a := d.admin.put(path+"?dry_run=true", `{"evidence":[`+c.evidence+`]}`).want(200)
		if got := a.each("warnings", "code"); !slices.Equal(got, c.codes) {
			t.Errorf("%s: warnings %q, want %q", c.evidence, got, c.codes)
		}
	}
	a := d.admin.put(path, `{"evidence":[{"networks":["192.0.2.1"]},{"networks":["192.0.2.2"],"local_ports":[465]}]}`).want(201)
	if text := a.text("warnings.0.detail"); !strings.HasPrefix(text, "Evidence 2: ") || !strings.Contains(text, "-o smtpd_sasl_service=submission587") || !strings.Contains(text, `services = {"submission587" = "smtp"}`) {
		t.Errorf("the warning does not say what brings the evidence back: %s", text)
	}
	read := d.admin.get(path).want(200).has("warnings", `null`)
	d.admin.put(path, string(a.body)).want(200)
	if got := d.admin.get(path); got.header.Get("ETag") != read.header.Get("ETag") {
		t.Error("writing what was answered changed the type")
	}
}

// F28: cloud fetchers are recognised by their published prefixes, and are no client of the site.
func TestCloudFetchers(t *testing.T) {
	d := start(t, true).site()
	const path = "/v1/client-types/cloud-fetcher"
	body := func(n int) string {
		networks := make([]string, n)
		for i := range networks {
			networks[i] = fmt.Sprintf(`"2001:db8:%x::/48"`, i)
		}
		return `{"evidence":[{"networks":[` + strings.Join(networks, ",") + `]}]}`
	}
	d.admin.put(path, body(10_001)).faults("/evidence/0/networks too_many")
	d.admin.put(path, body(10_000)).want(201)
	d.admin.put(path, body(9_999)).want(200)
	d.admin.put(path, body(10_000)).want(200)
	login := func(ip string) *answer {
		return d.admin.post(policies+"/test", `{"login":{"account":"ann","protocol":"imap","ip":"`+ip+`"}}`).want(200)
	}
	login("2001:db8:270f::1").has("client", `"cloud-fetcher"`).has("policy_id", `"third-party-access"`)
	login("2001:db8:2710::1").has("client", `"third-party"`)
	d.admin.put(dom+"/third-party-access", `{"allow":true}`).want(200)
	login("2001:db8:270f::1").has("outcome", `"next"`)
	d.admin.patch(dom, `{"protocols":{"imap":false}}`).want(200)
	login("2001:db8:270f::1").has("reason", `"protocol_disabled"`)
}
