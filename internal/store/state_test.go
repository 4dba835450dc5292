package store

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

func doc(t *testing.T, key string, v any) Doc {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return Doc{Key: key, Body: body}
}

// only is a policy that keeps one account out.
func only(t *testing.T, domain string, i int) Doc {
	t.Helper()
	id := fmt.Sprintf("p%d", i)
	return doc(t, kindPolicy+"/"+domain+"/"+id, &Policy{Policy: access.Policy{
		ID: id, Name: id, Type: access.Blacklist, Enabled: true, Scope: access.Scope{Members: []string{fmt.Sprintf("user%d@%s", i, domain)}},
	}})
}

// Reading and compiling wait for nobody who reads: only putting in place does.
func TestRulesCompileBesideReaders(t *testing.T) {
	const name = "example.org"
	st := NewState()
	if err := st.replace(ShardOf(name), Head{N: 1}, []Doc{doc(t, kindDomain+"/"+name, &Domain{Name: name})}); err != nil {
		t.Fatal(err)
	}
	st.mu.RLock() // a reader that does not end
	prepared := make(chan *stagedChange)
	go func() {
		next, err := st.prepare([]Doc{only(t, name, 1)}, nil, time.Now())
		if err != nil {
			t.Error(err)
		}
		prepared <- next
	}()
	var next *stagedChange
	select {
	case next = <-prepared:
	case <-time.After(time.Minute):
		t.Fatal("compiling waits for readers")
	}
	query := access.Query{Login: &access.Login{Protocol: access.IMAP}, Address: "user1@" + name, Rules: next.domains[name].rules}
	if reason, _ := access.Judge(&query); reason != access.ReasonPolicy {
		t.Errorf("what is prepared is not compiled: %q", reason)
	}
	st.mu.RUnlock()
	if len(st.Policies(name)) != 0 {
		t.Error("what is prepared is in place already")
	}
}

// Whatever happens at once, in the end the rules are those of all changes, and at every moment
// those of one change.
func TestChangesAndExpiriesAtOnce(t *testing.T) {
	const changes = 60
	domains := []string{"a.example", "b.example", "c.example"}
	ip := netip.MustParseAddr("192.0.2.1")
	st := NewState()
	gone := func(n int) bool { return 3*n < changes } // change 3n deletes the policy of change n
	begin := time.Now()
	ended := make(chan struct{})
	var changing, beside sync.WaitGroup
	for _, name := range domains {
		shard := ShardOf(name)
		on := func(n int) Doc {
			return doc(t, kindDomain+"/"+name, &Domain{Name: name, Protocols: access.Switches{"imap": n%2 == 0}})
		}
		if err := st.replace(shard, Head{N: 1}, []Doc{on(0)}); err != nil {
			t.Fatal(err)
		}
		changing.Go(func() {
			for n := range changes {
				e := &Entry{Puts: []Doc{
					on(n), only(t, name, n),
					doc(t, fmt.Sprintf("%s/%s/b%d", kindBlock, name, n%5), &Block{ID: "b", Network: ip.String(), ExpiresAt: begin.Add(time.Hour + time.Duration(n)*time.Second)}),
					doc(t, fmt.Sprintf("%s/user%d@%s", kindAccount, n, name), &Account{Address: "user"}),
				}}
				if n%3 == 0 {
					e.Dels = append(e.Dels, fmt.Sprintf("%s/%s/p%d", kindPolicy, name, n/3))
				}
				if err := st.apply(shard, Head{N: uint64(n + 2)}, e); err != nil {
					t.Error(err)
				}
			}
		})
		beside.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
				}
				before := st.Version()
				_, v := st.View("user1@" + name)
				if on, _ := v.Rules.ProtocolOn(access.IMAP, nil); on != v.Settings.Protocols["imap"] {
					t.Error("a view has the rules of another change")
					return
				}
				if _, again := st.View("user1@" + name); again.Rules != v.Rules && st.Version() == before {
					t.Error("the rules changed, and the version did not")
					return
				}
			}
		})
	}
	beside.Go(func() {
		for n := 0; ; n = (n + 1) % changes {
			select {
			case <-ended:
				return
			default:
				st.expire(begin.Add(time.Hour + time.Duration(n)*time.Second))
			}
		}
	})
	changing.Wait()
	close(ended)
	beside.Wait()

	for _, name := range domains {
		st.expire(begin.Add(2 * time.Hour))
		for i := range changes {
			addr, v := st.View(fmt.Sprintf("user%d@%s", i, name))
			want := access.ReasonPolicy
			if gone(i) {
				want = ""
			}
			if _, kept := st.Policy(name, fmt.Sprintf("p%d", i)); kept == gone(i) {
				t.Errorf("policy %d of %s is kept: %v", i, name, kept)
			}
			q := access.Query{Login: &access.Login{Protocol: access.POP3, IP: ip}, Address: addr, Rules: v.Rules, Client: access.ClientThirdParty}
			if reason, _ := access.Judge(&q); reason != want {
				t.Errorf("%s: %q, by the changes %q", addr, reason, want)
			}
			if !v.Account.Exists() {
				t.Errorf("%s has no record", addr)
			}
		}
	}
}

// A shard with a document that cannot be read takes nothing from what is known.
func TestReplaceIsAllOrNothing(t *testing.T) {
	const name = "example.org"
	shard := ShardOf(name)
	good := Doc{Key: kindDomain + "/" + name, Rev: 1, Body: []byte(`{"name":"example.org","alias_domains":["example.net"]}`)}
	bad := Doc{Key: kindPolicy + "/" + name + "/p", Rev: 2, Body: []byte(`"no policy"`)}
	st := NewState()
	first := Head{StoreID: "s", N: 1, Hash: "a"}
	if err := st.replace(shard, first, []Doc{good}); err != nil {
		t.Fatal(err)
	}
	version := st.Version()
	if err := st.replace(shard, Head{StoreID: "s", N: 2, Hash: "b"}, []Doc{bad}); err == nil {
		t.Fatal("a document that is no policy was read")
	}
	if st.Head(shard) != first || st.Version() != version {
		t.Errorf("head %v, version %d: something changed", st.Head(shard), st.Version())
	}
	if addr, v := st.View("ann@example.net"); !v.Known || v.Rules == nil || addr != "ann@example.org" {
		t.Errorf("the domain is forgotten: %s, %+v", addr, v)
	}
	if err := st.replace(shard, Head{StoreID: "s", N: 3, Hash: "c"}, nil); err != nil {
		t.Fatal(err)
	}
	if _, v := st.View("ann@example.net"); v.Known {
		t.Error("an emptied shard is still known")
	}
}

// replace puts the documents of one shard in place of what was there, as a load does.
func (st *State) replace(s Shard, h Head, docs []Doc) error {
	fresh, err := freshState(s, h, docs)
	if err == nil {
		st.swap(s, h, fresh)
	}
	return err
}
