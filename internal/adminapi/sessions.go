package adminapi

func listSessions(c *call) (*answer, error) { return reported(c.Open.OfDomain(c.ctx, c.domain)) }

func listAccountSessions(c *call) (*answer, error) {
	return reported(c.Open.OfAccount(c.ctx, c.account))
}

func endSession(c *call) (*answer, error) {
	session, ended, err := c.Open.End(c.ctx, c.req, c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return &answer{body: session, ended: ended}, nil // a body of a dry run
}
