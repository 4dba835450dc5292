package config

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/BurntSushi/toml"

	"github.com/drawbridge/drawbridge/internal/listen"
)

const (
	maxFile     = 64 << 10 // bytes, ten times the manual's
	maxLine     = 8 << 10  // bytes; the TOML library takes time in the square of a key's parts
	maxProblems = 100

	maxListeners = 64 // of one service
	maxStrings   = 10_000
	maxServices  = 64
)

// A Problem is one thing wrong with a file of settings.
type Problem struct {
	Setting string // full name, such as "login.unmanaged"; "" when the file as a whole is meant
	Line    int    // line number from 1; 0 if the setting is not in the file
	Text    string // the fault and the remedy; never a secret
}

// Error is everything wrong with a file of settings, in the order of its lines. Past a hundred
// problems it stops looking.
type Error struct {
	File     string
	Problems []Problem
}

// Error returns one line per problem, each starting with the file, the line if there is one, and
// the setting.
func (e *Error) Error() string {
	lines := make([]string, len(e.Problems))
	for i, p := range e.Problems {
		var b strings.Builder
		b.WriteString(e.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		if p.Setting != "" {
			b.WriteString(": " + p.Setting)
		}
		b.WriteString(": " + p.Text)
		lines[i] = b.String()
	}
	return strings.Join(lines, "\n")
}

// Load reads the settings from a file. A file that cannot be read gives its error; one with
// problems gives an *Error with all of them. The Config is nil with any error.
func Load(path string) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	return Parse(f, path)
}

// Parse reads the settings from r, at most 64 KiB in lines of at most 8 KiB; name stands for the
// file in errors, which are as Load's.
func Parse(r io.Reader, name string) (*Config, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the settings: %w", err)
	}
	if len(data) > maxFile {
		return nil, &Error{File: name, Problems: []Problem{{Text: fmt.Sprintf("is too large: at most %d bytes", maxFile)}}}
	}
	number := 0
	for line := range bytes.Lines(data) {
		if number++; len(line) > maxLine {
			return nil, &Error{File: name, Problems: []Problem{{Line: number, Text: fmt.Sprintf("is too long: at most %d bytes a line", maxLine)}}}
		}
	}
	var root map[string]toml.Primitive
	d := &decoder{config: Default(), settings: settings(), lines: make(map[string]int), bad: make(map[string]bool)}
	if d.md, err = toml.Decode(string(data), &root); err != nil {
		return nil, &Error{File: name, Problems: []Problem{syntaxProblem(err)}}
	}
	d.table(nil, root)
	for _, s := range d.settings {
		if d.bad[s.name] {
			continue // already reported, and not the file's value
		}
		for _, fault := range s.check(d.config) {
			d.problem(s.name, d.lines[s.name], fault)
		}
	}
	if len(d.problems) > 0 {
		slices.SortStableFunc(d.problems, func(a, b Problem) int {
			return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Setting, b.Setting))
		})
		return nil, &Error{File: name, Problems: d.problems}
	}
	return d.config, nil
}

