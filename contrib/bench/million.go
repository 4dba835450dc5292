package main

import (
	"context"
	crand "crypto/rand"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/embedded"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
	"github.com/drawbridge/drawbridge/internal/store/snapshot"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// million is how many accounts, with three secure passwords each, the rows of [benchMillion] have.
const million = 1_000_000

// lab is a private redis-server and the stores that follow it.
type lab struct {
	dir    string
	server *embedded.Server
	id     memory
	stop   []func()
}

func newLab(ctx context.Context) (*lab, error) {
	dir, err := os.MkdirTemp("", "db-bench")
	if err != nil {
		return nil, err
	}
	redisstore.SetLogger(hclog.NewNullLogger())
	server, err := embedded.Start(ctx, embedded.Options{Dir: filepath.Join(dir, "redis"), Log: hclog.NewNullLogger()})
	if err != nil {
		return nil, err
	}
	return &lab{dir: dir, server: server}, nil
}

func (l *lab) end() {
	for _, stop := range l.stop {
		stop()
	}
	_ = l.server.Stop(context.Background())
	_ = os.RemoveAll(l.dir)
}

// start starts a store as a daemon does, and returns it once it is ready, with what stops it. A
// socket that does not exist is a Redis that is away.
func (l *lab) start(ctx context.Context, socket string, files store.Snapshot) (*store.Store, func()) {
	ctx, cancel := context.WithCancel(ctx)
	log := redisstore.Open(redisstore.Options{Addrs: []string{socket}})
	s := &store.Store{
		Log: log, Upkeep: log, State: store.NewState(), Logger: hclog.NewNullLogger(), Marker: &l.id, Timeout: time.Minute,
		VerifyPause: time.Hour, Snapshot: files,
	}
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	for ok := false; !ok && ctx.Err() == nil; ok, _ = s.State.Ready() {
		time.Sleep(time.Millisecond)
	}
	return s, sync.OnceFunc(func() { cancel(); <-done; _ = log.Close() })
}

func (l *lab) socket() string { return l.server.URL()[len("unix://"):] }

// follow starts a store that runs until the end.
func (l *lab) follow(ctx context.Context) *store.Store {
	s, stop := l.start(ctx, l.socket(), nil)
	l.stop = append(l.stop, stop)
	return s
}

func change(ctx context.Context, s *store.Store, f func(*store.Change)) error {
	return s.Update(ctx, store.ShardOf("example.org"), store.Actor{Name: "bench"}, false, func(c *store.Change) error {
		f(c)
		return nil
	})
}

// fill puts the accounts, each with the secret and two others.
func fill(ctx context.Context, s *store.Store, pepper *credential.Pepper, secret []byte) error {
	const atOnce = 5000
	err := change(ctx, s, func(c *store.Change) { c.PutDomain(&store.Domain{Name: "example.org"}) })
	for from := 0; from < million && err == nil; from += atOnce {
		err = change(ctx, s, func(c *store.Change) {
			for i := from; i < from+atOnce; i++ {
				a := &store.Account{Address: account(i), Departments: []string{"sales"}, CreatedAt: c.Now}
				for k := range 3 {
					p := store.SecurePassword{ID: store.NewID(), Label: fmt.Sprintf("device %d", k), PepperID: pepper.ID(), CreatedAt: c.Now}
					if k == 1 {
						p.Hash = pepper.Hash(account(i), secret)
					} else {
						_, _ = crand.Read(p.Hash[:]) // never fails
					}
					a.Secrets = append(a.Secrets, p)
				}
				c.PutAccount(a)
			}
		})
	}
	return err
}

// residentOf is the resident memory of a process, in bytes; 0 if there is none.
func residentOf(pid int) float64 {
	var size, resident float64
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err == nil {
		_, _ = fmt.Sscan(string(text), &size, &resident) // 0 where it is not there
	}
	return resident * float64(os.Getpagesize())
}

// ownCPU is the processor time of this program.
func ownCPU() time.Duration {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) // a clock that exists
	return time.Duration(t.Nano())
}

