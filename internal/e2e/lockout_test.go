package e2e

import (
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// F24: who would be locked out is told before, and what was tried is undone, also by a daemon that
// was restarted meanwhile.
func TestLockoutGuard(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	whitelist := object{"name": "Only from the office", "type": "whitelist", "scope": everybody(), "ips": []string{"127.0.1.0/24"}}
	s.want("ann", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.want("bob", s.pop3(office, bob, s.passwords[bob]), "+OK ")
	for _, account := range []string{ann, bob} {
		s.record("account="+account, func(r object) bool { return r["outcome"] == "allow" }) // also that the next passdb's answer is in
	}

	t.Run("half of the members is not more than half", func(t *testing.T) {
		s := s.in(t)
		s.api("PUT", policies+"/office?dry_run=true", whitelist)
	})
	t.Run("more than that is refused, with who", func(t *testing.T) {
		s := s.in(t)
		s.want("bob at home", s.imap(outside, bob, s.passwords[bob]), "OK ")
		s.record("account="+bob+"&ip="+outside, func(r object) bool { return r["outcome"] == "allow" })
		narrow := object{"name": "Narrow", "type": "whitelist", "scope": everybody(), "ips": []string{"127.0.3.0/24"}}
		refused := s.refused(409, "lockout", "PUT", policies+"/office", narrow)
		lockout := refused["lockout"].(object)
		if lockout["active"] != 2.0 || lockout["locked_out"] != 2.0 || len(lockout["who"].([]any)) != 2 {
			t.Errorf("who: %v", lockout)
		}
		s.want("nothing changed", s.imap(outside, ann, s.passwords[ann]), "OK ")
		s.refused(409, "lockout", "POST", "/v1/domains/example.org/ip-blocks", object{"network": "127.0.0.0/8"})
		out, err := s.Daemons[0].Command(s.ctx, "policy", "create", "example.org", "--name", "Narrow", "--type", "whitelist", "--all", "--ip", "127.0.3.0/24").CombinedOutput()
		if err == nil || err.Error() != "exit status 73" || !strings.Contains(string(out), "--revert-after") || !strings.Contains(string(out), ann) {
			t.Errorf("by command: %v\n%s", err, out)
		}
	})
	t.Run("tried, and undone after a restart", func(t *testing.T) {
		s := s.in(t)
		made := s.api("PUT", policies+"/office?revert_after=5s", whitelist)
		if made["pending"] == nil {
			t.Errorf("it does not say when it is undone: %v", made)
		}
		s.refuse("ann, while it is tried", s.imap(outside, ann, s.passwords[ann]), "OK ")
		s.must(s.Daemons[0].Kill())
		s.must(s.Daemons[0].Start(s.ctx))
		s.eventually("the whitelist is gone", func() bool {
			status, _ := s.call(0, "GET", policies+"/office", nil)
			return status == 404
		})
		s.want("ann again", s.imap(outside, ann, s.passwords[ann]), "OK ")
	})
	t.Run("tried, and kept", func(t *testing.T) {
		s := s.in(t)
		made := s.api("PUT", policies+"/office?revert_after=2s", whitelist)
		id := made["pending"].(object)["id"].(string)
		if out, err := s.Daemons[0].Command(s.ctx, "revert", "confirm", "example.org", id).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		kept := s.api("GET", policies+"/office", nil)
		if kept["pending"] != nil {
			t.Errorf("it is still undone at some time: %v", kept)
		}
		s.refuse("ann from elsewhere", s.imap(outside, ann, s.passwords[ann]), "OK ")
		s.want("ann at the office", s.imap(office, ann, s.passwords[ann]), "OK ")
	})
}
