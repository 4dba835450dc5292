//go:build faults

package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// The matrix of faults: logins through real Dovecot and Postfix, and changes, go on while Redis or
// the daemon fails. Each test prints a row:
//
//	logins     of an account and a device that are known
//	slowest    of these
//	temporary  failures of these, which a fault of the store must not cause
//	wrong      answers "wrong password" to these: never
//	admitted   of a revoked secret or a suspended account: never
//	changes    that were acknowledged, and refused with 503
//	lost       of the acknowledged: none
//	recovery   from the end of the fault to the next accepted change, without help
type matrix struct {
	*site
	secret, revoked string

	stop                                      atomic.Bool
	logins, temporary, wrong, admitted        atomic.Int64
	slowest                                   atomic.Int64 // nanoseconds
	acknowledged, unavailable, failed, others atomic.Int64

	mu      sync.Mutex
	changed map[string]bool
	odd     []string
	wg      sync.WaitGroup
}

const suspended = "carol@example.org"

// startMatrix starts a site whose store is as the settings say, and its logins and changes.
func startMatrix(t *testing.T, opts trialstack.Options) *matrix {
	t.Helper()
	m := &matrix{site: start(t, opts), changed: map[string]bool{}}
	m.domain(nil)
	_, m.secret = m.device(ann, "phone")
	id, old := m.device(ann, "old phone")
	m.revoked = old
	m.api("DELETE", "/v1/accounts/"+ann+"/secure-passwords/"+id, nil)
	m.api("PATCH", "/v1/accounts/"+suspended, object{"suspended": true})
	for _, d := range doors {
		m.want(d.name+" before", d.login(m.site, outside, ann, m.secret), d.yes)
	}
	for _, name := range []string{"imap", "smtp"} {
		for _, d := range doors {
			if d.name == name {
				m.wg.Go(func() { m.known(d.login, d.yes) })
			}
		}
	}
	m.wg.Go(func() {
		for !m.stop.Load() {
			for who, secret := range map[string]string{ann: m.revoked, suspended: m.passwords[suspended]} {
				if got := m.imap(outside, who, secret); strings.HasPrefix(got, "OK ") {
					m.admitted.Add(1)
				}
			}
		}
	})
	return m
}

// known logs in with what must be admitted.
func (m *matrix) known(login func(*site, string, string, string) string, yes string) {
	for !m.stop.Load() {
		begin := time.Now()
		got := login(m.site, outside, ann, m.secret)
		took := int64(time.Since(begin))
		for was := m.slowest.Load(); took > was && !m.slowest.CompareAndSwap(was, took); was = m.slowest.Load() {
		}
		m.logins.Add(1)
		switch {
		case strings.HasPrefix(got, yes):
		case strings.Contains(got, "UNAVAILABLE") || strings.HasPrefix(got, "4"):
			m.temporary.Add(1)
		default:
			m.wrong.Add(1)
			m.note("login: " + got)
			m.t.Logf("a known login was answered %q after %s at %s", got, time.Since(begin), time.Now().Format(time.StampMilli))
		}
	}
}

func (m *matrix) note(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.odd) < 10 {
		m.odd = append(m.odd, what)
	}
}

var change atomic.Int64

// change makes one change and reports whether it was acknowledged.
func (m *matrix) change() bool {
	path := fmt.Sprintf("d%d", change.Add(1))
	status, err := m.try("PUT", "/v1/domains/example.org/departments/"+path, object{"name": path})
	switch {
	case err != nil:
		m.failed.Add(1) // the daemon is away
	case status < 300:
		m.mu.Lock()
		m.changed[path] = true
		m.mu.Unlock()
		m.acknowledged.Add(1)
		return true
	case status == 503:
		m.unavailable.Add(1)
	default:
		m.others.Add(1)
		m.note(fmt.Sprintf("change: %d", status))
	}
	return false
}

