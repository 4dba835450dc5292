package checkpassword

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestParseDecision(t *testing.T) {
	nested := func(n int) string { return strings.Repeat("[", n) + strings.Repeat("]", n) }
	tests := []struct {
		name, body string
		want       Decision // zero: an error
	}{
		{
			name: "the daemon's",
			body: `{"outcome":"deny","reason":"policy","message":"Not from here.","user":"ann@example.org","client":"third-party","region":"DE",` +
				`"policy_id":null,"trace":[{"step":1,"ok":true},{"x":[-0.5e+3,"\u0000",{}]}]}` + "\n",
			want: Decision{Outcome: Deny, Reason: "policy", Message: "Not from here.", User: "ann@example.org"},
		},
		{name: "only an outcome", body: ` { "outcome" : "allow" } `, want: Decision{Outcome: Allow}},
		{name: "next", body: `{"outcome":"next"}`, want: Decision{Outcome: Next}},
		{name: "null is absent", body: `{"outcome":"tempfail","reason":null}`, want: Decision{Outcome: TempFail}},
		{name: "escapes", body: `{"outc\u006fme":"\u0061llow","message":"\"\\\/\b\f\n\r\t\u00e4\ud83d\ude00\ud83dx"}`, want: Decision{Outcome: Allow, Message: "\"\\/\b\f\n\r\tä😀\ufffdx"}},
		{name: "unknown member twice", body: `{"x":1,"outcome":"allow","x":2}`, want: Decision{Outcome: Allow}},
		{name: "outcome in another place", body: `{"trace":{"outcome":"deny"},"outcome":"allow"}`, want: Decision{Outcome: Allow}},
		{name: "deep", body: `{"outcome":"allow","x":` + nested(maxNesting) + `}`, want: Decision{Outcome: Allow}},
		{name: "too deep", body: `{"outcome":"allow","x":` + nested(maxNesting+1) + `}`},
		{name: "outcome twice", body: `{"outcome":"allow","outcome":"allow"}`},
		{name: "outcome twice, once in disguise", body: `{"outcome":"deny","outcom\u0065":"allow"}`},
		{name: "user twice", body: `{"outcome":"allow","user":"ann","user":"bob"}`},
		{name: "no outcome", body: `{"reason":"ok"}`},
		{name: "empty outcome", body: `{"outcome":""}`},
		{name: "unknown outcome", body: `{"outcome":"Allow"}`},
		{name: "outcome null", body: `{"outcome":null}`},
		{name: "outcome true", body: `{"outcome":true}`},
		{name: "user a number", body: `{"outcome":"allow","user":1}`},
		{name: "user with a line break", body: `{"outcome":"allow","user":"ann\nbob"}`},
		{name: "user with a TAB", body: `{"outcome":"allow","user":"ann\tx"}`},
		{name: "user too long", body: `{"outcome":"allow","user":"` + strings.Repeat("x", 513) + `"}`},
		{name: "not an object", body: `["outcome","allow"]`},
		{name: "a string", body: `"allow"`},
		{name: "empty", body: ``},
		{name: "cut", body: `{"outcome":"allow"`},
		{name: "cut in a string", body: `{"outcome":"allow`},
		{name: "cut in an escape", body: `{"outcome":"allow\u00`},
		{name: "followed by more", body: `{"outcome":"allow"}{}`},
		{name: "comma at the end", body: `{"outcome":"allow",}`},
		{name: "no comma", body: `{"outcome":"allow" "x":1}`},
		{name: "name without quotes", body: `{outcome:"allow"}`},
		{name: "raw control character", body: "{\"outcome\":\"allow\",\"x\":\"\n\"}"},
		{name: "not UTF-8", body: "{\"outcome\":\"allow\",\"x\":\"\xff\"}"},
		{name: "number with a leading zero", body: `{"outcome":"allow","x":01}`},
		{name: "number without digits", body: `{"outcome":"allow","x":-}`},
		{name: "fraction without digits", body: `{"outcome":"allow","x":1.}`},
		{name: "not a literal", body: `{"outcome":"allow","x":nul}`},
		{name: "unknown escape", body: `{"outcome":"allow","x":"\x"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParseDecision([]byte(tt.body))
			if got != tt.want || (err == nil) == (tt.want == Decision{}) {
				t.Errorf("got %+v, error %v, want %+v", got, err, tt.want)
			}
		})
	}
}

// FuzzParseDecision compares with encoding/json: what one takes the other takes, with the same
// values, except where this parser is meant to be stricter.
func FuzzParseDecision(f *testing.F) {
	for _, seed := range []string{
		`{"outcome":"deny","reason":"policy","message":"Not from here.","user":"ann@example.org","trace":[{"a":1},null,-1.5E-7,true,false,"\ud83d\ude00"]}`,
		`{"outcome":"allow","outcome":"deny"}`, `{"outcome":"next","user":"\ud800\u0041"}`, `{}`, `[]`, `{"outcome":"allow",}`, `{"outcome":"tempfail","x":{"y":[1,2,[3]]}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		got, err := ParseDecision(body)
		want, ok := referenceDecision(body)
		if ok != (err == nil) || got != want {
			t.Errorf("%q: got %+v, error %v; encoding/json: %+v, %v", body, got, err, want, ok)
		}
	})
}

// referenceDecision is ParseDecision by means of encoding/json.
func referenceDecision(body []byte) (Decision, bool) {
	if !json.Valid(body) || !utf8.Valid(body) || nesting(body) > maxNesting+1 || bytes.TrimLeft(body, " \t\r\n")[0] != '{' {
		return Decision{}, false
	}
	var outcome string
	var d Decision
	fields := map[string]*string{"outcome": &outcome, "reason": &d.Reason, "message": &d.Message, "user": &d.User}
	decoder := json.NewDecoder(bytes.NewReader(body))
	_, _ = decoder.Token() // the brace
	for decoder.More() {
		name, _ := decoder.Token()
		var value any
		_ = decoder.Decode(&value)
		field, known := fields[name.(string)]
		if !known {
			continue
		}
		text, isString := value.(string)
		if field == nil || !isString && value != nil {
			return Decision{}, false // twice, or not a string
		}
		*field = text
		fields[name.(string)] = nil
	}
	d.Outcome = outcomeOf(outcome)
	control := func(r rune) bool { return r < ' ' || r >= 0x7f && r < 0xa0 }
	if d.Outcome == NoAnswer || len(d.User) > maxUser || strings.ContainsFunc(d.User, control) {
		return Decision{}, false
	}
	return d, true
}

// nesting returns how deep the values of valid JSON nest.
func nesting(body []byte) int {
	depth, deepest := 0, 0
	decoder := json.NewDecoder(bytes.NewReader(body))
	for {
		token, err := decoder.Token()
		if err != nil {
			return deepest
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
			deepest = max(deepest, depth)
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
	}
}
