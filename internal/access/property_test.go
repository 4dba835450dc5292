package access_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/access"
)

// The world is small, so that what is drawn meets often.
var (
	departments = []string{"sales", "sales/emea", "sales/emea/uk", "salesforce", "it"}
	members     = []string{"ann@example.org", "bob@example.org", "eve@example.org"}
	ips         = []string{"", "10.0.0.1", "10.0.0.2", "10.0.1.1", "10.0.1.2", "2001:db8::1", "2001:db8::2"}
	networks    = []string{"10.0.0.1", "10.0.0.2", "10.0.0.0/24", "10.0.0.0/23", "10.0.0.2-10.0.1.1", "2001:db8::1", "2001:db8::/64", "::/0", "0.0.0.0/0", "nonsense"}
	regions     = []string{"DE", "FR"}
	types       = []access.ClientType{access.ClientWeb, access.ClientThirdParty, access.ClientCloudFetcher, "native-desktop"}
	protocols   = []string{"imap", "pop3", "smtp", "sieve"}
)

// TestMain checks properties more often than rapid does by default: a check takes microseconds. The
// command line still has the last word.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "1000"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

func some[T any](t *rapid.T, what string, from []T, most int) []T {
	return rapid.SliceOfN(rapid.SampledFrom(from), 0, most).Draw(t, what)
}

func drawScope(t *rapid.T, what string) access.Scope {
	list := func(what string) (l []access.ScopeDepartment) {
		for _, path := range some(t, what, departments, 2) {
			l = append(l, access.ScopeDepartment{Path: path, Sub: rapid.Bool().Draw(t, "sub")})
		}
		return l
	}
	return access.Scope{
		All: rapid.Bool().Draw(t, what+" all"), Departments: list(what + " departments"), Members: some(t, what+" members", members, 1),
		Except: access.Exceptions{Departments: list(what + " but departments"), Members: some(t, what+" but members", members, 1)},
	}
}

func drawPolicy(t *rapid.T, id string) access.Policy {
	return access.Policy{
		ID: id, Name: id,
		Type:    rapid.SampledFrom([]access.PolicyType{access.Whitelist, access.Blacklist}).Draw(t, "type"),
		Enabled: rapid.IntRange(0, 4).Draw(t, "enabled") > 0,
		Mode:    rapid.SampledFrom([]access.PolicyMode{access.Enforce, access.Enforce, access.Report}).Draw(t, "mode"),
		Scope:   drawScope(t, "scope"),
		IPs:     some(t, "ips", networks, 2), Regions: some(t, "regions", regions, 1), ExceptIPs: some(t, "except", networks, 1),
		Clients: some(t, "clients", types, 2), Protocols: some(t, "protocols", protocols, 2),
	}
}

func drawSwitches(t *rapid.T, what string) access.Switches {
	return rapid.MapOfN(rapid.SampledFrom(protocols), rapid.Bool(), 0, 2).Draw(t, what)
}

// world is one login and all that its decision depends on.
type world struct {
	set      access.Settings
	query    access.Query    // without Rules
	switches access.Switches // of the account
	ask      answers
}

