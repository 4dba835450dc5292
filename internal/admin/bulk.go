package admin

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Chunk is the number of accounts that one transaction writes at most. A batch or an import of up to
// that many accounts is atomic.
const Chunk = 5000

// portion is the number of accounts that each transaction of a larger batch or import writes, and
// maxPause bounds the pause after it, which is twice as long as the transaction took: logins and other
// changes go on (measured with a pause as long as it took: 0.77 of the undisturbed logins).
const (
	portion  = 1000
	maxPause = 500 * time.Millisecond
)

// portions returns the accounts of each transaction.
func (b *bulk) portions() iter.Seq[[]accountEdit] {
	if len(b.list) <= Chunk {
		return slices.Chunk(b.list, Chunk)
	}
	return func(yield func([]accountEdit) bool) {
		for list := range slices.Chunk(b.list, portion) {
			begin := time.Now()
			if !yield(list) {
				return
			}
			time.Sleep(min(2*time.Since(begin), maxPause))
		}
	}
}

// bulk changes many accounts.
type bulk struct {
	*Domain
	action  string // in the audit
	list    []accountEdit
	creates bool // missing departments
	// edit returns the settings of an account, given its record.
	edit func(e *accountEdit, cur *store.Account, f *api.Faults) (*api.Account, error)
	// Of a batch; nil for an import:
	selects func(addr string, cur *store.Account) bool // reports whether the account is still selected
	mark    *store.BatchMark                           // added to the accounts that change
	tally
}

// accountEdit changes one account.
type accountEdit struct {
	addr string
	line int               // of an imported file, from 1
	edit Edit[api.Account] // of an import
}

// Results for one account, beside resultChanged.
const (
	resultUnchanged = "unchanged"
	resultSkipped   = "skipped"
	resultFailed    = "failed"
)

// tally counts accounts by result.
type tally struct {
	created         int
	changed         []string // including those created
	unchanged       int
	departments     map[string]bool // created
	skipped, failed int             // of a batch
	results         []api.BatchAccount
}

// note counts the result for one account.
func (t *tally) note(r api.BatchAccount) {
	switch r.Result {
	case resultChanged:
		t.changed = append(t.changed, r.Address)
	case resultUnchanged:
		t.unchanged++
	case resultSkipped:
		t.skipped++
	case resultFailed:
		t.failed++
	}
	t.results = append(t.results, r)
}

// add adds the counts of a chunk, without its results.
func (t *tally) add(chunk *tally) {
	t.created += chunk.created
	t.changed = append(t.changed, chunk.changed...)
	t.unchanged += chunk.unchanged
	t.skipped += chunk.skipped
	t.failed += chunk.failed
	maps.Copy(t.departments, chunk.departments)
}

// chunk makes edits in one transaction.
func (b *bulk) chunk(ctx context.Context, list []accountEdit, f *api.Faults, dry bool) (*tally, error) {
	var t *tally
	exists := func(path string) bool {
		if b.HasDepartment(path) || b.departments[path] || t.departments[path] {
			return true
		}
		if !b.creates || checkDepartment(path) != nil {
			return false
		}
		for _, p := range append(Parents(path), path) {
			if !b.HasDepartment(p) && !b.departments[p] {
				t.departments[p] = true
			}
		}
		return true
	}
	err := b.changeFor(ctx, ForDomain, dry, func(ch *store.Change) error {
		t = &tally{departments: map[string]bool{}}
		for _, e := range list {
			if err := b.one(&e, exists, t, f, ch, dry); err != nil {
				return err
			}
		}
		f.Line = 0
		if dry {
			return nil
		}
		for path := range t.departments {
			ch.PutDepartment(b.name, UnnamedDepartment(path))
		}
		Describe(ch, b.action, b.name, b.name)
		ch.Audit.Note = fmt.Sprintf("%d accounts", len(t.changed))
		return f.Err()
	})
	return t, err
}

// one adds the edit of one account to a change.
func (b *bulk) one(e *accountEdit, exists func(department string) bool, t *tally, f *api.Faults, ch *store.Change, dry bool) error {
	cur, ok := b.Store.State.Account(e.addr)
	if b.selects != nil && !b.selects(e.addr, cur.Doc) {
		t.note(api.BatchAccount{Address: e.addr, Result: resultSkipped})
		return nil
	}
	base := cur.Doc
	if !ok && b.mark != nil {
		if p := new(api.Problem); errors.As(b.checkListed(e.addr), &p) {
			t.note(api.BatchAccount{Address: e.addr, Result: resultFailed, Errors: []api.Fault{{Code: p.Code, Detail: "there is no such account, and the domain's accounts are listed here: create it first"}}})
			return nil
		}
	}
	if !ok {
		base = NewAccount(e.addr, ch)
	}
	f.Line = e.line
	if b.mark != nil {
		f = &api.Faults{} // of this account alone: the batch continues with the others
	}
	in, err := b.edit(e, base, f)
	if err != nil {
		return err
	}
	next := b.readAccount(&in.AccountSettings, base, exists, f)
	if b.mark != nil && len(f.List) > 0 {
		t.note(api.BatchAccount{Address: e.addr, Result: resultFailed, Errors: f.List})
		return nil
	}
	differ := changedSettings(base, next)
	if ok && len(differ) == 0 && (b.mark != nil || Same(cur.Doc, next)) { // an import sets aliases, too
		t.note(api.BatchAccount{Address: e.addr, Result: resultUnchanged})
		return nil
	}
	if !ok {
		t.created++
	}
	t.note(api.BatchAccount{Address: e.addr, Result: resultChanged, Changes: differ})
	if b.mark != nil {
		mark(next, *b.mark, differ)
	}
	if dry {
		return nil
	}
	if b.mark != nil && ok {
		ch.NoteOf(e.addr, changedFields(differ, base, next))
	} else {
		ch.DiffOf(e.addr, cur.Doc, next)
	}
	ch.PutAccount(next)
	return nil
}

// stopped is the problem for an error, with the number of accounts that were written before it.
func (b *bulk) stopped(err error) *api.Problem {
	written := len(b.changed)
	p := *ProblemOf(err)
	switch {
	case p.OfServer():
		b.Log.Error("changing many accounts", "domain", b.name, "written", written, "error", err)
	case p.Code == api.Invalid:
		p = *api.Conflict("interrupted", "the accounts were changed meanwhile: run it again")
	}
	if written > 0 {
		p.Detail = fmt.Sprintf("%d accounts were written, then: %s", written, p.Detail)
	}
	p.Written = written
	return &p
}

// all makes the edits in chunks.
func (b *bulk) all(ctx context.Context, f *api.Faults, dry bool) error {
	b.tally = tally{departments: map[string]bool{}}
	for list := range b.portions() {
		t, err := b.chunk(ctx, list, f, dry)
		if err != nil {
			return err
		}
		b.add(t)
	}
	return nil
}
