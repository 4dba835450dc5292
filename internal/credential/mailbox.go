package credential

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sync/semaphore"
	"golang.org/x/text/unicode/norm"
)

const (
	// MaxNewPassword is the longest mailbox password in bytes that [CheckNew] takes. It leaves room
	// for the longest address in the 512 bytes that Dovecot hands to a checkpassword program.
	MaxNewPassword = 192

	// DefaultMemory is the budget in bytes of a [Hasher] that is given none.
	DefaultMemory = 256 << 20

	// MaxPassword is the longest password in bytes that can match a stored hash. Dovecot passes no
	// longer one to a checkpassword program: name and password together have 509 bytes at most.
	MaxPassword = 512
)

// CheckNew validates a new mailbox password: 1 to [MaxNewPassword] bytes of UTF-8 without control
// characters, not in the shape of a secure password. It returns all faults, joined. It does not
// judge the strength.
func CheckNew(password []byte) error {
	if len(password) > MaxNewPassword {
		return fmt.Errorf("password has %d bytes: use at most %d", len(password), MaxNewPassword)
	}
	var faults []error
	if len(password) == 0 {
		faults = append(faults, errors.New("password is empty"))
	}
	if !utf8.Valid(password) {
		faults = append(faults, errors.New("password is not valid UTF-8: send it in that encoding"))
	}
	if bytes.ContainsFunc(password, unicode.IsControl) {
		faults = append(faults, errors.New("password contains a control character, such as a tab or a line break: mail clients cannot send it"))
	}
	if _, shaped := Normalise(password); shaped {
		faults = append(faults, errors.New("password has the shape of a secure password: choose another, "+
			"or create a secure password for the device"))
	}
	return errors.Join(faults...)
}

// CheckStored validates a stored hash that comes from elsewhere: its scheme must be supported, its
// form right and its cost at most the limit for imports. Nothing is computed.
func CheckStored(stored string) error {
	s, err := parse(stored)
	if err != nil {
		return err
	}
	return s.excess
}

// Typical returns one of the stored hashes whose scheme and cost are the most common ones, "" without any.
func Typical(stored []string) string {
	count := map[cost]int{}
	typical, most := "", 0
	for _, text := range stored {
		s, err := parse(text)
		if err != nil {
			continue
		}
		if count[s.cost]++; count[s.cost] > most {
			typical, most = text, count[s.cost]
		}
	}
	return typical
}

// Hasher computes and verifies hashes of mailbox passwords. Memory and processors bound how many
// run at once. It is safe for concurrent use.
type Hasher struct {
	// Took, unless nil, receives the scheme of every slow hash and the time that it took, without the
	// wait for its turn. Set it before the first use.
	Took func(scheme string, d time.Duration)

	slots  *semaphore.Weighted // in bytes of memory
	budget int64               // bytes in all
	share  int64               // bytes of the budget that a busy processor counts as
}

// NewHasher returns a Hasher that uses at most about memory bytes for hashing, and one thread per
// processor. Zero or less means [DefaultMemory]. A hash that needs more than the budget, at most
// 256 MiB, runs alone.
func NewHasher(memory int64) *Hasher {
	if memory <= 0 {
		memory = DefaultMemory
	}
	threads := int64(runtime.GOMAXPROCS(0))
	memory = max(memory, threads)
	return &Hasher{slots: semaphore.NewWeighted(memory), budget: memory, share: memory / threads}
}

// Hash returns the hash of a password for storage: argon2id in Dovecot's notation, 107 characters.
// If ctx ends while it waits for its turn, it returns the error of ctx. It refuses only passwords
// that could never match; use [CheckNew] for new ones.
func (h *Hasher) Hash(ctx context.Context, password []byte) (string, error) {
	if !usable(password) {
		return "", fmt.Errorf("hashing the password: not of 1 to %d bytes without NUL", MaxPassword)
	}
	password = norm.NFC.Append(make([]byte, 0, 2*len(password)), password...)
	defer clear(password)
	a := newArgon2()
	if _, err := io.ReadFull(rand.Reader, a.salt); err != nil {
		return "", fmt.Errorf("hashing the password: %w", err)
	}
	if err := h.run(ctx, a.cost(), func() { a.key = a.derive(password) }); err != nil {
		return "", fmt.Errorf("hashing the password: %w", err)
	}
	return "{ARGON2ID}" + a.String(), nil
}

