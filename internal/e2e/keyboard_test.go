//go:build pages

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	permissions "github.com/chromedp/cdproto/browser"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// typist is somebody at chromium who has no mouse and does not see the screen: keys are all that is sent,
// and what has the focus is known by its name.
type typist struct {
	*site
	ctx context.Context //nolint:containedctx // as long as its test
}

func (k *typist) do(what string, actions ...chromedp.Action) {
	k.t.Helper()
	if err := chromedp.Run(k.ctx, actions...); err != nil {
		k.t.Fatalf("%s: %v", what, err)
	}
}

// evaluate returns what a script says.
func evaluate[T any](k *typist, script string) (v T) {
	k.t.Helper()
	k.do(script, chromedp.Evaluate(script, &v, awaitPromise))
	return v
}

// until waits for a script to say true.
func (k *typist) until(what, script string) {
	k.t.Helper()
	met := false
	defer func() {
		if !met {
			k.t.Logf("the page: %s", evaluate[string](k, `document.body.innerText`))
		}
	}()
	k.eventually(what, func() bool {
		err := chromedp.Run(k.ctx, chromedp.Evaluate(script, &met))
		return err == nil && met // the page may be on its way
	})
}

// page waits for a page by its heading, and hears it.
func (k *typist) page(heading, language string) {
	k.t.Helper()
	k.until(heading, `document.readyState === "complete" && document.querySelector("h1")?.textContent === `+strconv.Quote(heading))
	faults, err := heard(k.ctx, language)
	k.must(err)
	for _, fault := range faults {
		k.t.Errorf("%s: %s", heading, fault)
	}
}

// focused is what the control with the focus is called.
const focused = `(() => { const e = document.activeElement; return e === document.body ? "" : (e.ariaLabel || e.labels?.[0]?.innerText || e.innerText || e.id).trim().split("\n")[0] })()`

// to moves the focus forwards to a control.
func (k *typist) to(name string) {
	k.t.Helper()
	var passed []string
	for range 80 {
		k.do("tab", chromedp.KeyEvent(kb.Tab))
		at := evaluate[string](k, focused)
		if at == name {
			return
		}
		passed = append(passed, at)
	}
	k.t.Fatalf("no control %q is reached: %q", name, passed)
}

func (k *typist) keys(keys string) { k.t.Helper(); k.do("keys", chromedp.KeyEvent(keys)) }

// live returns the texts in the accessibility tree that are read out when they change.
func (k *typist) live() (texts []string) {
	k.t.Helper()
	var nodes []*accessibility.Node
	k.do("the accessibility tree", chromedp.ActionFunc(func(ctx context.Context) (err error) {
		nodes, err = accessibility.GetFullAXTree().Do(ctx)
		return err
	}))
	byID := map[accessibility.NodeID]*accessibility.Node{}
	for _, n := range nodes {
		byID[n.NodeID] = n
	}
	var words func(n *accessibility.Node) string
	words = func(n *accessibility.Node) (all string) {
		if text(n.Role) == "StaticText" {
			return text(n.Name)
		}
		for _, id := range n.ChildIDs {
			if c := byID[id]; c != nil {
				all += words(c)
			}
		}
		return all
	}
	for _, n := range nodes {
		for _, p := range n.Properties {
			if p.Name == accessibility.PropertyNameLive && text(p.Value) != "off" {
				texts = append(texts, strings.TrimSpace(words(n)))
				break
			}
		}
	}
	return texts
}

// says wants a text to be in a part of the page that is read out.
func (k *typist) says(want string) {
	k.t.Helper()
	if texts := k.live(); !strings.Contains(strings.Join(texts, "\n"), want) {
		k.t.Errorf("read out is %q, not %q", texts, want)
	}
}

