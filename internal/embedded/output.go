package embedded

import (
	"bytes"
	"strings"
	"sync"

	"github.com/hashicorp/go-hclog"
)

const maxLine = 1024 // bytes of one line that are kept

// output logs the output of redis-server, line by line:
//
//	22071:M 22 Nov 2026 08:46:52.572 # Server initialized
//
// The sign before the text is its level; # is a warning. Half of the warnings at its start are
// expected, so they are logged as debug; the last warning is kept to report why it ended.
type output struct {
	log   hclog.Logger
	quiet func() bool // warnings are no news (redis-server warns of being stopped)

	mu    sync.Mutex
	line  []byte // begun, not ended
	last  string // warning
	plain bool   // last came without a level, as broken configurations are reported, in several lines
	ready bool   // warnings are news

	foreign bool // the file's format is of another server or version
}

func (o *output) foreignFile() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.foreign
}

func (o *output) becomeReady() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ready = true
}

func (o *output) lastWarning() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last == "" {
		return "it gave no reason"
	}
	return o.last
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	written := len(p)
	for {
		part, rest, ended := bytes.Cut(p, []byte("\n"))
		o.line = append(o.line, part[:min(len(part), maxLine-len(o.line))]...)
		if !ended {
			return written, nil
		}
		o.take(strings.ToValidUTF8(string(o.line), "?"))
		o.line, p = o.line[:0], rest
	}
}

func (o *output) take(line string) {
	sign, text := parseLine(strings.TrimSpace(line))
	if text == "" {
		return
	}
	o.foreign = o.foreign || strings.Contains(text, "Can't handle RDB format version")
	switch {
	case sign == "" && o.plain:
		o.last = (o.last + " " + text)[:min(maxLine, len(o.last)+1+len(text))]
	case sign == "" || sign == "#":
		o.last, o.plain = text, sign == ""
	}
	if o.ready && !o.quiet() && (sign == "#" || sign == "") {
		o.log.Warn("redis-server warns", "text", text)
		return
	}
	o.log.Debug("redis-server says", "text", text)
}

// parseLine splits a line into its level's sign (. - * #) and its text; without a sign, all is
// text.
func parseLine(line string) (sign, text string) {
	fields := strings.SplitN(line, " ", 7) // pid:role day month year time sign text
	if strings.Contains(fields[0], ":signal-handler") {
		return "*", line
	}
	if len(fields) >= 6 && strings.Contains(fields[0], ":") && len(fields[5]) == 1 && strings.Contains(".-*#", fields[5]) {
		return fields[5], strings.Join(fields[6:], " ")
	}
	return "", line
}
