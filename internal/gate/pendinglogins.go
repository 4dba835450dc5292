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

// pendingLogins holds the logins that the next passdb decides until Dovecot reports them. A session
// id identifies a login; Postfix sends none, so its reports concern the oldest pending login of the
// same account, address and service.
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
	// relayed: the SASL door passes the login on under an unguessable session id. It stays for a
	// while after its end, so that a late question adds no record.
	relayed bool
	// closed: its end is known. Dovecot's report on it, which is still to come, adds nothing.
	closed bool
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

// same returns the pending login that another one repeats: one of the two was made by the SASL
// door, the other by a passdb behind it.
func (pl *pendingLogins) same(session string, relayed bool) *pendingLogin {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if p := pl.sessions[session]; session != "" && p != nil && (p.relayed || relayed) {
		return p
	}
	return nil
}

// forget drops the pending login of a session in which another login begins, so that the report on
// that one does not close it. Without a session id it does nothing.
func (pl *pendingLogins) forget(session string) {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	if _, ok := pl.sessions[session]; ok {
		delete(pl.sessions, session)
		pl.count--
	}
}

// take removes and returns a pending login, nil if there is none.
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
	if list[0].closed {
		return nil
	}
	return list[0]
}

// refuse returns a pending login, which ends without its password being wrong, and has it wait for
// Dovecot's report; nil if there is none.
func (pl *pendingLogins) refuse(session string, key pendingKey) *pendingLogin {
	pl.mu.Lock()
	defer pl.mu.Unlock()
	list := pl.others[key]
	if session != "" {
		list = []*pendingLogin{pl.sessions[session]}
	}
	for _, p := range list {
		if p != nil && !p.closed {
			p.closed = true
			return p
		}
	}
	return nil
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

// Report closes the record of a login that the next passdb decided, and counts a wrong secret. It
// ignores reports on other logins, which were decided here.
func (g *Gate) Report(r *access.Ending) {
	switch {
	case r.Rejected:
		return
	case r.Unjudged != nil:
		g.unjudged(r.Unjudged, r.Success)
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
		g.close(p, access.Allow, access.ReasonOK, "", now)
	} else {
		g.close(p, access.Deny, access.ReasonBadSecret, "", now)
	}
	if g.Sessions != nil && p.rec.Session != "" {
		g.Sessions.Closed(p.rec.Session, r.Success)
	}
}

// close records how a pending login ended. The note is added to that of the record.
func (g *Gate) close(p *pendingLogin, o access.Outcome, reason access.Reason, note string, now time.Time) {
	rec := *p.rec
	rec.Outcome, rec.Reason = o, reason
	g.Log.Info(line("login", &rec))
	g.writes.close(store.Closing{Domain: rec.Domain, ID: rec.ID, Outcome: o, Reason: reason, Note: note, Time: now.UTC(), Login: &rec})
}

// repeated closes the record of a pending login if the passdb behind the SASL door gets another
// answer than the door got, because a rule has changed in between.
func (g *Gate) repeated(p *pendingLogin, d *access.Decision, now time.Time) {
	if d.Outcome != access.Allow && d.Outcome != access.Deny {
		return
	}
	g.pending.take(p.rec.Session, p.key)
	g.close(p, d.Outcome, d.Reason, d.Note, now)
}

// pendingKey identifies the pending login of a typed name where no session id does.
func (g *Gate) pendingKey(typed string, ip netip.Addr, service string) pendingKey {
	account := ""
	if addr, err := address.Parse(typed, g.DefaultDomain); err == nil {
		account, _ = g.Store.State.View(addr)
	}
	return pendingKey{account, ip, bounded(service), access.ProtocolOfService(service, g.Services)}
}
