package store

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Store ties the state in memory to the log that all daemons share.
type Store struct {
	Log     Log
	Upkeep  Upkeep
	State   *State
	Logger  hclog.Logger
	Marker  Marker
	Timeout time.Duration // of one change, 3 s when zero
	// Inspect asks which servers hold the store; nil if nobody is asked.
	Inspect        func(context.Context) (Servers, error)
	AcceptEviction bool          // a policy other than noeviction is no alarm
	PutBack        bool          // Redis may fail over to a replica that lacks the last changes
	Snapshot       Snapshot      // nil keeps nothing
	VerifyPause    time.Duration // between the verifications of two shards; zero adapts it to their cost

	write [Shards]sync.Mutex // local writers of a shard take turns
	apply [Shards]sync.Mutex // held while a change is committed or applied to a shard

	mu      sync.Mutex
	trouble error         // why the store is not used now; nil when it is
	repairs int           // number of repairs and acceptances, which outdate damage found before
	refused [Shards]error // why Redis did not take a shard's last change; nil when it did
	altered [Shards]error // why a shard's documents are not those of its head; nil when they are

	servers Servers // as last inspected

	recent       [Shards]recent // each guarded by apply
	putBackNotes []string       // changes that were put back and are not in the audit log yet

	originOnce sync.Once
	origin     string // of this run: see [Entry]

	keeping keeping
}

// Marker remembers which store this daemon belongs to, outside Redis, so that an emptied or
// exchanged store is noticed after a restart too.
type Marker interface {
	// StoreID returns the remembered id, or "" when there is none yet.
	StoreID() (string, error)
	SetStoreID(id string) error
}

// Trouble returns why changes are refused now: [ErrUnavailable], [ErrForeign] or [ErrNewerSchema],
// wrapped; nil when all is well.
func (s *Store) Trouble() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.trouble
}

// Refusing returns why Redis, which answers, did not take the last change of some shard; nil when
// all is well. Changes are still attempted, because the next may succeed. Without one, a probe each
// second finds out.
func (s *Store) Refusing() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refusing()
}

func (s *Store) refusing() error {
	for i := range s.refused {
		if err := cmp.Or(s.refused[i], s.altered[i]); err != nil {
			return err
		}
	}
	return nil
}

// noteWrite remembers the result of a write to a shard. An error that does not show whether Redis
// accepts writes, such as a conflict, is ignored.
func (s *Store) noteWrite(i Shard, err error) {
	switch {
	case err == nil, errors.Is(err, ErrUnconfirmed): // Redis has it
		err = nil
	case errors.Is(err, ErrRefused), errors.Is(err, ErrDamaged):
	default:
		return
	}
	s.mu.Lock()
	before := s.refusing()
	s.refused[i] = err
	after := s.refusing()
	s.mu.Unlock()
	switch {
	case before == nil && after != nil:
		s.Logger.Error("store: changes are refused", "error", after)
	case before != nil && after == nil:
		s.Logger.Info("store accepts changes again")
	}
}

// probe checks whether the shards whose last change was refused accept changes now.
func (s *Store) probe(ctx context.Context) {
	s.mu.Lock()
	refused := s.refused
	s.mu.Unlock()
	for i, err := range refused {
		if err == nil {
			continue
		}
		i := Shard(i)
		s.apply[i].Lock() // so that an older result does not replace that of a change
		s.noteWrite(i, s.Upkeep.Probe(ctx, i, s.State.Head(i).StoreID))
		s.apply[i].Unlock()
	}
}

func (s *Store) setTrouble(err error) { s.found(err, s.repaired()) }

// repaired returns how often the store was repaired here.
func (s *Store) repaired() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repairs
}

// found notes what was found when the store had been repaired that often. Damage from before a
// repair is outdated.
func (s *Store) found(err error, repairs int) {
	s.mu.Lock()
	if errors.Is(err, ErrDamaged) && repairs != s.repairs {
		s.mu.Unlock()
		return
	}
	before := s.trouble
	s.trouble = err
	s.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		s.Logger.Error("store", "error", err)
	case err == nil && before != nil:
		s.Logger.Info("store is back")
	}
}

