package main

import (
	"bytes"
	"cmp"
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
	"github.com/drawbridge/drawbridge/internal/api"
)

// printable escapes control characters, line breaks, marks that change the writing direction, and
// bytes that are not UTF-8. Other text is unchanged.
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

// printView prints an answer as the rows that show adds, and its version; with -o json as it is.
func printView[V any](c *cli, cmd *cobra.Command, a *adminclient.Answer, show func(row func(...string), v *V)) error {
	if c.output == outputJSON {
		return c.printAnswer(cmd, a)
	}
	v := new(V)
	if err := json.Unmarshal(a.Body, v); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	t := newTable(cmd.OutOrStdout())
	show(t.row, v)
	if a.ETag != "" {
		t.row("version:", strings.Trim(a.ETag, `"`))
	}
	return t.Flush()
}

// printAnswer prints one resource of any kind, and nothing without a body.
func (c *cli) printAnswer(cmd *cobra.Command, a *adminclient.Answer) error {
	if len(a.Body) == 0 {
		return nil
	}
	if c.output == outputJSON {
		return printJSON(cmd.OutOrStdout(), a.Body)
	}
	t := newTable(cmd.OutOrStdout())
	err := flatten(decoder(a.Body), "", func(name, text string) {
		if !strings.HasPrefix(name, "warnings") {
			t.row(label(name), text)
		}
	})
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if a.ETag != "" {
		t.row("version", strings.Trim(a.ETag, `"`))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	c.noteWarnings(cmd, a.Body)
	return nil
}

// noteWarnings prints the warnings of an answer, if it has any.
func (c *cli) noteWarnings(cmd *cobra.Command, doc []byte) {
	var made struct {
		Warnings []api.Warning `json:"warnings"`
	}
	_ = json.Unmarshal(doc, &made) // the answer was printed
	for _, w := range made.Warnings {
		c.note(cmd, "warning: %s", w.Detail)
	}
}

// table lines up cells in columns.
type table struct{ *tabwriter.Writer }

func newTable(out io.Writer) table { return table{tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)} }

func (t table) row(cells ...string) {
	for i, cell := range cells {
		cells[i] = printable(cell)
	}
	_, _ = fmt.Fprintln(t, strings.Join(cells, "\t")) // Flush reports errors
}

