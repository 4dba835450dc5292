package submission

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

var (
	home   = netip.MustParseAddr("203.0.113.9")
	phone  = AuthMethod{Credential: "phone", Service: "smtp"}
	tablet = AuthMethod{Credential: "tablet", Service: "smtp"}
	laptop = AuthMethod{Credential: "laptop", Service: "smtp"}
	t0     = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
)

func all(AuthMethod) bool  { return true }
func none(AuthMethod) bool { return false }

// request is what the gate does for each request of ann from home.
func (s *Sessions) request(port uint16, now time.Time, usable func(AuthMethod) bool) *Session {
	if b := s.Find("ann", home, port, now); b != nil {
		return b
	}
	return s.Bind("ann", from(port), now, usable)
}

// from is a request on a connection from home.
func from(port uint16) *access.Submission { return &access.Submission{IP: home, Port: port} }

func (s *Sessions) login(m AuthMethod, at time.Time) {
	s.Authenticated("ann", home, Authentication{AuthMethod: m, Time: at})
}

// check checks the state of a session, and the credentials that it is bound to.
func check(t *testing.T, when string, b *Session, state State, credentials ...string) {
	t.Helper()
	var got []string
	for _, m := range b.Methods() {
		got = append(got, m.Credential)
	}
	slices.Sort(got)
	if b.State() != state || !slices.Equal(got, credentials) {
		t.Errorf("%s: state %d with %q, want state %d with %q", when, b.State(), got, state, credentials)
	}
}

// Each arrow of the diagram in the package comment.
func TestStates(t *testing.T) {
	s := New()
	check(t, "nothing is known", s.request(1, t0, all), Waiting)
	check(t, "nothing is known yet", s.request(1, t0.Add(time.Second), all), Waiting)
	s.login(phone, t0)
	check(t, "the login became known", s.request(1, t0.Add(2*time.Second), all), Bound, "phone")
	s.login(tablet, t0.Add(3*time.Second))
	check(t, "another device logged in", s.request(1, t0.Add(4*time.Second), all), Bound, "phone")

	// A second connection of the same address and port, to another port of the server.
	s.Connected(home, 2, t0.Add(5*time.Second))
	s.login(laptop, t0.Add(6*time.Second))
	check(t, "its connection was reported", s.request(2, t0.Add(7*time.Second), all), Bound, "laptop")
	s.Connected(home, 2, t0.Add(8*time.Second))
	s.login(phone, t0.Add(9*time.Second))
	check(t, "the twin connection began", s.request(2, t0.Add(10*time.Second), all), Bound, "laptop", "phone")

	// Both end: the address and port belong to somebody else then.
	s.Disconnected(home, 2, t0.Add(11*time.Second))
	s.Disconnected(home, 2, t0.Add(11*time.Second))
	check(t, "a request that was on the way", s.request(2, t0.Add(11*time.Second), all), Bound, "laptop", "phone")
	s.Connected(home, 2, t0.Add(12*time.Second))
	check(t, "a new connection, another daemon's login", s.request(2, t0.Add(13*time.Second), all), Waiting)
	s.login(tablet, t0.Add(14*time.Second))
	check(t, "its login became known", s.request(2, t0.Add(15*time.Second), all), Bound, "tablet")

	// A refused session stays as it is.
	late := New()
	b := late.request(1, t0, all)
	if !b.Refuse(access.ReasonPolicy) || b.Refuse(access.ReasonPolicy) || !b.Refuse(access.ReasonSuspended) {
		t.Error("Refuse does not report each reason once")
	}
	late.login(phone, t0.Add(time.Second))
	check(t, "a login after the refusal", late.request(1, t0.Add(2*time.Second), all), Refused)
	check(t, "the next connection", late.request(2, t0.Add(2*time.Second), all), Bound, "phone")
	check(t, "an hour later", late.request(1, t0.Add(2*time.Second+sessionMemory), all), Bound, "phone")
}

// Until the login of a reported connection is known, an unusable method counts and a usable one
// does not.
func TestUnknownLoginOfReportedConnection(t *testing.T) {
	s := New()
	s.login(phone, t0)
	s.Connected(home, 1, t0.Add(time.Minute))
	check(t, "the phone is usable", s.request(1, t0.Add(time.Minute), all), Waiting)
	s.Connected(home, 2, t0.Add(time.Minute))
	check(t, "the phone was revoked", s.request(2, t0.Add(time.Minute), none), Bound, "phone")
}

// Another daemon's clock may be two seconds off.
func TestRemoteLoginBeforeConnection(t *testing.T) {
	s := New()
	s.Connected(home, 1, t0)
	s.Authenticated("ann", home, Authentication{AuthMethod: phone, Time: t0.Add(-maxSkew), Remote: true})
	s.Authenticated("ann", home, Authentication{AuthMethod: tablet, Time: t0.Add(-maxSkew - 1), Remote: true})
	check(t, "two seconds early", s.request(1, t0, all), Bound, "phone")
}

// A login that another server passed on is older than the connection, and still its own.
func TestPassedLogin(t *testing.T) {
	s := New()
	s.login(phone, t0)
	s.login(tablet, t0.Add(time.Second))
	s.Connected(home, 1, t0.Add(2*time.Second))
	now := t0.Add(3 * time.Second)
	check(t, "a client's", s.Bind("ann", from(1), now, all), Waiting)
	passed := from(1)
	passed.Passed = true
	check(t, "another server's", s.Bind("ann", passed, now, all), Bound, "phone", "tablet")
}

