package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

// document is a domain file in YAML or JSON.
type document struct {
	json []byte
	root *yaml.Node // nil of a file in JSON
}

// Bounds of a file in YAML, whose aliases can make much of little. The daemon takes no more either.
const (
	maxDocument      = 16 << 20 // bytes of its JSON
	maxDocumentDepth = 32
)

// readDocument reads a file in JSON, or in YAML as far as JSON goes: mappings with names that are
// texts and given once, no tags, no merge keys. Aliases are written out.
func readDocument(file []byte) (*document, error) {
	if json.Valid(file) {
		return &document{json: file}, nil
	}
	var root yaml.Node
	if err := yaml.Load(file, &root); err != nil {
		if bad := new(yaml.LoadError); errors.As(err, &bad) && bad.Mark.Line > 0 {
			return nil, fmt.Errorf("line %d: not valid YAML or JSON: %s", bad.Mark.Line, bad.Message)
		}
		return nil, errors.New("is not JSON or a single YAML document")
	}
	d := &document{root: root.Content[0]}
	var err error
	d.json, err = appendJSON(nil, d.root, 0)
	return d, err
}

// appendJSON writes a value of a YAML file as JSON.
func appendJSON(out []byte, n *yaml.Node, depth int) ([]byte, error) {
	fault := func(format string, args ...any) ([]byte, error) {
		return nil, fmt.Errorf("line %d: %s", n.Line, fmt.Sprintf(format, args...))
	}
	switch {
	case depth > maxDocumentDepth:
		return fault("nested deeper than %d levels", maxDocumentDepth)
	case len(out) > maxDocument:
		return fault("more than %d MiB with all aliases expanded: leave out the accounts, or split the file by its sections", maxDocument>>20)
	}
	var err error
	switch n.Kind {
	case yaml.AliasNode:
		return appendJSON(out, n.Alias, depth+1)
	case yaml.SequenceNode:
		out = append(out, '[')
		for i, item := range n.Content {
			if i > 0 {
				out = append(out, ',')
			}
			if out, err = appendJSON(out, item, depth+1); err != nil {
				return nil, err
			}
		}
		return append(out, ']'), nil
	case yaml.MappingNode:
		out = append(out, '{')
		seen := map[string]bool{}
		for i := 0; i < len(n.Content); i += 2 {
			key := n.Content[i]
			switch {
			case key.ShortTag() == "!!merge":
				return nil, fmt.Errorf("line %d: <<: is not supported: write out the fields", key.Line)
			case key.Kind != yaml.ScalarNode || key.ShortTag() != "!!str":
				return nil, fmt.Errorf("line %d: the name of a field must be text", key.Line)
			case seen[key.Value]:
				return nil, fmt.Errorf("line %d: %s is given twice: remove one", key.Line, key.Value)
			}
			seen[key.Value] = true
			if i > 0 {
				out = append(out, ',')
			}
			out = append(appendText(out, key.Value), ':')
			if out, err = appendJSON(out, n.Content[i+1], depth+1); err != nil {
				return nil, err
			}
		}
		return append(out, '}'), nil
	case yaml.ScalarNode, yaml.DocumentNode, yaml.StreamNode: // of the three, only a scalar is inside a document
	}
	switch tag := n.ShortTag(); tag {
	case "!!null":
		return append(out, "null"...), nil
	case "!!str", "!!timestamp":
		return appendText(out, n.Value), nil
	case "!!bool":
		return strconv.AppendBool(out, strings.EqualFold(n.Value, "true")), nil
	case "!!int", "!!float":
		if !json.Valid([]byte(n.Value)) {
			return fault("write the number in plain digits, or quote it if it is text")
		}
		return append(out, n.Value...), nil
	default:
		return fault("the tag %s is not supported: remove it", tag)
	}
}

func appendText(out []byte, text string) []byte {
	quoted, _ := json.Marshal(text) // a string always has a JSON form
	return append(out, quoted...)
}

// locate adds the line to each fault.
func (d *document) locate(p *adminclient.Problem) {
	if d.root == nil {
		return
	}
	for i := range p.Errors {
		f := &p.Errors[i]
		f.Line = d.line(f.Pointer)
		where := fmt.Sprintf("line %d", f.Line)
		if f.Pointer != "" {
			where += ", " + fieldWords(strings.Split(strings.TrimPrefix(f.Pointer, "/"), "/"))
		}
		f.Detail = where + ": " + f.Detail
	}
}

// line is where a JSON pointer leads, or as far as it leads.
func (d *document) line(pointer string) int {
	n, line := d.root, d.root.Line
	for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		part = strings.NewReplacer("~1", "/", "~0", "~").Replace(part)
		for n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		var next *yaml.Node
		switch n.Kind {
		case yaml.SequenceNode:
			if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(n.Content) {
				next = n.Content[i]
				line = next.Line
			}
		case yaml.MappingNode:
			for i := 0; i < len(n.Content); i += 2 {
				if n.Content[i].Value == part {
					next = n.Content[i+1]
					line = n.Content[i].Line // that of the name: the value may begin on the next
				}
			}
		case yaml.ScalarNode, yaml.AliasNode, yaml.DocumentNode, yaml.StreamNode:
		}
		if next == nil {
			break
		}
		n = next
	}
	return line
}

// toYAML writes a document of the daemon as YAML, in its order.
func toYAML(doc []byte) ([]byte, error) {
	var root yaml.Node // JSON is YAML
	if err := yaml.Load(doc, &root); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	plain(&root)
	out, err := yaml.Dump(&root, yaml.WithV4Defaults(), yaml.WithLineWidth(-1))
	if err != nil {
		return nil, fmt.Errorf("writing YAML: %w", err)
	}
	return out, nil
}

// plain removes the quotes and brackets of JSON. A string that YAML 1.1 would read as something
// else keeps its quotes: configuration management often has such a reader.
func plain(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str" && ambiguous11(n.Value) {
		n.Style = yaml.DoubleQuotedStyle
	}
	for _, inner := range n.Content {
		plain(inner)
	}
}

// yaml11 is what YAML 1.1 reads as a boolean, null, number, date, merge key or value key without
// quotes, and YAML 1.2 or our own writer may not.
var yaml11 = regexp.MustCompile(`^(?i:y|n|yes|no|on|off|true|false|null|~|=|<<|` +
	`[-+]?\.(?:inf|nan)|` +
	`[-+]?0b[01_]+|[-+]?0o?[0-7_]+|[-+]?0x[0-9a-f_]+|` +
	`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?|` + // base 60
	`[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:e[-+]?[0-9]+)?|` +
	`[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:t|[ \t]+)[0-9:.]+.*)?)$`)

func ambiguous11(text string) bool { return yaml11.MatchString(text) }
