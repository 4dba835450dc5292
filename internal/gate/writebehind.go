package gate

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// maxQueued bounds the entries of each kind that wait to be written; about 50 MB.
const maxQueued = 50_000

// batch is the most that is written at once, of each kind.
const batch = 1000

// touchEvery is how exact a last use is kept.
const touchEvery = time.Minute

// Spool keeps batches on disk while Redis is away, oldest first.
type Spool interface {
	Len() int
	// Add makes a batch durable, and drops the oldest ones if there are too many.
	Add(text []byte) (dropped int, err error)
	// First returns the oldest batch. One that cannot be read is put aside with an error.
	First() ([]byte, error)
	// Remove removes the oldest batch, once Redis has it. An error leaves it: it is delivered
	// again, and counts once.
	Remove() error
}

// writeBehind writes records and counters after the decisions. While Redis is away they are queued,
// on disk if there is a spool; the oldest are dropped if there are too many.
type writeBehind struct {
	journal Journal
	buckets Buckets // nil for none
	spool   Spool   // nil for none
	origin  string  // of the batches
	daemon  string  // of the events
	log     hclog.Logger

	// Of the goroutine that runs.
	number   uint64    // of the last batch
	failed   *delivery // taken from the queue, neither delivered nor in the spool
	away     bool      // Redis did not take the last batch
	recorded time.Time // when records were last taken from the queue
	busy     bool      // many were taken then
	ending   bool      // nothing is put off any more

	wake chan struct{}
	jobs chan func(context.Context)

	mu       sync.Mutex
	records  []*store.LoginRecord
	closings []store.Closing
	messages []mailflow.Record
	events   []store.Event
	spends   []store.Spend
	merged   map[string]*store.Spend // by domain: spends that are still added to
	uses     map[string]map[string]store.LastUse
	touched  map[string]time.Time // credential → when its last use was last written
	dropped  int

	// confirmed is called for each spend that Redis took, with what is missing from its buckets now.
	confirmed func(s *store.Spend, used []int, now time.Time)
	// examine marks unusual logins, see [Options.Examine].
	examine func(context.Context, []store.LoginRecord, []store.Closing) func(context.Context)

	spooled atomic.Int64  // batches in the spool
	lost    atomic.Uint64 // records dropped since the start
}

func newWriteBehind(daemon string, j Journal, buckets Buckets, spool Spool, log hclog.Logger) *writeBehind {
	b := &writeBehind{
		journal: j, buckets: buckets, spool: spool, origin: store.NewID(), daemon: daemon, log: log,
		wake: make(chan struct{}, 1), jobs: make(chan func(context.Context), 64),
		merged: map[string]*store.Spend{}, confirmed: func(*store.Spend, []int, time.Time) {},
		uses: map[string]map[string]store.LastUse{}, touched: map[string]time.Time{},
	}
	if spool != nil {
		b.spooled.Store(int64(spool.Len()))
	}
	return b
}

func enqueue[T any](b *writeBehind, list *[]T, item T) {
	b.mu.Lock()
	if len(*list) >= maxQueued {
		*list = (*list)[1:]
		b.dropped++
		b.lost.Add(1)
	}
	if *list == nil {
		*list = make([]T, 0, batch/10)
	}
	*list = append(*list, item)
	b.mu.Unlock()
	b.nudge()
}

// dequeue removes a batch from a list. Nothing is appended to the memory of the batch.
func dequeue[T any](list *[]T) []T {
	n := min(len(*list), batch)
	first := (*list)[:n:n]
	if *list = (*list)[n:]; len(*list) == 0 {
		*list = nil
	}
	return first
}

func (b *writeBehind) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// record queues a record, which does not change any more.
func (b *writeBehind) record(r *store.LoginRecord) { enqueue(b, &b.records, r) }
func (b *writeBehind) message(r *mailflow.Record)  { enqueue(b, &b.messages, *r) }
func (b *writeBehind) close(c store.Closing)       { enqueue(b, &b.closings, c) }
func (b *writeBehind) event(e store.Event)         { enqueue(b, &b.events, e) }
func (b *writeBehind) spend(s store.Spend)         { enqueue(b, &b.spends, s) }