func drawWorld(t *rapid.T) *world {
	w := &world{set: access.Settings{
		Protocols: drawSwitches(t, "domain's switches"), Departments: departments,
		Enforced: rapid.Bool().Draw(t, "enforced"), EnforceFor: drawScope(t, "enforced for"),
		Blocked: some(t, "blocked", networks[:6], 1),
	}}
	for i := range rapid.SampledFrom([]int{0, 0, 0, 62, 130}).Draw(t, "policies of others before") {
		w.set.Policies = append(w.set.Policies, access.Policy{
			ID: fmt.Sprintf("other%d", i), Type: access.Blacklist, Enabled: true, Scope: access.Scope{Members: []string{"other@example.org"}},
		})
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "policies") {
		w.set.Policies = append(w.set.Policies, drawPolicy(t, fmt.Sprintf("p%d", i)))
	}
	l := &access.Login{Service: "imap", Protocol: access.Protocol(rapid.IntRange(1, 5).Draw(t, "protocol"))}
	if ip := rapid.SampledFrom(ips).Draw(t, "ip"); ip != "" {
		l.IP = netip.MustParseAddr(ip)
	}
	if rapid.IntRange(0, 5).Draw(t, "master") == 0 {
		l.MasterUser = "admin"
	}
	if rapid.IntRange(0, 5).Draw(t, "hidden") == 0 {
		l.Lookup, l.Mechanism = access.LookupCredentials, "SCRAM-SHA-256"
	}
	q := &w.query
	*q = access.Query{
		Site:    access.Site{NextPassdb: rapid.Bool().Draw(t, "next passdb"), Reveal: access.Reveal(rapid.IntRange(0, 2).Draw(t, "reveal"))},
		Login:   l,
		Address: rapid.SampledFrom(members).Draw(t, "account"),
		Client:  rapid.SampledFrom(types).Draw(t, "client"),
		Region:  rapid.SampledFrom(append([]string{"", access.RegionUnknown, access.RegionNoDatabase}, regions...)).Draw(t, "region"),
	}
	if rapid.IntRange(0, 4).Draw(t, "record") > 0 {
		w.switches = drawSwitches(t, "account's switches")
		q.Account = &access.Account{
			Suspended: rapid.IntRange(0, 4).Draw(t, "suspended") == 0, Departments: some(t, "in", departments, 2),
			Protocols: w.switches.Compile(), HasSecure: rapid.Bool().Draw(t, "has secure passwords"),
			Secure:     rapid.SampledFrom([]access.SecureMode{"", access.SecureOptional, access.SecureRequired, access.SecureOff}).Draw(t, "mode"),
			MustChange: rapid.IntRange(0, 4).Draw(t, "must change") == 0,
		}
	}
	l.Time = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)
	w.set.MaxAge = time.Duration(rapid.IntRange(0, 3).Draw(t, "max age")) * time.Hour
	if age := rapid.IntRange(0, 4).Draw(t, "age of the password"); age > 0 && q.Account != nil {
		q.Account.PasswordSet = l.Time.Add(-time.Duration(age) * time.Hour)
	}
	q.Secret.State = access.SecretState(rapid.IntRange(0, int(access.SecretAuthenticated)).Draw(t, "secret"))
	if q.Secret.State == access.SecretLive || q.Secret.State == access.SecretRevoked {
		q.Secret.CredentialID, q.Secret.Label = "5e2f", "phone"
		q.Secret.Bounds = access.Bounds{
			Protocols: rapid.SampledFrom([]string{"", "imap", "smtp pop3"}).Draw(t, "bound to protocols"),
			Networks:  rapid.SampledFrom([]string{"", "0.0.0.0/0", "2001:db8::/32 203.0.113.9"}).Draw(t, "bound to networks"),
		}
		if left := rapid.IntRange(-1, 1).Draw(t, "until expiry"); left != 0 {
			q.Secret.Bounds.Expires = l.Time.Add(time.Duration(left))
		}
		if q.Account == nil {
			q.Account = &access.Account{}
		}
		q.Account.HasSecure = true
	}
	w.ask = answers{throttled: rapid.IntRange(0, 4).Draw(t, "throttled") == 0, mailbox: rapid.Bool().Draw(t, "is the mailbox password")}
	return w
}

func (w *world) decide(trace bool) access.Decision {
	q := w.query
	q.Rules = access.Compile(&w.set)
	ask := w.ask
	return access.Decide(&q, &ask, trace)
}

