package history_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const domain = "example.org"

// recorded is a journal of a few records, newest first, that it gives two at a time.
type recorded struct {
	records []store.LoginRecord
	asked   int
}

func (r *recorded) Records(_ context.Context, q store.RecordQuery) (items []store.LoginRecord, next string, err error) {
	r.asked++
	var from int
	_, _ = fmt.Sscan(q.Cursor, &from)
	rest := r.records[from:]
	if len(rest) > 2 {
		rest, next = rest[:2], fmt.Sprint(from+2)
	}
	return rest, next, nil
}

// accounts: eve has no record.
var accounts = []store.Account{
	{Address: "ann@example.org", Departments: []string{"sales"}},
	{Address: "bob@example.org", Departments: []string{"sales/emea"}, Protocols: access.Switches{"pop3": false}},
	{Address: "sam@example.org", Suspended: true},
}

// newHistory returns the history of a domain with accounts, over no records.
func newHistory(t *testing.T) (*history.History, *recorded) {
	t.Helper()
	st, _ := redistest.NewStore(t, redistest.Start(t).Options())
	redistest.Run(t, st)
	redistest.Ready(t, st)
	err := st.Update(t.Context(), store.ShardOf(domain), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: domain, AliasDomains: []string{"alias.example"}})
		for i := range accounts {
			c.PutAccount(&accounts[i])
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	journal := &recorded{}
	region := func(ip netip.Addr) string {
		if ip.Is4() {
			return "DE"
		}
		return ""
	}
	return &history.History{State: st.State, Records: journal.Records, Region: region}, journal
}

func noProgress(api.PreviewProgress) error { return nil }

var (
	now   = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	since = now.Add(-24 * time.Hour)
)

func drawPolicy(t *rapid.T, id string) *access.Policy {
	some := func(what string, from ...string) []string {
		return rapid.SliceOfN(rapid.SampledFrom(from), 0, 2).Draw(t, what)
	}
	p := &access.Policy{
		ID: id, Name: id, Enabled: rapid.IntRange(0, 4).Draw(t, "enabled") > 0,
		Type: rapid.SampledFrom([]access.PolicyType{access.Whitelist, access.Blacklist}).Draw(t, "type"),
		Mode: rapid.SampledFrom([]access.PolicyMode{access.Enforce, access.Report}).Draw(t, "mode"),
		IPs:  some("ips", "203.0.113.0/24", "203.0.113.9", "2001:db8::/32"), Regions: some("regions", "DE", "FR"),
		ExceptIPs: some("but", "203.0.113.9"), Protocols: some("protocols", "imap", "smtp"),
	}
	for _, c := range some("clients", "third-party", "web") {
		p.Clients = append(p.Clients, access.ClientType(c))
	}
	p.Scope.All = rapid.Bool().Draw(t, "all")
	if rapid.Bool().Draw(t, "sales") {
		p.Scope.Departments = []access.ScopeDepartment{{Path: "sales", Sub: rapid.Bool().Draw(t, "sub")}}
	}
	p.Scope.Except.Members = some("but members", "ann@example.org")
	return p
}

func drawRecord(t *rapid.T) store.LoginRecord {
	from := func(what string, words ...string) string { return rapid.SampledFrom(words).Draw(t, what) }
	rec := store.LoginRecord{
		Time:     since.Add(time.Duration(rapid.IntRange(0, 24*3600).Draw(t, "second")) * time.Second),
		Account:  from("account", "ann@example.org", "bob@alias.example", "eve@example.org", "sam@example.org", "no address"),
		IP:       from("ip", "203.0.113.9", "203.0.113.10", "198.51.100.1", "2001:db8::1", ""),
		Region:   from("region", "", "FR"),
		Protocol: from("protocol", "imap", "pop3", "smtp", ""),
		Client:   access.ClientType(from("client", "third-party", "web", "cloud-fetcher")),
		Outcome:  rapid.SampledFrom([]access.Outcome{access.Allow, access.Next, access.Deny, access.TempFail}).Draw(t, "outcome"),
		Reason:   access.ReasonOK,
	}
	if rec.Outcome == access.Deny {
		rec.Reason = access.Reason(from("reason", "policy", "ip_blocked", "bad_secret", "protocol_disabled", "throttled"))
	}
	switch from("secret", "device", "mailbox", "master") {
	case "device":
		rec.CredentialID = from("credential", "c1", "c2")
	case "master":
		rec.MasterUser = "admin"
	}
	return rec
}

