package doctor

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const maxExpanded = 64 << 10 // bytes of one value with all its $name written out

// PostfixConf is what postconf printed.
type PostfixConf struct {
	Dir      string            // names the configuration in findings
	Main     map[string]string // main.cf with the defaults, $name not written out
	Services []MasterService
}

// A MasterService is one entry of master.cf.
type MasterService struct {
	Name      string // "submission", "127.0.0.1:10025"
	Type      string // "inet", "unix", "pass"
	Chroot    string // "y", "n" or "-"
	Command   string // "smtpd"
	Overrides map[string]string
}

// ParseMain reads what postconf prints of main.cf, with or without -n.
func ParseMain(r io.Reader) (map[string]string, error) {
	main := make(map[string]string)
	err := eachLine(r, func(line string) error {
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return fmt.Errorf("%.60q is no setting", line)
		}
		main[name] = strings.TrimSpace(value)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read postconf's output: %w", err)
	}
	return main, nil
}

// ParseMaster reads what "postconf -M" and "postconf -P" print: the services of master.cf and their
// -o overrides.
func ParseMaster(services, overrides io.Reader) ([]MasterService, error) {
	var list []MasterService
	place := make(map[string]int) // "name/type" → where in list
	err := eachLine(services, func(line string) error {
		words := strings.Fields(line)
		if len(words) < 8 {
			return fmt.Errorf("%.60q has fewer than the eight fields of a service", line)
		}
		key := words[0] + "/" + words[1]
		if _, ok := place[key]; ok {
			return nil // postconf merges the overrides of both
		}
		place[key] = len(list)
		list = append(list, MasterService{Name: words[0], Type: words[1], Chroot: words[4], Command: words[7], Overrides: map[string]string{}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read postconf -M's output: %w", err)
	}
	err = eachLine(overrides, func(line string) error {
		path, value, ok := strings.Cut(line, "=")
		path = strings.TrimSpace(path)
		slash := strings.LastIndex(path, "/")
		if !ok || slash < 0 {
			return fmt.Errorf("%.60q is not service/type/setting = value", line)
		}
		at, ok := place[path[:slash]]
		if !ok {
			return fmt.Errorf("%.60q belongs to no service", line)
		}
		list[at].Overrides[path[slash+1:]] = strings.TrimSpace(value)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read postconf -P's output: %w", err)
	}
	return list, nil
}

func eachLine(r io.Reader, do func(string) error) error {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	for n := 1; scanner.Scan(); n++ {
		line := strings.TrimSpace(scanner.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		if err := do(line); err != nil {
			return fmt.Errorf("line %d: %w", n, err)
		}
	}
	return scanner.Err()
}

// expand writes out $name, ${name}, $(name), ${name?text} and ${name:text}. What it does not know,
// such as a comparison, or what is nested too deeply, stays as it is: a value with a $ in it cannot
// be judged.
func expand(value string, lookup func(string) string) string {
	e := expander{lookup: lookup, room: maxExpanded}
	return e.expand(value, 0)
}

type expander struct {
	lookup func(string) string
	room   int // bytes that may yet be written, at all depths together
}

func (e *expander) expand(value string, depth int) string {
	var b strings.Builder
	write := func(s string) {
		s = s[:min(len(s), e.room)]
		e.room -= len(s)
		b.WriteString(s)
	}
	for value != "" && e.room > 0 {
		at := strings.IndexByte(value, '$')
		if at < 0 || depth > maxDepth {
			write(value)
			break
		}
		write(value[:at])
		raw, inner := variable(value[at:])
		value = value[at+len(raw):]
		name, text, operator := inner, "", byte(0)
		if i := strings.IndexAny(inner, "?:"); i >= 0 {
			name, text, operator = inner[:i], strings.TrimSpace(inner[i+1:]), inner[i]
		}
		name = strings.TrimSpace(name)
		switch {
		case raw == "$$":
			write("$")
			continue
		case name == "" || !isName(name):
			write(raw)
			continue
		}
		e.room-- // what expands to nothing costs too
		found := e.lookup(name)
		switch then, otherwise := branches(text); {
		case operator == 0:
			text = found
		case operator == '?' && found != "", operator == ':' && found == "":
			text = then
		default:
			text = otherwise
		}
		write(e.expand(text, depth+1))
	}
	return b.String()
}

// variable returns the $name at the start of text as it is written, and what is in its braces.
func variable(text string) (raw, inner string) {
	if len(text) < 2 {
		return text, ""
	}
	closing := byte(0)
	switch text[1] {
	case '{':
		closing = '}'
	case '(':
		closing = ')'
	case '$':
		return text[:2], ""
	}
	if closing != 0 {
		depth := 0
		for i := 1; i < len(text); i++ {
			switch text[i] {
			case text[1]:
				depth++
			case closing:
				if depth--; depth == 0 {
					return text[:i+1], text[2:i]
				}
			}
		}
		return text, "" // never closed
	}
	end := 1
	for end < len(text) && isName(text[end:end+1]) {
		end++
	}
	return text[:end], text[1:end]
}

func isName(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
}

// branches splits "{then}:{otherwise}", which may also be a bare "then".
func branches(text string) (then, otherwise string) {
	if !strings.HasPrefix(text, "{") {
		return text, ""
	}
	then, rest := braced(text)
	if rest, ok := strings.CutPrefix(strings.TrimSpace(rest), ":"); ok {
		otherwise, _ = braced(strings.TrimSpace(rest))
	}
	return strings.TrimSpace(then), strings.TrimSpace(otherwise)
}

// braced returns what is in the braces at the start of text, and what follows them.
func braced(text string) (inner, rest string) {
	depth := 0
	for i := range len(text) {
		switch text[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return text[1:i], text[i+1:]
			}
		}
		if depth == 0 {
			break
		}
	}
	return text, ""
}

// splitList splits a list of Postfix at commas and blanks, but not within braces.
func splitList(text string) (items []string) {
	depth, start := 0, -1
	for i := range len(text) {
		separator := false
		switch text[i] {
		case '{':
			depth++
		case '}':
			depth--
		case ',', ' ', '\t', '\r', '\n':
			separator = depth <= 0
		}
		switch {
		case separator && start >= 0:
			items, start = append(items, text[start:i]), -1
		case !separator && start < 0:
			start = i
		}
	}
	if start >= 0 {
		items = append(items, text[start:])
	}
	return items
}

// A restriction is one word of a restriction list with its argument.
type restriction struct {
	name string // "permit_mynetworks", "check_client_access", "hash:/etc/postfix/access"
	arg  string
	soft bool // after warn_if_reject: a refusal is only logged
}

func parseRestrictions(text string) (list []restriction) {
	words := splitList(text)
	soft := false
	for i := 0; i < len(words); i++ {
		r := restriction{name: words[i], soft: soft}
		if lower := strings.ToLower(words[i]); isBuiltIn(lower) {
			r.name = lower // the names of classes and tables have cases
		}
		if soft = r.name == "warn_if_reject"; soft {
			continue
		}
		if takesArgument(r.name) && i+1 < len(words) {
			i++
			r.arg = words[i]
		}
		list = append(list, r)
	}
	return list
}

func isBuiltIn(lower string) bool {
	word, _, _ := strings.Cut(lower, "_")
	return slices.Contains([]string{"permit", "check", "reject", "defer", "warn", "sleep"}, word)
}

func takesArgument(name string) bool {
	switch name {
	case "check_recipient_maps", "check_relay_domains":
		return false
	case "reject_rbl_client", "permit_dnswl_client", "permit_rhswl_client", "sleep":
		return true
	}
	return strings.HasPrefix(name, "check_") || strings.HasPrefix(name, "reject_rhsbl_")
}

// A server is where Postfix asks a policy service or a milter: "inet:host:port", "unix:path", or
// the same in braces with options of its own.
type server struct {
	address string
	options map[string]string
}

func parseServer(text string) server {
	s := server{address: text, options: map[string]string{}}
	if !strings.HasPrefix(text, "{") {
		return s
	}
	inner, _ := braced(text)
	words := splitList(inner)
	s.address = ""
	for i, word := range words {
		if i == 0 {
			s.address = word
			continue
		}
		if strings.HasPrefix(word, "{") {
			word, _ = braced(word)
		}
		name, value, _ := strings.Cut(word, "=")
		s.options[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return s
}

// unixPath returns the absolute path of a unix: address as an smtpd sees it, from outside of its
// chroot.
func (s server) unixPath(queue string, chroot bool) (string, bool) {
	file, ok := strings.CutPrefix(s.address, "unix:")
	if !ok {
		file, ok = strings.CutPrefix(s.address, "local:")
	}
	switch {
	case !ok || file == "":
		return "", false
	case strings.HasPrefix(file, "/") && !chroot:
		return file, true
	}
	return strings.TrimSuffix(queue, "/") + "/" + strings.TrimPrefix(file, "/"), true
}

// hostPort returns the parts of an inet: address. Postfix takes a port alone for one of localhost.
func (s server) hostPort() (host, port string, ok bool) {
	rest, ok := strings.CutPrefix(s.address, "inet:")
	if !ok {
		return "", "", false
	}
	at := strings.LastIndex(rest, ":")
	if at < 0 {
		return "localhost", rest, rest != ""
	}
	host, port = rest[:at], rest[at+1:]
	if host == "" {
		host = "localhost"
	}
	_, err := strconv.ParseUint(port, 10, 16)
	return host, port, err == nil
}
