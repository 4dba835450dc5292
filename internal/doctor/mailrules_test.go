package doctor

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/contrib/postfix"
)

// Mail rules in force need the policy service at each stage, and some a Postfix that takes messages.
func TestMailRules(t *testing.T) {
	const (
		limit    = `{"kind":"limit","enabled":true}`
		off      = `{"kind":"limit","enabled":false},{"kind":"audit","enabled":true,"until":"2020-01-01T00:00:00Z"}`
		audit    = `{"kind":"audit","enabled":true}`
		forward  = `{"kind":"forwarding","enabled":true}`
		approved = `{"address":"all@example.org","approvers":["ann@example.org"]}`

		data, end  = "smtpd_data_restrictions = $drawbridge_policy\n", "smtpd_end_of_data_restrictions = $drawbridge_policy\n"
		recipients = "    $drawbridge_policy,\n    permit_mynetworks,"
	)
	const stages, notify, path, leaves = "postfix.mail_rules", "daemon.notify", "postfix.forward_path", "postfix.outgoing"
	const routes, originals = "postfix.routes", "postfix.orcpt"
	const passes = "default_transport = drawbridge-outgoing:[127.0.0.1]:10027\n"
	// A table of Postfix' own kind, as administrators make it.
	transport := filepath.Join(t.TempDir(), "transport")
	if err := os.WriteFile(transport, []byte("# by relay\nexample.com drawbridge-outgoing:[127.0.0.1]:10027\nexample.net  smtp:[192.0.2.1]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(transport), "main.cf"), []byte("compatibility_level = 3.6\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "postmap", "-c", filepath.Dir(transport), "hash:"+transport).CombinedOutput(); err != nil {
		t.Fatalf("postmap: %v: %s", err, out)
	}
	for name, c := range map[string]struct {
		rules, groups string
		old, new      string // of main.cf
		master        string // of the services for outgoing mail, from which is removed; "" for none of them
		greeting      string // of notify.smtp; none: nobody listens
		severity      Severity
		check, what   string
	}{
		"none":                   {severity: OK},
		"none in force":          {rules: off, old: data, severity: OK},
		"a limit":                {rules: limit, severity: OK, check: stages},
		"a limit without DATA":   {rules: limit, old: data, severity: Fail, check: stages, what: "do not count"},
		"a limit without an end": {rules: limit, old: end, severity: Fail, check: stages, what: "do not count"},
		"no limit":               {rules: forward, old: data, severity: OK, check: stages},
		"port 25 does not ask":   {groups: `{"address":"all@example.org"}`, old: recipients, new: "    permit_mynetworks,", severity: Fail, check: stages, what: "do not apply"},
		"port 25 permits first":  {rules: forward, old: recipients, new: "    permit_mynetworks,\n    $drawbridge_policy,", severity: Warn, check: stages, what: "do not apply"},
		"forwarding":             {rules: forward, old: data, new: data + "forward_path =\n", severity: OK, check: path},
		".forward files":         {rules: forward, severity: Warn, check: path, what: ".forward"},
		"aliases":                {rules: forward, severity: Warn, check: leaves, what: "alias_maps"},
		"aliases pass":           {rules: forward, old: data, new: data + passes, master: "\n\n", severity: OK, check: leaves, what: "127.0.0.1:10027"},
		".forward files pass":    {rules: forward, old: data, new: data + passes, master: "\n\n", severity: OK, check: path, what: "passes"},
		"aliases go past it":     {rules: forward, master: "\n\n", severity: Warn, check: leaves, what: "leads past"},
		"outgoing in a loop":     {rules: forward, old: data, new: data + passes, master: "  -o content_filter=smtp:\n", severity: Fail, check: leaves, what: "in a loop"},
		"outgoing does not ask":  {rules: forward, old: data, new: data + passes, master: "$drawbridge_milter", severity: Fail, check: leaves, what: "not evaluated"},
		"no routes":              {rules: forward, old: data, new: data + passes, master: "\n\n", severity: OK, check: routes},
		"a route elsewhere":      {rules: forward, old: data, new: data + passes + "transport_maps = inline:{ { example.net = discard: }, { example.com = drawbridge-outgoing: } }\n", master: "\n\n", severity: OK, check: routes},
		"a route around it":      {rules: forward, old: data, new: data + passes + "transport_maps = inline:{ { example.net = smtp:[192.0.2.1] } }\n", master: "\n\n", severity: Warn, check: routes, what: "smtp:[192.0.2.1]"},
		"a route by sender":      {rules: forward, old: data, new: data + passes + "sender_dependent_default_transport_maps = static:smtp:\n", master: "\n\n", severity: Warn, check: routes, what: "has smtp:"},
		"a route in a table":     {rules: forward, old: data, new: data + passes + "transport_maps = hash:" + transport + "\n", master: "\n\n", severity: Warn, check: routes, what: "has smtp:[192.0.2.1]"},
		"unknown routes":         {rules: forward, old: data, new: data + passes + "transport_maps = hash:/nonexistent\n", master: "\n\n", severity: Warn, check: routes, what: "cannot be listed"},
		"relayed domains":        {rules: forward, old: data, new: data + passes + "relay_domains = example.net\n", master: "\n\n", severity: Warn, check: routes, what: "relay_domains"},
		"original recipients":    {rules: forward, old: data, new: data + passes, master: "\n\n", severity: OK, check: originals},
		"hidden by a client":     {rules: forward, old: "smtpd_milters = ", new: passes + "# ", master: "\n\n", severity: Warn, check: originals, what: "ORCPT"},
		"a server for notices":   {rules: audit, greeting: "220 mail.example.org ESMTP\r\n", severity: OK, check: notify},
		"no server":              {rules: audit, severity: Fail, check: notify, what: "connection refused"},
		"a server that refuses":  {groups: approved, greeting: "554 no\r\n", severity: Fail, check: notify, what: `"554 no", not 220`},
		"a server that hangs up": {rules: `{"kind":"monitor"}`, greeting: "220", severity: Fail, check: notify, what: "no greeting"},
	} {
		t.Run(name, func(t *testing.T) {
			if !strings.Contains(goodMain(), c.old) {
				t.Fatalf("the shipped configuration has no %q", c.old)
			}
			a := healthy
			a.rules, a.groups = c.rules, c.groups
			dir, _ := startDaemon(t, a)
			master := goodMaster()
			if c.master != "" {
				master += "smtp unix - - n - - smtp\nrelay unix - - n - - smtp\n" + strings.Replace(postfix.OutgoingCF(), c.master, "\n", 1)
			}
			settings := site(t)
			settings.Notify.SMTP = "127.0.0.1:1"
			if c.greeting != "" {
				settings.Notify.SMTP = serve(t, "tcp", "127.0.0.1:0", func(conn net.Conn) { _, _ = io.WriteString(conn, c.greeting) }).String()
			}
			conf := postfixOf(t, strings.Replace(goodMain(), c.old, c.new, 1), master)
			f := checkMailRules(t.Context(), &conf, settings, "unix:"+dir+"/api.sock", "")
			if c.check == "" {
				if len(f) > 0 {
					t.Errorf("findings:\n%s", table(t, f))
				}
				return
			}
			if x := expect(t, f, c.severity, c.check, "", c.what); c.severity != OK && x.Fix == "" {
				t.Errorf("%s says nothing of what to do", x.Check)
			}
			for _, x := range bad(f) {
				if x.Check != c.check && x.Check != path && x.Check != leaves && c.check != originals {
					t.Errorf("%s: %s", x.Check, x.What)
				}
			}
		})
	}
}