// refusedBy is the second opinion: the whole decision on the login of a record, its secret known to
// be right, as the engine gives it to real ones.
func refusedBy(set *access.Settings, rec *store.LoginRecord, h *history.History) bool {
	addr := h.State.Canonical(rec.Account)
	ip, _ := netip.ParseAddr(rec.IP)
	q := &access.Query{
		Site: access.Site{NextPassdb: true}, Address: addr, Rules: access.Compile(set), Client: rec.Client, Region: rec.Region,
		Login:  &access.Login{Account: addr, Protocol: access.ParseProtocol(rec.Protocol), IP: ip, RealIP: ip, MasterUser: rec.MasterUser},
		Secret: access.Secret{State: access.SecretAuthenticated},
	}
	if q.Region == "" {
		q.Region = h.Region(ip)
	}
	_, v := h.State.View(addr)
	q.Account = v.Account.Facts(new(access.Account))
	return access.Decide(q, nil, false).Outcome == access.Deny
}

// What a preview counts is what the engine would have decided, login for login.
func TestCompareAgreesWithDecide(t *testing.T) {
	h, journal := newHistory(t)
	rapid.Check(t, func(t *rapid.T) {
		set := access.Settings{Departments: []string{"sales", "sales/emea"}, Protocols: access.Switches{"smtp": rapid.Bool().Draw(t, "smtp")}}
		for i := range rapid.IntRange(0, 3).Draw(t, "policies") {
			set.PutPolicy(drawPolicy(t, fmt.Sprintf("p%d", i)))
		}
		would, others := set, set
		would.Policies, others.Policies = slices.Clone(set.Policies), slices.Clone(set.Policies)
		if rapid.Bool().Draw(t, "a draft") {
			draft := drawPolicy(t, rapid.SampledFrom([]string{"p0", "draft"}).Draw(t, "id"))
			would.PutPolicy(draft)
			others.RemovePolicy(draft.ID)
		} else {
			would.RemovePolicy("p0")
		}
		journal.records = rapid.SliceOfN(rapid.Custom(drawRecord), 0, 9).Draw(t, "records")
		var in int
		refused, admitted := map[string]int{}, map[string]int{}
		for i := range journal.records {
			rec := &journal.records[i]
			came := rec.Outcome == access.Allow || rec.Outcome == access.Next
			if came {
				in++
			}
			secret := rec.Reason == access.ReasonBadSecret || rec.Reason == access.ReasonThrottled
			if rec.Outcome == access.TempFail || secret || rec.Account == "no address" || rec.Protocol == "" {
				continue
			}
			now, then := refusedBy(&set, rec, h), refusedBy(&would, rec, h)
			if came && then && !refusedBy(&others, rec, h) {
				refused[h.State.Canonical(rec.Account)]++
			}
			if now && !then {
				admitted[h.State.Canonical(rec.Account)]++
			}
		}
		e, err := h.Compare(context.Background(), domain, since, now, history.Change{Are: access.Compile(&set), Others: access.Compile(&others), Would: access.Compile(&would)}, noProgress)
		if err != nil {
			t.Fatal(err)
		}
		if e.Examined != len(journal.records) || e.CameIn != in {
			t.Fatalf("examined %d, came in %d of %d", e.Examined, e.CameIn, in)
		}
		for what, x := range map[string]struct {
			got  api.Affected
			want map[string]int
		}{"refused": {e.Refused, refused}, "admitted": {e.Admitted, admitted}} {
			got := map[string]int{}
			for _, p := range x.got.Accounts.Items {
				got[p.Value] = p.Logins
			}
			if !maps.Equal(got, x.want) {
				t.Fatalf("%s: %v, want %v", what, got, x.want)
			}
			total(t, what, &x.got)
		}
	})
}

// total holds the sums of a breakdown against its total.
func total(t *rapid.T, what string, a *api.Affected) {
	for kind, s := range map[string]api.Spread{
		"accounts": a.Accounts, "devices": a.Devices, "addresses": a.Addresses, "regions": a.Regions, "clients": a.Clients, "protocols": a.Protocols,
	} {
		sum := s.Others
		for _, p := range s.Items {
			if sum += p.Logins; p.First.Before(a.First) || p.Last.After(a.Last) {
				t.Fatalf("%s by %s: %+v is outside of %+v", what, kind, p, a.LoginCount)
			}
		}
		if sum != a.Logins || s.Distinct != len(s.Items) {
			t.Fatalf("%s by %s: %d logins of %d: %+v", what, kind, sum, a.Logins, s)
		}
	}
}

// blocked are rules that refuse everybody.
func blocked() *access.Rules {
	set := access.Settings{Policies: []access.Policy{{ID: "p", Name: "p", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}}}}
	return access.Compile(&set)
}

// change is one by a policy that was not there before.
func change(are, would *access.Rules) history.Change {
	return history.Change{Are: are, Others: are, Would: would}
}

