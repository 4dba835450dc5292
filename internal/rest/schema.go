package rest

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"

	"github.com/drawbridge/drawbridge/internal/api"
)

// Schemas makes JSON schemas from Go types. /openapi.json shows them and bodies are validated
// against them, so that documentation and validation agree.
type Schemas struct{ huma.Registry }

const schemaPrefix = "#/components/schemas/"

// NewSchemas returns an empty registry of the schemas of types, for one table of operations. It is
// not safe for concurrent use.
func NewSchemas() Schemas {
	return Schemas{huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)}
}

// Of returns a reference to the schema of a type, or the schema itself when it has no name.
func (s Schemas) Of(t reflect.Type) *huma.Schema { return s.Schema(t, true, "") }

// Add makes and completes the schemas of types, as [Document] does with those of its operations.
// Later uses of these schemas only read.
func (s Schemas) Add(types ...reflect.Type) {
	seen := map[reflect.Type]bool{}
	for _, t := range types {
		s.settle(t, seen)
	}
}

// settle corrects two assumptions of huma: that every field is required and that arrays may be
// null.
func (s Schemas) settle(t reflect.Type, seen map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() || seen[t] {
		return
	}
	seen[t] = true
	schema := s.resolve(s.Of(t))
	schema.Required = nil
	for _, f := range reflect.VisibleFields(t) {
		if !f.IsExported() {
			continue
		}
		s.settle(f.Type, seen)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if p := schema.Properties[name]; p != nil {
			p.Nullable = false
			if f.Tag.Get("required") == "true" {
				schema.Required = append(schema.Required, name)
			}
		}
	}
}

func (s Schemas) resolve(schema *huma.Schema) *huma.Schema {
	if schema.Ref != "" {
		return s.SchemaFromRef(schema.Ref)
	}
	return schema
}

// Check validates a value and collects its faults. Invalid parts become null, so that the rest can
// be decoded and validated too. Null means absent.
func (s Schemas) Check(n *Node, schema *huma.Schema, pointer string, f *api.Faults) {
	fault := func(code, format string, args ...any) {
		f.Add(pointer, code, format, args...)
		*n = Node{}
	}
	if n.Kind == Null {
		return
	}
	switch schema = s.resolve(schema); schema.Type {
	case huma.TypeObject:
		if n.Kind != Object {
			fault("wrong_type", "must be an object")
			return
		}
		s.checkObject(n, schema, pointer, f)
	case huma.TypeArray:
		if n.Kind != Array {
			fault("wrong_type", "must be an array")
			return
		}
		if schema.MaxItems != nil && len(n.Items) > *schema.MaxItems {
			fault("too_many", "has %d items: use at most %d", len(n.Items), *schema.MaxItems)
			return
		}
		for i, item := range n.Items {
			if item.Kind == Null {
				f.Add(api.At(pointer, i), "wrong_type", "must not be null")
			}
			s.Check(item, schema.Items, api.At(pointer, i), f)
		}
	case huma.TypeBoolean:
		if n.Kind != Bool {
			fault("wrong_type", "must be true or false")
		}
	case huma.TypeInteger:
		if n.Kind != Number {
			fault("wrong_type", "must be a number")
			return
		}
		v, err := strconv.ParseInt(string(n.Raw), 10, 64)
		low, high := bounds(schema)
		if err != nil || float64(v) < low || float64(v) > high {
			fault("out_of_range", "must be a whole number from %.0f to %.0f", low, high)
		}
	case huma.TypeString:
		if n.Kind != String {
			fault("wrong_type", "must be a string")
			return
		}
		if schema.Format != "password" && !schema.WriteOnly { // a secret is left where it is
			s.checkString(Unquote(n.Raw), schema, fault)
		}
	}
}

// MaxName is how many bytes of an unknown name an error repeats.
const MaxName = 100

func bounds(schema *huma.Schema) (low, high float64) {
	low, high = math.MinInt32, math.MaxInt32
	if schema.Minimum != nil {
		low = *schema.Minimum
	}
	if schema.Maximum != nil {
		high = *schema.Maximum
	}
	return low, high
}

func (s Schemas) checkObject(n *Node, schema *huma.Schema, pointer string, f *api.Faults) {
	for i := range n.Fields {
		name, value := n.Fields[i].Name, n.Fields[i].Value
		property := schema.Properties[name]
		if of, ok := schema.AdditionalProperties.(*huma.Schema); ok && property == nil && name != "" && len(name) <= MaxName {
			property = of // a map: its names are free
		}
		switch {
		case property == nil:
			f.Add(api.At(pointer, name[:min(len(name), MaxName)]), "unknown_field", "there is no such field%s", api.Suggest(name, keys(schema.Properties)))
			n.Fields[i].Value = &Node{}
		case property.ReadOnly:
			n.Fields[i].Value = &Node{}
		default:
			s.Check(value, property, api.At(pointer, name), f)
		}
	}
	for _, name := range schema.Required {
		if v := n.Get(name); v == nil || v.Kind == Null {
			f.Add(api.At(pointer, name), "required", "is needed")
		}
	}
}

func (s Schemas) checkString(text string, schema *huma.Schema, fault func(code, format string, args ...any)) {
	length := utf8.RuneCountInString(text)
	switch {
	case len(schema.Enum) > 0 && !slices.Contains(schema.Enum, any(text)):
		words := make([]string, len(schema.Enum))
		for i, w := range schema.Enum {
			words[i] = fmt.Sprint(w)
		}
		fault("not_in_list", "must be one of %s", strings.Join(words, ", "))
	case schema.MinLength != nil && length < *schema.MinLength:
		fault("too_short", "must have at least %d characters", *schema.MinLength)
	case schema.MaxLength != nil && length > *schema.MaxLength:
		fault("too_long", "has %d characters: use at most %d", length, *schema.MaxLength)
	case schema.Format == "date-time":
		if _, err := time.Parse(time.RFC3339, text); err != nil {
			fault("invalid_time", "must be a time such as 2026-01-31T09:30:00Z (RFC 3339)")
		}
	}
}

func keys(properties map[string]*huma.Schema) []string {
	names := make([]string, 0, len(properties))
	for name, p := range properties {
		if !p.ReadOnly {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Decode validates a body and decodes it into a T. Invalid parts are left at their zero value.
func Decode[T any](s Schemas, n *Node, f *api.Faults) *T {
	n = n.Clone()
	s.Check(n, s.Of(reflect.TypeFor[T]()), "", f)
	text := n.Encode(nil)
	defer clear(text)
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		f.Add("", "malformed", "cannot be decoded")
	}
	return v
}

// Patch applies a merge patch to a view of a resource, and decodes the result.
func Patch[T any](s Schemas, view *T, with *Node, f *api.Faults) (*T, error) {
	text, err := json.Marshal(view)
	if err != nil {
		return nil, fmt.Errorf("encoding a view: %w", err)
	}
	base, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("reading a view: %w", err)
	}
	return Decode[T](s, Merge(base, with), f), nil
}
