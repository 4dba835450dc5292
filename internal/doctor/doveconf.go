package doctor

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

const (
	maxLine  = 256 << 10 // bytes of one line of doveconf or postconf
	maxDepth = 16        // of nested sections, and of $name within $name
)

// A Section is a block of Dovecot's configuration, or the whole of it (no Kind).
type Section struct {
	Kind     string // "passdb", "service", "protocol", …
	Name     string // "auth", "imap"; "" where the kind has none
	Settings map[string]string
	Sections []Section
}

// DovecotConf is what doveconf printed.
type DovecotConf struct {
	File    string // names the configuration in findings
	Version string // "2.3.19.1"
	All     Section
	// Services holds the configuration as the auth process sees it for one service ("doveconf -f
	// service=imap"), by service. A passdb within "protocol imap { }" is asked before all others:
	// only this view shows it.
	Services map[string]Section
}

// ParseDoveconf reads the output of doveconf, with -n or -a, and returns it with the version that
// its first line tells. The error names the line that it could not read.
func ParseDoveconf(r io.Reader) (all Section, version string, err error) {
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
				return Section{}, "", fmt.Errorf("read doveconf's output: line %d: a } too many", n)
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
				return Section{}, "", fmt.Errorf("read doveconf's output: line %d is neither a setting nor a section", n)
			}
			if len(stack) > maxDepth {
				return Section{}, "", fmt.Errorf("read doveconf's output: line %d: more than %d nested sections", n, maxDepth)
			}
			stack = append(stack, Section{Kind: word, Name: unquote(strings.TrimSpace(name)), Settings: map[string]string{}})
		}
	}
	switch {
	case scanner.Err() != nil:
		return Section{}, "", fmt.Errorf("read doveconf's output: %w", scanner.Err())
	case len(stack) > 1:
		return Section{}, "", fmt.Errorf("read doveconf's output: it ends within %s", stack[len(stack)-1].title())
	}
	return stack[0], version, nil
}

// unquote takes away the quotes that doveconf puts around values with blanks at their ends or a #
// in them.
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

// get returns a setting; where doveconf -n left it out, Dovecot's default.
func (s Section) get(name, preset string) string {
	if v, ok := s.Settings[name]; ok {
		return v
	}
	return preset
}

// all returns the sections of a kind in their order.
func (s Section) all(kind string) (found []Section) {
	for _, sub := range s.Sections {
		if sub.Kind == kind {
			found = append(found, sub)
		}
	}
	return found
}

// one returns the section with that kind and name, an empty one if there is none.
func (s Section) one(kind, name string) Section {
	for _, sub := range s.all(kind) {
		if sub.Name == name {
			return sub
		}
	}
	return Section{Kind: kind, Name: name}
}

func (s Section) title() string { return strings.TrimSpace(s.Kind + " " + s.Name) }
