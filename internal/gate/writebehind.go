package gate

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxQueued bounds the entries of each kind that wait to be written; about 50 MB.
const maxQueued = 50_000

// batch is the most that is written at once, of each kind.
const batch = 1000

// touchEvery is how exact a last use is kept.
const touchEvery = time.Minute

// behind writes what decisions leave, after them. While Redis is away it waits, up to a bound; then
// the oldest go first.
type writeBehind struct {
	journal Journal
	log     hclog.Logger
	wake    chan struct{}
	jobs    chan func(context.Context)

	mu       sync.Mutex
	records  []store.LoginRecord
	closings []store.Closing
	events   []store.Event
	uses     map[string]map[string]store.LastUse
	touched  map[string]time.Time // credential → when its last use was last written
	dropped  int
}

func newWriteBehind(j Journal, log hclog.Logger) *writeBehind {
	return &writeBehind{
		journal: j, log: log,
		wake: make(chan struct{}, 1), jobs: make(chan func(context.Context), 64),
		uses: map[string]map[string]store.LastUse{}, touched: map[string]time.Time{},
	}
}

func enqueue[T any](b *writeBehind, list *[]T, item T) {
	b.mu.Lock()
	if len(*list) >= maxQueued {
		*list = (*list)[1:]
		b.dropped++
	}
	*list = append(*list, item)
	b.mu.Unlock()
	b.nudge()
}

func (b *writeBehind) nudge() {
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *writeBehind) record(r *store.LoginRecord) { enqueue(b, &b.records, *r) }
func (b *writeBehind) close(c store.Closing)       { enqueue(b, &b.closings, c) }
func (b *writeBehind) event(e store.Event)         { enqueue(b, &b.events, e) }

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

// run writes until ctx ends, then writes the remaining records.
func (b *writeBehind) run(ctx context.Context, sweep func(time.Time)) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			for b.flush(last) {
			}
			return
		case now := <-tick.C:
			sweep(now)
		case <-b.wake:
		}
		for b.flush(ctx) {
		}
	}
}

// flush writes one batch; it reports whether more is waiting and Redis takes it.
func (b *writeBehind) flush(ctx context.Context) bool {
	b.mu.Lock()
	records := b.records[:min(len(b.records), batch)]
	closings := b.closings[:min(len(b.closings), batch)]
	events := b.events[:min(len(b.events), batch)]
	uses := b.uses
	b.records, b.closings, b.events = b.records[len(records):], b.closings[len(closings):], b.events[len(events):]
	b.uses = map[string]map[string]store.LastUse{}
	dropped := b.dropped
	b.dropped = 0
	b.mu.Unlock()
	if dropped > 0 {
		b.log.Warn("login records were dropped: the store has been away for too long", "count", dropped)
	}
	if len(records)+len(closings)+len(events)+len(uses) == 0 {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	err := error(nil)
	if len(events) > 0 {
		if err = b.settle(b.journal.AppendEvents(ctx, events)); err == nil {
			events = nil
		}
	}
	if err == nil && len(records)+len(closings) > 0 {
		if err = b.settle(b.journal.AppendRecords(ctx, records, closings)); err == nil {
			records, closings = nil, nil
		}
	}
	for account, u := range uses {
		if err == nil {
			if err = b.settle(b.journal.Touch(ctx, account, u)); err == nil {
				delete(uses, account)
			}
		}
	}
	if err == nil {
		return true
	}
	b.log.Debug("writing login records", "error", err)
	b.putBack(records, closings, events, uses)
	return false // the next tick or the next login tries again
}

// settle gives up what a damaged store can never take: put back, it would keep all others waiting,
// and those that were written beside it would be written again.
func (b *writeBehind) settle(err error) error {
	if !errors.Is(err, store.ErrDamaged) {
		return err
	}
	b.log.Error("login records or counters were lost", "error", err)
	return nil
}

func (b *writeBehind) putBack(records []store.LoginRecord, closings []store.Closing, events []store.Event, uses map[string]map[string]store.LastUse) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.records = append(records[:len(records):len(records)], b.records...)
	b.closings = append(closings[:len(closings):len(closings)], b.closings...)
	b.events = append(events[:len(events):len(events)], b.events...)
	for account, u := range uses {
		for id, use := range u {
			if b.uses[account] == nil {
				b.uses[account] = map[string]store.LastUse{}
			}
			if _, newer := b.uses[account][id]; !newer {
				b.uses[account][id] = use
			}
		}
	}
}

// eventMemory is how far back a daemon that starts reads the events of others: no authentication
// and no wrong secret counts for longer.
const eventMemory = 24 * time.Hour

// followEvents keeps the counters up to date with what all daemons see.
func (g *Gate) followEvents(ctx context.Context) {
	since := time.Now().Add(-eventMemory)
	for ctx.Err() == nil {
		err := g.Journal.FollowEvents(ctx, since, func(e store.Event) {
			if e.Time.After(since) {
				since = e.Time
			}
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
		g.throttle.Wrong(e.Account, ip, e.Token, e.Time)
	case store.EventSuccess:
		g.throttle.Succeeded(e.Account, ip, e.Time)
	case store.EventBind:
		a := authentication(e.Credential, e.Service, e.Time)
		a.Remote = true
		g.sessions.Authenticated(e.Account, ip, a)
	}
}

func (g *Gate) sweep(now time.Time) {
	g.throttle.Sweep(now)
	g.mailboxes.sweep(now)
	g.pending.sweep(now)
	g.sessions.Sweep(now)
}
