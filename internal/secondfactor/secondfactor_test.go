package secondfactor_test

import (
	"context"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/secondfactor"
	"github.com/drawbridge/drawbridge/internal/store"
)

const ann = "ann@example.org"

var from = netip.MustParseAddr("203.0.113.9")

// two verifiers share a Redis, as two daemons do. Ann has an authenticator and a recovery code.
func two(t *testing.T) (v [2]*secondfactor.Verifier, secret []byte, recovery string) {
	t.Helper()
	server := redistest.Start(t)
	pepper, err := credential.CreatePepper(filepath.Join(t.TempDir(), "pepper"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range v {
		st, redis := redistest.NewStore(t, server.Options())
		redistest.Run(t, st)
		redistest.Ready(t, st)
		v[i] = &secondfactor.Verifier{Store: st, Memory: redis, Pepper: pepper}
	}
	secret, err = factor.NewSecret()
	if err != nil {
		t.Fatal(err)
	}
	if recovery, err = factor.NewRecoveryCode(); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	a := &store.Account{Address: ann, Factors: []store.Factor{
		{ID: "app", Kind: factor.TOTP, CreatedAt: now, ConfirmedAt: now, Data: v[0].Seal(ann, "app", secret)},
		{ID: "codes", Kind: factor.Recovery, CreatedAt: now, ConfirmedAt: now, Data: append(v[0].RecoveryHash(ann, recovery), v[0].RecoveryHash(ann, "aaaaaaaaaa")...)},
	}}
	err = v[0].Store.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutDomain(&store.Domain{Name: "example.org"})
		c.PutAccount(a)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the other daemon has it", func() bool { _, ok := v[1].Store.State.Account(ann); return ok })
	return v, secret, recovery
}

func verify(t *testing.T, v *secondfactor.Verifier, otp string) string {
	t.Helper()
	refusal, err := v.Verify(t.Context(), ann, otp, from)
	if err != nil {
		t.Fatal(err)
	}
	return refusal
}

// A code is accepted once on all daemons, and so is none of an earlier step.
func TestReplays(t *testing.T) {
	t.Parallel()
	v, secret, recovery := two(t)
	step := factor.Step(time.Now())
	if refusal := verify(t, v[0], factor.CodeAt(secret, step)); refusal != "" {
		t.Fatalf("the first time: %s", refusal)
	}
	for i := range v {
		if refusal := verify(t, v[i], factor.CodeAt(secret, step)); !strings.Contains(refusal, "used before") {
			t.Errorf("a replay at daemon %d: %q", i, refusal)
		}
		if refusal := verify(t, v[i], factor.CodeAt(secret, step-1)); refusal == "" {
			t.Errorf("a code of an earlier step at daemon %d", i)
		}
	}
	if refusal := verify(t, v[1], factor.CodeAt(secret, step+1)); refusal != "" {
		t.Errorf("a clock that is a step ahead: %s", refusal)
	}
	if refusal := verify(t, v[1], strings.ToUpper(recovery)); refusal != "" {
		t.Errorf("a recovery code: %s", refusal)
	}
	for i := range v {
		if verify(t, v[i], recovery) == "" {
			t.Errorf("a recovery code twice, at daemon %d", i)
		}
	}
}

// Of many guesses at the same moment on two daemons, ten are compared; then the right code is refused
// as well.
func TestGuesses(t *testing.T) {
	t.Parallel()
	v, secret, _ := two(t)
	refusals := make(chan string, 40)
	for i := range cap(refusals) {
		go func() {
			refusal, err := v[i%2].Verify(context.WithoutCancel(t.Context()), ann, "000000", from)
			if err != nil {
				refusal = err.Error()
			}
			refusals <- refusal
		}()
	}
	compared := 0
	for range cap(refusals) {
		if r := <-refusals; !strings.HasPrefix(r, "too many attempts") {
			compared++
		}
	}
	if compared > 10 {
		t.Errorf("%d guesses were compared", compared)
	}
	if refusal := verify(t, v[1], factor.CodeAt(secret, factor.Step(time.Now()))); !strings.HasPrefix(refusal, "too many attempts") {
		t.Errorf("the right code after too many guesses: %q", refusal)
	}
}

// Who knows the password and guesses codes does not keep the owner out at an address from which a factor
// was proved before; guesses from there have the same limits.
func TestGuessesElsewhere(t *testing.T) {
	t.Parallel()
	v, secret, recovery := two(t)
	step := factor.Step(time.Now())
	if refusal := verify(t, v[0], factor.CodeAt(secret, step)); refusal != "" {
		t.Fatalf("at home: %s", refusal)
	}
	at := func(addr, otp string) string {
		t.Helper()
		refusal, err := v[1].Verify(t.Context(), ann, otp, netip.MustParseAddr(addr))
		if err != nil {
			t.Fatal(err)
		}
		return refusal
	}
	const tooMany = "too many attempts"
	for i := range 12 {
		if refusal := at("198.51.100.7", "000000"); strings.HasPrefix(refusal, tooMany) != (i >= 10) {
			t.Errorf("guess %d: %q", i, refusal)
		}
	}
	if refusal := at("198.51.100.8", factor.CodeAt(secret, step+1)); !strings.HasPrefix(refusal, tooMany) {
		t.Errorf("a third address: %q", refusal)
	}
	if refusal := verify(t, v[1], factor.CodeAt(secret, step+1)); refusal != "" {
		t.Errorf("at home, after the guesses: %s", refusal)
	}
	for i := range 12 {
		if refusal := verify(t, v[0], "000000"); strings.HasPrefix(refusal, tooMany) != (i >= 10) {
			t.Errorf("guess %d at home: %q", i, refusal)
		}
	}
	if refusal := verify(t, v[1], recovery); !strings.HasPrefix(refusal, tooMany) {
		t.Errorf("at home, after guesses there: %q", refusal)
	}
}

// change changes the account of ann at one daemon, and waits until the other one has the change.
func change(t *testing.T, v [2]*secondfactor.Verifier, edit func(*store.Account)) {
	t.Helper()
	var next store.Account
	err := v[0].Store.Update(t.Context(), store.ShardOf("example.org"), store.Actor{Name: "test"}, false, func(c *store.Change) error {
		cur, _ := v[0].Store.State.Account(ann)
		next = *cur.Doc
		next.Factors = slices.Clone(next.Factors)
		edit(&next)
		c.PutAccount(&next)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the other daemon has it", func() bool {
		cur, _ := v[1].Store.State.Account(ann)
		return len(cur.Doc.Factors) == len(next.Factors)
	})
}

// A code that was sent opens its account once, and not after its factor was deleted. A copy of the
// store shows neither code nor secret.
func TestSentCode(t *testing.T) {
	t.Parallel()
	v, _, _ := two(t)
	var sent string
	for i := range v {
		v[i].Mail = func(_ context.Context, account, to, code string) error {
			if account != ann || to != "ann@elsewhere.example" {
				t.Errorf("sent to %s for %s", to, account)
			}
			sent = code
			return nil
		}
	}
	f := store.Factor{ID: "mail", Kind: factor.Mail, ConfirmedAt: time.Now(), Data: v[0].Seal(ann, "mail", []byte("ann@elsewhere.example"))}
	other := store.Factor{ID: "other", Kind: factor.Mail, ConfirmedAt: time.Now(), Data: v[0].Seal(ann, "other", []byte("ann@elsewhere.example"))}
	change(t, v, func(a *store.Account) { a.Factors = append(a.Factors, f, other) })
	if strings.Contains(string(f.Data), "elsewhere") {
		t.Error("the address is not sealed")
	}
	send := func() {
		t.Helper()
		if err := v[0].Send(t.Context(), ann, &f); err != nil {
			t.Fatal(err)
		}
	}
	for range 4 {
		send()
	}
	if refusal := verify(t, v[1], sent); refusal != "" {
		t.Errorf("the code at the other daemon: %s", refusal)
	}
	if verify(t, v[0], sent) == "" {
		t.Error("the code twice")
	}
	send()
	if err := v[0].Send(t.Context(), ann, &f); err == nil {
		t.Error("a sixth code within an hour was sent")
	}
	change(t, v, func(a *store.Account) {
		a.Factors = slices.DeleteFunc(a.Factors, func(o store.Factor) bool { return o.ID == f.ID })
	})
	for i := range v {
		if verify(t, v[i], sent) == "" {
			t.Errorf("daemon %d accepts a code that was sent to a factor that is deleted", i)
		}
	}
	f.Data[len(f.Data)-1] ^= 1
	if _, err := v[0].Open(ann, &f); err == nil {
		t.Error("altered data was opened")
	}
}
