package mailflow

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"regexp/syntax"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// matcher is a compiled [Match].
type matcher struct {
	*Match
	recipientDomains domains
	senders          addresses
	recipients       addresses
	headers          []*regexp.Regexp // of the header matches; nil for one that contains a text
	subject, text    []string         // folded
	names, types     []string         // lower case
	sizes            []int64          // of the expressions
	costly           bool             // its result is kept for the next recipient
	fault            error            // an expression cannot be compiled
}

const (
	// maxExpression bounds a regular expression, in characters and sets with repetitions written out:
	// the time to match a text is the product of both.
	maxExpression = 1000
	// maxEffort bounds the time that the rules spend on the content of a message, about five
	// seconds: the product of words and octets that are compared.
	maxEffort = 16 << 30
	// The effort of a step of an expression, and of a pattern, for each octet, in that of a word.
	expressionEffort, patternEffort = 64, 32
)

// errEffort: a message is so large, and the rules are so many, that others would wait for it.
var errEffort = errors.New("the rules of the domain take too long for the content of this message")

// CheckExpression validates a regular expression (RE2), which must not be larger than maxExpression.
func CheckExpression(x string) error {
	_, err := sizeOf(x)
	return err
}

func sizeOf(x string) (int64, error) {
	parsed, err := syntax.Parse(x, syntax.Perl)
	if err != nil {
		return 0, err
	}
	n := steps(parsed)
	if n > maxExpression {
		return n, fmt.Errorf("has %d characters and sets when its repetitions are written out, %d at most: repeat less", n, maxExpression)
	}
	return n, nil
}

// steps is the size of an expression with its repetitions written out.
func steps(x *syntax.Regexp) int64 {
	if x.Op == syntax.OpRepeat {
		return int64(max(x.Max, x.Min+1)) * steps(x.Sub[0])
	}
	n := int64(1)
	if x.Op == syntax.OpLiteral {
		n = int64(len(x.Rune))
	}
	for _, sub := range x.Sub {
		n += steps(sub)
	}
	return n
}

func compileMatch(r *Rule) matcher {
	c := matcher{
		Match:            &r.Match,
		recipientDomains: newDomains(r.Match.RecipientDomains), senders: newAddresses(r.Match.Senders), recipients: newAddresses(r.Match.Recipients),
		subject: folded(r.Match.Subject), text: folded(r.Match.Text),
		names: folded(r.Match.Attachments.Names), types: folded(r.Match.Attachments.Types),
	}
	c.costly = len(c.text)+len(c.names)+len(c.types) > 0
	for _, h := range r.Match.Headers {
		var x *regexp.Regexp
		var size int64
		if h.Regex != "" {
			var err error
			if size, err = sizeOf(h.Regex); err == nil {
				x, err = regexp.Compile(h.Regex)
			}
			if err != nil {
				c.fault = fmt.Errorf("the expression for %s: %w", h.Name, err)
			}
			c.costly = true
		}
		c.headers, c.sizes = append(c.headers, x), append(c.sizes, size)
	}
	return c
}

func folded(list []string) []string {
	var f []string
	for _, s := range list {
		f = append(f, strings.ToLower(s))
	}
	return f
}

// message reports whether a message matches at a recipient. What must match is looked at from the
// cheap to the expensive, and what is expensive once for all recipients; a fault of the content counts
// only if the content decides.
func (c *matcher) message(m *Message, to *Party) (bool, error) {
	if c.fault != nil {
		return false, c.fault
	}
	if !c.envelope(m, to) || c.MinSize > 0 && m.Size < c.MinSize {
		return false, nil
	}
	if !c.costly {
		return c.content(m.Content)
	}
	known, ok := m.Content.matched[c]
	if !ok {
		known.matched, known.err = c.content(m.Content)
		if m.Content.matched == nil {
			m.Content.matched = map[*matcher]matched{}
		}
		m.Content.matched[c] = known
	}
	return known.matched, known.err
}

// matched is the result of a matcher for the content of a message.
type matched struct {
	matched bool
	err     error
}

// content reports whether the content of a message matches.
func (c *matcher) content(content *Content) (bool, error) {
	for i := range c.headers {
		if ok, err := c.header(i, content); !ok {
			return false, err
		}
	}
	if len(c.subject) > 0 && !containsAny(content.Subject, c.subject) {
		return false, nil
	}
	if len(c.text) > 0 {
		if ok, err := c.inText(content); !ok {
			return false, err
		}
	}
	if len(c.names)+len(c.types) > 0 {
		return c.attachment(content)
	}
	return true, nil
}

