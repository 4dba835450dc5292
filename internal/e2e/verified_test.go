package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// Drawbridge's second passdb, behind the site's own: names that this one changes are under the rules
// of the final name, and a daemon that is killed before that is a temporary failure.
func TestSecondPassdb(t *testing.T) {
	t.Parallel()
	for _, lua := range []bool{false, true} {
		name := "checkpassword"
		if lua {
			name = "Lua"
		} else if series(t) == "2.4" { // has no checkpassword
			continue
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secondPassdb(t, lua)
		})
	}
}

func secondPassdb(t *testing.T, lua bool) {
	// Half a second passes between Drawbridge's first answer and the question after it.
	const (
		slowHash         = "{SHA512-CRYPT}$6$rounds=1000000$drawbridge$OEUVaDnBEwVADMZGqoHu8lLL6TiULLquHOmkJqkSJbcWjNCUQSdYN/DMTMH2p5h.6ObDIUwVB/VvzO1TfWket1"
		nick, slow       = "nick@example.org", "slow@example.org"
		slowNick         = "slownick@example.org"
		password         = "bob-mailbox"
		suspendedAccount = "This account is suspended."
	)
	s := start(t, trialstack.Options{Verified: true, Lua: lua, Accounts: []trialstack.Account{
		{Address: ann, Password: "ann-mailbox"},
		{Address: bob, Password: password},
		{Address: nick, Password: password, Fields: "user=" + bob},
		{Address: slow, Password: password, Hash: slowHash},
		{Address: slowNick, Password: password, Hash: slowHash, Fields: "user=" + bob},
	}})
	s.domain(nil)
	_, secret := s.device(ann, "phone")
	for _, d := range doors {
		s.want(d.name, d.login(s, outside, ann, "ann-mailbox"), d.yes)
		s.want(d.name+", secure password", d.login(s, outside, ann, secret), d.yes)
		s.want(d.name+", another name", d.login(s, outside, nick, password), d.yes)
		s.refuse(d.name+", a wrong password", d.login(s, outside, ann, "wrong"), d.yes)
		s.record("account="+ann+"&reason=bad_secret", func(r object) bool { return r["protocol"] == d.name })
	}
	s.want("a master", s.imap(outside, ann+"*"+trialstack.MasterUser, trialstack.MasterPassword), "OK ")
	if out, err := s.Doveadm(s.ctx, "auth", "lookup", "-x", "service=lmtp", ann); err != nil || !strings.Contains(out, ann) {
		t.Errorf("a passdb look-up of LMTP: %q, %v", out, err)
	}

	s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
	refusals := map[string]string{
		"imap": "NO [CONTACTADMIN] " + suspendedAccount, "pop3": "-ERR [AUTH] " + suspendedAccount, "sieve": `NO "` + suspendedAccount, "smtp": "535 5.7.8 ",
	}
	for _, d := range doors {
		s.want(d.name+", suspended under the final name", d.login(s, outside, nick, password), refusals[d.name])
		if got := d.login(s, outside, nick, "wrong"); strings.HasPrefix(got, d.yes) || strings.Contains(got, suspendedAccount) {
			t.Errorf("%s, a guesser: %q", d.name, got)
		}
		s.record("account="+nick+"&reason=suspended", func(r object) bool { return r["protocol"] == d.name })
		s.record("account="+bob+"&reason=suspended", func(r object) bool { return r["protocol"] == d.name })
		s.record("account="+nick+"&reason=bad_secret", func(r object) bool { return r["protocol"] == d.name })
	}
	s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": false})

	// killed logs in with a name, and kills the daemon while the site's passdb verifies the password.
	d := s.Daemons[0]
	killed := func(name string) string {
		t.Helper()
		log, err := trialstack.Follow(d.LogPath)
		s.must(err)
		answer := make(chan string, 1)
		go func() { answer <- s.imap(outside, name, password) }()
		_, err = log.Wait(s.ctx, regexp.MustCompile(`login next: user=`+regexp.QuoteMeta(name)+` `))
		s.must(err)
		s.must(d.Kill())
		got := <-answer
		s.must(d.Start(s.ctx))
		return got
	}
	// inTime is the first answer of a daemon that was killed in time: not before it had answered Dovecot
	// the first question, and not after the last.
	inTime := func(what, name, answer string) {
		t.Helper()
		got := killed(name)
		for try := 0; !strings.HasPrefix(got, answer) && try < 5; try++ {
			got = killed(name)
		}
		s.want(what, got, answer)
	}
	inTime("killed before the final name was judged", slowNick, "NO [UNAVAILABLE]")
	inTime("killed after the name was judged", slow, "OK ")
	s.want("another name, later", s.imap(outside, slowNick, password), "OK ")
}
