// Package postfix embeds the Postfix configuration that administrators copy, so that the trial
// stack and the tests run the shipped text.
package postfix

import _ "embed"

//go:embed main.cf.drawbridge
var mainCF string

//go:embed master.cf.drawbridge
var masterCF string

//go:embed master.cf.drawbridge-outgoing
var outgoingCF string

// MainCF returns the settings for main.cf.
func MainCF() string { return mainCF }

// MasterCF returns the submission services for master.cf.
func MasterCF() string { return masterCF }

// OutgoingCF returns the services of master.cf that outgoing mail passes.
func OutgoingCF() string { return outgoingCF }
