package adminapi

import (
	"bytes"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxImportLines bounds the accounts of one imported file: 16 MiB of the shortest lines would take
// gigabytes, and hold up all changes of the shard.
const maxImportLines = 100_000

// importColumns are the columns that an imported file may have.
func importColumns() []string {
	return []string{"address", "departments", "aliases", "imap", "pop3", "smtp", "sieve", "preset", "suspended", "secure_passwords"}
}

func importAccounts(c *call) (*answer, error) {
	var f api.Faults
	e := edits{c: c, action: "account.import", makes: c.flag("create_departments")}
	e.over = func(e *edit, cur *store.Account, f *api.Faults) (*api.Account, error) {
		return c.patchRecord(cur, e.addr, e.with, f)
	}
	e.list = c.readImport(&f)
	if err := e.try(&f); err != nil {
		return nil, err
	}
	slices.SortStableFunc(f.List, func(a, b api.Fault) int { return a.Line - b.Line })
	if err := f.Err(); err != nil {
		return nil, err
	}
	if err := e.make(); err != nil {
		return nil, err
	}
	return &answer{body: api.ImportResult{
		Lines: len(e.list), Created: e.created, Changed: len(e.changed) - e.created, Unchanged: e.unchanged, Departments: list(slices.Sorted(maps.Keys(e.made))),
	}}, nil
}

// try holds all edits against the state as it is, and notes all their faults.
func (e *edits) try(f *api.Faults) error { return e.all(f, true) }

// make makes the edits, after a try that found no fault. A dry run leaves it at what the try found.
func (e *edits) make() error {
	if e.c.dryRun {
		return nil
	}
	if err := e.all(&api.Faults{}, false); err != nil {
		return e.stopped(err)
	}
	return nil
}

func (e *edits) all(f *api.Faults, dry bool) error {
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

// readImport reads a file of accounts (RFC 4180, with a header line).
func (c *call) readImport(f *api.Faults) []edit {
	defer func() { f.Line = 0 }()
	f.Line = 1
	text, err := importText(c.raw)
	if err != nil {
		f.Add("", "malformed", "%v", err)
		return nil
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma = importSeparator(text)
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, r.Comma != '\t', true
	header, err := r.Read()
	if err != nil {
		f.Add("", "malformed", "the file has no header line: begin it with address,departments,imap,pop3,smtp or what else there is")
		return nil
	}
	f.Line, _ = r.FieldPos(0)
	columns := slices.Clone(withoutEmptyEnd(header, 1))
	for i, name := range columns {
		name = strings.ToLower(strings.TrimSpace(name))
		columns[i] = name
		switch {
		case !slices.Contains(importColumns(), name):
			f.Add(api.At("", name[:min(len(name), rest.MaxName)]), "unknown_field", "there is no such column%s", rest.Suggest(name, importColumns()))
		case slices.Contains(columns[:i], name):
			f.Add(api.At("", name), "duplicate", "is named twice: leave one out")
		}
	}
	if !slices.Contains(columns, "address") {
		f.Add("/address", "required", "the column is needed")
	}
	if len(f.List) > 0 {
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
			f.Line = bad.Line
			if bad.StartLine < bad.Line {
				f.Line = bad.StartLine // a quote that never ends was opened in this record
			}
			f.Add("", "malformed", "a quote is where none may be, or does not end: put cells with quotes, commas or line breaks in quotes, and double the quotes in them; the lines behind it were not read")
			return list
		}
		f.Line, _ = r.FieldPos(0)
		if len(list) == maxImportLines {
			f.Add("", "too_many", "the file goes on behind %d accounts: split it; the lines from here on were not read", maxImportLines)
			return list
		}
		if cells = withoutEmptyEnd(cells, len(columns)); len(cells) != len(columns) {
			f.Add("", "malformed", "has %d cells, the header has %d", len(cells), len(columns))
			continue
		}
		e := edit{line: f.Line, with: &rest.Node{Kind: rest.Object}}
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
				f.Add("/address", "invalid_address", "%v", err)
			case address.Domain(e.addr) != c.domain:
				f.Add("/address", "outside_domain", "is no address of this domain")
			case first[e.addr] > 0:
				f.Add("/address", "duplicate", "is the account of line %d again: leave one out", first[e.addr])
			default:
				first[e.addr] = f.Line
			}
		}
		list = append(list, e) // with faults too, so that all of them are found
	}
}

