package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// Reload says when and from where a daemon reads its settings again. The zero Reload means that it
// never does.
type Reload struct {
	Signal <-chan os.Signal
	Load   func() (*config.Config, error)
}

// reloader applies changed settings to the running parts.
type reloader struct {
	Reload
	running *config.Config // the settings in effect
	log     hclog.Logger

	sockets        *sockets
	redis          *redisstore.Redis
	loginKey       *loginKey
	regions        *region.Source
	networks       *region.Source
	regionsChanged func()
}

func (r *reloader) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.Signal:
			reportState(r.log, systemd.SdNotifyReloading+"\n"+systemd.SdNotifyMonotonicUsec())
			r.reload()
			reportState(r.log, systemd.SdNotifyReady)
		}
	}
}

// reload applies all changed settings that a reload can, or none when something is wrong with one.
func (r *reloader) reload() {
	next, err := r.Load()
	var apply []func()
	if err == nil {
		apply, err = r.prepare(next)
	}
	if err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			r.log.Error("reload: nothing was applied", "error", line)
		}
		return
	}
	for _, f := range apply {
		f()
	}
	live, restart := config.Changed(r.running, next)
	r.running = config.Applied(r.running, next)
	r.log.SetLevel(hclog.LevelFromString(next.Log.Level))
	r.log.Info("reload: settings, region database, key files and certificates were read again", "changed", live)
	if len(restart) > 0 {
		r.log.Warn("reload: changed settings need a restart", "settings", restart)
	}
}

// prepare reads all files that settings name, changing nothing. The functions put their content into
// effect.
func (r *reloader) prepare(next *config.Config) (apply []func(), err error) {
	var faults []error
	add := func(f func(), err error) {
		apply, faults = append(apply, f), append(faults, err)
	}
	key, err := readLoginKey(next.Login.KeyFile)
	add(func() { r.loginKey.hash.Store(key) }, err)

	target, err := r.running.Store.Target() // a changed address needs a restart
	access, fault := redisAccess(&next.Store, target.TLS)
	add(func() { r.redis.SetAccess(access) }, errors.Join(err, fault))

	for _, list := range []struct {
		setting string
		sockets []socket
	}{{"login.listen", r.sockets.login}, {"api.listen", r.sockets.api}, {"console.listen", r.sockets.console}} { // those that may have TLS
		for _, s := range list.sockets {
			f, err := s.LoadCertificate()
			if err != nil {
				err = fmt.Errorf("%s: %w", list.setting, err)
			}
			add(f, err)
		}
	}

	regions, err := openRegions(next)
	add(func() {}, err)
	if err == nil {
		f, err := r.regions.Replace(regions)
		if err != nil {
			err = fmt.Errorf("regions.database: %w", err)
		}
		add(func() { f(); r.regionsChanged() }, err)
	}
	networks, err := openNetworks(next)
	add(func() {}, err)
	if err == nil {
		f, err := r.networks.Replace(networks)
		if err != nil {
			err = fmt.Errorf("regions.networks: %w", err)
		}
		add(f, err)
	}
	return apply, errors.Join(faults...)
}
