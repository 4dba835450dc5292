// Package secondfactor verifies the second factors of accounts, for logins and for people who are
// about to change something.
//
//	refusal, err := v.Verify(ctx, "ann@example.org", "492039", from)
//
// The secrets are documents of the account, sealed with the pepper, so that a copy of the store is
// not enough to make codes. What has to happen once on all daemons, whichever verifies first, lies in
// Redis beside them: the last time-based step that was accepted, codes that were sent, challenges of
// passkeys, and counters of attempts (contrib/adr/0017-second-factors.md).
//
// # Limits of guessing
//
// Attempts are counted before anything is compared, so that attempts at the same moment on several
// daemons count, too; a success is taken back. An account has 10 in a quarter of an hour and 40 a day,
// an address (IPv4, or IPv6 /64) 30 in a quarter of an hour. An address from which a factor of the
// account was proved within 30 days has those of the account for itself: who guesses elsewhere does not
// keep its owner out there.
//
// # Diagnostics
//
// A refusal is a text for the operator. An error means that the answer is not known, because Redis or
// the pepper is: the factor counts as not given.
package secondfactor

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/passkey"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// Memory is what all daemons remember for a short time, as *redisstore.Redis does.
type Memory interface {
	// Count adds to a counter and returns its value; adding 0 reads a counter, or a number that is kept.
	Count(ctx context.Context, domain, name string, by int, window time.Duration) (int, error)
	// Advance remembers a number if it is larger than the one before, and reports whether it was.
	Advance(ctx context.Context, domain, name string, to int64, keep time.Duration) (bool, error)
	Keep(ctx context.Context, domain, name string, value []byte, keep time.Duration) error
	// TakeKept returns and forgets a value; nil if it is not the one that is wanted, nil for any.
	TakeKept(ctx context.Context, domain, name string, want []byte) ([]byte, error)
}

// Verifier verifies second factors. It is safe for concurrent use.
type Verifier struct {
	Store    *store.Store
	Memory   Memory
	Pepper   *credential.Pepper
	Passkeys *passkey.Party // nil: this daemon takes none
	// Mail and SMS send a code; nil for no way to send it.
	Mail func(ctx context.Context, account, to, code string) error
	SMS  func(ctx context.Context, account, number, code string) error
}

const (
	// CodeValid is for how long a code that was sent is accepted.
	CodeValid = 10 * time.Minute
	// ChallengeValid is for how long a passkey may take to answer, and its proof to be used.
	ChallengeValid = 5 * time.Minute
	// PendingKept is for how long a factor may wait for its confirmation.
	PendingKept = time.Hour

	attemptWindow  = 15 * time.Minute
	accountLimit   = 10
	accountPerDay  = 40
	addressLimit   = 30
	codesPerHour   = 5
	stepRemembered = 10 * time.Minute // longer than a step is accepted
	// provedFor is for how long an address is remembered that a factor was proved from.
	provedFor = 30 * 24 * time.Hour
)

// sealName names the sealed data of a factor.
func sealName(account, id string) string { return account + "/" + id }

// Seal seals the data of a factor.
func (v *Verifier) Seal(account, id string, data []byte) []byte {
	return v.Pepper.Seal(sealName(account, id), data)
}

// Open returns the data of a factor. It is the caller's to wipe.
func (v *Verifier) Open(account string, f *store.Factor) ([]byte, error) {
	return v.Pepper.Open(sealName(account, f.ID), f.Data)
}

// RecoveryHash returns the stored form of a recovery code.
func (v *Verifier) RecoveryHash(account, code string) []byte {
	code, _ = factor.Read(code)
	return v.Pepper.Code(account, "recovery", code)
}

// provedFrom names what remembers that a factor was proved from an address, which it does not show.
func (v *Verifier) provedFrom(account string, from netip.Addr) string {
	return "proved:" + account + ":" + hex.EncodeToString(v.Pepper.Code(account, "proved", throttle.Source(from).String()))
}

// proved takes a success back, and remembers the address that it is from.
func (v *Verifier) proved(ctx context.Context, account string, from netip.Addr, undo func()) {
	undo()
	if from.IsValid() {
		_ = v.Memory.Keep(ctx, address.Domain(account), v.provedFrom(account, from), []byte("1"), provedFor) // without it the limits are the account's
	}
}

