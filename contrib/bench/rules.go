package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/embedded"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// The size of the domain that decisions are measured in.
const (
	accounts    = 1000
	policies    = 100
	prefixes    = 10_000
	departments = 20
)

func account(i int) string { return fmt.Sprintf("user%d@example.org", i) }

func department(i int) string { return fmt.Sprintf("department%d", i%departments) }

// domainPolicies are blacklists of 100 prefixes each, half of them for all members, the others for
// one department each.
func domainPolicies() []access.Policy {
	list := make([]access.Policy, policies)
	for i := range list {
		p := access.Policy{
			ID: fmt.Sprintf("p%d", i), Name: fmt.Sprintf("policy %d", i), Type: access.Blacklist, Enabled: true, Mode: access.Enforce,
			Clients: []access.ClientType{access.ClientThirdParty},
		}
		if i%2 == 0 {
			p.Scope.All = true
		} else {
			p.Scope.Departments = []access.ScopeDepartment{{Path: department(i), Sub: true}}
		}
		for k := range prefixes / policies {
			p.IPs = append(p.IPs, fmt.Sprintf("10.%d.%d.0/24", i, k*2))
		}
		list[i] = p
	}
	return list
}

type noAsker struct{}

func (noAsker) Throttled() bool { return false }
func (noAsker) Mailbox() bool   { return false }

// benchDecision measures the engine alone, without trace.
func benchDecision(context.Context) error {
	set := access.Settings{Policies: domainPolicies()}
	for i := range departments {
		set.Departments = append(set.Departments, department(i))
	}
	rules := access.Compile(&set)
	q := &access.Query{
		Site: access.Site{NextPassdb: true}, Rules: rules, Client: access.ClientThirdParty,
		Login:  &access.Login{Protocol: access.IMAP, IP: netip.MustParseAddr("203.0.113.9")},
		Secret: access.Secret{State: access.SecretLive, CredentialID: "x"},
	}
	records := make([]access.Account, accounts)
	names := make([]string, accounts)
	for i := range records {
		records[i].Departments, names[i] = []string{department(i)}, account(i)
	}
	var times []float64
	var allocs int64
	for range rounds {
		r := testing.Benchmark(func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				q.Address, q.Account = names[i%accounts], &records[i%accounts]
				if d := access.Decide(q, noAsker{}, false); d.Outcome != access.Allow {
					b.Fatalf("%+v", d)
				}
			}
		})
		times, allocs = append(times, float64(r.NsPerOp())), max(allocs, r.AllocsPerOp())
	}
	line(fmt.Sprintf("decision alone (%d accounts, %d policies, %d prefixes)", accounts, policies, prefixes),
		fmt.Sprintf("%.0f ns, %d allocations", median(times), allocs), "≤ 1000 ns, 0 allocations")
	return nil
}

// memory is a store's marker that forgets.
type memory struct{ id string }

func (m *memory) StoreID() (string, error)   { return m.id, nil }
func (m *memory) SetStoreID(id string) error { m.id = id; return nil }

// newGate returns a gate over a private redis-server, with the rules of the measured size, and what
// ends both.
func newGate(ctx context.Context) (*gate.Gate, func(), error) {
	dir, err := os.MkdirTemp("", "db-bench")
	if err != nil {
		return nil, nil, err
	}
	server, err := embedded.Start(ctx, embedded.Options{Dir: dir + "/redis", Log: hclog.NewNullLogger()})
	if err != nil {
		return nil, nil, err
	}
	redis := redisstore.Open(redisstore.Options{Addrs: []string{server.URL()[len("unix://"):]}})
	ctx, cancel := context.WithCancel(ctx)
	end := func() { //nolint:contextcheck // ctx has ended by then
		cancel()
		_ = redis.Close()
		_ = server.Stop(context.Background())
		_ = os.RemoveAll(dir)
	}
	pepper, err := credential.CreatePepper(dir + "/pepper")
	if err != nil {
		end()
		return nil, nil, err
	}
	st := &store.Store{Log: redis, Upkeep: redis, State: store.NewState(), Logger: hclog.NewNullLogger(), Marker: &memory{}}
	go st.Run(ctx)
	for ok := false; !ok; ok, _ = st.State.Ready() {
		time.Sleep(time.Millisecond)
	}
	err = st.Update(ctx, store.ShardOf("example.org"), store.Actor{Name: "bench"}, false, func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: "example.org"})
		for i := range departments {
			c.PutDepartment("example.org", &store.Department{Path: department(i)})
		}
		for _, p := range domainPolicies() {
			c.PutPolicy("example.org", &store.Policy{Policy: p})
		}
		for i := range accounts {
			c.PutAccount(&store.Account{Address: account(i), Departments: []string{department(i)}})
		}
		return nil
	})
	if err != nil {
		end()
		return nil, nil, err
	}
	g := gate.New(gate.Options{
		Store: st, Journal: redis, Pepper: pepper, Hasher: credential.NewHasher(0), Log: hclog.NewNullLogger(),
		Site: access.Site{NextPassdb: true}, MaxStaleness: time.Hour,
		Throttle: throttle.Limits{PerAddress: 20, PerAccount: 10, Window: 15 * time.Minute},
	})
	go g.Run(ctx)
	return g, end, nil
}
