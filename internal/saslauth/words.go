package saslauth

import "github.com/drawbridge/drawbridge/internal/access"

// speech is the answer that the peer receives.
type speech uint8

const (
	silence speech = iota // the connection is closed: Postfix answers 454, while every FAIL is 535
	admit                 // OK
	refuse                // FAIL, with the reason that the outsider may read
	passOn                // ask the site's own authentication server
)

// words is the one table that turns decisions into the protocol's words. The zero outcome is not an
// answer.
func words(o access.Outcome) speech {
	switch o {
	case access.Allow:
		return admit
	case access.Deny:
		return refuse
	case access.Next:
		return passOn
	case access.TempFail:
		return silence
	}
	return silence
}
