package milter

import (
	"cmp"
	"strings"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/access"
)

// The one table of replies to SMTP clients. Postfix passes these on as they are; the codes are RFC
// 3463's.
const (
	refused     = "550 5.7.1 " // and why, for good
	unavailable = "451 4.7.1 The sender cannot be checked now, please try again later."
	unjudged    = "451 4.7.1 The message cannot be checked now, please try again later."
	// Postfix hangs up after 421: the next connection negotiates the stages that the rules now need.
	reconnect = "421 4.7.1 The rules have changed, please connect again."

	// The same as policyd's: Postfix hangs up, so that the client has to authenticate.
	reauthenticate = "421 4.7.0 Your credential is no longer valid, please authenticate again."
	unknown        = "451 4.7.1 The login cannot be checked now, please try again later."

	textForged = "The message has too many " + traceHeader + " headers."
)

// ended returns the reply to a session that may no longer send, "" if it may.
func ended(d *access.Decision) string {
	switch d.Outcome {
	case access.Allow, access.Next:
		return ""
	case access.TempFail:
		return unknown
	case access.Deny:
		switch d.Reason {
		case access.ReasonBadSecret, access.ReasonRevokedSecret, access.ReasonSecretScope, access.ReasonSecureRequired:
			return reauthenticate
		default:
			return refused + cmp.Or(d.Message, "Access denied.")
		}
	}
	return unknown // the zero outcome is not an answer
}

// reply answers with a whole SMTP reply, of one line. Postfix takes "%" for the beginning of an
// escape, as Sendmail does.
func reply(text string) gomilter.Response {
	return gomilter.NewResponseStr(byte(gomilter.ActReplyCode), strings.ReplaceAll(text, "%", "%%"))
}
