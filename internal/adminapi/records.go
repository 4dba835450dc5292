package adminapi

import (
	"net/netip"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

func listLogins(c *call) (*answer, error) {
	q, err := recordQuery(c)
	if err != nil {
		return nil, err
	}
	return reported(c.logins.List(c.ctx, q))
}

// recordQuery reads the filters of login records.
func recordQuery(c *call) (store.RecordQuery, error) {
	q := store.RecordQuery{
		Account: c.query.Get("account"), IP: c.query.Get("ip"), Client: c.query.Get("client"), Region: c.query.Get("region"), Device: c.query.Get("device"),
		Abnormal: c.flag("abnormal"), Outcome: c.query.Get("outcome"), Reason: c.query.Get("reason"), Policy: c.query.Get("policy"),
		Since: c.time("since"), Until: c.time("until"), Limit: c.page().Limit, Cursor: c.page().Cursor,
	}
	if text := c.query.Get("network"); text != "" {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			var f api.Faults
			f.Parameter("network", "invalid_network", "is not a network: write one like 203.0.113.0/24 or 2001:db8::/48")
			return q, f.Err()
		}
		q.Network = network.Masked()
	}
	return q, nil
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