// attempt counts an attempt, and returns the refusal if there were too many. A success is to be
// taken back with undo.
func (v *Verifier) attempt(ctx context.Context, account string, from netip.Addr) (refusal string, undo func(), err error) {
	whose := account
	if from.IsValid() {
		place := v.provedFrom(account, from)
		known, err := v.Memory.Count(ctx, address.Domain(account), place, 0, provedFor)
		if err != nil {
			return "", nil, err
		}
		if known > 0 {
			whose = place
		}
	}
	counters := []struct {
		domain, name string
		most         int
		window       time.Duration
	}{
		{address.Domain(account), "attempts:" + whose, accountLimit, attemptWindow},
		{address.Domain(account), "attempts-day:" + whose, accountPerDay, 24 * time.Hour},
		{"", "attempts-from:" + throttle.Source(from).String(), addressLimit, attemptWindow},
	}
	if !from.IsValid() {
		counters = counters[:2]
	}
	for _, c := range counters {
		n, err := v.Memory.Count(ctx, c.domain, c.name, 1, c.window)
		if err != nil {
			return "", nil, err
		}
		if n > c.most {
			refusal = "too many attempts at second factors"
		}
	}
	return refusal, func() {
		for _, c := range counters {
			_, _ = v.Memory.Count(ctx, c.domain, c.name, -1, c.window) // a success that counts as an attempt is no harm
		}
	}, nil
}

// Refusals of [Verifier.Verify].
const (
	refusalWrong    = "the second factor is wrong, expired or was used before"
	refusalReplayed = "the time-based code was used before"
)

// Verify verifies a code that somebody typed, or the proof of a passkey, and uses it up. The refusal
// says why it is not accepted, "" if it is.
func (v *Verifier) Verify(ctx context.Context, account, typed string, from netip.Addr) (refusal string, err error) {
	refusal, undo, err := v.attempt(ctx, account, from)
	if refusal != "" || err != nil {
		return refusal, err
	}
	cur, ok := v.Store.State.Account(account)
	if !ok {
		return refusalWrong, nil
	}
	code, form := factor.Read(typed)
	refusal = refusalWrong
	switch form {
	case factor.DigitsForm:
		refusal, err = v.digits(ctx, account, cur.Doc, code, time.Now())
	case factor.RecoveryForm:
		refusal, err = v.recovery(ctx, account, code)
	case factor.ProofForm:
		refusal, err = v.taken(ctx, cur.Doc, "proof", code, factor.Passkey)
	case factor.Unreadable:
	}
	if refusal == "" && err == nil {
		v.proved(ctx, account, from, undo)
	}
	return refusal, err
}

// digits verifies a time-based code, or one that was sent.
func (v *Verifier) digits(ctx context.Context, account string, a *store.Account, code string, now time.Time) (string, error) {
	for i := range a.Factors {
		f := &a.Factors[i]
		if f.Kind != factor.TOTP || !f.Confirmed() {
			continue
		}
		refusal, err := v.TOTP(ctx, account, f, code, now)
		if err != nil || refusal != refusalWrong {
			return refusal, err
		}
	}
	return v.taken(ctx, a, "code", code, factor.Mail, factor.SMS)
}

// keep remembers a code or proof of a factor. It ends with the factor: see [Verifier.taken].
func (v *Verifier) keep(ctx context.Context, account, what, code string, f *store.Factor, valid time.Duration) error {
	return v.Memory.Keep(ctx, address.Domain(account), what+":"+account, v.Pepper.Code(account, what+":"+f.ID, code), valid)
}

// taken uses up a code or proof that was kept for one of the factors of some kinds that the account
// still has.
func (v *Verifier) taken(ctx context.Context, a *store.Account, what, code string, kinds ...factor.Kind) (refusal string, err error) {
	for i := range a.Factors {
		f := &a.Factors[i]
		if !f.Confirmed() || !slices.Contains(kinds, f.Kind) {
			continue
		}
		found, err := v.Memory.TakeKept(ctx, address.Domain(a.Address), what+":"+a.Address, v.Pepper.Code(a.Address, what+":"+f.ID, code))
		if err != nil || found != nil {
			return "", err
		}
	}
	return refusalWrong, nil
}

