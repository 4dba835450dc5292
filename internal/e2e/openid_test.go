//go:build openid

package e2e

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// A user logs in at a certified OpenID provider, in chromium: the session's cookie survives the way
// back from another site, the account comes from the provider's user info, and a log-out here is one
// there. doctor accepts the provider.
func TestOpenID(t *testing.T) {
	program := os.Getenv("OPENID")
	if program == "" {
		t.Fatal("OPENID names no provider: run make test-openid")
	}
	dir := t.TempDir()
	users := filepath.Join(dir, "users.json")
	b, err := json.Marshal(map[string]any{
		"1": map[string]any{"ID": "1", "Username": "carol", "Password": "at-the-provider", "Email": carol, "EmailVerified": true},
		"2": map[string]any{"ID": "2", "Username": "mallory", "Password": "at-the-provider", "Email": ann, "EmailVerified": false},
	})
	if err == nil {
		err = os.WriteFile(users, b, 0o600)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "secret"), []byte("secret"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	provider := exec.CommandContext(t.Context(), program)
	provider.Env = append(os.Environ(), "USERS_FILE="+users)
	out, err := provider.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := provider.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = provider.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		t.Fatal("the provider does not start")
	}
	issuer := lines.Text() // of 127.0.0.1: another site than localhost, where the pages are
	s := start(t, trialstack.Options{Settings: map[string]any{
		"console.oidc_issuer": issuer, "console.oidc_client_id": "drawbridge", "console.oidc_client_secret_file": filepath.Join(dir, "secret"),
		"console.oidc_name": "Example login", "console.oidc_domains": []string{"example.org"},
	}})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+carol, object{})
	base, ctx := s.Daemons[0].PagesURL(), s.chromium()
	do := func(what string, actions ...chromedp.Action) {
		t.Helper()
		if err := chromedp.Run(ctx, actions...); err != nil {
			var text string
			_ = chromedp.Run(ctx, chromedp.Text("body", &text))
			t.Fatalf("%s: %v\n%s", what, err, text)
		}
	}
	logIn := func(name string) []chromedp.Action {
		return []chromedp.Action{
			chromedp.Navigate(base + "/account/login"), chromedp.WaitVisible("#account"), chromedp.Click(`//a[contains(., "Example login")]`),
			chromedp.WaitVisible("#username"), chromedp.SendKeys("#username", name+"\tat-the-provider\r"),
		}
	}
	do("to the provider and back", append(logIn("carol"), chromedp.WaitVisible("#switch"))...)
	var address, text string
	do("logged in", chromedp.Location(&address), chromedp.Text("body", &text))
	if !strings.HasPrefix(address, base+"/account") || !strings.Contains(text, carol) {
		t.Errorf("at %s: %s", address, text)
	}
	s.record("account="+carol+"&client=console", func(r object) bool { return r["mechanism"] == "OIDC" && r["outcome"] == "allow" })
	do("log-out", chromedp.Click(`form[action="/account/logout"] button`), chromedp.WaitVisible("#account"), chromedp.Location(&address))
	if !strings.HasPrefix(address, base+"/account/login") {
		t.Errorf("after the log-out at %s", address)
	}
	if !lines.Scan() || lines.Text() != "logged out: 1 drawbridge" {
		t.Errorf("the provider says %q", lines.Text())
	}
	do("an address that is not verified", append(logIn("mallory"), chromedp.WaitVisible("#problem"))...)
	do("the page", chromedp.Navigate(base+"/account"), chromedp.WaitVisible("#account"))

	d := s.Daemons[0]
	findings, _ := d.Command(s.ctx, "doctor", "--dovecot-config", s.DovecotConf(), "--postfix-config", s.PostfixDir(), "--config", d.Config).CombinedOutput() // its status counts all findings
	if !strings.Contains(string(findings), "daemon.oidc") || strings.Contains(string(findings), "FAIL  daemon.oidc") {
		t.Errorf("doctor:\n%s", findings)
	}
	_ = provider.Process.Kill()
	findings, _ = d.Command(s.ctx, "doctor", "--dovecot-config", s.DovecotConf(), "--postfix-config", s.PostfixDir(), "--config", d.Config).CombinedOutput()
	if !strings.Contains(string(findings), "FAIL  daemon.oidc") {
		t.Errorf("doctor, without the provider:\n%s", findings)
	}
}