// Run loads the state and keeps it up to date until ctx ends. It continues through every fault of
// Redis, which [Store.Trouble] reports. While Redis is away at the start, the state is that of the
// snapshot.
func (s *Store) Run(ctx context.Context) {
	s.resume()
	var beside sync.WaitGroup
	defer beside.Wait()
	beside.Go(func() { s.expire(ctx) })
	beside.Go(func() { s.revert(ctx) })
	beside.Go(func() { s.watchEviction(ctx) })
	beside.Go(func() { s.verify(ctx) })
	beside.Go(func() { s.writeSnapshots(ctx) })
	for ctx.Err() == nil {
		repairs := s.repaired()
		err := s.follow(ctx)
		if ctx.Err() != nil {
			return
		}
		s.found(err, repairs)
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// expire ends blocks on time, with or without Redis.
func (s *Store) expire(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.State.expire(now)
		}
	}
}

// follow loads the shards that differ from the store and follows the streams until one fails.
func (s *Store) follow(ctx context.Context) error {
	err := s.check(ctx, false)
	s.serveResumed(err)
	if err != nil {
		return err
	}
	s.setTrouble(nil)

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var watch sync.WaitGroup
	defer watch.Wait()
	defer cancel(nil)
	watch.Add(1)
	go func() { // the streams are fast; comparing the heads is reliable
		defer watch.Done()
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			if err := s.check(ctx, true); err != nil {
				cancel(err)
				return
			}
			s.auditPutBack(ctx)
		}
	}()
	var after [Shards]uint64
	for i, h := range s.State.Heads() {
		after[i] = h.N
	}
	err = s.Log.Follow(ctx, after, s.receive)
	if errors.Is(err, ErrGap) {
		err = nil // the next check loads the shard again
	}
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// check compares the heads of the store with those of the state. A shard that lags is loaded again,
// unless the streams are followed and bring it up to date. Another store than the known one is
// refused.
func (s *Store) check(ctx context.Context, following bool) error {
	loaded, _ := s.State.Ready()
	loaded = loaded || s.keeping.resumed
	heads, damage, err := s.Log.Heads(ctx)
	if err != nil {
		return err
	}
	id := heads[Global].StoreID
	marked, err := s.Marker.StoreID()
	if err != nil {
		return err
	}
	if id == "" && marked == "" && !loaded {
		if id, err = newStoreID(); err != nil {
			return err
		}
	}
	if !loaded {
		if marked != "" && id != marked {
			return fmt.Errorf("%w: known %s, found %s", ErrForeign, marked, orNone(id))
		}
		if err := s.Upkeep.Create(ctx, id); err != nil { // completes a creation that a crash interrupted
			return err
		}
		if heads, damage, err = s.Log.Heads(ctx); err != nil {
			return err
		}
		if damage != nil {
			return damage // never loaded: logins stay temporary failures
		}
		id = heads[Global].StoreID // another daemon may have been first
	}
	distrusted := errors.Is(s.Trouble(), ErrForeign)
	known := s.State.Heads()
	for i, h := range heads {
		if h.StoreID == "" || h.StoreID != id {
			return fmt.Errorf("%w: shard %d of store %s is missing", ErrForeign, i, orNone(id))
		}
		if !loaded {
			continue
		}
		k := known[i]
		if h.StoreID != k.StoreID {
			return fmt.Errorf("%w: known %s, found %s", ErrForeign, k.StoreID, h.StoreID)
		}
		if h.N < k.N && !s.confirmed(ctx, Shard(i), k) {
			if err := s.putBack(ctx, Shard(i)); err != nil {
				return err
			}
			h, heads[i] = k, k
		}
		if h.N == k.N && h.Hash != k.Hash {
			return fmt.Errorf("%w: shard %d has another change %d than the one known", ErrForeign, i, k.N)
		}
		if distrusted && h != k {
			return fmt.Errorf("%w: shard %d is at change %d, known is %d", ErrForeign, i, h.N, k.N)
		}
	}
	if damage != nil {
		if heads == known {
			s.agreed() // the state is current
		}
		return damage
	}
	for i, h := range heads {
		if loaded && h.N <= s.State.Head(Shard(i)).N {
			continue
		}
		if following && s.catchUp(ctx, Shard(i), h.N) {
			continue
		}
		if err := s.load(ctx, Shard(i), h.N); err != nil {
			return err
		}
	}
	if !loaded {
		s.removeSnapshot()
		if err := s.Marker.SetStoreID(id); err != nil {
			return err
		}
	}
	s.agreed()
	s.State.loaded.Store(true)
	if !loaded {
		s.wantSnapshot()
	}
	s.probe(ctx)
	return nil
}

// confirmed asks the store once more: the heads may have been read just before a change that this
// daemon committed and applied.
func (s *Store) confirmed(ctx context.Context, i Shard, k Head) bool {
	heads, _, err := s.Log.Heads(ctx)
	return err == nil && heads[i].N >= k.N
}

