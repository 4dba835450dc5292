package gate

import (
	"fmt"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

func TestLine(t *testing.T) {
	rec := func(set func(*store.LoginRecord)) *store.LoginRecord {
		r := &store.LoginRecord{
			Account: "ann@example.org", IP: "203.0.113.9", Protocol: "imap", Client: access.ClientThirdParty, Outcome: access.Deny, Reason: access.ReasonBadSecret,
		}
		if set != nil {
			set(r)
		}
		return r
	}
	for want, r := range map[string]*store.LoginRecord{
		// CONTRACT.md's example
		"login deny: user=ann@example.org ip=203.0.113.9 proto=imap client=third-party reason=bad_secret":  rec(nil),
		"login deny: user=ann@example.org ip=2001:db8::1 proto=imap client=third-party reason=bad_secret":  rec(func(r *store.LoginRecord) { r.IP = "2001:db8::1" }),
		"login deny: user=- ip=- proto=- client=- reason=-":                                                {Outcome: access.Deny},
		"login deny: user=ann@example.org ip=203.0.113.9 proto=imap2 client=third-party reason=bad_secret": rec(func(r *store.LoginRecord) { r.Protocol, r.Service = "", "imap2" }),
		`login deny: user="-" ip=203.0.113.9 proto=imap client=third-party reason=bad_secret`:              rec(func(r *store.LoginRecord) { r.Account = "-" }),
		`login deny: user="ann\x20ip\x3d192.0.2.1" ip=203.0.113.9 proto=imap client=third-party reason=bad_secret`: rec(func(r *store.LoginRecord) {
			r.Account = "ann ip=192.0.2.1"
		}),
		`login deny: user="x\x22\x20reason\x3dok\x0alogin\x20allow:" ip=203.0.113.9 proto=imap client=third-party reason=bad_secret`: rec(func(r *store.LoginRecord) {
			r.Account = "x\" reason=ok\nlogin allow:"
		}),
		"login deny: user=ann@example.org ip=203.0.113.9 proto=imap client=web reason=policy real_ip=192.0.2.1 policy=p would_refuse=q,r credential=5e2f master=admin session=x/1+": rec(func(r *store.LoginRecord) {
			r.RealIP, r.Client, r.Reason, r.PolicyID, r.WouldRefuse = "192.0.2.1", "web", access.ReasonPolicy, "p", []string{"q", "r"}
			r.CredentialID, r.MasterUser, r.Session = "5e2f", "admin", "x/1+"
		}),
	} {
		if got := line("login", r); got != want {
			t.Errorf("line\n%s\nwant\n%s", got, want)
		}
	}
}

// What fail2ban looks for finds the address that the gate saw, whatever the outsider calls himself.
func TestLogWatcher(t *testing.T) {
	attack := regexp.MustCompile(`login deny:.* ip=(\S+) .*reason=bad_secret`)
	careless := regexp.MustCompile(`ip=([0-9a-f.:]+)`)
	for _, user := range []string{
		"ip=192.0.2.66", "x ip=192.0.2.66 reason=bad_secret", "x\nlogin deny: user=y ip=192.0.2.66 proto=imap client=third-party reason=bad_secret",
		"\" ip=192.0.2.66 \"", "\\\" ip=192.0.2.66 ", "x\x00ip=192.0.2.66", "x\tip=192.0.2.66\r", "\u2028ip=192.0.2.66",
	} {
		l := &access.Login{Account: user, Session: user, MasterUser: user, ClientID: user, Service: user, IP: netip.MustParseAddr("203.0.113.9"), Time: time.Now()}
		text := line("login", newRecord(l, &access.Decision{Outcome: access.Deny, Reason: access.ReasonBadSecret}))
		for _, watcher := range []*regexp.Regexp{attack, careless} {
			if m := watcher.FindAllStringSubmatch(text, -1); len(m) != 1 || m[0][1] != "203.0.113.9" {
				t.Errorf("%s finds %v in %s", watcher, m, text)
			}
		}
	}
}

// A line is always one line of printable ASCII, of fields that read back.
func FuzzLine(f *testing.F) {
	f.Add("ann@example.org", "imap", "x1", "admin", "p1", "5e2f", "web")
	f.Add("x ip=1.2.3.4", "-", "\"", "\\x20", "\n", "ä", "=")
	f.Add("", "", "", "", "", "", "")
	f.Add(strings.Repeat("ü", 300), "\x00", "\xff", "a b", ",", "--", "\u2028")
	f.Fuzz(func(t *testing.T, user, service, session, master, policy, credential, client string) {
		l := &access.Login{Account: user, Service: service, Session: session, MasterUser: master, IP: netip.MustParseAddr("203.0.113.9")}
		d := &access.Decision{Outcome: access.Deny, Reason: access.ReasonPolicy, PolicyID: policy, CredentialID: credential, Client: access.ClientType(client)}
		rec := newRecord(l, d)
		text := line("login", rec)
		for _, c := range []byte(text) {
			if c < ' ' || c > '~' {
				t.Fatalf("octet %#x in %q", c, text)
			}
		}
		if len(text) > 20*maxLabel+4*(len(policy)+len(credential)+len(client)) {
			t.Fatalf("%d octets", len(text))
		}
		rest, ok := strings.CutPrefix(text, "login deny: ")
		if !ok {
			t.Fatal(text)
		}
		got := map[string]string{}
		for field := range strings.SplitSeq(rest, " ") {
			name, value, ok := strings.Cut(field, "=")
			if _, twice := got[name]; !ok || twice {
				t.Fatalf("field %q in %s", field, text)
			}
			got[name] = readBack(t, value)
		}
		want := map[string]string{"user": rec.Account, "ip": "203.0.113.9", "proto": rec.Service, "client": client, "reason": "policy"}
		for name, value := range map[string]string{"policy": policy, "credential": credential, "master": rec.MasterUser, "session": rec.Session} {
			if value != "" {
				want[name] = value
			}
		}
		if fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
			t.Fatalf("%s reads back as %q, want %q", text, got, want)
		}
	})
}

// readBack is the inverse of quoted.
func readBack(t *testing.T, s string) string {
	if s == "-" {
		return ""
	}
	inner, ok := strings.CutPrefix(s, `"`)
	if !ok {
		return s
	}
	inner = strings.TrimSuffix(inner, `"`)
	var b []byte
	for i := 0; i < len(inner); i++ {
		if inner[i] != '\\' {
			b = append(b, inner[i])
			continue
		}
		n, err := strconv.ParseUint(inner[i+2:i+4], 16, 8)
		if err != nil {
			t.Fatalf("%s: %v", s, err)
		}
		b, i = append(b, byte(n)), i+3
	}
	return string(b)
}

// Ids of records compare by their age.
func TestRecordIDs(t *testing.T) {
	at := time.UnixMilli(1_790_000_000_000)
	last := ""
	for i := range 1000 {
		id := recordID(at.Add(time.Duration(i) * time.Millisecond))
		if id <= last || len(id) != 28 {
			t.Fatalf("%q after %q", id, last)
		}
		last = id
	}
}
