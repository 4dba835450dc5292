package main

import (
	"context"
	crand "crypto/rand"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// shelf is a log that takes every change and keeps none, so that what is measured is the daemon's
// own part.
type shelf struct {
	mu    sync.Mutex
	heads [store.Shards]store.Head
}

func (s *shelf) Create(_ context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.heads {
		s.heads[i].StoreID = id
	}
	return nil
}

func (s *shelf) Heads(context.Context) (heads [store.Shards]store.Head, damage, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads, nil, nil
}

func (s *shelf) Load(_ context.Context, i store.Shard, _ store.Head, begin func() func(store.Doc) error) (store.Head, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begin != nil {
		begin()
	}
	return s.heads[i], nil
}

func (s *shelf) Commit(_ context.Context, i store.Shard, h store.Head, payload []byte, _ *store.Entry, _ []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heads[i] = h.Chain(payload)
	return nil
}

func (s *shelf) Probe(context.Context, store.Shard, string) error { return nil }

func (s *shelf) Restore(context.Context, store.Shard, store.Head, []store.Doc) error { return nil }

func (s *shelf) Accept(context.Context, store.Shard) error { return nil }

func (s *shelf) Follow(ctx context.Context, _ [store.Shards]uint64, _ func(store.Shard, []store.Received) error) error {
	<-ctx.Done()
	return ctx.Err()
}

// site is a domain in a daemon's memory.
type site struct {
	store *store.Store
	names []string // of its accounts, shuffled
	next  int      // whose login is next
	room  access.Account
}

// perDepartment is how many policies of [own] are for one department, and how many accounts are in
// it at least.
const perDepartment = 10

// home is where all logins of these measurements come from.
var home = netip.MustParseAddr("203.0.113.9")

// newSite returns a domain with the policies and so many accounts, each in one of so many
// departments. A further policy, for another client type, names the address that the logins come
// from, so that no decision is spared looking at the prefixes of the policies that apply.
func newSite(ctx context.Context, list []access.Policy, accounts, departments int) (*site, error) {
	log := &shelf{}
	s := &site{store: &store.Store{Log: log, Upkeep: log, State: store.NewState(), Logger: hclog.NewNullLogger(), Marker: &memory{}, Timeout: time.Minute}}
	go s.store.Run(ctx)
	for ok := false; !ok; ok, _ = s.store.State.Ready() {
		time.Sleep(time.Millisecond)
	}
	err := s.change(ctx, func(c *store.Change) {
		c.PutDomain(&store.Domain{Name: "example.org"})
		for i := range departments {
			c.PutDepartment("example.org", &store.Department{Path: fmt.Sprintf("department%d", i)})
		}
		near := blacklist(len(list), all(0))
		near.IPs, near.Clients = []string{home.String()}, []access.ClientType{"native-mobile"}
		c.PutPolicy("example.org", &store.Policy{Policy: near})
		for _, p := range list {
			c.PutPolicy("example.org", &store.Policy{Policy: p})
		}
	})
	const atOnce = 20_000
	for from := 0; from < accounts && err == nil; from += atOnce {
		err = s.change(ctx, func(c *store.Change) {
			for i := from; i < min(accounts, from+atOnce); i++ {
				s.names = append(s.names, account(i))
				a := &store.Account{Address: account(i), Departments: []string{fmt.Sprintf("department%d", i%departments)}, CreatedAt: c.Now}
				for k := range 3 {
					p := store.SecurePassword{ID: store.NewID(), Label: fmt.Sprintf("device %d", k), PepperID: "0123456789abcdef", CreatedAt: c.Now}
					_, _ = crand.Read(p.Hash[:]) // never fails
					a.Secrets = append(a.Secrets, p)
				}
				c.PutAccount(a)
			}
		})
	}
	//nolint:gosec // the order of the logins is no secret
	rand.Shuffle(len(s.names), func(i, j int) { s.names[i], s.names[j] = s.names[j], s.names[i] })
	for i, name := range s.names {
		s.names[i] = strings.Clone(name) // side by side: a login's name has just been read, and waits for no memory
	}
	return s, err
}

func (s *site) change(ctx context.Context, f func(*store.Change)) error {
	return s.store.Update(ctx, store.ShardOf("example.org"), store.Actor{Name: "bench"}, false, func(c *store.Change) error {
		f(c)
		return nil
	})
}

// decide decides the n-th login as the gate does: a view of the state, then the engine.
func (s *site) decide(n int) error {
	login := access.Login{Protocol: access.IMAP, IP: home}
	addr, v := s.store.State.View(s.names[n%len(s.names)])
	d := access.Decide(&access.Query{
		Site: access.Site{NextPassdb: true}, Login: &login, Address: addr, Rules: v.Rules, Account: v.Account.Facts(&s.room),
		Client: access.ClientThirdParty, Secret: access.Secret{State: access.SecretLive, CredentialID: "x"},
	}, noAsker{}, false)
	if d.Outcome != access.Allow {
		return fmt.Errorf("%s: %+v", addr, d)
	}
	return nil
}

// find does what a decision does until it comes to the policies: it finds the account's record and
// what the rules say of it and its departments.
func (s *site) find(n int) error {
	addr, v := s.store.State.View(s.names[n%len(s.names)])
	if required, _ := v.Rules.SecureRequired(addr, v.Account.Facts(&s.room)); required {
		return fmt.Errorf("%s needs a secure password", addr)
	}
	return nil
}

// nanoseconds returns the CPU time of one turn, of so many: they are one thread's work alone, which
// this does not let others on the machine lengthen.
func (s *site) nanoseconds(turns int, turn func(n int) error) (float64, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	begin, err := threadTime()
	if err != nil {
		return 0, err
	}
	for range turns {
		s.next++
		if err := turn(s.next); err != nil {
			return 0, err
		}
	}
	end, err := threadTime()
	return float64(end-begin) / float64(turns), err
}

// threadTime is how much CPU time the calling thread has used.
func threadTime() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("CPU time: %w", err)
	}
	return time.Duration(t.Nano()), nil
}

