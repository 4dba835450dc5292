package mailflow

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// naive decides from the documents, rule by rule and without any compiled form, as the guide
// describes it: limits aside.
func naive(m *Message, to *Party, set *Settings) (refused bool, reason Reason, reported []string) {
	inScope := func(s *access.Scope, p *Party) bool {
		has := func(list []access.ScopeDepartment) bool {
			return slices.ContainsFunc(list, func(d access.ScopeDepartment) bool { return slices.ContainsFunc(p.Departments, d.Has) })
		}
		if has(s.Except.Departments) || slices.Contains(s.Except.Members, p.Account) {
			return false
		}
		return s.All || has(s.Departments) || slices.Contains(s.Members, p.Account)
	}
	excepted := func(list []string, domain string) bool {
		return slices.ContainsFunc(list, func(e string) bool {
			below, ok := strings.CutPrefix(e, "*")
			return e == domain || ok && domain != "" && strings.HasSuffix(domain, below)
		})
	}
	senderInside := m.Sender.Domain == set.Domain || m.Sender.Domain == "" && m.Internal
	toInside := to.Domain == set.Domain
	for i := range set.Rules {
		r := &set.Rules[i]
		if !r.Enabled || r.Kind != KindInternalOnly || r.Direction == Received || m.Sender.Domain != set.Domain || !inScope(&r.Scope, &m.Sender) {
			continue
		}
		if toInside || excepted(r.ExceptDomains, address.Domain(to.Address)) {
			continue
		}
		if r.Mode == access.Report {
			reported = append(reported, r.ID)
		} else if !refused {
			refused, reason = true, ReasonInternalOnly
		}
	}
	for i := range set.Rules {
		r := &set.Rules[i]
		if !r.Enabled || r.Kind != KindInternalOnly || r.Direction == Sent || !toInside || !inScope(&r.Scope, to) {
			continue
		}
		from := address.Domain(m.From.Address)
		if m.Sender.Account != "" {
			from = address.Domain(m.Sender.Address)
		}
		if senderInside || excepted(r.ExceptDomains, from) {
			continue
		}
		if r.Mode == access.Report {
			reported = append(reported, r.ID)
		} else if !refused {
			refused, reason = true, ReasonInternalOnly
		}
	}
	if refused || !toInside {
		return refused, reason, reported
	}
	// The group, and each group that is reached through members, in any order and number of steps.
	reached := []string{to.Account}
	for range set.Groups {
		for _, g := range set.Groups {
			if slices.Contains(reached, g.Address) {
				reached = append(reached, g.Members...)
			}
		}
	}
	for _, g := range set.Groups {
		if !slices.Contains(reached, g.Address) || !slices.ContainsFunc(set.Groups, func(x Group) bool { return x.Address == to.Account }) {
			continue
		}
		members := slices.Clone(g.Members)
		for range set.Groups {
			for _, x := range set.Groups {
				if slices.Contains(members, x.Address) {
					members = append(members, x.Members...)
				}
			}
		}
		allowed := true
		switch g.WhoMaySend {
		case Anyone, "":
		case Inside:
			allowed = senderInside
		case Members:
			allowed = m.Sender.Account != "" && slices.Contains(members, m.Sender.Account)
		case Listed:
			who := m.Sender.Account
			if who == "" && m.From.Domain == "" {
				who = m.From.Address
			}
			allowed = who != "" && slices.Contains(g.Senders, who) || m.Sender.Domain == set.Domain && slices.ContainsFunc(g.Departments, func(d string) bool {
				return slices.ContainsFunc(m.Sender.Departments, (access.ScopeDepartment{Path: d, Sub: true}).Has)
			})
		}
		if !allowed {
			return true, ReasonGroupClosed, reported
		}
	}
	return false, "", reported
}

var departments = []string{"sales", "sales/emea", "board"}

func person(t *rapid.T, label string) Party {
	local := rapid.SampledFrom([]string{"ann", "bob", "g1", "g2", "g3"}).Draw(t, label)
	domain := rapid.SampledFrom([]string{"example.org", "example.org", "tenant.example", "a.partner.example", "elsewhere.example"}).Draw(t, label+" domain")
	p := Party{Address: local + "@" + domain}
	if domain == "example.org" || domain == "tenant.example" {
		p.Account, p.Domain = p.Address, domain
		if local[0] != 'g' {
			p.Departments = rapid.SliceOfDistinct(rapid.SampledFrom(departments), rapid.ID).Draw(t, label+" departments")
		}
	}
	return p
}

