// Package mail has the operations of administrators on mail: rules, groups, suspended credentials,
// and what the rules decide about recorded and hypothetical messages.
//
//	res, err := site.Of(d).PutRule(ctx, "inside", decode)
package mail

import (
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// Site decides about messages that nobody sends. Its functions are needed but Content.
type Site struct {
	// Explain decides about a message at a recipient, with a trace, by the given rules of one
	// domain. Nothing is counted or recorded.
	Explain func(e *mailflow.Envelope, content *mailflow.Content, domain string, rules *mailflow.Rules) mailflow.Verdict
	// PreviewLimit returns a function that counts recorded messages, oldest first, and reports
	// whether a limit permits them.
	PreviewLimit func(*mailflow.Rule) func(*mailflow.Record) bool
	// Content reads a whole message as the milter does; nil reads its header only.
	Content func(message []byte) *mailflow.Content
}

// Domain is the mail of a managed domain that the caller of a request reaches.
type Domain struct {
	*admin.Domain
	site Site
}

// Of returns the mail of a domain.
func (s Site) Of(d *admin.Domain) *Domain { return &Domain{d, s} }
