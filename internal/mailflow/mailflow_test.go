package mailflow

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

// site is what these tests' submitter, ann, sees: example.org checks as given, example.com is
// another tenant's domain and checks headers, off.example checks nothing.
func ann(check SenderCheck) *Submitter {
	domains := map[string]SenderCheck{"example.org": check, "example.net": check, "example.com": CheckBoth, "off.example": CheckOff}
	granted := map[string]bool{"ann@example.org": true, "sales@example.net": true, "granted@example.com": true, "granted@elsewhere.example": true}
	return &Submitter{
		Account: "ann@example.org", Check: check, Headers: true,
		Address: func(addr string) Address {
			_, domain, _ := strings.Cut(addr, "@")
			check, managed := domains[domain]
			return Address{Managed: managed, Check: check, Granted: granted[addr]}
		},
	}
}

func TestEnvelope(t *testing.T) {
	for _, c := range []struct {
		from    string
		refused bool
	}{
		{"ann@example.org", false},
		{"Ann@EXAMPLE.org.", false},
		{"sales@example.net", false},
		{"", false}, // bounces and read receipts
		{`"ann"@example.org`, false},
		{"@relay.example:ann@example.org", false},
		{"granted@example.com", false},
		{"granted@elsewhere.example", false},
		{"anybody@off.example", false},

		{"eve@example.org", true},
		{"ann@example.net", true},
		{"ann@elsewhere.example", true}, // a domain that is not managed: the submitter's setting
		{`"ann smith"@example.org`, true},
		{"ann@example.org@example.net", true},
		{"ann@[192.0.2.1]", true},
		{"änn@example.org", true},
		{"ann@example.org\x00", true},
		{"ann", true},
	} {
		for _, check := range []SenderCheck{"", CheckBoth, CheckEnvelope} {
			if v := ann(check).Envelope(c.from); v.Refused != c.refused || c.refused != (v.Text != "") {
				t.Errorf("%q, check %q: %+v, want refused %v", c.from, check, v, c.refused)
			}
		}
		if v := ann(CheckOff).Envelope(c.from); v.Refused {
			t.Errorf("%q is refused though the check is off", c.from)
		}
	}
}

// Another tenant's setting does not open a domain to its own accounts: the address's domain
// decides.
func TestAddressDomainDecides(t *testing.T) {
	for _, check := range []SenderCheck{CheckOff, CheckEnvelope, CheckBoth} {
		s := ann(check)
		for _, from := range []string{
			"ceo@example.com", `"ceo"@example.com`, "CEO@Example.COM.", "@x:ceo@example.com", "cé@example.com", `"c e o"@example.com`,
			"ceo%example.com", "example.com!ceo", "x!ceo%example.com", `"x@y"%example.com`, "x@y%example.com", "example.com!x@y z",
		} {
			if v := s.Envelope(from); !v.Refused {
				t.Errorf("check %s: MAIL FROM:<%s> is accepted", check, from)
			}
			if strings.ContainsAny(from, "%!") {
				continue // rewritten in the envelope only
			}
			if v := s.Header([]Field{{"From", "CEO <" + from + ">"}}); !v.Refused {
				t.Errorf("check %s: From: <%s> is accepted", check, from)
			}
		}
	}
	if v := ann(CheckBoth).Header([]Field{{"From", "anybody@off.example"}}); v.Refused {
		t.Errorf("an address whose domain checks nothing: %+v", v)
	}
}