func scope(t *rapid.T) (s access.Scope) {
	s.All = rapid.Bool().Draw(t, "all")
	some := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) access.ScopeDepartment {
		return access.ScopeDepartment{Path: rapid.SampledFrom(departments).Draw(t, "path"), Sub: rapid.Bool().Draw(t, "sub")}
	}), 0, 2)
	people := rapid.SliceOfN(rapid.SampledFrom([]string{"ann@example.org", "bob@example.org"}), 0, 2)
	s.Departments, s.Members = some.Draw(t, "departments"), people.Draw(t, "members")
	s.Except.Departments, s.Except.Members = some.Draw(t, "except"), people.Draw(t, "except members")
	return s
}

func settings(t *rapid.T) *Settings {
	set := &Settings{Domain: "example.org", Departments: departments}
	for i := range rapid.IntRange(0, 6).Draw(t, "rules") {
		set.Rules = append(set.Rules, Rule{
			ID: fmt.Sprintf("r%d", i), Kind: KindInternalOnly, Enabled: rapid.IntRange(0, 4).Draw(t, "on") > 0, Scope: scope(t),
			Mode:          rapid.SampledFrom([]access.PolicyMode{access.Enforce, access.Report}).Draw(t, "mode"),
			Direction:     rapid.SampledFrom([]Direction{Sent, Received, Both, ""}).Draw(t, "direction"),
			ExceptDomains: rapid.SliceOfN(rapid.SampledFrom([]string{"*.partner.example", "tenant.example"}), 0, 1).Draw(t, "except domains"),
		})
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "groups") {
		set.Groups = append(set.Groups, Group{
			Address:     fmt.Sprintf("g%d@example.org", i+1),
			Members:     rapid.SliceOfN(rapid.SampledFrom([]string{"ann@example.org", "bob@example.org", "g1@example.org", "g2@example.org", "g3@example.org"}), 0, 3).Draw(t, "group members"),
			WhoMaySend:  rapid.SampledFrom([]WhoMaySend{Anyone, Inside, Members, Listed}).Draw(t, "who"),
			Senders:     rapid.SliceOfN(rapid.SampledFrom([]string{"ann@example.org", "bob@elsewhere.example", "ann@tenant.example"}), 0, 2).Draw(t, "senders"),
			Departments: rapid.SliceOfN(rapid.SampledFrom(departments), 0, 1).Draw(t, "group departments"),
		})
	}
	return set
}

func message(t *rapid.T) *Message {
	m := &Message{From: person(t, "from")}
	if rapid.IntRange(0, 9).Draw(t, "null sender") == 0 {
		m.From = Party{}
	}
	switch rapid.IntRange(0, 2).Draw(t, "client") {
	case 0:
		m.Sender = person(t, "login")
		m.Internal = m.Sender.Account != ""
		if !m.Internal {
			m.Sender = Party{}
		}
	case 1:
		m.Internal = true
		if m.From.Account != "" {
			m.Sender = m.From
		}
	}
	return m
}

// The compiled rules decide as the documents say; tracing changes no decision; the order of rules
// and groups does not matter to whether a recipient is refused; more rules in force refuse more.
func TestEvaluateAsDocumented(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		set, m, to := settings(t), message(t), person(t, "to")
		applying := func(set *Settings) *Applying {
			a := &Applying{}
			r := Compile(set)
			if m.Sender.Domain == set.Domain {
				a.Sender = r
			}
			if to.Domain == set.Domain {
				a.Recipient = r
			}
			return a
		}
		v := Evaluate(m, &to, applying(set), nil, false)
		refused, reason, reported := naive(m, &to, set)
		if v.Refused != refused || v.Reason != reason {
			t.Fatalf("%+v to %+v: %v %q, the documents say %v %q", m, to, v.Refused, v.Reason, refused, reason)
		}
		if !refused && !slices.Equal(v.Reported, reported) {
			t.Fatalf("reported %q, want %q", v.Reported, reported)
		}
		if refused != (v.Text != "") || strings.ContainsFunc(v.Text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Fatalf("text %q", v.Text)
		}
		if w := Evaluate(m, &to, applying(set), nil, true); w.Refused != v.Refused || w.Rule != v.Rule || w.Text != v.Text {
			t.Fatalf("with a trace: %+v, without: %+v", w, v)
		}
		slices.Reverse(set.Rules)
		slices.Reverse(set.Groups)
		if w := Evaluate(m, &to, applying(set), nil, false); w.Refused != v.Refused || w.Reason != v.Reason {
			t.Fatalf("in another order: %+v, before: %+v", w, v)
		}
		for i := range set.Rules {
			set.Rules[i].Mode = access.Enforce
		}
		if w := Evaluate(m, &to, applying(set), nil, false); v.Refused && !w.Refused {
			t.Fatalf("enforced rules refuse less: %+v", w)
		}
	})
}
