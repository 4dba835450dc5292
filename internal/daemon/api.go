package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/admin/mail"
	"github.com/drawbridge/drawbridge/internal/admin/opensessions"
	"github.com/drawbridge/drawbridge/internal/admin/recall"
	"github.com/drawbridge/drawbridge/internal/adminapi"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/content"
	"github.com/drawbridge/drawbridge/internal/inspections"
	"github.com/drawbridge/drawbridge/internal/listen"
	"github.com/drawbridge/drawbridge/internal/loginapi"
	"github.com/drawbridge/drawbridge/internal/metrics"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
	"github.com/drawbridge/drawbridge/internal/web"
)

// apiServer returns a function that creates the server of an API listener.
func apiServer(p *parts, a *admin.Admin) (func() *http.Server, error) {
	h := &adminapi.API{
		Admin: a,
		Open:  opensessions.Site{Live: p.live}, Factors: factors.Site{Verifier: p.factors},
		Mail:       mailSite(p),
		Login:      loginapi.Login(timedLogins{p.gate, p.metrics.Took(metrics.LoginSeconds, "api")}),
		TestPolicy: testPolicy,
		Withdraw:   withdrawer(p),
		EndPages:   func(ctx context.Context, account string) error { return web.Account.EndSessions(ctx, p.redis, account) },
		Available:  func() bool { return p.gate.Available(time.Now()) },
		MilterNeeded: func() bool {
			n := p.gate.Needs()
			return n.Headers || n.Body
		},
		Distributed: func() int { return p.gate.DistributedGuessing(time.Now()) },
		PeerUID: func(c net.Conn) (uint32, bool) {
			peer, err := listen.PeerCred(c)
			return peer.UID, err == nil
		},
		Metrics: p.metrics,
	}
	if p.keeper != nil {
		h.HoldUsage = p.keeper.Usage
	}
	if err := p.metrics.Watch(a.VersionText(), a.Store, admin.Trouble, h.HoldUsage); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	handler, err := h.Handler()
	if err != nil {
		return nil, err
	}
	handler = withApproval(handler, p.links, a, p.log.Named("approval"))
	return func() *http.Server {
		s := httpServer(handler, p.log)
		s.ConnContext = h.ConnContext
		return s
	}, nil
}

// withdrawer returns what deletes messages that a credential has sent.
func withdrawer(p *parts) func(context.Context, *admin.Domain, *api.Withdrawal, *api.Faults) (*api.Withdrawn, error) {
	return func(ctx context.Context, d *admin.Domain, in *api.Withdrawal, f *api.Faults) (*api.Withdrawn, error) {
		return recall.Withdraw(ctx, p.withdraw, d, in, f)
	}
}

func testPolicy(d *admin.Domain, id string, in *api.PolicyTest, f *api.Faults) (*api.PolicyTested, error) {
	return d.TestPolicy(id, in, loginapi.Hypothetical(in.Login, f), f)
}

// newAdmin returns the administrators' operations, for the API and for the pages.
func newAdmin(p *parts) *admin.Admin {
	a := &admin.Admin{
		Store: p.store, Journal: p.redis, Forget: forget(p.redis), Pepper: p.pepper, Hasher: p.hasher, Log: p.log.Named("api"),
		Site: p.gate.Site, DefaultDomain: p.cfg.Login.DefaultDomain, Services: p.cfg.Login.Services, Version: p.version,
		Explain: p.gate.Explain, ReadMessages: p.redis.Messages,
		Guard:   guard.Limits{Percent: p.cfg.Guard.LockedOutPercent, ActiveWithin: p.cfg.Guard.ActiveWithin},
		Regions: p.regions, Networks: p.networks, Nodes: p.redis.Nodes,
		Throttled: func(now time.Time) api.Throttle { return viewThrottle(p.gate.HeldBack(now)) }, Lift: p.gate.Lift,
		ExportLogins:   exportLogins(p.redis),
		Learn:          p.watcher.Confirm,
		FindForwards:   forwardsSite(p.cfg, p.store.State),
		LastInspection: (&inspections.Site{Reports: p.redis}).Last,
		VerifyAudit:    p.redis.VerifyAudit, AuditEntries: p.redis.AuditEntries, AuditEntry: p.redis.AuditEntry,
	}
	if p.live != nil {
		a.WouldEnd = p.live.WouldEnd
	}
	return a
}

// forget removes what is stored of deleted accounts beside their documents. Whoever is logged in to
// the users' page must not be so as the next account of the same name.
func forget(redis *redisstore.Redis) func(ctx context.Context, domain string, accounts []string) error {
	return func(ctx context.Context, domain string, accounts []string) error {
		var faults []error
		for _, a := range accounts {
			faults = append(faults, web.Account.EndSessions(ctx, redis, a))
		}
		return errors.Join(append(faults, redis.Forget(ctx, domain, accounts))...)
	}
}

func mailSite(p *parts) mail.Site {
	return mail.Site{Explain: p.gate.ExplainMail, PreviewLimit: p.gate.PreviewLimit, Content: content.Of}
}
