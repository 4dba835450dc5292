package adminapi

import (
	"time"

	"github.com/drawbridge/drawbridge/internal/store"
)

func listLogins(c *call) (*answer, error) {
	return reported(c.logins.List(c.ctx, store.RecordQuery{
		Account: c.query.Get("account"), IP: c.query.Get("ip"), Client: c.query.Get("client"),
		Outcome: c.query.Get("outcome"), Reason: c.query.Get("reason"), Policy: c.query.Get("policy"),
		Since: c.time("since"), Until: c.time("until"), Limit: c.page().Limit, Cursor: c.page().Cursor,
	}))
}

func getLogin(c *call) (*answer, error) { return reported(c.logins.Record(c.ctx, c.r.PathValue("id"))) }

func explainLogin(c *call) (*answer, error) {
	return reported(c.logins.Explain(c.ctx, c.r.PathValue("id")))
}

func listAudit(c *call) (*answer, error) {
	return reported(c.req.Audit(c.ctx, c.query.Get("domain"), c.time("since"), c.page()))
}

// time returns a parameter that is a time, or the zero Time.
func (c *call) time(name string) time.Time {
	t, _ := time.Parse(time.RFC3339, c.query.Get(name)) // was validated; "" is no time
	return t
}