func TestPermit(t *testing.T) {
	s := New()
	now := t0.Add(time.Second)
	s.login(phone, t0)
	b := s.request(1, now, all)
	sub := access.Submission{Account: "Ann", IP: home, Port: 1}
	v := Version{State: 1}
	if _, ok := s.Permitted(access.Submission{IP: home, Port: 1}, Version{}, now); ok {
		t.Error("permitted before any permit")
	}
	s.Permit(b, sub, v, access.Decision{Outcome: access.Allow})
	if d, ok := s.Permitted(sub, v, now); !ok || d.Outcome != access.Allow {
		t.Errorf("the permit is not found: %+v", d)
	}
	for name, other := range map[string]access.Submission{
		"account": {Account: "bob", IP: home, Port: 1},
		"port":    {Account: "Ann", IP: home, Port: 2},
		"sender":  {Account: "Ann", IP: home, Port: 1, Sender: "eve@example.org"},
		"address": {Account: "Ann", IP: netip.MustParseAddr("203.0.113.10"), Port: 1},
	} {
		if _, ok := s.Permitted(other, v, now); ok {
			t.Errorf("permitted with another %s", name)
		}
	}
	for _, other := range []Version{{State: 2}, {State: 1, Regions: 1}} {
		if _, ok := s.Permitted(sub, other, now); ok {
			t.Errorf("permitted at version %+v", other)
		}
	}
	s.Connected(home, 1, now)
	if _, ok := s.Permitted(sub, v, now); ok {
		t.Error("the permit outlives its connection")
	}
}

// The permit of a waiting session ends when the session can be bound, or is refused.
func TestPermitOfAWaitingSession(t *testing.T) {
	sub, v := access.Submission{Account: "ann", IP: home, Port: 1}, Version{State: 1}
	for name, end := range map[string]func(*Sessions, *Session){
		"an authentication is known": func(s *Sessions, _ *Session) { s.login(phone, t0) },
		"the session is refused":     func(_ *Sessions, b *Session) { b.Refuse(access.ReasonPolicy) },
	} {
		s := New()
		b := s.request(1, t0, all)
		s.Permit(b, sub, v, access.Decision{Outcome: access.Next})
		if _, ok := s.Permitted(sub, v, t0); !ok {
			t.Error("the permit is not found")
		}
		end(s, b)
		if _, ok := s.Permitted(sub, v, t0); ok {
			t.Errorf("permitted although %s", name)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	s := New()
	for i := range maxEntries + 100 {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		s.Authenticated("ann", ip, Authentication{AuthMethod: phone, Time: t0})
		s.Bind("ann", &access.Submission{IP: ip, Port: 1}, t0, all)
		s.Connected(ip, 2, t0)
	}
	if s.authentications.Len() != maxEntries || s.connections.Len() != maxEntries {
		t.Errorf("%d authentications, %d connections", s.authentications.Len(), s.connections.Len())
	}
	for i := range 100 {
		s.Bind(fmt.Sprint(i), from(1), t0, all)
	}
	if c, _ := s.connections.Get(peer{home, 1}, t0); len(c.sessions) != maxAccounts {
		t.Errorf("%d sessions of one connection", len(c.sessions))
	}
	s.Sweep(t0.Add(authenticationMemory + sessionMemory))
	if s.authentications.Len()+s.connections.Len() != 0 {
		t.Errorf("after a day %d authentications, %d connections", s.authentications.Len(), s.connections.Len())
	}
}

// Of one address each method is remembered as long as there is room.
func TestAuthenticationsOfOneAddress(t *testing.T) {
	s := New()
	for i := range 100 {
		s.login([]AuthMethod{phone, tablet}[i%2], t0.Add(time.Duration(i)*time.Second))
	}
	s.login(laptop, t0)
	for i := range 100 {
		s.login(phone, t0.Add(time.Duration(100+i)*time.Second))
	}
	check(t, "many logins", s.request(1, t0.Add(time.Hour), all), Bound, "laptop", "phone", "tablet")
	for i := range 100 {
		s.login(AuthMethod{Credential: fmt.Sprint(i), Service: "smtp"}, t0)
	}
	list, _ := s.authentications.Get(origin{"ann", home}, t0)
	if len(list) != maxAuthentications {
		t.Errorf("%d authentications of one address", len(list))
	}
	s.login(AuthMethod{Credential: "99", Service: "smtp"}, t0) // another daemon's, delivered twice
	list, _ = s.authentications.Get(origin{"ann", home}, t0)
	if list[len(list)-2].Credential == "99" {
		t.Error("an authentication that was delivered twice counts twice")
	}
}

// Two first requests at once bind the session once.
func TestBoundOnce(t *testing.T) {
	s := New()
	s.login(phone, t0)
	a := s.Bind("ann", from(1), t0, all)
	if b := s.Bind("ann", from(1), t0, none); a != b || s.Find("ann", home, 1, t0) != a {
		t.Error("bound twice")
	}
}

// After a revocation every session without a report needs a login of its own.
func TestSessionsNeedTheirOwnLogin(t *testing.T) {
	s := New()
	revoked := func(m AuthMethod) bool { return m != phone }
	s.login(phone, t0)
	s.login(tablet, t0)
	s.Authenticated("ann", home, Authentication{AuthMethod: laptop, Time: t0, Unverified: true})
	check(t, "the tablet's", s.request(1, t0, revoked), Bound, "laptop", "tablet")
	check(t, "the phone's, silent until now", s.request(2, t0, revoked), Bound, "laptop", "phone", "tablet")
	if !strings.Contains(s.request(2, t0, revoked).Methods()[2].Credential, "phone") {
		t.Error("the unusable method is not the last")
	}
}
