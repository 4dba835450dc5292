package store

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"
)

// Snapshot keeps the state on disk, as records of this package, for a start without Redis.
type Snapshot interface {
	// Resume passes all records to apply, oldest first; a record is apply's only during the call.
	// The error wraps [fs.ErrNotExist] if there is no snapshot. After an error Append does nothing.
	Resume(apply func(record []byte) error) error
	// Append makes records durable. Without a snapshot it does nothing. long asks for a Replace.
	Append(records ...[]byte) (long bool, err error)
	// Replace writes a new snapshot of the records that all passes to write. Those that are
	// appended meanwhile follow them.
	Replace(all func(write func(record []byte) error) error) error
	// Discard removes the snapshot.
	Discard() error
}

// The kinds of records, the first byte of each. Numbers are varints; texts follow their length.
//
//	begin     format, schema, store id, time of the last agreement with the store
//	shard     shard, head, documents (key, revision, JSON), number of accounts: all of a shard, in
//	          place of what is known of it, once its accounts have followed
//	accounts  domain, number of accounts of the domain that follow, those of this record as [Record]
//	          packs them, each behind its length
//	entry     shard, hash, the entry's JSON: one change, which follows the shard's head
//	agreed    time of an agreement with the store
const (
	recordBegin = iota + 1
	recordShard
	recordEntry
	recordAgreed
	recordAccounts
)

// pageFull is when a record of accounts is long enough. It becomes a page of the index, which is
// longer than that and one account.
const pageFull = pageSize * 7 / 8

// reserve bounds the memory that is reserved because of a number in a snapshot.
const reserve = 1 << 20 // accounts

// keptFormat is the version of the records and of packed accounts. Another version is not read.
const keptFormat = 2

const (
	// keepAgreed is how exactly the time of the last agreement is kept.
	keepAgreed = 10 * time.Second
	// keepAgain is the pause before a snapshot that could not be written is tried again.
	keepAgain = 30 * time.Second
)

// errKept: a snapshot is not of this store or this program.
var errKept = errors.New("the snapshot cannot be used")

// keeping is the state of a store's snapshot.
type keeping struct {
	wanted  chan struct{} // holds a value when a new snapshot is to be written
	resumed bool          // the state is of the snapshot, and the store was not asked yet
	synced  time.Time     // of the snapshot
	agreed  time.Time     // when the last agreement was kept
	partial *partialShard // while the snapshot is read
}

// resume puts the snapshot into the state, which does not serve yet. A snapshot that cannot be used
// is logged and leaves the state empty.
func (s *Store) resume() {
	if s.Snapshot == nil {
		return
	}
	s.keeping.wanted = make(chan struct{}, 1)
	marked, err := s.Marker.StoreID()
	if err == nil {
		err = s.Snapshot.Resume(func(record []byte) error { return s.restoreRecord(record, marked) })
	}
	heads := s.State.Heads()
	for i := range heads {
		if err == nil && heads[i].StoreID != marked {
			err = fmt.Errorf("%w: it lacks shard %d", errKept, i)
		}
	}
	if err != nil {
		s.State.forget()
		if !errors.Is(err, fs.ErrNotExist) {
			s.Logger.Error("the snapshot is not used: without Redis logins are temporary failures", "error", err)
		}
		return
	}
	domains, accounts := s.State.Counts()
	s.Logger.Info("the snapshot was read", "domains", domains, "accounts", accounts, "synced", s.keeping.synced)
	s.keeping.resumed, s.keeping.partial = true, nil
}

// serveResumed lets decisions use the state of the snapshot after the store was asked for the first
// time, with the result err. A newer schema than this program's is not ignored.
func (s *Store) serveResumed(err error) {
	if !s.keeping.resumed {
		return
	}
	s.keeping.resumed = false
	if loaded, _ := s.State.Ready(); loaded {
		return
	}
	if errors.Is(err, ErrNewerSchema) {
		s.State.forget()
		return
	}
	if _, synced := s.State.Ready(); synced.IsZero() {
		now := time.Now()
		s.State.agreed(now.Add(-max(0, now.Sub(s.keeping.synced)))) // see agreed
		s.Logger.Warn("logins are decided from the snapshot until the store is back", "synced", s.keeping.synced, "error", err)
	}
	s.State.loaded.Store(true)
}

