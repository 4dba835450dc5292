// Package postfix embeds the Postfix configuration that administrators copy, so that the trial
// stack and the tests run the shipped text.
package postfix

import _ "embed"

//go:embed main.cf.drawbridge
var mainCF string

//go:embed master.cf.drawbridge
var masterCF string

// MainCF returns the settings for main.cf.
func MainCF() string { return mainCF }

// MasterCF returns the submission services for master.cf.
func MasterCF() string { return masterCF }
