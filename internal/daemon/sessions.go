package daemon

import (
	"errors"
	"fmt"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/forwards"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/livesessions"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
	"github.com/drawbridge/drawbridge/internal/withdraw"
)

// liveSessions returns what ends open sessions; nil if the settings name no doveadm.
func liveSessions(cfg *config.Config, st *store.Store, redis *redisstore.Redis, g *gate.Gate, log hclog.Logger) (*livesessions.Sessions, error) {
	if len(cfg.Sessions.Doveadm) == 0 {
		return nil, nil
	}
	var key []byte
	if cfg.Sessions.KeyFile != "" {
		var err error
		if key, err = config.ReadSecret(cfg.Sessions.KeyFile); err != nil {
			return nil, fmt.Errorf("sessions.key_file: %w", err)
		}
	}
	var dovecots []livesessions.Dovecot
	var faults []error
	for _, text := range cfg.Sessions.Doveadm {
		d, err := doveadm.Parse(text, key)
		dovecots, faults = append(dovecots, d), append(faults, err)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, fmt.Errorf("sessions.doveadm: %w", err)
	}
	return livesessions.New(livesessions.Options{
		State: st.State, Judge: g, Records: redis.Records, Services: cfg.Login.Services, Log: log.Named("sessions"),
	}, dovecots...), nil
}

// withdrawSite returns where messages can be taken back: this machine's queue and the site's Dovecots.
func withdrawSite(cfg *config.Config) *withdraw.Site {
	w := &withdraw.Site{Node: nodeName(cfg), Postqueue: cfg.Mail.Postqueue, Postsuper: cfg.Mail.Postsuper, Postcat: cfg.Mail.Postcat}
	for _, d := range dovecots(cfg) {
		w.Dovecots = append(w.Dovecots, d)
	}
	return w
}

// forwardsSite returns where forwards of accounts may be.
func forwardsSite(cfg *config.Config, state *store.State) *forwards.Site {
	return &forwards.Site{
		Dovecots: dovecots(cfg), SieveDir: cfg.Sessions.SieveDir, LocalDomain: cfg.Login.DefaultDomain,
		Postmap: cfg.Mail.Postmap, AliasMaps: cfg.Mail.AliasMaps,
		Managed: func(domain string) bool {
			_, managed := state.ResolveDomain(domain)
			return managed
		},
	}
}

// dovecots returns the site's Dovecots. [liveSessions] has reported what is wrong with their settings.
func dovecots(cfg *config.Config) (list []*doveadm.Doveadm) {
	var key []byte
	if cfg.Sessions.KeyFile != "" {
		key, _ = config.ReadSecret(cfg.Sessions.KeyFile)
	}
	for _, text := range cfg.Sessions.Doveadm {
		if d, err := doveadm.Parse(text, key); err == nil {
			list = append(list, d)
		}
	}
	return list
}
