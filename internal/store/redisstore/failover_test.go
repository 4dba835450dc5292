package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// cutOff keeps a master's replicas from following it any further.
func cutOff(master *redistest.Server) {
	master.Do("ACL", "SETUSER", "default", "-psync", "-sync")
	master.Do("CLIENT", "KILL", "TYPE", "replica")
}

// putBack returns the notes in the audit log on changes that were put back.
func (d *daemon) putBack(t *testing.T) (notes []string) {
	t.Helper()
	list, _, err := d.redis.Audit(context.Background(), store.AuditQuery{Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.Action == "store.put_back" {
			notes = append(notes, e.Note)
		}
	}
	return notes
}

// The master dies with changes that its replica never got. Daemons that hold them put them back, and
// nothing acknowledged is lost.
func TestSentinelFailover(t *testing.T) {
	t.Parallel() // it waits more than it computes
	r := redistest.StartSentinels(t)
	a, b := start(t, r.Options(), &redistest.Marker{}).ready(t), start(t, r.Options(), &redistest.Marker{}).ready(t)
	servers, err := a.redis.Servers(context.Background())
	if err != nil || servers.Mode != store.ModeSentinel || len(servers.Masters) != 1 ||
		servers.Masters[0] != (store.Master{Address: r.Servers[0].Address(), Replicas: 1, Policy: store.NoEviction, AppendOnly: true, AppendFsync: "always"}) {
		t.Errorf("servers: %+v %v", servers, err)
	}
	if len(servers.Sentinels) != 3 || slices.ContainsFunc(servers.Sentinels, func(s store.Sentinel) bool { return s.Fault != "" }) {
		t.Errorf("Sentinels: %+v", servers.Sentinels)
	}
	r.Servers[0].Do("CONFIG", "SET", "min-replicas-to-write", "1")
	if servers, err = a.redis.Servers(context.Background()); err != nil || !servers.Masters[0].NeedsReplicas {
		t.Errorf("servers with min-replicas-to-write: %+v %v", servers, err)
	}
	r.Servers[0].Do("CONFIG", "SET", "min-replicas-to-write", "0")
	must := func(name string) {
		t.Helper()
		if err := a.putDomain(name); err != nil {
			t.Fatal(err)
		}
	}
	must("before.example")
	redistest.Eventually(t, "the replica has it", func() bool { return strings.Contains(r.Servers[1].Do("INFO", "replication"), "master_link_status:up") })
	if n := r.Servers[0].Do("WAIT", "1", "5000"); n != "1" {
		t.Fatalf("%s replicas", n)
	}
	cutOff(r.Servers[0])
	must("lost.example")
	must("before.example") // a second change of the same document
	redistest.Eventually(t, "the other daemon has it", func() bool { return b.State.Heads() == a.State.Heads() })
	known := a.State.Heads()
	r.LoseMaster()
	redistest.Eventually(t, "the outage is noticed", func() bool { return a.Trouble() != nil })
	if err := a.putDomain("late.example"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a change without a master: %v", err)
	}
	if !a.has("lost.example") {
		t.Error("what was known is forgotten")
	}
	redistest.Eventually(t, "changes are taken again", func() bool { return a.putDomain("after.example") == nil })
	b.ready(t)
	fresh := start(t, r.Options(), &redistest.Marker{}).ready(t)
	for _, name := range []string{"before.example", "lost.example", "after.example"} {
		if !fresh.has(name) {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	for _, name := range []string{"lost.example", "before.example"} {
		if s := store.ShardOf(name); fresh.State.Head(s).N < known[s].N {
			t.Errorf("shard %d is at %d, it was at %d", s, fresh.State.Head(s).N, known[s].N)
		}
	}
	redistest.Eventually(t, "the audit log says what was put back", func() bool { return len(fresh.putBack(t)) > 0 })
	r.KillSentinel(0)
	r.KillSentinel(1)
	redistest.Eventually(t, "the lack of Sentinels is seen", func() bool {
		servers, err := a.redis.Servers(context.Background())
		return err == nil && !slices.ContainsFunc(servers.Sentinels, func(s store.Sentinel) bool { return s.Fault == "" })
	})
	for _, d := range []*daemon{a, b} {
		if err := d.Trouble(); err != nil {
			t.Error(err)
		}
	}
}

// What happens in a Cluster with replicas. Its start costs seconds, so that one serves all: the last
// test loses a node.
func TestClusterWithReplicas(t *testing.T) {
	t.Parallel() // it waits more than it computes
	r := redistest.StartCluster(t, true)
	for _, test := range []struct {
		name string
		f    func(*testing.T, *redistest.Cluster)
	}{{"slots move", slotsMove}, {"ASK and TRYAGAIN", askAndTryAgain}, {"failover", clusterFailover}} {
		t.Run(test.name, func(t *testing.T) { test.f(t, r) })
		for _, s := range r.Nodes() {
			_, _ = s.Try("FLUSHALL") // a replica refuses
		}
	}
}

// Nodes send a client elsewhere while a slot moves: ASK for keys that are there already, TRYAGAIN
// while the keys of one change are at both.
func askAndTryAgain(t *testing.T, r *redistest.Cluster) {
	opt := r.Options()
	a := start(t, opt, &redistest.Marker{}).ready(t)
	opt.MinReplicas = 1
	b := start(t, opt, &redistest.Marker{}).ready(t)
	const name = "example.org"
	if err := a.putDomain(name); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "both know the domain", func() bool { return b.has(name) })
	head := shardKey(name, "head")
	from, slot := r.Owner(head)
	to := r.Masters[0]
	if to == from {
		to = r.Masters[1]
	}
	first := a.State.Head(store.ShardOf(name)).N
	put := func(d *daemon) <-chan error {
		done := make(chan error, 1)
		go func() { done <- d.putDomain(name) }()
		return done
	}
	var waiting []<-chan error
	asked := false
	r.Move(head, to, func() {
		switch left := from.Do("CLUSTER", "GETKEYSINSLOT", slot, "10"); {
		case left != "" && len(waiting) == 0:
			keys := []string{head, shardKey(name, "docs"), shardKey(name, "changes"), shardKey(name, "audit")}
			if got := from.Do(append([]string{"EVAL", "return 1", "4"}, keys...)...); !strings.HasPrefix(got, "TRYAGAIN ") {
				t.Errorf("a script across both nodes: %s", got)
			}
			waiting = append(waiting, put(a), put(b))
		case left == "":
			asked = true
			if got := from.Do("HGET", head, "n"); !strings.HasPrefix(got, "ASK "+slot) {
				t.Errorf("a key that has moved: %s", got)
			}
			for _, d := range []*daemon{a, b} {
				redistest.Eventually(t, "a change while the slot is not given yet", func() bool { return d.putDomain(name) == nil })
			}
		}
	})
	if !asked || len(waiting) != 2 {
		t.Fatal("the slot did not move key by key")
	}
	acknowledged := uint64(2)
	for _, done := range waiting {
		if err := <-done; err == nil {
			acknowledged++
		} else if !errors.Is(err, store.ErrUnavailable) {
			t.Errorf("a change while its keys are split: %v", err)
		}
	}
	redistest.Eventually(t, "the daemons agree", func() bool { return a.State.Heads() == b.State.Heads() && a.Trouble() == nil && b.Trouble() == nil })
	if n := a.State.Head(store.ShardOf(name)).N - first; n < acknowledged || n > acknowledged+2 {
		t.Errorf("%d changes were acknowledged, %d are there", acknowledged, n)
	}
}

// A Cluster's node dies with changes that its replica never got, while others are changed all the
// time.
func clusterFailover(t *testing.T, r *redistest.Cluster) {
	a, b := start(t, r.Options(), &redistest.Marker{}).ready(t), start(t, r.Options(), &redistest.Marker{}).ready(t)
	servers, err := a.redis.Servers(context.Background())
	if err != nil || servers.Mode != store.ModeCluster || len(servers.Masters) != 3 || servers.Masters[0].Replicas != 1 {
		t.Errorf("servers: %+v %v", servers, err)
	}
	if err := a.putDomain("before.example"); err != nil {
		t.Fatal(err)
	}
	victim, _ := r.Owner(shardKey("lost.example", "head"))
	cutOff(victim)
	if err := a.putDomain("lost.example"); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the other daemon has it", func() bool { return b.has("lost.example") })
	r.Lose(victim)
	redistest.Eventually(t, "the loss of the node is seen", func() bool {
		servers, err := a.redis.Servers(context.Background())
		return err != nil || slices.ContainsFunc(servers.Masters, func(m store.Master) bool { return m.Fault != "" })
	})
	redistest.Eventually(t, "changes are taken again", func() bool { return a.putDomain("lost.example") == nil })
	b.ready(t)
	fresh := start(t, r.Options(), &redistest.Marker{}).ready(t)
	if n := fresh.State.Head(store.ShardOf("lost.example")).N; !fresh.has("lost.example") || n < 2 {
		t.Errorf("the acknowledged change is lost: the shard is at %d", n)
	}
	victim.Restart() // a replica now
	r.Settled()
	if err := b.putDomain("after.example"); err != nil {
		t.Error(err)
	}
}

// Slots move from master to master while two daemons change the store: every change is applied once,
// and replicas are waited for where the change was written.
func slotsMove(t *testing.T, r *redistest.Cluster) {
	opt := r.Options()
	a := start(t, opt, &redistest.Marker{}).ready(t)
	opt.MinReplicas = 1
	b := start(t, opt, &redistest.Marker{}).ready(t)
	const name = "example.org"
	if err := a.putDomain(name); err != nil {
		t.Fatal(err)
	}
	b.ready(t)
	redistest.Eventually(t, "both know the domain", func() bool { return b.has(name) })
	var done atomic.Bool
	var acknowledged [2]atomic.Int64
	var wg sync.WaitGroup
	for i, d := range []*daemon{a, b} {
		wg.Go(func() {
			for n := 0; !done.Load(); n++ {
				err := d.Update(context.Background(), store.ShardOf(name), store.Actor{Name: fmt.Sprint(i)}, false, func(c *store.Change) error {
					c.Audit.Action = "count"
					c.AuditOnly()
					return nil
				})
				if err == nil {
					acknowledged[i].Add(1)
				}
			}
		})
	}
	for round := range 3 {
		owner, _ := r.Owner(shardKey(name, "head"))
		to := r.Masters[(round+1)%3]
		if to == owner {
			to = r.Masters[(round+2)%3]
		}
		r.Move(shardKey(name, "head"), to, nil)
		before := [2]int64{acknowledged[0].Load(), acknowledged[1].Load()}
		redistest.Eventually(t, "both daemons change the store at its new place", func() bool {
			return acknowledged[0].Load() > before[0]+5 && acknowledged[1].Load() > before[1]+5
		})
	}
	done.Store(true)
	wg.Wait()
	redistest.Eventually(t, "the daemons agree", func() bool { return a.State.Heads() == b.State.Heads() && a.Trouble() == nil && b.Trouble() == nil })
	counted := map[string]int64{}
	for cursor := ""; ; {
		list, next, err := a.redis.Audit(context.Background(), store.AuditQuery{Limit: 1000, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list {
			if e.Action == "count" {
				counted[e.Actor.Name]++
			}
		}
		if cursor = next; next == "" {
			break
		}
	}
	for i := range acknowledged {
		if n := acknowledged[i].Load(); counted[fmt.Sprint(i)] < n {
			t.Errorf("daemon %d: %d changes were acknowledged, and %d are there", i, n, counted[fmt.Sprint(i)])
		}
	}
	t.Logf("acknowledged %d and %d, counted %v", acknowledged[0].Load(), acknowledged[1].Load(), counted)
}