func syntaxProblem(err error) Problem {
	var pe toml.ParseError
	if errors.As(err, &pe) {
		return Problem{Line: pe.Position.Line, Text: "not TOML: " + oneLine(pe.Message)}
	}
	return Problem{Text: "not TOML: " + oneLine(err.Error())}
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// decoder walks the tree of the TOML library. The library's own decoding into a struct stops at the
// first problem.
type decoder struct {
	md       toml.MetaData
	settings []setting
	config   *Config
	lines    map[string]int  // setting → line number
	bad      map[string]bool // settings whose value was not taken
	problems []Problem
}

func (d *decoder) problem(name string, line int, text string) {
	d.problems = append(d.problems, Problem{Setting: name, Line: line, Text: text})
}

func (d *decoder) table(path toml.Key, table map[string]toml.Primitive) {
	for key, value := range table {
		if len(d.problems) >= maxProblems {
			return
		}
		path := append(slices.Clone(path), key)
		name := path.String()
		line := d.line(path, value)
		if i := slices.IndexFunc(d.settings, func(s setting) bool { return s.name == name }); i >= 0 {
			d.lines[name] = line
			faults := d.assign(d.settings[i], d.value(value))
			d.bad[name] = len(faults) > 0
			for _, fault := range faults {
				d.problem(name, line, fault)
			}
			continue
		}
		if !slices.ContainsFunc(d.settings, func(s setting) bool { return strings.HasPrefix(s.name, name+".") }) {
			_, isTable := d.value(value).(map[string]any)
			d.problem(shorten(name), line, unknown(d.settings, name, isTable))
			continue
		}
		var inner map[string]toml.Primitive
		if _, isTable := d.value(value).(map[string]any); !isTable || d.md.PrimitiveDecode(value, &inner) != nil {
			d.problem(name, line, "is a table: write ["+name+"] on a line of its own and its settings below")
			continue
		}
		d.table(path, inner)
	}
}

func (d *decoder) value(p toml.Primitive) (v any) {
	if err := d.md.PrimitiveDecode(p, &v); err != nil {
		return err // no setting takes an error, so it is reported as a value of the wrong type
	}
	return v
}

// line finds the line number of a value. The library reports positions only in errors, so this
// provokes one. A table without a header of its own ([a.b] implies a, as does a.b = 1) has the
// position of its first value.
func (d *decoder) line(path toml.Key, p toml.Primitive) int {
	var pe toml.ParseError
	if errors.As(d.md.PrimitiveDecode(p, locator{}), &pe) && pe.Position.Line > 0 {
		return pe.Position.Line
	}
	keys := d.md.Keys() // in the order of the file
	first := slices.IndexFunc(keys, func(k toml.Key) bool { return len(k) > len(path) && slices.Equal(k[:len(path)], path) })
	if first < 0 {
		return 0
	}
	for _, key := range keys[first][len(path):] {
		var inner map[string]toml.Primitive
		if _, isTable := d.value(p).(map[string]any); !isTable || d.md.PrimitiveDecode(p, &inner) != nil {
			return 0
		}
		p = inner[key]
	}
	if errors.As(d.md.PrimitiveDecode(p, locator{}), &pe) {
		return pe.Position.Line
	}
	return 0
}

type locator struct{}

var errLocator = errors.New("here")

func (locator) UnmarshalTOML(any) error { return errLocator }

// assign puts a TOML value into the setting's field, or says why it cannot.
func (d *decoder) assign(s setting, v any) []string {
	switch field := s.at(d.config).(type) {
	case *string:
		return into(field, v, "a string")
	case *bool:
		return into(field, v, "true or false")
	case *int:
		n, ok := v.(int64)
		if !ok || n < math.MinInt32 || n > math.MaxInt32 {
			return mismatch(v, "a whole number")
		}
		*field = int(n)
	case *time.Duration:
		text, ok := v.(string)
		if !ok {
			return mismatch(v, `a duration in quotes, such as "15m", "24h" or "90d"`)
		}
		duration, err := parseDuration(text)
		if err != nil {
			return []string{fmt.Sprintf(`%.80q is not a duration: write a number with a unit, such as "15m", "24h" or "90d"`, text)}
		}
		*field = duration
	case *StoreURL:
		if text, ok := v.(string); ok {
			*field = StoreURL{Addresses: []string{text}}
			return nil
		}
		list, ok := stringList(v)
		if !ok {
			*field = StoreURL{} // lest the default make other settings of [store] look wrong
			return mismatch(v, "a string or a list of strings")
		}
		*field = StoreURL{Addresses: list, List: true}
	case *OneOrMore:
		if text, ok := v.(string); ok {
			*field = nil
			if text != "" {
				*field = OneOrMore{text}
			}
			return nil
		}
		list, ok := stringList(v)
		if !ok {
			return mismatch(v, "a string or a list of strings")
		}
		*field = list
	case *[]listen.Spec:
		list, ok := stringList(v)
		if !ok {
			return mismatch(v, `a list of listeners, such as ["inet:127.0.0.1:10040"]`)
		}
		if len(list) > maxListeners {
			return []string{fmt.Sprintf("names %d listeners: at most %d", len(list), maxListeners)}
		}
		specs, faults := parseListeners(list)
		if len(faults) > 0 {
			return faults
		}
		*field = specs
	case *[]string:
		list, ok := stringList(v)
		if !ok {
			return mismatch(v, "a list of strings")
		}
		if len(list) > maxStrings {
			return []string{fmt.Sprintf("has %d entries: at most %d", len(list), maxStrings)}
		}
		*field = list
	case *map[string]string:
		table, ok := v.(map[string]any)
		if !ok {
			return mismatch(v, `a table, such as {"submission587" = "smtp"}`)
		}
		if len(table) > maxServices {
			return []string{fmt.Sprintf("names %d services: at most %d", len(table), maxServices)}
		}
		m := make(map[string]string, len(table))
		for key, value := range table {
			text, ok := value.(string)
			if !ok {
				return []string{fmt.Sprintf("%.80q must be a string", key)}
			}
			m[key] = text
		}
		*field = m
	default:
		panic(fmt.Sprintf("config: setting %s has a field of type %T", s.name, field))
	}
	return nil
}

func into[T any](field *T, v any, want string) []string {
	got, ok := v.(T)
	if !ok {
		return mismatch(v, want)
	}
	*field = got
	return nil
}

// mismatch does not repeat the value: somebody may have put a secret where it does not belong.
func mismatch(v any, want string) []string {
	kind := "something else"
	switch v.(type) {
	case string:
		kind = "a string"
	case bool:
		kind = "true or false"
	case int64:
		kind = "a number"
	case float64:
		kind = "a number with a fraction"
	case time.Time:
		kind = "a date"
	case []any:
		kind = "a list"
	case map[string]any, []map[string]any:
		kind = "a table"
	}
	if n, ok := v.(int64); ok && want == "a whole number" {
		return []string{fmt.Sprintf("%d is out of range", n)}
	}
	return []string{fmt.Sprintf("must be %s, not %s", want, kind)}
}

func stringList(v any) ([]string, bool) {
	items, ok := v.([]any)
	if !ok {
		return nil, false
	}
	list := make([]string, len(items))
	for i, item := range items {
		if list[i], ok = item.(string); !ok {
			return nil, false
		}
	}
	return list, true
}

func parseListeners(list []string) (specs []listen.Spec, faults []string) {
	specs = make([]listen.Spec, len(list))
	for i, text := range list {
		var err error
		if specs[i], err = listen.Parse(text); err != nil {
			faults = append(faults, err.Error())
		}
	}
	return specs, faults
}
