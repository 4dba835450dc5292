package inspections_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/inspections"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
)

const domain = "example.org"

// nodes are daemons on one Redis.
type nodes struct {
	sites []*inspections.Site
	// found is what inspections find, made how often they were, and sent the notices.
	found []string
	made  int
	sent  []*notify.Notice
}

func start(t *testing.T, n int) *nodes {
	t.Helper()
	server, all := redistest.Start(t), &nodes{}
	for i := range n {
		st, redis := redistest.NewStore(t, server.Options())
		redistest.Run(t, st)
		redistest.Ready(t, st)
		s := &inspections.Site{
			State: st.State, Leases: redis, Reports: redis, Log: hclog.NewNullLogger(), Node: fmt.Sprint("mx", i), Holder: store.NewID(),
			Notify: func(n *notify.Notice) { all.sent = append(all.sent, n) },
		}
		s.Inspect = func(_ context.Context, of string, days int) (*api.Inspection, error) {
			all.made++
			in := &api.Inspection{Domain: of, Accounts: days}
			for _, id := range all.found {
				kind, _, _ := strings.Cut(id, ":")
				in.Items = append(in.Items, api.Finding{ID: id, Kind: kind, Detail: id})
			}
			return in, nil
		}
		all.sites = append(all.sites, s)
		if i > 0 {
			redistest.Eventually(t, "the other daemon has the domain", func() bool { _, ok := st.State.Domain(domain); return ok })
			continue
		}
		err := st.Update(t.Context(), store.ShardOf(domain), store.Actor{Name: "test"}, false, func(c *store.Change) error {
			c.PutDomain(&store.Domain{Name: domain, Inspection: &store.InspectionPolicy{Every: 24 * time.Hour, Days: 30}})
			c.PutDomain(&store.Domain{Name: "never.example"})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// Two daemons look every few minutes: a domain is inspected once in its time, by one of them; both show the
// report; and a notice is sent of what was not there before.
func TestOnceAndOfWhatIsNew(t *testing.T) {
	t.Parallel()
	all := start(t, 2)
	now := time.Now()
	pass := func(want int, found ...string) *api.InspectionReport {
		t.Helper()
		all.found, all.made, all.sent = found, 0, nil
		for range 3 {
			for _, s := range all.sites {
				s.Pass(t.Context(), now)
			}
			now = now.Add(10 * time.Minute)
		}
		if all.made != want {
			t.Errorf("%d inspections, want %d", all.made, want)
		}
		r, err := all.sites[1].Last(t.Context(), domain)
		if err != nil || r == nil {
			t.Fatalf("the report: %+v, %v", r, err)
		}
		return r
	}
	if r := pass(1, "a:1", "b:2"); r.Found != 2 || r.New != 2 || r.Accounts != 30 || r.Node != "mx0" || len(all.sent) != 1 {
		t.Errorf("the first report: %+v, %d notices", r, len(all.sent))
	}
	n := all.sent[0]
	if n.Event != "inspection" || n.Domain != domain || !slices.Equal(n.To, []string{"postmaster@" + domain}) || !strings.Contains(n.Subject, "2 new findings") || !strings.Contains(n.Text, "- a:1\n- b:2\n") {
		t.Errorf("the notice: %+v", n)
	}
	pass(0, "a:1", "b:2", "c:3") // not due yet
	now = now.Add(24 * time.Hour)
	r := pass(1, "a:1", "b:2", "c:3")
	if r.Found != 3 || r.New != 1 || r.Items[0].ID != "c:3" || !r.Items[0].New || r.Items[1].New || len(all.sent) != 1 {
		t.Errorf("with one more: %+v, %d notices", r, len(all.sent))
	}
	now = now.Add(24 * time.Hour)
	if r := pass(1, "a:1", "b:2"); r.New != 0 || len(all.sent) != 0 {
		t.Errorf("without anything new: %+v, %d notices", r, len(all.sent))
	}
	// What cannot be read is new, and what was found before is not new when it can be read again.
	now = now.Add(24 * time.Hour)
	if r := pass(1, "a:1", "forwards_unknown:x"); r.New != 1 {
		t.Errorf("forwards that cannot be read: %+v", r)
	}
	now = now.Add(24 * time.Hour)
	if r := pass(1, "a:1", "b:2"); r.New != 0 {
		t.Errorf("read again: %+v", r)
	}
}

// A report has at most 1000 findings, the new ones first.
func TestReportsAreBounded(t *testing.T) {
	t.Parallel()
	all := start(t, 1)
	now := time.Now()
	for i := range 1500 {
		all.found = append(all.found, fmt.Sprintf("a:%04d", i))
	}
	all.sites[0].Pass(t.Context(), now)
	all.found = append(all.found, "z:new")
	all.sites[0].Pass(t.Context(), now.Add(24*time.Hour))
	r, err := all.sites[0].Last(t.Context(), domain)
	if err != nil || r.Found != 1501 || r.New != 1 || len(r.Items) != 1000 || r.Items[0].ID != "z:new" {
		t.Fatalf("%d findings, %d new, %d listed, %v", r.Found, r.New, len(r.Items), err)
	}
	if first := all.sent[0]; strings.Count(first.Text, "\n- ") != 50 || !strings.Contains(first.Text, "and 1450 more") {
		t.Errorf("the notice:\n%s", first.Text)
	}
}

// While a daemon inspects, another does not, however long it takes; when it dies, the other one does once
// the lease has ended.
func TestAnotherDaemonTakesOver(t *testing.T) {
	t.Parallel()
	all := start(t, 2)
	first, second := all.sites[0], all.sites[1]
	first.Leased, second.Leased = 15*time.Second, 15*time.Second
	leases := make(chan bool, 100)
	first.Leases = mortal{first.Leases, leases}
	first.Inspect = func(ctx context.Context, _ string, _ int) (*api.Inspection, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	ctx, die := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { first.Pass(ctx, time.Now()); close(done) }()
	now := time.Now()
	pass := func() {
		now = now.Add(time.Minute) // as it looks again later
		second.Pass(t.Context(), now)
	}
	for range 5 { // the first lease, and longer than it lasts
		if !<-leases {
			t.Fatal("the lease is lost")
		}
		pass()
	}
	if all.made != 0 {
		t.Fatal("it was inspected although the first daemon does")
	}
	die()
	<-done
	redistest.Eventually(t, "the second daemon inspects", func() bool { pass(); return all.made == 1 })
	if r, err := second.Last(t.Context(), domain); err != nil || r == nil || r.Node != "mx1" {
		t.Errorf("the report: %+v, %v", r, err)
	}
}

// mortal is what gives leases to a daemon that dies: it gives no lease back.
type mortal struct {
	inspections.Leases
	leases chan<- bool
}

func (m mortal) Lease(ctx context.Context, domain, name, holder string, keep time.Duration) (bool, error) {
	mine, err := m.Leases.Lease(ctx, domain, name, holder, keep)
	m.leases <- mine
	return mine, err
}

func (mortal) TakeKept(context.Context, string, string, []byte) ([]byte, error) { return nil, nil }
