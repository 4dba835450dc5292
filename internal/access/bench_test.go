package access_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// mailbox answers as if the secret were the mailbox password.
type mailbox struct{}

func (mailbox) Throttled() bool { return false }
func (mailbox) Mailbox() bool   { return true }

// site is a domain of 1 000 accounts in 10 departments, with 100 policies of 100 prefixes each.
// Each policy is for one department with those below it, so that 10 apply to each account: 8
// blacklists that do not match, a whitelist that does not and one that does.
func site() (*access.Rules, []*access.Query) {
	set := access.Settings{Enforced: true, EnforceFor: access.Scope{Departments: []access.ScopeDepartment{{Path: "dept3", Sub: true}}}}
	for dept := range 10 {
		top := fmt.Sprintf("dept%d", dept)
		set.Departments = append(set.Departments, top, top+"/team")
		for p := range 10 {
			policy := access.Policy{
				ID: fmt.Sprintf("p%d-%d", dept, p), Type: access.Blacklist, Enabled: true,
				Scope: access.Scope{Departments: []access.ScopeDepartment{{Path: top, Sub: true}}},
			}
			if p >= 8 {
				policy.Type = access.Whitelist
			}
			for n := range 100 {
				policy.IPs = append(policy.IPs, fmt.Sprintf("10.%d.%d.0/24", 10*dept+p, 2*n))
			}
			set.Policies = append(set.Policies, policy)
		}
	}
	rules := access.Compile(&set)
	queries := make([]*access.Query, 1000)
	for i := range queries {
		dept := i % 10
		queries[i] = &access.Query{
			Login: &access.Login{
				Protocol: access.IMAP, Service: "imap",
				IP: netip.AddrFrom4([4]byte{10, byte(10*dept + 9), byte(2 * (i / 10)), byte(i)}),
			},
			Address: fmt.Sprintf("user%d@example.org", i), Rules: rules, Client: access.ClientThirdParty,
			Account: &access.Account{Departments: []string{fmt.Sprintf("dept%d/team", dept)}},
			Secret:  access.Secret{State: access.SecretLive, CredentialID: "5e2f", Label: "My iPhone"},
		}
	}
	return rules, queries
}

func TestPermitDoesNotAllocate(t *testing.T) {
	_, queries := site()
	own := *queries[1]
	own.Client, own.Secret = access.ClientWeb, access.Secret{}
	next := *queries[2]
	next.Secret, next.Site.NextPassdb = access.Secret{}, true
	session := *queries[4]
	session.Secret = access.Secret{State: access.SecretAuthenticated}
	var ask access.Asker = mailbox{}
	for what, q := range map[string]*access.Query{"secure password": queries[0], "webmail": &own, "next passdb": &next, "session": &session} {
		t.Run(what, func(t *testing.T) {
			var d access.Decision
			n := testing.AllocsPerRun(100, func() { d = access.Decide(q, ask, false) })
			if d.Outcome != access.Allow && d.Outcome != access.Next {
				t.Fatalf("not a permit: %+v", d)
			}
			if n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

// The lists of all policies together may have more entries than one list.
func TestManyPrefixes(t *testing.T) {
	long := slices.Repeat([]string{"10.0.0.1"}, address.MaxNetworks*2/3)
	set := access.Settings{Policies: []access.Policy{
		{ID: "one", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, IPs: long},
		{ID: "two", Type: access.Blacklist, Enabled: true, Scope: access.Scope{All: true}, IPs: append(long, "10.0.0.2")},
	}}
	q := &access.Query{
		Login: &access.Login{Protocol: access.IMAP, IP: netip.MustParseAddr("10.0.0.2")}, Address: "ann@example.org",
		Rules: access.Compile(&set), Client: access.ClientThirdParty,
	}
	if reason, id := access.Judge(q); reason != access.ReasonPolicy || id != "two" {
		t.Errorf("%q by %q", reason, id)
	}
}

// The goal is a microsecond, and no allocation.
func BenchmarkDecide(b *testing.B) {
	_, queries := site()
	var ask access.Asker = mailbox{}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		if d := access.Decide(queries[i%len(queries)], ask, false); d.Outcome != access.Allow {
			b.Fatalf("not a permit: %+v", d)
		}
		i++
	}
}

func BenchmarkDecideWithTrace(b *testing.B) {
	_, queries := site()
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		access.Decide(queries[i%len(queries)], mailbox{}, true)
		i++
	}
}