func (b *writeBehind) touch(account, credentialID string, u store.LastUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if u.Time.Sub(b.touched[credentialID]) < touchEvery {
		return
	}
	if b.uses[account] == nil {
		if len(b.uses) >= maxQueued {
			return // the next login of the credential records it again
		}
		b.uses[account] = map[string]store.LastUse{}
	}
	if len(b.touched) >= maxQueued {
		clear(b.touched) // costs one early write each
	}
	b.touched[credentialID] = u.Time
	b.uses[account][credentialID] = u
	b.nudge()
}

// do runs a job behind decisions, one at a time. It reports false when too many wait: then the job
// is dropped.
func (b *writeBehind) do(job func(context.Context)) bool {
	select {
	case b.jobs <- job:
		return true
	default:
		return false
	}
}

// work runs the jobs until ctx ends, and then those that wait with a context that has ended, so
// that they clean up. Apart from run: a job may be slow, and other daemons wait for the events.
func (b *writeBehind) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			for {
				select {
				case job := <-b.jobs:
					job(ctx)
				default:
					return
				}
			}
		case job := <-b.jobs:
			limited, cancel := context.WithTimeout(ctx, 10*time.Second)
			job(limited)
			cancel()
		}
	}
}

// gather is the least time between two writes. A single entry is written at once; on a busy daemon
// many logins share the round trips, and Redis' writes to disk. Other daemons decide by the events;
// only administrators read the records, so a write of many records is not followed by another one
// for gatherRecords. What is taken from buckets far below their bounds waits as long.
const (
	gather        = 50 * time.Millisecond
	gatherRecords = 250 * time.Millisecond
	manyRecords   = 4 // a write: 80 logins a second
)

// run writes until ctx ends, then writes the remaining records.
func (b *writeBehind) run(ctx context.Context, sweep func(time.Time)) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	swept := time.Now()
	wake := b.wake
	var gathered <-chan time.Time // while wake is nil
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			b.ending = true
			for b.flush(last) {
			}
			b.save()
			return
		case now := <-tick.C:
			if now.Sub(swept) >= sweepEvery {
				sweep(now)
				swept = now
			}
			if b.away {
				b.save()
			}
		case <-gathered:
			wake, gathered = b.wake, nil
			continue
		case <-wake:
			if b.away {
				continue // the next tick saves them and tries again
			}
			wake, gathered = nil, time.After(gather)
		}
		for b.flush(ctx) {
		}
	}
}

// sweepEvery is the time between two sweeps of the counters.
const sweepEvery = 10 * time.Second

// delivery is a batch of records and counters. It is delivered as a whole before the next.
type delivery struct {
	ID       store.BatchID                       `json:"id"`
	Events   []store.Event                       `json:"events,omitempty"`
	Spends   []store.Spend                       `json:"spends,omitempty"`
	Records  []store.LoginRecord                 `json:"records,omitempty"`
	Closings []store.Closing                     `json:"closings,omitempty"`
	Messages []mailflow.Record                   `json:"messages,omitempty"`
	Uses     map[string]map[string]store.LastUse `json:"uses,omitempty"`
}

// spooled is a delivery with the fields that records and closings leave out of their JSON.
type spooled struct {
	delivery
	RecordDomains  []string `json:"record_domains,omitempty"`
	MessageDomains []string `json:"message_domains,omitempty"`
	ClosingDomains []string `json:"closing_domains,omitempty"`
	ClosingIDs     []string `json:"closing_ids,omitempty"`
}

func (d *delivery) encode() ([]byte, error) {
	s := spooled{delivery: *d}
	for i := range d.Records {
		s.RecordDomains = append(s.RecordDomains, d.Records[i].Domain)
	}
	for i := range d.Messages {
		s.MessageDomains = append(s.MessageDomains, d.Messages[i].Domain)
	}
	for i := range d.Closings {
		s.ClosingDomains, s.ClosingIDs = append(s.ClosingDomains, d.Closings[i].Domain), append(s.ClosingIDs, d.Closings[i].ID)
	}
	return json.Marshal(s)
}

