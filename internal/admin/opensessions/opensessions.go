// Package opensessions has the operations of administrators on open sessions of Dovecot: list them,
// end one, and wait until a change has ended sessions.
//
// Role domain sees the sessions of its domain, and not which of the site's servers have them.
package opensessions

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/livesessions"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Site has the open sessions of the site's Dovecots. Without a doveadm (setting sessions.doveadm),
// lists are refused with 409 no_doveadm.
type Site struct {
	Live *livesessions.Sessions // nil if no doveadm is known
}

// Ending counts the open sessions that end because of a change that follows, in a domain or, unless
// account is "", of an account. [Ending.Settle] must be called.
type Ending struct{ change *livesessions.Change }

// Ending begins to count, before the change is made. Of a dry run, and without a doveadm, it counts
// nothing, and the result is empty.
func (s Site) Ending(r *admin.Request, domain, account string) Ending {
	if s.Live == nil || r.DryRun {
		return Ending{}
	}
	return Ending{s.Live.Expect(domain, account)}
}

// Settle waits, for a bounded time, until the sessions have ended that the change refuses, and returns
// how many ended and how many could not be; nil if there were none. After a change that failed with
// an error it only stops counting.
func (e Ending) Settle(ctx context.Context, failed error) *api.SessionsEnded {
	switch {
	case e.change == nil:
		return nil
	case failed != nil:
		e.change.Forget()
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
	return api.Conflict("no_doveadm", "open sessions cannot be listed without doveadm: set sessions.doveadm")
}

// errUnreachable refuses to end a session that may be on a server that does not answer. Only roles of
// the site see which servers those are.
func errUnreachable(r *admin.Request, servers []string) error {
	names := "a Dovecot"
	if seesServers(r) {
		names = strings.Join(servers, ", ")
	}
	return api.Unavailable("server_unreachable", "no such session is known, but %s did not answer: it may be there; try again later", names)
}

// seesServers reports whether the caller sees which of the site's servers has a session.
func seesServers(r *admin.Request) bool {
	return r.Caller.Role != store.RoleDomain && r.Caller.Role != store.RoleSelf
}

// OfDomain returns the open sessions of a domain, and the Dovecots that did not answer. Role domain
// does not see which server has them.
func (s Site) OfDomain(ctx context.Context, d *admin.Domain) (*api.Sessions, error) {
	return s.list(ctx, d, "")
}

// OfAccount returns the open sessions of an account that the caller reaches, and the Dovecots that
// did not answer.
func (s Site) OfAccount(ctx context.Context, a *admin.Account) (*api.Sessions, error) {
	return s.list(ctx, a.Domain, a.Address())
}

func (s Site) list(ctx context.Context, d *admin.Domain, account string) (*api.Sessions, error) {
	if s.Live == nil {
		return nil, errNoDoveadm()
	}
	list, unreachable := s.Live.List(ctx, d.Name(), account)
	v := &api.Sessions{Items: make([]api.Session, len(list)), Unreachable: len(unreachable)}
	for i := range list {
		v.Items[i] = view(d.Request, &list[i])
	}
	return v, nil
}

// view returns an open session as the caller sees it. Where it may be of several logins, the label
// names each of their devices.
func view(r *admin.Request, o *livesessions.Open) api.Session {
	v := api.Session{ID: o.ID, Account: o.Account, Protocol: o.Protocol.String(), IP: o.IP, Node: o.Node}
	if !seesServers(r) {
		v.Node = ""
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
		if label == store.CredentialUnverified {
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

// EndAll ends all open sessions of an account, also those that the rules permit, and returns how many.
func (s Site) EndAll(ctx context.Context, a *admin.Account) (ended int, err error) {
	list, err := s.OfAccount(ctx, a)
	if err != nil {
		return 0, err
	}
	for i := range list.Items {
		if _, o, err := s.End(ctx, a.Request, list.Items[i].ID); err == nil && o != nil {
			ended += o.Ended
		}
	}
	return ended, nil
}

// End ends an open session that the caller reaches, and those that Dovecot cannot distinguish from
// it: for role self, one of its account. A dry run returns the session alone.
func (s Site) End(ctx context.Context, r *admin.Request, id string) (*api.Session, *api.SessionsEnded, error) {
	if err := r.Caller.May(admin.ForDomain | admin.ForSelf); err != nil {
		return nil, nil, err
	}
	if s.Live == nil {
		return nil, nil, errNoDoveadm()
	}
	list, unreachable := s.Live.List(ctx, r.Caller.Domain, r.Caller.Account) // those of the caller
	at := slices.IndexFunc(list, func(o livesessions.Open) bool { return o.ID == id })
	switch {
	case at < 0 && len(unreachable) > 0:
		return nil, nil, errUnreachable(r, unreachable)
	case at < 0:
		return nil, nil, api.NotFound("session")
	}
	open := list[at]
	a, err := r.Account(open.Account)
	if err != nil {
		return nil, nil, api.NotFound("session")
	}
	v := view(r, &open)
	err = a.ChangeOwn(ctx, func(ch *store.Change) error {
		admin.Describe(ch, "session.end", a.Name(), open.Account)
		ch.Audit.Note = fmt.Sprintf("%s from %s", open.Protocol, open.IP)
		ch.AuditOnly()
		return nil
	})
	if err != nil || r.DryRun {
		return &v, nil, err
	}
	o := s.Live.End(ctx, []livesessions.Open{open})
	return &v, &api.SessionsEnded{Ended: o.Ended, Failed: o.Failed}, nil
}
