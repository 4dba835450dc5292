package saslauth

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
)

// refusing is a gate that answers each login alike, without asking another server.
type refusing struct {
	Gate
	decision access.Decision
}

func (r refusing) Login(context.Context, *access.Login) access.Decision { return r.decision }

// A refusal takes as long as one of the site's own server, unless the password was verified: its time
// does not show that an account is suspended.
func TestRefusalTakesAsLong(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		decision access.Decision
		next     string
		want     time.Duration
	}{
		{access.Decision{Outcome: access.Deny, Reason: access.ReasonSuspended}, "/next", 2 * time.Second},
		{access.Decision{Outcome: access.Deny, Reason: access.ReasonSuspended, Verified: true}, "/next", 0},
		{access.Decision{Outcome: access.Allow, Verified: true}, "/next", 0},
		{access.Decision{Outcome: access.Deny, Reason: access.ReasonSuspended}, "", 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			v := NewVerifier(refusing{decision: c.decision}, hclog.NewNullLogger(), c.next)
			v.refusal.Store(int64(2 * time.Second))
			began := time.Now()
			if d := v.Login(t.Context(), &access.Login{}); d.Outcome != c.decision.Outcome || time.Since(began) != c.want {
				t.Errorf("%+v: %v after %v", c, d.Outcome, time.Since(began))
			}
		})
	}
}
