package e2e

import (
	"errors"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// open is a session that waits for news.
type open struct {
	name string
	*mailclient.Session
	alive func() error // asks for something harmless
}

// idle logs in by IMAP and waits.
func (s *site) idle(name, from, user, password string) open {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	return s.idling(name, c, user, password)
}

func (s *site) idling(name string, c *mailclient.IMAP, user, password string) open {
	s.t.Helper()
	r, err := c.Login(user, password)
	s.must(err)
	s.want(name, r.Status, "OK ")
	s.t.Cleanup(func() { _ = c.Close() })
	return open{name, c.Session, func() error {
		r, err := c.Command("NOOP")
		if err == nil && !r.OK() {
			err = errors.New(r.Status)
		}
		return err
	}}
}

// popping logs in by POP3.
func (s *site) popping(name, from, user, password string) open {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.POP3(s.ctx, s.POP3())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	r, err := c.Login(user, password)
	s.must(err)
	s.want(name, r, "+OK ")
	s.t.Cleanup(func() { _ = c.Close() })
	return open{name, c.Session, func() error { _, err := c.Command("NOOP"); return err }}
}

// sieving logs in by ManageSieve.
func (s *site) sieving(name, from, user, password string) open {
	s.t.Helper()
	c, err := mailclient.Client{From: from}.Sieve(s.ctx, s.Sieve())
	s.must(err)
	_, err = c.StartTLS()
	s.must(err)
	r, err := c.Authenticate(user, password)
	s.must(err)
	s.want(name, r, "OK ")
	s.t.Cleanup(func() { _ = c.Close() })
	return open{name, c.Session, func() error { _, _, err := c.Command("NOOP"); return err }}
}

// ends wants a session to be closed by the server.
func (s *site) ends(o open) {
	s.t.Helper()
	began := time.Now()
	last, err := o.Ended(20 * time.Second)
	if err != nil {
		s.t.Errorf("%s is still open", o.name)
		return
	}
	s.t.Logf("%s ended after %v: %q", o.name, time.Since(began).Round(time.Millisecond), last)
}

// stays wants a session to go on.
func (s *site) stays(o open) {
	s.t.Helper()
	if err := o.alive(); err != nil {
		s.t.Errorf("%s has ended: %v", o.name, err)
	}
}

// ended is how many sessions an answer says that a change ended and could not end.
func ended(answer object) (ended, failed float64) {
	sessions, _ := answer["sessions"].(object)
	ended, _ = sessions["ended"].(float64)
	failed, _ = sessions["failed"].(float64)
	return ended, failed
}

// A change ends the open sessions that the rules of now refuse, and no other. Dovecot 2.3 tells
// sessions apart by user and address.
func TestOpenSessionsEnd(t *testing.T) {
	s := start(t, trialstack.Options{})
	s.domain(nil)
	const home = "127.0.1.9"
	phone, secret := s.device(ann, "phone")
	_, laptop := s.device(ann, "laptop")

	t.Run("a secure password is revoked", func(t *testing.T) {
		s := s.in(t)
		lost := []open{s.idle("the lost phone", outside, ann, secret), s.popping("its pop3", outside, ann, secret), s.sieving("its sieve", outside, ann, secret)}
		others := []open{
			s.idle("the laptop", home, ann, laptop), s.idle("bob", outside, bob, s.passwords[bob]),
			s.idle("the mailbox password elsewhere", office, ann, s.passwords[ann]),
		}
		s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+phone, nil)
		for _, o := range lost {
			s.ends(o)
		}
		for _, o := range others {
			s.stays(o)
		}
	})
	t.Run("a protocol is switched off", func(t *testing.T) {
		s := s.in(t)
		pop, imap := s.popping("pop3", outside, bob, s.passwords[bob]), s.idle("imap elsewhere", home, bob, s.passwords[bob])
		web := s.popping("the webmail's pop3", webmail, bob, s.passwords[bob])
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": false}})
		s.ends(pop)
		s.stays(imap)
		s.stays(web)
		s.api("PATCH", "/v1/domains/example.org", object{"protocols": object{"pop3": true}})
	})
	t.Run("an address is blocked", func(t *testing.T) {
		s := s.in(t)
		there, here := s.idle("from there", outside, bob, s.passwords[bob]), s.idle("from here", home, bob, s.passwords[bob])
		id := s.api("POST", "/v1/domains/example.org/ip-blocks?confirm=true", object{"network": outside})["id"].(string)
		s.ends(there)
		s.stays(here)
		s.api("DELETE", "/v1/domains/example.org/ip-blocks/"+id, nil)
	})
	t.Run("a policy is made", func(t *testing.T) {
		s := s.in(t)
		there, here := s.idle("outside", outside, bob, s.passwords[bob]), s.idle("the office", office, bob, s.passwords[bob])
		s.api("POST", "/v1/domains/example.org/policies?confirm=true", object{
			"id": "office", "name": "office", "type": "whitelist", "enabled": true, "mode": "enforce", "scope": object{"all": true}, "ips": []string{office},
			"clients": []string{"third-party"},
		})
		s.ends(there)
		s.stays(here)
		s.api("DELETE", "/v1/domains/example.org/policies/office", nil)
	})
	t.Run("secure passwords are enforced", func(t *testing.T) {
		s := s.in(t)
		old, good := s.idle("the mailbox password", outside, ann, s.passwords[ann]), s.idle("the laptop", home, ann, laptop)
		web := s.idle("the webmail", webmail, ann, s.passwords[ann])
		s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": true, "scope": object{"all": true}})
		s.ends(old)
		s.stays(good)
		s.stays(web)
		s.api("PUT", "/v1/domains/example.org/secure-password-policy", object{"enforced": false, "scope": object{"all": true}})
	})
	t.Run("an account is suspended", func(t *testing.T) {
		s := s.in(t)
		all := []open{s.idle("outside", outside, bob, s.passwords[bob]), s.idle("the webmail", webmail, bob, s.passwords[bob])}
		other := s.idle("ann", office, ann, s.passwords[ann])
		s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": true})
		for _, o := range all {
			s.ends(o)
		}
		s.stays(other)
		s.api("PATCH", "/v1/accounts/"+bob, object{"suspended": false})
	})
	t.Run("an account is deleted", func(t *testing.T) {
		s := s.in(t)
		device, other := s.idle("the laptop", home, ann, laptop), s.idle("bob", home, bob, s.passwords[bob])
		s.api("DELETE", "/v1/accounts/"+ann+"?confirm=true", nil)
		s.ends(device)
		s.stays(other)
	})
}

// Dovecot 2.4 names each session, so that sessions of one account from one address are told apart.
func TestOpenSessionsOfOneAddress(t *testing.T) {
	only(t, "2.4", "names of sessions")
	s := start(t, trialstack.Options{})
	s.domain(nil)
	phone, secret := s.device(ann, "phone")
	_, laptop := s.device(ann, "laptop")
	lost := []open{s.idle("the lost phone", outside, ann, secret), s.popping("its pop3", outside, ann, secret)}
	others := []open{s.idle("the laptop", outside, ann, laptop), s.idle("the mailbox password", outside, ann, s.passwords[ann])}
	pop := s.popping("the laptop's pop3", outside, ann, laptop)
	s.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+phone, nil)
	for _, o := range lost {
		s.ends(o)
	}
	for _, o := range append(others, pop) {
		s.stays(o)
	}
	s.api("PATCH", "/v1/accounts/"+ann, object{"protocols": object{"pop3": false}})
	s.ends(pop)
	for _, o := range others {
		s.stays(o)
	}
}
