package trialstack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"strings"
	"time"
)

// A Log reads a log file from a position. The file need not exist yet.
type Log struct {
	path   string
	offset int64
}

// Follow returns the log from its present end: Wait then finds lines that are written after this
// call.
func Follow(path string) (*Log, error) {
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return &Log{path: path}, nil
	}
	if err != nil {
		return nil, err
	}
	return &Log{path: path, offset: info.Size()}, nil
}

// Wait returns the next line that matches; the next call continues after it. When ctx ends, the
// error contains the lines that were read.
func (l *Log) Wait(ctx context.Context, pattern *regexp.Regexp) (string, error) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	from := l.offset
	for {
		text, err := readFrom(l.path, l.offset)
		if err != nil {
			return "", err
		}
		for {
			line, rest, whole := bytes.Cut(text, []byte("\n"))
			if !whole {
				break
			}
			l.offset += int64(len(line)) + 1
			text = rest
			if pattern.Match(line) {
				return string(line), nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("wait for %q in %s: %w%s", pattern, l.path, ctx.Err(), lastLines(l.path, from))
		case <-tick.C:
		}
	}
}

// readFrom reads a file from an offset; a missing file is empty.
func readFrom(path string, offset int64) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }() // only read from
	return io.ReadAll(io.NewSectionReader(f, offset, 64<<20))
}

// lastLines returns the last lines of a log after an offset, indented, for the end of an error
// text.
func lastLines(path string, offset int64) string {
	text, err := readFrom(path, offset)
	if err != nil || len(text) == 0 {
		return "; nothing in " + path
	}
	const most = 12
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	if len(lines) > most {
		lines = lines[len(lines)-most:]
	}
	return "; the end of " + path + ":\n\t" + strings.Join(lines, "\n\t")
}
