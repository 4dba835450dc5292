package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// command runs drawbridge at the first daemon and returns what it prints.
func (s *site) command(args ...string) string {
	s.t.Helper()
	out, err := s.Daemons[0].Command(s.ctx, args...).CombinedOutput()
	if err != nil {
		s.t.Fatalf("drawbridge %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// F23: each real login is explained by the step that decided it, and what has changed since is
// told.
func TestExplain(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("PUT", "/v1/accounts/"+bob, object{"protocols": object{"pop3": false}})
	_, phone := s.device(ann, "phone")
	s.policy("office", "whitelist", everybody(), object{"name": "Only from the office", "ips": []string{"127.0.1.0/24"}, "clients": []string{"third-party"}})

	refused := s.imap(outside, ann, s.passwords[ann])
	s.refuse("by a policy", refused, "OK ")
	s.refuse("by a protocol that is off", s.pop3(office, bob, s.passwords[bob]), "+OK ")
	s.refuse("with a wrong secret", s.imap("127.0.1.8", bob, "wrong"), "OK ")
	s.want("by a device", s.imap("127.0.1.9", ann, phone), "OK ")
	s.want("by the next passdb", s.imap("127.0.1.10", bob, s.passwords[bob]), "OK ")

	const logins = "/v1/domains/example.org/logins/"
	var ids []string
	for _, c := range []struct {
		query  string // which finds the record
		reason string
		step   string // what the command prints of the step that decided
	}{
		{"ip=" + outside, "policy", `policies +refuse +office +no applicable whitelist matches: Only from the office`},
		{"account=" + bob + "&ip=" + office, "protocol_disabled", `protocol +refuse +- +POP3 disabled \(set by the account\)`},
		{"ip=127.0.1.8", "bad_secret", `next_passdb +refuse +- +the secret was wrong then`},
		{"ip=127.0.1.9", "ok", `secret +pass +- +a live secure password: phone`},
		{"ip=127.0.1.10", "ok", `next_passdb +pass +- +the secret was right then`},
	} {
		r := s.record(c.query, func(r object) bool { return r["reason"] == c.reason && r["outcome"] != "next" })
		id, _ := r["id"].(string)
		ids = append(ids, id)
		if got := s.api("GET", logins+id, nil); got["id"] != id {
			t.Errorf("%s: the record is %v", c.query, got)
		}
		e := s.api("GET", logins+id+"/explain", nil)
		if d := e["decision"].(object); e["differs"] != false || d["reason"] != c.reason || d["outcome"] != r["outcome"] {
			t.Errorf("%s: explained %v", c.query, e)
		}
		if out := s.command("explain", "example.org", id, "--wide"); !regexp.MustCompile(`(?m)^`+c.step+`$`).MatchString(out) || !regexp.MustCompile(`(?m)^differs +no$`).MatchString(out) {
			t.Errorf("%s: no line %q in\n%s", c.query, c.step, out)
		}
	}
	if out := s.command("logins", "example.org", "--wide"); !strings.Contains(out, ids[0]) {
		t.Errorf("the list names no ids:\n%s", out)
	}

	s.api("DELETE", policies+"/office", nil)
	e := s.api("GET", logins+ids[0]+"/explain", nil)
	if why, _ := e["why_differs"].(string); e["differs"] != true || !strings.HasPrefix(why, "then the policy refused it (office, which was deleted); now it passes") {
		t.Errorf("after the policy is gone: %v", e)
	}
	if out := s.command("explain", "--account", ann, "--protocol", "imap", "--ip", outside); !regexp.MustCompile(`(?m)^outcome +next$`).MatchString(out) {
		t.Errorf("a login that nobody made:\n%s", out)
	}
	s.want("and so it is", s.imap(outside, ann, s.passwords[ann]), "OK ")
}
