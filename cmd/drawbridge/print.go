package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

// printable escapes what does not print: control characters, line breaks, marks that turn the
// direction of writing, bytes that are no UTF-8. The rest stays as it is.
func printable(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}

// printableJSON does the same for JSON without changing its meaning: outside its strings, where \u
// stands for any character, JSON is ASCII.
func printableJSON(doc []byte) []byte {
	out := make([]byte, 0, len(doc))
	for len(doc) > 0 {
		r, size := utf8.DecodeRune(doc)
		if r < 0x7f || size > 1 && unicode.IsPrint(r) {
			out = append(out, doc[:size]...)
		} else {
			for _, unit := range utf16.AppendRune(nil, r) {
				out = fmt.Appendf(out, `\u%04x`, unit)
			}
		}
		doc = doc[size:]
	}
	return out
}

// printJSON prints a document for scripts, indented.
func printJSON(out io.Writer, doc []byte) error {
	var b bytes.Buffer
	if err := json.Indent(&b, bytes.TrimSpace(doc), "", "  "); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	b.WriteByte('\n')
	_, err := out.Write(printableJSON(b.Bytes()))
	return err
}

// printText prints lines of text.
func printText(out io.Writer, text []byte) error {
	for line := range bytes.Lines(text) {
		if _, err := fmt.Fprintln(out, printable(string(bytes.TrimRight(line, "\r\n")))); err != nil {
			return err
		}
	}
	return nil
}

// printAnswer prints one resource, whatever it is. No body, nothing printed.
func (c *cli) printAnswer(cmd *cobra.Command, a *adminclient.Answer) error {
	if len(a.Body) == 0 {
		return nil
	}
	if c.output == outputJSON {
		return printJSON(cmd.OutOrStdout(), a.Body)
	}
	t := newTable(cmd.OutOrStdout())
	if err := t.document("", a.Body); err != nil {
		return err
	}
	if a.ETag != "" {
		t.row("etag", a.ETag)
	}
	return t.Flush()
}

// table lines up cells in columns.
type table struct{ *tabwriter.Writer }

func newTable(out io.Writer) table { return table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)} }

func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	_, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) // Flush tells of errors
}

// document writes a row for each value in a JSON document, in its order.
func (t table) document(name string, doc []byte) error {
	if err := flatten(decoder(doc), name, func(name, text string) { t.row(name, text) }); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	return nil
}

// decoder reads a document whose numbers stay as they are written.
func decoder(doc []byte) *json.Decoder {
	d := json.NewDecoder(bytes.NewReader(doc))
	d.UseNumber()
	return d
}

// flatten emits the values of the document that d is at, each under the path of names that leads to
// it. A list of plain values is one value.
func flatten(d *json.Decoder, name string, emit func(name, text string)) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	opening, ok := token.(json.Delim)
	if !ok {
		emit(name, cell(name, token))
		return nil
	}
	var plain []string
	inner := 0
	for ; d.More(); inner++ {
		if opening == '[' {
			element := name + "." + strconv.Itoa(inner)
			err = flatten(d, element, func(name, text string) {
				if name == element {
					plain = append(plain, text)
					return
				}
				emit(name, text)
			})
		} else {
			var key json.Token
			if key, err = d.Token(); err == nil {
				err = flatten(d, strings.TrimPrefix(name+"."+fmt.Sprint(key), "."), emit)
			}
		}
		if err != nil {
			return err
		}
	}
	if plain != nil || inner == 0 {
		emit(name, cell(name, strings.Join(plain, ", ")))
	}
	_, err = d.Token() // the closing one
	return err
}

// cell is the text of a value in a table; name is the field it comes from.
func cell(name string, value any) string {
	switch v := value.(type) {
	case bool:
		if v {
			return "on"
		}
		return "off"
	case string:
		if v == "" {
			return "-"
		}
		if name == "time" || strings.HasSuffix(name, ".time") || strings.HasSuffix(name, "_at") {
			if when, err := time.Parse(time.RFC3339Nano, v); err == nil {
				return when.Local().Format(time.RFC3339)
			}
		}
		return v
	case json.Number:
		return v.String()
	case []any:
		texts := make([]string, len(v))
		separator := ", "
		for i, e := range v {
			texts[i] = cell(name, e)
			if _, ok := e.(map[string]any); ok {
				separator = "; "
			}
		}
		return cell("", strings.Join(texts, separator))
	case map[string]any:
		var texts []string
		for _, field := range slices.Sorted(maps.Keys(v)) {
			if text := cell(field, v[field]); text != "-" {
				texts = append(texts, field+"="+text)
			}
		}
		return cell("", strings.Join(texts, " "))
	default:
		return "-"
	}
}

// timeCell is the text of a time in a table, in the local zone.
func timeCell(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.Local().Format(time.RFC3339)
}

// became shows a field's value before and after.
func became(name string, values [2]any) string {
	return cell(name, values[0]) + " → " + cell(name, values[1])
}

// column is one column of a list: its heading, the path of the field that it shows, and how, which
// nil leaves to cell.
type column struct {
	heading string
	field   string
	text    func(value any) string
}

func col(heading, field string) column { return column{heading: heading, field: field} }

// of returns the text of the column for one item.
func (col column) of(item any) string {
	for name := range strings.SplitSeq(col.field, ".") {
		object, _ := item.(map[string]any)
		item = object[name]
	}
	if col.text != nil {
		return col.text(item)
	}
	return cell(col.field, item)
}

// printItems prints a list: a table with the columns, or the API's own form.
func (c *cli) printItems(cmd *cobra.Command, list *adminclient.List, columns ...column) error {
	if c.output == outputJSON {
		doc, err := json.Marshal(list)
		if err != nil {
			return fmt.Errorf("putting the list together: %w", err)
		}
		return printJSON(cmd.OutOrStdout(), doc)
	}
	t := newTable(cmd.OutOrStdout())
	if err := t.items(list.Items, columns); err != nil {
		return err
	}
	if list.Next != "" {
		c.note(cmd, "there is more than these %d: --limit 0 shows all", len(list.Items))
	}
	return nil
}

// printBelow prints items in a table below another.
func printBelow(out io.Writer, items []json.RawMessage, columns ...column) error {
	t := newTable(out)
	t.row("")
	return t.items(items, columns)
}

// items fills the table with headings and a row for each item.
func (t table) items(items []json.RawMessage, columns []column) error {
	t.row(headings(columns)...)
	for _, raw := range items {
		cells, err := cellsOf(raw, columns)
		if err != nil {
			return err
		}
		t.row(cells...)
	}
	return t.Flush()
}

func headings(columns []column) []string {
	cells := make([]string, len(columns))
	for i, col := range columns {
		cells[i] = col.heading
	}
	return cells
}

// cellsOf returns the texts of the columns for one item.
func cellsOf(raw json.RawMessage, columns []column) ([]string, error) {
	var item any
	if err := decoder(raw).Decode(&item); err != nil {
		return nil, fmt.Errorf("reading an item: %w", err)
	}
	cells := make([]string, len(columns))
	for i, col := range columns {
		cells[i] = col.of(item)
	}
	return cells, nil
}
