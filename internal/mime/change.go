package mime

import (
	"bytes"
	"iter"
	"slices"
	"strings"
)

// Changes are what is changed in a message. The zero value changes nothing.
type Changes struct {
	Fields []FieldChange
	Body   []Splice // in order, without overlaps
}

// FieldChange changes a header field of the message itself.
type FieldChange struct {
	Name  string
	Index int    // among the fields of that name, from 1; 0 adds a field above all others
	Value string // with folds; empty removes the field
}

// Splice replaces octets of a message by others.
type Splice struct {
	Start, End int
	Text       []byte
}

// Pieces yields the body of a changed message, in slices of the original and of the splices and
// without copying. Start is where the body begins.
func (c *Changes) Pieces(message []byte, start int) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		at := start
		for _, s := range c.Body {
			if s.Start > at && !yield(message[at:s.Start]) || len(s.Text) > 0 && !yield(s.Text) {
				return
			}
			at = s.End
		}
		if at < len(message) {
			yield(message[at:])
		}
	}
}

// Apply returns the changed message.
func (c *Changes) Apply(m *Message) []byte {
	src := m.Root.src
	var out bytes.Buffer
	out.Grow(len(src) + 1024)
	write := func(name, value string) {
		out.WriteString(name + ": " + strings.ReplaceAll(value, "\n", m.Root.nl) + m.Root.nl)
	}
	for _, f := range c.Fields {
		if f.Index == 0 && f.Value != "" {
			write(f.Name, f.Value)
		}
	}
	seen := map[string]int{}
	at := m.Root.header.start
	for _, f := range m.Root.fields {
		name := strings.ToLower(string(f.name.of(src)))
		seen[name]++
		i := slices.IndexFunc(c.Fields, func(change FieldChange) bool {
			return change.Index == seen[name] && strings.EqualFold(change.Name, name)
		})
		out.Write(src[at:f.whole.start])
		if at = f.whole.end; i < 0 {
			out.Write(f.whole.of(src))
		} else if c.Fields[i].Value != "" {
			write(string(f.name.of(src)), c.Fields[i].Value)
		}
	}
	out.Write(src[at:m.Root.body.start])
	for piece := range c.Pieces(src, m.Root.body.start) {
		out.Write(piece)
	}
	return out.Bytes()
}
