package gate

import (
	"bytes"
	"context"
	"hash/maphash"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/expiring"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

const (
	// wrongFor is how long a wrong mailbox password is remembered.
	wrongFor = time.Hour
	// maxWrong bounds the wrong mailbox passwords that are remembered, about 100 bytes each.
	maxWrong = 100_000
	// typicalFor is how long the typical hash of a domain is remembered.
	typicalFor = 10 * time.Minute
	// maxTypical bounds the domains whose typical hash is remembered.
	maxTypical = 10_000
	// typicalOf is the number of accounts that the typical hash of a domain is chosen from.
	typicalOf = 100
)

// mailboxes verifies mailbox passwords that are kept here. A slow hash takes a processor for tens
// of milliseconds, so they are rationed: one at a time for each account and each source address,
// and none for a secret that was found wrong for the same account lately.
type mailboxes struct {
	hasher *credential.Hasher
	state  *store.State
	queue  *queue
	seed   maphash.Seed

	mu      sync.Mutex
	wrong   *expiring.Map[wrongKey, wrong]
	typical *expiring.Map[string, typical]
}

// wrongKey names a secret of an account by its keyed token, which reveals neither.
type wrongKey struct {
	account string
	token   uint64
}

// wrong is a secret that did not match a stored hash. Another stored hash, after a change of the
// password, is verified at once.
type wrong struct {
	stored uint64 // a fingerprint of the stored hash; that of "" for an account without one
	at     time.Time
}

// Expired implements [expiring.Value].
func (w wrong) Expired(now time.Time) bool { return now.Sub(w.at) >= wrongFor }

// typical is a stored hash whose scheme and cost are the most common ones of a domain.
type typical struct {
	stored string
	at     time.Time
}

// Expired implements [expiring.Value].
func (t typical) Expired(now time.Time) bool { return now.Sub(t.at) >= typicalFor }

func newMailboxes(h *credential.Hasher, st *store.State) *mailboxes {
	return &mailboxes{
		hasher: h, state: st, queue: newQueue(), seed: maphash.MakeSeed(),
		wrong: expiring.New[wrongKey, wrong](maxWrong), typical: expiring.New[string, typical](maxTypical),
	}
}

// knownWrong reports whether the secret did not match the stored hash lately.
func (m *mailboxes) knownWrong(account string, token uint64, stored string, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.wrong.Get(wrongKey{account, token}, now)
	return ok && w.stored == maphash.String(m.seed, stored)
}

// verify reports whether the secret is the mailbox password, and whether its hash is outdated. An
// unknown account takes the time of the accounts of its domain.
func (m *mailboxes) verify(ctx context.Context, account string, token uint64, stored string, secret []byte, now time.Time) (ok, outdated bool, err error) {
	if m.knownWrong(account, token, stored, now) {
		return false, false, nil
	}
	if stored == "" {
		err = m.hasher.Imitate(ctx, m.typicalOf(address.Domain(account), now), secret)
	} else {
		ok, outdated, err = m.hasher.Verify(ctx, stored, secret)
	}
	if err == nil && !ok {
		m.mu.Lock()
		m.wrong.Put(wrongKey{account, token}, wrong{maphash.String(m.seed, stored), now})
		m.mu.Unlock()
	}
	return ok, outdated, err
}

// typicalOf returns a stored hash of the most common kind of a domain, "" if there is none.
func (m *mailboxes) typicalOf(domain string, now time.Time) string {
	m.mu.Lock()
	t, ok := m.typical.Get(domain, now)
	m.mu.Unlock()
	if ok {
		return t.stored
	}
	t = typical{credential.Typical(m.state.MailboxHashes(domain, typicalOf)), now}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.typical.Put(domain, t)
	return t.stored
}

func (m *mailboxes) sweep(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.wrong.Sweep(now)
	m.typical.Sweep(now)
}

// admit waits for the turn of a login that needs a slow hash; leave is nil if it needs none. It
// reports whether it waited: the account may have changed meanwhile.
func (g *Gate) admit(ctx context.Context, l *access.Login, q *access.Query, r store.Record, token uint64, exempt bool) (leave func(), waited bool, err error) {
	switch q.Secret.State {
	case access.SecretOther, access.SecretShaped, access.SecretRevoked:
	case access.SecretLive, access.SecretEmpty, access.SecretUnseen, access.SecretAuthenticated:
		return nil, false, nil
	}
	if q.Site.NextPassdb || q.Rules == nil || l.MasterUser != "" || l.Lookup != access.LookupNone ||
		g.throttled(q.Address, l, exempt) || g.mailboxes.knownWrong(q.Address, token, r.MailboxHash(), l.Time) {
		return nil, false, nil
	}
	keys := []any{q.Address}
	if l.IP.IsValid() && !exempt {
		keys = append(keys, throttle.Source(l.IP))
	}
	return g.mailboxes.queue.enter(ctx, keys...)
}

// asker answers the engine's slow questions for one login.
type asker struct {
	g       *Gate
	ctx     context.Context //nolint:containedctx // lives as long as the call it belongs to
	login   *access.Login
	account string
	record  store.Record
	token   uint64
	exempt  bool
	err     error
}

// Throttled implements [access.Asker].
func (a *asker) Throttled() bool { return a.g.throttled(a.account, a.login, a.exempt) }

// Mailbox implements [access.Asker].
func (a *asker) Mailbox() bool {
	stored := a.record.MailboxHash()
	ok, outdated, err := a.g.mailboxes.verify(a.ctx, a.account, a.token, stored, a.login.Secret, a.login.Time)
	if a.err = err; err != nil {
		return false
	}
	if ok && outdated {
		a.g.rehash(a.record.Address(), stored, a.login.Secret)
	}
	return ok
}

// rehash replaces an outdated mailbox hash by one of today's scheme, behind the login, unless the
// password was changed meanwhile.
func (g *Gate) rehash(account, old string, secret []byte) {
	secret = bytes.Clone(secret)
	waits := g.writes.do(func(ctx context.Context) {
		defer clear(secret)
		if r, ok := g.Store.State.Account(account); !ok || r.Doc.MailboxHash != old || ctx.Err() != nil {
			return // done by an earlier login, or too late
		}
		fresh, err := g.Hasher.Hash(ctx, secret)
		if err != nil {
			g.Log.Warn("rehashing a mailbox password", "account", account, "error", err)
			return
		}
		err = g.Store.Update(ctx, store.ShardOf(address.Domain(account)), store.Actor{Name: "daemon"}, false, func(c *store.Change) error {
			r, ok := g.Store.State.Account(account)
			if !ok || r.Doc.MailboxHash != old {
				return nil
			}
			a := *r.Doc
			a.MailboxHash = fresh
			c.Audit.Action, c.Audit.Domain, c.Audit.Target = "mailbox_password.rehash", address.Domain(account), account
			c.PutAccount(&a)
			return nil
		})
		if err != nil {
			g.Log.Warn("rehashing a mailbox password", "account", account, "error", err)
		}
	})
	if !waits {
		clear(secret)
	}
}
