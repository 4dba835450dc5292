// Package doveconf reads what doveconf prints: settings and nested sections, of Dovecot 2.3 and
// 2.4.
//
//	# 2.3.19.1 (9b53102964): /etc/dovecot/dovecot.conf
//	auth_mechanisms = plain login
//	passdb {
//	  args = /usr/local/lib/drawbridge/drawbridge-checkpassword
//	  driver = checkpassword
//	}
//
// It runs no program and opens no file. Defaults are the caller's: "doveconf -n" leaves them out.
//
// # Diagnostics
//
// An error names the line: a setting or a section that is neither, a "}" too many, sections nested
// more than 16 deep, a line over 256 KiB, output that ends within a section.
package doveconf

import (
	"bufio"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	maxLine  = 256 << 10 // bytes
	maxDepth = 16        // nested sections
)

// A Section is a block of the configuration: its settings in file order, and the blocks within it.
// The zero Section is an empty configuration.
type Section struct {
	Kind     string // "passdb", "service", "protocol"; "" for the whole configuration
	Name     string // "auth", "imap"; "" where the kind has none
	Settings map[string]string
	Sections []Section
}

// Parse reads the output of "doveconf -n" or "doveconf -a". The version is that of the first line,
// "2.3.19.1"; it is empty if the first line is no comment.
func Parse(r io.Reader) (all Section, version string, err error) {
	stack := []Section{{Settings: map[string]string{}}}
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	n := 0
	for scanner.Scan() {
		n++
		line := strings.TrimSpace(scanner.Text())
		top := &stack[len(stack)-1]
		switch {
		case line == "":
		case strings.HasPrefix(line, "#"):
			if n == 1 {
				version, _, _ = strings.Cut(strings.TrimSpace(line[1:]), " ")
			}
		case line == "}":
			if len(stack) == 1 {
				return Section{}, "", fmt.Errorf("reading doveconf's output: line %d: a } too many", n)
			}
			parent := &stack[len(stack)-2]
			parent.Sections = append(parent.Sections, *top)
			stack = stack[:len(stack)-1]
		default:
			word, rest, _ := strings.Cut(line, " ")
			if value, ok := strings.CutPrefix(rest, "="); ok {
				top.Settings[word] = unquote(strings.TrimSpace(value))
				continue
			}
			name, ok := strings.CutSuffix(rest, "{")
			if !ok {
				return Section{}, "", fmt.Errorf("reading doveconf's output: line %d is neither a setting nor a section", n)
			}
			if len(stack) > maxDepth {
				return Section{}, "", fmt.Errorf("reading doveconf's output: line %d: more than %d nested sections", n, maxDepth)
			}
			stack = append(stack, Section{Kind: word, Name: unquote(strings.TrimSpace(name)), Settings: map[string]string{}})
		}
	}
	switch {
	case scanner.Err() != nil:
		return Section{}, "", fmt.Errorf("reading doveconf's output: %w", scanner.Err())
	case len(stack) > 1:
		return Section{}, "", fmt.Errorf("reading doveconf's output: it ends within %s", stack[len(stack)-1].Title())
	}
	return stack[0], version, nil
}

// unquote removes the quotes that doveconf puts around values with a # or with spaces at either
// end.
func unquote(s string) string {
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	inner := s[1 : len(s)-1]
	for i := 0; i < len(inner); i++ {
		if inner[i] == '\\' && i+1 < len(inner) {
			i++
		}
		b.WriteByte(inner[i])
	}
	return b.String()
}

// Get returns a setting, or the preset if the section does not name it.
func (s Section) Get(name, preset string) string {
	if v, ok := s.Settings[name]; ok {
		return v
	}
	return preset
}

// All returns the sections of a kind within s, such as "passdb", in file order, which is the order
// in which Dovecot asks them.
func (s Section) All(kind string) (found []Section) {
	for _, sub := range s.Sections {
		if sub.Kind == kind {
			found = append(found, sub)
		}
	}
	return found
}

// One returns the section of that kind and name, or one without settings if there is none.
func (s Section) One(kind, name string) Section {
	for _, sub := range s.All(kind) {
		if sub.Name == name {
			return sub
		}
	}
	return Section{Kind: kind, Name: name}
}

// Title returns the section's first line without the brace, such as "service auth"; "" for the
// configuration as a whole.
func (s Section) Title() string { return strings.TrimSpace(s.Kind + " " + s.Name) }

// ParseSize reads a size in bytes as doveconf prints it: "1 G", "256 M", "0".
func ParseSize(text string) (uint64, bool) {
	number, unit, _ := strings.Cut(strings.TrimSpace(text), " ")
	n, err := strconv.ParseUint(number, 10, 64)
	shift, known := map[string]uint{"": 0, "B": 0, "k": 10, "M": 20, "G": 30, "T": 40}[unit]
	if err != nil || !known || n<<shift>>shift != n {
		return 0, false
	}
	return n << shift, true
}
