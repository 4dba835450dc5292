package livesessions

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/store"
)

// revoked is a judge that refuses credentials.
type revoked struct {
	mu   sync.Mutex
	list []string
}

func (r *revoked) revoke(credential string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, credential)
}

func (r *revoked) Judge(s *access.Session, _ *access.Rules, _ *access.Account) access.Decision {
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Contains(r.list, s.Credential) {
		return access.Decision{Outcome: access.Deny}
	}
	return access.Decision{Outcome: access.Allow}
}

func (r *revoked) AccountOf(user string) string { return user }

// server is a Dovecot that answers only when it is let.
type server struct {
	mu      sync.Mutex
	open    []doveadm.Connection
	asked   int
	hangs   bool
	release chan struct{}
	ended   chan string // what was ended
}

func (d *server) String() string { return "test" }

func (d *server) Who(ctx context.Context) ([]doveadm.Connection, error) {
	d.mu.Lock()
	d.asked++
	hangs := d.hangs
	d.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if d.release != nil {
		<-d.release
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.open), nil
}

func (d *server) KickSession(_ context.Context, id string) (bool, error) {
	return d.kick(id, func(c doveadm.Connection) bool { return slices.Contains(c.Fields, id) }), nil
}

func (d *server) KickUser(_ context.Context, user string, ip netip.Addr) (bool, error) {
	return d.kick(user+" "+ip.String(), func(c doveadm.Connection) bool { return c.User == user && c.IP == ip }), nil
}

func (d *server) kick(what string, f func(doveadm.Connection) bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.open)
	d.open = slices.DeleteFunc(d.open, f)
	ended := len(d.open) < before
	if ended && d.ended != nil {
		d.ended <- what
	}
	return ended
}

const ann = "ann@example.org"

var home = netip.MustParseAddr("203.0.113.9")

func login(id, credential string, began time.Time) *access.Session {
	return &access.Session{Account: ann, Protocol: access.IMAP, Service: "imap", IP: home, Credential: credential, ID: id, Began: began, Verified: began}
}

func connection(fields ...string) doveadm.Connection {
	return doveadm.Connection{User: ann, Service: "imap", IP: home, Fields: fields}
}

func start(t *testing.T, judge Judge, dovecots ...Dovecot) *Sessions {
	t.Helper()
	s := New(Options{
		State: store.NewState(), Judge: judge, Log: hclog.NewNullLogger(),
		Records: func(context.Context, store.RecordQuery) ([]store.LoginRecord, string, error) { return nil, "", nil },
	}, dovecots...)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { s.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return s
}

// With names only the refused session ends; without, all of the account from the address.
func TestWhatEnds(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	for name, c := range map[string]struct {
		open []doveadm.Connection
		want Outcome
		left int
	}{
		"2.4": {[]doveadm.Connection{connection("a"), connection("b")}, Outcome{Ended: 1}, 1},
		"2.3": {[]doveadm.Connection{connection(), connection()}, Outcome{Ended: 2}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			judge, d := &revoked{}, &server{open: c.open}
			s := start(t, judge, d)
			s.Opened(login("a", "phone", long), s.State.Version())
			s.Opened(login("b", "laptop", long), s.State.Version())
			change := s.Expect("example.org", ann)
			judge.revoke("phone")
			if got := change.Settle(t.Context()); got != c.want || len(d.open) != c.left {
				t.Errorf("%+v, open: %v, want %+v and %d", got, d.open, c.want, c.left)
			}
		})
	}
}

// What was ended by user and address is not ended again when another device connects from there.
func TestEndedOnce(t *testing.T) {
	judge, d := &revoked{}, &server{open: []doveadm.Connection{connection()}}
	s := start(t, judge, d)
	s.Opened(login("a", "phone", time.Now().Add(-time.Hour)), s.State.Version())
	judge.revoke("phone")
	if got := s.Expect("example.org", ann).Settle(t.Context()); got.Ended != 1 {
		t.Fatalf("%+v", got)
	}
	s.Opened(login("b", "laptop", time.Now()), s.State.Version())
	d.mu.Lock()
	d.open = []doveadm.Connection{connection()}
	d.mu.Unlock()
	if got := s.Expect("example.org", ann).Settle(t.Context()); got.Ended != 0 || len(d.open) != 1 {
		t.Errorf("%+v, open: %v", got, d.open)
	}
}

// A login that was decided before the change appears after it.
func TestLoginInFlight(t *testing.T) {
	judge, d := &revoked{}, &server{ended: make(chan string, 1)}
	s := start(t, judge, d)
	s.Opened(login("a", "phone", time.Now()), s.State.Version())
	judge.revoke("phone")
	if got := s.Expect("example.org", ann).Settle(t.Context()); got.Ended != 0 {
		t.Fatalf("%+v", got)
	}
	d.mu.Lock()
	d.open = []doveadm.Connection{connection("a")}
	d.mu.Unlock()
	select {
	case <-d.ended:
	case <-time.After(20 * time.Second):
		t.Error("the session is still open")
	}
}

// Changes that come while a Dovecot is asked are judged together.
func TestStorm(t *testing.T) {
	judge, d := &revoked{}, &server{release: make(chan struct{}), open: []doveadm.Connection{connection("a")}}
	s := start(t, judge, d)
	s.Opened(login("a", "phone", time.Now().Add(-time.Hour)), s.State.Version())
	judge.revoke("phone")
	n := s.nodes[0]
	var last uint64
	for range 1000 {
		last = n.request(scope{accounts: map[string]bool{ann: true}})
	}
	close(d.release)
	if !n.wait(t.Context(), last) {
		t.Fatal("no pass")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.open) != 0 || d.asked > 4 {
		t.Errorf("open: %v, asked %d times", d.open, d.asked)
	}
}

// A Dovecot that hangs holds up neither logins nor another Dovecot, and the answer says so.
func TestHanging(t *testing.T) {
	judge, slow, well := &revoked{}, &server{hangs: true}, &server{open: []doveadm.Connection{connection("a")}}
	s := start(t, judge, slow, well)
	s.Opened(login("a", "phone", time.Now().Add(-time.Hour)), s.State.Version())
	judge.revoke("phone")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	got := s.Expect("example.org", ann).Settle(ctx)
	well.mu.Lock()
	defer well.mu.Unlock()
	if got.Unreachable != 1 || got.Ended != 1 || len(well.open) != 0 {
		t.Errorf("%+v, open: %v", got, well.open)
	}
}