// Verify reports whether the password matches the stored hash, and if so, whether the hash is
// outdated and should be replaced by one of [Hasher.Hash]. It waits for its turn until ctx ends. An
// error means that the answer is unknown: ctx ended, or the stored hash cannot be verified.
func (h *Hasher) Verify(ctx context.Context, stored string, password []byte) (ok, outdated bool, err error) {
	s, err := parse(stored)
	if err != nil {
		return false, false, err
	}
	if !usable(password) {
		return false, false, nil
	}
	var other bool // a hash of another spelling than NFC
	match := func() {
		for i, spelling := range spellings(password) {
			ok, other = ok || s.match(spelling), i > 0
			clear(spelling)
			if ok {
				return
			}
		}
	}
	if err := h.run(ctx, s.cost, match); err != nil {
		return false, false, fmt.Errorf("verifying the password: %w", err)
	}
	if !ok && s.outdated {
		// Most outdated hashes are quicker than today's, and a quick refusal would reveal which
		// accounts have not logged in for long.
		return false, false, h.imitateToday(ctx, password)
	}
	return ok, ok && (s.outdated || other), nil
}

// spellings returns copies of a password in NFC, as [Hasher.Hash] reads it, as it was typed, and in
// NFD, without repetition: keyboards differ, and older hashes are of what was typed then.
func spellings(password []byte) [][]byte {
	list := [][]byte{norm.NFC.Append(make([]byte, 0, 2*len(password)), password...)}
	if isASCII(password) {
		return list
	}
	for _, s := range [][]byte{bytes.Clone(password), norm.NFD.Append(make([]byte, 0, 4*len(password)), password...)} {
		if slices.ContainsFunc(list, func(other []byte) bool { return bytes.Equal(s, other) }) {
			clear(s)
			continue
		}
		list = append(list, s)
	}
	return list
}

func isASCII(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c >= utf8.RuneSelf })
}

// Imitate takes the time that Verify takes to find the password wrong for a stored hash, for an
// account that does not exist. Without a stored hash it imitates one of [Hasher.Hash]. The error is
// that of ctx, as from Verify.
func (h *Hasher) Imitate(ctx context.Context, stored string, password []byte) error {
	if !usable(password) {
		return nil
	}
	s, err := parse(stored)
	if err != nil {
		return h.imitateToday(ctx, password)
	}
	if err := h.run(ctx, s.cost, func() { s.match(password) }); err != nil {
		return fmt.Errorf("verifying the password: %w", err)
	}
	if s.outdated {
		return h.imitateToday(ctx, password)
	}
	return nil
}

func (h *Hasher) imitateToday(ctx context.Context, password []byte) error {
	a := newArgon2()
	if err := h.run(ctx, a.cost(), func() { a.match(password) }); err != nil {
		return fmt.Errorf("verifying the password: %w", err)
	}
	return nil
}

// usable reports whether any hash may match the password. It must not contain NUL, because bcrypt
// repeats the password with a NUL after it: "a" and "a\x00a" would be the same.
func usable(password []byte) bool {
	return len(password) > 0 && len(password) <= MaxPassword && bytes.IndexByte(password, 0) < 0
}

// run calls f once there is room for its cost. It returns the error of ctx if that ends first.
func (h *Hasher) run(ctx context.Context, c cost, f func()) error {
	if c.rounds == 0 {
		// A single digest takes less time than waiting for a turn.
		if err := ctx.Err(); err != nil {
			return err
		}
		f()
		return nil
	}
	weight := h.weight(c)
	if err := h.slots.Acquire(ctx, weight); err != nil {
		return err
	}
	defer h.slots.Release(weight)
	began := time.Now()
	f()
	if h.Took != nil {
		h.Took(c.scheme, time.Since(began))
	}
	return nil
}

// weight returns the part of the budget that a cost takes: its memory, at least the share of the
// processors that it occupies, at most the whole budget.
func (h *Hasher) weight(c cost) int64 {
	return min(max(c.memory, h.share*int64(max(c.threads, 1))), h.budget)
}
