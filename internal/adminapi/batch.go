package adminapi

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// chunk is the most accounts that one transaction writes. Up to that many, a
// batch or an import is atomic; beyond, each chunk is.
const chunk = 5000

// maxImportLines bounds the accounts of one imported file: 16 MiB of the
// shortest lines would take gigabytes, and hold up all changes of the shard.
const maxImportLines = 100_000

// edits are changes of accounts, to be made together.
type edits struct {
	c      *call
	action string // for the audit
	list   []edit
	makes  bool // missing departments are made
	// over makes of an edit and a record what the record is to be.
	over func(e *edit, cur *store.Account, f *faults) (*Account, error)
	// Of a batch; nil for an import:
	still func(addr string, cur *store.Account) bool // whether an account is still concerned
	batch *store.BatchMark                           // left in the accounts that change
	tally
}

type edit struct {
	addr string
	line int   // of an imported file, from 1
	with *node // a merge patch, of an import
}

// tally is what came of edits.
type tally struct {
	created         int
	changed         []string // the created among them
	unchanged       int
	made            map[string]bool // departments
	skipped, failed int             // of a batch
	results         []BatchAccount
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

// try holds all edits against the state as it is, and notes all their faults.
func (e *edits) try(f *faults) error { return e.run(f, true) }

// make makes the edits, after a try that found no fault. A dry run leaves it
// at what the try found.
func (e *edits) make() error {
	if e.c.dryRun {
		return nil
	}
	if err := e.run(&faults{}, false); err != nil {
		return e.stopped(err)
	}
	return nil
}

func (e *edits) run(f *faults, dry bool) error {
	e.tally = tally{made: map[string]bool{}}
	for part := range slices.Chunk(e.list, chunk) {
		t, err := e.part(part, f, dry)
		if err != nil {
			return err
		}
		e.add(t)
	}
	return nil
}

// stopped says what was written before an error.
func (e *edits) stopped(err error) *Problem {
	written := len(e.changed)
	p := *problemOf(err)
	switch {
	case p.Status >= http.StatusInternalServerError:
		e.c.Log.Error("changing many accounts", "domain", e.c.domain, "written", written, "error", err)
	case p.Status == http.StatusUnprocessableEntity:
		p = *conflict("interrupted", "another change came between: run it again")
	}
	if written > 0 {
		p.Detail = fmt.Sprintf("%d accounts were written, and then: %s", written, p.Detail)
	}
	p.Written = written
	return &p
}

// part makes edits in one transaction.
func (e *edits) part(list []edit, f *faults, dry bool) (*tally, error) {
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
			return notFound("domain")
		}
		t = &tally{made: map[string]bool{}}
		for _, edit := range list {
			if err := e.one(&edit, exists, t, f, ch, dry); err != nil {
				return err
			}
		}
		f.line = 0
		if dry {
			return nil
		}
		for path := range t.made {
			ch.PutDepartment(c.domain, &store.Department{Path: path, Name: lastPart(path)})
		}
		audit(ch, e.action, c.domain, c.domain)
		ch.Audit.Note = fmt.Sprintf("%d accounts", len(t.changed))
		return f.err()
	})
	return t, err
}

