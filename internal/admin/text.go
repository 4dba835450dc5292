package admin

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
)

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// CheckText validates a text of one line for people (a name, a label, a note): it must print,
// without space at its ends.
func CheckText(text, pointer string, f *api.Faults) {
	if strings.TrimSpace(text) != text || strings.ContainsFunc(text, unprintable) {
		f.Add(pointer, "unprintable", "begins or ends with a space, or has a character that does not print")
	}
}

// CheckLines validates a text for people that may have several lines: at most 2000 bytes, and all
// characters but line breaks and tabs must print.
func CheckLines(text, pointer string, f *api.Faults) {
	const most = 2000
	switch {
	case len(text) > most:
		f.Add(pointer, "too_long", "is longer than %d bytes", most)
	case strings.ContainsFunc(text, func(r rune) bool { return unprintable(r) && r != '\n' && r != '\r' && r != '\t' }):
		f.Add(pointer, "unprintable", "has a character that does not print")
	}
}

func checkNetworks(entries []string, pointer string, f *api.Faults) {
	_, bad := address.ParseNetworks(entries)
	for _, fault := range bad {
		f.Add(api.At(pointer, fault.Index), "invalid_network", "%v", fault.Err)
	}
}

// list replaces a nil list by an empty one, as JSON shows it.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

// Same reports whether two documents are stored alike: their JSON is equal. What cannot be encoded
// is never the same.
func Same(a, b any) bool {
	x, err1 := json.Marshal(a)
	y, err2 := json.Marshal(b)
	return err1 == nil && err2 == nil && bytes.Equal(x, y)
}

// counted is a number and a noun.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
