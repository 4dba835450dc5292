package adminapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/drawbridge/drawbridge/internal/api"
)

const (
	// maxDepth bounds how deep a body nests.
	maxDepth = 32
	// maxValues bounds the values in it: each costs two hundred bytes, however short it is written.
	// Those above maxBody, of which few are worked on at a time, may hold more.
	maxValues      = 200_000
	maxLargeValues = 2_000_000
)

// node is a JSON value as it was sent, in place: its scalars are slices of the body, so that a
// secret in it is nowhere else.
type node struct {
	kind   kind
	raw    []byte // of a scalar, as written
	fields []field
	items  []*node
}

type field struct {
	name  string
	value *node
}

type kind uint8

const (
	kindNull kind = iota
	kindBool
	kindNumber
	kindString
	kindArray
	kindObject
)

// get returns an object's field, or nil.
func (n *node) get(name string) *node {
	for i := range n.fields {
		if n.fields[i].name == name {
			return n.fields[i].value
		}
	}
	return nil
}

// parse reads one JSON value strictly: valid UTF-8, no member twice, nothing behind it, at most
// [maxDepth] deep. Its errors never repeat what was read.
func parse(body []byte) (*node, error) {
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
			return nil, api.Malformed("the body is not JSON: it goes wrong at byte %d", syntax.Offset)
		}
		return nil, api.Malformed("the body is not JSON")
	}
	p := parser{text: body, most: maxValues}
	if len(body) > maxBody {
		p.most = maxLargeValues
	}
	return p.value(0)
}

// parser walks over a text that is known to be valid JSON.
type parser struct {
	text []byte
	at   int
	read int // values
	most int // of them
}

// skip passes over white space and what else stands between values.
func (p *parser) skip() byte {
	for strings.IndexByte(" \t\r\n,:", p.text[p.at]) >= 0 {
		p.at++
	}
	return p.text[p.at]
}

func (p *parser) value(depth int) (*node, error) {
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
		return &node{kind: kindString, raw: p.quoted()}, nil
	case 't', 'f':
		return &node{kind: kindBool, raw: p.bare()}, nil
	case 'n':
		p.bare()
		return &node{}, nil
	default:
		return &node{kind: kindNumber, raw: p.bare()}, nil
	}
}

func (p *parser) object(depth int) (*node, error) {
	n := &node{kind: kindObject}
	seen := map[string]bool{}
	for p.at++; p.skip() != '}'; {
		name := unquote(p.quoted())
		if seen[name] {
			return nil, api.Malformed("an object in the body has the same member twice")
		}
		seen[name] = true
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.fields = append(n.fields, field{name, v})
	}
	p.at++
	return n, nil
}

func (p *parser) array(depth int) (*node, error) {
	n := &node{kind: kindArray}
	for p.at++; p.skip() != ']'; {
		v, err := p.value(depth + 1)
		if err != nil {
			return nil, err
		}
		n.items = append(n.items, v)
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

// unquote returns the text of a valid JSON string.
func unquote(quoted []byte) string {
	var s string
	_ = json.Unmarshal(quoted, &s) // a string of a valid text
	return s
}

// quote returns a text as a node.
func quote(s string) *node {
	b, _ := json.Marshal(s) // a string always has a JSON form
	return &node{kind: kindString, raw: b}
}

// merge puts a merge patch (RFC 7396) over a value. Members that the patch removes stay as null, so
// that a null for an unknown member is still seen; [node.encode] leaves them out.
func merge(base, patch *node) *node {
	if patch.kind != kindObject {
		return patch
	}
	if base == nil || base.kind != kindObject {
		base = &node{}
	}
	merged := &node{kind: kindObject}
	for _, f := range base.fields {
		if over := patch.get(f.name); over != nil {
			f.value = merge(f.value, over)
		}
		merged.fields = append(merged.fields, f)
	}
	for _, f := range patch.fields {
		if base.get(f.name) == nil {
			merged.fields = append(merged.fields, field{f.name, merge(nil, f.value)})
		}
	}
	return merged
}

// encode writes the value as JSON, without members that are null.
func (n *node) encode(b []byte) []byte {
	switch n.kind {
	case kindObject:
		b = append(b, '{')
		first := true
		for _, f := range n.fields {
			if f.value.kind == kindNull {
				continue
			}
			if !first {
				b = append(b, ',')
			}
			first = false
			b = append(append(b, quote(f.name).raw...), ':')
			b = f.value.encode(b)
		}
		return append(b, '}')
	case kindArray:
		b = append(b, '[')
		for i, v := range n.items {
			if i > 0 {
				b = append(b, ',')
			}
			b = v.encode(b)
		}
		return append(b, ']')
	case kindNull:
		return append(b, "null"...)
	case kindBool, kindNumber, kindString:
	}
	return append(b, n.raw...)
}

// clone returns a copy that can be changed.
func (n *node) clone() *node {
	c := *n
	c.fields = make([]field, len(n.fields))
	for i, f := range n.fields {
		c.fields[i] = field{f.name, f.value.clone()}
	}
	c.items = make([]*node, len(n.items))
	for i, v := range n.items {
		c.items[i] = v.clone()
	}
	return &c
}
