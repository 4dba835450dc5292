package adminapi

import (
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
	"github.com/drawbridge/drawbridge/internal/spelling"
)

// schemas are made from the types of wire.go: /openapi.json shows them and bodies are held against
// them, so that neither can say what the other does not.
type schemas struct{ huma.Registry }

const schemaPrefix = "#/components/schemas/"

func newSchemas() schemas {
	return schemas{huma.NewMapRegistry(schemaPrefix, huma.DefaultSchemaNamer)}
}

// of returns a reference to the schema of a type, or the schema itself when it has no name.
func (s schemas) of(t reflect.Type) *huma.Schema { return s.Schema(t, true, "") }

// settle corrects what huma takes for granted: that every field is required and that arrays may be
// null. To be called once, when all types are known.
func (s schemas) settle(t reflect.Type, seen map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == reflect.TypeFor[time.Time]() || seen[t] {
		return
	}
	seen[t] = true
	schema := s.resolve(s.of(t))
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

func (s schemas) resolve(schema *huma.Schema) *huma.Schema {
	if schema.Ref != "" {
		return s.SchemaFromRef(schema.Ref)
	}
	return schema
}

// check holds a value against a schema and notes all faults. What is faulty becomes null, so that
// the rest can be read and judged as well. Null stands for absent.
func (s schemas) check(n *node, schema *huma.Schema, pointer string, f *api.Faults) {
	fault := func(code, format string, args ...any) {
		f.Add(pointer, code, format, args...)
		*n = node{}
	}
	if n.kind == kindNull {
		return
	}
	switch schema = s.resolve(schema); schema.Type {
	case huma.TypeObject:
		if n.kind != kindObject {
			fault("wrong_type", "must be an object")
			return
		}
		s.checkObject(n, schema, pointer, f)
	case huma.TypeArray:
		if n.kind != kindArray {
			fault("wrong_type", "must be an array")
			return
		}
		if schema.MaxItems != nil && len(n.items) > *schema.MaxItems {
			fault("too_many", "has %d items: use at most %d", len(n.items), *schema.MaxItems)
			return
		}
		for i, item := range n.items {
			if item.kind == kindNull {
				f.Add(api.At(pointer, i), "wrong_type", "must not be null")
			}
			s.check(item, schema.Items, api.At(pointer, i), f)
		}
	case huma.TypeBoolean:
		if n.kind != kindBool {
			fault("wrong_type", "must be true or false")
		}
	case huma.TypeInteger:
		if n.kind != kindNumber {
			fault("wrong_type", "must be a number")
			return
		}
		v, err := strconv.ParseInt(string(n.raw), 10, 64)
		low, high := bounds(schema)
		if err != nil || float64(v) < low || float64(v) > high {
			fault("out_of_range", "must be a whole number from %.0f to %.0f", low, high)
		}
	case huma.TypeString:
		if n.kind != kindString {
			fault("wrong_type", "must be a string")
			return
		}
		if schema.Format != "password" && !schema.WriteOnly { // a secret is left where it is
			s.checkString(unquote(n.raw), schema, fault)
		}
	}
}

// maxName bounds in bytes what is repeated of a member's name.
const maxName = 100

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

func (s schemas) checkObject(n *node, schema *huma.Schema, pointer string, f *api.Faults) {
	for i := range n.fields {
		name, value := n.fields[i].name, n.fields[i].value
		property := schema.Properties[name]
		switch {
		case property == nil:
			f.Add(api.At(pointer, name[:min(len(name), maxName)]), "unknown_field", "there is no such field%s", suggest(name, keys(schema.Properties)))
			n.fields[i].value = &node{}
		case property.ReadOnly:
			n.fields[i].value = &node{}
		default:
			s.check(value, property, api.At(pointer, name), f)
		}
	}
	for _, name := range schema.Required {
		if v := n.get(name); v == nil || v.kind == kindNull {
			f.Add(api.At(pointer, name), "required", "is needed")
		}
	}
}

func (s schemas) checkString(text string, schema *huma.Schema, fault func(code, format string, args ...any)) {
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

// suggest words which of the known names was probably meant, if any.
func suggest(name string, known []string) string {
	best, least := "", 3
	for _, k := range known {
		if d := spelling.Distance(name, k, least); d < least && d < len(k) {
			best, least = k, d
		}
	}
	if best == "" {
		return fmt.Sprintf(": known are %s", strings.Join(known, ", "))
	}
	return fmt.Sprintf(": did you mean %s?", best)
}