// document writes a row for each value in a JSON document, in its order.
func (t table) document(name string, doc []byte) error {
	if err := flatten(decoder(doc), name, func(name, text string) { t.row(label(name), text) }); err != nil {
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
		return onOff(name, v)
	case string:
		if v == "" {
			return "-"
		}
		if isTime(name) {
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

// onOff is the text of a boolean: on or off as commands set it, yes or no for what nobody switches.
func onOff(name string, value bool) string {
	words := [2]string{"off", "on"}
	if states[name[strings.LastIndexByte(name, '.')+1:]] {
		words = [2]string{"no", "yes"}
	}
	if value {
		return words[1]
	}
	return words[0]
}

// states are the fields that report something and are no switches.
var states = map[string]bool{
	"active": true, "append_only": true, "customised": true, "damaged": true, "differs": true, "evicting": true, "foreign": true, "hold_dir_full": true,
	"loaded": true, "mailbox_password_set": true, "milter_needed": true, "must_change_password": true, "needs_replicas": true, "node_away": true, "ok": true, "outside": true, "pending": true, "record": true, "refused": true,
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

// label is the name of a field in a table: pop3 for protocols.pop3, "sender check" for
// sender_check.
func label(field string) string {
	return strings.ReplaceAll(strings.TrimPrefix(field, "protocols."), "_", " ")
}

// column is one column of a list.
type column struct {
	heading string
	field   string                 // path of the field that it shows
	text    func(value any) string // nil for cell
	wide    bool                   // shown with --wide only
	layout  string                 // of a time without --wide; "" for dayAndMinute
	soft    bool                   // shortened when the table is wider than a terminal, except with --wide
	wraps   bool                   // continued on further lines instead; the last column only
}

func col(heading, field string) column { return column{heading: heading, field: field} }

// onlyWide is the column for --wide.
func (col column) onlyWide() column { col.wide = true; return col }

// shortened is the column, cut where the table would not fit.
func (col column) shortened() column { col.soft = true; return col }

// wrapped is the column, continued on further lines where the table would not fit.
func (col column) wrapped() column { col.wraps = true; return col }

// shownColumns are the columns without those for --wide, unless that is given.
func (c *cli) shownColumns(columns []column) []column {
	if c.wide {
		return columns
	}
	return slices.DeleteFunc(slices.Clone(columns), func(col column) bool { return col.wide })
}

// tableWidth is how many characters fit on a line of most terminals.
const tableWidth = 80

// fit shortens the soft columns of rows, the last one first, until the rows fit into tableWidth.
func fit(rows [][]string, columns []column) {
	widths := make([]int, len(columns))
	total := 2 * (len(columns) - 1)
	for i := range columns {
		for _, row := range rows {
			widths[i] = max(widths[i], utf8.RuneCountInString(printable(row[i])))
		}
		if columns[i].wraps {
			widths[i] = min(widths[i], leastWrapped)
		}
		total += widths[i]
	}
	for i := len(columns) - 1; i >= 0 && total > tableWidth; i-- {
		if !columns[i].soft {
			continue
		}
		width := max(utf8.RuneCountInString(columns[i].heading), widths[i]-(total-tableWidth))
		total -= widths[i] - width
		for _, row := range rows {
			if text := []rune(printable(row[i])); len(text) > width {
				row[i] = string(text[:width-1]) + "…"
			}
		}
	}
}

// leastWrapped is the width that other columns leave to a wrapped one, in characters.
const leastWrapped = 24

// wrap breaks the texts of a wrapped last column, so that the rows fit into tableWidth.
func wrap(rows [][]string, columns []column) (wrapped [][]string) {
	last := len(columns) - 1
	if last < 0 || !columns[last].wraps {
		return rows
	}
	width := tableWidth - 2*last
	for i := range last {
		widest := 0
		for _, row := range rows {
			widest = max(widest, utf8.RuneCountInString(printable(row[i])))
		}
		width -= widest
	}
	width = max(width, leastWrapped)
	for _, row := range rows {
		for i, line := range lines(printable(row[last]), width) {
			if i > 0 {
				row = make([]string, len(columns))
			}
			wrapped = append(wrapped, append(slices.Clone(row[:last]), line))
		}
	}
	return wrapped
}

// lines breaks a text at spaces into lines of at most width characters; longer words stay whole.
func lines(text string, width int) []string {
	var list []string
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > width {
			list, line = append(list, line), ""
		}
		line = strings.TrimPrefix(line+" "+word, " ")
	}
	return append(list, line)
}

// dayAndMinute is the layout of times in tables that are to be narrow.
const dayAndMinute = "2006-01-02 15:04"

// shortCell is a time in a table that is to be narrow; "-" for none.
func shortCell(when time.Time) string {
	if when.IsZero() {
		return "-"
	}
	return when.Local().Format(dayAndMinute)
}

// isTime reports whether a field holds a time.
func isTime(field string) bool {
	return field == "time" || strings.HasSuffix(field, ".time") || strings.HasSuffix(field, "_at") || strings.HasSuffix(field, ".at") || field == "at" ||
		field == "since" || field == "until" || field == "last"
}

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
	if err := c.printRows(t, list.Items, columns); err != nil {
		return err
	}
	if list.Next != "" {
		c.note(cmd, "only the first %d are shown: --limit 0 shows all", len(list.Items))
	}
	return nil
}

// printBelow prints items in a table below another.
func (c *cli) printBelow(out io.Writer, items []json.RawMessage, columns ...column) error {
	t := newTable(out)
	t.row("")
	return c.printRows(t, items, columns)
}

// printRows prints a table with headings and a row for each item.
func (c *cli) printRows(t table, items []json.RawMessage, columns []column) error {
	columns = c.shownColumns(columns)
	rows := [][]string{headings(columns)}
	for _, raw := range items {
		cells, err := c.cells(raw, columns)
		if err != nil {
			return err
		}
		rows = append(rows, cells)
	}
	return c.printTable(t, rows, columns)
}

// printTable prints rows, made to fit unless --wide is given.
func (c *cli) printTable(t table, rows [][]string, columns []column) error {
	if !c.wide {
		fit(rows, columns)
		rows = wrap(rows, columns)
	}
	for _, row := range rows {
		t.row(row...)
	}
	return t.Flush()
}

// cells returns the texts of the columns for one item, with short times unless --wide is given.
func (c *cli) cells(raw json.RawMessage, columns []column) ([]string, error) {
	cells, err := cellsOf(raw, columns)
	if err != nil || c.wide {
		return cells, err
	}
	for i, col := range columns {
		if when, err := time.Parse(time.RFC3339Nano, cells[i]); err == nil && isTime(col.field) {
			cells[i] = when.Local().Format(cmp.Or(col.layout, dayAndMinute))
		}
	}
	return cells, nil
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
