// Package sieve reads which actions a Sieve script (RFC 5228) may take with mail.
//
//	Actions(`redirect :copy "eve@example.net";`)
//	→ [{Name: "redirect", Target: "eve@example.net", Copy: true, Line: 1}]
//
// It reads words and no grammar: what follows the name of an action at the place of a command are its
// arguments, the last string is its target. Conditions are not evaluated, so an action that no message
// reaches is reported as well. No spelling hides an action: comments, quoted and multi-line strings,
// upper case and string lists are read as the RFC defines them. Where variables or encoded characters
// make the target, it is reported as computed, with the text that the script has.
//
// # Diagnostics
//
// A script that ends within a string or comment, or contains NUL, is an error. Dovecot does not run such
// scripts. The actions before that place are returned.
package sieve

import (
	"errors"
	"fmt"
	"strings"
)

// Action is one action of a script.
type Action struct {
	Name     string // in lower case
	Target   string // an address, a folder, a method of notification or a script; "" for none
	Computed bool   // the script makes the target when it runs
	Copy     bool   // the mailbox keeps its copy: the tag :copy
	Line     int    // from 1
}

// maxActions bounds the actions of a script, and maxTarget each target in bytes.
const (
	maxActions = 1000
	maxTarget  = 500
)

// targets says which actions are reported, and whether their last string is a target. The last string
// of the others is a text for the sender.
var targets = map[string]bool{
	"redirect": true, "fileinto": true, "notify": true, "report": true, "include": true, "pipe": true, "execute": true, "filter": true,
	"discard": false, "reject": false, "ereject": false, "refuse": false, "vacation": false,
}

// Actions returns the actions of a script in their order.
func Actions(script string) ([]Action, error) {
	var list []Action
	r := reader{text: script, line: 1}
	command, within := true, false // a command may begin here; list's last action has its arguments here
	for {
		word, kind, err := r.next()
		if err != nil {
			return list, fmt.Errorf("line %d: %w", r.line, err)
		}
		switch kind {
		case end:
			return list, nil
		case mark:
			if strings.Contains(";{}", word) {
				command, within = true, false
			}
			continue
		case identifier:
			name := strings.ToLower(word)
			if _, known := targets[name]; known && command {
				if len(list) == maxActions {
					return list, fmt.Errorf("line %d: more than %d actions", r.line, maxActions)
				}
				list, within = append(list, Action{Name: name, Line: r.line}), true
			}
		case tag:
			if within {
				a := &list[len(list)-1]
				a.Copy = a.Copy || strings.EqualFold(word, "copy")
				a.Computed = a.Computed || a.Name == "redirect" && strings.EqualFold(word, "list") ||
					a.Name == "notify" && strings.EqualFold(word, "method") // Pigeonhole's older notify: the last string is its text
			}
		case text:
			if a := len(list) - 1; within && targets[list[a].Name] {
				list[a].Computed = list[a].Computed || strings.Contains(word, "${")
				if word = strings.TrimSpace(word); len(word) > maxTarget {
					word = strings.ToValidUTF8(word[:maxTarget], "") + "…"
				}
				list[a].Target = word
			}
		}
		command = false
	}
}

type kind uint8

const (
	end        kind = iota
	identifier      // also a number
	tag             // without its colon
	text            // a string's value
	mark            // one of ; , { } [ ] ( )
)

// reader splits a script into words, RFC 5228 section 8.1.
type reader struct {
	text string
	line int // of the last word
}

var errWithin = errors.New("the script ends within a string or comment")

// take removes the first n bytes.
func (r *reader) take(n int) string {
	s := r.text[:n]
	r.text = r.text[n:]
	r.line += strings.Count(s, "\n")
	return s
}

// through removes everything up to the end of a text, and returns what stands before it.
func (r *reader) through(closing string) (string, error) {
	n := strings.Index(r.text, closing)
	if n < 0 {
		return "", errWithin
	}
	s := r.take(n + len(closing))
	return s[:n], nil
}

func (r *reader) next() (string, kind, error) {
	for r.text != "" {
		switch c := r.text[0]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			r.take(1)
		case c == '#':
			_, after, _ := strings.Cut(r.text, "\n")
			r.take(len(r.text) - len(after))
		case strings.HasPrefix(r.text, "/*"):
			r.take(2)
			if _, err := r.through("*/"); err != nil {
				return "", end, err
			}
		case c == '"':
			s, err := r.quoted()
			return s, text, err
		case c == ':':
			r.take(1)
			return r.take(wordLen(r.text)), tag, nil
		case wordLen(r.text) > 0:
			word := r.take(wordLen(r.text))
			if strings.EqualFold(word, "text") && strings.HasPrefix(r.text, ":") {
				s, err := r.multiLine()
				return s, text, err
			}
			return word, identifier, nil
		case c == 0:
			return "", end, errors.New("the script contains NUL")
		default:
			return r.take(1), mark, nil
		}
	}
	return "", end, nil
}

// wordLen is the length of the identifier or number that a text begins with.
func wordLen(s string) int {
	n := strings.IndexFunc(s, func(c rune) bool {
		return c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
	})
	if n < 0 {
		return len(s)
	}
	return n
}

// quoted reads a string in quotes: a backslash quotes any character.
func (r *reader) quoted() (string, error) {
	var b strings.Builder
	for i := 1; i < len(r.text); i++ {
		switch c := r.text[i]; c {
		case '"':
			r.take(i + 1)
			return b.String(), nil
		case '\\':
			if i++; i < len(r.text) {
				b.WriteByte(r.text[i])
			}
		default:
			b.WriteByte(c)
		}
	}
	return "", errWithin
}

// multiLine reads the lines between "text:" and a line that is a dot. A line that begins with a dot has
// another one before it.
func (r *reader) multiLine() (string, error) {
	if _, err := r.through("\n"); err != nil { // the colon, blanks and a comment
		return "", err
	}
	var b strings.Builder
	for {
		line, err := r.through("\n")
		line = strings.TrimSuffix(line, "\r")
		switch {
		case err != nil && strings.TrimSuffix(r.text, "\r") == ".": // without the end of the line
			r.take(len(r.text))
			return b.String(), nil
		case err != nil:
			return "", err
		case line == ".":
			return b.String(), nil
		}
		b.WriteString(strings.TrimPrefix(line, "."))
		b.WriteByte('\n')
	}
}
