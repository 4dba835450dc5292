// Package content describes messages in the words of the rules: package mime knows no rules, and
// package mailflow no MIME.
package content

import (
	"strings"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/mime"
)

// Of describes a whole message. Malformed ones are described as far as they can be read, with the
// fault.
func Of(message []byte) *mailflow.Content {
	m, err := mime.Parse(message, mime.Limits{})
	var header []mailflow.Field
	for name, value := range m.Header() {
		header = append(header, mailflow.Field{Name: name, Value: value})
	}
	return New(header, func() (*mime.Message, error) { return m, err })
}

// New describes a message by its header fields, whose values are as sent. The rest is parsed when a
// rule asks for texts or attachments.
func New(header []mailflow.Field, parse func() (*mime.Message, error)) *mailflow.Content {
	c := &mailflow.Content{Header: make([]mailflow.Field, len(header))}
	for i, f := range header {
		value := mime.DecodeWords(f.Value)
		c.Header[i] = mailflow.Field{Name: f.Name, Value: value}
		if c.Subject == "" && strings.EqualFold(strings.TrimRight(f.Name, " \t"), "Subject") {
			c.Subject = value
		}
	}
	c.Load = func(c *mailflow.Content) {
		m, fault := parse()
		texts, unread := m.Texts()
		files, unnamed := m.Attachments()
		c.Texts = texts
		for _, f := range files {
			c.Attachments = append(c.Attachments, mailflow.Attachment{Names: f.Names, Types: f.Types, Size: int64(f.Size)})
		}
		for _, err := range []error{fault, unread, unnamed} {
			if c.Fault == nil && err != nil {
				c.Fault = err
			}
		}
	}
	return c
}
