package e2e

import (
	"fmt"
	"html"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

var (
	unspoken = regexp.MustCompile(`(?s)<(script|style|code|svg|time)\b.*?</(?:script|style|code|svg|time)>|<p class="secret".*?</p>|<p><a [^>]*lang=.*?</p>|<form method="post" action="/language".*?</form>`)
	tags     = regexp.MustCompile(`(?s)<[^>]*>`)
	shown    = regexp.MustCompile(`\b(?:aria-label|placeholder|title|alt|data-done)="([^"]+)"`)
	words    = regexp.MustCompile(`[A-Za-z]{2,}`)
	// English has these words, and German has not.
	function = regexp.MustCompile(`\b(?:the|is|of|and|with|your|from|this|to|cannot|must|has)\b`)
	// What is no text: addresses, times, and what has one name in all languages.
	names = regexp.MustCompile(`[\w.*+-]+@[\w.-]+|\b\d[\d.:/]+\b|(?i)\b(?:Drawbridge|IMAP|SMTP|POP3|ManageSieve|Sieve|SSL/TLS|STARTTLS|UTC|QR|PIN|SMS|Thunderbird|Android|iPhone|iPad|Mac|JavaScript|Passkeys?|Webmail|web|PIN|Example login|localhost)\b`)
)

// saysTo returns what a page says: its texts, and the names of what it shows.
func saysTo(p answered) (list []string) {
	page := unspoken.ReplaceAllString(p.text, " ")
	for _, m := range shown.FindAllStringSubmatch(page, -1) {
		list = append(list, html.UnescapeString(m[1]))
	}
	for _, text := range tags.Split(page, -1) {
		if text = strings.TrimSpace(html.UnescapeString(text)); text != "" {
			list = append(list, text)
		}
	}
	return list
}

// Every page and everything that is refused on it is in the language of the page: what is as on the
// English page, or has English words, was forgotten.
func TestPagesInLanguages(t *testing.T) {
	t.Parallel()
	gateway, provider := newHook(t), newSignOns(t)
	settings := map[string]any{"login.next_passdb": false, "throttle.wrong_secrets_per_address": 1000, "throttle.wrong_secrets_per_account": 1000, "notify.sms_webhook_url": gateway.URL, "notify.sms_webhook_key_file": gateway.keyFile}
	maps.Copy(settings, provider.settings)
	s := start(t, trialstack.Options{SharedRedis: true, Settings: settings})
	s.domain(object{"password_policy": object{"min_length": 12, "min_strength": 3, "forbidden_keywords": []string{"Mauerwerk"}, "history": 3}})
	const strong = "walnut plover lantern copper 26"
	for _, a := range []string{ann, bob, carol} {
		s.api("PUT", "/v1/accounts/"+a, object{})
		s.api("PUT", "/v1/accounts/"+a+"/mailbox-password", object{"password": strong})
	}
	s.api("PATCH", "/v1/accounts/"+carol, object{"suspended": true})
	s.want("ann's program", s.imap(outside, ann, strong), "OK ")
	s.record("account="+ann+"&client=third-party", func(r object) bool { return r["outcome"] == "allow" })
	s.refuse("a guess", s.imap(outside, ann, "wrong"), "OK ")
	s.record("account="+ann+"&client=third-party", func(r object) bool { return r["outcome"] == "deny" })
	_, old := s.device(ann, "X")
	s.want("ann's device", s.imap("127.0.9.78", ann, old), "OK ")
	unusual := s.record("account="+ann+"&ip=127.0.9.78", func(r object) bool { return r["outcome"] == "allow" })["id"].(string)

	walk := func(language, from string) (said map[string]answered) {
		said = map[string]answered{}
		b := s.browse(from)
		b.header.Set("Accept-Language", language)
		step := func(what string, p answered) answered { said[what] = p; return p }
		post := func(what, path string, fields ...string) answered {
			t.Helper()
			return step(what+" "+path, b.post(path, fields...))
		}
		get := func(path string) answered { t.Helper(); return step(path, b.get(path)) }
		get("/account/login")
		post("wrong", "/account/login", "account", ann, "password", "x")
		post("suspended", "/account/login", "account", carol, "password", strong)
		get("/account/phone/x")
		post("used", "/account/phone/x", "as", "show")
		get("/account/oidc/callback?state=x")
		post("stray", "/account/handover", "token", "x")
		post("unknown", "/account/login/factor", "token", "x", "code", "1")
		post("unknown", "/account/login/password", "token", "x")
		post("log-in", "/account/login", "account", ann, "password", strong)
		for _, path := range []string{"/account", "/account/devices/new", "/account/factors", "/account/password", "/account/sessions", "/account/nowhere", "/account/devices/x/delete", "/account/logins/x/not-mine", "/account/logins/" + unusual + "/not-mine"} {
			get(path)
		}
		step("logins", b.get("/account/logins"))
		device := func(what string, fields ...string) answered {
			t.Helper()
			return post(what, "/account/devices", append(fields, "once", b.field(b.get("/account/devices/new"), "once"))...)
		}
		device("no name", "as", "show")
		device("long name", "label", strings.Repeat("x", 65), "as", "show")
		device("control character", "label", "\x01", "as", "show")
		device("limits", "label", "X", "as", "show", "networks", "x", "expires", "x", "protocols", "x")
		device("yesterday", "label", "X", "as", "show", "expires", "2020-01-01")
		post("form sent again", "/account/devices", "once", "x", "label", "X", "as", "show")
		for _, as := range []string{"show", "link", "thunderbird"} {
			p := device("created as "+as, "label", "X", "as", as, "networks", "192.0.2.0/24", "protocols", "smtp", "expires", "2099-12-31")
			if m := deviceID.FindStringSubmatch(p.text); m != nil {
				said["state"] = b.get("/account/devices/" + m[1] + "/state")
				said["rename"] = b.post("/account/devices/"+m[1]+"/rename", "label", "")
				said["renamed"] = b.post("/account/devices/"+m[1]+"/rename", "label", "Y")
				said["ask"] = b.get("/account/devices/" + m[1] + "/delete")
				said["deleted"] = b.post("/account/devices/" + m[1] + "/delete")
			}
		}
		for range 12 { // more than an account may have
			if said["limit"] = b.post("/account/devices", "once", b.field(b.get("/account/devices/new"), "once"), "label", "X", "as", "show"); said["limit"].status >= 400 {
				break
			}
		}
		for _, choice := range []string{"required", "off", "optional", "x"} {
			post("asked "+choice, "/account/secure-passwords", "choice", choice)
		}
		post("chosen", "/account/secure-passwords", "choice", "optional", "confirm", "1")
		password := func(what string, fields ...string) {
			t.Helper()
			post(what, "/account/password", append(fields, "how", "choose")...)
			said["while typed "+what] = b.post("/account/password/strength", fields...)
		}
		for what, fresh := range map[string]string{"none": "", "short": "Xq7", "weak": "passwordpassword", "forbidden": "mauerwerk plover lantern copper", "used": strong, "unprintable": "walnut plover lantern\x01", "long": strings.Repeat("x", 5000)} {
			password(what, "password", strong, "new_password", fresh)
		}
		password("wrong", "password", "x", "new_password", "copper anvil walnut lantern 7")
		post("own domain", "/account/factors/mail", "address", bob)
		post("no address", "/account/factors/mail", "address", "x")
		post("no number", "/account/factors/sms", "number", "x")
		post("no name", "/account/factors/totp")
		post("no factor", "/account/factors/recovery-codes")
		post("unknown", "/account/factors/x/confirm", "code", "1")
		post("unknown", "/account/factors/x/delete")
		made := b.post("/account/factors/totp", "label", "X")
		said["authenticator"] = made
		said["wrong code"] = b.post(confirmPath.FindString(made.text), "code", "000000")
		said["passkey"] = b.post("/account/factors/passkeys", "label", "X")
		said["sent"] = b.post("/account/factors/mail", "address", eve)
		post("unknown", "/account/sessions/x/end")
		post("mine", "/account/logins/x/mine")
		post("large", "/account/devices", "label", strings.Repeat("x", 2<<20))
		post("secured", "/account/secure")
		factor := s.api("POST", "/v1/accounts/"+ann+"/second-factors/totp", object{"label": "X"})
		s.api("POST", "/v1/accounts/"+ann+"/second-factors/"+factor["id"].(string)+"/confirm", object{"code": s.otp(factor["secret"].(string), 0)})
		second := post("second factor", "/account/login", "account", ann, "password", strong)
		step("wrong second factor", b.post("/account/login/factor", "token", b.field(second, "token"), "code", "000000"))
		s.api("DELETE", "/v1/accounts/"+ann+"/second-factors", nil)
		for n := range 25 {
			said["throttled"] = b.post("/account/login", "account", ann, "password", fmt.Sprint("guess", n))
		}
		b.shows("after guesses", said["throttled"], 429, "")
		s.api("DELETE", "/v1/throttle/"+ann, nil)
		return said
	}
	english := walk("en", "127.0.9.81")
	for language, from := range map[string]string{"de": "127.0.9.82", "zh": "127.0.9.83"} {
		said := walk(language, from)
		for what, texts := range map[string]map[string]string{
			"weak":      {"de": "(Stärke 0 von 4, mindestens 3 ist nötig)", "zh": "强度 0，最高 4，至少需要 3"},
			"short":     {"de": "hat 3 Zeichen: Verwenden Sie mindestens 12", "zh": "有 3 个字符：请至少使用 12 个"},
			"forbidden": {"de": "enthält das Wort „Mauerwerk“", "zh": "包含管理员禁止的词“Mauerwerk”"},
			"used":      {"de": "Die letzten 3 Passwörter", "zh": "最近的 3 个密码"},
		} {
			if p := said[what+" /account/password"]; !strings.Contains(html.UnescapeString(p.text), texts[language]) {
				t.Errorf("%s: a password that is refused, %s: %q, want %q", language, what, saysTo(p), texts[language])
			}
		}
		for _, what := range slices.Sorted(maps.Keys(english)) {
			p, same := said[what], english[what]
			if p.status != same.status {
				t.Errorf("%s: %s: %d, not %d", language, what, p.status, same.status)
			}
			there := map[string]bool{}
			for _, text := range saysTo(same) {
				there[text] = true
			}
			told := saysTo(p)
			slices.Sort(told)
			for _, text := range slices.Compact(told) {
				left := names.ReplaceAllString(text, "")
				switch {
				case !words.MatchString(left):
				case there[text] && (language != "de" || !slices.Contains(alikeInGerman, text)), function.MatchString(left):
					t.Errorf("%s: %s (%d): %q", language, what, p.status, text)
				}
			}
		}
	}
}

// alikeInGerman are texts that German has, too.
var alikeInGerman = []string{"Name", "Code", "Port", "Server", "E-Mail"}
