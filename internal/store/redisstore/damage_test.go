package redisstore_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func shardKey(domain, what string) string {
	return fmt.Sprintf("drawbridge:{s%02d}:%s", int(store.ShardOf(domain)), what)
}

// The checksum of a change that writes a document twice, or writes and deletes it, and of one with
// more documents than a portion of the script, is that of the documents that are left.
func TestChecksumOfManyDocuments(t *testing.T) {
	r := begin(t)
	m := &redistest.Marker{}
	a := start(t, r.Options(), m).ready(t)
	a.Timeout = time.Minute // many documents, and the machine may be slow
	account := func(i int) string { return fmt.Sprintf("user%d@example.org", i) }
	shard := store.ShardOf("example.org")
	for round := range 3 {
		err := a.Update(context.Background(), shard, store.Actor{}, false, func(c *store.Change) error {
			for i := range 1200 {
				c.PutAccount(&store.Account{Address: account(i % 1100), Departments: []string{fmt.Sprint(round, i)}})
			}
			for i := range 600 {
				c.DeleteAccount(account(i))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	late := start(t, r.Options(), &redistest.Marker{ID: m.ID}).ready(t) // loads no damaged store
	if _, accounts := late.State.Counts(); accounts != 500 {
		t.Errorf("%d accounts", accounts)
	}
}

// Whatever happens to the documents beside Drawbridge: a daemon that starts does not load them, a
// running one decides from memory and refuses changes, and repairs the store or accepts it.
func TestDamagedStore(t *testing.T) {
	const name = "example.org"
	ctx := context.Background()
	damages := map[string]struct {
		do    func(raw redis.UniversalClient) error
		count bool // the number of documents shows it to a running daemon
	}{
		"all documents are gone": {func(raw redis.UniversalClient) error { return raw.Del(ctx, shardKey(name, "docs")).Err() }, true},
		"one is gone": {func(raw redis.UniversalClient) error {
			return raw.HDel(ctx, shardKey(name, "docs"), "domain/"+name).Err()
		}, true},
		"one more": {func(raw redis.UniversalClient) error {
			return raw.HSet(ctx, shardKey(name, "docs"), "policy/"+name+"/1", `{"r":1,"b":{"id":"1"}}`).Err()
		}, true},
		"one is altered": {func(raw redis.UniversalClient) error {
			return raw.HSet(ctx, shardKey(name, "docs"), "domain/"+name, `{"r":1,"b":{"name":"example.org","trace_header":true}}`).Err()
		}, false},
		"one is no JSON": {func(raw redis.UniversalClient) error {
			return raw.HSet(ctx, shardKey(name, "docs"), "domain/"+name, `{"r":`).Err()
		}, false},
		"the checksum is gone": {func(raw redis.UniversalClient) error {
			return raw.HDel(ctx, shardKey(name, "head"), "count", "digest").Err()
		}, true},
	}
	for what, damage := range damages {
		t.Run(what, func(t *testing.T) {
			r := begin(t)
			m := &redistest.Marker{}
			a := start(t, r.Options(), m).ready(t)
			if err := errors.Join(a.putDomain(name), a.putDomain("other.example")); err != nil {
				t.Fatal(err)
			}
			raw := dial(t, r)
			if err := damage.do(raw); err != nil {
				t.Fatal(err)
			}
			if damage.count {
				redistest.Eventually(t, "the running daemon notices", func() bool { return errors.Is(a.Trouble(), store.ErrDamaged) })
			}
			redistest.Eventually(t, "the running daemon reports it", func() bool { return errors.Is(a.Damage(), store.ErrDamaged) })
			if err := a.putDomain("other.example"); !errors.Is(err, store.ErrDamaged) {
				t.Errorf("a change: %v", err)
			}
			if !a.has(name) {
				t.Error("the running daemon forgot the domain")
			}
			late := start(t, r.Options(), &redistest.Marker{ID: m.ID})
			redistest.Eventually(t, "a daemon that starts notices", func() bool { return errors.Is(late.Trouble(), store.ErrDamaged) })
			if ok, _ := late.State.Ready(); ok {
				t.Fatal("a damaged store was loaded")
			}
			if _, err := late.Repair(ctx, false); !errors.Is(err, store.ErrCannotRepair) {
				t.Errorf("a repair by a daemon that knows nothing: %v", err)
			}
			if n, err := a.Repair(ctx, true); n != 1 || err != nil {
				t.Errorf("a dry run repairs %d shards: %v", n, err)
			}
			if n, err := a.Repair(ctx, false); n != 1 || err != nil {
				t.Fatalf("repaired %d shards: %v", n, err)
			}
			if _, err := a.Repair(ctx, false); !errors.Is(err, store.ErrNothingToRepair) {
				t.Errorf("a second repair: %v", err)
			}
			late.ready(t)
			a.ready(t)
			if d, _ := late.State.Domain(name); d.Doc == nil || d.Doc.TraceHeader || late.State.Heads() != a.State.Heads() {
				t.Errorf("loaded %+v after the repair", d.Doc)
			}
			if err := errors.Join(a.putDomain(name), late.putDomain("new.example")); err != nil {
				t.Errorf("changes after the repair: %v", err)
			}
		})
	}
}

// A shard's head is lost: a daemon that remembers the shard puts it back, unless the shard has
// changes that it never saw.
func TestMissingHead(t *testing.T) {
	const name = "example.org"
	ctx := context.Background()
	for what, shard := range map[string]store.Shard{"of a domain's shard": store.ShardOf(name), "of the global shard": store.Global} {
		t.Run(what, func(t *testing.T) {
			r := begin(t)
			m := &redistest.Marker{}
			a := start(t, r.Options(), m).ready(t)
			if err := a.putDomain(name); err != nil {
				t.Fatal(err)
			}
			raw := dial(t, r)
			head := shardKey(name, "head")
			if shard == store.Global {
				head = "drawbridge:{g}:head"
			}
			want, err := raw.HGetAll(ctx, head).Result()
			if err != nil {
				t.Fatal(err)
			}
			if err := raw.Del(ctx, head).Err(); err != nil {
				t.Fatal(err)
			}
			redistest.Eventually(t, "the running daemon notices", func() bool { return errors.Is(a.Trouble(), store.ErrForeign) })
			if err := a.putDomain("other.example"); err == nil {
				t.Error("a change was accepted")
			}
			late := start(t, r.Options(), &redistest.Marker{ID: m.ID})
			redistest.Eventually(t, "a daemon that starts notices", func() bool { return errors.Is(late.Trouble(), store.ErrForeign) })
			if n, err := a.Repair(ctx, false); n != 1 || err != nil {
				t.Fatalf("repaired %d shards: %v", n, err)
			}
			if got := raw.HGetAll(ctx, head).Val(); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("the head is %v, want %v", got, want)
			}
			a.ready(t)
			late.ready(t)
			if err := errors.Join(a.putDomain(name), late.putDomain("new.example")); err != nil {
				t.Errorf("changes after the repair: %v", err)
			}

			// A change that the daemon in question never saw.
			stream := strings.TrimSuffix(head, "head") + "changes"
			if err := raw.XAdd(ctx, &redis.XAddArgs{Stream: stream, ID: "1000-0", Values: []string{"p", "{}", "h", ""}}).Err(); err != nil {
				t.Fatal(err)
			}
			if err := raw.Del(ctx, head).Err(); err != nil {
				t.Fatal(err)
			}
			if _, err := a.Repair(ctx, false); !errors.Is(err, store.ErrCannotRepair) {
				t.Errorf("repair over an unseen change: %v", err)
			}
		})
	}
}

// Without a daemon that remembers, the documents that are left can be accepted; daemons that knew
// others load them too.
func TestDamagedStoreIsAccepted(t *testing.T) {
	r := begin(t)
	m := &redistest.Marker{}
	a := start(t, r.Options(), m).ready(t)
	if err := errors.Join(a.putDomain("example.org"), a.putDomain("other.example")); err != nil {
		t.Fatal(err)
	}
	raw := dial(t, r)
	if err := raw.Del(context.Background(), shardKey("example.org", "docs")).Err(); err != nil {
		t.Fatal(err)
	}
	late := start(t, r.Options(), &redistest.Marker{ID: m.ID})
	redistest.Eventually(t, "the damage is noticed", func() bool { return errors.Is(late.Trouble(), store.ErrDamaged) })
	if _, err := late.Adopt(context.Background()); err != nil {
		t.Fatal(err)
	}
	late.ready(t)
	redistest.Eventually(t, "the other daemon accepts it too", func() bool { return a.Trouble() == nil && !a.has("example.org") })
	if late.has("example.org") || !late.has("other.example") {
		t.Error("not what was left")
	}
	if err := errors.Join(a.putDomain("example.org"), late.putDomain("other.example")); err != nil {
		t.Errorf("changes afterwards: %v", err)
	}
}

// An evicting Redis drops the documents, which are read once, and keeps the heads, which are read
// every second.
func TestEvictedDocuments(t *testing.T) {
	r := redistest.Start(t, "maxmemory-policy allkeys-lru")
	m := &redistest.Marker{}
	a := start(t, r.Options(), m).ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	raw := dial(t, r)
	if err := raw.ConfigSet(ctx, "maxmemory", "3mb").Err(); err != nil {
		t.Fatal(err)
	}
	for i := 0; raw.Exists(ctx, shardKey("example.org", "docs")).Val() == 1; i++ {
		if err := raw.Set(ctx, fmt.Sprintf("cache:%d", i), make([]byte, 4096), 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	late := start(t, r.Options(), &redistest.Marker{ID: m.ID})
	redistest.Eventually(t, "the loss is noticed", func() bool { return late.Trouble() != nil && a.Trouble() != nil })
	if ok, _ := late.State.Ready(); ok {
		t.Fatal("a store with a hole was loaded")
	}
	if !a.has("example.org") {
		t.Fatal("the running daemon forgot the domain")
	}
	if err := raw.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Repair(ctx, false); err != nil {
		t.Fatal(err)
	}
	if !late.ready(t).has("example.org") {
		t.Error("the domain is lost after the repair")
	}
}

// accounts puts so many accounts of a domain.
func (d *daemon) accounts(t *testing.T, domain string, n int) {
	t.Helper()
	const atOnce = 5000
	for from := 0; from < n; from += atOnce {
		err := d.Update(context.Background(), store.ShardOf(domain), store.Actor{}, false, func(c *store.Change) error {
			for i := from; i < min(n, from+atOnce); i++ {
				c.PutAccount(&store.Account{Address: fmt.Sprintf("user%d@%s", i, domain), CreatedAt: c.Now})
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// A shard of more documents than are sent at a time is repaired as a whole, or not at all.
func TestRepairInPortions(t *testing.T) {
	const name, accounts = "example.org", 4500
	r := redistest.Start(t, "appendfsync no")
	m := &redistest.Marker{}
	a := start(t, r.Options(), m).ready(t)
	a.Timeout = time.Minute // many documents, and the machine may be slow
	a.accounts(t, name, accounts)
	ctx, raw := context.Background(), dial(t, r)
	if err := raw.HDel(ctx, shardKey(name, "docs"), "account/user7@"+name).Err(); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the loss is noticed", func() bool { return a.Damage() != nil })

	// Out of memory in the middle: what is there stays, and what was sent is removed.
	if err := raw.ConfigSet(ctx, "maxmemory", "1").Err(); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Repair(ctx, false); !errors.Is(err, store.ErrRefused) {
		t.Errorf("a repair without memory: %v", err)
	}
	if n := raw.HLen(ctx, shardKey(name, "docs")).Val(); n != accounts-1 {
		t.Errorf("%d documents after a repair that was refused", n)
	}
	if err := raw.ConfigSet(ctx, "maxmemory", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Repair(ctx, false); n != 1 || err != nil {
		t.Fatal(n, err)
	}
	if keys := raw.Keys(ctx, "*restoring*").Val(); len(keys) > 0 {
		t.Errorf("left over: %q", keys)
	}
	if ttl := raw.TTL(ctx, shardKey(name, "docs")).Val(); ttl != -1 {
		t.Errorf("the documents expire after %s", ttl)
	}
	late := start(t, r.Options(), &redistest.Marker{ID: m.ID}).ready(t)
	if _, n := late.State.Counts(); n != accounts {
		t.Errorf("%d accounts", n)
	}
	a.accounts(t, name, 1) // changes are accepted
}

// A store of schema 2 has no checksums, and its accounts are JSON: the first daemon that loads it
// adds the checksums and reads the accounts, and a daemon of schema 2 takes no changes from then on.
func TestUpgradeFromSchema2(t *testing.T) {
	r := begin(t)
	ctx := context.Background()
	m := &redistest.Marker{}
	a := newDaemon(t, r.Options(), m)
	running, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() { defer close(ended); a.Run(running) }()
	a.ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	if err := a.Update(ctx, store.ShardOf("example.org"), store.Actor{}, false, func(c *store.Change) error {
		c.PutAccount(&store.Account{Address: "ann@example.org"})
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	stop()
	<-ended // or it adds checksums before the documents are altered
	raw := dial(t, r)
	heads, err := raw.Keys(ctx, "drawbridge:*:head").Result()
	if err != nil || len(heads) != store.Shards {
		t.Fatal(heads, err)
	}
	// First, because the running daemon adds checksums as well.
	const packed, asJSON = "account/ann@example.org", `{"r":7,"b":{"address":"bob@example.org","suspended":true,"secrets":[{"id":"1","label":"phone","hash":"` +
		`AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA","pepper_id":"p","created_at":"2026-11-28T12:00:00Z"}]}}`
	docs := shardKey("example.org", "docs")
	if v := raw.HGet(ctx, docs, packed).Val(); v == "" || v[0] == '{' {
		t.Errorf("an account is kept as %q", v)
	}
	if err := errors.Join(raw.HDel(ctx, docs, packed).Err(), raw.HSet(ctx, docs, "account/bob@example.org", asJSON).Err()); err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]string{}
	for _, key := range heads {
		want[key] = raw.HGetAll(ctx, key).Val()
		if err := errors.Join(raw.HSet(ctx, key, "schema", 2).Err(), raw.HDel(ctx, key, "count", "digest").Err()); err != nil {
			t.Fatal(err)
		}
	}
	delete(want[shardKey("example.org", "head")], "digest") // that of the documents before
	b := start(t, r.Options(), &redistest.Marker{ID: m.ID}).ready(t)
	if bob, ok := b.State.Account("bob@example.org"); !ok || !bob.Doc.Suspended || bob.Rev != 7 || len(bob.Doc.Secrets) != 1 || bob.Doc.Secrets[0].Label != "phone" {
		t.Errorf("a JSON account became %+v", bob)
	}
	for _, key := range heads {
		if _, known := want[key]["digest"]; !known {
			continue
		}
		if got := raw.HGetAll(ctx, key).Val(); fmt.Sprint(got) != fmt.Sprint(want[key]) {
			t.Errorf("%s is %v, want %v", key, got, want[key])
		}
	}
	if err := b.putDomain("example.org"); err != nil || !b.has("example.org") {
		t.Error(err)
	}
	if schema := raw.HGet(ctx, heads[0], "schema").Val(); schema != strconv.Itoa(store.Schema) {
		t.Errorf("schema %s", schema)
	}
}
