package admin

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/livesessions"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Ending counts the open sessions that end because of a change that follows, in a domain or, unless
// account is "", of an account. One of its methods must be called.
type Ending struct{ change *livesessions.Change }

// Ending begins to count.
func (r *Request) Ending(domain, account string) Ending {
	if r.Live == nil || r.DryRun {
		return Ending{}
	}
	return Ending{r.Live.Expect(domain, account)}
}

// Forget is for a change that was not made.
func (e Ending) Forget() {
	if e.change != nil {
		e.change.Forget()
	}
}

// Settle waits, for a bounded time, until the sessions have ended. nil means that there were none.
func (e Ending) Settle(ctx context.Context) *api.SessionsEnded {
	if e.change == nil {
		return nil
	}
	return viewEnded(e.change.Settle(ctx))
}

func viewEnded(o livesessions.Outcome) *api.SessionsEnded {
	if o == (livesessions.Outcome{}) {
		return nil
	}
	return &api.SessionsEnded{Ended: o.Ended, Failed: o.Failed, Unreachable: o.Unreachable}
}

// errNoDoveadm refuses where open sessions are not known.
func errNoDoveadm() error {
	return api.Conflict("no_doveadm", "the daemon knows no doveadm, so open sessions are not known: set sessions.doveadm")
}

// Sessions returns the open sessions of the domain.
func (d *Domain) Sessions(ctx context.Context) (*api.Sessions, error) { return d.sessions(ctx, "") }

// Sessions returns the open sessions of the account.
func (a *Account) Sessions(ctx context.Context) (*api.Sessions, error) {
	return a.sessions(ctx, a.address)
}

func (d *Domain) sessions(ctx context.Context, account string) (*api.Sessions, error) {
	if d.Live == nil {
		return nil, errNoDoveadm()
	}
	list, unreachable := d.Live.List(ctx, d.name, account)
	s := &api.Sessions{Items: make([]api.Session, len(list)), Unreachable: unreachable}
	for i := range list {
		s.Items[i] = d.viewSession(&list[i])
	}
	return s, nil
}

// viewSession shows an open session. Where it may be of several logins, each of their devices is
// named.
func (r *Request) viewSession(o *livesessions.Open) api.Session {
	v := api.Session{ID: o.ID, Account: o.Account, Protocol: o.Protocol.String(), IP: o.IP, Node: o.Node}
	if r.Caller.Role == store.RoleDomain || r.Caller.Role == store.RoleSelf {
		v.Node = "" // which servers there are is the site's business
	}
	var labels []string
	var began time.Time
	for i, l := range o.Logins {
		label := l.Credential
		if rec, ok := r.Store.State.Account(l.Account); ok {
			for _, p := range rec.Doc.Secrets {
				if p.ID == l.Credential {
					label = p.Label
				}
			}
		}
		switch label {
		case store.CredentialUnverified:
			label = store.CredentialMailbox
		}
		if !slices.Contains(labels, label) {
			labels = append(labels, label)
		}
		if l.Began.After(began) {
			began = l.Began
		}
		if i == 0 {
			v.Client, v.CredentialID = l.Client, l.Credential
		} else if l.Client != v.Client {
			v.Client = ""
		}
	}
	if len(labels) > 1 || v.CredentialID == store.CredentialUnverified {
		v.CredentialID = ""
	}
	v.Label, v.Since = strings.Join(labels, " or "), began
	return v
}

// EndSession ends an open session that the caller reaches, and the others that the mail server does
// not tell apart from it.
func (r *Request) EndSession(ctx context.Context, id string) (*api.Session, *api.SessionsEnded, error) {
	if err := r.Caller.May(ForDomain); err != nil {
		return nil, nil, err
	}
	if r.Live == nil {
		return nil, nil, errNoDoveadm()
	}
	list, _ := r.Live.List(ctx, r.Caller.Tenant(), "") // of role domain, its domain
	at := slices.IndexFunc(list, func(o livesessions.Open) bool { return o.ID == id })
	if at < 0 {
		return nil, nil, api.NotFound("session")
	}
	open := list[at]
	view, domain := r.viewSession(&open), open.Domain
	if !r.managed(domain) {
		return nil, nil, api.NotFound("session")
	}
	err := r.change(ctx, ForDomain, store.ShardOf(domain), func(ch *store.Change) error {
		Describe(ch, "session.end", domain, open.Account)
		ch.Audit.Note = fmt.Sprintf("%s from %s", open.Protocol, open.IP)
		ch.AuditOnly()
		return nil
	})
	if err != nil || r.DryRun {
		return &view, nil, err
	}
	o := r.Live.End(ctx, []livesessions.Open{open})
	return &view, &api.SessionsEnded{Ended: o.Ended, Failed: o.Failed}, nil
}
