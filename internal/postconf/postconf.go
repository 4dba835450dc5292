// Package postconf reads what postconf prints of main.cf and master.cf, and the small languages in
// their values: $name, lists, restriction lists, and addresses of servers.
//
//	main, err := postconf.ParseMain(out)         // postconf
//	postconf.SplitList("a, { b, c } d")          // "a", "{ b, c }", "d"
//	postconf.ParseServer("{ unix:private/x, timeout=3s }")
//
// It runs no program and opens no file. Tables, comparisons ("${{a} == {b} ? …}") and settings of
// other programs stay text.
//
// # Diagnostics
//
// An error names the line and quotes its start: a setting without "=", a service with fewer than
// eight fields, an override of a service that is not there, a line over 256 KiB.
package postconf

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

const (
	maxLine     = 256 << 10 // bytes
	maxExpanded = 64 << 10  // bytes of one value with every $name replaced
	maxDepth    = 16        // of $name within $name
)

// A Service is one entry of master.cf: what listens where, its command, and the -o overrides of
// main.cf for it.
type Service struct {
	Name         string // "submission", "127.0.0.1:10025"
	Type         string // "inet", "unix", "pass"
	Chroot       string // "y", "n" or "-"
	ProcessLimit string // maxproc: "100", "0" for none, "-" for default_process_limit
	Command      string // "smtpd"
	Overrides    map[string]string
}

// ParseMain reads the settings that "postconf" or "postconf -n" prints.
func ParseMain(r io.Reader) (map[string]string, error) {
	main := make(map[string]string)
	err := eachLine(r, func(line string) error {
		name, value, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok || name == "" {
			return fmt.Errorf("%.60q is not a setting", line)
		}
		main[name] = strings.TrimSpace(value)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading postconf's output: %w", err)
	}
	return main, nil
}

// Repeated returns the settings that the text of main.cf has more than once, in the order of their
// second entries. Of these, Postfix uses the last, and every program of its warns of the others.
func Repeated(r io.Reader) ([]string, error) {
	var list []string
	seen := make(map[string]int)
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxLine)
	for scanner.Scan() {
		line := scanner.Text()
		if line == "" || strings.ContainsRune(" \t#", rune(line[0])) { // the next line of a value, or a comment
			continue
		}
		name, _, ok := strings.Cut(line, "=")
		if name = strings.TrimSpace(name); !ok {
			continue // Postfix itself complains
		}
		if seen[name]++; seen[name] == 2 {
			list = append(list, name)
		}
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("reading main.cf: %w", err)
	}
	return list, nil
}

// ParseMaster reads the services that "postconf -M" prints and the -o overrides of "postconf -P".
func ParseMaster(services, overrides io.Reader) ([]Service, error) {
	var list []Service
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
		list = append(list, Service{Name: words[0], Type: words[1], Chroot: words[4], ProcessLimit: words[6], Command: words[7], Overrides: map[string]string{}})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading postconf -M's output: %w", err)
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
		return nil, fmt.Errorf("reading postconf -P's output: %w", err)
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

// Expand replaces $name, ${name}, $(name), ${name?text} and ${name:text}. It leaves comparisons and
// names nested deeper than 16 as they are, and cuts the result at 64 KiB: a value that still has a
// $ is unknown.
func Expand(value string, lookup func(string) string) string {
	e := expander{lookup: lookup, room: maxExpanded}
	return e.expand(value, 0)
}

type expander struct {
	lookup func(string) string
	room   int // bytes that may still be written, over all depths
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
		e.room-- // empty values cost too: a loop of them must end
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

// variable returns the $name at the start of text: as written, and without its braces.
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
		return text, "" // no closing brace
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

// branches splits "{then}:{otherwise}" or a bare "then".
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

// braced returns the text inside the braces at the start of text, and the text after them.
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

// SplitList splits a list as Postfix does, at commas and white space outside of braces, which stay
// around what they group.
func SplitList(text string) (items []string) {
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

// A Restriction is one word of a restriction list with its argument.
type Restriction struct {
	Name    string // "permit_mynetworks", "check_client_access", "hash:/etc/postfix/access"
	Arg     string
	LogOnly bool // after warn_if_reject: a refusal is only logged
}

// ParseRestrictions reads a restriction list. Built-in names are in lower case; names of classes
// and tables keep their case.
func ParseRestrictions(text string) (list []Restriction) {
	words := SplitList(text)
	logOnly := false
	for i := 0; i < len(words); i++ {
		r := Restriction{Name: words[i], LogOnly: logOnly}
		if lower := strings.ToLower(words[i]); isBuiltIn(lower) {
			r.Name = lower
		}
		if logOnly = r.Name == "warn_if_reject"; logOnly {
			continue
		}
		if TakesArgument(r.Name) && i+1 < len(words) {
			i++
			r.Arg = words[i]
		}
		list = append(list, r)
	}
	return list
}

func isBuiltIn(lower string) bool {
	word, _, _ := strings.Cut(lower, "_")
	return slices.Contains([]string{"permit", "check", "reject", "defer", "warn", "sleep"}, word)
}

// TakesArgument reports whether the next word belongs to a restriction of that name, as
// "check_policy_service" takes the address of a service.
func TakesArgument(name string) bool {
	switch name {
	case "check_recipient_maps", "check_relay_domains":
		return false
	case "reject_rbl_client", "permit_dnswl_client", "permit_rhswl_client", "sleep":
		return true
	}
	return strings.HasPrefix(name, "check_") || strings.HasPrefix(name, "reject_rhsbl_")
}

// A Server is the address of a policy service or a milter. The options are those that the braces
// give: "{ inet:127.0.0.1:10040, timeout=3s }".
type Server struct {
	Address string // "inet:127.0.0.1:10040", "unix:private/drawbridge"
	Options map[string]string
}

// ParseServer reads the address of a policy service or a milter, with or without braces.
func ParseServer(text string) Server {
	s := Server{Address: text, Options: map[string]string{}}
	if !strings.HasPrefix(text, "{") {
		return s
	}
	inner, _ := braced(text)
	words := SplitList(inner)
	s.Address = ""
	for i, word := range words {
		if i == 0 {
			s.Address = word
			continue
		}
		if strings.HasPrefix(word, "{") {
			word, _ = braced(word)
		}
		name, value, _ := strings.Cut(word, "=")
		s.Options[strings.TrimSpace(name)] = strings.TrimSpace(value)
	}
	return s
}

// UnixPath returns the absolute path, outside of any chroot, of the socket that a process with that
// queue directory connects to. It is not ok for addresses that are no sockets of files.
func (s Server) UnixPath(queue string, chroot bool) (string, bool) {
	file, ok := strings.CutPrefix(s.Address, "unix:")
	if !ok {
		file, ok = strings.CutPrefix(s.Address, "local:")
	}
	switch {
	case !ok || file == "":
		return "", false
	case strings.HasPrefix(file, "/") && !chroot:
		return file, true
	}
	return strings.TrimSuffix(queue, "/") + "/" + strings.TrimPrefix(file, "/"), true
}

// HostPort returns the parts of an inet: address. A port alone belongs to localhost. It is not ok
// if the port is no number.
func (s Server) HostPort() (host, port string, ok bool) {
	rest, ok := strings.CutPrefix(s.Address, "inet:")
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