// catchUp waits a moment for the stream to bring the shard to n.
func (s *Store) catchUp(ctx context.Context, i Shard, n uint64) bool {
	deadline := time.NewTimer(500 * time.Millisecond)
	defer deadline.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.State.Head(i).N >= n {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-deadline.C:
			return false
		case <-tick.C:
		}
	}
}

// Adopt accepts the store that answers now, with the documents that it holds; an empty store is
// created. It returns the store's id. Decisions answer temporary failure
// until the store is loaded, a moment later.
func (s *Store) Adopt(ctx context.Context) (string, error) {
	trouble := s.Damage()
	if errors.Is(s.Trouble(), ErrForeign) {
		trouble = s.Trouble()
	}
	if trouble == nil {
		return "", ErrNothingToAdopt
	}
	heads, _, err := s.Log.Heads(ctx)
	if err != nil {
		return "", err
	}
	id := heads[Global].StoreID
	if id == "" {
		if id, err = newStoreID(); err != nil {
			return "", err
		}
		if err := s.Upkeep.Create(ctx, id); err != nil {
			return "", err
		}
	}
	for i := range heads {
		if heads[i].StoreID == "" {
			continue // begun just now, or still foreign after the next check
		}
		if err := s.Upkeep.Accept(ctx, Shard(i)); err != nil {
			return "", fmt.Errorf("accepting shard %d: %w", i, err)
		}
	}
	if s.Snapshot != nil {
		if err := s.Snapshot.Discard(); err != nil {
			return "", fmt.Errorf("removing the snapshot of the former store: %w", err)
		}
	}
	if err := s.Marker.SetStoreID(id); err != nil {
		return "", err
	}
	s.State.loaded.Store(false)
	s.State.forget()
	s.mended()
	s.setTrouble(ErrUnavailable) // until the next check has loaded it
	return id, nil
}

// Damage returns why the store is damaged, wrapping [ErrDamaged], or nil.
func (s *Store) Damage() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.trouble, ErrDamaged) {
		return s.trouble
	}
	for i := range s.refused {
		if err := cmp.Or(s.refused[i], s.altered[i]); errors.Is(err, ErrDamaged) {
			return err
		}
	}
	return nil
}

// mended forgets the damage that is known, and what a check that is under way may yet find of it.
func (s *Store) mended() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refused, s.altered = [Shards]error{}, [Shards]error{}
	if errors.Is(s.trouble, ErrDamaged) {
		s.trouble = nil
	}
	s.repairs++
}

// Repair verifies every shard and replaces the documents of damaged ones by those in memory. It
// returns how many it replaced. It fails with [ErrCannotRepair], changing nothing in that shard,
// when the store has changes that this daemon does not hold.
func (s *Store) Repair(ctx context.Context, dryRun bool) (repaired int, err error) {
	if loaded, _ := s.State.Ready(); !loaded {
		return 0, ErrCannotRepair
	}
	known := s.State.Heads()
	heads, _, err := s.Log.Heads(ctx)
	if err != nil {
		return 0, err
	}
	for i := range heads {
		missing := heads[i].StoreID == ""
		if !missing {
			if heads[i].StoreID != known[i].StoreID {
				return repaired, ErrForeign
			}
			_, err := s.Log.Load(ctx, Shard(i), Head{}, nil)
			if err == nil {
				continue
			}
			if !errors.Is(err, ErrDamaged) {
				return repaired, fmt.Errorf("verifying shard %d: %w", i, err)
			}
		}
		if !missing && heads[i] != known[i] {
			return repaired, ErrCannotRepair
		}
		if !dryRun {
			if err := s.restore(ctx, Shard(i)); err != nil {
				return repaired, fmt.Errorf("restoring shard %d: %w", i, err)
			}
		}
		repaired++
	}
	if repaired == 0 {
		return 0, ErrNothingToRepair
	}
	if !dryRun {
		// Completes a store whose first shard was missing.
		if err := s.Upkeep.Create(ctx, known[Global].StoreID); err != nil {
			return repaired, err
		}
		s.mended()
	}
	return repaired, nil
}

func (s *Store) restore(ctx context.Context, i Shard) error {
	s.apply[i].Lock()
	defer s.apply[i].Unlock()
	h, docs, err := s.State.documents(i)
	if err != nil {
		return err
	}
	err = s.Upkeep.Restore(ctx, i, h, docs)
	if errors.Is(err, ErrConflict) {
		return ErrCannotRepair
	}
	return err
}

