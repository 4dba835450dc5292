package policyd

import (
	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// permit has no opinion: the restrictions that follow in Postfix decide.
const permit = "DUNNO"

const (
	textReauthenticate = "Your credential is no longer valid, please authenticate again"
	textRefused        = "Access denied"
)

// action is the one table that turns decisions into Postfix actions (access(5)). An empty action is
// no answer: close the connection and say nothing.
func action(d *access.Decision) string {
	switch d.Outcome {
	case access.Allow, access.Next:
		return permit
	case access.Deny:
		return refusal(d)
	case access.TempFail:
		return ""
	}
	return "" // the zero outcome is not an answer
}

func refusal(d *access.Decision) string {
	switch d.Reason {
	case access.ReasonBadSecret, access.ReasonRevokedSecret, access.ReasonSecretScope, access.ReasonSecureRequired:
		// The session's credential is no longer valid. 421 makes Postfix hang up, so that the
		// client has to authenticate.
		return "421 4.7.0 " + textReauthenticate
	case access.ReasonOK, access.ReasonPolicy, access.ReasonIPBlocked, access.ReasonProtocol, access.ReasonSuspended,
		access.ReasonThrottled, access.ReasonPasswordExpired, access.ReasonUnknownAccount, access.ReasonUnmanagedDomain,
		access.ReasonStoreUnavailable, access.ReasonSenderNotOwned, access.ReasonSecondFactor:
	}
	if d.Message == "" {
		return "554 5.7.1 " + textRefused
	}
	return "554 5.7.1 " + d.Message
}

// recipientAction is the one table that turns verdicts on recipients into Postfix actions.
func recipientAction(v *mailflow.Verdict) string {
	switch {
	case !v.Refused:
		return permit
	case v.Temporary:
		return "450 4.7.1 " + v.Text
	}
	return "550 5.7.1 " + v.Text
}