// plain is the second opinion: DESIGN's steps, one after another, from the settings as they are
// written. It tells the outcome, the reason, which policies in report mode would have refused, and
// whether a guess counts.
func (w *world) plain() (o access.Outcome, r access.Reason, would []string, guess bool) {
	q, l := &w.query, w.query.Login
	acc := q.Account
	if acc == nil {
		acc = &access.Account{}
	}
	in := func(s *access.Scope) bool { return plainScope(s, q.Address, acc.Departments) }
	third := q.Client == access.ClientThirdParty || q.Client == access.ClientCloudFetcher

	// Steps 1 to 3.
	var rule access.Reason
	refuse := func(reason access.Reason) {
		if rule == "" {
			rule = reason
		}
	}
	if acc.Suspended {
		refuse(access.ReasonSuspended)
	}
	if len(w.set.Blocked) > 0 && (!l.IP.IsValid() || slices.ContainsFunc(w.set.Blocked, func(n string) bool { return plainNetwork(n, l.IP) })) {
		refuse(access.ReasonIPBlocked)
	}
	on, said := w.switches[l.Protocol.String()]
	if !said {
		if on, said = w.set.Protocols[l.Protocol.String()]; !said {
			on = true
		}
	}
	if !on && third {
		refuse(access.ReasonProtocol)
	}
	black, white, inWhite := false, false, false
	var reporting []*access.Policy
	for i := range w.set.Policies {
		p := &w.set.Policies[i]
		placed := len(p.IPs)+len(p.Regions)+len(p.ExceptIPs) > 0
		if !p.Enabled || !in(&p.Scope) || len(p.Clients) > 0 && !slices.Contains(p.Clients, q.Client) ||
			len(p.Protocols) > 0 && !slices.Contains(p.Protocols, l.Protocol.String()) ||
			l.MasterUser != "" && p.Type == access.Blacklist && !placed {
			continue
		}
		switch match := plainPlace(p, l.IP, q.Region); {
		case p.Mode == access.Report:
			if match == (p.Type == access.Blacklist) {
				reporting = append(reporting, p)
			}
		case p.Type == access.Blacklist:
			black = black || match
		default:
			white, inWhite = true, inWhite || match
		}
	}
	if black || white && !inWhite {
		refuse(access.ReasonPolicy)
	}
	for _, p := range reporting {
		if p.Type == access.Blacklist || !inWhite {
			would = append(would, p.ID)
		}
	}

	// Steps 0, 4 and 5.
	o, r, guess = w.plainSecret(acc, third, third && (w.set.Enforced && in(&w.set.EnforceFor) || acc.Secure == access.SecureRequired))
	if rule != "" {
		o, r = access.Deny, rule
	}
	return o, r, would, guess
}

func (w *world) plainSecret(acc *access.Account, third, required bool) (access.Outcome, access.Reason, bool) {
	q, l, next := &w.query, w.query.Login, w.query.Site.NextPassdb
	shown := l.MasterUser == "" && l.Lookup == access.LookupNone
	given := shown && (q.Secret.State == access.SecretOther || q.Secret.State == access.SecretShaped)
	ok := access.Allow
	if next {
		ok = access.Next
	}
	if q.Account == nil && !next {
		if given && w.ask.throttled {
			return access.Deny, access.ReasonThrottled, false
		}
		return access.Deny, access.ReasonUnknownAccount, given
	}
	if l.MasterUser != "" {
		return ok, access.ReasonOK, false
	}
	if !shown {
		if required || !next {
			return access.Deny, access.ReasonSecureRequired, false
		}
		if w.ask.throttled {
			return access.Deny, access.ReasonThrottled, false
		}
		return ok, access.ReasonOK, false
	}
	switch q.Secret.State {
	case access.SecretLive:
		b := q.Secret.Bounds
		if !b.Expires.IsZero() && b.Expires.Before(l.Time) {
			return access.Deny, access.ReasonRevokedSecret, false
		}
		accepts := func(list string, f func(string) bool) bool {
			return list == "" || slices.ContainsFunc(strings.Fields(list), f)
		}
		within := accepts(b.Protocols, func(p string) bool { return p == l.Protocol.String() }) &&
			accepts(b.Networks, func(n string) bool { return l.IP.IsValid() && plainNetwork(n, l.IP) })
		if third && (acc.Secure != access.SecureOff || required) && !within {
			return access.Deny, access.ReasonSecretScope, false
		}
		if third && (acc.Secure != access.SecureOff || required) {
			return access.Allow, access.ReasonOK, false
		}
		return access.Deny, access.ReasonBadSecret, false
	case access.SecretRevoked:
		return access.Deny, access.ReasonRevokedSecret, false
	case access.SecretEmpty:
		return access.Deny, access.ReasonBadSecret, false
	case access.SecretShaped:
		if next && (required || acc.HasSecure) {
			return access.Deny, access.ReasonBadSecret, false
		}
	case access.SecretOther, access.SecretUnseen, access.SecretAuthenticated:
	}
	switch {
	case next && required:
		return access.Deny, access.ReasonSecureRequired, false
	case given && w.ask.throttled:
		return access.Deny, access.ReasonThrottled, false
	case next:
		return access.Next, access.ReasonOK, false
	case given && !w.ask.mailbox:
		return access.Deny, access.ReasonBadSecret, true
	case required:
		return access.Deny, access.ReasonSecureRequired, false
	case acc.MustChange:
		return access.Deny, access.ReasonPasswordExpired, false
	case w.set.MaxAge > 0 && !acc.PasswordSet.IsZero() && !l.Time.Before(acc.PasswordSet.Add(w.set.MaxAge)):
		return access.Deny, access.ReasonPasswordExpired, false
	}
	return access.Allow, access.ReasonOK, false
}

