package policyd

import (
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
)

func TestAction(t *testing.T) {
	const (
		permitted = "DUNNO"
		silence   = ""
		again     = "421 4.7.0 Your credential is no longer valid, please authenticate again"
		refused   = "554 5.7.1 Access denied"
	)
	for _, c := range []struct {
		outcome access.Outcome
		reason  access.Reason
		message string
		want    string
	}{
		{access.Allow, access.ReasonOK, "", permitted},
		{access.Next, access.ReasonOK, "", permitted},
		{access.Allow, access.ReasonBadSecret, "never shown", permitted},

		{access.Deny, access.ReasonBadSecret, "", again},
		{access.Deny, access.ReasonRevokedSecret, "", again},
		{access.Deny, access.ReasonSecureRequired, "Use a secure password.", again},

		{access.Deny, access.ReasonProtocol, "This service is switched off for your account.", "554 5.7.1 This service is switched off for your account."},
		{access.Deny, access.ReasonProtocol, "", refused},
		{access.Deny, access.ReasonPolicy, "", refused},
		{access.Deny, access.ReasonIPBlocked, "", refused},
		{access.Deny, access.ReasonSuspended, "", refused},
		{access.Deny, access.ReasonThrottled, "", refused},
		{access.Deny, access.ReasonPasswordExpired, "", refused},
		{access.Deny, access.ReasonUnknownAccount, "", refused},
		{access.Deny, access.ReasonUnmanagedDomain, "", refused},
		{access.Deny, "a reason of tomorrow", "", refused},
		{access.Deny, "", "", refused},

		{access.TempFail, access.ReasonStoreUnavailable, "", silence},
		{0, access.ReasonOK, "", silence},
		{99, access.ReasonOK, "", silence},
	} {
		if got := action(&access.Decision{Outcome: c.outcome, Reason: c.reason, Message: c.message}); got != c.want {
			t.Errorf("%v %s %q: got %q, want %q", c.outcome, c.reason, c.message, got, c.want)
		}
	}
}
