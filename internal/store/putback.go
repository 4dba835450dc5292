package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A failover to a replica that lacks the last changes takes the store back. Each daemon keeps the
// recent changes of every shard as they were committed. The store's head after such a failover is
// one of those that these changes followed, and they are committed again as they were: same number,
// same content, same hash. Whichever daemon comes first puts them back; for the others, and for
// those that follow the streams, nothing has changed. A head that is not among the kept ones is
// another store, or an old backup: [ErrForeign].
const (
	recentTime  = 10 * time.Minute // longer than any failover
	recentBytes = 4 << 20          // of one shard
)

// recent is a shard's last changes, which the daemon keeps, oldest first, without gaps.
type recent struct {
	changes []recentChange
	bytes   int
}

type recentChange struct {
	before  Head
	payload []byte
	at      time.Time
}

// remember keeps a change that followed h. apply[shard] is held.
func (s *Store) remember(shard Shard, h Head, payload []byte) {
	if !s.PutBack {
		return
	}
	r := &s.recent[shard]
	now := time.Now()
	if n := len(r.changes); n > 0 && r.changes[n-1].before.N+1 != h.N {
		*r = recent{}
	}
	r.changes = append(r.changes, recentChange{h, payload, now})
	r.bytes += len(payload)
	drop := 0
	for drop < len(r.changes)-1 && (r.bytes > recentBytes || now.Sub(r.changes[drop].at) > recentTime) {
		r.bytes -= len(r.changes[drop].payload)
		r.changes[drop].payload = nil
		drop++
	}
	r.changes = r.changes[drop:]
}

// since returns the changes that followed h, nil if they are not kept any more.
func (r *recent) since(h Head, now time.Time) []recentChange {
	for i, c := range r.changes {
		if c.before == h && now.Sub(c.at) <= recentTime {
			return r.changes[i:]
		}
	}
	return nil
}

// putBack commits the changes that a failover took from a shard. It returns [ErrForeign] when the
// shard's head is none that this daemon has changes for.
func (s *Store) putBack(ctx context.Context, shard Shard) error {
	s.apply[shard].Lock()
	defer s.apply[shard].Unlock()
	heads, _, err := s.Log.Heads(ctx)
	if err != nil {
		return err
	}
	h, k := heads[shard], s.State.Head(shard)
	if h.N >= k.N && h.StoreID == k.StoreID {
		return nil // another daemon was first
	}
	foreign := fmt.Errorf("%w: shard %d went back from change %d to %d", ErrForeign, shard, k.N, h.N)
	lost := s.recent[shard].since(h, time.Now())
	if lost == nil {
		return foreign
	}
	var names []string
	for _, c := range lost {
		var e Entry
		if err := json.Unmarshal(c.payload, &e); err != nil {
			return fmt.Errorf("shard %d, change %d: %w", shard, c.before.N+1, err)
		}
		audit, err := json.Marshal(e.Audit)
		if err != nil {
			return fmt.Errorf("encoding an audit entry: %w", err)
		}
		err = s.Log.Commit(ctx, shard, c.before, c.payload, &e, audit)
		switch {
		case errors.Is(err, ErrConflict): // somebody who did not hold these changes made others
			return fmt.Errorf("%w; changes made since then do not follow the lost ones", foreign)
		case err != nil && !errors.Is(err, ErrUnconfirmed):
			return fmt.Errorf("putting back change %d of shard %d: %w", e.N, shard, err)
		}
		if len(names) < maxNamed {
			names = append(names, e.Audit.Action+" "+e.Audit.Target)
		}
	}
	s.Logger.Warn("a failover lost acknowledged changes, which were put back",
		"shard", int(shard), "after", h.N, "changes", len(lost), "what", strings.Join(names, ", "))
	s.mu.Lock()
	s.putBackNotes = append(s.putBackNotes, fmt.Sprintf("shard %d, changes %d to %d", shard, h.N+1, k.N))
	s.mu.Unlock()
	return nil
}

// maxNamed bounds the changes that one log line names.
const maxNamed = 20

// auditPutBack records the changes that were put back in the audit log.
func (s *Store) auditPutBack(ctx context.Context) {
	s.mu.Lock()
	notes := s.putBackNotes
	s.mu.Unlock()
	if len(notes) == 0 {
		return
	}
	err := s.Update(ctx, Global, Actor{Name: "daemon"}, false, func(c *Change) error {
		c.Audit.Action, c.Audit.Target, c.Audit.Note = "store.put_back", s.State.Head(Global).StoreID, strings.Join(notes, "; ")
		c.AuditOnly()
		return nil
	})
	if err != nil {
		return // with the next check
	}
	s.mu.Lock()
	s.putBackNotes = s.putBackNotes[len(notes):]
	s.mu.Unlock()
}
