package store

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

const keptDomain = "example.org"

// keptDocs has a document of every kind.
func keptDocs(t *testing.T) map[Shard][]Doc {
	t.Helper()
	at := time.Date(2026, 11, 28, 12, 0, 0, 123_000_000, time.UTC)
	in := ShardOf(keptDomain)
	docs := map[Shard][]Doc{
		in: {
			doc(t, kindDomain+"/"+keptDomain, &Domain{Name: keptDomain, AliasDomains: []string{"alias.example"}, CreatedAt: at}),
			doc(t, kindDepartment+"/"+keptDomain+"/sales/emea", &Department{Path: "sales/emea", Name: "EMEA"}),
			only(t, keptDomain, 1),
			doc(t, kindHeld+"/"+keptDomain+"/h", &Held{ID: "h", State: HeldWaiting, HeldAt: at}),
			doc(t, kindBlock+"/"+keptDomain+"/b", &Block{ID: "b", Network: "192.0.2.0/24"}),
			doc(t, kindMailRule+"/"+keptDomain+"/m", &MailRule{Rule: mailflow.Rule{ID: "m", Kind: mailflow.KindInternalOnly, Enabled: true}, CreatedAt: at}),
			doc(t, kindGroup+"/"+keptDomain+"/team@"+keptDomain, &Group{Group: mailflow.Group{Address: "team@" + keptDomain}, CreatedAt: at}),
			doc(t, kindSuspension+"/"+keptDomain+"/s", &Suspension{ID: "s", Account: "ann@" + keptDomain, Credential: "1", At: at}),
			doc(t, kindRevert+"/"+keptDomain+"/r", &Revert{ID: "r", At: at}),
			doc(t, kindAccount+"/ann@"+keptDomain, &Account{
				Address: "ann@" + keptDomain, Suspended: true, Departments: []string{"sales/emea"}, Protocols: access.Switches{"imap": false},
				MailboxHash: "{X}y", Aliases: []string{"a@" + keptDomain}, SendAs: []string{}, CreatedAt: at,
				Secrets: []SecurePassword{{ID: "1", Label: "phone", Hash: [32]byte{7}, PepperID: "p", CreatedAt: at, RevokedAt: at}},
			}),
		},
		Global: {
			doc(t, kindClient+"/web", &ClientType{}),
			doc(t, kindKey+"/k", &Key{ID: "k", Hash: "h"}),
			doc(t, kindName+"/"+keptDomain, Claim{Domain: keptDomain}),
			doc(t, kindPepper+"/fingerprint", "f"),
		},
	}
	have := map[string]bool{}
	for _, list := range docs {
		for i := range list {
			list[i].Rev = uint64(i + 3)
			name, _, _ := strings.Cut(list[i].Key, "/")
			have[name] = true
		}
	}
	for name := range kinds {
		if !have[name] {
			t.Errorf("no document of kind %s", name)
		}
	}
	return docs
}

func keptState(t *testing.T) *State {
	t.Helper()
	st := NewState()
	docs := keptDocs(t)
	for s := range Shard(Shards) {
		if err := st.replace(s, Head{StoreID: "id", N: 9, Hash: strings.Repeat("a", 32)}, docs[s]); err != nil {
			t.Fatal(err)
		}
	}
	return st
}

func documents(t *testing.T, st *State, s Shard) []Doc {
	t.Helper()
	_, docs, err := st.documents(s)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(docs, func(a, b Doc) int { return cmp.Compare(a.Key, b.Key) })
	return docs
}

func recordsOf(t *testing.T, st *State, s Shard) (records [][]byte) {
	t.Helper()
	if err := st.content(s).records(func(r []byte) error { records = append(records, slices.Clone(r)); return nil }); err != nil {
		t.Fatal(err)
	}
	return records
}

// A shard's records hold all documents of the shard, of every kind.
func TestShardRecords(t *testing.T) {
	st := keptState(t)
	more := make([]Doc, 30_000) // several pages
	for i := range more {
		addr := fmt.Sprintf("user%d@%s", i, keptDomain)
		more[i] = doc(t, kindAccount+"/"+addr, &Account{Address: addr, MailboxHash: strings.Repeat("x", 60)})
	}
	if err := st.apply(ShardOf(keptDomain), Head{StoreID: "id", N: 10, Hash: "b"}, &Entry{Puts: more}); err != nil {
		t.Fatal(err)
	}
	for s := range Shard(Shards) {
		records := recordsOf(t, st, s)
		p, err := readShard(reader(records[0][1:]))
		if err != nil || p.shard != s || p.head != st.Head(s) {
			t.Fatalf("read %+v (%v), want shard %d at %v", p, err, s, st.Head(s))
		}
		for _, r := range records[1:] {
			if err := p.readAccounts(reader(r[1:])); err != nil {
				t.Fatal(err)
			}
		}
		if a, b := documents(t, st, s), documents(t, p.fresh, s); !reflect.DeepEqual(a, b) || p.left > 0 {
			t.Errorf("shard %d: read\n%v\nwant\n%v", s, b, a)
		}
	}
	if _, v := st.View("a@alias.example"); v.Account.Address() != "ann@"+keptDomain {
		t.Error("the alias is lost")
	}
}

