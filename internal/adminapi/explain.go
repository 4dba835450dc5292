package adminapi

import (
	"cmp"
	"errors"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

func getLogin(c *call) (*answer, error) {
	rec, err := c.loginRecord()
	if err != nil {
		return nil, err
	}
	return &answer{body: *rec}, nil
}

// explainLogin decides a recorded login again, under the rules as they are.
func explainLogin(c *call) (*answer, error) {
	rec, err := c.loginRecord()
	if err != nil {
		return nil, err
	}
	var l history.Login
	if !c.history.Recall(rec, &l) {
		return nil, api.NotFound("login record")
	}
	_, v := c.Store.State.View(l.Address)
	d := l.Explain(c.Site, v.Rules)
	d.Trace = append(d.Trace, c.disabledSteps("")...)
	e := api.ExplainedLogin{Record: *rec, Decision: d}
	if d.Outcome != rec.Outcome || d.Reason != rec.Reason || d.PolicyID != rec.PolicyID {
		e.Differs, e.WhyDiffers = true, c.whyDiffers(rec, &l, &d)
	}
	return &answer{body: e}, nil
}

// loginRecord returns the record that the path names, unless it is of somebody else.
func (c *call) loginRecord() (*store.LoginRecord, error) {
	rec, err := c.Journal.Record(c.ctx, c.domain, c.r.PathValue("id"))
	if errors.Is(err, store.ErrNoRecord) || err == nil && c.id.role == store.RoleSelf && rec.Account != c.id.account {
		return nil, api.NotFound("login record")
	}
	return rec, err
}

// reasonWords say in the past and the present why a login ended as it did.
var reasonWords = map[access.Reason]struct{ was, is string }{
	access.ReasonOK:             {"it passed", "it passes"},
	access.ReasonPolicy:         {"the policy refused it", "the policy refuses it"},
	access.ReasonIPBlocked:      {"its address was blocked", "its address is blocked"},
	access.ReasonProtocol:       {"its protocol was off", "its protocol is off"},
	access.ReasonSecureRequired: {"a secure password was required", "a secure password is required"},
	access.ReasonBadSecret:      {"its secret was wrong", "its secret is wrong"},
	access.ReasonRevokedSecret:  {"its secure password was revoked", "its secure password is revoked"},
	access.ReasonSuspended:      {"the account was suspended", "the account is suspended"},
	access.ReasonThrottled:      {"guessing was throttled", "guessing is throttled"},
	access.ReasonUnknownAccount: {"the account had no record", "the account has no record"},
}

// whyDiffers says what decided a login then, and what would now.
func (c *call) whyDiffers(rec *store.LoginRecord, l *history.Login, d *access.Decision) string {
	text := "then " + cmp.Or(reasonWords[rec.Reason].was, string(rec.Reason))
	if rec.PolicyID != "" {
		text += " (" + rec.PolicyID
		switch p, ok := c.Store.State.Policy(c.domain, rec.PolicyID); {
		case !ok:
			text += ", which is gone"
		case !p.Doc.Enabled:
			text += ", which is disabled"
		case p.Doc.Mode == access.Report:
			text += ", which only reports"
		}
		text += ")"
	}
	text += "; now " + cmp.Or(reasonWords[d.Reason].is, string(d.Reason))
	if d.PolicyID != "" {
		text += " (" + d.PolicyID + ")"
	}
	if d.Outcome != access.Deny && l.Secret.State == access.SecretUnseen {
		text += "; whether its secret was right is not on record: it is taken to be"
	}
	return text
}
