package opensessions_test

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/opensessions"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/livesessions"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/store"
)

// dovecot stands for a server: its open connections, and whether it answers. The real one is in
// internal/e2e.
type dovecot struct {
	mu   sync.Mutex
	open []doveadm.Connection
	away bool
}

func (d *dovecot) String() string { return "imap1" }

func (d *dovecot) Who(context.Context) ([]doveadm.Connection, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.away {
		return nil, errors.New("no answer")
	}
	return slices.Clone(d.open), nil
}

func (d *dovecot) KickSession(context.Context, string) (bool, error) { return false, nil }

func (d *dovecot) KickUser(_ context.Context, user string, ip netip.Addr) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	before := len(d.open)
	d.open = slices.DeleteFunc(d.open, func(c doveadm.Connection) bool { return c.User == user && c.IP == ip })
	return len(d.open) < before, nil
}

func (d *dovecot) users() (list []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.open {
		list = append(list, c.User)
	}
	return list
}

// admits is a judge that refuses nobody.
type admits struct{}

func (admits) Judge(*access.Session, *access.Rules, *access.Account) access.Decision {
	return access.Decision{Outcome: access.Allow}
}

func (admits) AccountOf(user string) string { return user }

// start returns a site with two domains, in each of which ann and bob have an open session.
func start(t *testing.T) (*admin.Admin, opensessions.Site, *dovecot) {
	t.Helper()
	a, red := admintest.New(t)
	domains := []string{"example.org", "example.net"}
	admintest.Populate(t, a, domains...)
	d := &dovecot{}
	live := livesessions.New(livesessions.Options{State: a.Store.State, Judge: admits{}, Records: red.Records, Log: hclog.NewNullLogger()}, d)
	for i, domain := range domains {
		for j, name := range []string{"ann", "bob"} {
			ip := netip.AddrFrom4([4]byte{203, 0, 113, byte(10*i + j)})
			d.open = append(d.open, doveadm.Connection{User: name + "@" + domain, Service: "imap", IP: ip})
			at := time.Now().Add(-time.Minute)
			live.Opened(&access.Session{
				Account: name + "@" + domain, Protocol: access.IMAP, Service: "imap", IP: ip, Credential: store.CredentialMailbox,
				ID: name + domain, Began: at, Verified: at,
			}, 0)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { live.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return a, opensessions.Site{Live: live}, d
}

func code(err error) string {
	if err == nil {
		return ""
	}
	return admin.ProblemOf(err).Code
}

// callers are one of each role that may reach something, all of example.org but admin and read.
func callers(a *admin.Admin) map[string]*admin.Request {
	return map[string]*admin.Request{
		"admin":  admintest.As(a, store.RoleAdmin, "", ""),
		"read":   admintest.As(a, store.RoleRead, "", ""),
		"login":  admintest.As(a, store.RoleLogin, "", ""),
		"domain": admintest.As(a, store.RoleDomain, "example.org", ""),
		"self":   admintest.As(a, store.RoleSelf, "example.org", "ann@example.org"),
	}
}

// Whoever asks sees the sessions of its reach, and only the site's roles see the server.
func TestList(t *testing.T) {
	a, site, d := start(t)
	ofDomain := func(r *admin.Request, name string) (*api.Sessions, error) {
		dom, err := r.Domain(name)
		if err != nil {
			return nil, err
		}
		return site.OfDomain(t.Context(), dom)
	}
	ofAccount := func(r *admin.Request, address string) (*api.Sessions, error) {
		acc, err := r.Account(address)
		if err != nil {
			return nil, err
		}
		return site.OfAccount(t.Context(), acc)
	}
	for name, r := range callers(a) {
		for _, c := range []struct {
			list func(*admin.Request, string) (*api.Sessions, error)
			of   string
			may  []string
			want []string
		}{
			{ofDomain, "example.org", []string{"admin", "read", "domain"}, []string{"ann@example.org", "bob@example.org"}},
			{ofDomain, "example.net", []string{"admin", "read"}, []string{"ann@example.net", "bob@example.net"}},
			{ofAccount, "ann@example.org", []string{"admin", "read", "domain", "self"}, []string{"ann@example.org"}},
			{ofAccount, "bob@example.org", []string{"admin", "read", "domain"}, []string{"bob@example.org"}},
			{ofAccount, "ann@example.net", []string{"admin", "read"}, []string{"ann@example.net"}},
		} {
			v, err := c.list(r, c.of)
			if !slices.Contains(c.may, name) {
				if got := code(err); got != "not_found" && got != "forbidden" {
					t.Errorf("%s lists %s: %v", name, c.of, err)
				}
				continue
			}
			if err != nil {
				t.Errorf("%s lists %s: %v", name, c.of, err)
				continue
			}
			var got []string
			for _, s := range v.Items {
				got = append(got, s.Account)
				if site := name == "admin" || name == "read"; (s.Node != "") != site {
					t.Errorf("%s sees the server %q", name, s.Node)
				}
				if s.Label != store.CredentialMailbox || s.Since.IsZero() || s.Protocol != "imap" {
					t.Errorf("%s sees %+v", name, s)
				}
			}
			if slices.Sort(got); !slices.Equal(got, c.want) {
				t.Errorf("%s lists of %s: %q, want %q", name, c.of, got, c.want)
			}
		}
	}
	d.mu.Lock()
	d.away = true
	d.mu.Unlock()
	if v, err := ofDomain(callers(a)["domain"], "example.org"); err != nil || v.Unreachable != 1 || len(v.Items) != 0 {
		t.Errorf("while Dovecot does not answer: %+v, %v", v, err)
	}
}

// A session ends for whom it belongs to, and nobody else's does.
func TestEnd(t *testing.T) {
	a, site, d := start(t)
	all, err := admintest.As(a, store.RoleAdmin, "", "").Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	list, err := site.OfDomain(t.Context(), all)
	if err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, s := range list.Items {
		ids[s.Account] = s.ID
	}
	for _, c := range []struct {
		name string
		r    *admin.Request
		id   string
		code string
	}{
		{"a reader", callers(a)["read"], ids["bob@example.org"], "forbidden"},
		{"a key for logins", callers(a)["login"], ids["bob@example.org"], "forbidden"},
		{"another domain", admintest.As(a, store.RoleDomain, "example.net", ""), ids["bob@example.org"], "not_found"},
		{"another user", callers(a)["self"], ids["bob@example.org"], "not_found"},
		{"an unknown id", callers(a)["admin"], "nothing", "not_found"},
	} {
		if _, _, err := site.End(t.Context(), c.r, c.id); code(err) != c.code {
			t.Errorf("%s: %v, want %s", c.name, err, c.code)
		}
	}
	dry := a.As(admin.Caller{Role: store.RoleAdmin}, admin.Options{DryRun: true})
	if s, ended, err := site.End(t.Context(), dry, ids["bob@example.org"]); err != nil || ended != nil || s.Account != "bob@example.org" {
		t.Errorf("a dry run: %+v, %+v, %v", s, ended, err)
	}
	if got := d.users(); len(got) != 4 {
		t.Fatalf("after refusals and a dry run there are only %q", got)
	}
	if _, ended, err := site.End(t.Context(), callers(a)["self"], ids["ann@example.org"]); err != nil || ended.Ended != 1 || ended.Failed != 0 {
		t.Errorf("her own: %+v, %v", ended, err)
	}
	if _, ended, err := site.End(t.Context(), callers(a)["domain"], ids["bob@example.org"]); err != nil || ended.Ended != 1 || ended.Failed != 0 {
		t.Errorf("of its domain: %+v, %v", ended, err)
	}
	if got := d.users(); !slices.Equal(got, []string{"ann@example.net", "bob@example.net"}) {
		t.Errorf("left are %q", got)
	}

	// A session that may be on a server that does not answer is not reported as ended.
	d.mu.Lock()
	d.away = true
	d.mu.Unlock()
	for name, named := range map[string]bool{"admin": true, "domain": false, "self": false} {
		_, _, err := site.End(t.Context(), callers(a)[name], ids["ann@example.org"])
		if code(err) != "server_unreachable" || strings.Contains(err.Error(), "imap1") != named {
			t.Errorf("%s, while the server does not answer: %v", name, err)
		}
	}
}

// Without a doveadm lists are refused by name, and changes count nothing.
func TestWithoutDoveadm(t *testing.T) {
	a, _, _ := start(t)
	var site opensessions.Site
	r := callers(a)["admin"]
	dom, err := r.Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := site.OfDomain(t.Context(), dom); code(err) != "no_doveadm" {
		t.Errorf("a list: %v", err)
	}
	if _, _, err := site.End(t.Context(), r, "x"); code(err) != "no_doveadm" {
		t.Errorf("an end: %v", err)
	}
	ending := site.Ending(r, "example.org", "")
	if got := ending.Settle(t.Context(), nil); got != nil {
		t.Errorf("a change: %+v", got)
	}
	ending.Settle(t.Context(), errors.New("refused"))
}
