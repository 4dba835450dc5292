package mailflow

import (
	"fmt"
	"path"
	"regexp"
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
	fault            error            // an expression cannot be compiled
}

func compileMatch(r *Rule) matcher {
	c := matcher{
		Match:            &r.Match,
		recipientDomains: newDomains(r.Match.RecipientDomains), senders: newAddresses(r.Match.Senders), recipients: newAddresses(r.Match.Recipients),
		subject: folded(r.Match.Subject), text: folded(r.Match.Text),
		names: folded(r.Match.Attachments.Names), types: folded(r.Match.Attachments.Types),
	}
	for _, h := range r.Match.Headers {
		var x *regexp.Regexp
		if h.Regex != "" {
			var err error
			if x, err = regexp.Compile(h.Regex); err != nil {
				c.fault = fmt.Errorf("the expression for %s: %w", h.Name, err)
			}
		}
		c.headers = append(c.headers, x)
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
// cheap to the expensive; a fault of the content counts only if the content decides.
func (c *matcher) message(m *Message, to *Party) (bool, error) {
	if c.fault != nil {
		return false, c.fault
	}
	if !c.envelope(m, to) {
		return false, nil
	}
	if c.MinSize > 0 && m.Size < c.MinSize {
		return false, nil
	}
	for i := range c.headers {
		if !c.header(i, m.Content.Header) {
			return false, nil
		}
	}
	if len(c.subject) > 0 && !containsAny(m.Content.Subject, c.subject) {
		return false, nil
	}
	if len(c.text) > 0 && !c.inText(m.Content) {
		return false, m.Content.Fault
	}
	if len(c.names)+len(c.types) > 0 {
		return c.attachment(m.Content)
	}
	return true, nil
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
func (c *matcher) header(i int, fields []Field) bool {
	want := &c.Headers[i]
	for _, f := range fields {
		if !strings.EqualFold(strings.TrimRight(f.Name, " \t"), want.Name) {
			continue
		}
		switch {
		case c.headers[i] != nil:
			if c.headers[i].MatchString(f.Value) {
				return true
			}
		case strings.Contains(strings.ToLower(f.Value), strings.ToLower(want.Contains)):
			return true
		}
	}
	return false
}

func (c *matcher) inText(content *Content) bool {
	if containsAny(content.Subject, c.text) {
		return true
	}
	content.load()
	for _, t := range content.Texts {
		if containsAny(t, c.text) {
			return true
		}
	}
	return false
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
			if like(name, c.names) || like(path.Base(name), c.names) {
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