// blacklist returns the i-th policy, without a place.
func blacklist(i int, scope access.Scope) access.Policy {
	return access.Policy{ID: fmt.Sprintf("p%d", i), Name: fmt.Sprintf("policy %d", i), Type: access.Blacklist, Enabled: true, Mode: access.Enforce, Scope: scope}
}

// blacklists returns policies that each name so many prefixes of their own, of which none is where
// the logins come from.
func blacklists(n, prefixesEach int, scope func(int) access.Scope) []access.Policy {
	list := make([]access.Policy, n)
	for i := range list {
		list[i] = blacklist(i, scope(i))
		for k := range prefixesEach {
			at := i*prefixesEach + k // from 10.0.0.0 on, eight addresses each
			list[i].IPs = append(list[i].IPs, fmt.Sprintf("%d.%d.%d.%d/29", 10+at>>21, at>>13&255, at>>5&255, at<<3&255))
		}
	}
	return list
}

func all(int) access.Scope { return access.Scope{All: true} }

// own is for the members of one department, as ten policies are.
func own(i int) access.Scope {
	return access.Scope{Departments: []access.ScopeDepartment{{Path: fmt.Sprintf("department%d", i/perDepartment), Sub: true}}}
}

func oneMember(i int) access.Scope { return access.Scope{Members: []string{account(i)}} }

// benchScale measures how the cost of a decision grows with what there is.
func benchScale(ctx context.Context) error {
	tables := []struct {
		what string
		goal string
		rows []scaleRow
	}{
		{"policies, of which 10 at most concern the account", "flat", []scaleRow{
			{"1", 1, 10, 1000, own}, {"100", 100, 10, 1000, own}, {"10 000", 10_000, 10, 1000, own}, {"10 000 of one member each", 10_000, 10, 1000, oneMember},
		}},
		{"policies, all of which concern the account", "linear", []scaleRow{
			{"1", 1, 10, 1000, all}, {"100", 100, 10, 1000, all}, {"10 000", 10_000, 10, 1000, all},
		}},
		{"prefixes in 10 policies that concern the account", "flat", []scaleRow{
			{"10", 10, 1, 1000, all}, {"1 000", 10, 100, 1000, all}, {"100 000", 10, 10_000, 1000, all}, {"1 000 000", 10, 100_000, 1000, all},
		}},
		{"accounts, 100 policies with 10 000 prefixes", "flat; ≤ 1000 ns", []scaleRow{
			{"1 000", 100, 100, 1000, own}, {"100 000", 100, 100, 100_000, own}, {"1 000 000", 100, 100, 1_000_000, own},
		}},
	}
	for _, t := range tables {
		if err := scaleTable(ctx, t.what, t.goal, t.rows); err != nil {
			return err
		}
	}
	return benchSwap(ctx)
}