// load reads a shard again, unless a change that was being applied brought it to n.
func (s *Store) load(ctx context.Context, i Shard, n uint64) error {
	s.apply[i].Lock()
	defer s.apply[i].Unlock()
	loaded, _ := s.State.Ready()
	loaded = loaded || s.keeping.resumed
	if loaded && s.State.Head(i).N >= n {
		return nil
	}
	var known Head
	if loaded {
		known = s.State.Head(i)
	}
	var b *builder
	h, err := s.Log.Load(ctx, i, known, func() func(Doc) error {
		b = newBuilder()
		return b.put
	})
	if err != nil {
		return fmt.Errorf("loading shard %d: %w", i, err)
	}
	fresh, err := b.build(i, h)
	if err != nil {
		return fmt.Errorf("loading shard %d: %w", i, err)
	}
	if loaded && s.Snapshot != nil {
		var records [][]byte
		if err := fresh.content(i).records(func(r []byte) error { records = append(records, bytes.Clone(r)); return nil }); err != nil {
			return fmt.Errorf("loading shard %d: %w", i, err)
		}
		s.keep(records...)
	}
	s.State.swap(i, h, fresh)
	s.recent[i] = recent{}
	return nil
}

// receive applies entries of the stream of one shard. Before an error it applies those in front of
// the wrong one.
func (s *Store) receive(shard Shard, list []Received) error {
	s.apply[shard].Lock()
	defer s.apply[shard].Unlock()
	var entries []Entry
	var heads []Head
	var records, payloads [][]byte
	var fault error
	h := s.State.Head(shard)
	for _, r := range list {
		if r.N <= h.N {
			continue // our own, or loaded meanwhile
		}
		e, next, err := follows(shard, h, r)
		if err != nil {
			fault = err
			break
		}
		entries, heads, records = append(entries, e), append(heads, next), append(records, entryRecord(shard, next, r.Payload))
		payloads = append(payloads, r.Payload)
		h = next
	}
	if len(records) > 0 {
		s.keep(records...)
	}
	for i := range entries {
		s.remember(shard, s.State.Head(shard), payloads[i])
		if err := s.State.apply(shard, heads[i], &entries[i]); err != nil {
			return err
		}
	}
	return fault
}

// follows decodes an entry that must continue the chain of its shard.
func follows(shard Shard, h Head, r Received) (e Entry, next Head, err error) {
	next = h.Chain(r.Payload)
	switch {
	case r.N != next.N:
		err = fmt.Errorf("%w: shard %d, change %d after %d", ErrGap, shard, r.N, h.N)
	case r.Hash != next.Hash:
		err = fmt.Errorf("%w: shard %d, change %d does not continue the chain", ErrForeign, shard, r.N)
	default:
		if err = json.Unmarshal(r.Payload, &e); err != nil {
			err = fmt.Errorf("shard %d, change %d: %w", shard, r.N, err)
		} else if e.Schema > Schema {
			err = ErrNewerSchema
		}
	}
	return e, next, err
}

// Change collects the documents that a function given to [Store.Update] writes and deletes.
type Change struct {
	Now   time.Time
	Rev   uint64 // the revision of the documents of this change
	Audit AuditEntry
	puts  []Doc
	dels  []string
	alone bool // the audit entry is all that there is
	err   error
}

// AuditOnly commits the change even if it has nothing but its audit entry.
func (c *Change) AuditOnly() { c.alone = true }

