package redistest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/drawbridge/drawbridge/internal/embedded"
	"github.com/drawbridge/drawbridge/internal/freeport"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// A Cluster is a Redis Cluster of a test's own: processes on loopback.
type Cluster struct {
	Masters  []*Server // as they were at the start
	Replicas []*Server // Replicas[i] follows Masters[i]
	t        testing.TB
}

// clusterSlots is the number of slots of every Redis Cluster.
const clusterSlots = 16384

// A server that does not answer for that many milliseconds counts as lost. While a test has no fault
// of that kind, as [Cluster.Lose] makes one, this is long: on a busy machine a server may get no
// processor for a second, and an unexpected failover fails the test.
const (
	patient      = "15000"
	nodeLost     = "1000"
	sentinelLost = "500"
)

// StartCluster starts three masters, with a replica each if wanted, that end with the test.
func StartCluster(t testing.TB, replicas bool) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	buses := map[*Server]string{}
	start := func() *Server {
		bus := strconv.Itoa(freePort(t))
		s := startAt(t, freePort(t), "cluster-enabled yes", "cluster-config-file nodes.conf", "cluster-port "+bus,
			"cluster-node-timeout "+nodeLost, "cluster-replica-validity-factor 0", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1")
		buses[s] = bus
		return s
	}
	for i := range 3 {
		s := start()
		s.Do("CLUSTER", "ADDSLOTSRANGE", strconv.Itoa(i*clusterSlots/3), strconv.Itoa((i+1)*clusterSlots/3-1))
		s.Do("CLUSTER", "SET-CONFIG-EPOCH", strconv.Itoa(i+1))
		c.Masters = append(c.Masters, s)
	}
	if replicas {
		for range c.Masters {
			c.Replicas = append(c.Replicas, start())
		}
	}
	all := c.Nodes()
	for _, s := range all[1:] {
		s.Do("CLUSTER", "MEET", "127.0.0.1", strconv.Itoa(all[0].Port), buses[all[0]])
	}
	Eventually(t, "the nodes know each other", func() bool {
		for _, s := range all {
			if !strings.Contains(s.Do("CLUSTER", "INFO"), "cluster_known_nodes:"+strconv.Itoa(len(all))) {
				return false
			}
		}
		return true
	})
	for i, s := range c.Replicas {
		id := c.Masters[i].Do("CLUSTER", "MYID")
		Eventually(t, "a replica follows its master", func() bool { return s.Do("CLUSTER", "REPLICATE", id) == "OK" })
	}
	c.Settled()
	c.notice(patient)
	return c
}

// notice sets after how many milliseconds a node counts as lost.
func (c *Cluster) notice(milliseconds string) {
	for _, s := range c.Nodes() {
		_, _ = s.Try("CONFIG", "SET", "cluster-node-timeout", milliseconds) // one may have been lost
	}
}

// Lose ends a node as kill -9 does. The others notice it after a second.
func (c *Cluster) Lose(s *Server) {
	c.notice(nodeLost)
	s.Kill()
}

// Settled waits until the cluster takes commands, and all its replicas follow.
func (c *Cluster) Settled() {
	c.t.Helper()
	Eventually(c.t, "the cluster is well", func() bool {
		for _, s := range c.Nodes() {
			info, err := s.Try("CLUSTER", "INFO")
			if err != nil || !strings.Contains(info, "cluster_state:ok") {
				return false
			}
		}
		for _, s := range c.Replicas {
			if info, err := s.Try("INFO", "replication"); err != nil || strings.Contains(info, "role:slave") && !strings.Contains(info, "master_link_status:up") {
				return false
			}
		}
		return true
	})
}

// Nodes returns all nodes.
func (c *Cluster) Nodes() []*Server { return append(append([]*Server{}, c.Masters...), c.Replicas...) }

// Addresses returns the addresses of all nodes.
func (c *Cluster) Addresses() (list []string) {
	for _, s := range c.Nodes() {
		list = append(list, s.Address())
	}
	return list
}

// Options are how the cluster is reached.
func (c *Cluster) Options() redisstore.Options {
	return redisstore.Options{Cluster: true, Addrs: c.Addresses()[:3]}
}

// Address is where a server with a port listens.
func (s *Server) Address() string { return "127.0.0.1:" + strconv.Itoa(s.Port) }

// Owner returns the master of a key's slot, and the number of the slot.
func (c *Cluster) Owner(key string) (*Server, string) {
	c.t.Helper()
	slot := c.Masters[0].Do("CLUSTER", "KEYSLOT", key)
	n, err := strconv.Atoi(slot)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, s := range c.Nodes() {
		nodes, err := s.Try("CLUSTER", "NODES")
		if err != nil {
			continue
		}
		for line := range strings.SplitSeq(nodes, "\n") {
			f := strings.Fields(line)
			if len(f) < 9 || !strings.Contains(f[2], "myself") || !strings.Contains(f[2], "master") {
				continue
			}
			for _, span := range f[8:] {
				first, last, _ := strings.Cut(span, "-")
				if last == "" {
					last = first
				}
				from, err1 := strconv.Atoi(first)
				to, err2 := strconv.Atoi(last)
				if err1 == nil && err2 == nil && from <= n && n <= to {
					return s, slot
				}
			}
		}
	}
	c.t.Fatalf("nobody has slot %s", slot)
	return nil, ""
}

