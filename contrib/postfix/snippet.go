// Package postfix holds the pieces of Postfix configuration that ask Drawbridge, in the very text
// that administrators copy, so that the trial stack and the tests run what is shipped.
package postfix

import _ "embed"

//go:embed main.cf.drawbridge
var mainCF string

//go:embed master.cf.drawbridge
var masterCF string

// MainCF is what goes into main.cf.
func MainCF() string { return mainCF }

// MasterCF is the submission services of master.cf.
func MasterCF() string { return masterCF }