func open() *access.Rules { return access.Compile(&access.Settings{}) }

func login(i int, ip string) store.LoginRecord {
	return store.LoginRecord{
		Time: now.Add(-time.Duration(i) * time.Second), Account: "ann@example.org", IP: ip, Protocol: "imap",
		Client: access.ClientThirdParty, Outcome: access.Allow, Reason: access.ReasonOK,
	}
}

// Who and where: most logins first, with the device's latest label.
func TestBreakdown(t *testing.T) {
	h, journal := newHistory(t)
	for i, r := range []struct{ ip, credential, label, master string }{
		{"203.0.113.1", "c1", "new name", ""}, {"203.0.113.2", "", "", ""}, {"203.0.113.2", "c1", "old name", ""}, {"203.0.113.2", "", "", "admin"}, {"", "", "", ""},
	} {
		rec := login(i, r.ip)
		rec.CredentialID, rec.Credential, rec.MasterUser = r.credential, r.label, r.master
		journal.records = append(journal.records, rec)
	}
	// Without a place, no blacklist concerns a master.
	set := access.Settings{Policies: []access.Policy{{ID: "p", Name: "p", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, IPs: []string{"0.0.0.0/0"}}}}
	e, err := h.Compare(t.Context(), domain, since, now, change(open(), access.Compile(&set)), noProgress)
	if err != nil {
		t.Fatal(err)
	}
	text := func(s api.Spread) string {
		var b strings.Builder
		for _, p := range s.Items {
			fmt.Fprintf(&b, "%s/%s/%s %d; ", p.Value, p.Label, p.Account, p.Logins)
		}
		return fmt.Sprintf("%s%d distinct, %d others", b.String(), s.Distinct, s.Others)
	}
	for _, c := range [][2]string{
		{text(e.Refused.Devices), "c1/new name/ann@example.org 2; mailbox// 2; master// 1; 3 distinct, 0 others"},
		{text(e.Refused.Addresses), "203.0.113.2// 3; // 1; 203.0.113.1// 1; 3 distinct, 0 others"},
		{text(e.Refused.Regions), "DE// 4; // 1; 2 distinct, 0 others"},
		{text(e.Admitted.Accounts), "0 distinct, 0 others"},
	} {
		if c[0] != c[1] {
			t.Errorf("%s, want %s", c[0], c[1])
		}
	}
	if want := (api.LoginCount{Logins: 5, First: now.Add(-4 * time.Second), Last: now}); e.Refused.LoginCount != want || e.Oldest != want.First {
		t.Errorf("%+v since %v, want %+v", e.Refused.LoginCount, e.Oldest, want)
	}
}

// A million addresses do not become a million entries, and none is lost from the sums.
func TestBreakdownIsBounded(t *testing.T) {
	h, journal := newHistory(t)
	const many = 100_500
	ip := netip.MustParseAddr("10.0.0.0")
	for i := range many {
		journal.records = append(journal.records, login(i, ip.String()))
		ip = ip.Next()
	}
	journal.records = append(journal.records, login(many, "10.0.0.7"))
	e, err := h.Compare(t.Context(), domain, since, now, change(open(), blocked()), noProgress)
	if err != nil {
		t.Fatal(err)
	}
	a := e.Refused.Addresses
	if a.Distinct != 100_000 || len(a.Items) != 1000 || a.Items[0].Value != "10.0.0.7" || a.Items[0].Logins != 2 || a.Others != many+1-1001 {
		t.Errorf("%d distinct, %d listed, first %+v, %d others", a.Distinct, len(a.Items), a.Items[0], a.Others)
	}
	if e.Refused.Accounts.Items[0].Logins != many+1 {
		t.Errorf("accounts %+v", e.Refused.Accounts)
	}
}

