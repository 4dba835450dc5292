package factors_test

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/admin/factors"
	"github.com/drawbridge/drawbridge/internal/admintest"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/secondfactor"
	"github.com/drawbridge/drawbridge/internal/store"
)

const ann = "ann@example.org"

type site struct {
	*testing.T
	a    *admin.Admin
	site factors.Site
	sent map[string]string // codes by address
}

func start(t *testing.T) *site {
	t.Helper()
	a, red := admintest.New(t)
	admintest.Populate(t, a, "example.org")
	s := &site{T: t, a: a, sent: map[string]string{}}
	s.site = factors.Site{Verifier: &secondfactor.Verifier{
		Store: a.Store, Memory: red, Pepper: a.Pepper,
		Mail: func(_ context.Context, _, to, code string) error { s.sent[to] = code; return nil },
	}}
	return s
}

// owner are ann's factors as she changes them, with a second factor proven so long ago; 0 for never.
func (s *site) owner(proven time.Duration) *factors.Owned {
	s.Helper()
	at := time.Time{}
	if proven > 0 {
		at = time.Now().Add(-proven)
	}
	return s.of(s.a.As(admin.Owner(ann, netip.Addr{}, at), admin.Options{}))
}

func (s *site) helpdesk() *factors.Owned {
	return s.of(admintest.As(s.a, store.RoleDomain, "example.org", ""))
}

func (s *site) of(r *admin.Request) *factors.Owned {
	s.Helper()
	account, err := r.Account(ann)
	if err != nil {
		s.Fatal(err)
	}
	return s.site.Of(account)
}

func (s *site) list() []api.Factor {
	s.Helper()
	list, err := s.helpdesk().List()
	if err != nil {
		s.Fatal(err)
	}
	return list.Items
}

func (s *site) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *site) refused(what, code string, err error) {
	s.Helper()
	if p := admin.ProblemOf(err); err == nil || p.Code != code {
		s.Errorf("%s: %v, want %s", what, err, code)
	}
}

// A factor counts once its owner has shown a code of it. The first one ends what was begun before it, and then
// whoever changes factors has proven one.
func TestTheFirstFactor(t *testing.T) {
	t.Parallel()
	s := start(t)
	ctx := t.Context()
	begun, err := s.owner(0).CreateTOTP(ctx, &api.NewFactor{Label: "begun by somebody else"}, &api.Faults{})
	s.must(err)
	if len(begun.View.Secret) == 0 || !begun.View.Pending {
		t.Errorf("a new factor: %+v", begun.View.Factor)
	}
	_, err = s.owner(0).CreateRecoveryCodes(ctx)
	s.refused("recovery codes without a factor", "no_second_factor", err)
	_, err = s.owner(0).Confirm(ctx, begun.View.ID, &api.FactorProof{Code: "000000x"})
	if err == nil {
		t.Error("a wrong code confirms")
	}
	mail, err := s.owner(0).CreateMail(ctx, &api.NewFactor{Label: "home", Address: "ann@home.example"}, &api.Faults{})
	s.must(err)
	_, err = s.owner(0).Confirm(ctx, mail.View.ID, &api.FactorProof{Code: s.sent["ann@home.example"]})
	s.must(err)
	if list := s.list(); len(list) != 1 || list[0].ID != mail.View.ID || list[0].Pending || list[0].To != "a***@home.example" {
		t.Errorf("after the first one: %+v", list)
	}
	_, err = s.owner(0).CreateTOTP(ctx, &api.NewFactor{Label: "phone"}, &api.Faults{})
	s.refused("another one without a proof", "second_factor_required", err)
	_, err = s.owner(0).Delete(ctx, mail.View.ID)
	s.refused("its deletion without a proof", "second_factor_required", err)
	_, err = s.owner(time.Nanosecond).CreateTOTP(ctx, &api.NewFactor{Label: "phone"}, &api.Faults{})
	s.must(err)
	codes, err := s.owner(time.Nanosecond).CreateRecoveryCodes(ctx)
	s.must(err)
	if len(codes.View.Codes) == 0 {
		t.Error("no recovery codes")
	}
	s.must(s.owner(0).Prove(ctx, codes.View.Codes[0]))
	if err := s.owner(0).Prove(ctx, codes.View.Codes[0]); err == nil {
		t.Error("a recovery code proves twice")
	}
	_, err = s.owner(time.Nanosecond).Delete(ctx, mail.View.ID)
	s.must(err)
}

// Whoever is responsible for the domain resets the factors of a user who has lost them; users do not; and an
// address of the mailbox's own domain is no second factor.
func TestReset(t *testing.T) {
	t.Parallel()
	s := start(t)
	ctx := t.Context()
	if _, err := s.owner(0).CreateMail(ctx, &api.NewFactor{Address: "other@example.org"}, &api.Faults{}); err == nil {
		t.Error("a mailbox of the domain is a second factor")
	}
	_, err := s.helpdesk().CreateMail(ctx, &api.NewFactor{Address: "ann@home.example"}, &api.Faults{})
	s.must(err)
	if list := s.list(); len(list) != 1 || list[0].Pending {
		t.Errorf("one that an administrator vouches for: %+v", list)
	}
	_, err = s.owner(time.Nanosecond).Reset(ctx)
	s.refused("a reset by the owner", "forbidden", err)
	_, err = s.of(admintest.As(s.a, store.RoleRead, "", "")).Reset(ctx)
	s.refused("a reset by role read", "forbidden", err)
	gone, err := s.helpdesk().Reset(ctx)
	s.must(err)
	if len(gone.View.Items) != 1 || len(s.list()) != 0 {
		t.Errorf("after the reset: %+v, %+v", gone.View, s.list())
	}
}
