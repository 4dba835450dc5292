package daemon

import (
	"fmt"
	"path/filepath"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/store/spool"
)

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
	n.Mail = notify.NewMail(client, nodeName(cfg), mails, log)
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