// TOTP verifies a code of one factor, confirmed or not, and uses it up: neither it nor an earlier one
// is accepted again, on any daemon.
func (v *Verifier) TOTP(ctx context.Context, account string, f *store.Factor, code string, now time.Time) (refusal string, err error) {
	secret, err := v.Open(account, f)
	if err != nil {
		return "", err
	}
	defer clear(secret)
	step, ok := factor.Match(secret, code, now)
	if !ok {
		return refusalWrong, nil
	}
	first, err := v.Memory.Advance(ctx, address.Domain(account), "step:"+f.ID, step, stepRemembered)
	if err == nil && !first {
		refusal = refusalReplayed
	}
	return refusal, err
}

// recovery verifies a recovery code, and removes it from the account.
func (v *Verifier) recovery(ctx context.Context, account, code string) (refusal string, err error) {
	want := v.RecoveryHash(account, code)
	domain := address.Domain(account)
	err = v.Store.Update(ctx, store.ShardOf(domain), store.Actor{Name: account}, false, func(ch *store.Change) error {
		refusal = refusalWrong
		cur, ok := v.Store.State.Account(account)
		if !ok {
			return nil
		}
		next := *cur.Doc
		next.Factors = slices.Clone(next.Factors)
		for i := range next.Factors {
			f := &next.Factors[i]
			if f.Kind != factor.Recovery {
				continue
			}
			kept := make([]byte, 0, len(f.Data))
			for hash := range slices.Chunk(f.Data, len(want)) {
				if !bytes.Equal(hash, want) {
					kept = append(kept, hash...)
				}
			}
			if len(kept) == len(f.Data) {
				continue
			}
			refusal, f.Data = "", kept
			ch.Audit.Action, ch.Audit.Domain, ch.Audit.Target = "second_factor.recovery_code", domain, account
			ch.Audit.Note = fmt.Sprintf("used, %d left", len(kept)/len(want))
			ch.PutAccount(&next)
			return nil
		}
		return nil
	})
	return refusal, err
}

// ErrNoSending reports that the site cannot send codes in this way.
var ErrNoSending = errors.New("the site cannot send codes in this way")

// ErrTooMany reports that too many codes were sent to the account within an hour.
var ErrTooMany = errors.New("too many codes were sent lately")

// Send sends a code to the address or number of a factor. It replaces the code that was sent before.
func (v *Verifier) Send(ctx context.Context, account string, f *store.Factor) error {
	send := v.Mail
	if f.Kind == factor.SMS {
		send = v.SMS
	}
	if send == nil || f.Kind != factor.SMS && f.Kind != factor.Mail {
		return ErrNoSending
	}
	to, err := v.Open(account, f)
	if err != nil {
		return err
	}
	n, err := v.Memory.Count(ctx, address.Domain(account), "codes:"+account, 1, time.Hour)
	if err != nil {
		return err
	}
	if n > codesPerHour {
		return ErrTooMany
	}
	code, err := factor.NewCode()
	if err != nil {
		return err
	}
	if f.Confirmed() {
		err = v.keep(ctx, account, "code", code, f, CodeValid)
	} else { // the code proves the address, and nothing else
		err = v.Memory.Keep(ctx, address.Domain(account), "confirm:"+f.ID, v.Pepper.Code(account, "sent", code), CodeValid)
	}
	if err != nil {
		return err
	}
	return send(ctx, account, string(to), code)
}

// Confirm verifies the first code of a pending factor that has codes.
func (v *Verifier) Confirm(ctx context.Context, account string, f *store.Factor, typed string, from netip.Addr) (refusal string, err error) {
	refusal, undo, err := v.attempt(ctx, account, from)
	if refusal != "" || err != nil {
		return refusal, err
	}
	code, form := factor.Read(typed)
	if form != factor.DigitsForm {
		return refusalWrong, nil
	}
	if f.Kind == factor.TOTP {
		refusal, err = v.TOTP(ctx, account, f, code, time.Now())
	} else {
		var found []byte
		refusal = refusalWrong
		if found, err = v.Memory.TakeKept(ctx, address.Domain(account), "confirm:"+f.ID, v.Pepper.Code(account, "sent", code)); found != nil {
			refusal = ""
		}
	}
	if refusal == "" && err == nil {
		undo()
	}
	return refusal, err
}

