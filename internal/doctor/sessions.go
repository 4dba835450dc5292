package doctor

import (
	"context"
	"net/netip"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
)

// askDoveadm lists the open sessions of each Dovecot, and ends those of a user that no site has.
func askDoveadm(ctx context.Context, c *config.Config) findings {
	const check = "daemon.sessions"
	const open = "revoked devices, and clients that rules refuse, stay connected"
	var f findings
	var key []byte
	if c.Sessions.KeyFile != "" {
		var err error
		if key, err = config.ReadSecret(c.Sessions.KeyFile); err != nil {
			f.fail(check, "sessions.key_file", "# let the daemon's user read it", "%v: %s", err, open)
			return f
		}
	}
	if len(c.Sessions.Doveadm) == 0 {
		f.warn(check, "sessions.doveadm", `doveadm = "unix:/run/dovecot/drawbridge-doveadm"`, "no doveadm is named: %s until they disconnect by themselves", open)
	}
	for _, text := range c.Sessions.Doveadm {
		d, err := doveadm.Parse(text, key)
		var list []doveadm.Connection
		if err == nil {
			list, err = d.Who(ctx)
		}
		if err == nil {
			_, err = d.KickUser(ctx, "nobody@doctor.invalid", netip.IPv4Unspecified())
		}
		if err != nil {
			f.fail(check, "sessions.doveadm", "# see \"End open sessions\" in the installation", "%v: %s", err, open)
			continue
		}
		f.ok(check, text, "%s lists %d open sessions and can end them", text, len(list))
	}
	return f
}
