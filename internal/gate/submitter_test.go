package gate_test

import (
	"mime"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

func TestOwnedAddresses(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(nil)
	d.account("ann@example.org", func(a *store.Account) {
		a.Aliases = []string{"info@example.org", "sales@example.net", "ann@elsewhere.example"}
	})
	ann := d.Submitter(mail("Ann@example.net", home, 1))
	if ann.Account != "ann@example.org" {
		t.Fatalf("%+v", ann)
	}
	for from, own := range map[string]bool{
		"ann@example.org": true, "ANN@Example.ORG.": true, "ann@example.net": true, "ann+lists@example.org": true, "ann+lists@example.net": true,
		"info@example.org": true, "info@example.net": true, "sales@example.org": true, "sales@example.net": true, "info+x@example.org": true,
		"ann@elsewhere.example": true, "": true, // the null sender
		"bob@example.org": false, "info@elsewhere.example": false, "annx@example.org": false, "ann@example.com": false, "ann": false, "@example.org": false,
		"ann@example.org@example.com": false, "ann@example.org,bob@example.org": false, "+ann@example.org": false,
	} {
		if v := ann.Envelope(from); v.Refused == own {
			t.Errorf("MAIL FROM:<%s> refused: %v", from, v.Refused)
		}
	}
	// No record of one's own: the address alone.
	bob := d.Submitter(mail("bob@example.org", home, 2))
	if v := bob.Envelope("bob@example.net"); v.Refused {
		t.Error("an account without a record may not write as itself")
	}
	if v := bob.Envelope("info@example.org"); !v.Refused {
		t.Error("an account without a record may write as another's alias")
	}
}

// The domain of an address decides who may send from it; grants name addresses and whole domains.
func TestSendAs(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(func(dom *store.Domain) { dom.SenderCheck = mailflow.CheckOff })
	d.change("example.com", func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: "example.com", SenderCheck: mailflow.CheckBoth})
		return nil
	})
	d.change("example.org", func(c *store.Change) error {
		c.PutDepartment("example.org", &store.Department{Path: "sales", SendAs: []string{"*@shop.example"}})
		c.PutDepartment("example.org", &store.Department{Path: "sales/emea", SendAs: []string{"emea@example.com"}})
		return nil
	})
	d.account("ann@example.org", func(a *store.Account) {
		a.Departments, a.SendAs = []string{"sales/emea"}, []string{"info@example.com"}
	})
	ann, bob := d.Submitter(mail("ann@example.org", home, 1)), d.Submitter(mail("bob@example.org", home, 2))
	for from, c := range map[string]struct{ ann, bob bool }{
		"ceo@example.com":      {false, false}, // example.org's setting does not open example.com
		"info@example.com":     {true, false},
		"info+q4@example.com":  {true, false},
		"emea@example.com":     {true, false},
		"anybody@example.org":  {true, true}, // example.org checks nothing
		"anybody@shop.example": {true, true}, // not managed: the submitter's setting
	} {
		if a, b := ann.Envelope(from), bob.Envelope(from); a.Refused == c.ann || b.Refused == c.bob {
			t.Errorf("MAIL FROM:<%s>: ann %+v, bob %+v", from, a, b)
		}
		field := []mailflow.Field{{Name: "From", Value: from}}
		if a, b := ann.Header(field), bob.Header(field); a.Refused == c.ann || b.Refused == c.bob {
			t.Errorf("From: %s: ann %+v, bob %+v", from, a, b)
		}
	}
	d.domain(nil) // checks both
	ann, bob = d.Submitter(mail("ann@example.org", home, 1)), d.Submitter(mail("bob@example.org", home, 2))
	if a, b := ann.Envelope("anybody@shop.example"), bob.Envelope("anybody@shop.example"); a.Refused || !b.Refused {
		t.Errorf("a granted domain: ann %+v, bob %+v", a, b)
	}
}

