package mailflow

import (
	"fmt"
	"reflect"
	"testing"
)

func filter(id, do string) Effect {
	return Effect{Rule: &Rule{ID: id, Kind: KindFilter, Action: Action{Do: do}}, Side: Received}
}

func warning(level string, a Action) Effect {
	return Effect{Rule: &Rule{ID: "w", Kind: KindWarning, Action: a}, Side: Received, Level: level}
}

// to is a recipient of example.org, with effects.
func to(local string, effects ...Effect) Judged {
	return Judged{Given: local + "@example.org", To: Party{Address: local + "@example.org", Account: local + "@example.org", Domain: "example.org"}, Verdict: Verdict{Effects: effects}}
}

func TestTreat(t *testing.T) {
	elsewhere := Judged{Given: "x@elsewhere.example", To: Party{Address: "x@elsewhere.example"}}
	refused := to("eve")
	refused.Verdict = Verdict{Refused: true, Reason: ReasonForwarding, Text: "no"}
	all := Action{How: []string{HowHeader, HowSubject, HowBanner}, Texts: map[string]string{"en": "From outside: {name}", "de": "Von außen: {address}"}}
	spam := Field{FieldFolder, "spam"}
	for name, c := range map[string]struct {
		j    Judgement
		want Treatment
	}{
		"nothing":                    {Judgement{}, Treatment{}},
		"no effect":                  {Judgement{Recipients: []Judged{to("ann")}}, Treatment{}},
		"spam":                       {Judgement{Recipients: []Judged{to("ann", filter("f", DoSpam))}}, Treatment{Fields: []Field{spam}}},
		"spam, for one that is left": {Judgement{Recipients: []Judged{to("gone"), to("ann", filter("f", DoSpam)), elsewhere}}, Treatment{Fields: []Field{spam}}},
		"spam, for one that is gone": {Judgement{Recipients: []Judged{to("gone", filter("f", DoSpam)), elsewhere}}, Treatment{}},
		"marks of one that is gone":  {Judgement{Recipients: []Judged{to("gone", warning(LevelGeneral, all)), elsewhere}}, Treatment{}},
		"released":                   {Judgement{Recipients: []Judged{{Given: "ann@example.org", Spam: true}}}, Treatment{Fields: []Field{spam}}},
		"deleted for all":            {Judgement{Recipients: []Judged{to("ann", filter("f", DoDelete)), to("bob", filter("f", DoDelete))}}, Treatment{Discard: true}},
		"deleted for one":            {Judgement{Recipients: []Judged{to("ann", filter("f", DoDelete)), to("bob")}}, Treatment{Without: []string{"ann@example.org"}}},
		"the first filter decides":   {Judgement{Recipients: []Judged{to("ann", filter("f", DoDelete), filter("g", DoSpam))}}, Treatment{Discard: true}},
		"returned": {
			Judgement{Recipients: []Judged{to("ann"), to("bob", filter("f", DoReturn))}},
			Treatment{Refusal: &Verdict{Refused: true, Text: textReturned, Reason: ReasonFiltered, Rule: "f"}},
		},
		"never returned to a relay, which would send a bounce": {Judgement{Recipients: []Judged{to("bob", filter("f", DoReturn))}, Relayed: true}, Treatment{Fields: []Field{spam}}},
		"refused": {Judgement{Recipients: []Judged{to("ann", filter("f", DoSpam)), refused}}, Treatment{Refusal: &refused.Verdict}},
		"again":   {Judgement{Recipients: []Judged{to("ann", filter("f", DoSpam))}, Again: true}, Treatment{Keep: true}},
		"header by default": {
			Judgement{Recipients: []Judged{to("ann", warning(LevelGeneral, Action{}))}}, Treatment{Fields: []Field{{FieldExternal, "general"}}},
		},
		"all ways": {
			Judgement{Recipients: []Judged{to("ann", warning(LevelGeneral, all))}, From: "Pat \"P\" <pat@partner.example>"},
			Treatment{Fields: []Field{{FieldExternal, "general"}}, Tag: "[EXT]", Banner: "Von außen: pat@partner.example\nFrom outside: Pat \"P"},
		},
		"the highest level counts": {
			Judgement{Recipients: []Judged{to("ann", warning(LevelAdvanced, Action{})), to("bob", warning(LevelGeneral, Action{}))}},
			Treatment{Fields: []Field{{FieldExternal, "advanced"}}},
		},
		"tags are removed on the way out": {Judgement{Recipients: []Judged{elsewhere}, Untag: []string{"[EXT]"}}, Treatment{Untag: []string{"[EXT]"}}},
	} {
		var gone []int
		for i := range c.j.Recipients {
			if c.j.Recipients[i].Given == "gone@example.org" {
				gone = append(gone, i)
			}
		}
		got := c.j.Treat()
		if c.j.Mark(&got, gone); got.Refusal != nil {
			got = Treatment{Refusal: got.Refusal} // no mark counts
		}
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, not %+v", name, got, c.want)
		}
	}
}