// benchMillion measures a domain of a million accounts on a real redis-server.
func benchMillion(ctx context.Context) error {
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.end() //nolint:contextcheck // ctx may have ended by then
	pepper, err := credential.CreatePepper(filepath.Join(l.dir, "pepper"))
	if err != nil {
		return err
	}
	text, err := credential.Generate()
	if err != nil {
		return err
	}
	secret, _ := credential.Normalise(text)
	one := l.follow(ctx)
	empty := residentOf(l.server.PID())
	if err := fill(ctx, one, pepper, secret); err != nil {
		return err
	}
	line("memory of Redis, an account", fmt.Sprintf("%.0f B", (residentOf(l.server.PID())-empty)/million), "-")
	if err := startTimes(ctx, l); err != nil {
		return err
	}

	inUse := func() float64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc)
	}
	before := inUse()
	two := l.follow(ctx)
	line("memory of an account", fmt.Sprintf("%.0f B", (inUse()-before)/million), "≤ 250 B")

	if err := checkTimes(two.State, pepper, secret); err != nil {
		return err
	}

	// A protocol of the domain is switched, until the other store decides by it.
	var times []time.Duration
	for i := range 300 {
		on := i%2 == 0
		begin := time.Now()
		err := change(ctx, one, func(c *store.Change) {
			c.PutDomain(&store.Domain{Name: "example.org", Protocols: access.Switches{"pop3": on}})
		})
		if err != nil {
			return err
		}
		n := one.State.Head(store.ShardOf("example.org")).N
		if err := applied(ctx, two, n); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
	}
	line("a rule for all of the domain → effect on another daemon (300 changes)", fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", ms(percentile(times, 0.5)), ms(percentile(times, 0.99))), "p99 ≤ 100 ms")
	return nil
}

// applied waits until a store has applied a change.
func applied(ctx context.Context, s *store.Store, n uint64) error {
	for s.State.Head(store.ShardOf("example.org")).N < n && ctx.Err() == nil {
		time.Sleep(100 * time.Microsecond)
	}
	return ctx.Err()
}

// startTimes measures starts until decisions are possible.
func startTimes(ctx context.Context, l *lab) error {
	files, err := snapshot.Open(filepath.Join(l.dir, "snapshot"))
	if err != nil {
		return err
	}
	var walls, own, redis []float64
	for i := range 3 {
		var kept store.Snapshot
		if i == 2 {
			kept = files // for the starts below
		}
		runtime.GC()
		wall, mine, theirs := time.Now(), ownCPU(), trialstack.ProcessCPU(l.server.PID())
		s, stop := l.start(ctx, l.socket(), kept)
		walls, own = append(walls, time.Since(wall).Seconds()), append(own, (ownCPU()-mine).Seconds())
		redis = append(redis, (trialstack.ProcessCPU(l.server.PID()) - theirs).Seconds())
		if _, n := s.State.Counts(); n != million {
			return fmt.Errorf("%d accounts were loaded", n)
		}
		if kept != nil {
			for _, err := os.Stat(filepath.Join(l.dir, "snapshot", "snapshot")); err != nil; _, err = os.Stat(filepath.Join(l.dir, "snapshot", "snapshot")) {
				time.Sleep(10 * time.Millisecond)
			}
		}
		stop()
	}
	line(fmt.Sprintf("start from Redis, %d accounts", million),
		fmt.Sprintf("%.1f s; CPU %.1f s, Redis' %.1f s", median(walls), median(own), median(redis)), "≤ 3 s on two cores")
	walls, own = nil, nil
	for range 3 {
		runtime.GC()
		wall, mine := time.Now(), ownCPU()
		s, stop := l.start(ctx, filepath.Join(l.dir, "nobody"), files)
		walls, own = append(walls, time.Since(wall).Seconds()), append(own, (ownCPU()-mine).Seconds())
		if _, n := s.State.Counts(); n != million {
			return fmt.Errorf("%d accounts were read", n)
		}
		stop()
	}
	line("start from the snapshot, Redis away", fmt.Sprintf("%.2f s; CPU %.2f s", median(walls), median(own)), "≤ 1 s")
	return nil
}