// writers change the store until the matrix ends.
func (m *matrix) writers(n int) {
	for range n {
		m.wg.Go(func() {
			for !m.stop.Load() {
				if !m.change() {
					time.Sleep(20 * time.Millisecond) // a refused change is answered at once
				}
			}
		})
	}
}

// recovered waits until a change is accepted again.
func (m *matrix) recovered() time.Duration {
	m.t.Helper()
	begin := time.Now()
	m.eventually("changes are accepted again", m.change)
	return time.Since(begin)
}

// end stops everything, counts what is lost and prints the row.
func (m *matrix) end(name string, recovery time.Duration) {
	m.t.Helper()
	m.stop.Store(true)
	m.wg.Wait()
	found := map[string]bool{}
	for next := ""; ; {
		a := m.api("GET", "/v1/domains/example.org/departments?limit=1000&cursor="+next, nil)
		for _, item := range a["items"].([]any) {
			found[item.(object)["path"].(string)] = true
		}
		if next, _ = a["next"].(string); next == "" {
			break
		}
	}
	lost := 0
	for path := range m.changed {
		if !found[path] {
			lost++
		}
	}
	m.row(name, recovery, lost)
}

func (m *matrix) row(name string, recovery time.Duration, lost int) {
	fmt.Printf("| %-34s | %5d logins, slowest %5d ms, %d temporary, %d wrong | %d admitted | %5d changes, %4d refused 503, %d other | %d lost | recovery %.1f s |\n",
		name, m.logins.Load(), m.slowest.Load()/1e6, m.temporary.Load(), m.wrong.Load(), m.admitted.Load(),
		m.acknowledged.Load(), m.unavailable.Load(), m.others.Load(), lost, recovery.Seconds())
	if m.wrong.Load()+m.admitted.Load()+m.others.Load() > 0 || lost > 0 || m.logins.Load() == 0 {
		m.t.Errorf("%s: %v", name, m.odd)
	}
}

// oneServer runs a fault of a single Redis, which lasts as long as given, and what ends it.
func oneServer(t *testing.T, name, socket string, begin, end func(), lasts time.Duration) {
	t.Run(name, func(t *testing.T) {
		m := startMatrix(t, trialstack.Options{Settings: map[string]any{"store.url": "unix://" + socket}})
		m.writers(2)
		m.eventually("changes are made", func() bool { return m.acknowledged.Load() > 20 })
		begin()
		time.Sleep(lasts) // the fault itself, and no wait for an event
		end()
		recovery := m.recovered()
		m.end(name, recovery)
		if m.temporary.Load() > 0 {
			t.Errorf("%d temporary failures", m.temporary.Load())
		}
	})
}

func TestFaultsOfOneRedis(t *testing.T) {
	const lasts = 6 * time.Second
	r := redistest.Start(t)
	oneServer(t, "Redis stopped", r.Socket, r.Kill, r.Restart, lasts)
	r = redistest.Start(t)
	oneServer(t, "Redis paused", r.Socket, r.Pause, r.Resume, lasts)
	r = redistest.Start(t)
	oneServer(t, "Redis slow (runs 1 ms of 100)", r.Socket, func() {
		for range 60 {
			r.Pause()
			time.Sleep(99 * time.Millisecond)
			r.Resume()
			time.Sleep(time.Millisecond)
		}
	}, func() {}, 0)
	r = redistest.Start(t)
	oneServer(t, "Redis without memory", r.Socket, func() { r.Do("CONFIG", "SET", "maxmemory", "1") }, func() { r.Do("CONFIG", "SET", "maxmemory", "0") }, lasts)
	r = redistest.Start(t)
	p := relay(t, r.Socket)
	oneServer(t, "Redis cut off (packets vanish)", p.socket, func() { p.cut.Store(true) }, func() { p.cut.Store(false) }, lasts)
}

