package mailflow

import (
	"net/mail"
	"slices"
	"strings"
	"testing"
)

func TestMailboxes(t *testing.T) {
	for _, c := range []struct{ from, want string }{
		// Plain.
		{`ann@example.org`, `ann@example.org`},
		{`Ann <ann@example.org>`, `ann@example.org`},
		{` <ann@example.org> `, `ann@example.org`},
		{`Ann B. Smith <ann@example.org>`, `ann@example.org`},
		{`"Smith, Ann" <ann@example.org>`, `ann@example.org`},
		{`ann+lists@Example.ORG`, `ann+lists@Example.ORG`},
		{"Ann\n <ann@example.org>", `ann@example.org`},
		{"Ann\r\n\t<ann@example.org>", `ann@example.org`},

		// Several mailboxes.
		{`ann@example.org, bob@example.org`, `ann@example.org bob@example.org`},
		{`"a@b" <c@d>, e@f`, `c@d e@f`},
		{`ann@example.org, ann@example.org`, `ann@example.org`},

		// Groups (RFC 6854).
		{`Team: ann@example.org, Bob <bob@example.org>;`, `ann@example.org bob@example.org`},
		{`Team: ann@example.org;, eve@example.net`, `ann@example.org eve@example.net`},
		{`"The Team" (us): (none) , ann@example.org , ;`, `ann@example.org`},

		// Comments and quotes.
		{`ann@example.org (Ann)`, `ann@example.org`},
		{`(a (nested \) one)) Ann (x) <(y)ann(z)@(u)example.org(v)>(w)`, `ann@example.org`},
		{`"ann"@example.org`, `ann@example.org`},
		{`"a\nn".smith@example.org`, `ann.smith@example.org`},
		{`"ann smith"@example.org`, `"ann smith"@example.org`},
		{`"a\"\\n"@example.org`, `"a\"\\n"@example.org`},
		{`"a..b"@example.org`, `"a..b"@example.org`},

		// Obsolete forms (RFC 5322 section 4.4).
		{`<@relay.example,@other.example:ann@example.org>`, `ann@example.org`},
		{`< , @relay.example (x) , : ann@example.org>`, `ann@example.org`},
		{`ann . smith @ example . org`, `ann.smith@example.org`},
		{`,, ann@example.org ,,`, `ann@example.org`},

		// Addresses that no account has, for the caller to refuse.
		{`ann@[192.0.2.1]`, `ann@[192.0.2.1]`},
		{`ünn@example.org`, `ünn@example.org`},
		{`ann@bücher.example`, `ann@bücher.example`},
		{`ann@localhost`, `ann@localhost`},

		// Encoded words and raw UTF-8 in names.
		{`=?utf-8?Q?M=C3=BCller=2C_Ann?= <ann@example.org>`, `ann@example.org`},
		{`=?ISO-2022-JP?B?GyRCJDwkQCQ+JD8bKEI=?= <ann@example.org>`, `ann@example.org`},
		{`Ann Müller <ann@example.org>`, `ann@example.org`},
		{`=?utf-8?Q?boss=40example=2Enet?= <ann@example.org>`, `ann@example.org`},

		// Names that the grammar forbids, before an address that is plain.
		{"B\xfcro <ann@example.org>", `ann@example.org`},
		{"\xc1ngel <ann@example.org>", `ann@example.org`},
		{`Smith, Ann <ann@example.org>`, `ann@example.org`},
		{`Ann [Sales] <ann@example.org>`, `ann@example.org`},
		{`Ann @ Work <ann@example.org>`, `ann@example.org`},
		{`Sales: EMEA; Ann <ann@example.org>`, `ann@example.org`},
		{`Ann, boss@example.net <ann@example.org>`, `ann@example.org boss@example.net`},
		{`[boss@example.net] <ann@example.org>`, `ann@example.org boss@example.net`},
		{"\xfc boss@example.net <ann@example.org>", `ann@example.org boss@example.net`},
		{`Boss (boss@example.net), x <ann@example.org>`, `ann@example.org boss@example.net`},

		// Encoded words that break RFC 2047 and are decoded all the same.
		{`=?utf-8?b?TcO8bGxlcg?= <ann@example.org>`, `ann@example.org`},
		{`=?utf-8?b?Qm9zcyA8Ym9zc0BleGFtcGxlLm5ldD4?= <ann@example.org>`, `ann@example.org boss@example.net`},
		{`=?utf-8?b?Qm9zcyA8Ym9z c0BleGFtcGxlLm5ldD4=?= <ann@example.org>`, `ann@example.org boss@example.net`},
		{`=?utf-8?q?=3Cboss=40exam?= =?utf-8?q?ple=2Enet=3E?= <ann@example.org>`, `ann@example.org boss@example.net`},
		{`=?iso-2022-jp?B?GyRCJDwbKEI8Ym9zc0BleGFtcGxlLm5ldD4=?= <ann@example.org>`, `ann@example.org boss@example.net`},
		{`=?gb2312?q?=C9=EE=DB=DA?= <ann@example.org>`, `ann@example.org`},
		{`=?utf-8*de?q?=3Cboss=40example=2Enet=3E?= <ann@example.org>`, `ann@example.org boss@example.net`},

		// What a careless reader may show counts as well.
		{`ann@example.org <ann@example.org>`, `ann@example.org`},
		{`boss@example.net <ann@example.org>`, `ann@example.org boss@example.net`},
		{`"Ann <ann@example.org>" <ann@example.org>`, `ann@example.org`},
		{`"<boss@example.net>" <ann@example.org>`, `ann@example.org boss@example.net`},
		{`"x\" <boss@example.net>, \"" <ann@example.org>`, `ann@example.org boss@example.net`},
		{`(<boss@example.net>) ann@example.org`, `ann@example.org boss@example.net`},
		{`ann@example.org (Boss <boss@example.net>)`, `ann@example.org boss@example.net`},
		{`=?utf-8?q?Boss_=3Cboss=40example=2Enet=3E?= <ann@example.org>`, `ann@example.org boss@example.net`},
		{`=?windows-1252?q?=3Cboss=40example=2Enet=3E?= <ann@example.org>`, `ann@example.org boss@example.net`},
		{`"I <3 mail" <ann@example.org>`, `ann@example.org`},
		{`"a <-> b" <ann@example.org>`, `ann@example.org`},
	} {
		got, err := Mailboxes([]string{c.from})
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.from, got, err, c.want)
		}
	}
}