func TestHeader(t *testing.T) {
	own := Field{"From", "Ann <ann@example.org>"}
	for name, c := range map[string]struct {
		fields  []Field
		refused string
	}{
		"own":                    {[]Field{own}, ""},
		"own, and an alias":      {[]Field{{"From", "ann@example.org, Sales@example.net"}}, ""},
		"quotes without need":    {[]Field{{"From", `<"ann"@example.org>`}}, ""},
		"no From":                {nil, "no From header"},
		"two From, both own":     {[]Field{own, {"from ", "ann@example.org"}}, "2 From headers"},
		"another's":              {[]Field{{"From", "eve@example.org"}}, "eve@example.org in the From header does not belong"},
		"one of two":             {[]Field{own, {"From", "eve@example.org"}}, "does not belong"},
		"quoted at":              {[]Field{{"From", `"ann@example.org"@example.net`}}, "does not belong"},
		"Sender":                 {[]Field{own, {"Sender", "eve@example.org"}}, "Sender header does not belong"},
		"Resent-From":            {[]Field{own, {"Resent-From", "eve@example.org"}}, "Resent-From header does not belong"},
		"Resent-Sender":          {[]Field{own, {"resent-sender \t", "eve@example.org"}}, "resent-sender header does not belong"},
		"own Sender":             {[]Field{own, {"Sender", "sales@example.net"}}, ""},
		"unreadable":             {[]Field{{"From", "nonsense"}}, "From header cannot be read (octet 9: unexpected character or end): write From: ann@example.org"},
		"empty":                  {[]Field{{"From", ""}}, "From header cannot be read"},
		"too long in all":        {[]Field{own, {"From", "ann@example.org" + strings.Repeat(" ", MaxHeader)}}, "cannot be read"},
		"careless angle bracket": {[]Field{{"From", `"<eve@example.org>" <ann@example.org>`}}, "eve@example.org"},
	} {
		v := ann(CheckBoth).Header(c.fields)
		if v.Refused != (c.refused != "") || !strings.Contains(v.Text, c.refused) {
			t.Errorf("%s: %+v, want %q", name, v, c.refused)
		}
		if v.Refused && !strings.Contains(v.Text, "ann@example.org") {
			t.Errorf("%s: the text does not say what to write: %s", name, v.Text)
		}
	}
	for _, check := range []SenderCheck{CheckEnvelope, CheckOff} {
		if v := ann(check).Header([]Field{{"From", "eve@example.org"}}); v.Refused {
			t.Errorf("check %s: %+v", check, v)
		}
		if v := ann(check).Header(nil); v.Refused {
			t.Errorf("check %s, no From: %+v", check, v)
		}
	}
}

// What a client wrote does not end the line of the reply.
func TestTextsAreASCII(t *testing.T) {
	for _, from := range []string{"e\r\n250 ok@example.org", "é@example.org", strings.Repeat("x", 1000) + "@example.org"} {
		v := ann(CheckBoth).Envelope(from)
		if !v.Refused || len(v.Text) > 400 || strings.ContainsFunc(v.Text, func(r rune) bool { return r < ' ' || r > '~' }) {
			t.Errorf("%q: %+v", from, v)
		}
	}
}

func TestNoRuleConcernsTheSession(t *testing.T) {
	var s Submitter
	if s.ChecksHeader() || s.Envelope("eve@example.net").Refused || s.Header([]Field{{"From", "eve@example.net"}}).Refused {
		t.Error("the zero Submitter refuses")
	}
}

// Groups that contain each other, or themselves, end; each of them has to allow the sender. A long
// chain of groups costs a look at each.
func TestGroupsWithinGroups(t *testing.T) {
	set := Settings{Domain: "example.org", Groups: []Group{
		{Address: "a@example.org", Members: []string{"b@example.org", "a@example.org"}},
		{Address: "b@example.org", Members: []string{"c@example.org"}},
		{Address: "c@example.org", Members: []string{"a@example.org", "ann@example.org"}, WhoMaySend: Members},
	}}
	name := func(i int) string { return "g" + strconv.Itoa(i) + "@example.org" }
	const chain = 1000
	for i := range chain {
		set.Groups = append(set.Groups, Group{Address: name(i), Members: []string{name(i + 1)}})
	}
	set.Groups = append(set.Groups, Group{Address: name(chain), Members: []string{"ann@example.org"}, WhoMaySend: Inside})
	r := Compile(&set)
	member := Party{Address: "ann@example.org", Account: "ann@example.org", Domain: "example.org"}
	for _, c := range []struct {
		from    Party // who authenticated; nobody for the zero Party
		to      string
		refused bool
	}{
		{member, "a@example.org", false},
		{member, "b@example.org", false},
		{member, "c@example.org", false},
		{member, name(0), false},
		{Party{}, "a@example.org", true},
		{Party{}, "b@example.org", true},
		{Party{}, "c@example.org", true},
		{Party{}, name(0), true},
	} {
		m := &Message{From: c.from, Sender: c.from, Internal: c.from.Account != ""} // the null sender, too
		to := Party{Address: c.to, Account: c.to, Domain: "example.org"}
		if v := Evaluate(m, &to, &Applying{Sender: r, Recipient: r}, nil, false); v.Refused != c.refused {
			t.Errorf("%q to %s: %+v", c.from.Address, c.to, v)
		}
	}
}

