package adminapi

import "github.com/drawbridge/drawbridge/internal/api"

func listHeld(c *call) (*answer, error) { return reported(c.domain.HeldMessages(c.ctx, c.page())) }

func getHeld(c *call) (*answer, error) { return shown(c.req.Held(c.ctx, c.r.PathValue("id"))) }

func approveHeld(c *call) (*answer, error) {
	return shown(c.req.DecideHeld(c.ctx, c.r.PathValue("id"), true, ""))
}

func rejectHeld(c *call) (*answer, error) {
	var f api.Faults
	in := decode[api.Rejection](c, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	return shown(c.req.DecideHeld(c.ctx, c.r.PathValue("id"), false, in.Text))
}
