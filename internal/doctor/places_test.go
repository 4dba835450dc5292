package doctor

import (
	"strings"
	"testing"
)

// Whether a next passdb is needed depends on the domains, which may decide otherwise than the site.
func TestMailboxPasswordsOfDomains(t *testing.T) {
	only23(t)
	const next, check = "dovecot.passdb.next", "daemon.sasl.next"
	const sasl = "\n[sasl]\nlisten = [\"unix:/run/drawbridge/auth\"]\n"
	text := goodDovecot()
	with, without := dovecotOf(t, text), dovecotOf(t, strings.Replace(text, "passdb {\n  driver = pam\n}\n", "", 1))
	const own = "[login]\nnext_passdb = false\n"
	for name, c := range map[string]struct {
		conf         DovecotConf
		settings     string
		domains      map[string]string
		severity     Severity
		check, about string
		quiet        string // a check without a fault
	}{
		"the site keeps them":         {without, own, map[string]string{"a.example": "site", "b.example": "here"}, 0, "", "", next},
		"one domain does not":         {without, own, map[string]string{"a.example": "site", "b.example": "next"}, Fail, next, "mailbox_passwords of b.example", ""},
		"nor does one for some":       {without, own, map[string]string{"b.example": "stored"}, Fail, next, "mailbox_passwords of b.example", ""},
		"and has a passdb":            {with, own + "default_domain = \"example.org\"\n", map[string]string{"b.example": "next"}, OK, next, "verifies the logins", ""},
		"but Postfix does not ask it": {with, own + sasl, map[string]string{"b.example": "next"}, Fail, check, "their logins to Postfix are temporary failures", ""},
		"nor does the page":           {with, own, map[string]string{"b.example": "next"}, Fail, check, "cannot log in to /account", ""},
		"both ask it":                 {with, own + sasl + "next = \"/x/auth\"\n", map[string]string{"b.example": "next"}, 0, "", "", check},
		"all domains keep them":       {without, "", map[string]string{"a.example": "here"}, Warn, next, "a new domain will", ""},
		"all, and there is a passdb":  {with, "", map[string]string{"a.example": "here"}, OK, next, "Drawbridge verifies all mailbox passwords", ""},
		"some keep them":              {without, "", map[string]string{"a.example": "here", "b.example": "site"}, Fail, next, "login.next_passdb", ""},
		"no domain yet":               {without, "", map[string]string{}, Fail, next, "login.next_passdb", ""},
		"not known":                   {without, "", nil, Fail, next, "login.next_passdb", ""},
		"many":                        {without, own, map[string]string{"a": "next", "b": "next", "c": "next", "d": "next", "e": "next", "f": "next", "g": "next"}, Fail, next, "a, b, c, d, e, and 2 more", ""},
	} {
		t.Run(name, func(t *testing.T) {
			conf := c.conf
			conf.Domains = c.domains
			f := Dovecot(conf, settingsOf(t, c.settings))
			if c.check != "" {
				expect(t, f, c.severity, c.check, "", c.about)
			}
			for _, x := range bad(f) {
				if x.Check == c.quiet {
					t.Errorf("%+v", x)
				}
			}
		})
	}
}
