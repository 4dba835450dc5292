package gate

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// pendingFor is how long a login that the next passdb decides waits for Dovecot's report. Dovecot
// gives an authentication up after 150 seconds.
const pendingFor = 3 * time.Minute

// maxPending bounds the logins that wait at once.
const maxPending = 50_000

// open holds the logins that the next passdb decides, until Dovecot reports. A session's id names a
// login; Postfix has none, so there the oldest open login of the same account, address and service
// is meant.
type pendingLogins struct {
	mu       sync.Mutex
	sessions map[string]*pendingLogin
	others   map[pendingKey][]*pendingLogin
	count    int
}

type pendingKey struct {
	account  string
	ip       netip.Addr
	service  string
	protocol access.Protocol
}

type pendingLogin struct {
	rec   *store.LoginRecord
	key   pendingKey
	token uint64
	at    time.Time
	// relayed: the SASL door passes the login on, under a session id that nobody can guess. It
	// stays for a while after its end, so that whoever asks late adds no record.
	relayed bool
	closed  bool
}

func newPendingLogins() *pendingLogins {
	return &pendingLogins{sessions: map[string]*pendingLogin{}, others: map[pendingKey][]*pendingLogin{}}
}

func (pl *pendingLogins) add(rec *store.LoginRecord, l *access.Login, token uint64) {
	p := &pendingLogin{rec: rec, key: pendingKey{rec.Account, l.IP, rec.Service, l.Protocol}, token: token, at: l.Time, relayed: l.Relayed}
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if pl.count >= maxPending {
		return // its record stays open
	}
	if rec.Session != "" {
		if _, ok := pl.sessions[rec.Session]; !ok {
			pl.count++
		}
		pl.sessions[rec.Session] = p
		return
	}
	pl.others[p.key] = append(pl.others[p.key], p)
	pl.count++
}

// same returns the open login that another one repeats: of the two, the SASL door made one, and a
// passdb behind it the other.
func (pl *pendingLogins) same(session string, relayed bool) *pendingLogin {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if p := pl.sessions[session]; session != "" && p != nil && (p.relayed || relayed) {
		return p
	}
	return nil
}

// forget drops the open login of a session that goes on to another one, whose report must not close
// it. Without a session's id it does nothing.
func (pl *pendingLogins) forget(session string) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if _, ok := pl.sessions[session]; ok {
		delete(pl.sessions, session)
		pl.count--
	}
}

func (pl *pendingLogins) take(session string, key pendingKey) *pendingLogin {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if session != "" {
		p := pl.sessions[session]
		switch {
		case p == nil || p.closed:
			return nil
		case strings.HasPrefix(session, access.RelayedSession):
			p.closed = true
		default:
			delete(pl.sessions, session)
			pl.count--
		}
		return p
	}
	list := pl.others[key]
	if len(list) == 0 {
		return nil
	}
	pl.count--
	if len(list) == 1 {
		delete(pl.others, key)
	} else {
		pl.others[key] = list[1:]
	}
	return list[0]
}

func (pl *pendingLogins) sweep(now time.Time) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	for s, p := range pl.sessions {
		if now.Sub(p.at) > pendingFor {
			delete(pl.sessions, s)
			pl.count--
		}
	}
	for k, list := range pl.others {
		kept := slices.DeleteFunc(list, func(p *pendingLogin) bool { return now.Sub(p.at) > pendingFor })
		pl.count -= len(list) - len(kept)
		if len(kept) == 0 {
			delete(pl.others, k)
		} else {
			pl.others[k] = kept
		}
	}
}

// Report closes the record of a login that the next passdb decided, and counts a wrong secret. A
// report on any other login changes nothing: it was decided here.
func (g *Gate) Report(r *access.Ending) {
	if r.Rejected {
		return
	}
	p := g.pending.take(bounded(r.Session), g.pendingKey(r.Account, r.IP, r.Service))
	if p == nil {
		return
	}
	now := time.Now()
	// A master's secret is no guess at the account's, and no proof of it.
	if p.rec.MasterUser == "" && r.Success {
		g.success(p.rec.Account, p.key.ip, now)
		if p.key.protocol == access.SMTP {
			g.authenticated(p.rec.Account, p.key.ip, store.CredentialMailbox, p.rec.Service, now)
		}
	} else if p.rec.MasterUser == "" {
		g.guess(p.rec.Account, p.key.ip, p.token, now)
	}
	if r.Success {
		g.close(p, access.Allow, access.ReasonOK, now)
	} else {
		g.close(p, access.Deny, access.ReasonBadSecret, now)
	}
}