// restoreRecord carries out one record of a snapshot. A record that cannot be read is an error.
func (s *Store) restoreRecord(record []byte, marked string) (err error) {
	defer func() {
		if v := recover(); v != nil { // reader relies on valid input
			err = fmt.Errorf("%w: a record cannot be read: %v", errKept, v)
		}
	}()
	partial := s.keeping.partial
	s.keeping.partial = nil // given up when another record follows: it never took effect
	r := reader(record)
	switch kind := r.byte(); kind {
	case recordBegin:
		if v := r.number(); v != keptFormat {
			return fmt.Errorf("%w: it has format %d, and this program reads format %d", errKept, v, keptFormat)
		}
		if v := r.number(); v > Schema {
			return ErrNewerSchema
		}
		if id := r.text(); id != marked || id == "" {
			return fmt.Errorf("%w: it is of store %s, known is %s", errKept, orNone(id), orNone(marked))
		}
		s.keeping.synced = r.timeSince(epoch)
		return nil
	case recordShard, recordAccounts:
		if kind == recordShard {
			partial, err = readShard(r)
		} else {
			err = partial.readAccounts(r)
		}
		if err != nil {
			return err
		}
		s.keeping.partial = partial
		if partial.left == 0 {
			s.State.swap(partial.shard, partial.head, partial.fresh)
			s.keeping.partial = nil
		}
		return nil
	case recordEntry:
		shard := Shard(r.number()) //nolint:gosec // out of range panics
		change := Received{Hash: r.text(), Payload: []byte(r.text())}
		var e Entry
		if err := json.Unmarshal(change.Payload, &e); err != nil {
			return fmt.Errorf("%w: %w", errKept, err)
		}
		h := s.State.Head(shard)
		if e.N <= h.N {
			return nil // the base has it
		}
		change.N = e.N
		_, next, err := follows(shard, h, change)
		if err != nil {
			return fmt.Errorf("%w: %w", errKept, err)
		}
		s.remember(shard, h, change.Payload)
		return s.State.apply(shard, next, &e)
	case recordAgreed:
		s.keeping.synced = r.timeSince(epoch)
		return nil
	default:
		return fmt.Errorf("%w: it has a record of kind %d", errKept, kind)
	}
}

// keep makes records durable before what they say takes effect. When it cannot, the snapshot is
// removed: it would bring back what was revoked.
func (s *Store) keep(records ...[]byte) {
	if s.Snapshot == nil {
		return
	}
	long, err := s.Snapshot.Append(records...)
	if err != nil {
		s.Logger.Error("a change could not be written to the snapshot, which is removed", "error", err)
		if err := s.Snapshot.Discard(); err != nil {
			s.Logger.Error("the snapshot could not be removed: remove it by hand, or a start without Redis uses old rules", "error", err)
		}
	}
	if long || err != nil {
		s.wantSnapshot()
	}
}

func (s *Store) wantSnapshot() {
	select {
	case s.keeping.wanted <- struct{}{}:
	default:
	}
}

// entryRecord returns the record of an entry that leads to a head.
func entryRecord(shard Shard, next Head, payload []byte) []byte {
	b := binary.AppendUvarint([]byte{recordEntry}, uint64(shard)) //nolint:gosec // small
	return appendText(appendText(b, next.Hash), string(payload))
}

// agreed notes that the state agrees with the store now.
func (s *Store) agreed() {
	now := time.Now()
	s.State.agreed(now)
	if s.Snapshot == nil || now.Sub(s.keeping.agreed) < keepAgreed {
		return
	}
	s.keeping.agreed = now
	s.keep(appendTimeSince([]byte{recordAgreed}, now, epoch))
}

// removeSnapshot removes a snapshot that was not used. It comes before the state serves for the
// first time.
func (s *Store) removeSnapshot() {
	if s.Snapshot == nil {
		return
	}
	if err := s.Snapshot.Discard(); err != nil {
		s.Logger.Error("the old snapshot could not be removed: remove it by hand, or a start without Redis uses old rules", "error", err)
	}
}

// writeSnapshots writes new snapshots when they are wanted, until ctx ends.
func (s *Store) writeSnapshots(ctx context.Context) {
	if s.Snapshot == nil {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.keeping.wanted:
		}
		if loaded, _ := s.State.Ready(); !loaded {
			continue // wanted again when it is
		}
		if err := s.Snapshot.Replace(s.whole); err != nil {
			s.Logger.Error("writing a snapshot", "error", err)
			select {
			case <-ctx.Done():
				return
			case <-time.After(keepAgain):
				s.wantSnapshot()
			}
		}
	}
}

// whole passes the whole state to write.
func (s *Store) whole(write func(record []byte) error) error {
	_, synced := s.State.Ready()
	b := binary.AppendUvarint(binary.AppendUvarint([]byte{recordBegin}, keptFormat), Schema)
	b = appendText(b, s.State.Head(Global).StoreID)
	if err := write(appendTimeSince(b, synced, epoch)); err != nil {
		return err
	}
	for i := range Shard(Shards) {
		// While the shard is locked no change of it is kept and not yet in effect.
		s.apply[i].Lock()
		c := s.State.content(i)
		s.apply[i].Unlock()
		if err := c.records(write); err != nil {
			return err
		}
	}
	return nil
}

