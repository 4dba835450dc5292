package store

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

// change is one entry of a shard for tests.
func change(t *testing.T, puts map[string]any, dels ...string) *Entry {
	t.Helper()
	e := &Entry{Dels: dels}
	for key, v := range puts {
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		e.Puts = append(e.Puts, Doc{Key: key, Rev: 1, Body: body})
	}
	return e
}

func TestWatchReportsWhatChanged(t *testing.T) {
	const name, ann = "example.org", "ann@example.org"
	st := NewState()
	at := time.Now().UTC()
	secrets := func(revoked time.Time) []SecurePassword {
		return []SecurePassword{{ID: "1", CreatedAt: at}, {ID: "2", CreatedAt: at, RevokedAt: revoked}}
	}
	apply := func(s Shard, e *Entry) {
		t.Helper()
		if err := st.apply(s, Head{N: 1}, e); err != nil {
			t.Fatal(err)
		}
	}
	apply(ShardOf(name), change(t, map[string]any{
		"domain/" + name: Domain{Name: name},
		"account/" + ann: Account{Address: ann, MailboxHash: "{X}a", Secrets: secrets(time.Time{})},
	}))
	w := st.Watch()
	defer w.Close()
	ended := at.Add(time.Hour)
	apply(ShardOf(name), change(t, map[string]any{"account/" + ann: Account{Address: ann, MailboxHash: "{X}a", Secrets: secrets(at)}}))
	apply(ShardOf(name), change(t, map[string]any{"account/" + ann: Account{Address: ann, MailboxHash: "{X}b", Secrets: secrets(at)}}))
	apply(ShardOf(name), change(t, map[string]any{"block/" + name + "/1": Block{ID: "1", Network: "192.0.2.1", ExpiresAt: ended}}))
	apply(Global, change(t, map[string]any{"client/web": ClientType{Type: "web"}, "name/example.net": Claim{Domain: name}}))
	apply(Global, change(t, map[string]any{"name/example.com": Claim{Domain: name}}))
	apply(Global, change(t, map[string]any{"key/1": Key{ID: "1", Hash: "h"}}))
	apply(Global, change(t, nil, "key/1"))
	st.expire(ended)
	apply(ShardOf(name), change(t, nil, "domain/"+name, "account/"+ann))
	want := []StateEvent{
		{Accounts: []string{ann}, Revoked: []Credential{{ann, "2"}}},
		{Accounts: []string{ann}, Revoked: []Credential{{ann, CredentialMailbox}}},
		{Domains: []string{name}},
		{ClientTypes: []access.ClientType{"web"}},
		{Keys: []string{"1"}},
		{Keys: []string{"1"}},
		{Domains: []string{name}}, // the block has expired
		{Domains: []string{name}, Accounts: []string{ann}, Revoked: []Credential{{ann, "1"}, {ann, CredentialMailbox}}},
	}
	for i, e := range want {
		got, ok := w.take()
		if !ok || fmt.Sprint(got) != fmt.Sprint(e) {
			t.Errorf("event %d: %+v, want %+v", i, got, e)
		}
	}
	if err := st.replace(Global, Head{N: 9}, nil); err != nil {
		t.Fatal(err)
	}
	if e, ok := w.take(); !ok || !reflect.DeepEqual(e, StateEvent{Resync: true}) {
		t.Errorf("after a reload: %+v", e)
	}
	if e, ok := w.take(); ok {
		t.Errorf("one event more: %+v", e)
	}
}

// A watcher that never reads delays no change and holds a bounded number of events; afterwards it
// learns that it missed some.
func TestSlowWatcherResyncs(t *testing.T) {
	st := NewState()
	slow, quick := st.Watch(), st.Watch()
	defer slow.Close()
	const changes = 3 * maxUnread
	seen := make(chan int)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // it reads all the time, and may miss events all the same
		n := 0
		for {
			if _, err := quick.Next(ctx); err != nil {
				t.Error(err)
			}
			n++
			if len(st.Keys()) == 1 || ctx.Err() != nil { // the last change
				seen <- n
				return
			}
		}
	}()
	var writers sync.WaitGroup
	for domain, n := 0, 0; n < 4; domain++ { // each of another shard: changes of one shard come one by one
		name := fmt.Sprintf("d%d.example", domain)
		s := ShardOf(name)
		if s != Shard(n) {
			continue
		}
		n++
		writers.Go(func() {
			for i := range changes / 4 {
				e := change(t, map[string]any{fmt.Sprintf("account/%d@%s", i, name): Account{}})
				if err := st.apply(s, Head{N: uint64(i)}, e); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	if err := st.apply(Global, Head{N: 1}, change(t, map[string]any{"key/last": Key{ID: "last"}})); err != nil {
		t.Fatal(err)
	}
	if n := <-seen; n == 0 {
		t.Error("the reading watcher saw nothing")
	}
	quick.Close()
	if len(slow.events) > maxUnread {
		t.Errorf("%d events are kept", len(slow.events))
	}
	if e, ok := slow.take(); !ok || !e.Resync {
		t.Errorf("the slow watcher is not asked to resync: %+v", e)
	}
	cancel()
	idle := st.Watch()
	defer idle.Close()
	if _, err := idle.Next(ctx); err == nil {
		t.Error("Next returns an event after its context ended")
	}
}