// passkeys returns the confirmed passkeys of an account, and which factors they are.
func (v *Verifier) passkeys(account string) (keys [][]byte, factors []store.Factor, err error) {
	cur, ok := v.Store.State.Account(account)
	if !ok {
		return nil, nil, nil
	}
	for i := range cur.Doc.Factors {
		f := &cur.Doc.Factors[i]
		if f.Kind != factor.Passkey || !f.Confirmed() {
			continue
		}
		b, err := v.Open(account, f)
		if err != nil {
			return nil, nil, err
		}
		keys, factors = append(keys, b), append(factors, *f)
	}
	return keys, factors, nil
}

// Register begins the registration of a passkey: options are for the browser, data for the pending
// factor.
func (v *Verifier) Register(account string) (options, data []byte, err error) {
	keys, _, err := v.passkeys(account)
	if err != nil {
		return nil, nil, err
	}
	return v.Passkeys.Register(account, keys)
}

// Registered ends a registration that the data of a pending factor began, and returns the passkey.
func (v *Verifier) Registered(ctx context.Context, account string, f *store.Factor, response []byte) ([]byte, error) {
	session, err := v.Open(account, f)
	if err != nil {
		return nil, err
	}
	first, err := v.Memory.Advance(ctx, address.Domain(account), "registered:"+f.ID, 1, 2*PendingKept)
	if err == nil && !first {
		err = passkey.ErrRefused
	}
	if err != nil {
		return nil, err
	}
	return v.Passkeys.Registered(account, session, response)
}

// ErrNoPasskey reports that the account has no passkey that counts.
var ErrNoPasskey = errors.New("the account has no passkey")

// Challenge begins a proof with a passkey of the account: id and options are for the browser.
func (v *Verifier) Challenge(ctx context.Context, account string) (id string, options []byte, err error) {
	keys, _, err := v.passkeys(account)
	if err != nil {
		return "", nil, err
	}
	if len(keys) == 0 {
		return "", nil, ErrNoPasskey
	}
	options, session, err := v.Passkeys.Assert(account, keys)
	if err != nil {
		return "", nil, err
	}
	id = store.NewID()
	return id, options, v.Memory.Keep(ctx, address.Domain(account), "challenge:"+account+":"+id, session, ChallengeValid)
}

// Answer ends a proof: it returns what stands for the passkey at one login, as a code would.
func (v *Verifier) Answer(ctx context.Context, account, id string, response []byte, from netip.Addr) (proof string, err error) {
	refusal, undo, err := v.attempt(ctx, account, from)
	if err != nil {
		return "", err
	}
	if refusal != "" {
		return "", fmt.Errorf("%w: %s", passkey.ErrRefused, refusal)
	}
	session, err := v.Memory.TakeKept(ctx, address.Domain(account), "challenge:"+account+":"+id, nil)
	if err != nil {
		return "", err
	}
	if session == nil {
		return "", fmt.Errorf("%w: there is no such challenge, or it has expired", passkey.ErrRefused)
	}
	keys, factors, err := v.passkeys(account)
	if err != nil {
		return "", err
	}
	which, updated, err := v.Passkeys.Asserted(account, keys, session, response)
	if err != nil {
		return "", err
	}
	if err := v.update(ctx, account, &factors[which], keys[which], updated); err != nil {
		return "", err
	}
	v.proved(ctx, account, from, undo)
	if proof, err = factor.NewProof(); err != nil {
		return "", err
	}
	return proof, v.keep(ctx, account, "proof", proof, &factors[which], ChallengeValid)
}

// update stores a passkey whose counter has grown. Most have none.
func (v *Verifier) update(ctx context.Context, account string, f *store.Factor, before, after []byte) error {
	if bytes.Equal(before, after) {
		return nil
	}
	domain := address.Domain(account)
	return v.Store.Update(ctx, store.ShardOf(domain), store.Actor{Name: account}, false, func(ch *store.Change) error {
		cur, ok := v.Store.State.Account(account)
		if !ok {
			return ErrNoPasskey
		}
		next := *cur.Doc
		next.Factors = slices.Clone(next.Factors)
		i := slices.IndexFunc(next.Factors, func(o store.Factor) bool { return o.ID == f.ID })
		if i < 0 {
			return ErrNoPasskey
		}
		next.Factors[i].Data = v.Seal(account, f.ID, after)
		ch.Audit.Action, ch.Audit.Domain, ch.Audit.Target, ch.Audit.Note = "second_factor.use", domain, account, f.ID
		ch.PutAccount(&next)
		return nil
	})
}
