package mime

import (
	"strings"
)

// replies are the words that programs put before the subject of replies and forwarded messages.
var replies = []string{
	"re", "fw", "fwd", "aw", "wg", "sv", "vs", "vb", "antw", "tr", "rv", "ref", "rif", "res", "enc", "odp", "pd", "ynt", "ilt", "r", "i",
	"回复", "答复", "转发", "回覆", "轉寄", "返信", "転送",
}

// Tag returns the value of a Subject field with a tag before it, once: tags that replies carry are
// removed first, so that a thread keeps one subject.
func Tag(subject, tag string) string {
	if tag == "" {
		return subject
	}
	subject, _ = Untag(subject, tag)
	subject = strings.TrimLeft(subject, " \t\r\n")
	if encoded := EncodeWords(tag); encoded != tag && strings.HasPrefix(subject, "=?") {
		return EncodeWords(tag+" ") + " " + subject // space between encoded words is not displayed
	}
	return strings.TrimRight(EncodeWords(tag)+" "+subject, " ")
}

// Untag returns the value of a Subject field without the tags at its beginning, between and behind
// words such as "Re:", and reports whether there were any. The rest keeps its octets unless the tag
// stood in an encoded word.
func Untag(subject, tag string) (string, bool) {
	if tag == "" {
		return subject, false
	}
	if rest, found := untag(subject, tag); found {
		return rest, true
	}
	encoded := EncodeWords(tag)
	if encoded != tag {
		if rest, found := untag(subject, EncodeWords(tag+" ")); found {
			return rest, true
		}
		if rest, found := untag(subject, encoded); found {
			return rest, true
		}
	}
	if !strings.Contains(subject, "=?") {
		return subject, false
	}
	rest, found := untag(DecodeWords(subject), tag)
	if !found {
		return subject, false
	}
	return EncodeWords(rest), true
}

// untag removes tags from text that is not encoded.
func untag(text, tag string) (string, bool) {
	var kept strings.Builder
	found := false
	for rest := text; ; {
		trimmed := strings.TrimLeft(rest, " \t\r\n")
		space := rest[:len(rest)-len(trimmed)]
		if after, ok := strings.CutPrefix(trimmed, tag); ok {
			found = true
			if rest = strings.TrimLeft(after, " \t\r\n"); rest != "" && kept.Len() > 0 {
				rest = space + rest
			}
			continue
		}
		word := replyWord(trimmed)
		if word == 0 {
			if !found {
				return text, false
			}
			return kept.String() + rest, true
		}
		kept.WriteString(space + trimmed[:word])
		rest = trimmed[word:]
	}
}

// replyWord returns the length of a word such as "Re:", "AW:" or "Re[2]:" that text begins with.
func replyWord(text string) int {
	for _, r := range replies {
		if len(text) <= len(r) || !strings.EqualFold(text[:len(r)], r) {
			continue
		}
		rest := text[len(r):]
		if strings.HasPrefix(rest, "[") || strings.HasPrefix(rest, "(") {
			end := strings.IndexAny(rest, "])")
			if end < 0 || strings.Trim(rest[1:end], "0123456789") != "" {
				continue
			}
			rest = rest[end+1:]
		}
		rest = strings.TrimLeft(rest, " ")
		for _, colon := range []string{":", "："} {
			if after, ok := strings.CutPrefix(rest, colon); ok {
				return len(text) - len(after)
			}
		}
	}
	return 0
}