// The form of records changes only with the number of its version. If this fails, increase
// keptFormat, or a snapshot of the version before is misread.
func TestRecordFormat(t *testing.T) {
	st := NewState()
	docs := keptDocs(t)[ShardOf(keptDomain)]
	account := docs[slices.IndexFunc(docs, func(d Doc) bool { return strings.HasPrefix(d.Key, kindAccount+"/") })]
	account.Rev = 8
	if err := st.replace(ShardOf(keptDomain), Head{StoreID: "id", N: 9}, []Doc{account}); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(slices.Concat(recordsOf(t, st, ShardOf(keptDomain))...))
	if got := hex.EncodeToString(sum[:8]); got != "9792fd0ccadc59f9" || keptFormat != 2 {
		t.Errorf("format %d has sum %s", keptFormat, got)
	}
}

// list is a snapshot in memory.
type list struct {
	records [][]byte
	fail    error
}

func (l *list) Resume(apply func([]byte) error) error {
	for _, r := range l.records {
		if err := apply(r); err != nil {
			return err
		}
	}
	return nil
}
func (l *list) Append(...[]byte) (bool, error)               { return false, l.fail }
func (l *list) Replace(func(func([]byte) error) error) error { return l.fail }
func (l *list) Discard() error                               { return nil }

type known string

func (k known) StoreID() (string, error) { return string(k), nil }
func (k known) SetStoreID(string) error  { return nil }

// Records that are not of this store, or cannot be read, leave the state empty, with the reason in
// the log.
func TestResumeRefuses(t *testing.T) {
	from := &Store{State: keptState(t), Marker: known("id")}
	var records [][]byte
	if err := from.whole(func(r []byte) error { records = append(records, slices.Clone(r)); return nil }); err != nil {
		t.Fatal(err)
	}
	resumed := func(marker string, records ...[]byte) (*Store, string) {
		var log strings.Builder
		s := &Store{State: NewState(), Marker: known(marker), Snapshot: &list{records: records}, Logger: hclog.New(&hclog.LoggerOptions{Output: &log})}
		s.resume()
		return s, log.String()
	}
	s, _ := resumed("id", records...)
	if !s.keeping.resumed || !reflect.DeepEqual(documents(t, s.State, ShardOf(keptDomain)), documents(t, from.State, ShardOf(keptDomain))) {
		t.Fatal("not what was kept")
	}
	if loaded, _ := s.State.Ready(); loaded {
		t.Error("the state serves before the store was asked")
	}
	with := func(i int, record []byte) [][]byte {
		list := slices.Clone(records)
		list[i] = record
		return list
	}
	begin := records[0]
	change := []byte(`{"n":11,"schema":4,"audit":{}}`)
	for what, c := range map[string]struct {
		marker  string
		records [][]byte
		want    string
	}{
		"another store":        {"other", records, "it is of store id, known is other"},
		"a store never seen":   {"", records, "known is none"},
		"another format":       {"id", with(0, append([]byte{recordBegin, 9}, begin[2:]...)), "format 9"},
		"a newer schema":       {"id", with(0, append([]byte{recordBegin, keptFormat, Schema + 1}, begin[3:]...)), "newer version"},
		"a missing shard":      {"id", records[:len(records)-1], "lacks shard 32"},
		"an unknown record":    {"id", append(slices.Clone(records), []byte{99}), "kind 99"},
		"an empty record":      {"id", append(slices.Clone(records), nil), "cannot be read"},
		"half a record":        {"id", with(5, records[5][:len(records[5])-1]), "cannot be read"},
		"a longer record":      {"id", with(5, append(slices.Clone(records[5]), 0)), "bytes too many"},
		"a change left out":    {"id", append(slices.Clone(records), entryRecord(3, Head{Hash: "x"}, change)), "change 11 after 9"},
		"a change not chained": {"id", append(slices.Clone(records), entryRecord(3, Head{Hash: "x"}, []byte(`{"n":10,"schema":4,"audit":{}}`))), "does not continue the chain"},
		"no shard of ours":     {"id", with(5, []byte{recordShard, 77}), "shard 77"},
	} {
		s, log := resumed(c.marker, c.records...)
		if domains, accounts := s.State.Counts(); s.keeping.resumed || domains+accounts > 0 {
			t.Errorf("%s: it is used", what)
		}
		if !strings.Contains(log, c.want) {
			t.Errorf("%s: the log does not say %q: %s", what, c.want, log)
		}
	}
}

// A store of a newer schema is not decided about from an older snapshot.
func TestNewerSchemaIsNotServed(t *testing.T) {
	for err, want := range map[error]bool{ErrUnavailable: true, ErrForeign: true, ErrNewerSchema: false} {
		s := &Store{State: keptState(t), Logger: hclog.NewNullLogger()}
		s.keeping.resumed, s.keeping.synced = true, time.Now()
		s.serveResumed(errors.Join(err))
		if loaded, _ := s.State.Ready(); loaded != want {
			t.Errorf("%v: served %v", err, loaded)
		}
	}
}