func plainScope(s *access.Scope, account string, in []string) bool {
	named := func(list []access.ScopeDepartment) bool {
		for _, d := range list {
			for _, path := range in {
				if path == d.Path || d.Sub && strings.HasPrefix(path, d.Path+"/") {
					return true
				}
			}
		}
		return false
	}
	if slices.Contains(s.Except.Members, account) || named(s.Except.Departments) {
		return false
	}
	return s.All || slices.Contains(s.Members, account) || named(s.Departments)
}

func plainPlace(p *access.Policy, ip netip.Addr, region string) bool {
	holds := func(list []string) bool {
		return slices.ContainsFunc(list, func(n string) bool { return plainNetwork(n, ip) })
	}
	if !ip.IsValid() {
		return p.Type == access.Blacklist
	}
	if holds(p.ExceptIPs) {
		return false
	}
	if region == access.RegionNoDatabase && len(p.Regions) > 0 && p.Type == access.Blacklist {
		return true
	}
	return len(p.IPs)+len(p.Regions) == 0 || holds(p.IPs) || region != "" && slices.Contains(p.Regions, region)
}

func plainNetwork(n string, ip netip.Addr) bool {
	if from, to, ok := strings.Cut(n, "-"); ok {
		a, b := netip.MustParseAddr(from), netip.MustParseAddr(to)
		return a.BitLen() == ip.BitLen() && a.Compare(ip) <= 0 && ip.Compare(b) <= 0
	}
	if p, err := netip.ParsePrefix(n); err == nil {
		return p.Contains(ip)
	}
	return n == ip.String()
}

func passes(d *access.Decision) bool { return d.Outcome == access.Allow || d.Outcome == access.Next }

func sorted(list []string) []string { list = slices.Clone(list); slices.Sort(list); return list }

func TestSecondOpinion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		d := w.decide(false)
		o, r, would, guess := w.plain()
		if d.Outcome != o || d.Reason != r || d.Guess != guess || !slices.Equal(sorted(d.WouldRefuse), sorted(would)) {
			t.Fatalf("decided %s; the second opinion is %v %s, would refuse %v, guess %v", say(&d), o, r, would, guess)
		}
		if (d.PolicyID != "") != (d.Reason == access.ReasonPolicy) {
			t.Fatalf("a policy without its refusal: %s", say(&d))
		}
		if d.Message != "" && passes(&d) {
			t.Fatalf("a permit says something: %s", say(&d))
		}
		if d.Message != "" && !d.Verified && (w.query.Site.Reveal != access.RevealWeb || w.query.Client != access.ClientWeb) {
			t.Fatalf("told to somebody who proved nothing: %s", say(&d))
		}
	})
}

// What was compiled before must not show in the rules.
func TestRecompiledIsCompiled(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		before, w := drawWorld(t), drawWorld(t)
		for i := range w.set.Policies { // as after a change of some
			if i < len(before.set.Policies) && rapid.Bool().Draw(t, "unchanged") {
				w.set.Policies[i] = before.set.Policies[i]
			}
		}
		rules := access.Compile(&before.set)
		q, ask := before.query, before.ask
		q.Rules = rules
		first := access.Decide(&q, &ask, true)

		other, ask := w.query, w.ask
		other.Rules = rules.Recompile(&w.set)
		clear(before.set.Policies) // whoever tries other settings goes on from these
		if d, want := access.Decide(&other, &ask, true), w.decide(true); !reflect.DeepEqual(d, want) {
			t.Fatalf("recompiled decide %s, compiled %s", say(&d), say(&want))
		}
		ask = before.ask
		if again := access.Decide(&q, &ask, true); !reflect.DeepEqual(again, first) {
			t.Fatalf("the rules from before decide %s, and decided %s", say(&again), say(&first))
		}
	})
}