// The disk of Redis is full: with appendfsync always the server ends, and is started again when
// there is room.
func TestFaultsOfADisk(t *testing.T) {
	dir, err := os.MkdirTemp("", "db-disk")
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=16m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH); _ = os.Remove(dir) })
	before := os.Getenv("TMPDIR")
	t.Setenv("TMPDIR", dir)
	r := redistest.Start(t)
	t.Setenv("TMPDIR", before)
	filler := filepath.Join(dir, "filler")
	oneServer(t, "Redis' disk full", r.Socket, func() {
		f, err := os.Create(filler)
		if err == nil {
			_, _ = io.Copy(f, io.LimitReader(zeros{}, 64<<20)) // until it is full
			_ = f.Close()
		}
	}, func() {
		_ = os.Remove(filler)
		r.Kill()
		r.Restart()
	}, 4*time.Second)
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// What is not believed: people decide. Each fault is a real one: a server that was restarted without
// its data, and one that evicts because its memory is full.
func TestFaultsThatNeedPeople(t *testing.T) {
	for _, c := range []struct {
		name string
		do   func(m *matrix, r *redistest.Server)
		mend []string
	}{
		{"Redis restarted empty", func(m *matrix, r *redistest.Server) {
			r.Kill()
			m.must(os.RemoveAll(filepath.Join(filepath.Dir(r.Socket), "appendonlydir")))
			r.Restart()
		}, []string{"store", "adopt"}},
		{"Redis evicts (allkeys-lru)", func(m *matrix, r *redistest.Server) {
			r.Do("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
			r.Do("CONFIG", "SET", "maxmemory", "1mb") // less than it uses: each write evicts
			for i := 0; r.Do("EXISTS", "drawbridge:{s09}:docs", "drawbridge:{g}:docs") != "0"; i++ {
				_, _ = r.Try("SET", fmt.Sprintf("cache:%d", i), "x") // of another application
			}
			r.Do("CONFIG", "SET", "maxmemory", "0")
			r.Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
		}, []string{"store", "repair"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := redistest.Start(t)
			m := startMatrix(t, trialstack.Options{Settings: map[string]any{"store.url": "unix://" + r.Socket}})
			m.eventually("changes are made", func() bool { m.change(); return m.acknowledged.Load() > 20 })
			c.do(m, r)
			m.eventually("it is noticed", func() bool { return !m.change() })
			for begin := time.Now(); time.Since(begin) < 3*time.Second; time.Sleep(50 * time.Millisecond) { // how long it is watched
				m.change()
			}
			begin := time.Now()
			if c.mend[1] == "adopt" { // of a store without its rules nothing remains to log in with
				m.stop.Store(true)
				m.wg.Wait()
			}
			m.command(c.mend...)
			if c.mend[1] == "adopt" {
				m.changed = map[string]bool{}
				m.eventually("the empty store is used", func() bool {
					status, _ := m.call(0, "POST", "/v1/domains", object{"name": "example.org", "third_party_access": object{"allow": true}})
					return status < 300
				})
			}
			m.eventually("changes are accepted again", m.change)
			m.end(c.name+": drawbridge "+strings.Join(c.mend, " "), time.Since(begin))
			if m.temporary.Load() > 0 {
				t.Errorf("%d temporary failures", m.temporary.Load())
			}
		})
	}
}

// The network between the daemon and Redis fails: Redis has a network namespace of its own, which
// is cut off in two ways.
func TestFaultsOfANetwork(t *testing.T) {
	for i, c := range []struct{ name, begin, end string }{
		{"network: link down", "ip link set dev LINK down", "ip link set dev LINK up"},
		// To an address of Ethernet that nobody has.
		{"network: packets vanish", "ip neigh replace ADDRESS lladdr 02:00:00:00:00:01 nud permanent dev LINK", "ip neigh del ADDRESS dev LINK"},
	} {
		n := cutOffNetwork(t, i)
		r := n.redis()
		t.Run(c.name, func(t *testing.T) {
			m := startMatrix(t, trialstack.Options{Settings: map[string]any{"store.url": "redis://" + n.address + ":" + namespacePort}})
			m.writers(2)
			m.eventually("changes are made", func() bool { return m.acknowledged.Load() > 20 })
			n.run(strings.NewReplacer("LINK", n.device, "ADDRESS", n.address).Replace(c.begin))
			time.Sleep(6 * time.Second) // the fault itself, and no wait for an event
			n.run(strings.NewReplacer("LINK", n.device, "ADDRESS", n.address).Replace(c.end))
			m.end(c.name, m.recovered())
			if m.temporary.Load() > 0 {
				t.Errorf("%d temporary failures", m.temporary.Load())
			}
		})
		r.Kill()
	}
}

// namespacePort is the port of Redis in its network namespace.
const namespacePort = "6390"

// namespace is a network namespace behind a pair of virtual links.
type namespace struct {
	t                     *testing.T
	name, device, address string // the namespace, our end of the link, the address at the other end
}

// cutOffNetwork makes the i-th network namespace, to end with the test.
func cutOffNetwork(t *testing.T, i int) *namespace {
	t.Helper()
	n := &namespace{t: t, name: fmt.Sprintf("drawbridge-faults-%d-%d", os.Getpid(), i), device: fmt.Sprintf("dbf%d-%d", os.Getpid()%100000, i), address: fmt.Sprintf("169.254.%d.%d", 1+os.Getpid()%250, 4*i+2)}
	n.run("ip netns add " + n.name)
	t.Cleanup(func() { n.run("ip netns del " + n.name) }) // and the link with it
	n.run("ip link add " + n.device + " type veth peer name eth0 netns " + n.name)
	n.run(fmt.Sprintf("ip addr add 169.254.%d.%d/30 dev %s", 1+os.Getpid()%250, 4*i+1, n.device))
	n.run("ip link set dev " + n.device + " up")
	n.run("ip -n " + n.name + " addr add " + n.address + "/30 dev eth0")
	n.run("ip -n " + n.name + " link set dev eth0 up")
	n.run("ip -n " + n.name + " link set dev lo up")
	return n
}

// run runs ip.
func (n *namespace) run(command string) {
	n.t.Helper()
	words := strings.Fields(command)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s: %v: %s (install the package iproute2)", command, err, out)
	}
}