// scan returns what a QR code says that is on the page.
func (k *typist) scan() string {
	k.t.Helper()
	var image []byte
	k.do("a picture", chromedp.Screenshot("svg.qr", &image, chromedp.NodeVisible))
	file := filepath.Join(k.t.TempDir(), "qr.png")
	k.must(os.WriteFile(file, image, 0o600))
	out, err := exec.CommandContext(k.ctx, "zbarimg", "--quiet", "--raw", file).Output()
	if err != nil {
		k.t.Fatalf("zbarimg (Debian's zbar-tools) reads nothing: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// A user sets up devices and an administrator makes a policy, by keys alone. Whoever hears the page
// learns what happens, what is copied is in the clipboard, and a camera reads the QR codes.
func TestPagesByKeyboard(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+ann, object{})
	k := &typist{s, s.chromium()}
	base := s.Daemons[0].PagesURL()
	speak := func(language string) chromedp.Action {
		return network.SetExtraHTTPHeaders(network.Headers{"Accept-Language": language})
	}
	allow := func(name string) chromedp.Action {
		return permissions.SetPermission(&permissions.PermissionDescriptor{Name: name}, permissions.PermissionSettingGranted).WithOrigin(base)
	}
	k.do("German", network.Enable(), speak("de"), emulation.SetFocusEmulationEnabled(true),
		allow("clipboard-read"), allow("clipboard-write"),
		chromedp.Navigate(base+"/account/login"))

	// A wrong password: what became of the form has the focus.
	k.page("Anmelden", "de")
	k.to("E-Mail-Adresse")
	k.keys(ann + kb.Tab + "wrong" + kb.Enter)
	k.until("the problem has the focus", `document.activeElement.id === "problem"`)
	k.says("Adresse oder Passwort sind falsch")
	k.page("Anmelden", "de")
	k.to("Postfach-Passwort")
	k.keys(s.passwords[ann] + kb.Enter)

	// A new device, whose password is copied.
	k.page("Meine Geräte", "de")
	k.to("Neues Gerät")
	k.keys(kb.Enter)
	device := func(label, as string) {
		t.Helper()
		k.page("Neues Gerät", "de")
		k.to("Name des Geräts")
		k.keys(label + kb.Tab)
		for at := evaluate[string](k, focused); at != as; at = evaluate[string](k, focused) {
			k.keys(kb.ArrowDown)
			if evaluate[string](k, focused) == at {
				t.Fatalf("no choice %q: %q", as, at)
			}
		}
		k.to("Weiter")
		k.keys(kb.Enter)
		k.until("it is created", `document.querySelector("h2")?.textContent === `+strconv.Quote(label))
		k.page(evaluate[string](k, `document.querySelector("h1").textContent`), "de")
	}
	device("Tablet", "Das Passwort anzeigen, ich gebe es ein")
	k.to("Kopieren")
	k.keys(" ")
	k.until("it is copied", `document.activeElement.textContent === "Kopiert"`)
	k.says("Kopiert")
	secret := evaluate[string](k, `navigator.clipboard.readText()`)
	if shown := evaluate[string](k, `document.querySelector("#secret").textContent.trim()`); secret != shown || len(secret) < 16 {
		t.Errorf("copied %d characters, not the %d that are shown", len(secret), len(shown))
	}

	// Its first login is told, and nothing before: the focus stays where it is.
	k.says("Warten auf die erste Anmeldung")
	k.to("Jetzt prüfen")
	k.do("what changes is counted", chromedp.Evaluate(`window.changes = 0; new MutationObserver(l => window.changes += l.length).observe(document.querySelector("#state"), {childList: true, subtree: true, characterData: true})`, nil))
	k.until("the page has asked twice", `performance.getEntriesByType("resource").filter(e => e.name.endsWith("/state")).length >= 2`)
	if at := evaluate[string](k, focused); at != "Jetzt prüfen" || evaluate[int](k, `window.changes`) != 0 {
		t.Errorf("while nothing happens the focus is at %q, after %d changes", at, evaluate[int](k, `window.changes`))
	}
	s.want("the device", s.imap(outside, ann, secret), "OK ")
	k.until("the first login is shown", `document.querySelector("#state").textContent.includes("Fertig: Das Gerät hat sich angemeldet")`)
	k.says("Fertig: Das Gerät hat sich angemeldet")
	if at := evaluate[string](k, `document.activeElement.id`); at != "state" {
		t.Errorf("after it the focus is at %q", at)
	}

	// A one-time link, in a phone's camera.
	k.to("Zu meinen Geräten")
	k.keys(kb.Enter)
	k.page("Meine Geräte", "de")
	k.to("Neues Gerät")
	k.keys(kb.Enter)
	device("Telefon", "QR-Code mit der Kamera des Telefons scannen: Der Link darin gilt fünf Minuten, einmal")
	link := k.scan()
	if shown := evaluate[string](k, `document.querySelector("#link").textContent`); link != shown || !strings.HasPrefix(link, base+"/account/phone/") {
		t.Fatalf("the camera reads %q, not %q", link, shown)
	}
	phone := s.browse(outside)
	made := phone.shows("on the phone", phone.do("POST", link, map[string][]string{"as": {"show"}}), 200, "shown only now")
	s.want("the phone", s.imap(outside, ann, shownSecret.FindStringSubmatch(made.text)[1]), "OK ")
	phone.shows("twice", phone.do("POST", link, map[string][]string{"as": {"show"}}), 200, "This link was used")

	// Thunderbird's format 1.
	k.to("Zu meinen Geräten")
	k.keys(kb.Enter)
	k.page("Meine Geräte", "de")
	k.to("Neues Gerät")
	k.keys(kb.Enter)
	device("Thunderbird", "QR-Code für Thunderbird auf Android")
	var code []any
	s.must(json.Unmarshal([]byte(k.scan()), &code))
	secret = evaluate[string](k, `document.querySelector("#secret").textContent.trim()`)
	servers := evaluate[[]string](k, `[...document.querySelectorAll("dd")].map(e => e.textContent)`)
	want := fmt.Sprintf(`[1,[1,1],[0,%[1]s,%[2]q,%[2]q,%[3]q],[[[0,%[4]s,%[2]q,%[3]q],[%[2]q,%[2]q]]]]`, place(t, servers[1]), ann, secret, place(t, servers[len(servers)-1]))
	if got := toJSON(code); got != want {
		t.Errorf("Thunderbird's camera reads %s, want %s", strings.ReplaceAll(got, secret, "…"), strings.ReplaceAll(want, secret, "…"))
	}
	s.want("Thunderbird", s.imap(outside, ann, secret), "OK ")

	// In Chinese, by its button.
	k.to("中文")
	k.keys(kb.Enter)
	k.page("我的设备", "zh")

	// The console: a policy, for ten minutes, which is then kept.
	console := "http://" + s.Daemons[0].ConsoleAddr
	k.do("the console", chromedp.Navigate(console+"/login"))
	k.page("Log in", "en")
	k.to("API key of role admin, read or domain")
	k.keys(s.createKey(object{"name": "keyboard", "role": "admin"}) + kb.Enter)
	k.page("Overview", "en")
	k.to("example.org")
	k.keys(kb.Enter)
	k.page("example.org", "en")
	k.to("Policies")
	k.keys(kb.Enter)
	k.page("Access policies", "en")
	k.to("New policy")
	k.keys(kb.Enter)
	k.page("New access policy", "en")
	k.to("Name")
	k.keys("Abroad")
	k.to("All accounts of the domain, except as below")
	k.keys(" ")
	k.to("or accounts, one address per line")
	k.keys(bob)
	k.to("Addresses, prefixes and ranges, one per line; empty together with regions: anywhere")
	k.keys("192.0.2.0/24")
	k.to("Report only")
	k.keys(kb.ArrowDown)
	k.to("Account")
	k.keys(bob + kb.Tab + "192.0.2.7")
	k.to("Test and preview, without saving")
	k.keys(kb.Enter)
	k.until("the preview", `document.querySelector("#test")?.textContent.includes("deny")`)
	k.page(evaluate[string](k, `document.querySelector("h1").textContent`), "en")
	k.to("Save, and revert it after ten minutes unless I confirm it")
	k.keys(kb.Enter)
	k.page("Access policies", "en")
	k.says("In 10m it is reverted unless you confirm it")
	if at := evaluate[string](k, `document.activeElement.getAttribute("role")`); at != "status" {
		t.Errorf("after the change the focus is at %q", at)
	}
	k.until("the countdown", `/^(9:\d\d|10:00)$/.test(document.querySelector("[role=timer]").textContent)`)
	k.to("Confirm")
	k.keys(kb.Enter)
	k.until("it is kept", `document.querySelector("main [role=status]")?.textContent.includes("The change is confirmed") && !document.querySelector("[role=timer]")`)
	k.says("The change is confirmed")

	// The last minute is told.
	s.api("PUT", "/v1/domains/example.org/policies/brief?revert_after=64s", object{
		"name": "Brief", "type": "blacklist", "scope": object{"members": []string{bob}}, "ips": []string{"198.51.100.0/24"},
	})
	k.do("again", chromedp.Reload())
	k.until("the last minute", `document.querySelector("[data-soon]").textContent !== ""`)
	k.says("Less than a minute is left")
}

// place returns host, port and security of a server as in Thunderbird's code, by the page: "host, Port 143, STARTTLS".
func place(t *testing.T, shown string) string {
	t.Helper()
	words := strings.Split(shown, ", ")
	if len(words) < 3 {
		t.Fatalf("a server is shown as %q", shown)
	}
	security := map[string]string{"STARTTLS": "2", "SSL/TLS": "3"}[words[2]]
	return strconv.Quote(words[0]) + "," + strings.TrimPrefix(words[1], "Port ") + "," + security + ",1"
}