// policyd judges MAIL FROM too, so that a site whose rules need no header needs no milter.
func TestSubmissionChecksTheSender(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(func(dom *store.Domain) { dom.SenderCheck = mailflow.CheckEnvelope })
	d.want(smtp("ann@example.org", "mailbox", home), "next ok")
	own := mail("ann@example.org", home, 1)
	own.Sender = "ann@example.org"
	foreign := own
	foreign.Sender = "bob@example.org"
	for range 2 { // the second time a permit is remembered
		d.wantMail(own, "next ok")
		if got := d.Submission(foreign); got.Outcome != access.Deny || got.Reason != access.ReasonSenderNotOwned || !strings.Contains(got.Message, "bob@example.org") {
			t.Errorf("another's address: %+v", got)
		}
	}
}

// The next passdb's accounts of domains that are not managed do not send as accounts that are.
func TestUnmanagedAccountsUseNoManagedAddress(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.Unmanaged = gate.Unmanaged{All: true}
	d.domain(nil)
	for _, login := range []string{"eve@other.example", "bob@nowhere.invalid"} {
		m := d.Submitter(mail(login, home, 1))
		for from, refused := range map[string]bool{login: false, "x@elsewhere.example": false, "": false, "bob@example.org": true, "x%example.org": true} {
			if v := m.Envelope(from); v.Refused != refused {
				t.Errorf("%s, MAIL FROM:<%s>: %+v", login, from, v)
			}
			sub := mail(login, home, 1)
			sub.Sender = from
			if got := d.Submission(sub); (got.Outcome == access.Deny) != refused || refused && got.Reason != access.ReasonSenderNotOwned {
				t.Errorf("%s, at policyd MAIL FROM:<%s>: %+v", login, from, got)
			}
		}
		if v := m.Header([]mailflow.Field{{Name: "From", Value: "Boss <bob@example.org>"}}); !v.Refused {
			t.Errorf("%s: the header is accepted", login)
		}
		if v := m.Header(nil); v.Refused {
			t.Errorf("%s: a message without From: %+v", login, v)
		}
	}
}

func TestWhomMessageRulesConcern(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	if d.Needs() != (mailflow.Needs{}) {
		t.Errorf("without domains %+v", d.Needs())
	}
	d.domain(func(dom *store.Domain) { dom.SenderCheck = mailflow.CheckEnvelope })
	for what, login := range map[string]string{"of a domain not managed": "eve@other.example", "of nobody": "", "of no address": "no address"} {
		m := d.Submitter(mail(login, home, 1))
		if m.Account != login || m.Unavailable || m.Envelope("x@y").Refused || m.Trace != "" {
			t.Errorf("a session %s: %+v", what, m)
		}
		if v := m.Envelope("ann@example.org"); v.Refused != (login != "") {
			t.Errorf("a session %s sends as an account: %+v", what, v)
		}
	}
	m := d.Submitter(mail("ann@example.org", home, 1))
	if m.Account == "" || m.Check != mailflow.CheckEnvelope || m.ChecksHeader() || m.Trace != "" {
		t.Errorf("%+v", m)
	}
	if d.Needs().Headers {
		t.Error("headers are wanted though no rule looks at them")
	}
	d.domain(func(dom *store.Domain) { dom.SenderCheck, dom.TraceHeader = mailflow.CheckOff, true })
	if !d.Needs().Headers {
		t.Error("no headers are wanted though the trace goes there")
	}
	d.domain(func(dom *store.Domain) { dom.SenderCheck = mailflow.CheckBoth })
	if m := d.Submitter(mail("ann@example.org", home, 1)); !d.Needs().Headers || !m.ChecksHeader() {
		t.Errorf("%+v, %+v", d.Needs(), m)
	}
}

