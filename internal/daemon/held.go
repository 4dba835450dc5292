package daemon

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/approval"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/hold"
	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// openKeeper opens the messages that wait on this node; nil if the daemon has no milter, so that it
// gets none.
func openKeeper(cfg *config.Config, st *store.Store, client *inject.Client, links *approval.Links, log hclog.Logger) (*hold.Keeper, error) {
	if len(cfg.Milter.Listen) == 0 {
		return nil, nil
	}
	dir, err := hold.OpenDir(cmp.Or(cfg.Mail.HoldDir, filepath.Join(cfg.StateDir, "held")))
	if err != nil {
		return nil, fmt.Errorf("mail.hold_dir: %w", err)
	}
	k := &hold.Keeper{
		Dir: dir, Client: client, Store: st, Node: nodeName(cfg), Quota: int64(cfg.Mail.HoldQuota) << 20, Log: log.Named("held"), Link: links.Link,
	}
	if err := k.Load(); err != nil {
		_ = dir.Close()
		return nil, fmt.Errorf("mail.hold_dir: %w", err)
	}
	return k, nil
}

// nodeName returns the name by which lists show this daemon.
func nodeName(cfg *config.Config) string {
	host, _ := os.Hostname()
	return cmp.Or(cfg.Mail.Node, host, "localhost")
}

// approvalLinks returns what signs the addresses of approvers' pages.
func approvalLinks(cfg *config.Config, pepper *credential.Pepper) *approval.Links {
	return &approval.Links{URL: strings.TrimSuffix(cfg.Notify.LinkURL, "/"), Key: pepper.LinkKey()}
}

// withApproval adds the approvers' page to the API's handler, if there are links to it.
func withApproval(next http.Handler, links *approval.Links, a *admin.Admin, log hclog.Logger) http.Handler {
	if links.URL == "" {
		return next
	}
	page := approval.Handler(links, a, log)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, approval.Path) {
			page.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// reportNode records every ten seconds that this node is there.
func reportNode(ctx context.Context, redis *redisstore.Redis, node string) {
	tick := time.NewTicker(10 * time.Second)
	defer tick.Stop()
	for {
		_ = redis.NodeSeen(ctx, node, time.Now()) // the store's troubles are logged elsewhere
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