// checkTimes measures finding a random account and checking its secret, and the parts of that.
func checkTimes(st *store.State, pepper *credential.Pepper, secret []byte) error {
	names := make([]string, million)
	for i := range names {
		names[i] = account(i)
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] }) //nolint:gosec // no secret
	next := 0
	measure := func(f func(name string) error) (float64, error) {
		const turns = 200_000
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		begin, err := threadTime()
		for range turns {
			if err != nil {
				return 0, err
			}
			next++
			err = f(names[next%million])
		}
		end, last := threadTime()
		return float64(end-begin) / turns, errors.Join(err, last)
	}
	parts := []func(string) error{
		func(name string) error {
			_, v := st.View(name)
			if found, ok := v.Account.Match(pepper.ID(), pepper.Hash(name, secret)); !ok || found.State != access.SecretLive {
				return fmt.Errorf("the secret of %s is not found", name)
			}
			return nil
		},
		func(name string) error {
			if _, v := st.View(name); v.Domain == "" {
				return fmt.Errorf("%s is not found", name)
			}
			return nil
		},
		func(name string) error {
			if pepper.Hash(name, secret) == (credential.Hash{}) {
				return errors.New("no hash")
			}
			return nil
		},
	}
	figures := make([][]float64, len(parts))
	for range rounds {
		for i, f := range parts {
			ns, err := measure(f)
			if err != nil {
				return err
			}
			figures[i] = append(figures[i], ns)
		}
	}
	line("look-up and check of a random account's secret", fmt.Sprintf("%.0f ns: %.0f + HMAC %.0f", median(figures[0]), median(figures[1]), median(figures[2])), "≤ 400 ns")
	return nil
}

// benchFollowers measures from a change until the last of fifty daemons decides by it.
func benchFollowers(ctx context.Context) error {
	const followers, changes = 50, 300
	l, err := newLab(ctx)
	if err != nil {
		return err
	}
	defer l.end() //nolint:contextcheck // ctx may have ended by then
	writer := l.follow(ctx)
	all := make([]*store.Store, followers)
	for i := range all {
		all[i] = l.follow(ctx)
	}
	if err := change(ctx, writer, func(c *store.Change) { c.PutDomain(&store.Domain{Name: "example.org"}) }); err != nil {
		return err
	}
	own, redis := ownCPU(), trialstack.ProcessCPU(l.server.PID())
	var last []time.Duration
	for i := range changes {
		begin := time.Now()
		err := change(ctx, writer, func(c *store.Change) {
			c.PutDomain(&store.Domain{Name: "example.org", Protocols: access.Switches{"pop3": i%2 == 0}})
		})
		if err != nil {
			return err
		}
		n := writer.State.Head(store.ShardOf("example.org")).N
		for _, s := range all {
			if err := applied(ctx, s, n); err != nil {
				return err
			}
		}
		last = append(last, time.Since(begin))
	}
	line(fmt.Sprintf("change → effect on the last of %d daemons (%d changes)", followers, changes),
		fmt.Sprintf("p50 %.1f ms, p99 %.1f ms", ms(percentile(last, 0.5)), ms(percentile(last, 0.99))), "p99 ≤ 100 ms")
	line("… processor time of a change: all daemons, Redis",
		fmt.Sprintf("%.2f ms, %.2f ms", ms((ownCPU()-own)/changes), ms((trialstack.ProcessCPU(l.server.PID())-redis)/changes)), "-")
	return nil
}