// A domain with 1000 rules for departments and members, at one recipient: the goal is 5 µs.
func BenchmarkThousandRules(b *testing.B) {
	set := Settings{Domain: "example.org"}
	for i := range 1000 {
		r := Rule{ID: strconv.Itoa(i), Kind: Kinds[1+i%3], Enabled: true}
		if dept := "d" + strconv.Itoa(i); i%2 == 0 {
			set.Departments = append(set.Departments, dept)
			r.Scope.Departments = []access.ScopeDepartment{{Path: dept, Sub: true}}
		} else {
			r.Scope.Members = []string{dept + "@example.org"}
		}
		set.Rules = append(set.Rules, r)
	}
	set.Rules[1].Scope.Members = []string{"ann@example.org"}
	rules := Compile(&set)
	ann := Party{Address: "ann@example.org", Account: "ann@example.org", Domain: "example.org", Departments: []string{"d0", "d2", "d4"}}
	m := &Message{From: ann, Sender: ann, Internal: true}
	to := Party{Address: "bob@example.org", Account: "bob@example.org", Domain: "example.org"}
	a := &Applying{Sender: rules, Recipient: rules}
	b.ReportAllocs()
	for b.Loop() {
		if v := Evaluate(m, &to, a, nil, false); v.Refused {
			b.Fatal(v)
		}
	}
	b.ReportMetric(5000, "goal-ns")
}

// The time of a message's rules is bounded: no expression is large, whatever repeats what in it, and
// large texts are compared with so many words only.
func TestEffortIsBounded(t *testing.T) {
	for x, ok := range map[string]bool{
		"":                                    true,
		`(?i)\b(invoice|payment) [0-9]{1,20}`: true,
		`\pL{1000}`:                           false,
		strings.Repeat("[ab]{0,900}", 90):     false,
		"((a{10}){10}){11}":                   false,
		"(a{500}|b{500})":                     false,
		strings.Repeat("a?", 400):             true,
		"(.*a){100}":                          true,
		"(.*a){900}":                          false,
		"(":                                   false,
	} {
		if err := CheckExpression(x); (err == nil) != ok {
			t.Errorf("%.30s: %v", x, err)
		}
	}
	words := make([]string, 1000)
	for i := range words {
		words[i] = "word" + strconv.Itoa(i)
	}
	large := strings.Repeat("x", maxEffort/1000+1)
	for name, c := range map[string]struct {
		match   Match
		content Content
		fault   bool
	}{
		"a large expression":  {Match{Headers: []HeaderMatch{{Name: "X", Regex: "(ab){900}"}}}, Content{}, true},
		"an expression":       {Match{Headers: []HeaderMatch{{Name: "X", Regex: "a{400}"}}}, Content{Header: []Field{{Name: "X", Value: large}}}, true},
		"words":               {Match{Text: words}, Content{Texts: []string{large}}, true},
		"patterns":            {Match{Attachments: Attachments{Names: words}}, Content{Attachments: []Attachment{{Names: []string{large}}}}, true},
		"words in small ones": {Match{Text: words}, Content{Texts: []string{"a", "b"}}, false},
	} {
		m := compileMatch(&Rule{Match: c.match})
		for range 2 { // recipients
			matched, err := m.message(&Message{Content: &c.content}, &Party{})
			if matched || (err != nil) != c.fault {
				t.Errorf("%s: %t %v", name, matched, err)
			}
		}
		if once := int64(1000 * 2); name == "words in small ones" && c.content.effort != once {
			t.Errorf("%s: the effort for two recipients is %d, want %d", name, c.content.effort, once)
		}
	}
}

// A rule applies from the beginning of its period to just before its end, and to messages of its
// size.
func TestPeriodAndSize(t *testing.T) {
	begin, end := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	r := Compile(&Settings{Domain: "example.org", Rules: []Rule{{
		ID: "r", Kind: KindAudit, Enabled: true, Scope: access.Scope{All: true}, Direction: Received, From: begin, Until: end, Match: Match{MinSize: 1000},
	}}})
	to := Party{Address: "ann@example.org", Account: "ann@example.org", Domain: "example.org"}
	for _, c := range []struct {
		at   time.Time
		size int64
		want bool
	}{
		{begin.Add(-1), 1000, false},
		{begin, 1000, true},
		{begin, 999, false},
		{end.Add(-1), 5000, true},
		{end, 5000, false},
	} {
		m := &Message{Time: c.at, Size: c.size, Content: &Content{}}
		if v := Evaluate(m, &to, &Applying{Recipient: r}, nil, false); (len(v.Effects) == 1) != c.want {
			t.Errorf("%s, %d octets: %+v", c.at, c.size, v.Effects)
		}
	}
}