// Update makes one change of a shard: f reads the state and fills the change, and is called again
// when another daemon was first. An empty change is not committed, unless it is
// [Change.AuditOnly]. When Update returns nil the change is durable and in effect on this daemon.
// With dryRun nothing is committed.
func (s *Store) Update(ctx context.Context, shard Shard, by Actor, dryRun bool, f func(*Change) error) error {
	timeout := s.Timeout
	if timeout == 0 {
		timeout = 3 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	s.write[shard].Lock()
	defer s.write[shard].Unlock()
	for {
		if loaded, _ := s.State.Ready(); !loaded {
			return ErrUnavailable
		}
		if err := cmp.Or(s.Trouble(), s.alteration()); err != nil && !dryRun {
			return err
		}
		h := s.State.Head(shard)
		c := &Change{Now: time.Now().UTC().Truncate(time.Millisecond), Rev: h.N + 1}
		c.Audit = AuditEntry{Time: c.Now, Actor: by}
		if err := f(c); err != nil {
			return err
		}
		if c.err != nil {
			return c.err
		}
		if dryRun || len(c.puts)+len(c.dels) == 0 && !c.alone {
			return nil
		}
		if s.State.Head(shard) != h {
			continue // the state moved while f read it
		}
		err := s.commit(ctx, shard, h, c)
		if !errors.Is(err, ErrConflict) {
			return err
		}
		if !s.catchUp(ctx, shard, h.N+1) {
			if ctx.Err() != nil {
				return fmt.Errorf("%w: another daemon keeps changing the shard", ErrUnavailable)
			}
			if err := s.load(ctx, shard, h.N+1); err != nil {
				return err
			}
		}
	}
}

func (s *Store) commit(ctx context.Context, shard Shard, h Head, c *Change) error {
	s.originOnce.Do(func() { s.origin = rand.Text()[:12] })
	e := &Entry{N: h.N + 1, Schema: Schema, Puts: c.puts, Dels: c.dels, Audit: c.Audit, Origin: s.origin}
	for i := range e.Puts {
		e.Puts[i].Rev = e.N
	}
	payload, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encoding a change: %w", err)
	}
	audit, err := json.Marshal(e.Audit)
	if err != nil {
		return fmt.Errorf("encoding an audit entry: %w", err)
	}
	// Alone until it is applied, so that the follower does not meet a gap.
	s.apply[shard].Lock()
	defer s.apply[shard].Unlock()
	if s.State.Head(shard) != h {
		return ErrConflict
	}
	err = s.Log.Commit(ctx, shard, h, payload, e, audit)
	s.noteWrite(shard, err)
	if err != nil && !errors.Is(err, ErrUnconfirmed) {
		return err
	}
	// Redis has it, so it takes effect even when too few replicas confirmed it.
	next := h.Chain(payload)
	s.keep(entryRecord(shard, next, payload))
	s.remember(shard, h, payload)
	return errors.Join(err, s.State.apply(shard, next, e))
}

// put adds a document.
func (c *Change) put(key string, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("encoding %s: %w", key, err))
		return
	}
	c.puts = append(c.puts, Doc{Key: key, Body: body})
}

func (c *Change) del(key string) { c.dels = append(c.dels, key) }

// Diff notes in the audit entry which fields of a resource change. Secrets and hashes are named,
// never shown.
func (c *Change) Diff(before, after any) {
	for name, v := range Changes(before, after) {
		c.note(name, v)
	}
}

// DiffOf does the same for one of several resources of a change, under its name.
func (c *Change) DiffOf(resource string, before, after any) {
	c.noteOf(resource, Changes(before, after))
}

// NoteOf does what DiffOf does for a caller that has compared the fields already, which is most of
// the cost: fields maps those that change to [before, after].
func (c *Change) NoteOf(resource string, fields map[string][2]any) { c.noteOf(resource, fields) }

func (c *Change) noteOf(resource string, changes any) {
	b, err := json.Marshal(changes)
	if err != nil {
		c.err = errors.Join(c.err, fmt.Errorf("encoding the changes of %s: %w", resource, err))
		return
	}
	c.note(resource, b)
}

func (c *Change) note(name string, v json.RawMessage) {
	if c.Audit.Changes == nil {
		c.Audit.Changes = map[string]json.RawMessage{}
	}
	c.Audit.Changes[name] = v
}

// Changes maps the fields in which two values differ to [before, after], as JSON; of secrets and
// hashes it reports only that they changed.
func Changes(before, after any) map[string]json.RawMessage {
	b, a := fields(before), fields(after)
	for name := range b {
		if _, ok := a[name]; !ok {
			a[name] = json.RawMessage("null")
		}
	}
	for name, v := range a {
		old, ok := b[name]
		if !ok {
			old = json.RawMessage("null")
		}
		switch {
		case bytes.Equal(old, v), name == "batches": // the audit shows by itself where a value is from
			delete(a, name)
		case name == "mailbox_hash" || name == "former_hashes" || name == "secrets" || name == "factors" || name == "hash":
			a[name] = json.RawMessage(`"changed"`)
		default:
			a[name] = json.RawMessage("[" + string(old) + "," + string(v) + "]")
		}
	}
	return a
}

func fields(v any) map[string]json.RawMessage {
	m := map[string]json.RawMessage{}
	if b, err := json.Marshal(v); err == nil {
		_ = json.Unmarshal(b, &m) // nil is no object: it has no fields
	}
	if m == nil {
		m = map[string]json.RawMessage{}
	}
	return m
}

func orNone(id string) string {
	if id == "" {
		return "none"
	}
	return id
}
