package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/drawbridge/drawbridge/internal/api"
)

const (
	// MaxBody is the size of an ordinary request body in bytes; a longer one is 413. Operations
	// that are marked large take more.
	MaxBody = 1 << 20
	// MaxLarge is the size of the body of a large operation, or of an imported file, in bytes.
	MaxLarge = 16 << 20
	// maxDepth is the depth to which a body may nest.
	maxDepth = 32
	// maxValues is the number of values in a body: each costs 200 bytes, however short it is.
	// Bodies over MaxBody, few of which are processed at a time, may contain more.
	maxValues      = 200_000
	maxLargeValues = 2_000_000
)

// Node is a JSON value as it was received. Its scalars are slices of the body, so that a secret is
// not copied. The zero value is null.
type Node struct {
	Kind   Kind
	Raw    []byte // of a scalar, as written
	Fields []Field
	Items  []*Node
}

// Field is a member of an object.
type Field struct {
	Name  string
	Value *Node
}

// Kind is the type of a JSON value.
type Kind uint8

// The types of JSON values.
const (
	Null Kind = iota
	Bool
	Number
	String
	Array
	Object
)

// Get returns the value of a member of an object by its name, or nil if there is none, or the node
// is no object.
func (n *Node) Get(name string) *Node {
	for i := range n.Fields {
		if n.Fields[i].Name == name {
			return n.Fields[i].Value
		}
	}
	return nil
}

// Parse reads one JSON value strictly: valid UTF-8, no duplicate member, nothing after it, at most
// 32 levels deep. Its errors name members, and never repeat a value.
func Parse(body []byte) (*Node, error) {
	if len(bytes.TrimSpace(body)) == 0 {
		return nil, api.Malformed("the body is empty: send a JSON object")
	}
	if !utf8.Valid(body) {
		return nil, api.Malformed("the body is not valid UTF-8")
	}
	if !json.Valid(body) {
		var syntax *json.SyntaxError
		var v json.RawMessage
		if err := json.Unmarshal(body, &v); errors.As(err, &syntax) {
			return nil, api.Malformed("the body is not JSON: syntax error at byte %d", syntax.Offset)
		}
		return nil, api.Malformed("the body is not JSON")
	}
	p := parser{text: body, most: maxValues}
	if len(body) > MaxBody {
		p.most = maxLargeValues
	}
	return p.value(0)
}

// parser reads a text that is known to be valid JSON.
type parser struct {
	text []byte
	at   int
	read int // values
	most int // of them
}

// skip skips white space, commas and colons, and returns the next byte.
func (p *parser) skip() byte {
	for strings.IndexByte(" \t\r\n,:", p.text[p.at]) >= 0 {
		p.at++
	}
	return p.text[p.at]
}

func (p *parser) value(depth int) (*Node, error) {
	if depth > maxDepth {
		return nil, api.Malformed("the body nests deeper than %d levels", maxDepth)
	}
	if p.read++; p.read > p.most {
		return nil, api.Malformed("the body holds more than %d values", p.most)
	}
	switch c := p.skip(); c {
	case '{':
		return p.object(depth)
	case '[':
		return p.array(depth)
	case '"':
		return &Node{Kind: String, Raw: p.quoted()}, nil
	case 't', 'f':
		return &Node{Kind: Bool, Raw: p.bare()}, nil
	case 'n':
		p.bare()
		return &Node{}, nil
	default:
		return &Node{Kind: Number, Raw: p.bare()}, nil
	}
}

func (p *parser) object(depth int) (*Node, error) {
	n := &Node{Kind: Object}
	seen := map[string]bool{}
	for p.at++; p.skip() != '}'; {
		name := Unquote(p.quoted())
		if seen[name] {
			return nil, api.Malformed("an object in the body has the member %q twice", name[:min(len(name), MaxName)])
		}
		seen[name] = true
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Fields = append(n.Fields, Field{name, v})
	}
	p.at++
	return n, nil
}

func (p *parser) array(depth int) (*Node, error) {
	n := &Node{Kind: Array}
	for p.at++; p.skip() != ']'; {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.Items = append(n.Items, v)
	}
	p.at++
	return n, nil
}

// quoted returns a string with its quotes.
func (p *parser) quoted() []byte {
	start := p.at
	for p.at++; p.text[p.at] != '"'; p.at++ {
		if p.text[p.at] == '\\' {
			p.at++
		}
	}
	p.at++
	return p.text[start:p.at]
}

// bare returns a number or a word.
func (p *parser) bare() []byte {
	start := p.at
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n,:]}", p.text[p.at]) < 0 {
		p.at++
	}
	return p.text[start:p.at]
}

// Unquote returns the text of a valid JSON string.
func Unquote(quoted []byte) string {
	var s string
	_ = json.Unmarshal(quoted, &s) // a string of a valid text
	return s
}

// Quote returns a text as a node of kind string, escaped as JSON wants it (RFC 8259, section 7).
func Quote(s string) *Node {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return &Node{Kind: String, Raw: b}
}

// Merge applies a merge patch (RFC 7396). Members that the patch removes stay as null, so that null
// for an unknown member is reported; [Node.Encode] omits them.
func Merge(base, patch *Node) *Node {
	if patch.Kind != Object {
		return patch
	}
	if base == nil || base.Kind != Object {
		base = &Node{}
	}
	merged := &Node{Kind: Object}
	for _, f := range base.Fields {
		if over := patch.Get(f.Name); over != nil {
			f.Value = Merge(f.Value, over)
		}
		merged.Fields = append(merged.Fields, f)
	}
	for _, f := range patch.Fields {
		if base.Get(f.Name) == nil {
			merged.Fields = append(merged.Fields, Field{f.Name, Merge(nil, f.Value)})
		}
	}
	return merged
}

// Encode appends the value as JSON, without the members that are null.
func (n *Node) Encode(b []byte) []byte {
	switch n.Kind {
	case Object:
		b = append(b, '{')
		first := true
		for _, f := range n.Fields {
			if f.Value.Kind == Null {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(append(b, Quote(f.Name).Raw...), ':')
			b = f.Value.Encode(b)
		}
		return append(b, '}')
	case Array:
		b = append(b, '[')
		for i, v := range n.Items {
			if i > 0 {
				b = append(b, ',')
			}
			b = v.Encode(b)
		}
		return append(b, ']')
	case Null:
		return append(b, "null"...)
	case Bool, Number, String:
	}
	return append(b, n.Raw...)
}

// Clone returns a deep copy, which shares no memory that can change with the node. Texts are
// immutable and shared.
func (n *Node) Clone() *Node {
	c := *n
	c.Fields = make([]Field, len(n.Fields))
	for i, f := range n.Fields {
		c.Fields[i] = Field{f.Name, f.Value.Clone()}
	}
	c.Items = make([]*Node, len(n.Items))
	for i, v := range n.Items {
		c.Items[i] = v.Clone()
	}
	return &c
}

// Present reports whether a member was sent and is not null.
func Present(n *Node) bool { return n != nil && n.Kind != Null }
