package adminapi

func listSessions(c *call) (*answer, error) { return reported(c.domain.Sessions(c.ctx)) }

func listAccountSessions(c *call) (*answer, error) { return reported(c.account.Sessions(c.ctx)) }

func endSession(c *call) (*answer, error) {
	session, ended, err := c.req.EndSession(c.ctx, c.r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return &answer{body: session, ended: ended}, nil // a body of a dry run
}
