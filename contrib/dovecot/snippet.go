// Package dovecot holds the Dovecot configuration that puts Drawbridge at the head of the passdb
// chain, or beside it, in the very text that administrators copy, so that the trial stack and the
// tests run what is shipped.
package dovecot

import _ "embed"

//go:embed 2.3/drawbridge.conf.ext
var conf23 string

//go:embed 2.4/drawbridge.conf.ext
var conf24 string

//go:embed 2.3/drawbridge-policy.conf.ext
var policy23 string

//go:embed 2.4/drawbridge-policy.conf.ext
var policy24 string

//go:embed 2.3/drawbridge-verified.conf.ext
var verified23 string

//go:embed 2.4/drawbridge-verified.conf.ext
var verified24 string

//go:embed drawbridge.lua
var script string

//go:embed drawbridge-verified.lua
var verifiedScript string

// Conf24 is drawbridge.conf.ext for Dovecot 2.4.
func Conf24() string { return conf24 }

// Script is drawbridge.lua, the passdb of Dovecot 2.4.
func Script() string { return script }

// VerifiedScript is drawbridge-verified.lua, which runs Script as the second passdb.
func VerifiedScript() string { return verifiedScript }

// Verified23 is drawbridge-verified.conf.ext for Dovecot 2.3: the second passdb.
func Verified23() string { return verified23 }

// Verified24 is drawbridge-verified.conf.ext for Dovecot 2.4.
func Verified24() string { return verified24 }

// Conf23 is drawbridge.conf.ext for Dovecot 2.3.
func Conf23() string { return conf23 }

// Policy23 is drawbridge-policy.conf.ext for Dovecot 2.3: checks without a Drawbridge passdb.
func Policy23() string { return policy23 }

// Policy24 is drawbridge-policy.conf.ext for Dovecot 2.4.
func Policy24() string { return policy24 }
