package mailflow

import (
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
		"nothing":                  {Judgement{}, Treatment{}},
		"no effect":                {Judgement{Recipients: []Judged{to("ann")}}, Treatment{}},
		"spam":                     {Judgement{Recipients: []Judged{to("ann", filter("f", DoSpam))}}, Treatment{Fields: []Field{spam}}},
		"spam, for one domain":     {Judgement{Recipients: []Judged{to("ann", filter("f", DoSpam)), elsewhere}}, Treatment{Fields: []Field{spam, {FieldDomain, "<example.org>"}}}},
		"deleted for all":          {Judgement{Recipients: []Judged{to("ann", filter("f", DoDelete)), to("bob", filter("f", DoDelete))}}, Treatment{Discard: true}},
		"deleted for one":          {Judgement{Recipients: []Judged{to("ann", filter("f", DoDelete)), to("bob")}}, Treatment{Without: []string{"ann@example.org"}}},
		"the first filter decides": {Judgement{Recipients: []Judged{to("ann", filter("f", DoDelete), filter("g", DoSpam))}}, Treatment{Discard: true}},
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
		if got := c.j.Treat(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, not %+v", name, got, c.want)
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
