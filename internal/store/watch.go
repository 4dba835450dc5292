package store

import (
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/drawbridge/drawbridge/internal/access"
)

// StateEvent names what one change of the state affects. The new values are in the state.
type StateEvent struct {
	// Resync: anything may have changed, because a shard was loaded again or the watcher was too
	// slow. The other fields are then empty.
	Resync bool
	// Domains are those whose settings, departments, policies, blocks, pending reverts or held
	// messages changed.
	Domains []string
	// Accounts are the addresses of accounts that were written or deleted.
	Accounts []string
	// Revoked are the credentials that were valid before the change and are not any more.
	Revoked     []Credential
	ClientTypes []access.ClientType
	Keys        []string // ids of API keys
}

// Credential names a secret of an account: a secure password's id, or [CredentialMailbox] for the
// mailbox password that is kept in the store.
type Credential struct{ Account, ID string }

func (e *StateEvent) empty() bool {
	return !e.Resync && len(e.Domains)+len(e.Accounts)+len(e.ClientTypes)+len(e.Keys) == 0
}

// maxUnread bounds the events that a watcher has not read yet. One more replaces them all by a
// single resync.
const maxUnread = 256

// Watcher receives the events of a state in the order of each shard's changes.
type Watcher struct {
	st     *State
	signal chan struct{} // holds one value while there are events

	mu     sync.Mutex
	events []StateEvent
}

// Watch returns a watcher of all changes from now on. A slow watcher never delays a change. It must
// be closed.
func (st *State) Watch() *Watcher {
	w := &Watcher{st: st, signal: make(chan struct{}, 1)}
	st.watching.Lock()
	defer st.watching.Unlock()
	// A copy: publish reads the list without the lock.
	next := maps.Clone(st.watched())
	if next == nil {
		next = map[*Watcher]bool{}
	}
	next[w] = true
	st.watchers.Store(&next)
	return w
}

// Close ends the watch. Events that were not read are dropped.
func (w *Watcher) Close() {
	w.st.watching.Lock()
	defer w.st.watching.Unlock()
	next := maps.Clone(w.st.watched())
	delete(next, w)
	w.st.watchers.Store(&next)
}

// Next waits for the next event. Its error is that of ctx.
func (w *Watcher) Next(ctx context.Context) (StateEvent, error) {
	for {
		if e, ok := w.take(); ok {
			return e, nil
		}
		select {
		case <-ctx.Done():
			return StateEvent{}, ctx.Err()
		case <-w.signal:
		}
	}
}

func (w *Watcher) take() (StateEvent, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.events) == 0 {
		return StateEvent{}, false
	}
	e := w.events[0]
	w.events = w.events[1:]
	return e, true
}

func (w *Watcher) publish(e StateEvent) {
	w.mu.Lock()
	if e.Resync || len(w.events) >= maxUnread {
		w.events = []StateEvent{{Resync: true}}
	} else {
		w.events = append(w.events, e)
	}
	w.mu.Unlock()
	select {
	case w.signal <- struct{}{}:
	default:
	}
}

// watched returns the watchers. The map is shared and must not be changed.
func (st *State) watched() map[*Watcher]bool {
	if list := st.watchers.Load(); list != nil {
		return *list
	}
	return nil
}

// publish passes an event to all watchers. The change must be in place.
func (st *State) publish(e StateEvent) {
	if e.empty() {
		return
	}
	for w := range st.watched() {
		w.publish(e)
	}
}

// complete adds to the event of a staged change whose rules and accounts change. It reads the
// records that the change replaces, so it comes before place.
func (c *stagedChange) complete() {
	if len(c.st.watched()) == 0 {
		return
	}
	c.event.Domains = slices.Sorted(maps.Keys(c.domains))
	for _, r := range c.records {
		addr := r.Address()
		c.event.Accounts = append(c.event.Accounts, addr)
		c.revoked(addr, r)
	}
	for _, addr := range c.removed {
		c.event.Accounts = append(c.event.Accounts, addr)
		c.revoked(addr, Record{})
	}
}

// revoked adds to the event which credentials of an account end with its next record.
func (c *stagedChange) revoked(addr string, next Record) {
	was := c.st.record(addr)
	if !was.Exists() {
		return
	}
	for p := range was.Secrets() {
		if p.RevokedAt.IsZero() && next.SecretOf(p.ID).State != access.SecretLive {
			c.event.Revoked = append(c.event.Revoked, Credential{addr, p.ID})
		}
	}
	if hash := was.MailboxHash(); hash != "" && (!next.Exists() || hash != next.MailboxHash()) {
		c.event.Revoked = append(c.event.Revoked, Credential{addr, CredentialMailbox})
	}
}