func decodeDelivery(text []byte) (*delivery, error) {
	var s spooled
	if err := json.Unmarshal(text, &s); err != nil {
		return nil, err
	}
	if len(s.RecordDomains) != len(s.Records) || len(s.ClosingDomains) != len(s.Closings) || len(s.ClosingIDs) != len(s.Closings) ||
		len(s.MessageDomains) != len(s.Messages) {
		return nil, errors.New("a record lacks its domain")
	}
	for i := range s.Records {
		s.Records[i].Domain = s.RecordDomains[i]
	}
	for i := range s.Messages {
		s.Messages[i].Domain = s.MessageDomains[i]
	}
	for i := range s.Closings {
		s.Closings[i].Domain, s.Closings[i].ID = s.ClosingDomains[i], s.ClosingIDs[i]
		if l := s.Closings[i].Login; l != nil {
			l.Domain = s.ClosingDomains[i]
		}
	}
	return &s.delivery, nil
}

// takeDue removes a batch from the queue as take does, and leaves records and merged spends for later
// if many records were written a moment ago.
func (b *writeBehind) takeDue(now time.Time) *delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.ending || !b.busy || now.Sub(b.recorded) >= gatherRecords || len(b.records) >= batch || len(b.messages) >= batch {
		return b.takeAll(now)
	}
	if len(b.records)+len(b.closings)+len(b.messages)+len(b.uses)+len(b.merged) > 0 {
		b.nudge()
	}
	if len(b.events)+len(b.spends) == 0 {
		return nil
	}
	return b.numbered(&delivery{Events: dequeue(&b.events), Spends: dequeue(&b.spends)})
}

// take removes a batch from the queue; nil if the queue is empty.
func (b *writeBehind) take() *delivery {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.takeAll(time.Now())
}

func (b *writeBehind) takeAll(now time.Time) *delivery {
	if b.dropped > 0 {
		b.log.Warn("login records were dropped: the store was unreachable for too long", "count", b.dropped)
		b.dropped = 0
	}
	d := b.takeMerged(&delivery{Events: dequeue(&b.events), Spends: dequeue(&b.spends), Closings: dequeue(&b.closings), Messages: dequeue(&b.messages), Uses: b.uses})
	records := dequeue(&b.records)
	d.Records = slices.Grow(d.Records, len(records))
	for _, r := range records {
		d.Records = append(d.Records, *r)
	}
	if len(d.Events)+len(d.Spends)+len(d.Records)+len(d.Closings)+len(d.Messages)+len(d.Uses) == 0 {
		return nil
	}
	b.uses = map[string]map[string]store.LastUse{}
	b.recorded, b.busy = now, len(d.Records)+len(d.Messages) >= manyRecords
	return b.numbered(d)
}

func (b *writeBehind) numbered(d *delivery) *delivery {
	b.number++
	d.ID = store.BatchID{Origin: b.origin, N: b.number}
	return d
}

// first returns the oldest batch, and whether it is in the spool; nil if there is none. Batches of
// the spool are older than the failed one, and that is older than the queue.
func (b *writeBehind) first() (d *delivery, spooled bool) {
	for b.spool != nil && b.spool.Len() > 0 {
		text, err := b.spool.First()
		if err == nil {
			if d, err = decodeDelivery(text); err == nil {
				return d, true
			}
			err = errors.Join(err, b.spool.Remove())
		}
		b.log.Error("login records of the spool were lost", "error", err)
	}
	if b.failed == nil {
		b.failed = b.takeDue(time.Now())
	}
	return b.failed, false
}