func TestMailboxesSeveralFields(t *testing.T) {
	got, err := Mailboxes([]string{"ann@example.org", "Eve <eve@example.net>"})
	if err != nil || !slices.Equal(got, []string{"ann@example.org", "eve@example.net"}) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := Mailboxes(nil); err != nil || len(got) != 0 {
		t.Errorf("no field: got %q, %v", got, err)
	}
	if got, err := Mailboxes([]string{"ann@example.org", "nonsense"}); err == nil {
		t.Errorf("a field that cannot be read beside a good one: got %q", got)
	}
}

// Fields that only a lenient reader reads name the other address, so that whoever owns ann's alone
// is refused.
func TestMailboxesOfOthersAreNamed(t *testing.T) {
	for _, from := range []string{
		`=?utf-8?q?boss@example.net,?= <ann@example.org>`,
		"\xfc\xbcboss@example.net\xbe <ann@example.org>",
		`boss@example.net; <ann@example.org>`,
		`boss@example.net [x] <ann@example.org>`,
	} {
		if got, err := Mailboxes([]string{from}); err == nil && len(got) < 2 {
			t.Errorf("%q: got %q", from, got)
		}
	}
}

func TestMailboxesRefused(t *testing.T) {
	for name, from := range map[string]string{
		"empty":                           "",
		"space only":                      "  ",
		"comment only":                    "(ann@example.org)",
		"name only":                       "Ann",
		"null address":                    "<>",
		"no domain":                       "Ann <ann>",
		"no local part":                   "<@example.org>",
		"empty local part":                `""@example.org`,
		"empty group":                     `Undisclosed:;`,
		"empty group that shows":          `"boss@example.net":;`,
		"group in a group":                `A: B: ann@example.org;;`,
		"group that does not end":         `A: ann@example.org`,
		"garbage after the address":       `ann@example.org eve@example.net`,
		"garbage after the angle":         `<ann@example.org> boss@example.net`,
		"two angles":                      `<ann@example.org> <boss@example.net>`,
		"no comma":                        `Ann <ann@example.org> Boss <boss@example.net>`,
		"semicolon between":               `ann@example.org; boss@example.net`,
		"colon in a route":                `<@a:@b:ann@example.org>`,
		"address in a route":              `<@a,boss@example.net:ann@example.org>`,
		"two at":                          `ann@example.org@example.net`,
		"dot at the start":                `.ann@example.org`,
		"dot at the end":                  `ann.@example.org`,
		"two dots":                        `ann..smith@example.org`,
		"words without a dot":             `ann "smith"@example.org`,
		"dot at the end of the domain":    `ann@example.org.`,
		"angle that does not end":         `Ann <ann@example.org`,
		"quotes that do not end":          `"Ann <ann@example.org>`,
		"quotes that end in a backslash":  `"Ann\`,
		"comment that does not end":       `ann@example.org (Ann`,
		"comment that ends in escape":     `ann@example.org (Ann\)`,
		"literal that does not end":       `ann@[192.0.2.1`,
		"literal in a literal":            `ann@[[192.0.2.1]]`,
		"NUL":                             "ann@example.org\x00",
		"bare CR":                         "ann@example.org\r, eve@example.net",
		"line break without a fold":       "ann@example.org\nFrom: eve@example.net",
		"line break at the end":           "ann@example.org\n",
		"escape":                          "\x1b[31mAnn <ann@example.org>",
		"delete":                          "Ann\x7f <ann@example.org>",
		"next line (C1)":                  "Ann\u0085 <ann@example.org>",
		"line separator":                  "Ann\u2028 <ann@example.org>",
		"overlong UTF-8":                  "\xc0\xbcboss@example.net\xc0\xbe <ann@example.org>",
		"encoded word as local part":      `=?utf-8?b?Ym9zc0BleGFtcGxlLm5ldA==?=@example.org`,
		"encoded word in the extension":   `ann+=?utf-8?q?=00boss=40example.net?=@example.org`,
		"encoded word in quotes":          `"=?utf-8?q?boss?="@example.org`,
		"encoded word as domain":          `ann@=?utf-8?q?example.org?=`,
		"NUL in an encoded word":          `=?utf-8?q?boss=40example=2Enet=00?= <ann@example.org>`,
		"line break in an encoded word":   `=?utf-8?q?boss=40example=2Enet=0A?= <ann@example.org>`,
		"the same in another charset":     `=?windows-1252?b?Ym9zcwo=?= <ann@example.org>`,
		"UTF-16 in an encoded word":       `=?utf-16be?b?AGIAbwBzAHM=?= <ann@example.org>`,
		"UTF-7 in an encoded word":        `=?utf-7?q?+ADw-boss+AEA-example.net+AD4-?= <ann@example.org>`,
		"control octet of Latin-1":        "B\x9fro <ann@example.org>",
		"unquoted name with a quote":      `Ann "B, C <ann@example.org>`,
		"comma and a route":               `Smith, Ann <@boss.example.net:ann@example.org>`,
		"brackets in brackets":            `"<boss@example.net" <ann@example.org>`,
		"unreadable brackets in quotes":   `"<boss@example.net@x>" <ann@example.org>`,
		"unreadable brackets in comments": `ann@example.org (<boss at@ example>)`,
		"too long":                        `"` + strings.Repeat("x", MaxHeader) + `" <ann@example.org>`,
	} {
		if got, err := Mailboxes([]string{from}); err == nil {
			t.Errorf("%s: %.80q: got %q, want an error", name, from, got)
		}
	}
}

// FuzzMailboxes checks that each mailbox found reads back as itself, and that none is missing of
// those that net/mail, which reads less, finds.
func FuzzMailboxes(f *testing.F) {
	for _, seed := range []string{
		`Ann <ann@example.org>`, `"a@b" <c@d>, e@f`, `Team: ann@example.org, Bob <bob@example.org>;`,
		`(c) "a\"b" . c @ (d) e . f (g)`, `<@a,@b:c@[1.2.3.4]>`, "Ann\r\n <ann@example.org>",
		`=?utf-8?q?=3Cb=40c=3E?= <a@b>`, `ünn@bücher.example (x)`, `a@b <c@d>`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, value string) {
		found, err := Mailboxes([]string{value})
		if err != nil {
			return
		}
		if len(found) == 0 {
			t.Fatal("no mailbox and no error")
		}
		for _, m := range found {
			again, err := Mailboxes([]string{m})
			if err != nil || !slices.Contains(again, m) {
				t.Errorf("%q holds %q, which reads as %q, %v", value, m, again, err)
			}
		}
		text, _ := unfold(value)
		others, err := mail.ParseAddressList(text)
		if err != nil {
			return
		}
		for _, o := range others {
			at := strings.LastIndexByte(o.Address, '@')
			if m := quote(o.Address[:at]) + o.Address[at:]; !slices.Contains(found, m) {
				t.Errorf("%q: net/mail finds %q, which is not among %q", value, m, found)
			}
		}
	})
}