// Move moves the slot of a key to another master, as redis-cli --cluster reshard does. between is
// called after each key, and may be nil.
func (c *Cluster) Move(key string, to *Server, between func()) {
	c.t.Helper()
	from, slot := c.Owner(key)
	if from == to {
		return
	}
	source, target := from.Do("CLUSTER", "MYID"), to.Do("CLUSTER", "MYID")
	to.Do("CLUSTER", "SETSLOT", slot, "IMPORTING", source)
	from.Do("CLUSTER", "SETSLOT", slot, "MIGRATING", target)
	for {
		keys := from.Do("CLUSTER", "GETKEYSINSLOT", slot, "1")
		if keys == "" {
			break
		}
		from.Do("MIGRATE", "127.0.0.1", strconv.Itoa(to.Port), keys, "0", "5000")
		if between != nil {
			between()
		}
	}
	for _, s := range append([]*Server{to, from}, c.Masters...) {
		s.Do("CLUSTER", "SETSLOT", slot, "NODE", target)
	}
}

// Sentinels are a master, a replica and the three Sentinels that watch them.
type Sentinels struct {
	Servers []*Server // the first was the master at the start
	ports   []int
	cmds    []*exec.Cmd
	t       testing.TB
}

// MasterName is the name of the master set that [Sentinels] watch.
const MasterName = "drawbridge"

// StartSentinels starts them, to end with the test.
func StartSentinels(t testing.TB) *Sentinels {
	t.Helper()
	c := &Sentinels{t: t}
	conf := []string{"repl-diskless-sync-delay 0", "repl-ping-replica-period 1"}
	master := startAt(t, freePort(t), conf...)
	replica := startAt(t, freePort(t), append(conf, "replicaof 127.0.0.1 "+strconv.Itoa(master.Port))...)
	c.Servers = []*Server{master, replica}
	dir, err := os.MkdirTemp("", "db-sentinel")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program, err := embedded.Program("")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		port := freePort(t)
		c.ports = append(c.ports, port)
		file := filepath.Join(dir, fmt.Sprintf("%d.conf", i))
		text := fmt.Sprintf("port %[1]d\nbind 127.0.0.1\ndir %[2]s\nlogfile %[3]s.log\nsentinel monitor %[4]s 127.0.0.1 %[5]d 2\n"+
			"sentinel down-after-milliseconds %[4]s %[6]s\nsentinel failover-timeout %[4]s 3000\n", port, dir, file, MasterName, master.Port, sentinelLost)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, file, "--sentinel") //nolint:gosec // G204: the installed server
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		c.cmds = append(c.cmds, cmd)
		t.Cleanup(func() { c.KillSentinel(i) })
	}
	c.Settled(replica)
	c.notice(patient)
	return c
}

// notice sets after how many milliseconds a server counts as lost.
func (c *Sentinels) notice(milliseconds string) {
	c.t.Helper()
	for _, port := range c.ports {
		out, err := exec.Command(Client(c.t), "-p", strconv.Itoa(port), "SENTINEL", "SET", MasterName, "down-after-milliseconds", milliseconds).CombinedOutput() //nolint:gosec // G204
		if err != nil || strings.TrimSpace(string(out)) != "OK" {
			c.t.Fatalf("a Sentinel: %v: %s", err, out)
		}
	}
}

// LoseMaster ends the first master as kill -9 does. The Sentinels notice it after about half a
// second.
func (c *Sentinels) LoseMaster() {
	c.t.Helper()
	c.notice(sentinelLost)
	c.Servers[0].Kill()
}

// KillSentinel ends one of the three Sentinels.
func (c *Sentinels) KillSentinel(i int) {
	_ = c.cmds[i].Process.Kill()
	_ = c.cmds[i].Wait() // it fails the second time
}

// Settled waits until each Sentinel knows the others, and one replica, which follows.
func (c *Sentinels) Settled(replica *Server) {
	c.t.Helper()
	Eventually(c.t, "the Sentinels know each other and the replica", func() bool {
		for _, port := range c.ports {
			out, err := exec.Command(Client(c.t), "-p", strconv.Itoa(port), "--raw", "SENTINEL", "MASTER", MasterName).Output() //nolint:gosec // G204
			if err != nil || !strings.Contains(string(out), "num-slaves\n1\n") || !strings.Contains(string(out), "num-other-sentinels\n2\n") ||
				!strings.Contains(string(out), "flags\nmaster\n") {
				return false
			}
		}
		info, err := replica.Try("INFO", "replication")
		return err == nil && strings.Contains(info, "master_link_status:up")
	})
}

// Addresses returns the addresses of the Sentinels.
func (c *Sentinels) Addresses() (list []string) {
	for _, port := range c.ports {
		list = append(list, "127.0.0.1:"+strconv.Itoa(port))
	}
	return list
}

// Options are how the master is found.
func (c *Sentinels) Options() redisstore.Options {
	return redisstore.Options{Master: MasterName, Addrs: c.Addresses()}
}

// freePort returns a port of 127.0.0.1 that is the test's until its end.
func freePort(t testing.TB) int {
	t.Helper()
	var r freeport.Reservation
	port, err := r.Port()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Free)
	return port
}

// Kill ends all nodes as kill -9 does.
func (c *Cluster) Kill() {
	for _, s := range c.Nodes() {
		s.Kill()
	}
}

// Restart starts all nodes again, after [Cluster.Kill].
func (c *Cluster) Restart() {
	c.t.Helper()
	for _, s := range c.Nodes() {
		s.Restart()
	}
	c.Settled()
	c.notice(patient)
}

// Pause stops all nodes in mid-traffic.
func (c *Cluster) Pause() {
	for _, s := range c.Nodes() {
		s.Pause()
	}
}

// Resume lets them continue.
func (c *Cluster) Resume() {
	for _, s := range c.Nodes() {
		s.Resume()
	}
}