// M10: a bad message names the device.
func TestTrace(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(func(dom *store.Domain) { dom.TraceHeader = true })
	d.clients(access.ClientWeb, webmail)
	phone, tablet := d.device("ann@example.org", "id1"), d.device("ann@example.org", "id2")
	d.account("ann@example.org", func(a *store.Account) {
		a.Secrets = append([]store.SecurePassword{}, a.Secrets...)
		a.Secrets[0].Label, a.Secrets[1].Label = "My iPhone", "Büro"
	})
	trace := func(from string, port uint16) string { return d.Submitter(mail("ann@example.org", from, port)).Trace }
	if got, want := trace(office, 1), "client=third-party"; got != want {
		t.Errorf("of a session of which nothing is known: %s, want %s", got, want)
	}
	d.want(smtp("ann@example.org", phone, home), "allow ok")
	if got, want := trace(home, 1), `client=third-party; credential="My iPhone"; id=id1`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	d.want(smtp("ann@example.org", tablet, home), "allow ok")
	if got, want := trace(home, 2), `client=third-party; credential="My iPhone",=?utf-8?q?B=C3=BCro?=; id=id1,id2`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := trace(home, 1), `client=third-party; credential="My iPhone"; id=id1`; got != want {
		t.Errorf("a connection's trace changed to %s, want %s", got, want)
	}
	d.want(smtp("ann@example.org", "right", webmail), "next ok")
	if got, want := trace(webmail, 3), `client=web; credential="mailbox"; id=mailbox`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// Whatever a device is called, the header stays one line of ASCII that reads back.
func TestTraceOfOddLabels(t *testing.T) {
	t.Parallel()
	d := newSite(t).daemon(t, next)
	d.domain(func(dom *store.Domain) { dom.TraceHeader = true })
	secret := d.device("ann@example.org", "id1")
	d.want(smtp("ann@example.org", secret, home), "allow ok")
	for _, label := range []string{
		"plain", `"; id=other`, `back\slash\`, "line\r\nBcc: eve@other.example", "tab\there", "NUL\x00", "\x7f", "Ännchens Büro ☎",
		strings.Repeat("ü", 64), "=?utf-8?q?x?=", "(comment)", "", "\u2028", "a\vb",
	} {
		d.account("ann@example.org", func(a *store.Account) {
			a.Secrets = append([]store.SecurePassword{}, a.Secrets...)
			a.Secrets[0].Label = label
		})
		got := d.Submitter(mail("ann@example.org", home, 1)).Trace
		for _, c := range []byte(got) {
			if c != '\t' && (c < ' ' || c > '~') {
				t.Errorf("label %q: octet %#x in %q", label, c, got)
			}
		}
		value, ok := strings.CutPrefix(got, "client=third-party; credential=")
		value, ok2 := strings.CutSuffix(value, "; id=id1")
		if !ok || !ok2 {
			t.Fatalf("label %q: %q", label, got)
		}
		if read := unquote(t, value); read != label {
			t.Errorf("label %q reads back as %q from %q", label, read, value)
		}
	}
}

// unquote reads a quoted-string (RFC 5322) or encoded words (RFC 2047).
func unquote(t *testing.T, s string) string {
	t.Helper()
	if !strings.HasPrefix(s, `"`) {
		text, err := new(mime.WordDecoder).DecodeHeader(s)
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		return text
	}
	var b strings.Builder
	inner := s[1 : len(s)-1]
	for i := 0; i < len(inner); i++ {
		if inner[i] == '"' {
			t.Fatalf("%q ends early", s)
		}
		if inner[i] == '\\' {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

// While the rules are not loaded, nothing passes by not being asked for.
func TestNeedsBeforeTheRulesAreLoaded(t *testing.T) {
	t.Parallel()
	d := newSite(t).open(t, next)
	if want := (mailflow.Needs{Recipients: true, Headers: true, Body: true, Unknown: true}); d.Needs() != want {
		t.Errorf("got %+v, want %+v", d.Needs(), want)
	}
	if v := d.rcpt("m1", "", "eve@example.net", "ann@example.org", home); !v.Refused || !v.Temporary {
		t.Errorf("a recipient is answered %+v", v)
	}
}
