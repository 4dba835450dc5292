package adminapi

import (
	"errors"
	"fmt"
	"maps"
	"net/http"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// chunk is the most accounts that one transaction writes. Up to that many, a batch or an import is
// atomic; beyond, each chunk is.
const chunk = 5000

// edits are changes of accounts, to be made together.
type edits struct {
	c      *call
	action string // for the audit
	list   []edit
	makes  bool // missing departments are made
	// over makes of an edit and a record what the record is to be.
	over func(e *edit, cur *store.Account, f *api.Faults) (*api.Account, error)
	// Of a batch; nil for an import:
	still func(addr string, cur *store.Account) bool // whether an account is still concerned
	batch *store.BatchMark                           // left in the accounts that change
	tally
}

type edit struct {
	addr string
	line int        // of an imported file, from 1
	with *rest.Node // a merge patch, of an import
}

// What became of an account, beside [resultChanged].
const (
	resultUnchanged = "unchanged"
	resultSkipped   = "skipped"
	resultFailed    = "failed"
)

// tally is what came of edits.
type tally struct {
	created         int
	changed         []string // the created among them
	unchanged       int
	made            map[string]bool // departments
	skipped, failed int             // of a batch
	results         []api.BatchAccount
}

// note counts what became of one account.
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

// add adds what came of another part, but for its results.
func (t *tally) add(part *tally) {
	t.created += part.created
	t.changed = append(t.changed, part.changed...)
	t.unchanged += part.unchanged
	t.skipped += part.skipped
	t.failed += part.failed
	maps.Copy(t.made, part.made)
}

// part makes edits in one transaction.
func (e *edits) part(list []edit, f *api.Faults, dry bool) (*tally, error) {
	c := e.c
	var t *tally
	exists := func(path string) bool {
		if c.department(path) || e.made[path] || t.made[path] {
			return true
		}
		if !e.makes || checkDepartment(path) != nil {
			return false
		}
		for _, p := range append(parents(path), path) {
			if !c.department(p) && !e.made[p] {
				t.made[p] = true
			}
		}
		return true
	}
	err := c.Store.Update(c.ctx, store.ShardOf(c.domain), c.id.actor, dry, func(ch *store.Change) error {
		if !c.managed(c.domain) {
			return api.NotFound("domain")
		}
		t = &tally{made: map[string]bool{}}
		for _, edit := range list {
			if err := e.one(&edit, exists, t, f, ch, dry); err != nil {
				return err
			}
		}
		f.Line = 0
		if dry {
			return nil
		}
		for path := range t.made {
			ch.PutDepartment(c.domain, &store.Department{Path: path, Name: lastPart(path)})
		}
		audit(ch, e.action, c.domain, c.domain)
		ch.Audit.Note = fmt.Sprintf("%d accounts", len(t.changed))
		return f.Err()
	})
	return t, err
}

// one adds the edit of one account to a change.
func (e *edits) one(edit *edit, exists func(department string) bool, t *tally, f *api.Faults, ch *store.Change, dry bool) error {
	c := e.c
	cur, ok := c.Store.State.Account(edit.addr)
	if e.still != nil && !e.still(edit.addr, cur.Doc) {
		t.note(api.BatchAccount{Address: edit.addr, Result: resultSkipped})
		return nil
	}
	base := cur.Doc
	if !ok && e.batch != nil {
		if p := new(api.Problem); errors.As(c.unlisted(edit.addr), &p) {
			t.note(api.BatchAccount{Address: edit.addr, Result: resultFailed, Errors: []api.Fault{{Code: p.Code, Detail: "there is no such account, and the domain's accounts are listed here: create it first"}}})
			return nil
		}
	}
	if !ok {
		base = newRecord(edit.addr, ch)
	}
	f.Line = edit.line
	if e.batch != nil {
		f = &api.Faults{} // of this account alone: it does not keep the batch from the others
	}
	in, err := e.over(edit, base, f)
	if err != nil {
		return err
	}
	next := c.record(&in.AccountSettings, base, exists, f)
	if e.batch != nil && len(f.List) > 0 {
		t.note(api.BatchAccount{Address: edit.addr, Result: resultFailed, Errors: f.List})
		return nil
	}
	differ := changed(base, next)
	if ok && len(differ) == 0 && (e.batch != nil || same(cur.Doc, next)) { // an import sets aliases, too
		t.note(api.BatchAccount{Address: edit.addr, Result: resultUnchanged})
		return nil
	}
	if !ok {
		t.created++
	}
	t.note(api.BatchAccount{Address: edit.addr, Result: resultChanged, Changes: differ})
	if e.batch != nil {
		mark(next, *e.batch, differ)
	}
	if dry {
		return nil
	}
	if e.batch != nil && ok {
		ch.NoteOf(edit.addr, fieldsOf(differ, base, next))
	} else {
		ch.DiffOf(edit.addr, cur.Doc, next)
	}
	ch.PutAccount(next)
	return nil
}

// stopped says what was written before an error.
func (e *edits) stopped(err error) *api.Problem {
	written := len(e.changed)
	p := *problemOf(err)
	switch {
	case p.Status >= http.StatusInternalServerError:
		e.c.Log.Error("changing many accounts", "domain", e.c.domain, "written", written, "error", err)
	case p.Status == http.StatusUnprocessableEntity:
		p = *api.Conflict("interrupted", "another change came between: run it again")
	}
	if written > 0 {
		p.Detail = fmt.Sprintf("%d accounts were written, and then: %s", written, p.Detail)
	}
	p.Written = written
	return &p
}