func describe(p *Parcel) string {
	text := fmt.Sprint(p.Effect.ID(), p.Recipients)
	for _, s := range []struct {
		is   bool
		word string
	}{{p.Monitor != "", " to " + p.Monitor}, {p.Spam, " spam"}, {p.Apart, " apart"}} {
		if s.is {
			text += s.word
		}
	}
	return text
}

// A message whose recipients have it in different folders is sent apart to those who have it in the
// spam folder, whether others wait for approval or are monitored.
func TestParcelsByFolder(t *testing.T) {
	spam, gone := filter("f", DoSpam), filter("d", DoDelete)
	held := Effect{Rule: &Rule{ID: "h", Kind: KindAudit}, Domain: "example.org"}
	monitor := Effect{Rule: &Rule{ID: "m", Kind: KindMonitor, Action: Action{To: []string{"eve@example.org"}}}}
	other := spam
	other.Domain = "tenant.example"
	for name, c := range map[string]struct {
		j    Judgement
		want string
	}{
		"all":               {Judgement{Recipients: []Judged{to("ann", spam), to("bob", spam)}}, "[]"},
		"none":              {Judgement{Recipients: []Judged{to("ann"), to("bob")}}, "[]"},
		"one of them":       {Judgement{Recipients: []Judged{to("ann"), to("bob", spam), to("dan", spam)}}, "[f[1 2] spam apart]"},
		"of two domains":    {Judgement{Recipients: []Judged{to("ann"), to("bob", spam), to("dan", other)}}, "[f[1] spam apart f[2] spam apart]"},
		"others deleted":    {Judgement{Recipients: []Judged{to("ann", gone), to("bob", spam)}}, "[]"},
		"others held":       {Judgement{Recipients: []Judged{to("ann", held), to("bob", spam)}}, "[h[0]]"},
		"held by folder":    {Judgement{Recipients: []Judged{to("ann", held), to("bob", spam, held), to("dan", held)}}, "[h[0 2] h[1] spam]"},
		"held and apart":    {Judgement{Recipients: []Judged{to("ann", spam, held), to("bob", spam), to("dan")}}, "[h[0] spam f[1] spam apart]"},
		"monitored once":    {Judgement{Recipients: []Judged{to("ann", monitor), to("bob", spam, monitor)}}, "[m[0 1] to eve@example.org f[1] spam apart]"},
		"a deleted monitor": {Judgement{Recipients: []Judged{to("ann", monitor), to("eve", gone)}}, "[m[0] to eve@example.org]"},
		"returned":          {Judgement{Recipients: []Judged{to("ann"), to("bob", filter("r", DoReturn))}, Relayed: true}, "[r[1] spam apart]"},
		"again":             {Judgement{Recipients: []Judged{to("ann", held), to("bob", spam)}, Again: true}, "[]"},
		"released":          {Judgement{Recipients: []Judged{{Given: "ann@example.org", Spam: true}, {Given: "bob@example.org", Spam: true}}}, "[]"},
	} {
		c.j.Treat()
		var got []string
		for _, p := range Parcels(c.j.Recipients) {
			got = append(got, describe(&p))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, not %s", name, got, c.want)
		}
	}
}

func TestImposter(t *testing.T) {
	known := func(addr string) bool { return addr == "ann.smith@example.org" }
	for from, want := range map[string]bool{
		"Pat Doe <pat@partner.example>":               false,
		"Ann <ann@partner.example>":                   false, // a first name proves nothing
		"Ann Smith <a@partner.example>":               true,
		"\"Smith, Ann\" <a@partner.example>":          true,
		"Аnn Ѕmith (CEO) <a@partner.example>":         true, // Cyrillic
		"ann.smith@example.org <a@partner.example>":   true, // an address as the name
		"Ann <ann@example.org>":                       true, // our own domain, from outside
		"Ann <ann@mail.example.org>":                  true,
		"Ann <ann@examp1e.org>":                       true,
		"ann@example.com":                             true,
		"Pat <pat@example-partners.example>":          false,
		"":                                            false,
		"Dr. Zoë Müller <z@partner.example>":          false,
		"Muller, Zoe <z@partner.example>":             true, // the display name of an account
		"\"ZOË  MÜLLER (sales)\" <z@partner.example>": true,
		"Ann Smith":                                   true,
		"<>":                                          false,
		"Pat <ann@example.org> <pat@partner.example>": true,
	} {
		if got := imposter([]string{from}, []string{"example.org"}, known, func(name string) bool { return NameKey(name) == NameKey("Zoë Müller") }); got != want {
			t.Errorf("%q: %v", from, got)
		}
	}
}
