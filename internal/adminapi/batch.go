package adminapi

import (
	"bytes"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
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

// edits are patches of accounts, to be made together.
type edits struct {
	c      *call
	action string // for the audit
	list   []edit
	makes  bool // missing departments are made
	// What came of it.
	created   int
	changed   []string // the created among them
	unchanged int
	made      map[string]bool // departments
}

type edit struct {
	addr string
	with *node // a merge patch
	line int   // of an imported file, from 1
	// still tells whether the account is still concerned; nil for always.
	still func(cur *store.Account) bool
}

// try holds all edits against the state as it is, and notes all their faults.
func (e *edits) try(f *faults) error { return e.run(f, true) }

// make makes the edits, after a try that found no fault. A dry run leaves it
// at what the try found.
func (e *edits) make() error {
	if e.c.dryRun {
		return nil
	}
	err := e.run(&faults{}, false)
	if p := new(Problem); errors.As(err, &p) && p.Status == http.StatusUnprocessableEntity {
		return conflict("interrupted", "another change came between; %d accounts were written: run it again", len(e.changed))
	}
	if err != nil && len(e.changed) > 0 {
		p := *problemOf(err)
		p.Detail = fmt.Sprintf("%d accounts were written, and then: %s", len(e.changed), p.Detail)
		e.c.Log.Error("changing many accounts", "error", err)
		return &p
	}
	return err
}

func (e *edits) run(f *faults, dry bool) error {
	e.created, e.changed, e.unchanged, e.made = 0, nil, 0, map[string]bool{}
	for part := range slices.Chunk(e.list, chunk) {
		if err := e.part(part, f, dry); err != nil {
			return err
		}
	}
	return nil
}

// part makes edits in one transaction.
func (e *edits) part(list []edit, f *faults, dry bool) error {
	c := e.c
	var created, unchanged int
	var changed []string
	made := map[string]bool{}
	exists := func(path string) bool {
		if c.department(path) || e.made[path] || made[path] {
			return true
		}
		if !e.makes || checkDepartment(path) != nil {
			return false
		}
		for _, p := range append(parents(path), path) {
			if !c.department(p) && !e.made[p] {
				made[p] = true
			}
		}
		return true
	}
	err := c.Store.Update(c.ctx, store.ShardOf(c.domain), c.id.actor, dry, func(ch *store.Change) error {
		if !c.managed(c.domain) {
			return notFound("domain")
		}
		created, unchanged, changed = 0, 0, nil
		clear(made)
		for _, edit := range list {
			cur, ok := c.Store.State.Account(edit.addr)
			if edit.still != nil && !edit.still(cur.Doc) {
				continue
			}
			f.line = edit.line
			in, err := c.patchRecord(cur.Doc, edit.addr, edit.with, f)
			if err != nil {
				return err
			}
			base := cur.Doc
			if !ok {
				base = newRecord(edit.addr, ch)
				created++
			}
			next := c.record(&in.AccountSettings, base, exists, f)
			if ok && same(cur.Doc, next) {
				unchanged++
				continue
			}
			changed = append(changed, edit.addr)
			if !dry {
				ch.DiffOf(edit.addr, cur.Doc, next)
				ch.PutAccount(next)
			}
		}
		f.line = 0
		if dry {
			return nil
		}
		for path := range made {
			ch.PutDepartment(c.domain, &store.Department{Path: path, Name: lastPart(path)})
		}
		audit(ch, e.action, c.domain, c.domain)
		ch.Audit.Note = fmt.Sprintf("%d accounts", len(changed))
		return f.err()
	})
	if err != nil {
		return err
	}
	e.created += created
	e.unchanged += unchanged
	e.changed = append(e.changed, changed...)
	maps.Copy(e.made, made)
	return nil
}

func batchAccounts(c *call) (*answer, error) {
	var f faults
	in := decode[Batch](c, c.body, &f)
	var scope access.Scope
	if in.Select != nil {
		scope = c.scope(in.Select, "/select", &f)
		if in.Select.nobody() {
			f.add("/select", "required", `names nobody: say "all":true, or name departments or members`)
		}
	}
	set := c.body.get("set")
	if set != nil && set.kind == kindObject && len(set.fields) == 0 {
		f.add("/set", "required", "sets nothing: name what is to change")
	}
	if in.Set != nil {
		for i, path := range in.Set.Departments {
			if !c.department(path) {
				f.add(at("/set/departments", i), "unknown_department", "there is no such department: create it first")
			}
		}
		in.Set.Protocols.preset(in.Set.Preset, "/set", &f)
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	covers := c.covers(&scope)
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
	e := edits{c: c, action: "account.batch"}
	for _, addr := range selected {
		e.list = append(e.list, edit{addr: addr, with: set, still: func(cur *store.Account) bool { return covers(addr, cur) }})
	}
	if err := e.try(&f); err != nil {
		return nil, err
	}
	if err := f.err(); err != nil {
		return nil, err
	}
	if err := e.make(); err != nil {
		return nil, err
	}
	return &answer{body: BatchResult{Selected: len(selected), Changed: len(e.changed), Accounts: list(e.changed)}}, nil
}

// covers compiles a scope, so that asking it for many accounts is cheap: it
// becomes the one whom secure passwords are enforced for, in rules of its own.
func (c *call) covers(scope *access.Scope) func(addr string, record *store.Account) bool {
	set := access.Settings{Enforced: true, EnforceFor: *scope}
	for _, d := range c.Store.State.Departments(c.domain) {
		set.Departments = append(set.Departments, d.Doc.Path)
	}
	rules := access.Compile(&set)
	return func(addr string, record *store.Account) bool {
		acc := &access.Account{}
		if record != nil {
			acc.Departments = record.Departments
		}
		in, _ := rules.SecureRequired(addr, acc)
		return in
	}
}

// importColumns are the columns that an imported file may have.
func importColumns() []string {
	return []string{"address", "departments", "aliases", "imap", "pop3", "smtp", "sieve", "preset", "suspended", "secure_passwords"}
}

func importAccounts(c *call) (*answer, error) {
	var f faults
	e := edits{c: c, action: "account.import", makes: c.flag("create_departments")}
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
