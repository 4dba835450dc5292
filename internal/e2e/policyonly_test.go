package e2e

import (
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// A site that keeps its passdb as it is: Dovecot asks about logins that it has accepted, and the
// refusal's text reaches every protocol.
func TestPolicyOnly(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{PolicyOnly: true, Accounts: []trialstack.Account{
		{Address: ann, Password: "ann-mailbox"},
		{Address: bob, Password: "bob-mailbox"},
		{Address: "nick@example.org", Password: "bob-mailbox", Fields: "user=" + bob},
	}})
	s.domain(nil)
	refusals := map[string]string{"imap": "NO [ALERT] ", "pop3": "-ERR [AUTH] ", "sieve": `NO "`, "smtp": "535 5.7.8 Error: authentication failed: "}
	refused := func(what, from, user, password, text string) {
		t.Helper()
		for _, d := range doors {
			s.want(what+", "+d.name, d.login(s, from, user, password), refusals[d.name]+text)
		}
	}
	admitted := func(what, from, user, password string) {
		t.Helper()
		for _, d := range doors {
			s.want(what+", "+d.name, d.login(s, from, user, password), d.yes)
		}
	}
	admitted("no rule", outside, ann, "ann-mailbox")
	admitted("a mapped name", outside, "nick@example.org", "bob-mailbox")
	for _, d := range doors {
		s.refuse("a wrong password, "+d.name, d.login(s, outside, ann, "wrong"), d.yes)
	}
	for _, protocol := range []string{"imap", "pop3", "sieve", "smtp"} {
		s.record("account="+ann+"&outcome=allow", func(r object) bool { return r["protocol"] == protocol && r["ip"] == outside })
		s.record("account="+ann+"&reason=bad_secret", func(r object) bool { return r["protocol"] == protocol })
	}
	if items := s.api("GET", "/v1/domains/example.org/logins?account="+ann, nil)["items"].([]any); len(items) != 8 {
		t.Errorf("%d records of 8 logins: %v", len(items), items)
	}
	c, r := s.submit(outside, ann, "ann-mailbox")
	s.want("auth", r, "235 ")
	s.want("her own address", s.send(c, ann, bob, "From: "+ann+"\nSubject: x\n\nx\n"), "250 ")
	s.want("another's", s.send(c, bob, bob, "From: "+bob+"\nSubject: x\n\nx\n"), "55")

	s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
	refused("suspended", outside, bob, "bob-mailbox", "This account is suspended.")
	refused("suspended, by another name", outside, "nick@example.org", "bob-mailbox", "This account is suspended.")
	for _, d := range doors {
		got := d.login(s, outside, bob, "wrong")
		s.refuse("a wrong password, "+d.name, got, refusals[d.name]+"This account")
		s.refuse("a wrong password, "+d.name, got, d.yes)
	}
	s.record("account="+bob+"&reason=suspended", func(r object) bool { return r["protocol"] == "sieve" })

	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"pop3": false, "smtp": false}})
	s.want("imap stays on", s.imap(outside, ann, "ann-mailbox"), "OK ")
	s.want("pop3 is off", s.pop3(outside, ann, "ann-mailbox"), "-ERR [AUTH] This service is switched off for your account.")
	s.want("smtp is off", s.smtp(outside, ann, "ann-mailbox"), "535 5.7.8 Error: authentication failed: This service is switched off for your account.")
	s.want("the webmail's is not", s.pop3(webmail, ann, "ann-mailbox"), "+OK ")
	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"pop3": nil, "smtp": nil}})

	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": false, "secure_login_ips": []string{office}})
	refused("third-party, from outside", outside, ann, "ann-mailbox", "The administrator has enabled IP login restrictions.")
	admitted("third-party, from the office", office, ann, "ann-mailbox")
	admitted("webmail", webmail, ann, "ann-mailbox")
	s.api("PUT", "/v1/domains/example.org/third-party-access", object{"allow": true})

	s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": true, "scope": object{"all": true}})
	refused("a secure password is required", outside, ann, "ann-mailbox", "Use a secure password for this client")
	s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": false, "scope": object{"all": true}})

	// Nobody gets in while the daemon is away.
	s.must(s.Daemons[0].Kill())
	for _, d := range doors[:3] {
		s.refuse(d.name+" without the daemon", d.login(s, outside, ann, "ann-mailbox"), d.yes)
	}
	s.must(s.Daemons[0].Start(s.ctx))
	s.want("with it", s.imap(outside, ann, "ann-mailbox"), "OK ")
}

// The check before authentication refuses too, and reveals nothing to whoever may be guessing.
func TestPolicyOnlyBeforeAuthentication(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{PolicyOnly: true, DovecotConf: "auth_policy_check_before_auth = yes\n" + bySeries(t,
		"auth_policy_request_attributes = login=%{requested_username} remote=%{rip} protocol=%s session_id=%{session} orig_user=%{orig_user}\n",
		"auth_policy_request_attributes {\n  verified = no\n}\n")})
	s.domain(nil)
	for _, d := range doors {
		s.want(d.name, d.login(s, outside, ann, s.passwords[ann]), d.yes)
	}
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": true})
	for _, password := range []string{s.passwords[ann], "wrong"} {
		s.want("imap", s.imap(outside, ann, password), "NO [AUTHENTICATIONFAILED]")
		s.want("smtp", s.smtp(outside, ann, password), "535 5.7.8 Error: authentication failed: ")
		s.want("smtp", s.smtp(outside, ann, password), "535 5.7.8 Error: authentication failed: (reason unavailable)")
	}
	s.record("account="+ann+"&reason=suspended", func(object) bool { return true })
	s.api("PATCH", "/v1/accounts/"+ann, object{"suspended": false})
	s.want("lifted", s.imap(outside, ann, s.passwords[ann]), "OK ")
}
