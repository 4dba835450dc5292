package adminapi

import (
	"bytes"
	"encoding/csv"
	"errors"
	"io"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// importColumns are the columns of an imported file.
func importColumns() []string {
	return []string{"address", "departments", "aliases", "imap", "pop3", "smtp", "sieve", "preset", "suspended", "secure_passwords"}
}

func importAccounts(c *call) (*answer, error) {
	var f api.Faults
	return reported(c.domain.ImportAccounts(c.ctx, readImport(c, &f), c.flag("create_departments"), &f))
}

// readImport reads a file of accounts (RFC 4180, with a header line).
func readImport(c *call, f *api.Faults) []admin.ImportedAccount {
	defer func() { f.Line = 0 }()
	f.Line = 1
	text, separator, err := api.Sheet(c.raw)
	if err != nil {
		f.Add("", "malformed", "%v", err)
		return nil
	}
	r := csv.NewReader(bytes.NewReader(text))
	r.Comma = separator
	r.FieldsPerRecord, r.TrimLeadingSpace, r.ReuseRecord = -1, r.Comma != '\t', true
	header, err := r.Read()
	if err != nil {
		f.Add("", "malformed", "the file has no header line: begin it with the names of its columns, such as address,departments,imap,pop3,smtp")
		return nil
	}
	f.Line, _ = r.FieldPos(0)
	columns := slices.Clone(withoutEmptyEnd(header, 1))
	for i, name := range columns {
		name = strings.ToLower(strings.TrimSpace(name))
		columns[i] = name
		switch {
		case !slices.Contains(importColumns(), name):
			f.Add(api.At("", name[:min(len(name), rest.MaxName)]), "unknown_field", "there is no such column%s", api.Suggest(name, importColumns()))
		case slices.Contains(columns[:i], name):
			f.Add(api.At("", name), "duplicate", "is named twice: leave one out")
		}
	}
	if !slices.Contains(columns, "address") {
		f.Add("/address", "required", "the column is needed")
	}
	if len(f.List) > 0 {
		return nil // the meaning of the cells is unknown
	}
	var list []admin.ImportedAccount
	for {
		cells, err := r.Read()
		if errors.Is(err, io.EOF) {
			return list
		}
		var bad *csv.ParseError
		if errors.As(err, &bad) {
			f.Line = bad.Line
			if bad.StartLine < bad.Line {
				f.Line = bad.StartLine // where a quote that never ends was opened
			}
			f.Add("", "malformed", "has a misplaced quote, or one that does not end: put cells with quotes, commas or line breaks in quotes, and double the quotes in them; the lines after it were not read")
			return list
		}
		f.Line, _ = r.FieldPos(0)
		if len(list) == admin.MaxImport {
			f.Add("", "too_many", "the file has more than %d accounts: split it; the lines from here on were not read", admin.MaxImport)
			return list
		}
		if cells = withoutEmptyEnd(cells, len(columns)); len(cells) != len(columns) {
			f.Add("", "malformed", "has %d cells, the header has %d", len(cells), len(columns))
			continue
		}
		e, with := admin.ImportedAccount{Line: f.Line}, &rest.Node{Kind: rest.Object}
		for i, cell := range cells {
			cell = strings.TrimSpace(cell)
			if columns[i] == "address" {
				e.Address = cell
			} else {
				importCell(with, columns[i], cell, f)
			}
		}
		e.Edit = patchOfAccount(c, with)
		list = append(list, e)
	}
}

// withoutEmptyEnd removes empty cells at the end, as trailing separators make, down to least cells.
func withoutEmptyEnd(cells []string, least int) []string {
	for len(cells) > least && strings.TrimSpace(cells[len(cells)-1]) == "" {
		cells = cells[:len(cells)-1]
	}
	return cells
}

// importCell adds a cell to the merge patch of a line. An empty cell means inherit, or none.
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