// shardContent is a shard at one moment. What it points to never changes.
type shardContent struct {
	shard    Shard
	head     Head
	docs     []Doc // without their bodies
	bodies   []any
	accounts map[string][]Record // by domain
	total    int
}

// content returns the present content of a shard.
func (st *State) content(s Shard) *shardContent {
	st.alone[s].Lock() // nothing changes the shard, its accounts included
	defer st.alone[s].Unlock()
	c := &shardContent{shard: s, accounts: map[string][]Record{}}
	domains := map[string]*domainState{}
	st.mu.RLock()
	c.head = st.heads[s]
	for name, k := range kinds {
		if name == kindAccount {
			continue
		}
		k.all(st, s, func(rest string, rev uint64, v any) {
			c.docs, c.bodies = append(c.docs, Doc{Key: name + "/" + rest, Rev: rev}), append(c.bodies, v)
		})
	}
	st.eachDomain(s, func(name string, d *domainState) { domains[name] = d })
	st.mu.RUnlock()

	for name, d := range domains {
		if d.accounts.count > 0 {
			c.accounts[name] = slices.AppendSeq(make([]Record, 0, d.accounts.count), d.accounts.all())
			c.total += d.accounts.count
		}
	}
	return c
}

// records passes the records of the shard to write; a record is write's only during the call.
func (c *shardContent) records(write func(record []byte) error) error {
	b := binary.AppendUvarint([]byte{recordShard}, uint64(c.shard)) //nolint:gosec // small
	b = appendText(binary.AppendUvarint(appendText(b, c.head.StoreID), c.head.N), c.head.Hash)
	b = binary.AppendUvarint(b, uint64(len(c.docs)))
	for i, d := range c.docs {
		body, err := json.Marshal(c.bodies[i])
		if err != nil {
			return fmt.Errorf("encoding %s: %w", d.Key, err)
		}
		b = appendText(binary.AppendUvarint(appendText(b, d.Key), d.Rev), string(body))
	}
	if err := write(binary.AppendUvarint(b, uint64(c.total))); err != nil { //nolint:gosec // not negative
		return err
	}
	for name, list := range c.accounts {
		for len(list) > 0 {
			b = appendText(append(b[:0], recordAccounts), name)
			b = binary.AppendUvarint(b, uint64(len(list)))
			begin := len(b)
			for len(list) > 0 && len(b)-begin < pageFull {
				b, list = appendText(b, list[0].packed), list[1:]
			}
			if err := write(b); err != nil {
				return err
			}
		}
	}
	return nil
}

// partialShard is a shard whose accounts are being read.
type partialShard struct {
	shard Shard
	head  Head
	fresh *State
	left  uint64 // accounts
}

// readShard reads a record of a shard, behind its kind.
func readShard(r reader) (*partialShard, error) {
	p := &partialShard{shard: Shard(r.number())} //nolint:gosec // compared
	if p.shard > Global {
		return nil, fmt.Errorf("%w: it has a shard %d", errKept, p.shard)
	}
	p.head = Head{StoreID: strings.Clone(r.text()), N: r.number(), Hash: strings.Clone(r.text())}
	var docs []Doc
	for n := r.number(); n > 0; n-- {
		docs = append(docs, Doc{Key: strings.Clone(r.text()), Rev: r.number(), Body: json.RawMessage(r.text())})
	}
	var err error
	if p.fresh, err = freshState(p.shard, p.head, docs); err != nil {
		return nil, err
	}
	p.left = r.number()
	return p, r.end()
}

// readAccounts adds a record of accounts, behind its kind.
func (p *partialShard) readAccounts(r reader) error {
	domain, n := strings.Clone(r.text()), r.number()
	if p == nil || n > p.left {
		return fmt.Errorf("%w: it has accounts of no shard", errKept)
	}
	if ShardOf(domain) != p.shard {
		return fmt.Errorf("%w: shard %d has an account of another", errKept, p.shard)
	}
	d := p.fresh.domain(domain)
	before := d.accounts.count
	d.accounts.grow(int(min(n, reserve)))
	err := d.accounts.addPage(domain, []byte(r), func(a Record) {
		for _, alias := range a.Aliases() {
			alias = strings.Clone(alias) // a part would keep the whole page in memory
			p.fresh.setAlias(alias, append(p.fresh.aliases[alias], strings.Clone(a.Address())))
		}
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errKept, err)
	}
	added := uint64(d.accounts.count - before) //nolint:gosec // not negative
	if added > p.left || added > n || added == 0 {
		return fmt.Errorf("%w: it has %d accounts instead of %d", errKept, added, min(n, p.left))
	}
	p.left -= added
	return nil
}

// end returns an error if something is left.
func (r reader) end() error {
	if r != "" {
		return fmt.Errorf("%w: a record has %d bytes too many", errKept, len(r))
	}
	return nil
}
