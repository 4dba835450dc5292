package credential

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestRules(t *testing.T) {
	strict := &Rules{MinLength: 10, MinStrength: 3, Forbidden: []string{"Example", "Straße"}, History: 3}
	for _, c := range []struct {
		rules    *Rules
		password string
		names    []string
		want     string // codes
	}{
		{&Rules{}, "a", []string{"a"}, ""},
		{strict, "correct-horse-battery", nil, ""},
		{strict, "short", nil, "too_short too_weak"},
		{strict, "passwordpassword", nil, "too_weak"},
		{strict, "kettle EXAMPLE violin moss", nil, "forbidden_keyword"},
		{strict, "kettle STRASSE violin moss", nil, "forbidden_keyword"},
		{strict, "kettle ｅｘａｍｐｌｅ violin moss", nil, "forbidden_keyword"}, // full-width letters
		{strict, "kettle Hopper violin moss", []string{"grace.hopper"}, "own_name"},
		{strict, "kettle ann violin moss", []string{"ann"}, ""}, // too short to forbid
		{&Rules{MinLength: 4}, "éééé", nil, ""},                 // characters, not bytes
		{&Rules{MinLength: 4}, "e\u0301e\u0301e\u0301", nil, "too_short"},
		{&Rules{Forbidden: []string{""}}, "anything", nil, ""},
	} {
		var codes []string
		for _, f := range c.rules.Check([]byte(c.password), c.names) {
			codes = append(codes, f.Code)
			if detail := fmt.Sprintf(f.Format, f.Args...); strings.Contains(detail, c.password) {
				t.Errorf("%q is repeated: %s", c.password, detail)
			}
		}
		if got := strings.Join(codes, " "); got != c.want {
			t.Errorf("%q with %v: faults %q, want %q", c.password, c.names, got, c.want)
		}
	}
}

// The estimate of a long password must not take minutes: its time grows with the cube of the length.
func TestRulesOfLongPassword(t *testing.T) {
	done := make(chan []Fault, 1)
	long := strings.Repeat("kettle violin ", MaxNewPassword/14)
	go func() { done <- (&Rules{MinStrength: MaxStrength}).Check([]byte(long), nil) }()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatal("the strength of a password of the longest length is not estimated within a minute")
	}
}

func TestUsed(t *testing.T) {
	h := NewHasher(0)
	var former []string
	for _, p := range []string{"first password", "second password"} {
		stored, err := h.Hash(t.Context(), []byte(p))
		if err != nil {
			t.Fatal(err)
		}
		former = append(former, stored)
	}
	former = slices.Insert(former, 1, "{UNKNOWN}xyz")
	for password, want := range map[string]bool{"first password": true, "second password": true, "third password": false} {
		if used, err := h.Used(t.Context(), former, []byte(password)); err != nil || used != want {
			t.Errorf("%q: used %v, %v", password, used, err)
		}
	}
}