// close records how an open login ended.
func (g *Gate) close(p *pendingLogin, o access.Outcome, reason access.Reason, now time.Time) {
	rec := *p.rec
	rec.Outcome, rec.Reason = o, reason
	g.Log.Info(line("login", &rec))
	g.writes.close(store.Closing{Domain: rec.Domain, ID: rec.ID, Outcome: o, Reason: reason, Time: now.UTC()})
}

// repeated ends the record of an open login when a passdb behind the SASL door is answered
// otherwise than the door was, because a rule has changed meanwhile. Otherwise the record is still
// that of the door's.
func (g *Gate) repeated(p *pendingLogin, d *access.Decision, now time.Time) {
	if d.Outcome != access.Allow && d.Outcome != access.Deny {
		return
	}
	g.pending.take(p.rec.Session, p.key)
	g.close(p, d.Outcome, d.Reason, now)
}

// Verified decides a login whose secret somebody else has verified, under the name that they
// answered with. A refusal is recorded; a submission session may begin with what is permitted.
func (g *Gate) Verified(l *access.Login) access.Decision {
	g.complete(l)
	if !g.Available(l.Time) {
		return g.unavailable(l)
	}
	q, v := g.query(l)
	q.Secret = access.Secret{State: access.SecretAuthenticated}
	d := access.Decide(q, noAsker{}, false)
	switch {
	case d.Outcome == access.Deny:
		refused := *l
		refused.Session = "" // the login itself stays open under its session
		g.after(&refused, &d, v, "", 0)
	case l.Protocol == access.SMTP && v.Known:
		g.authenticated(d.Account, l.IP, store.CredentialMailbox, l.Service, l.Time)
	}
	return d
}

// pendingKey names the open login of a name as it was typed, where no session does.
func (g *Gate) pendingKey(typed string, ip netip.Addr, service string) pendingKey {
	account := ""
	if addr, err := address.Parse(typed, g.DefaultDomain); err == nil {
		account, _ = g.Store.State.View(addr)
	}
	return pendingKey{account, ip, bounded(service), access.ProtocolOfService(service, g.Services)}
}

// Recheck evaluates the rules for the name that Dovecot has given a login, before it admits it. It
// refuses and never admits: the outcome is Deny, Next or TempFail. typed is the name as the client
// sent it.
//
// A name that means the account that was typed was judged when the passdb asked. Another account
// means that the passdb behind Drawbridge has mapped the name, and has verified the mailbox
// password of that account: all rules are evaluated for it, enforcement of secure passwords among
// them. A refusal closes the record of the typed name and makes one of the final name; it is no
// guess.
func (g *Gate) Recheck(l *access.Login, typed string) access.Decision {
	g.complete(l)
	if !g.Available(l.Time) {
		return access.Decision{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable}
	}
	q, v := g.query(l)
	key := g.pendingKey(typed, l.IP, l.Service)
	if !v.Known || key.account == q.Address { // no rules apply to the name, or they were evaluated
		return access.Decision{Outcome: access.Next, Reason: access.ReasonOK, Account: q.Address}
	}
	q.Secret = access.Secret{State: access.SecretAuthenticated}
	d := access.Decide(q, noAsker{}, false)
	if d.Outcome != access.Deny {
		return d
	}
	if p := g.pending.take(bounded(l.Session), key); p != nil {
		g.close(p, d.Outcome, d.Reason, l.Time)
	}
	rec := newRecord(l, &d)
	rec.Domain = v.Domain
	g.Log.Info(line("login", rec))
	g.writes.record(rec)
	return d
}
