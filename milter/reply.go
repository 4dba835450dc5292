package milter

import (
	"strings"

	gomilter "github.com/emersion/go-milter"
)

// The one table of what SMTP clients are told. Postfix passes these on as they are; the codes are
// RFC 3463's.
const (
	refused     = "550 5.7.1 " // and why, for good
	unavailable = "451 4.7.1 The sender cannot be checked now, please try again later."
	// Postfix hangs up after 421: the next connection asks for what the rules now need.
	reconnect = "421 4.7.1 The rules have changed, please connect again."

	textForged = "The message has too many " + traceHeader + " headers."
)

// reply answers with a whole SMTP reply, of one line. Postfix takes "%" for the beginning of an
// escape, as Sendmail does.
func reply(text string) gomilter.Response {
	return gomilter.NewResponseStr(byte(gomilter.ActReplyCode), strings.ReplaceAll(text, "%", "%%"))
}