// redis starts a server in the namespace. The test reaches it by its unix socket all the time.
func (n *namespace) redis() (r *redistest.Server) {
	n.t.Helper()
	started, end := make(chan bool), make(chan bool)
	n.t.Cleanup(func() { close(end) })
	go func() {
		// The thread is in the namespace for good, so it ends with the test. Servers that it starts
		// end with it.
		runtime.LockOSThread()
		func() {
			defer close(started)
			f, err := os.Open("/run/netns/" + n.name)
			if err == nil {
				err = unix.Setns(int(f.Fd()), unix.CLONE_NEWNET)
			}
			if err != nil {
				n.t.Error(err)
				return
			}
			r = redistest.Start(n.t, "port "+namespacePort, "bind "+n.address, "protected-mode no")
		}()
		<-end
	}()
	<-started
	if r == nil {
		n.t.FailNow()
	}
	return r
}

func TestFaultsOfSentinels(t *testing.T) {
	r := redistest.StartSentinels(t)
	m := startMatrix(t, trialstack.Options{Settings: map[string]any{"store.url": r.Addresses(), "store.master": redistest.MasterName}})
	m.writers(2)
	m.eventually("changes are made", func() bool { return m.acknowledged.Load() > 20 })
	m.diagnosed(
		"this Sentinel and enough others can fail over", 3, "a master; replicas connected: 1", 1, "min-replicas-to-write is not set", 1,
		"appendfsync always", 1, "cannot be used", 0,
	)
	// The replica gets no more, so that the failover loses acknowledged changes.
	r.Servers[0].Do("ACL", "SETUSER", "default", "-psync", "-sync")
	r.Servers[0].Do("CLIENT", "KILL", "TYPE", "replica")
	more := m.acknowledged.Load() + 20
	m.eventually("changes that the replica lacks", func() bool { return m.acknowledged.Load() > more })
	r.LoseMaster()
	m.endByItself("Sentinel fails over, changes lost")
}

