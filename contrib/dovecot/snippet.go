// Package dovecot holds the piece of Dovecot configuration that puts Drawbridge at the head of the
// passdb chain, in the very text that administrators copy, so that the trial stack and the tests
// run what is shipped.
package dovecot

import _ "embed"

//go:embed 2.3/drawbridge.conf.ext
var conf23 string

// Conf23 is drawbridge.conf.ext for Dovecot 2.3.
func Conf23() string { return conf23 }