// flush delivers one batch; it reports whether Redis takes more. A batch that it did not take stays
// the first.
func (b *writeBehind) flush(ctx context.Context) bool {
	d, spooled := b.first()
	if d == nil {
		b.away = false
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := b.deliver(ctx, d)
	b.away = err != nil
	switch {
	case err != nil:
		b.log.Debug("writing login records", "error", err)
		return false
	case !spooled:
		b.failed = nil
	default:
		if err := b.spool.Remove(); err != nil {
			b.log.Error("removing delivered login records from the spool", "error", err)
		}
		b.spooled.Store(int64(b.spool.Len()))
	}
	return true
}

// deliver writes the rest of a batch, and removes the written parts from it.
func (b *writeBehind) deliver(ctx context.Context, d *delivery) error {
	if len(d.Events) > 0 {
		if err := b.settle(b.journal.AppendEvents(ctx, d.Events)); err != nil {
			return err
		}
		d.Events = nil
	}
	for len(d.Spends) > 0 {
		used, err := b.buckets.Spend(ctx, &d.Spends[0])
		if err := b.settle(err); err != nil {
			return err
		}
		b.confirmed(&d.Spends[0], used, time.Now())
		d.Spends = d.Spends[1:]
	}
	if len(d.Records)+len(d.Closings)+len(d.Messages) > 0 {
		var learned func(context.Context)
		if b.examine != nil {
			learned = b.examine(ctx, d.Records, d.Closings)
		}
		err := b.journal.AppendRecords(ctx, d.ID, &store.Batch{Records: d.Records, Closings: d.Closings, Messages: d.Messages})
		if err := b.settle(err); err != nil {
			return err
		}
		d.Records, d.Closings, d.Messages = nil, nil, nil
		if learned != nil {
			learned(ctx)
		}
	}
	for account, u := range d.Uses {
		if err := b.settle(b.journal.Touch(ctx, account, u)); err != nil {
			return err
		}
		delete(d.Uses, account)
	}
	return nil
}

// save moves the failed batch and the queue to the spool, if there is one.
func (b *writeBehind) save() {
	if b.spool == nil {
		return
	}
	for {
		if b.failed == nil {
			b.failed = b.take()
		}
		if b.failed == nil {
			return
		}
		text, err := b.failed.encode()
		if err != nil {
			b.log.Error("login records were lost", "error", err)
			b.failed = nil
			continue
		}
		dropped, err := b.spool.Add(text)
		b.spooled.Store(int64(b.spool.Len()))
		if dropped > 0 {
			b.log.Warn("login records of the spool were dropped: the store was unreachable for too long", "batches", dropped)
		}
		if err != nil {
			b.log.Error("login records could not be written to the spool, and stay in memory", "error", err)
			return
		}
		b.failed = nil
	}
}

// settle gives up entries that a damaged store never accepts: put back, they would block all
// others, and those that were written beside it would be written again.
func (b *writeBehind) settle(err error) error {
	if !errors.Is(err, store.ErrDamaged) {
		return err
	}
	b.log.Error("login records or counters were lost", "error", err)
	return nil
}

// eventMemory is how far back a daemon that starts reads the events of others: no authentication
// and no wrong secret counts for longer.
const eventMemory = 24 * time.Hour

// followEvents keeps the counters up to date with what all daemons see.
func (g *Gate) followEvents(ctx context.Context) {
	after := ""
	for ctx.Err() == nil {
		err := g.Journal.FollowEvents(ctx, after, eventMemory, func(e store.Event) {
			after = e.Place
			if e.Origin != g.origin {
				g.learn(e)
			}
		})
		if ctx.Err() != nil {
			return
		}
		g.Log.Debug("following events", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

func (g *Gate) learn(e store.Event) {
	ip := address.IPOf(e.IP)
	switch e.Kind {
	case store.EventGuess:
		g.wrong(e.Account, ip, e.Token, e.Time)
	case store.EventLift:
		g.throttle.Lift(e.Account, throttle.Source(ip), e.Time)
	case store.EventSuccess:
		g.throttle.Succeeded(e.Account, ip, e.Time)
	case store.EventSpend:
		g.spent(&e, time.Now())
	case store.EventSpends:
		now := time.Now()
		for _, t := range announced(e.Account) {
			g.tookElsewhere(&e, &t, now)
		}
	case store.EventBind:
		g.sessions.Authenticated(e.Account, ip, g.authentication(e.Account, e.Credential, e.Service, e.Time, true))
	}
}

func (g *Gate) sweep(now time.Time) {
	for _, domain := range g.throttle.Sweep(now) {
		g.Log.Info("distributed guessing has ended", "domain", domain)
	}
	g.mailboxes.sweep(now)
	g.pending.sweep(now)
	g.sessions.Sweep(now)
	for _, m := range []*throttle.Meter{g.limits.meter, g.limits.unknown, g.limits.shared} {
		m.Sweep(now)
	}
}