// diagnosed waits until the doctor, which sees the servers as the daemon saw them a few seconds ago,
// says texts as often as wanted: texts and numbers in turn.
func (m *matrix) diagnosed(want ...any) {
	m.t.Helper()
	d := m.Daemons[0]
	m.eventually(fmt.Sprintf("the doctor says %v", want), func() bool {
		out, _ := d.Command(m.ctx, "doctor", "--dovecot-config", m.DovecotConf(), "--postfix-config", m.PostfixDir(), "--config", d.Config).CombinedOutput() // its status counts all findings
		for i := 0; i+1 < len(want); i += 2 {
			text, _ := want[i].(string)
			if n := strings.Count(string(out), text); n != want[i+1] {
				m.t.Logf("the doctor says %q %d times, not %v:\n%s", text, n, want[i+1], out)
				return false
			}
		}
		return true
	})
}

// endByItself ends a row whose fault ends by itself.
func (m *matrix) endByItself(name string) {
	m.t.Helper()
	m.eventually("changes are refused", func() bool { return m.unavailable.Load() > 0 })
	before := m.acknowledged.Load()
	begin := time.Now()
	m.eventually("changes are accepted again", func() bool { return m.acknowledged.Load() > before+20 })
	m.end(name, time.Since(begin))
	if m.temporary.Load() > 0 {
		m.t.Errorf("%d temporary failures", m.temporary.Load())
	}
}

func TestFaultsOfACluster(t *testing.T) {
	r := redistest.StartCluster(t, true)
	settings := map[string]any{"store.url": r.Addresses()}
	shard := "drawbridge:{s09}:head"
	t.Run("slots move", func(t *testing.T) {
		m := startMatrix(t, trialstack.Options{Settings: settings})
		m.writers(2)
		m.eventually("changes are made", func() bool { return m.acknowledged.Load() > 20 })
		for s := range 33 {
			key := fmt.Sprintf("drawbridge:{s%02d}:head", s)
			if s == 32 {
				key = "drawbridge:{g}:head"
			}
			r.Move(key, r.Masters[s%3], nil)
		}
		m.end("every slot of a Cluster moves", m.recovered())
	})
	for _, s := range r.Masters {
		s.Do("FLUSHALL")
	}
	t.Run("a node is lost", func(t *testing.T) {
		m := startMatrix(t, trialstack.Options{Settings: settings})
		m.writers(2)
		m.eventually("changes are made", func() bool { return m.acknowledged.Load() > 20 })
		m.diagnosed("a master; replicas connected: 1", 3, "min-replicas-to-write is not set", 3, "appendfsync always", 3, "Sentinel", 0, "cannot be used", 0)
		victim, _ := r.Owner(shard)
		r.Lose(victim)
		m.endByItself("a Cluster node is lost")
	})
}

// relayed passes a unix socket on. While it is cut, what it gets vanishes and nothing is answered.
type relayed struct {
	socket string
	cut    atomic.Bool
}

func relay(t *testing.T, to string) *relayed {
	t.Helper()
	r := &relayed{socket: to + ".relay"}
	l, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	pass := func(from, to net.Conn) {
		defer func() { _, _ = from.Close(), to.Close() }()
		b := make([]byte, 64<<10)
		for {
			n, err := from.Read(b)
			if err != nil {
				return
			}
			if r.cut.Load() {
				continue
			}
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("unix", to)
			if err != nil {
				_ = client.Close()
				continue
			}
			go pass(client, server)
			go pass(server, client)
		}
	}()
	return r
}