func TestExplainAndDecideAgree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		d, e := w.decide(false), w.decide(true)
		if len(d.Trace) != 0 || len(e.Trace) == 0 {
			t.Fatalf("%d and %d steps", len(d.Trace), len(e.Trace))
		}
		refused := slices.ContainsFunc(e.Trace, func(s access.Step) bool { return s.Result == "refuse" || s.Policy != "" })
		if e.Outcome == access.Deny && !refused {
			t.Fatalf("a refusal that no step explains: %+v", e)
		}
		if e.Trace = nil; !reflect.DeepEqual(d, e) {
			t.Fatalf("decided %s, explained %s", say(&d), say(&e))
		}
	})
}

// The trace has one step for each enabled policy, and what the steps say comes to what was decided.
func TestTraceOfPolicies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		d := w.decide(true)
		steps := map[string]access.Step{}
		var sum access.Step
		for _, s := range d.Trace {
			if s.Step == "policies" {
				sum = s
			}
			if s.Step != "policy" {
				continue
			}
			if _, twice := steps[s.Policy]; twice {
				t.Fatalf("two steps of policy %s", s.Policy)
			}
			steps[s.Policy] = s
		}
		var black, white, inside bool
		var would []string
		enabled := 0
		for i := range w.set.Policies {
			p := &w.set.Policies[i]
			s, told := steps[p.ID]
			if told != p.Enabled {
				t.Fatalf("policy %s, enabled %v: step %+v", p.ID, p.Enabled, s)
			}
			if !told {
				continue
			}
			enabled++
			match := s.Result == "match"
			entry := slices.Contains(p.IPs, s.Matched) || slices.Contains(p.Regions, s.Matched) || s.Matched == access.MatchedAnywhere && len(p.IPs)+len(p.Regions) == 0
			// A match that nothing in the lists tells of is that of what may be in a blacklist's
			// place.
			named := entry || p.Type == access.Blacklist && (!w.query.Login.IP.IsValid() || w.query.Region == access.RegionNoDatabase)
			if match && !named || !match && s.Matched != "" || s.Excepted != "" && (match || !slices.Contains(p.ExceptIPs, s.Excepted)) {
				t.Fatalf("%+v\n%+v", p, s)
			}
			var in []string
			if w.query.Account != nil {
				in = w.query.Account.Departments
			}
			if out := strings.Contains(s.Detail, "excepts ") || strings.Contains(s.Detail, "does not apply to "); out == plainScope(&p.Scope, w.query.Address, in) {
				t.Fatalf("%+v\n%+v", p, s)
			}
			switch applies := s.Result != "not_applicable"; {
			case !applies:
			case p.Mode == access.Report:
				if match == (p.Type == access.Blacklist) {
					would = append(would, p.ID)
				}
			case p.Type == access.Blacklist:
				black = black || match
			default:
				white, inside = true, inside || match
			}
		}
		refused := black || white && !inside
		if want := map[bool]string{true: "refuse", false: "pass"}[refused]; enabled > 0 && sum.Result != want || refused != (sum.Policy != "") {
			t.Fatalf("the policies come to %+v\n%+v", sum, d.Trace)
		}
		if d.Reason == access.ReasonPolicy && d.PolicyID != sum.Policy {
			t.Fatalf("decided by %s, explained by %s", d.PolicyID, sum.Policy)
		}
		if inside {
			would = slices.DeleteFunc(would, func(id string) bool { return steps[id].Result == "no_match" })
		}
		if !slices.Equal(sorted(would), sorted(d.WouldRefuse)) {
			t.Fatalf("would refuse %v, explained %v", d.WouldRefuse, would)
		}
	})
}

