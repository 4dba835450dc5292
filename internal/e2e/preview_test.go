package e2e

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// parts words how logins spread over values, in order.
func parts(affected any, kind string) string {
	a, _ := affected.(object)
	s, _ := a[kind].(object)
	items, _ := s["items"].([]any)
	var words []string
	for _, item := range items {
		p := item.(object)
		words = append(words, fmt.Sprint(p["value"], " ", p["logins"]))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// F21: what a policy would have done to real logins, before it does it.
func TestPolicyPreview(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	const preview, home, cafe = policies + "/preview", "127.0.9.21", "127.0.9.22"
	phone, secret := s.device(ann, "My iPhone")

	// Each is a session of its own; those of the office are ten.
	in := 0
	for _, l := range []struct {
		door            int
		from, who, word string
	}{
		{0, office, ann, s.passwords[ann]},
		{1, office, ann, s.passwords[ann]},
		{3, office, bob, s.passwords[bob]},
		{0, home, ann, secret},
		{0, home, ann, secret},
		{3, home, ann, secret},
		{1, cafe, bob, s.passwords[bob]},
		{0, webmail, bob, s.passwords[bob]},
	} {
		d := doors[l.door]
		s.want(d.name+" from "+l.from, d.login(s, l.from, l.who, l.word), d.yes)
		in++
	}
	s.refuse("a wrong password", s.imap(cafe, bob, "wrong"), "OK ")
	draft := object{"name": "Only from the office", "type": "whitelist", "scope": everybody(), "ips": []string{"127.0.1.0/24"}, "clients": []string{"third-party"}}
	var got object
	s.eventually("all logins are on record, and how they ended", func() bool {
		got = s.api("POST", preview, object{"policy": draft})
		return got["examined"] == float64(in+1) && got["came_in"] == float64(in)
	})
	wanted := map[string]string{
		"accounts":  ann + " 3, " + bob + " 1",
		"devices":   phone + " 3, mailbox 1",
		"addresses": home + " 3, " + cafe + " 1",
		"clients":   "third-party 4",
		"protocols": "imap 2, pop3 1, smtp 1",
	}
	for kind, want := range wanted {
		if have := parts(got["refused"], kind); have != want {
			t.Errorf("%s: %s, want %s", kind, have, want)
		}
	}
	if r := got["refused"].(object); r["logins"] != 4.0 || r["first"] == nil || r["last"] == nil {
		t.Errorf("refused: %v", r)
	}

	t.Run("in lines", func(t *testing.T) {
		s := s.in(t)
		body, err := json.Marshal(object{"policy": draft, "days": 1})
		s.must(err)
		req, err := http.NewRequestWithContext(s.ctx, http.MethodPost, "http://drawbridge"+preview, strings.NewReader(string(body)))
		s.must(err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("Accept", "application/x-ndjson")
		resp, err := s.Daemons[0].HTTP().Do(req)
		s.must(err)
		defer func() { _ = resp.Body.Close() }()
		lines := bufio.NewScanner(resp.Body)
		var last object
		for lines.Scan() {
			last = nil
			s.must(json.Unmarshal(lines.Bytes(), &last))
		}
		result, _ := last["result"].(object)
		if have := parts(result["refused"], "accounts"); have != wanted["accounts"] {
			t.Errorf("the last line: %v", last)
		}
	})
	t.Run("and it does what the preview said", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", policies+"/office", draft)
		s.want("ann from the office", s.imap(office, ann, s.passwords[ann]), "OK ")
		s.want("bob by webmail", s.imap(webmail, bob, s.passwords[bob]), "OK ")
		s.refuse("ann's phone at home", s.imap(home, ann, secret), "OK ")
		s.refuse("ann's mail from home", s.smtp(home, ann, secret), "235 ")
		s.refuse("bob at the café", s.pop3(cafe, bob, s.passwords[bob]), "+OK ")
	})
	t.Run("what the removal would let in again", func(t *testing.T) {
		s := s.in(t)
		// The four that came in before, and the three that were just refused.
		s.eventually("the refusals are on record", func() bool {
			return parts(s.api("POST", preview, object{"remove": "office"})["admitted"], "accounts") == ann+" 5, "+bob+" 2"
		})
		s.refused(http.StatusUnprocessableEntity, "invalid", "POST", preview, object{"remove": "office", "policy": draft})
	})
}