type scaleRow struct {
	count                            string
	policies, prefixesEach, accounts int
	scope                            func(int) access.Scope
}

// scaleTable measures rows in turns: a busy machine slows all alike.
func scaleTable(ctx context.Context, what, goal string, rows []scaleRow) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sites := make([]*site, len(rows))
	decides, finds := make([][]float64, len(rows)), make([][]float64, len(rows))
	for i, r := range rows {
		var err error
		if sites[i], err = newSite(ctx, blacklists(r.policies, r.prefixesEach, r.scope), r.accounts, max(1, r.policies/perDepartment)); err != nil {
			return err
		}
	}
	runtime.GC()
	for range rounds {
		for i, s := range sites {
			turns := 100_000
			if rows[i].scope(0).All {
				turns = min(turns, 2_000_000/rows[i].policies)
			}
			decide, err := s.nanoseconds(turns, s.decide)
			if err != nil {
				return err
			}
			find, err := s.nanoseconds(100_000, s.find)
			if err != nil {
				return err
			}
			decides[i], finds[i] = append(decides[i], decide), append(finds[i], find)
		}
	}
	fmt.Println("a decision, with so many " + what + ":")
	for i, r := range rows {
		line("  "+r.count, fmt.Sprintf("%.0f ns, %.0f to find the account", median(decides[i]), median(finds[i])), goal)
	}
	return nil
}

// benchSwap measures changes of a domain of 10 000 policies, and how long decisions wait for them.
func benchSwap(ctx context.Context) error {
	const n = 10_000
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list := blacklists(n, 10, own)
	s, err := newSite(ctx, list, 1000, n/perDepartment)
	if err != nil {
		return err
	}
	change := func(policies []access.Policy) ([]time.Duration, error) {
		var times []time.Duration
		for range rounds {
			for i := range policies { // new lists, which have to be read
				policies[i].IPs = append([]string{fmt.Sprintf("192.0.2.%d", len(times))}, policies[i].IPs[1:]...)
			}
			begin := time.Now()
			if err := s.change(ctx, func(c *store.Change) {
				for i := range policies {
					c.PutPolicy("example.org", &store.Policy{Policy: policies[i]})
				}
			}); err != nil {
				return nil, err
			}
			times = append(times, time.Since(begin))
		}
		return times, nil
	}
	var whole, one []time.Duration
	busy, err := s.waits(func() (err error) {
		if whole, err = change(list); err == nil {
			one, err = change(list[n/2 : n/2+1])
		}
		return err
	})
	if err != nil {
		return err
	}
	// The same work beside a reader, on a site that the reader does not ask.
	other, err := newSite(ctx, list, 1000, n/perDepartment)
	if err != nil {
		return err
	}
	idle, err := other.waits(func() error {
		_, err := change(list)
		if err == nil {
			_, err = change(list[n/2 : n/2+1])
		}
		return err
	})
	if err != nil {
		return err
	}
	line("change of all of 10 000 policies (100 000 prefixes)", fmt.Sprintf("%.0f ms", ms(median(whole))), "< 1000 ms")
	line("change of one of them", fmt.Sprintf("%.0f ms", ms(median(one))), "-")
	line("decisions in that domain meanwhile", busy.String(), "as in the next line")
	line("decisions beside the same work elsewhere in the program", idle.String(), "-")
	return nil
}

// waiting is how long decisions took.
type waiting struct {
	longest     time.Duration
	slow, count int // over a millisecond, and all
}

func (w waiting) String() string {
	return fmt.Sprintf("longest %.1f ms, > 1 ms: %.0f of a million", ms(w.longest), 1e6*float64(w.slow)/float64(w.count))
}

// waits decides until f returns.
func (s *site) waits(f func() error) (w waiting, err error) {
	ended := make(chan error, 1)
	go func() { ended <- f() }()
	for {
		select {
		case err := <-ended:
			return w, err
		default:
		}
		begin := time.Now()
		if err := s.decide(w.count); err != nil {
			return w, err
		}
		took := time.Since(begin)
		w.longest = max(w.longest, took)
		w.count++
		if took > time.Millisecond {
			w.slow++
		}
	}
}
