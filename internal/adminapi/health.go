package adminapi

import (
	"net/http"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
)

func getLive(*call) (*answer, error) { return &answer{body: api.Health{Status: "ok"}}, nil }

func getReady(c *call) (*answer, error) {
	damaged := c.Store.Damage() != nil
	if !c.Available() {
		if damaged {
			return &answer{status: http.StatusServiceUnavailable, body: api.Health{Status: "damaged"}}, nil //nolint:nilerr // the status says it
		}
		return &answer{status: http.StatusServiceUnavailable, body: api.Health{Status: "unavailable"}}, nil
	}
	_, evicting := c.Store.Eviction()
	status := "ok"
	switch {
	case damaged:
		status = "damaged"
	case admin.Trouble(c.Store) != nil:
		status = "degraded"
	case evicting:
		status = "evicting"
	}
	h := api.Health{Status: status, MilterNeeded: c.MilterNeeded(), DistributedGuessing: c.Distributed()}
	if c.HoldUsage != nil {
		used, quota := c.HoldUsage()
		h.HoldDirFull = quota > 0 && used >= quota/10*9
	}
	return &answer{body: h}, nil
}

func getOpenAPI(c *call) (*answer, error) {
	return &answer{handler: func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(c.document)
	}}, nil
}

func getMetrics(c *call) (*answer, error) {
	if c.Metrics == nil {
		return nil, api.NotFound("metric")
	}
	return &answer{handler: c.Metrics.ServeHTTP}, nil
}
