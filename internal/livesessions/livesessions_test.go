package livesessions

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"strings"
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
	fails   bool
	release chan struct{}
	ended   chan string // what was ended
}

func (d *server) String() string { return "test" }

func (d *server) Who(ctx context.Context) ([]doveadm.Connection, error) {
	d.mu.Lock()
	d.asked++
	hangs, fails := d.hangs, d.fails
	d.mu.Unlock()
	if fails {
		return nil, errors.New("no answer")
	}
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
	change := s.Expect("example.org", ann)
	judge.revoke("phone")
	if got := change.Settle(t.Context()); got.Ended != 1 {
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
	change := s.Expect("example.org", ann)
	judge.revoke("phone")
	if got := change.Settle(t.Context()); got.Ended != 0 {
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
	change := s.Expect("example.org", ann)
	judge.revoke("phone")
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	got := change.Settle(ctx)
	well.mu.Lock()
	defer well.mu.Unlock()
	if got.Unreachable != 1 || got.Ended != 1 || len(well.open) != 0 {
		t.Errorf("%+v, open: %v", got, well.open)
	}
}

func (d *server) fail(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fails = on
}

// A kick at one Dovecot ends nothing at another one, whose session of the same account and address
// is not forgotten: it ends when that Dovecot answers again.
func TestEndsAtEachDovecot(t *testing.T) {
	judge, first, second := &revoked{}, &server{open: []doveadm.Connection{connection()}}, &server{open: []doveadm.Connection{connection()}, ended: make(chan string, 1)}
	s := start(t, judge, first, second)
	s.Opened(login("a", "phone", time.Now().Add(-time.Hour)), s.State.Version())
	if !s.nodes[1].wait(t.Context(), 1) {
		t.Fatal("no pass")
	}
	second.fail(true)
	change := s.Expect("example.org", ann)
	judge.revoke("phone")
	if got, want := change.Settle(t.Context()), (Outcome{Ended: 1, Failed: 1, Unreachable: 1}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	second.fail(false)
	select {
	case <-second.ended:
	case <-time.After(20 * time.Second):
		t.Error("the session at the second is still open")
	}
}

// Only what the Dovecot that does not answer may have counts as failed.
func TestFailedIsExact(t *testing.T) {
	long, bobs := time.Now().Add(-time.Hour), connection()
	bobs.User = "bob@example.org"
	for name, c := range map[string]struct {
		first, second []doveadm.Connection
		since         bool // the login is newer than the last answer of the second
		twice         bool // … and the device logged in again, from the same address
		want          Outcome
	}{
		"it was at the first":                 {[]doveadm.Connection{connection()}, []doveadm.Connection{bobs}, false, false, Outcome{Ended: 1, Unreachable: 1}},
		"it was at the first, since":          {[]doveadm.Connection{connection()}, nil, true, false, Outcome{Ended: 1, Unreachable: 1}},
		"with a name at the first, since":     {[]doveadm.Connection{connection("a")}, nil, true, false, Outcome{Ended: 1, Unreachable: 1}},
		"two are at the second":               {nil, []doveadm.Connection{connection(), connection()}, false, false, Outcome{Failed: 2, Unreachable: 1}},
		"one of two there, by its name":       {nil, []doveadm.Connection{connection("a"), connection("b")}, false, false, Outcome{Failed: 1, Unreachable: 1}},
		"it may be at the second, since":      {nil, nil, true, false, Outcome{Failed: 1, Unreachable: 1}},
		"one at each, since":                  {[]doveadm.Connection{connection()}, nil, true, true, Outcome{Ended: 1, Failed: 1, Unreachable: 1}},
		"one at each by name, since":          {[]doveadm.Connection{connection("a")}, nil, true, true, Outcome{Ended: 1, Failed: 1, Unreachable: 1}},
		"it was at the second, and has ended": {nil, nil, false, false, Outcome{Unreachable: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			judge, first, second := &revoked{}, &server{}, &server{open: c.second}
			s := start(t, judge, first, second)
			if !s.nodes[0].wait(t.Context(), 1) || !s.nodes[1].wait(t.Context(), 1) {
				t.Fatal("no pass")
			}
			began := long
			if c.since {
				began = time.Now()
			}
			s.Opened(login("a", "phone", began), s.State.Version())
			if c.twice {
				s.Opened(login("c", "phone", began), s.State.Version())
			}
			s.Opened(login("b", "laptop", long), s.State.Version())
			first.mu.Lock()
			first.open = c.first
			first.mu.Unlock()
			second.fail(true)
			change := s.Expect("example.org", ann)
			judge.revoke("phone")
			if got := change.Settle(t.Context()); got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

// A session that was ended at one Dovecot is not taken for another device's that connects to another
// from the same address.
func TestEndedIsNotElsewhere(t *testing.T) {
	judge, first, second := &revoked{}, &server{open: []doveadm.Connection{connection()}}, &server{}
	s := start(t, judge, first, second)
	s.Opened(login("a", "phone", time.Now().Add(-time.Hour)), s.State.Version())
	change := s.Expect("example.org", ann)
	judge.revoke("phone")
	if got := change.Settle(t.Context()); got.Ended != 1 {
		t.Fatalf("%+v", got)
	}
	s.Opened(login("b", "laptop", time.Now()), s.State.Version())
	second.mu.Lock()
	second.open = []doveadm.Connection{connection()}
	second.mu.Unlock()
	if got := s.Expect("example.org", ann).Settle(t.Context()); got.Ended != 0 || len(second.open) != 1 {
		t.Errorf("%+v, open: %v", got, second.open)
	}
}

// A session that was read from a record does not keep the record's whole text.
func TestSessionKeepsNoRecord(t *testing.T) {
	const records, size = 200, 256 << 10
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	var kept []*access.Session
	for i := range records {
		var rec store.LoginRecord
		text := fmt.Sprintf(`{"id":"%d","account":"ann@example.org","ip":"203.0.113.9","protocol":"imap","service":"imap","client":"third-party",`+
			`"session":"s%d","credential_id":"%d","outcome":"allow","reason":"ok","note":%q}`, i, i, i, strings.Repeat("x", size))
		if err := access.ReadRecord(text, &rec); err != nil {
			t.Fatal(err)
		}
		kept = append(kept, sessionOf(&rec))
	}
	if after := heap(); after > before+records*size/4 {
		t.Errorf("the sessions keep %d MiB of %d", (after-before)>>20, records*size>>20)
	}
	if kept[7].ID != "s7" || kept[7].Credential != "7" || kept[7].Client != access.ClientThirdParty {
		t.Errorf("%+v", kept[7])
	}
}
