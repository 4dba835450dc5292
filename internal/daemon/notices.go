package daemon

import (
	"context"
	"fmt"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/inspections"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/reminders"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/spool"
)

// remind notifies users ahead of time until ctx ends.
func remind(ctx context.Context, p *parts, a *admin.Admin) {
	caller := admin.Caller{Role: store.RoleAdmin, Actor: store.Actor{Name: "daemon"}}
	site := &reminders.Site{
		State: p.store.State, Advance: p.redis.Advance, Notify: p.notify, Log: p.log.Named("reminders"),
		Progress: func(ctx context.Context, domain string) (*api.EnforcementProgress, error) {
			d, err := a.As(caller, admin.Options{}).Domain(domain)
			if err != nil {
				return nil, err
			}
			return d.EnforcementProgress(ctx)
		},
	}
	site.Run(ctx)
}

// inspectDomains inspects domains on their schedules until ctx ends.
func inspectDomains(ctx context.Context, p *parts, a *admin.Admin) {
	caller := admin.Caller{Role: store.RoleAdmin, Actor: store.Actor{Name: "daemon"}}
	site := &inspections.Site{
		State: p.store.State, Leases: p.redis, Reports: p.redis, Notify: p.notify, Log: p.log.Named("inspections"), Node: nodeName(p.cfg), Holder: store.NewID(),
		Inspect: func(ctx context.Context, domain string, days int) (*api.Inspection, error) {
			d, err := a.As(caller, admin.Options{}).Domain(domain)
			if err != nil {
				return nil, err
			}
			return d.InspectAll(ctx, days)
		},
	}
	site.Run(ctx)
}

// maxNotices bounds the notices that wait on the disk, of each kind, in bytes.
const maxNotices = 16 << 20

// notices opens what notifies users and the site's webhook. The client is that of the messages that
// this daemon sends, so that its own milter recognises them.
func notices(cfg *config.Config, client *inject.Client, log hclog.Logger) (*notify.Notifier, error) {
	n := &notify.Notifier{Log: log}
	mails, err := spool.Open(filepath.Join(cfg.StateDir, "notices", "mail"), maxNotices)
	if err != nil {
		return nil, fmt.Errorf("state_dir: opening the notices: %w", err)
	}
	later, err := spool.Open(filepath.Join(cfg.StateDir, "notices", "mail-later"), maxNotices)
	if err != nil {
		return nil, fmt.Errorf("state_dir: opening the notices: %w", err)
	}
	n.Mail = notify.NewMail(client, nodeName(cfg), mails, later, log)
	if cfg.Notify.WebhookURL == "" {
		return n, nil
	}
	key, err := config.ReadSecret(cfg.Notify.WebhookKeyFile)
	if err != nil {
		return nil, fmt.Errorf("notify.webhook_key_file: %w", err)
	}
	hooks, err := spool.Open(filepath.Join(cfg.StateDir, "notices", "webhook"), maxNotices)
	if err != nil {
		return nil, fmt.Errorf("state_dir: opening the notices: %w", err)
	}
	n.Webhook = notify.NewWebhook(cfg.Notify.WebhookURL, key, hooks, log)
	return n, nil
}