// spend reports whether there is time for a comparison of so much effort.
func (c *Content) spend(effort, octets int) bool {
	c.effort += int64(effort) * int64(octets)
	return c.effort <= maxEffort
}

// envelope reports whether the envelope of a message matches.
func (c *matcher) envelope(m *Message, to *Party) bool {
	switch {
	case !c.recipientDomains.empty() && !c.recipientDomains.has(address.Domain(to.Address)) && !c.recipientDomains.has(to.Domain):
		return false
	case len(c.Senders) > 0 && !c.senders.has(m.From.Address, m.From.Account, m.Sender.Account):
		return false
	case len(c.Recipients) > 0 && !c.recipients.has(to.Address, to.Account):
		return false
	}
	return true
}

// header reports whether some field of the header matches.
func (c *matcher) header(i int, content *Content) (bool, error) {
	want := &c.Headers[i]
	for _, f := range content.Header {
		if !strings.EqualFold(strings.TrimRight(f.Name, " \t"), want.Name) {
			continue
		}
		switch {
		case c.headers[i] != nil:
			if !content.spend(expressionEffort*int(c.sizes[i]), len(f.Value)) {
				return false, errEffort
			}
			if c.headers[i].MatchString(f.Value) {
				return true, nil
			}
		case strings.Contains(strings.ToLower(f.Value), strings.ToLower(want.Contains)):
			return true, nil
		}
	}
	return false, nil
}

func (c *matcher) inText(content *Content) (bool, error) {
	if containsAny(content.Subject, c.text) {
		return true, nil
	}
	content.load()
	for _, t := range content.Texts {
		if !content.spend(len(c.text), len(t)) {
			return false, errEffort
		}
		if containsAny(t, c.text) {
			return true, nil
		}
	}
	return false, content.Fault
}

// attachment reports whether some attachment matches: its type, and its name or one inside of it.
func (c *matcher) attachment(content *Content) (bool, error) {
	content.load()
	fault := content.Fault
	for i := range content.Attachments {
		a := &content.Attachments[i]
		if len(c.types) > 0 && !slices.ContainsFunc(a.Types, func(t string) bool { return like(t, c.types) }) {
			continue
		}
		if len(c.names) == 0 {
			return true, nil
		}
		for _, name := range a.Names {
			if !content.spend(patternEffort*len(c.names), len(name)) {
				return false, errEffort
			}
			if like(name, c.names) || like(path.Base(strings.ReplaceAll(name, `\`, "/")), c.names) {
				return true, nil
			}
		}
	}
	return false, fault
}

// like reports whether a name has one of the patterns.
func like(name string, patterns []string) bool {
	name = strings.ToLower(name)
	for _, p := range patterns {
		if matched, err := path.Match(p, name); err == nil && matched {
			return true
		}
		// A pattern's "*" does not match a slash, which a type has.
		if rest, ok := strings.CutSuffix(p, "/*"); ok && strings.HasPrefix(name, rest+"/") {
			return true
		}
	}
	return false
}

func containsAny(text string, words []string) bool {
	if text == "" {
		return false
	}
	text = strings.ToLower(text)
	for _, w := range words {
		if strings.Contains(text, w) {
			return true
		}
	}
	return false
}

// addresses is a set of addresses and of all addresses of domains.
type addresses struct {
	exact map[string]bool
	of    map[string]bool // domains
}

// newAddresses reads addresses and entries such as "*@example.net".
func newAddresses(list []string) addresses {
	a := addresses{map[string]bool{}, map[string]bool{}}
	for _, entry := range list {
		if domain, ok := strings.CutPrefix(entry, "*@"); ok {
			a.of[domain] = true
		} else {
			a.exact[entry] = true
		}
	}
	return a
}

// has reports whether one of the addresses, of which some may be "", is in the set.
func (a *addresses) has(list ...string) bool {
	for _, addr := range list {
		if addr != "" && (a.exact[addr] || len(a.of) > 0 && a.of[address.Domain(addr)]) {
			return true
		}
	}
	return false
}

// CheckPattern validates a pattern for names or types.
func CheckPattern(p string) error {
	_, err := path.Match(strings.ToLower(p), "")
	return err
}