// importText returns a file in UTF-8 with line feeds. Spreadsheets also write UTF-16, and old ones
// lines that end in a carriage return alone.
func importText(raw []byte) ([]byte, error) {
	big := bytes.HasPrefix(raw, []byte("\xfe\xff"))
	switch {
	case big || bytes.HasPrefix(raw, []byte("\xff\xfe")):
		if len(raw)%2 != 0 {
			return nil, errors.New("the file is UTF-16 and ends within a character: save it again, as UTF-8")
		}
		order := binary.ByteOrder(binary.LittleEndian)
		if big {
			order = binary.BigEndian
		}
		units := make([]uint16, 0, len(raw)/2)
		for pair := range slices.Chunk(raw[2:], 2) {
			units = append(units, order.Uint16(pair))
		}
		raw = []byte(string(utf16.Decode(units)))
	case bytes.IndexByte(raw, 0) >= 0:
		return nil, errors.New("the file has NUL bytes, as UTF-16 without its mark has: save it as UTF-8")
	case !utf8.Valid(raw):
		return nil, errors.New("the file is not valid UTF-8: save it in that encoding")
	}
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	if bytes.IndexByte(raw, '\n') < 0 {
		raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("\n"))
	}
	return raw, nil
}

// importSeparator returns what separates the header's cells: a semicolon or a tab, as spreadsheets
// of many languages write, where it has no comma.
func importSeparator(text []byte) rune {
	header, _, _ := bytes.Cut(bytes.TrimLeft(text, "\r\n"), []byte("\n"))
	for _, separator := range ",;\t" {
		if bytes.ContainsRune(header, separator) {
			return separator
		}
	}
	return ','
}

// withoutEmptyEnd drops empty cells at the end, down to least: trailing separators.
func withoutEmptyEnd(cells []string, least int) []string {
	for len(cells) > least && strings.TrimSpace(cells[len(cells)-1]) == "" {
		cells = cells[:len(cells)-1]
	}
	return cells
}

// importCell adds one cell to a line's patch. An empty one means inherit, or none.
func importCell(with *rest.Node, column, cell string, f *api.Faults) {
	put := func(n *rest.Node, name string, v *rest.Node) {
		n.Fields = append(n.Fields, rest.Field{Name: name, Value: v})
	}
	switch column {
	case "departments", "aliases":
		items := &rest.Node{Kind: rest.Array}
		for item := range strings.SplitSeq(cell, ";") {
			if item = strings.TrimSpace(item); item != "" {
				items.Items = append(items.Items, rest.Quote(item))
			}
		}
		put(with, column, items)
	case "imap", "pop3", "smtp", "sieve":
		protocols := with.Get("protocols")
		if protocols == nil {
			protocols = &rest.Node{Kind: rest.Object}
			put(with, "protocols", protocols)
		}
		put(protocols, column, importSwitch(column, cell, f))
	case "suspended":
		put(with, column, importSwitch(column, cell, f))
	default: // preset, secure_passwords
		v := &rest.Node{}
		if cell != "" {
			v = rest.Quote(cell)
		}
		put(with, column, v)
	}
}

func importSwitch(column, cell string, f *api.Faults) *rest.Node {
	switch strings.ToLower(cell) {
	case "":
		return &rest.Node{}
	case "true", "on", "yes", "1":
		return &rest.Node{Kind: rest.Bool, Raw: []byte("true")}
	case "false", "off", "no", "0":
		return &rest.Node{Kind: rest.Bool, Raw: []byte("false")}
	default:
		f.Add(api.At("", column), "not_in_list", "must be true, on, yes or 1; false, off, no or 0; or empty to inherit")
		return &rest.Node{}
	}
}
