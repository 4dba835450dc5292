package redisstore_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

type daemon struct {
	*store.Store
	redis  *redisstore.Redis
	marker *redistest.Marker
}

// start runs a store as a daemon does, until the test ends.
func start(t *testing.T, opt redisstore.Options, m *redistest.Marker) *daemon {
	t.Helper()
	d := newDaemon(t, opt, m)
	redistest.Run(t, d.Store)
	return d
}

func newDaemon(t *testing.T, opt redisstore.Options, m *redistest.Marker) *daemon {
	t.Helper()
	d := &daemon{marker: m}
	d.Store, d.redis = redistest.NewStore(t, opt)
	d.Marker, d.VerifyPause = m, time.Millisecond
	return d
}

func (d *daemon) ready(t *testing.T) *daemon {
	t.Helper()
	redistest.Ready(t, d.Store)
	return d
}

func (d *daemon) putDomain(name string) error {
	return d.Update(context.Background(), store.ShardOf(name), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.Audit.Action, c.Audit.Domain, c.Audit.Target = "domain.create", name, name
		c.PutDomain(&store.Domain{Name: name})
		return nil
	})
}

func (d *daemon) has(name string) bool { _, ok := d.State.Domain(name); return ok }

func TestChangeHoldsOnEveryDaemon(t *testing.T) {
	r := begin(t)
	a, b := start(t, r.Options(), &redistest.Marker{}).ready(t), start(t, r.Options(), &redistest.Marker{}).ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	if !a.has("example.org") {
		t.Fatal("the change does not hold on its own daemon when it is acknowledged")
	}
	redistest.Eventually(t, "the change holds on the other daemon", func() bool { return b.has("example.org") })
	if a.marker.ID == "" || a.marker.ID != b.marker.ID {
		t.Fatalf("store ids %q and %q", a.marker.ID, b.marker.ID)
	}
	c := start(t, r.Options(), &redistest.Marker{ID: a.marker.ID}).ready(t)
	if !c.has("example.org") {
		t.Fatal("a daemon that starts later does not know the domain")
	}
	if h, o := a.State.Heads(), c.State.Heads(); h != o {
		t.Fatalf("heads differ: %v and %v", h, o)
	}
}

