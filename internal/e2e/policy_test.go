package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

const policies = "/v1/domains/example.org/policies"

func everybody() object { return object{"all": true} }

// policy makes or replaces one, whoever is locked out.
func (s *site) policy(id, kind string, scope, more object) {
	s.t.Helper()
	body := object{"name": id, "type": kind, "scope": scope}
	for k, v := range more {
		body[k] = v
	}
	s.api("PUT", policies+"/"+id+"?confirm=true", body)
}

// tested asks what a login with the mailbox password would get.
func (s *site) tested(path, account, protocol, from string) object {
	s.t.Helper()
	return s.api("POST", path, object{"login": object{"account": account, "protocol": protocol, "ip": from}})
}

// F9, F11, F15, F22: who may come in from where with what.
func TestAccessPolicies(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{})
	s.domain(nil)
	s.api("PUT", "/v1/domains/example.org/departments/interns/summer", object{})
	s.api("PUT", "/v1/accounts/"+bob, object{"departments": []string{"interns/summer"}})
	annPW, bobPW := s.passwords[ann], s.passwords[bob]

	t.Run("only from the office, at once in open sessions too", func(t *testing.T) {
		s := s.in(t)
		open, r := s.submit(outside, ann, annPW)
		s.want("auth", r, "235 ")
		if r, err := open.Mail(ann); err != nil || !strings.HasPrefix(r, "250 ") {
			t.Fatalf("before: %q, %v", r, err)
		}
		s.policy("office", "whitelist", everybody(), object{"ips": []string{"127.0.1.0/24"}, "clients": []string{"third-party"}})
		r, err := open.Recipient(bob)
		if err != nil {
			t.Fatal(err)
		}
		s.want("the open session", r, "554 5.7.1 ")
		for _, d := range doors {
			s.want(d.name+" from the office", d.login(s, office, ann, annPW), d.yes)
			s.refuse(d.name+" from outside", d.login(s, outside, ann, annPW), d.yes)
			s.want(d.name+" by webmail, which the policy does not select", d.login(s, webmail, ann, annPW), d.yes)
		}
		s.record("account="+ann+"&policy=office&ip="+outside, func(r object) bool { return r["reason"] == "policy" })
		if d := s.tested(policies+"/office/test", ann, "imap", outside); d["verdict"] != "no_match" || d["outcome"] != "deny" {
			t.Errorf("the test does not say what happens: %v", d)
		}
	})
	t.Run("several whitelists add up", func(t *testing.T) {
		s := s.in(t)
		s.policy("home", "whitelist", object{"members": []string{ann}}, object{"ips": []string{outside}})
		s.want("ann from home", s.imap(outside, ann, annPW), "OK ")
		s.refuse("bob from there", s.imap(outside, bob, bobPW), "OK ")
		s.want("ann from the office", s.imap(office, ann, annPW), "OK ")
	})
	t.Run("deny wins, whatever the order", func(t *testing.T) {
		s := s.in(t)
		s.policy("not-imap", "blacklist", object{"members": []string{ann}}, object{"ips": []string{office}, "protocols": []string{"imap"}})
		s.refuse("ann by imap from the office", s.imap(office, ann, annPW), "OK ")
		s.want("ann by pop3 from the office", s.pop3(office, ann, annPW), "+OK ")
		s.want("bob by imap from the office", s.imap(office, bob, bobPW), "OK ")
		s.api("PATCH", policies+"/not-imap?confirm=true", object{"except_ips": []string{"127.0.1.8"}, "ips": []string{"127.0.1.0/24"}})
		s.refuse("the rest of the office", s.imap(office, ann, annPW), "OK ")
		s.want("an excepted address", s.imap("127.0.1.8", ann, annPW), "OK ")
		for _, id := range []string{"not-imap", "home", "office"} {
			s.api("DELETE", policies+"/"+id+"?confirm=true", nil)
		}
		s.want("no policy, no objection", s.imap(outside, bob, bobPW), "OK ")
	})
	t.Run("webmail only for interns", func(t *testing.T) {
		s := s.in(t)
		s.policy("interns", "blacklist", object{"departments": []object{{"path": "interns"}}}, object{"clients": []string{"third-party", "cloud-fetcher"}})
		s.want("those of the department itself", s.imap(outside, bob, bobPW), "OK ")
		s.api("PATCH", policies+"/interns?confirm=true", object{"scope": object{"departments": []object{{"path": "interns", "sub": true}}}})
		for _, d := range doors {
			s.refuse(d.name, d.login(s, outside, bob, bobPW), d.yes)
			s.refuse(d.name+" from the office", d.login(s, office, bob, bobPW), d.yes)
			s.want(d.name+" by webmail", d.login(s, webmail, bob, bobPW), d.yes)
			s.want(d.name+", others", d.login(s, outside, ann, annPW), d.yes)
		}
		s.api("PATCH", policies+"/interns?confirm=true", object{"enabled": false})
		s.want("disabled", s.imap(outside, bob, bobPW), "OK ")
		if d := s.tested(policies+"/interns/test", bob, "imap", outside); d["verdict"] != "not_evaluated" || d["outcome"] != "next" {
			t.Errorf("the test of a disabled policy: %v", d)
		}
		draft := s.api("GET", policies+"/interns", nil)
		d := s.api("POST", policies+"/test", object{"policy": draft, "login": object{"account": bob, "protocol": "imap", "ip": outside}})
		if d["verdict"] != "match" || d["outcome"] != "deny" {
			t.Errorf("the test of it as a draft: %v", d)
		}
	})
	t.Run("webmail is told the reason", func(t *testing.T) {
		s := s.in(t)
		s.policy("abroad", "blacklist", everybody(), object{"ips": []string{"198.51.100.0/24"}})
		c, err := mailclient.Client{From: webmail}.IMAP(s.ctx, s.IMAP())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		if _, err := c.ID("name", "webmail", "x-originating-ip", "198.51.100.4"); err != nil {
			t.Fatal(err)
		}
		r, err := c.Login(ann, annPW)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(r.Status, "The administrator has enabled IP login restrictions. Login from the current IP is not allowed.") {
			t.Errorf("webmail's user from a place that is refused: %q", r.Status)
		}
		s.api("DELETE", policies+"/abroad?confirm=true", nil)
	})
	t.Run("report mode records and refuses nothing", func(t *testing.T) {
		s := s.in(t)
		const from = "127.0.9.81"
		s.policy("soon", "whitelist", everybody(), object{"ips": []string{office}, "mode": "report"})
		s.want("imap", s.imap(from, ann, annPW), "OK ")
		r := s.record("account="+ann+"&ip="+from, func(object) bool { return true })
		if w, _ := r["would_refuse"].([]any); !slices.Contains(w, any("soon")) {
			t.Errorf("the record does not say what would have been refused: %v", r)
		}
		s.api("DELETE", policies+"/soon?confirm=true", nil)
	})
	t.Run("an address is blocked, and for a while only", func(t *testing.T) {
		s := s.in(t)
		const blocks, from = "/v1/domains/example.org/ip-blocks", "127.0.9.82"
		open, r := s.submit(from, ann, annPW)
		s.want("auth", r, "235 ")
		id := s.api("POST", blocks+"?confirm=true", object{"network": from, "note": "guesses"})["id"].(string)
		if r, err := open.Mail(ann); err != nil {
			t.Fatal(err)
		} else if strings.HasPrefix(r, "250 ") {
			if r, err = open.Recipient(bob); err != nil {
				t.Fatal(err)
			}
			s.want("the open session", r, "554 5.7.1 ")
		} else {
			s.want("the open session", r, "554 5.7.1 ")
		}
		for _, d := range doors {
			s.refuse(d.name, d.login(s, from, bob, bobPW), d.yes)
			s.want(d.name+" from elsewhere", d.login(s, outside, bob, bobPW), d.yes)
		}
		s.record("account="+bob+"&reason=ip_blocked", func(r object) bool { return r["ip"] == from })
		s.api("DELETE", blocks+"/"+id, nil)
		s.want("let in again", s.imap(from, bob, bobPW), "OK ")

		until := time.Now().Add(1500 * time.Millisecond).UTC()
		s.api("POST", blocks+"?confirm=true", object{"network": from, "expires_at": until.Format(time.RFC3339Nano)})
		s.refuse("until then", s.imap(from, bob, bobPW), "OK ")
		s.eventually("the block ends", func() bool { return strings.HasPrefix(s.imap(from, bob, bobPW), "OK ") })
	})
}
