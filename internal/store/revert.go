package store

import (
	"context"
	"fmt"
	"time"
)

// revert undoes the changes that were not confirmed in time. Every daemon tries, the first one does
// it. While Redis is away they wait: documents are reverted as soon as Redis is back.
func (s *Store) revert(ctx context.Context) {
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var again time.Time // of the next attempt after a failure
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if now.Before(again) || s.Trouble() != nil {
				continue
			}
			for _, domain := range s.State.dueReverts(now) {
				if err := s.revertDue(ctx, domain); err != nil && ctx.Err() == nil {
					s.Logger.Warn("undoing a change that was not confirmed", "domain", domain, "error", err)
					again = now.Add(5 * time.Second)
				}
			}
		}
	}
}

// revertDue makes one change that applies the first of a domain's due reverts.
func (s *Store) revertDue(ctx context.Context, domain string) error {
	return s.Update(ctx, ShardOf(domain), Actor{Name: "daemon"}, false, func(c *Change) error {
		list := s.State.Reverts(domain)
		if len(list) == 0 || c.Now.Before(list[0].Doc.At) {
			return nil // another daemon was first, or it was confirmed
		}
		r := list[0].Doc
		kept := undo(c, "policy/", r.Rev, r.Policies,
			func(id string) (Revised[Policy], bool) { return s.State.Policy(domain, id) },
			func(p *Policy) { c.PutPolicy(domain, p) }, func(id string) { c.DeletePolicy(domain, id) })
		kept += undo(c, "block/", r.Rev, r.Blocks,
			func(id string) (Revised[Block], bool) { return s.State.Block(domain, id) },
			func(b *Block) { c.PutBlock(domain, b) }, func(id string) { c.DeleteBlock(domain, id) })
		c.DeleteRevert(domain, r.ID)
		c.Audit.Action, c.Audit.Domain, c.Audit.Target = "revert", domain, r.Target
		c.Audit.Note = fmt.Sprintf("%s by %s was not confirmed by %s", r.Action, r.By.Name, r.At.Format(time.RFC3339))
		if kept > 0 {
			c.Audit.Note += fmt.Sprintf("; %d that were changed again stay", kept)
		}
		return nil
	})
}

// undo adds the former documents to a change, nil for one that did not exist, and returns how many
// it leaves out because they were changed again.
func undo[T any](c *Change, kind string, rev uint64, before map[string]*T, current func(id string) (Revised[T], bool), put func(*T), del func(id string)) (kept int) {
	for id, was := range before {
		cur, exists := current(id)
		switch {
		case exists && cur.Rev != rev, !exists && was == nil:
			kept++
			continue
		case was == nil:
			del(id)
		default:
			put(was)
		}
		c.DiffOf(kind+id, cur.Doc, was)
	}
	return kept
}