// Progress goes from now backward, and whoever has enough ends it.
func TestCompareTellsHowFarItIs(t *testing.T) {
	h, journal := newHistory(t)
	for i := range 5000 {
		journal.records = append(journal.records, login(i*10, "203.0.113.9"))
	}
	var shares []float64
	_, err := h.Compare(t.Context(), domain, since, now, change(open(), blocked()), func(p api.PreviewProgress) error {
		shares = append(shares, p.Share)
		if want := now.Add(-time.Duration(p.Examined-1) * 10 * time.Second); !p.At.Equal(want) {
			t.Errorf("after %d at %v, want %v", p.Examined, p.At, want)
		}
		return nil
	})
	if err != nil || len(shares) != 5 || !slices.IsSorted(shares) || shares[4] < 0.5 || shares[4] > 0.6 {
		t.Errorf("%v, %v", shares, err)
	}
	enough := errors.New("enough")
	if _, err := h.Compare(t.Context(), domain, since, now, change(open(), blocked()), func(api.PreviewProgress) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("error %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	journal.asked = 0
	if _, err := h.Compare(gone, domain, since, now, change(open(), blocked()), noProgress); !errors.Is(err, context.Canceled) || journal.asked > 0 {
		t.Errorf("error %v, asked %d times", err, journal.asked)
	}
}

// Of each account, the last login counts: an admitted one, or, without any, one that a rule refused.
// Those that the change decides otherwise come first.
func TestLastLogins(t *testing.T) {
	h, journal := newHistory(t)
	login := func(minute int, account, ip string, outcome access.Outcome, reason access.Reason) store.LoginRecord {
		return store.LoginRecord{
			Time: now.Add(-time.Duration(minute) * time.Minute), Account: account, IP: ip, Protocol: "imap", Client: access.ClientThirdParty, Outcome: outcome, Reason: reason,
		}
	}
	master := login(1, "eve@example.org", "198.51.100.1", access.Allow, access.ReasonOK)
	master.MasterUser = "admin"
	journal.records = []store.LoginRecord{
		master,
		login(2, "ann@example.org", "198.51.100.1", access.Deny, access.ReasonPolicy), // somebody else, perhaps
		login(3, "bob@alias.example", "198.51.100.1", access.Deny, access.ReasonBadSecret),
		login(4, "bob@example.org", "203.0.113.9", access.Allow, access.ReasonOK),
		login(5, "ann@example.org", "203.0.113.10", access.Allow, access.ReasonOK),
		login(6, "bob@example.org", "198.51.100.1", access.Allow, access.ReasonOK),
		login(7, "eve@example.org", "203.0.113.9", access.Deny, access.ReasonPolicy),
	}
	are := access.Settings{Departments: []string{"sales", "sales/emea"}}
	are.PutPolicy(&access.Policy{ID: "p", Name: "p", Enabled: true, Type: access.Blacklist, Mode: access.Enforce, Scope: access.Scope{Members: []string{"eve@example.org"}}, IPs: []string{"203.0.113.9"}})
	would := access.Settings{Departments: are.Departments}
	would.PutPolicy(&access.Policy{ID: "q", Name: "q", Enabled: true, Type: access.Blacklist, Mode: access.Enforce, Scope: access.Scope{Members: []string{"bob@example.org"}}, IPs: []string{"203.0.113.9"}})
	rules := access.Compile(&are)
	e, err := h.Compare(t.Context(), domain, since, now, history.Change{Are: rules, Others: rules, Would: access.Compile(&would)}, noProgress)
	if err != nil {
		t.Fatal(err)
	}
	got := fmt.Sprintf("%d of %d:", e.LastLogins.Changed, e.LastLogins.Accounts)
	for _, l := range e.LastLogins.Items {
		got += fmt.Sprintf(" %s %s %s>%s", l.Account, l.IP, l.Before, l.After)
	}
	if want := "2 of 3: bob@example.org 203.0.113.9 allow>policy eve@example.org 203.0.113.9 policy>allow ann@example.org 203.0.113.10 allow>allow"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// What a preview keeps of a record does not keep the whole text that the record was read from.
func TestPreviewKeepsNoRecords(t *testing.T) {
	h, _ := newHistory(t)
	const records, size = 200, 256 << 10
	n := 0
	h.Records = func(context.Context, store.RecordQuery) (items []store.LoginRecord, next string, err error) {
		n++
		var rec store.LoginRecord
		text := fmt.Sprintf(`{"id":"%d","time":%q,"account":"ann@example.org","ip":"203.0.113.%d","protocol":"imap","client":"webmail","client_id":"phone %d",`+
			`"credential_id":"%d","credential":"phone","outcome":"allow","reason":"ok","note":%q}`, n, now.Format(time.RFC3339), n, n, n, strings.Repeat("x", size))
		if err := access.ReadRecord(text, &rec); err != nil {
			t.Fatal(err)
		}
		if n < records {
			next = "more"
		}
		return []store.LoginRecord{rec}, next, nil
	}
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	e, err := h.Compare(t.Context(), domain, since, now, change(open(), blocked()), noProgress)
	if err != nil {
		t.Fatal(err)
	}
	if after := heap(); after > before+records*size/4 {
		t.Errorf("the preview keeps %d MiB of %d", (after-before)>>20, records*size>>20)
	}
	if e.Refused.Logins != records || e.Refused.Addresses.Distinct != records {
		t.Errorf("%d logins from %d addresses are refused", e.Refused.Logins, e.Refused.Addresses.Distinct)
	}
}
