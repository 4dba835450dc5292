package gate_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/store"
)

// busy is a daemon with 100 policies of 100 prefixes each, of which 10 apply to ann, who submits
// from home.
func busy(b testing.TB) (d *daemon, secret string) {
	d = newSite(b).daemon(b, func(o *gate.Options) { o.Log = hclog.NewNullLogger() })
	d.domain(nil)
	d.change("example.org", func(c *store.Change) error {
		for dept := range 10 {
			c.PutDepartment("example.org", &store.Department{Path: fmt.Sprint("dept", dept)})
			for p := range 10 {
				policy := access.Policy{
					ID: fmt.Sprintf("p%d-%d", dept, p), Type: access.Blacklist, Enabled: true,
					Scope: access.Scope{Departments: []access.ScopeDepartment{{Path: fmt.Sprint("dept", dept)}}},
				}
				for n := range 100 {
					policy.IPs = append(policy.IPs, fmt.Sprintf("10.%d.%d.0/24", 10*dept+p, 2*n))
				}
				c.PutPolicy("example.org", &store.Policy{Policy: policy})
			}
		}
		return nil
	})
	d.account("ann@example.org", func(a *store.Account) { a.Departments = []string{"dept7"} })
	return d, d.device("ann@example.org", "phone")
}

// The next command of a session that may go on costs no allocation.
func TestRepeatedPermitDoesNotAllocate(t *testing.T) {
	d, secret := busy(t)
	d.want(smtp("ann@example.org", secret, home), "allow ok")
	s := mail("ann@example.org", home, 1)
	if n := testing.AllocsPerRun(100, func() { d.Submission(s) }); n != 0 {
		t.Errorf("%v allocations for a request of a known connection", n)
	}
}

// Nor does one that is decided in full, of an account in a department.
func TestFullDecisionDoesNotAllocate(t *testing.T) {
	d, _ := busy(t)
	d.Site.NextPassdb = true
	s := mail("ann@example.org", home, 1)
	senders := []string{"", "ann@example.org"} // in turns: only the last permit is remembered
	if n := testing.AllocsPerRun(100, func() {
		s.Sender = senders[0]
		slices.Reverse(senders)
		if got := d.Submission(s); got.Outcome != access.Next {
			t.Error(end(got))
		}
	}); n != 0 {
		t.Errorf("%v allocations for a request of an unknown connection", n)
	}
}

// Nor does the question whether an account may use an address, which a message asks several times.
func TestSenderDoesNotAllocate(t *testing.T) {
	d, _ := busy(t)
	d.change("example.org", func(c *store.Change) error {
		c.PutDepartment("example.org", &store.Department{Path: "dept7", SendAs: []string{"emea@example.com"}})
		return nil
	})
	m := d.Submitter(mail("ann@example.org", home, 1))
	if n := testing.AllocsPerRun(100, func() {
		if a := m.Address("emea+x@example.com"); !a.Granted {
			t.Error("not granted")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSubmission(b *testing.B) {
	d, secret := busy(b)
	d.want(smtp("ann@example.org", secret, home), "allow ok")
	s := mail("ann@example.org", home, 1)
	b.Run("bound", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if got := d.Submission(s); got.Outcome != access.Allow {
				b.Fatal(end(got))
			}
		}
	})
	b.Run("in parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if got := d.Submission(s); got.Outcome != access.Allow {
					b.Error(end(got))
				}
			}
		})
	})
	b.Run("unknown", func(b *testing.B) {
		d.account("ann@example.org", nil)
		s := mail("nobody@example.org", home, 2)
		d.Site.NextPassdb = true
		b.ReportAllocs()
		for b.Loop() {
			if got := d.Submission(s); got.Outcome != access.Next {
				b.Fatal(end(got))
			}
		}
	})
	b.Run("in full", func(b *testing.B) { // a remembered permit is for another sender
		s := mail("nobody@example.org", home, 2)
		senders := []string{"", "nobody@example.org"}
		b.ReportAllocs()
		for b.Loop() {
			s.Sender = senders[0]
			slices.Reverse(senders)
			if got := d.Submission(s); got.Outcome != access.Next {
				b.Fatal(end(got))
			}
		}
	})
}

func BenchmarkSubmitter(b *testing.B) {
	d, secret := busy(b)
	d.want(smtp("ann@example.org", secret, home), "allow ok")
	b.ReportAllocs()
	for b.Loop() {
		if m := d.Submitter(mail("ann@example.org", home, 1)); m.Account == "" {
			b.Fatal("nobody")
		}
	}
}

func BenchmarkLogin(b *testing.B) {
	d, secret := busy(b)
	at := time.Now()
	for name, l := range map[string]*access.Login{"imap": imap("ann@example.org", secret, home), "smtp": smtp("ann@example.org", secret, home)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Time = at
				if got := d.Login(context.Background(), l); got.Outcome != access.Allow {
					b.Fatal(end(got))
				}
			}
		})
	}
}
