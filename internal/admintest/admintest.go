// Package admintest makes sites for tests of what administrators do: a store on a private Redis
// server, without a daemon's listeners and without mail servers.
package admintest

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// New returns a site whose store is empty and ready. The next passdb verifies its mailbox passwords.
func New(t testing.TB) (*admin.Admin, *redisstore.Redis) {
	t.Helper()
	a, red := Join(t, redistest.Start(t), hclog.NewNullLogger())
	redistest.Ready(t, a.Store)
	return a, red
}

// Join returns a site on a Redis server that other sites may share. It does not wait for the store.
func Join(t testing.TB, server *redistest.Server, log hclog.Logger) (*admin.Admin, *redisstore.Redis) {
	t.Helper()
	st, red := redistest.NewStore(t, server.Options())
	st.Logger, st.Timeout = log, 20*time.Second
	redistest.Run(t, st)
	pepper, err := credential.CreatePepper(filepath.Join(t.TempDir(), "pepper"))
	if err != nil {
		t.Fatal(err)
	}
	return &admin.Admin{
		Store: st, Journal: red, Forget: red.Forget, Pepper: pepper, Hasher: credential.NewHasher(0), Log: log,
		Site: access.Site{NextPassdb: true},
	}, red
}

// As returns a request of a role; domain and account are those that the role is limited to.
func As(a *admin.Admin, role store.Role, domain, account string) *admin.Request {
	return a.As(admin.Caller{Role: role, Domain: domain, Account: account, Actor: store.Actor{Name: string(role)}}, admin.Options{})
}

// Populate creates domains with the accounts ann and bob.
func Populate(t testing.TB, a *admin.Admin, domains ...string) {
	t.Helper()
	root := As(a, store.RoleAdmin, "", "")
	for _, domain := range domains {
		if _, err := root.CreateDomain(t.Context(), &api.NewDomain{Domain: api.Domain{Name: domain}}, &api.Faults{}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"ann", "bob"} {
			account, err := root.Account(name + "@" + domain)
			if err != nil {
				t.Fatal(err)
			}
			empty := func(*api.Account, *api.Faults) (*api.Account, error) { return &api.Account{}, nil }
			if _, err := account.Put(t.Context(), empty); err != nil {
				t.Fatal(err)
			}
		}
	}
}