func TestOrderOfPoliciesNeverMatters(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.decide(false)
		w.set.Policies = rapid.Permutation(w.set.Policies).Draw(t, "order")
		after := w.decide(false)
		if before.Outcome != after.Outcome || before.Reason != after.Reason || before.Guess != after.Guess ||
			!slices.Equal(sorted(before.WouldRefuse), sorted(after.WouldRefuse)) {
			t.Fatalf("%s became %s", say(&before), say(&after))
		}
	})
}

func TestDenyWins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		deny := access.Policy{ID: "deny", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, IPs: []string{"0.0.0.0/0", "::/0"}}
		w.set.Policies = slices.Insert(w.set.Policies, rapid.IntRange(0, len(w.set.Policies)).Draw(t, "at"), deny)
		if d := w.decide(false); d.Outcome != access.Deny {
			t.Fatalf("%s", say(&d))
		}
	})
}

func TestDisabledPoliciesChangeNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.decide(false)
		p := drawPolicy(t, "disabled")
		p.Enabled = false
		w.set.Policies = slices.Insert(w.set.Policies, rapid.IntRange(0, len(w.set.Policies)).Draw(t, "at"), p)
		if after := w.decide(false); !reflect.DeepEqual(before, after) {
			t.Fatalf("%s became %s", say(&before), say(&after))
		}
	})
}

func TestReportModeRefusesNothing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		before := w.decide(false)
		p := drawPolicy(t, "reports")
		p.Mode = access.Report
		w.set.Policies = slices.Insert(w.set.Policies, rapid.IntRange(0, len(w.set.Policies)).Draw(t, "at"), p)
		after := w.decide(false)
		would := slices.DeleteFunc(slices.Clone(after.WouldRefuse), func(id string) bool { return id == "reports" })
		if !slices.Equal(would, before.WouldRefuse) {
			t.Fatalf("others' reports %v became %v", before.WouldRefuse, would)
		}
		reports := len(would) != len(after.WouldRefuse)
		after.WouldRefuse, before.WouldRefuse = nil, nil
		if !reflect.DeepEqual(before, after) {
			t.Fatalf("%s became %s", say(&before), say(&after))
		}
		// What it reports is what it would do.
		w.set.Policies[slices.IndexFunc(w.set.Policies, func(p access.Policy) bool { return p.ID == "reports" })].Mode = access.Enforce
		if enforced := w.decide(false); reports && passes(&enforced) {
			t.Fatalf("reported a refusal, and enforced it says %s", say(&enforced))
		} else if !reports && p.Enabled && passes(&before) && !passes(&enforced) {
			t.Fatalf("reported nothing, and enforced it says %s", say(&enforced))
		}
	})
}

// An exception to a blacklist, of its place or its scope, only ever admits more; one to a
// whitelist's place only ever less.
func TestExceptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawWorld(t)
		if len(w.set.Policies) == 0 {
			w.set.Policies = append(w.set.Policies, drawPolicy(t, "p"))
		}
		p := &w.set.Policies[rapid.IntRange(0, len(w.set.Policies)-1).Draw(t, "which")]
		before := w.decide(false)
		admitsMore := p.Type == access.Blacklist
		switch rapid.IntRange(0, 3).Draw(t, "exception") {
		case 0:
			// Without an address, and for a master, a first exception makes a place of anywhere.
			if w.query.Login.MasterUser != "" || !w.query.Login.IP.IsValid() {
				return
			}
			p.ExceptIPs = append(slices.Clone(p.ExceptIPs), rapid.SampledFrom(networks).Draw(t, "excepted network"))
			if after := w.decide(false); !admitsMore && !passes(&before) && passes(&after) {
				t.Fatalf("an exception to a whitelist: %s became %s", say(&before), say(&after))
			}
		case 1:
			p.Scope.Except.Members = append(slices.Clone(p.Scope.Except.Members), rapid.SampledFrom(members).Draw(t, "excepted member"))
		case 2:
			d := access.ScopeDepartment{Path: rapid.SampledFrom(departments).Draw(t, "excepted department"), Sub: rapid.Bool().Draw(t, "sub")}
			p.Scope.Except.Departments = append(slices.Clone(p.Scope.Except.Departments), d)
		case 3:
			w.set.Enforced = false
			if after := w.decide(false); passes(&before) && !passes(&after) {
				// A secure password that the account has switched off is good only under
				// enforcement.
				if w.query.Account == nil || w.query.Account.Secure != access.SecureOff {
					t.Fatalf("enforcement lifted: %s became %s", say(&before), say(&after))
				}
			}
			return
		}
		after := w.decide(false)
		if admitsMore && passes(&before) && !passes(&after) {
			t.Fatalf("an exception to a blacklist: %s became %s", say(&before), say(&after))
		}
	})
}