// one adds the edit of one account to a change.
func (e *edits) one(edit *edit, exists func(department string) bool, t *tally, f *faults, ch *store.Change, dry bool) error {
	c := e.c
	cur, ok := c.Store.State.Account(edit.addr)
	if e.still != nil && !e.still(edit.addr, cur.Doc) {
		t.skipped++
		t.results = append(t.results, BatchAccount{Address: edit.addr, Result: "skipped"})
		return nil
	}
	base := cur.Doc
	if !ok {
		base = newRecord(edit.addr, ch)
	}
	f.line = edit.line
	if e.batch != nil {
		f = &faults{} // of this account alone: it does not keep the batch from the others
	}
	in, err := e.over(edit, base, f)
	if err != nil {
		return err
	}
	next := c.record(&in.AccountSettings, base, exists, f)
	if e.batch != nil && len(f.list) > 0 {
		t.failed++
		t.results = append(t.results, BatchAccount{Address: edit.addr, Result: "failed", Errors: f.list})
		return nil
	}
	var differ map[string][2]any
	alike := ok
	if e.batch != nil {
		differ = changed(base, next)
		alike = alike && len(differ) == 0
	} else {
		alike = alike && same(cur.Doc, next)
	}
	if alike {
		t.unchanged++
		t.results = append(t.results, BatchAccount{Address: edit.addr, Result: "unchanged"})
		return nil
	}
	if !ok {
		t.created++
	}
	t.changed = append(t.changed, edit.addr)
	t.results = append(t.results, BatchAccount{Address: edit.addr, Result: "changed", Changes: differ})
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

// batchSet is what a batch sets, read once for all its accounts.
type batchSet struct {
	BatchSet
	named map[string]bool // "suspended", "protocols.imap" ...: what is set to null, too
}

func readSet(in *BatchSet, sent *node) *batchSet {
	s := &batchSet{*in, map[string]bool{}}
	for _, f := range sent.fields {
		s.named[f.name] = true
		inner := f.value.fields
		if f.name == "protocols" && f.value.kind == kindNull { // all of them
			inner = []field{{name: "imap"}, {name: "pop3"}, {name: "smtp"}, {name: "sieve"}}
		}
		for _, i := range inner {
			s.named[f.name+"."+i.name] = true
		}
	}
	if s.Preset != "" {
		s.named["protocols.imap"], s.named["protocols.pop3"], s.named["protocols.smtp"] = true, true, true
	}
	return s
}

// over puts the settings over an account's record as a merge patch of it would.
func (s *batchSet) over(cur *store.Account) *Account {
	in := viewAccount(cur)
	in.Preset = s.Preset // not that which explains the switches as they are
	if s.named["suspended"] {
		in.Suspended = s.Suspended
	}
	if s.named["departments"] {
		in.Departments = s.Departments
	}
	if s.named["secure_passwords"] {
		in.SecurePasswords = s.SecurePasswords
	}
	for _, p := range []struct {
		name     string
		to, from **bool
	}{
		{"imap", &in.Protocols.IMAP, &s.Protocols.IMAP},
		{"pop3", &in.Protocols.POP3, &s.Protocols.POP3},
		{"smtp", &in.Protocols.SMTP, &s.Protocols.SMTP},
		{"sieve", &in.Protocols.Sieve, &s.Protocols.Sieve},
	} {
		if s.named["protocols."+p.name] {
			*p.to = *p.from
		}
	}
	return &in
}

// maxResults bounds the results in an answer that is not streamed.
const maxResults = 10_000

// batch is one run of a batch over the accounts that it selects.
type batch struct {
	edits
	id       string // of its body: a cursor is of no use to another
	selected int
	earlier  int    // of the selected, what an earlier run did
	cursor   string // behind the last account that is done
}

func batchAccounts(c *call) (*answer, error) {
	b, err := c.readBatch()
	if err != nil {
		return nil, err
	}
	if accepts(c.r, linesType) {
		return &answer{handler: func(http.ResponseWriter, *http.Request) { b.stream(newStream(c)) }}, nil
	}
	result := BatchResult{Results: []BatchAccount{}}
	err = b.run(func(chunk []BatchAccount) error {
		hold(c.w)
		room := min(len(chunk), maxResults-len(result.Results))
		result.Results = append(result.Results, chunk[:room]...)
		result.More += len(chunk) - room
		return nil
	})
	if err != nil {
		return nil, err
	}
	result.BatchTotals, result.Accounts = b.totals(), list(b.changed)
	return &answer{body: result}, nil
}

// stream makes the batch and tells of it on the way. Once the client is gone
// it stops behind a chunk: the cursor that was sent last, or before that
// chunk, resumes it.
func (b *batch) stream(s *stream) {
	gone := false
	err := b.run(func(chunk []BatchAccount) error {
		for i := range chunk {
			if err := s.item(&chunk[i]); err != nil {
				gone = true
				return err
			}
		}
		err := s.progress(BatchProgress{Done: b.done(), Selected: b.selected, Cursor: b.cursor})
		gone = err != nil
		return err
	})
	if gone {
		b.c.Log.Warn("a batch stopped: its client is gone", "domain", b.c.domain, "done", b.done(), "selected", b.selected, "error", err)
		return
	}
	s.end(b.totals(), err)
}

// readBatch reads what was sent and selects the accounts.
func (c *call) readBatch() (*batch, error) {
	var f faults
	in := decode[Batch](c, c.body, &f)
	var scope access.Scope
	if in.Select != nil {
		scope = c.scope(in.Select, "/select", &f)
		if in.Select.nobody() {
			f.add("/select", "required", `names nobody: say "all":true, or name departments or members`)
		}
	}
	sent := c.body.get("set")
	if sent != nil && sent.kind == kindObject && len(sent.fields) == 0 {
		f.add("/set", "required", "sets nothing: name what is to change")
	}
	if in.Set != nil {
		for i, path := range in.Set.Departments {
			switch pointer := at("/set/departments", i); {
			case !c.department(path):
				f.add(pointer, "unknown_department", "there is no such department: create it first")
			case slices.Contains(in.Set.Departments[:i], path):
				f.add(pointer, "duplicate", "is named twice: leave it out")
			}
		}
		in.Set.Protocols.preset(in.Set.Preset, "/set", &f)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	set, covers := readSet(in.Set, sent), c.covers(&scope)
	b := &batch{id: c.batchID(), cursor: c.query.Get("resume"), edits: edits{
		c: c, action: "account.batch", still: covers,
		over:  func(_ *edit, cur *store.Account, _ *faults) (*Account, error) { return set.over(cur), nil },
		batch: &store.BatchMark{At: c.now.UTC().Truncate(time.Millisecond), By: c.id.actor.Name, Scope: wordsOf(&scope)},
		tally: tally{made: map[string]bool{}},
	}}
	after, err := b.after()
	if err != nil {
		return nil, err
	}
	for _, addr := range c.selects(&scope, covers) {
		b.selected++
		if addr <= after {
			b.earlier++
			continue
		}
		b.list = append(b.list, edit{addr: addr})
	}
	return b, nil
}

// selects returns the accounts in a scope, sorted.
func (c *call) selects(scope *access.Scope, covers func(string, *store.Account) bool) []string {
	var selected []string
	for _, a := range c.Store.State.Accounts(c.domain, "", 0) {
		if covers(a.Doc.Address, a.Doc) {
			selected = append(selected, a.Doc.Address)
		}
	}
	for _, m := range scope.Members { // members need no record yet
		if _, ok := c.Store.State.Account(m); !ok && covers(m, nil) {
			selected = append(selected, m)
		}
	}
	slices.Sort(selected)
	return selected
}

// batchID tells batches apart: by domain, what was sent, however it is
// written, and whether it is a dry run, behind which nothing is done.
func (c *call) batchID() string {
	var v any
	_ = json.Unmarshal(c.raw, &v) // was parsed
	text, _ := json.Marshal([]any{c.domain, c.dryRun, v})
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// after returns the account behind which the batch goes on; "" for all of it.
func (b *batch) after() (string, error) {
	if b.cursor == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(b.cursor)
	id, after, _ := strings.Cut(string(text), " ")
	if err != nil || id != b.id {
		return "", refuse(http.StatusBadRequest, "bad_cursor", "the cursor is not of this batch: send the body that it was handed out for, or leave it out to begin anew, which does no harm")
	}
	return after, nil
}

// run makes the edits in chunks. Each chunk's results are handed over once
// they are durable; an error of that is returned as it is.
func (b *batch) run(told func(chunk []BatchAccount) error) error {
	for part := range slices.Chunk(b.list, chunk) {
		t, err := b.part(part, &faults{}, b.c.dryRun)
		if err != nil {
			p := b.stopped(err)
			p.Cursor = b.cursor
			return p
		}
		b.add(t)
		b.cursor = cursorOf(b.id + " " + part[len(part)-1].addr)
		if err := told(t.results); err != nil {
			return err
		}
	}
	return nil
}

func (b *batch) done() int { return b.earlier + len(b.changed) + b.unchanged + b.skipped + b.failed }

func (b *batch) totals() BatchTotals {
	return BatchTotals{
		Selected: b.selected, Earlier: b.earlier,
		Changed: len(b.changed), Unchanged: b.unchanged, Skipped: b.skipped, Failed: b.failed,
	}
}

// importColumns are the columns that an imported file may have.
func importColumns() []string {
	return []string{"address", "departments", "aliases", "imap", "pop3", "smtp", "sieve", "preset", "suspended", "secure_passwords"}
}

func importAccounts(c *call) (*answer, error) {
	var f faults
	e := edits{c: c, action: "account.import", makes: c.flag("create_departments")}
	e.over = func(e *edit, cur *store.Account, f *faults) (*Account, error) {
		return c.patchRecord(cur, e.addr, e.with, f)
	}
	e.list = c.readImport(&f)
	if err := e.try(&f); err != nil {
		return nil, err
	}
	slices.SortStableFunc(f.list, func(a, b Fault) int { return a.Line - b.Line })
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := e.make(); err != nil {
		return nil, err
	}
	return &answer{body: ImportResult{
		Lines: len(e.list), Created: e.created, Changed: len(e.changed) - e.created, Unchanged: e.unchanged, Departments: list(slices.Sorted(maps.Keys(e.made))),
	}}, nil
}

// readImport reads a file of accounts (RFC 4180, with a header line).
func (c *call) readImport(f *faults) []edit {
	defer func() { f.line = 0 }()
	text := bytes.TrimPrefix(c.raw, []byte("\ufeff"))
	f.line = 1
	if !utf8.Valid(text) {
		f.add("", "malformed", "the file is not valid UTF-8: save it in that encoding")
		return nil
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, true, true
	header, err := r.Read()
	if err != nil {
		f.add("", "malformed", "the file has no header line: begin it with address,departments,imap,pop3,smtp or what else there is")
		return nil
	}
	columns := slices.Clone(header)
	for i, name := range columns {
		name = strings.ToLower(strings.TrimSpace(name))
		columns[i] = name
		switch {
		case !slices.Contains(importColumns(), name):
			f.add(at("", name[:min(len(name), maxName)]), "unknown_field", "there is no such column%s", suggest(name, importColumns()))
		case slices.Contains(columns[:i], name):
			f.add(at("", name), "duplicate", "is named twice: leave one out")
		}
	}
	if !slices.Contains(columns, "address") {
		f.add("/address", "required", "the column is needed")
	}
	if len(f.list) > 0 {
		return nil // what the cells mean is not known
	}
	var list []edit
	first := map[string]int{}
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			f.line = bad.Line
			f.add("", "malformed", "a quote is where none may be, or does not end: put cells with quotes, commas or line breaks in quotes, and double the quotes in them; the lines behind it were not read")
			return list
		}
		f.line, _ = r.FieldPos(0)
		if len(list) == maxImportLines {
			f.add("", "too_many", "the file goes on behind %d accounts: split it; the lines from here on were not read", maxImportLines)
			return list
		}
		if len(cells) != len(columns) {
			f.add("", "malformed", "has %d cells, the header has %d", len(cells), len(columns))
			continue
		}
		e := edit{line: f.line, with: &node{kind: kindObject}}
		for i, cell := range cells {
			cell = strings.TrimSpace(cell)
			if columns[i] != "address" {
				importCell(e.with, columns[i], cell, f)
				continue
			}
			addr, err := address.Parse(cell, c.domain)
			e.addr = c.Store.State.Canonical(addr)
			switch {
			case err != nil:
				f.add("/address", "invalid_address", "%v", err)
			case address.Domain(e.addr) != c.domain:
				f.add("/address", "outside_domain", "is no address of this domain")
			case first[e.addr] > 0:
				f.add("/address", "duplicate", "is the account of line %d again: leave one out", first[e.addr])
			default:
				first[e.addr] = f.line
			}
		}
		list = append(list, e) // with faults too, so that all of them are found
	}
}

// importCell adds one cell to a line's patch. An empty one means inherit, or none.
func importCell(with *node, column, cell string, f *faults) {
	put := func(n *node, name string, v *node) { n.fields = append(n.fields, field{name, v}) }
	switch column {
	case "departments", "aliases":
		items := &node{kind: kindArray}
		for item := range strings.SplitSeq(cell, ";") {
			if item = strings.TrimSpace(item); item != "" {
				items.items = append(items.items, quote(item))
			}
		}
		put(with, column, items)
	case "imap", "pop3", "smtp", "sieve":
		protocols := with.get("protocols")
		if protocols == nil {
			protocols = &node{kind: kindObject}
			put(with, "protocols", protocols)
		}
		put(protocols, column, importSwitch(column, cell, f))
	case "suspended":
		put(with, column, importSwitch(column, cell, f))
	default: // preset, secure_passwords
		v := &node{}
		if cell != "" {
			v = quote(cell)
		}
		put(with, column, v)
	}
}

func importSwitch(column, cell string, f *faults) *node {
	switch strings.ToLower(cell) {
	case "":
		return &node{}
	case "true", "on", "yes", "1":
		return &node{kind: kindBool, raw: []byte("true")}
	case "false", "off", "no", "0":
		return &node{kind: kindBool, raw: []byte("false")}
	default:
		f.add(at("", column), "not_in_list", "must be true, on, yes or 1; false, off, no or 0; or empty to inherit")
		return &node{}
	}
}
