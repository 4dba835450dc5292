package daemon

import (
	"context"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"
)

// reportState reports a state to the service manager, as sd_notify(3) does. Without one nothing happens.
func reportState(log hclog.Logger, state string) {
	if _, err := systemd.SdNotify(false, state); err != nil {
		log.Warn("reporting to the service manager", "state", state, "error", err)
	}
}

// feedWatchdog reports twice in each interval of the unit's WatchdogSec= that the daemon lives, as
// long as alive returns: it takes the locks that a decision takes.
func feedWatchdog(ctx context.Context, log hclog.Logger, alive func()) {
	interval, err := systemd.SdWatchdogEnabled(false)
	if err != nil {
		log.Warn("reading the interval of the service manager's watchdog", "error", err)
	}
	if interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			alive()
			reportState(log, systemd.SdNotifyWatchdog)
		}
	}
}