// Two daemons change the same account at once: each change builds on the other.
func TestConcurrentChangesAreSerialised(t *testing.T) {
	r := begin(t)
	a, b := start(t, r.Options(), &redistest.Marker{}).ready(t), start(t, r.Options(), &redistest.Marker{}).ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "both know the domain", func() bool { return b.has("example.org") })
	const each = 50
	var wg sync.WaitGroup
	for _, d := range []*daemon{a, b} {
		wg.Go(func() {
			for range each {
				err := d.Update(context.Background(), store.ShardOf("example.org"), store.Actor{}, false, func(c *store.Change) error {
					dom, _ := d.State.Domain("example.org")
					next := *dom.Doc
					next.MaxSecurePasswords++
					c.PutDomain(&next)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, d := range []*daemon{a, b} {
		redistest.Eventually(t, "all changes counted", func() bool {
			dom, _ := d.State.Domain("example.org")
			return dom.Doc.MaxSecurePasswords == 2*each
		})
	}
}

// deaf is a daemon's log whose streams never say anything, as after they were trimmed: what changed
// is loaded with the whole shard.
type deaf struct{ *redisstore.Redis }

func (deaf) Follow(ctx context.Context, _ [store.Shards]uint64, _ func(store.Shard, []store.Received) error) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestLoadForgetsWhatIsGone(t *testing.T) {
	r := begin(t)
	a, b := start(t, r.Options(), &redistest.Marker{}).ready(t), newDaemon(t, r.Options(), &redistest.Marker{})
	b.Log = deaf{b.redis}
	redistest.Run(t, b.Store)
	b.ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the shard is loaded with the domain", func() bool { return b.has("example.org") })
	err := a.Update(context.Background(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.DeleteDomain(a.State, "example.org", 1)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the shard is loaded without the domain", func() bool { return !b.has("example.org") })
	if _, v := b.State.View("ann@example.org"); v.Known {
		t.Error("a login still finds the domain")
	}
	if of, ok := b.State.ResolveDomain("example.org"); ok {
		t.Errorf("the name is still taken by %s", of)
	}
}

func TestAcknowledgedChangesSurviveKill(t *testing.T) {
	r := begin(t)
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	for i := range 20 {
		if err := a.putDomain(fmt.Sprintf("d%d.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	r.Kill()
	redistest.Eventually(t, "the loss is noticed", func() bool { return errors.Is(a.Trouble(), store.ErrUnavailable) })
	if err := a.putDomain("late.example"); !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("a change without Redis: %v", err)
	}
	if !a.has("d7.example") {
		t.Fatal("what was known is forgotten while Redis is away")
	}
	r.Restart()
	a.ready(t)
	b := start(t, r.Options(), &redistest.Marker{}).ready(t)
	for i := range 20 {
		if name := fmt.Sprintf("d%d.example", i); !b.has(name) {
			t.Errorf("%s was acknowledged and is lost", name)
		}
	}
	if b.has("late.example") {
		t.Error("a refused change was taken")
	}
	if err := a.putDomain("again.example"); err != nil {
		t.Fatalf("a change after recovery: %v", err)
	}
}

func TestEmptiedStoreIsNotBelieved(t *testing.T) {
	r := begin(t)
	m := &redistest.Marker{}
	a := start(t, r.Options(), m).ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	raw := dial(t, r)
	flush(t, raw)
	redistest.Eventually(t, "the emptied store is noticed", func() bool { return errors.Is(a.Trouble(), store.ErrForeign) })
	if !a.has("example.org") {
		t.Fatal("an emptied store was believed")
	}
	if err := a.putDomain("other.example"); !errors.Is(err, store.ErrForeign) {
		t.Fatalf("a change to a foreign store: %v", err)
	}
	// A daemon that starts now remembers its store, and does not begin another.
	late := start(t, r.Options(), &redistest.Marker{ID: m.ID})
	redistest.Eventually(t, "the late daemon notices too", func() bool { return errors.Is(late.Trouble(), store.ErrForeign) })
	if ok, _ := late.State.Ready(); ok {
		t.Fatal("a daemon loaded a store that is not its own")
	}
	old := m.ID
	id, err := a.Adopt(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	a.ready(t)
	if id == old || m.ID != id {
		t.Fatalf("adopted %q, remembered %q, before %q", id, m.ID, old)
	}
	if a.has("example.org") {
		t.Fatal("the adopted store is empty, and the domain is still there")
	}
	if _, err := a.Adopt(context.Background()); !errors.Is(err, store.ErrNothingToAdopt) {
		t.Fatalf("adopting a store in good order: %v", err)
	}
}

func TestRolledBackStoreIsNotBelieved(t *testing.T) {
	r := begin(t)
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	for _, name := range []string{"example.org", "example.org"} {
		if err := a.putDomain(name); err != nil {
			t.Fatal(err)
		}
	}
	raw := dial(t, r)
	key := fmt.Sprintf("drawbridge:{s%02d}:head", int(store.ShardOf("example.org")))
	if err := raw.HSet(context.Background(), key, "n", 1, "hash", "0123").Err(); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the rollback is noticed", func() bool { return errors.Is(a.Trouble(), store.ErrForeign) })
}

// A daemon whose place in the stream was trimmed away loads the shard anew.
func TestTrimmedStream(t *testing.T) {
	r := begin(t)
	opt := r.Options()
	opt.KeepChanges = 1
	a, b := start(t, opt, &redistest.Marker{}).ready(t), start(t, opt, &redistest.Marker{}).ready(t)
	raw := dial(t, r)
	// The stream is emptied behind every change, so that b often has nothing to read.
	key := fmt.Sprintf("drawbridge:{s%02d}:changes", int(store.ShardOf("example.org")))
	for i := range 30 {
		if err := a.putDomain("example.org"); err != nil {
			t.Fatalf("change %d: %v", i, err)
		}
		if err := raw.XTrimMaxLen(context.Background(), key, 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	redistest.Eventually(t, "b is up to date", func() bool { return a.State.Heads() == b.State.Heads() })
}

// Reads work and writes do not: that is told, changes are tried all the same, and it is noticed
// when it is over although nobody changes anything.
func TestRefusedWritesAreTold(t *testing.T) {
	r := begin(t)
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	raw := dial(t, r)
	memory := func(limit string) {
		t.Helper()
		if err := raw.ConfigSet(context.Background(), "maxmemory", limit).Err(); err != nil {
			t.Fatal(err)
		}
	}
	refused := func() {
		t.Helper()
		memory("1")
		if err := a.putDomain("example.org"); !errors.Is(err, store.ErrRefused) || !errors.Is(err, store.ErrUnavailable) {
			t.Fatalf("a change without memory: %v", err)
		}
		if err := a.Refusing(); !errors.Is(err, store.ErrRefused) || a.Trouble() != nil {
			t.Fatalf("refusing %v, trouble %v", err, a.Trouble())
		}
	}
	refused()
	memory("0")
	if err := a.putDomain("example.org"); err != nil || a.Refusing() != nil {
		t.Fatalf("the next change: %v, refusing %v", err, a.Refusing())
	}
	refused()
	head := a.State.Heads()
	memory("0")
	redistest.Eventually(t, "the probe is taken", func() bool { return a.Refusing() == nil })
	if heads, _, err := a.redis.Heads(context.Background()); err != nil || heads != head {
		t.Errorf("the probe changed the store: %v", err)
	}
	// A shard whose key is damaged stays refused, whatever others take.
	key := fmt.Sprintf("drawbridge:{s%02d}:audit", int(store.ShardOf("example.org")))
	if err := raw.Rename(context.Background(), key, key+":aside").Err(); err != nil {
		t.Fatal(err)
	}
	if err := raw.Set(context.Background(), key, "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if err := a.putDomain("example.org"); !errors.Is(err, store.ErrDamaged) || !errors.Is(a.Refusing(), store.ErrDamaged) {
		t.Fatalf("a change of a damaged shard: %v, refusing %v", err, a.Refusing())
	}
	if err := a.putDomain("example.net"); err != nil || !errors.Is(a.Refusing(), store.ErrDamaged) {
		t.Fatalf("a change of another shard: %v, refusing %v", err, a.Refusing())
	}
	if err := a.redis.Probe(context.Background(), store.ShardOf("example.org"), a.marker.ID); !errors.Is(err, store.ErrDamaged) {
		t.Errorf("the probe of a damaged shard: %v", err)
	}
	if err := a.redis.Probe(context.Background(), store.Global, "another"); !errors.Is(err, store.ErrForeign) {
		t.Errorf("the probe of another's store: %v", err)
	}
}

// A claim of the form that had no time is read as one of long ago.
func TestClaimsOfTheOldForm(t *testing.T) {
	r := begin(t)
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	now := time.Now().UTC()
	err := a.Update(context.Background(), store.Global, store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutClaim("new.example", store.Claim{Domain: "example.org", Time: now})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	h := a.State.Head(store.Global)
	e := &store.Entry{N: h.N + 1, Schema: store.Schema, Puts: []store.Doc{{Key: "name/old.example", Rev: h.N + 1, Body: json.RawMessage(`"example.org"`)}}}
	payload, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.redis.Commit(context.Background(), store.Global, h, payload, e, []byte("{}")); err != nil {
		t.Fatal(err)
	}
	b := start(t, r.Options(), &redistest.Marker{}).ready(t) // one reads it from the stream, the other loads it
	for _, d := range []*daemon{a, b} {
		redistest.Eventually(t, "the old claim is known", func() bool { _, ok := d.State.Claim("old.example"); return ok })
		if claim, _ := d.State.Claim("old.example"); claim != (store.Claim{Domain: "example.org"}) {
			t.Errorf("the old claim is %+v", claim)
		}
		if claim, _ := d.State.Claim("new.example"); claim.Domain != "example.org" || !claim.Time.Equal(now) {
			t.Errorf("the new claim is %+v", claim)
		}
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	r := begin(t)
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	raw := dial(t, r)
	key := fmt.Sprintf("drawbridge:{s%02d}:head", int(store.ShardOf("example.org")))
	if err := raw.HSet(context.Background(), key, "schema", store.Schema+1).Err(); err != nil {
		t.Fatal(err)
	}
	if err := a.putDomain("example.org"); !errors.Is(err, store.ErrNewerSchema) {
		t.Fatalf("an older daemon wrote to a newer store: %v", err)
	}
}

func TestHungRedisRefusesChangesInTime(t *testing.T) {
	r := begin(t)
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	r.Pause()
	err := a.putDomain("example.org")
	r.Resume()
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("a change with a hung Redis: %v", err)
	}
	// It was not acknowledged; whether Redis took it, all must agree.
	a.ready(t)
	b := start(t, r.Options(), &redistest.Marker{}).ready(t)
	redistest.Eventually(t, "both daemons agree", func() bool { return a.State.Heads() == b.State.Heads() && a.has("example.org") == b.has("example.org") })
}

func TestMinReplicas(t *testing.T) {
	r := begin(t)
	opt := r.Options()
	opt.MinReplicas = 1
	a := start(t, opt, &redistest.Marker{}).ready(t)
	if err := a.putDomain("example.org"); !errors.Is(err, store.ErrUnconfirmed) {
		t.Fatalf("a change without the replica that was asked for: %v", err)
	}
}

func TestFullDiskCountsAsUnavailable(t *testing.T) {
	r := redistest.Start(t, "maxmemory 3mb", "maxmemory-policy noeviction")
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	big := make([]string, 20_000)
	for i := range big {
		big[i] = fmt.Sprintf("user%d@example.org", i)
	}
	var err error
	for i := 0; i < 20 && err == nil; i++ {
		err = a.Update(context.Background(), store.ShardOf("example.org"), store.Actor{}, false, func(c *store.Change) error {
			c.PutPolicy("example.org", &store.Policy{Policy: access.Policy{ID: fmt.Sprint(i), Scope: access.Scope{Members: big}}})
			return nil
		})
	}
	if !errors.Is(err, store.ErrUnavailable) {
		t.Fatalf("a change that Redis has no room for: %v", err)
	}
}

// A key that somebody made another of: what a change did before it met that key would stand, and be
// followed by daemons, though it was refused.
func TestDamagedKeysTakeNoHalfChange(t *testing.T) {
	ctx := context.Background()
	for _, key := range []string{"docs", "changes", "audit"} {
		t.Run(key, func(t *testing.T) {
			r := begin(t)
			a, b := start(t, r.Options(), &redistest.Marker{}).ready(t), start(t, r.Options(), &redistest.Marker{}).ready(t)
			if err := a.putDomain("example.org"); err != nil {
				t.Fatal(err)
			}
			raw := dial(t, r)
			shard := store.ShardOf("example.org")
			name := fmt.Sprintf("drawbridge:{s%02d}:%s", int(shard), key)
			before := a.State.Head(shard)
			if err := errors.Join(raw.Rename(ctx, name, name+":aside").Err(), raw.Set(ctx, name, "x", 0).Err()); err != nil {
				t.Fatal(err)
			}
			if err := a.putDomain("example.org"); !errors.Is(err, store.ErrDamaged) || !errors.Is(err, store.ErrUnavailable) {
				t.Fatalf("a change: %v", err)
			}
			if err := raw.Rename(ctx, name+":aside", name).Err(); err != nil {
				t.Fatal(err)
			}
			redistest.Eventually(t, "the store is believed again", func() bool { return a.Trouble() == nil && b.Trouble() == nil })
			if got := a.State.Head(shard); got != before {
				t.Errorf("a refused change left %v, before it was %v", got, before)
			}
			// The verification may have seen the damage, and sees the repair a moment later.
			redistest.Eventually(t, "changes are taken once it is repaired", func() bool { return a.putDomain("example.org") == nil })
			redistest.Eventually(t, "both daemons agree", func() bool { return a.State.Heads() == b.State.Heads() })
		})
	}
}

func TestDamagedRecordsHoldUpNoOthers(t *testing.T) {
	r := begin(t)
	ctx, now := context.Background(), time.Now().UTC().Truncate(time.Millisecond)
	j := redisstore.Open(r.Options())
	t.Cleanup(func() { _ = j.Close() })
	raw := dial(t, r)
	if err := raw.Set(ctx, fmt.Sprintf("drawbridge:{s%02d}:logins:bad.example", int(store.ShardOf("bad.example"))), "x", 0).Err(); err != nil {
		t.Fatal(err)
	}
	err := j.AppendRecords(ctx, store.BatchID{}, &store.Batch{Records: []store.LoginRecord{record("bad.example", "eve@bad.example", now, access.Deny), record("example.org", "ann@example.org", now, access.Deny)}})
	if !errors.Is(err, store.ErrDamaged) {
		t.Fatalf("records of which one cannot be written: %v", err)
	}
	items, _, err := j.Records(ctx, store.RecordQuery{Domain: "example.org", Limit: 10})
	if err != nil || len(items) != 1 {
		t.Errorf("%d records of the other domain, %v", len(items), err)
	}
}

func record(domain, account string, at time.Time, o access.Outcome) store.LoginRecord {
	return store.LoginRecord{
		ID: fmt.Sprintf("%012x%s", at.UnixMilli(), store.NewID()), Time: at, Domain: domain, Account: account,
		IP: "203.0.113.9", Protocol: "imap", Outcome: o, Reason: access.ReasonOK,
	}
}

func TestRecords(t *testing.T) {
	r := begin(t)
	j := redisstore.Open(r.Options())
	t.Cleanup(func() { _ = j.Close() })
	ctx := context.Background()
	now := time.Now().UTC().Truncate(time.Millisecond)
	var list []store.LoginRecord
	for i := range 1200 {
		o := access.Allow
		if i%2 == 1 {
			o = access.Next
		}
		list = append(list, record("example.org", fmt.Sprintf("u%d@example.org", i%3), now.Add(time.Duration(i)*time.Millisecond), o))
		if i == 700 {
			list[i].Client = "web"
		}
	}
	closing := store.Closing{Domain: "example.org", ID: list[1199].ID, Outcome: access.Deny, Reason: access.ReasonBadSecret, Time: now}
	if err := j.AppendRecords(ctx, store.BatchID{}, &store.Batch{Records: list, Closings: []store.Closing{closing}}); err != nil {
		t.Fatal(err)
	}
	var got []store.LoginRecord
	for cursor, pages := "", 0; ; pages++ {
		items, next, err := j.Records(ctx, store.RecordQuery{Domain: "example.org", Account: "u1@example.org", Limit: 150, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, items...)
		if cursor = next; next == "" {
			break
		}
		if pages > 10 {
			t.Fatal("the cursor never ends")
		}
	}
	if len(got) != 400 {
		t.Fatalf("%d records of u1, want 400", len(got))
	}
	for i := 1; i < len(got); i++ {
		if !got[i].Time.Before(got[i-1].Time) {
			t.Fatal("records are not newest first")
		}
	}
	items, _, err := j.Records(ctx, store.RecordQuery{Domain: "example.org", Outcome: "deny", Limit: 10})
	if err != nil || len(items) != 1 || items[0].ID != closing.ID || items[0].Reason != access.ReasonBadSecret || items[0].ClosedAt.IsZero() {
		t.Fatalf("the closed record: %+v, %v", items, err)
	}
	if items, _, err := j.Records(ctx, store.RecordQuery{Domain: "example.org", Client: "web", Limit: 10}); err != nil || len(items) != 1 || items[0].ID != list[700].ID {
		t.Fatalf("records of one client type: %+v, %v", items, err)
	}
	if items, _, _ := j.Records(ctx, store.RecordQuery{Domain: "other.example", Limit: 10}); len(items) != 0 {
		t.Fatalf("records of another domain: %+v", items)
	}
	if _, _, err := j.Records(ctx, store.RecordQuery{Domain: "example.org", Cursor: "x", Limit: 1}); !errors.Is(err, store.ErrBadCursor) {
		t.Fatalf("a made-up cursor: %v", err)
	}
}

// One record by its id, wherever in the stream it is, and with its end.
func TestRecord(t *testing.T) {
	r := begin(t)
	j := redisstore.Open(r.Options())
	t.Cleanup(func() { _ = j.Close() })
	ctx, now := context.Background(), time.Now().UTC().Truncate(time.Millisecond)
	var list []store.LoginRecord
	for range 1200 {
		list = append(list, record("example.org", "ann@example.org", now, access.Next))
	}
	// Written an hour after the login, as when Redis was away; and a daemon's clock that is ahead
	// of Redis's.
	list = append(list, record("example.org", "ann@example.org", now.Add(-time.Hour), access.Deny), record("example.org", "ann@example.org", now.Add(30*time.Second), access.Deny))
	list[7].Note = `"id":"` + list[1100].ID + `"` // tries to pass for another
	closing := store.Closing{Domain: "example.org", ID: list[1199].ID, Outcome: access.Deny, Reason: access.ReasonBadSecret, Time: now}
	if err := j.AppendRecords(ctx, store.BatchID{}, &store.Batch{Records: list, Closings: []store.Closing{closing}}); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 7, 1100, 1199, 1200, 1201} {
		got, err := j.Record(ctx, "example.org", list[i].ID)
		if err != nil || got.ID != list[i].ID || !got.Time.Equal(list[i].Time) || i == 1199 && (got.Reason != access.ReasonBadSecret || got.ClosedAt.IsZero()) {
			t.Errorf("record %d: %+v, %v", i, got, err)
		}
	}
	for _, id := range []string{"", "x", list[0].ID[:20], strings.ToUpper(list[0].ID), list[0].ID + "00", record("example.org", "", now, access.Deny).ID, strings.Repeat("f", 28), `","note":"`} {
		if got, err := j.Record(ctx, "example.org", id); !errors.Is(err, store.ErrNoRecord) {
			t.Errorf("record %q: %+v, %v", id, got, err)
		}
	}
	if _, err := j.Record(ctx, "other.example", list[0].ID); !errors.Is(err, store.ErrNoRecord) {
		t.Errorf("a record of another domain: %v", err)
	}
}

func TestExpireForgetsOldRecords(t *testing.T) {
	r := begin(t)
	opt := r.Options()
	opt.Retention = time.Hour
	j := redisstore.Open(opt)
	t.Cleanup(func() { _ = j.Close() })
	ctx := context.Background()
	rec := record("example.org", "ann@example.org", time.Now(), access.Next)
	end := store.Closing{Domain: "example.org", ID: rec.ID, Outcome: access.Allow}
	gone := store.Closing{Domain: "example.org", ID: "0000" + rec.ID[4:], Outcome: access.Allow}
	if err := j.AppendRecords(ctx, store.BatchID{}, &store.Batch{Records: []store.LoginRecord{rec}, Closings: []store.Closing{end, gone}}); err != nil {
		t.Fatal(err)
	}
	if err := j.Expire(ctx, "example.org", time.Now(), 0); err != nil {
		t.Fatal(err)
	}
	raw := dial(t, r)
	key := fmt.Sprintf("drawbridge:{s%02d}:closed:example.org", int(store.ShardOf("example.org")))
	if n := raw.HLen(ctx, key).Val(); n != 1 {
		t.Fatalf("%d ends kept, want that of the one record that is left", n)
	}
}

func TestAuditIsOneTransactionWithItsChange(t *testing.T) {
	r := begin(t)
	a := start(t, r.Options(), &redistest.Marker{}).ready(t)
	for i := range 7 {
		if err := a.putDomain(fmt.Sprintf("d%d.example", i)); err != nil {
			t.Fatal(err)
		}
	}
	var got []store.AuditEntry
	for cursor := ""; ; {
		items, next, err := a.redis.Audit(context.Background(), store.AuditQuery{Limit: 3, Cursor: cursor})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, items...)
		if cursor = next; next == "" {
			break
		}
	}
	if len(got) != 7 {
		b, _ := json.Marshal(got)
		t.Fatalf("%d audit entries, want 7: %s", len(got), b)
	}
	one, _, err := a.redis.Audit(context.Background(), store.AuditQuery{Domain: "d3.example", Limit: 10})
	if err != nil || len(one) != 1 || one[0].Target != "d3.example" || one[0].Actor.Name != "test" {
		t.Fatalf("audit of one domain: %+v, %v", one, err)
	}
	middle := got[3].Time
	for _, since := range []time.Time{middle, time.Now().Add(time.Hour)} {
		items, _, err := a.redis.Audit(context.Background(), store.AuditQuery{Since: since, Limit: 10})
		if err != nil || slices.ContainsFunc(items, func(e store.AuditEntry) bool { return e.Time.Before(since) }) || (len(items) == 0) == since.Equal(middle) {
			t.Errorf("audit since %v: %+v, %v", since, items, err)
		}
	}
}

func TestEventsReachOtherDaemons(t *testing.T) {
	r := begin(t)
	j := redisstore.Open(r.Options())
	t.Cleanup(func() { _ = j.Close() })
	want := store.Event{Origin: "a", Time: time.Now().Add(-time.Minute), Kind: store.EventGuess, Token: 1<<63 + 5, Account: "ann@example.org", IP: "203.0.113.9", Protocol: "smtp", Service: "submission587", Credential: "5e2f"}
	if err := j.AppendEvents(context.Background(), []store.Event{want}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var got store.Event
	_ = j.FollowEvents(ctx, "", time.Minute, func(e store.Event) { got = e; cancel() })
	if age := time.Since(got.Time); age < time.Minute || age > 2*time.Minute {
		t.Errorf("an event of a minute ago is %s old", age)
	}
	place := got.Place
	got.Place, got.Time, want.Time = "", time.Time{}, time.Time{}
	if got != want {
		t.Fatalf("got %+v, want %+v", got, want)
	}

	// Once the older ones are read, an event is of now, whatever the clocks of others say.
	ctx, cancel = context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	want.Time = time.Now().Add(6 * time.Hour)
	if err := j.AppendEvents(ctx, []store.Event{want}); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	_ = j.FollowEvents(ctx, place, time.Minute, func(e store.Event) { got = e; cancel() })
	if got.Place == place || got.Time.After(time.Now()) || began.Sub(got.Time) > 2*time.Second {
		t.Errorf("an event of a daemon whose clock is six hours ahead: %+v at %s", got, began)
	}
}

func TestLastUses(t *testing.T) {
	r := begin(t)
	j := redisstore.Open(r.Options())
	t.Cleanup(func() { _ = j.Close() })
	ctx := context.Background()
	use := store.LastUse{Time: time.Now().UTC().Truncate(time.Second), IP: "203.0.113.9", Protocol: "imap"}
	if err := j.Touch(ctx, "ann@example.org", map[string]store.LastUse{"id1": use}); err != nil {
		t.Fatal(err)
	}
	got, err := j.LastUses(ctx, "ann@example.org")
	if err != nil || len(got) != 1 || got["id1"] != use {
		t.Fatalf("%+v, %v", got, err)
	}
	if err := j.Forget(ctx, "example.org", []string{"ann@example.org"}); err != nil {
		t.Fatal(err)
	}
	if got, _ := j.LastUses(ctx, "ann@example.org"); len(got) != 0 {
		t.Fatalf("forgotten, and still there: %+v", got)
	}
}

// What is usual for a deleted account is not usual for the next one of its name. Others keep theirs.
func TestForgetAccounts(t *testing.T) {
	r := begin(t)
	j := redisstore.Open(r.Options())
	t.Cleanup(func() { _ = j.Close() })
	ctx, of := t.Context(), []string{"ann@example.org", "bob@example.org"}
	known := func() map[string][]byte {
		t.Helper()
		got, err := j.Habits(ctx, of)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	for _, domain := range []string{"", "example.org"} {
		if err := j.PutHabits(ctx, map[string][]byte{of[0]: []byte("a"), of[1]: []byte("b")}); err != nil {
			t.Fatal(err)
		}
		if err := j.Forget(ctx, domain, of[:1]); err != nil {
			t.Fatal(err)
		}
		if got := known(); got[of[0]] != nil || (got[of[1]] == nil) != (domain != "") {
			t.Errorf("domain %q: %q", domain, got)
		}
	}
}

// A block ends on time on every daemon, also while Redis is away.
func TestBlocksEndOnTime(t *testing.T) {
	r := begin(t)
	a, b := start(t, r.Options(), &redistest.Marker{}).ready(t), start(t, r.Options(), &redistest.Marker{}).ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	block := func(id, network string, expires time.Time) {
		t.Helper()
		err := a.Update(context.Background(), store.ShardOf("example.org"), store.Actor{}, false, func(c *store.Change) error {
			c.PutBlock("example.org", &store.Block{ID: id, Network: network, ExpiresAt: expires, CreatedAt: c.Now})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	ends := [...]time.Time{now.Add(2 * time.Second), now.Add(3 * time.Second), {}, now.Add(-time.Second)}
	for i, at := range ends {
		block(fmt.Sprint(i+1), fmt.Sprintf("192.0.2.%d", i+1), at)
	}
	refused := func(d *daemon) (list []int) {
		_, v := d.State.View("ann@example.org")
		for i := 1; i <= 4; i++ {
			l := &access.Login{Protocol: access.IMAP, IP: netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
			q := &access.Query{Login: l, Address: "ann@example.org", Rules: v.Rules, Secret: access.Secret{State: access.SecretEmpty}}
			if access.Decide(q, nil, false).Reason == access.ReasonIPBlocked {
				list = append(list, i)
			}
		}
		return list
	}
	// A block that is missing has ended, however late that is seen.
	early := func(list []int) bool {
		for i, at := range ends[:3] {
			if !slices.Contains(list, i+1) && (at.IsZero() || time.Now().Before(at)) {
				return true
			}
		}
		return slices.Contains(list, 4)
	}
	redistest.Eventually(t, "both refuse what is blocked", func() bool { return !early(refused(a)) && !early(refused(b)) })
	r.Kill()
	version, before := b.State.Version(), refused(b)
	redistest.Eventually(t, "the blocks end", func() bool {
		x, y := refused(a), refused(b)
		if early(x) || early(y) {
			t.Errorf("a block ended too early: %v, %v", x, y)
		}
		return slices.Equal(x, []int{3}) && slices.Equal(y, []int{3})
	})
	if len(before) > 1 && b.State.Version() == version {
		t.Error("what was decided before a block ended passes for up to date")
	}
}

// A batch is written once, whatever is lost of its answers, and each run of a daemon has its own
// numbers.
func TestRecordsAreWrittenOnce(t *testing.T) {
	r := begin(t)
	_, j := redistest.NewStore(t, r.Options())
	ctx, now := context.Background(), time.Now()
	write := func(id store.BatchID, domains ...string) {
		t.Helper()
		var list []store.LoginRecord
		for _, d := range domains {
			list = append(list, record(d, "ann@"+d, now, access.Deny))
		}
		if err := j.AppendRecords(ctx, id, &store.Batch{Records: list}); err != nil {
			t.Fatal(err)
		}
	}
	write(store.BatchID{Origin: "a", N: 1}, "example.org", "other.example")
	write(store.BatchID{Origin: "a", N: 1}, "example.org", "other.example")
	write(store.BatchID{Origin: "a", N: 2}, "example.org")
	write(store.BatchID{Origin: "a", N: 1}, "example.org")
	write(store.BatchID{Origin: "b", N: 1}, "example.org")
	write(store.BatchID{}, "example.org")
	write(store.BatchID{}, "example.org")
	for domain, want := range map[string]int{"example.org": 5, "other.example": 1} {
		list, _, err := j.Records(ctx, store.RecordQuery{Domain: domain, Limit: 100})
		if err != nil || len(list) != want {
			t.Errorf("%s has %d records (%v), want %d", domain, len(list), err, want)
		}
	}
}
