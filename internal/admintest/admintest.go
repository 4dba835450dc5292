// Package admintest makes sites for tests of what administrators do: a store on a private Redis
// server, without a daemon's listeners and without mail servers.
package admintest

import (
	"fmt"
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

// Crowd makes the domain example.org with so many accounts, user000000@example.org and on, and returns
// a request of this machine's root, who may create keys of every role.
func Crowd(t testing.TB, a *admin.Admin, accounts int) *admin.Request {
	t.Helper()
	root := a.As(admin.Caller{Role: store.RoleAdmin, Local: true, Actor: store.Actor{Name: "root"}}, admin.Options{})
	if _, err := root.CreateDomain(t.Context(), &api.NewDomain{Domain: api.Domain{Name: "example.org"}}, &api.Faults{}); err != nil {
		t.Fatal(err)
	}
	d, err := root.Domain("example.org")
	if err != nil {
		t.Fatal(err)
	}
	for first := 0; first < accounts; first += admin.Chunk {
		err := d.Change(t.Context(), func(ch *store.Change) error {
			admin.Describe(ch, "bench", "example.org", "example.org")
			for i := first; i < min(first+admin.Chunk, accounts); i++ {
				ch.PutAccount(admin.NewAccount(fmt.Sprintf("user%06d@example.org", i), ch))
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}
