package adminapi

import (
	"cmp"
	"context"
	"net/http"
	"strconv"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

func listThrottle(c *call) (*answer, error) { return reported(c.req.HeldBack(c.page())) }

func liftThrottle(c *call) (*answer, error) {
	return deleted(c.req.LiftThrottle(c.ctx, c.r.PathValue("subject")))
}

func verifyAudit(c *call) (*answer, error) {
	return c.long(func(ctx context.Context, _ rest.Progress) (any, error) {
		return c.req.VerifyAuditChain(ctx, c.query.Get("anchor"))
	})
}

// exportAudit streams the entries to a client that accepts lines; others get their number and the ends
// of the chains.
func exportAudit(c *call) (*answer, error) {
	return streamed(c, func(each func(*api.AuditLine) error) (*api.AuditExport, error) { return c.req.ExportAudit(c.ctx, each) })
}

// secureAccount also ends sessions on the users' page, and those that the rules still permit, if it is
// asked to.
func secureAccount(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.Secure](c, &f)
	res, err := c.account.Secure(c.ctx, in, &f)
	if err != nil {
		return nil, err
	}
	if c.EndPages != nil && !c.dryRun { // there, devices can be created without the password for a while
		if err := c.EndPages(c.ctx, c.account.Address()); err != nil {
			return nil, err
		}
	}
	if in.EndSessions && !c.dryRun {
		if res.View.EndedBeside, err = c.Open.EndAll(c.ctx, c.account); err != nil {
			return nil, err
		}
	}
	return &answer{body: &res.View, wipe: res.View.Password}, nil
}

func confirmLogin(c *call) (*answer, error) {
	return reported(c.logins.Confirm(c.ctx, c.r.PathValue("id")))
}

func listForwards(c *call) (*answer, error) { return reported(c.account.Forwards(c.ctx)) }

func inspectDomain(c *call) (*answer, error) {
	days, err := strconv.Atoi(cmp.Or(c.query.Get("days"), "90"))
	if err != nil || days < 0 || days > 3650 {
		var f api.Faults
		f.Parameter("days", "out_of_range", "must be a whole number from 0 to 3650")
		return nil, f.Err()
	}
	return c.long(func(ctx context.Context, _ rest.Progress) (any, error) {
		return c.domain.Inspect(ctx, c.query.Get("account"), days, c.flag("forwards"), c.page())
	})
}

func inspectionReport(c *call) (*answer, error) { return reported(c.domain.InspectionReport(c.ctx)) }

func reclaimDomain(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.Reclaim](c, &f)
	return reported(c.domain.Reclaim(c.ctx, in, &f))
}

func withdrawMessages(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.Withdrawal](c, &f)
	return reported(c.Withdraw(c.ctx, c.domain, in, &f))
}

// exportLogins streams records. The header Records says about how many there are. If Redis fails on the
// way, the connection is cut off, so that nobody takes a part for the whole.
func exportLogins(c *call) (*answer, error) {
	q, err := recordQuery(c)
	if err != nil {
		return nil, err
	}
	if q, err = c.logins.Selected(q); err != nil {
		return nil, err
	}
	done, err := c.lasting.Take(c.caller.Tenant())
	if err != nil {
		return nil, err
	}
	return &answer{handler: func(w http.ResponseWriter, _ *http.Request) {
		defer done()
		err := c.ExportLogins(c.ctx, q, c.query.Get("format"), func(contentType string, total int64) { //nolint:contextcheck // the request's own
			h := w.Header()
			h.Set("Content-Type", contentType)
			h.Set("Cache-Control", "no-store")
			h.Set("Records", strconv.FormatInt(total, 10))
		}, func(text []byte) error {
			_, err := w.Write(text)
			rest.Extend(w)
			return err
		})
		if err != nil {
			c.Log.Warn("exporting login records", "domain", q.Domain, "error", err)
			panic(http.ErrAbortHandler)
		}
	}}, nil
}
