package config

import (
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/listen"
)

// Changed returns the names of the settings that differ, in the manual's order: those that a reload
// applies, and those that need a restart.
func Changed(from, to *Config) (live, restart []string) {
	for _, s := range settings() {
		switch {
		case reflect.DeepEqual(s.at(from), s.at(to)):
		case s.live:
			live = append(live, s.name)
		default:
			restart = append(restart, s.name)
		}
	}
	return live, restart
}

// Applied returns from with the values that a reload applies taken from to.
func Applied(from, to *Config) *Config {
	c := *from
	for _, s := range settings() {
		if s.live {
			reflect.ValueOf(s.at(&c)).Elem().Set(reflect.ValueOf(s.at(to)).Elem())
		}
	}
	return &c
}

// WriteDefaults writes the manual: a file of settings with every setting, its documentation and its
// default.
func WriteDefaults(w io.Writer) error {
	var b strings.Builder
	b.WriteString("# Drawbridge's settings and their defaults. Write only those that differ.\n# A reload (SIGHUP, 'systemctl reload drawbridge') applies the settings marked [reload] and rereads the files that they\n# name and the certificates of listeners. The others need a restart.\n\n")
	c := Default()
	write(&b, func(s setting) (string, bool) {
		value := format(s.at(c))
		doc := s.doc
		if s.live {
			doc += " [reload]"
		}
		return "# " + strings.ReplaceAll(doc, "\n", "\n# ") + "\n" + leaf(s.name) + " = " + value + "\n\n", true
	})
	_, err := io.WriteString(w, strings.TrimSuffix(b.String(), "\n"))
	return err
}

// WriteChanged writes the settings of c that differ from their defaults, as a file that Parse reads
// as c again.
func WriteChanged(w io.Writer, c *Config) error {
	var b strings.Builder
	defaults := Default()
	write(&b, func(s setting) (string, bool) {
		if reflect.DeepEqual(s.at(c), s.at(defaults)) {
			return "", false
		}
		return leaf(s.name) + " = " + format(s.at(c)) + "\n", true
	})
	_, err := io.WriteString(w, b.String())
	return err
}

// write puts together the lines of settings, each table under its header.
func write(b *strings.Builder, lines func(setting) (string, bool)) {
	var current string
	for _, s := range settings() {
		text, ok := lines(s)
		if !ok {
			continue
		}
		if table, _, inTable := strings.Cut(s.name, "."); inTable && table != current {
			fmt.Fprintf(b, "[%s]\n", table)
			current = table
		}
		b.WriteString(text)
	}
}

func leaf(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// format writes the value of a setting's field as TOML.
func format(field any) string {
	switch v := field.(type) {
	case *string:
		return quote(*v)
	case *bool:
		return strconv.FormatBool(*v)
	case *int:
		return strconv.Itoa(*v)
	case *time.Duration:
		return quote(formatDuration(*v))
	case *StoreURL:
		if !v.List && len(v.Addresses) == 1 {
			return quote(v.Addresses[0])
		}
		return formatList(v.Addresses)
	case *OneOrMore:
		switch len(*v) {
		case 0:
			return quote("")
		case 1:
			return quote((*v)[0])
		}
		return formatList(*v)
	case *[]listen.Spec:
		list := make([]string, len(*v))
		for i, s := range *v {
			list[i] = s.String()
		}
		return formatList(list)
	case *[]string:
		return formatList(*v)
	case *map[string]string:
		items := make([]string, 0, len(*v))
		for _, key := range slices.Sorted(maps.Keys(*v)) {
			items = append(items, quote(key)+" = "+quote((*v)[key]))
		}
		return "{" + strings.Join(items, ", ") + "}"
	default:
		panic(fmt.Sprintf("config: a setting has a field of type %T", field))
	}
}

func formatList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	if line := "[" + strings.Join(quoted, ", ") + "]"; len(line) <= 150 {
		return line
	}
	return "[\n  " + strings.Join(quoted, ",\n  ") + "\n]" // a line has a bound
}

// quote writes a TOML basic string. strconv.Quote would use escapes that TOML does not know.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}
