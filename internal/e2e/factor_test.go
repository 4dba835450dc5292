package e2e

import (
	"encoding/base32"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// otp is a code of an authenticator.
func (s *site) otp(secret string, ahead int64) string {
	s.t.Helper()
	key, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(secret)
	s.must(err)
	return factor.CodeAt(key, factor.Step(time.Now())+ahead)
}

// F8, F18: a second factor at the site's own clients that ask for it, its life, and where it is asked
// for a second time. Both daemons accept a code once.
func TestSecondFactors(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Daemons: 2, SharedRedis: true, Settings: map[string]any{"login.next_passdb": false}})
	s.domain(nil)
	const password, path = "ann-mailbox-2026", "/v1/accounts/" + ann
	s.api("PUT", path, object{})
	s.api("PUT", path+"/mailbox-password", object{"password": password})
	loginFrom := func(daemon int, ip, secret, otp string) object {
		status, d := s.call(daemon, "POST", "/v1/login", object{"account": ann, "secret": secret, "protocol": "web", "ip": ip, "otp": otp})
		if status != 200 {
			t.Fatalf("login: %d %v", status, d)
		}
		return d
	}
	webLogin := func(daemon int, secret, otp string) object { return loginFrom(daemon, "203.0.113.9", secret, otp) }
	key := s.api("POST", "/v1/keys", object{"name": "ann", "role": "self", "account": ann})["key"].(string)
	self := s.with(key)

	made := self.api("POST", path+"/second-factors/totp", object{"label": "phone"})
	id, secret := made["id"].(string), made["secret"].(string)
	if uri := made["uri"].(string); !strings.HasPrefix(uri, "otpauth://totp/example.org:ann@example.org?") || made["pending"] != true {
		t.Errorf("created: %v", made)
	}
	if d := webLogin(0, password, ""); d["outcome"] != "allow" {
		t.Errorf("a pending factor is asked for: %v", d)
	}
	// Whoever knows the password alone prepares nothing that outlasts the first factor.
	self.refused(409, "no_second_factor", "POST", path+"/second-factors/recovery-codes", nil)
	prepared := self.api("POST", path+"/second-factors/totp", object{"label": "thief"})
	self.refused(403, "second_factor_refused", "POST", path+"/second-factors/"+id+"/confirm", object{"code": "000000"})
	self.api("POST", path+"/second-factors/"+id+"/confirm", object{"code": s.otp(secret, -1)})
	self.refused(404, "not_found", "POST", path+"/second-factors/"+prepared["id"].(string)+"/confirm", object{"code": s.otp(prepared["secret"].(string), 0)})

	s.replicated()

	var codes []any
	t.Run("at a login that asks", func(t *testing.T) {
		s := s.in(t)
		if d := webLogin(0, password, ""); d["outcome"] != "deny" || d["reason"] != "second_factor_required" || toJSON(d["second_factors"]) != `["totp"]` {
			t.Errorf("without: %v", d)
		}
		if d := webLogin(0, "wrong", ""); d["reason"] != "bad_secret" || d["second_factors"] != nil {
			t.Errorf("a wrong password: %v", d)
		}
		if d := webLogin(0, "wrong", s.otp(secret, 0)); d["reason"] != "bad_secret" {
			t.Errorf("a wrong password with a code: %v", d)
		}
		code := s.otp(secret, 0)
		if d := webLogin(1, password, code); d["outcome"] != "allow" {
			t.Errorf("with a code: %v", d)
		}
		for daemon := range 2 {
			if d := webLogin(daemon, password, code); d["reason"] != "second_factor_required" {
				t.Errorf("the code again, at daemon %d: %v", daemon, d)
			}
		}
		s.want("a mail program is not asked", s.imap(outside, ann, password), "OK ")
		s.record("account="+ann+"&reason=second_factor_required", func(r object) bool {
			return r["note"] == "the time-based code was used before" && r["protocol"] == "web"
		})
	})
	t.Run("before a change of one's own", func(t *testing.T) {
		s, self := s.in(t), self.in(t)
		self.refused(403, "second_factor_required", "POST", path+"/secure-passwords", object{"label": "x"})
		self.refused(403, "second_factor_required", "DELETE", path+"/second-factors/"+id, nil)
		self.refused(403, "second_factor_required", "POST", path+"/second-factors/recovery-codes", nil)
		self.refused(403, "second_factor_required", "PATCH", path, object{"secure_passwords": "required"})
		codes = self.proving(s.otp(secret, 1)).api("POST", path+"/second-factors/recovery-codes", nil)["codes"].([]any)
		if len(codes) != 10 {
			t.Fatalf("recovery codes: %v", codes)
		}
		self.proving(codes[0].(string)).api("POST", path+"/secure-passwords", object{"label": "x"})
		self.proving(codes[0].(string)).refused(403, "second_factor_refused", "POST", path+"/secure-passwords", object{"label": "y"})
		s.replicated()
		if d := webLogin(1, password, codes[1].(string)); d["outcome"] != "allow" {
			t.Errorf("a recovery code: %v", d)
		}
		list := toJSON(self.api("GET", path+"/second-factors", nil))
		if !strings.Contains(list, `"left":8`) || strings.Contains(list, secret) {
			t.Errorf("the list: %s", list)
		}
	})
	t.Run("whoever guesses elsewhere does not keep the owner out", func(t *testing.T) {
		const elsewhere = "198.51.100.7"
		s := s.in(t)
		for n := range 12 {
			if d := loginFrom(n%2, elsewhere, password, "000000"); d["reason"] != "second_factor_required" {
				t.Errorf("guess %d: %v", n, d)
			}
		}
		s.record("account="+ann+"&ip="+elsewhere, func(r object) bool { return r["note"] == "too many attempts at second factors" })
		if d := loginFrom(0, elsewhere, password, codes[2].(string)); d["reason"] != "second_factor_required" {
			t.Errorf("the right code after guesses: %v", d)
		}
		if d := webLogin(1, password, codes[2].(string)); d["outcome"] != "allow" {
			t.Errorf("the owner: %v", d)
		}
	})
	t.Run("codes by mail", func(t *testing.T) {
		s := s.in(t)
		s.refused(422, "invalid", "POST", path+"/second-factors/mail", object{"address": bob})
	})
	t.Run("an administrator resets them", func(t *testing.T) {
		s, self := s.in(t), self.in(t)
		self.refused(403, "forbidden", "DELETE", path+"/second-factors", nil)
		s.command("factor", "reset", ann)
		s.eventually("the other daemon does not ask after the reset", func() bool { return webLogin(1, password, "")["outcome"] == "allow" })
		if audit := toJSON(s.api("GET", "/v1/audit?domain=example.org", nil)); !strings.Contains(audit, `"second_factor.reset"`) || strings.Contains(audit, secret) {
			t.Errorf("the audit: %s", audit)
		}
		s.command("domain", "set", "example.org", "--second-factor", "required")
		if d := webLogin(0, password, ""); d["reason"] != "second_factor_required" || d["second_factors"] != nil {
			t.Errorf("required, and none there: %v", d)
		}
		self.refused(403, "second_factor_required", "POST", path+"/secure-passwords", object{"label": "x"})
		for _, c := range [][2]string{{"sales/emea", "second_factor_required"}, {"legal", "ok"}} {
			s.api("PUT", "/v1/domains/example.org/departments/"+c[0], object{})
			s.api("PATCH", path, object{"departments": []string{c[0]}})
			s.api("PATCH", "/v1/domains/example.org", object{"second_factor": object{"required": true, "scope": object{"all": false, "departments": []object{{"path": "sales", "sub": true}}}}})
			if d := webLogin(0, password, ""); d["reason"] != c[1] {
				t.Errorf("required of sales, in %s: %v", c[0], d)
			}
		}
		s.command("domain", "set", "example.org", "--second-factor", "off")
		if d := webLogin(0, password, ""); d["outcome"] != "allow" {
			t.Errorf("no longer required: %v", d)
		}
	})
}