func TestScopeCovers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, account, in := drawScope(t, "scope"), rapid.SampledFrom(members).Draw(t, "account"), some(t, "in", departments, 3)
		if got, want := s.Covers(departments)(account, in), plainScope(&s, account, in); got != want {
			t.Fatalf("%+v covers %s of %v: %v", s, account, in, got)
		}
	})
}

func TestWhatSetIt(t *testing.T) {
	rules := access.Compile(&access.Settings{
		Protocols: access.Switches{"pop3": false}, Enforced: true, EnforceFor: access.Scope{All: true, Except: access.Exceptions{Members: []string{"ann@example.org"}}},
	})
	ann := &access.Account{Protocols: access.Switches{"imap": false}.Compile(), Secure: access.SecureRequired}
	for _, tt := range []struct {
		p   access.Protocol
		acc *access.Account
		on  bool
		by  string
	}{{access.IMAP, ann, false, "account"}, {access.POP3, ann, false, "domain"}, {access.SMTP, ann, true, "default"}, {access.IMAP, nil, true, "default"}} {
		if on, by := rules.ProtocolOn(tt.p, tt.acc); on != tt.on || by != tt.by {
			t.Errorf("%v is %v by %s, want %v by %s", tt.p, on, by, tt.on, tt.by)
		}
	}
	for _, tt := range []struct {
		addr     string
		acc      *access.Account
		required bool
		by       string
	}{{"bob@example.org", nil, true, "domain"}, {"ann@example.org", ann, true, "account"}, {"ann@example.org", nil, false, ""}} {
		if required, by := rules.SecureRequired(tt.addr, tt.acc); required != tt.required || by != tt.by {
			t.Errorf("%s: required %v by %q", tt.addr, required, by)
		}
	}
}

func TestWords(t *testing.T) {
	for o := access.Outcome(0); o <= access.TempFail+1; o++ {
		b, err := json.Marshal(o)
		var back access.Outcome
		if err != nil || json.Unmarshal(b, &back) != nil {
			t.Fatalf("%d: %s, %v", o, b, err)
		}
		if want := o; o <= access.TempFail && back != want || o > access.TempFail && back != 0 {
			t.Errorf("outcome %d became %s and then %d", o, b, back)
		}
	}
	if access.ParseOutcome("") != 0 || access.ParseOutcome("permit") != 0 {
		t.Error("a word that is no outcome became one")
	}
	for p := access.Protocol(0); p <= access.Web+1; p++ {
		if back := access.ParseProtocol(p.String()); back != p && p <= access.Web || back > access.Web {
			t.Errorf("protocol %d is %q, and that %d", p, p, back)
		}
	}
	further := map[string]string{"submission587": "smtp", "imap": "pop3", "odd": "nntp"}
	for service, want := range map[string]access.Protocol{
		"imap": access.IMAP, "sieve": access.Sieve, "submission": access.SMTP, "submission587": access.SMTP, "web": access.Web, "odd": 0, "lmtp": 0, "": 0,
	} {
		if got := access.ProtocolOfService(service, further); got != want {
			t.Errorf("service %q is %v, want %v", service, got, want)
		}
	}
	for evidence, proves := range map[*access.Evidence]bool{
		{}: false, {Networks: []string{"127.0.0.1"}}: true, {ClientCert: "x"}: true, {Services: []string{"imap"}, ServerNames: []string{"x"}, LocalPorts: []uint16{1}}: false,
	} {
		if evidence.Proves() != proves {
			t.Errorf("%+v proves: %v", evidence, !proves)
		}
	}
	for c, own := range map[access.ClientType]bool{"": false, "web": true, "console": true, "third-party": false, "cloud-fetcher": false, "kiosk": true} {
		if c.Own() != own {
			t.Errorf("%q is an own client: %v", c, !own)
		}
	}
}
