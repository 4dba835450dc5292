package saslauth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

const (
	// maxIdle, idleFor and maxAge bound the connections kept for the next exchange. They end soon,
	// so that a reloaded Dovecot is not asked by its former configuration.
	maxIdle  = 16
	idleFor  = 10 * time.Second
	maxAge   = time.Minute
	maxOffer = 64
)

// relay asks another server of the protocol, such as Dovecot. Each exchange has a connection of its
// own meanwhile, so that none can harm another's.
type relay struct {
	path string

	mu    sync.Mutex
	idle  []*peer
	offer []mechanism // of the newest connection
}

// peer is a connection to the other server.
type peer struct {
	net.Conn
	lines *lineReader
	born  time.Time
	timer *time.Timer // while idle
	last  uint32      // number of the newest exchange
	used  bool        // by an earlier exchange
}

// mechanisms returns what the other server offers, and asks it if that is unknown. An error leaves
// those known before, or none.
func (r *relay) mechanisms(ctx context.Context) ([]mechanism, error) {
	r.mu.Lock()
	offer := r.offer
	r.mu.Unlock()
	if offer != nil {
		return offer, nil
	}
	p, err := r.connect(ctx)
	if err != nil {
		return nil, err
	}
	r.put(p)
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.offer, nil
}

// offers reports whether the other server has a mechanism; with an error this is unknown.
func (r *relay) offers(ctx context.Context, name string) (bool, error) {
	offer, err := r.mechanisms(ctx)
	return slices.ContainsFunc(offer, func(m mechanism) bool { return m.name == name }), err
}

// begin asks for an exchange and returns the first answer, and the connection for the further ones.
// An idle connection that the other server has closed meanwhile is replaced once.
func (r *relay) begin(ctx context.Context, a *auth) (*peer, answer, error) {
	for {
		p, err := r.get(ctx)
		if err != nil {
			return nil, answer{}, err
		}
		p.last++
		line := appendAuth(make([]byte, 0, len(a.initial)+len(a.passed)+256), p.last, a)
		ans, err := p.ask(ctx, line)
		if err == nil {
			return p, ans, nil
		}
		used := p.used
		p.end()
		if !used || ctx.Err() != nil || !closed(err) {
			return nil, answer{}, err
		}
	}
}

// verification is the result of the other server for a secret, and the decision of the rules.
type verification struct {
	accepted bool            // by the other server
	user     string          // the name that it gave
	rules    access.Decision // on that name
	reason   string          // of its refusal
}

// permits reports whether both accept the login.
func (r *verification) permits() bool {
	return r.accepted && (r.rules.Outcome == access.Allow || r.rules.Outcome == access.Next)
}

// verify has the other server verify the secret of a login for a name, by PLAIN, and has the gate judge
// the name that it gives and record the end of the login. An error is a temporary failure.
func (r *relay) verify(ctx context.Context, gate Gate, a *auth, l *access.Login, name string) (verification, error) {
	a.mechanism, a.hasFirst, a.initial = "PLAIN", true, encodePlain("", name, l.Secret)
	p, ans, err := r.begin(ctx, a)
	clear(a.initial)
	a.initial = nil
	if err != nil {
		return verification{}, err
	}
	ending := &access.Ending{Account: l.Account, IP: l.IP, Service: l.Service, Session: l.Session}
	switch {
	case ans.verb == "OK" && ans.user != "" && !ans.nologin:
		r.put(p)
		final := *l
		final.Account = ans.user
		found := verification{accepted: true, user: ans.user, rules: gate.Recheck(&final, l.Account)}
		if found.permits() {
			ending.Success = true
			gate.Report(ending)
		}
		return found, nil
	case ans.verb == "FAIL" && !ans.temporary:
		r.put(p)
		gate.Report(ending)
		return verification{reason: ans.reason}, nil
	case ans.verb == "OK" && ans.nologin:
		r.put(p)
		return verification{reason: ans.reason}, nil
	}
	p.end() // a challenge after the whole response, a temporary failure, an OK without a name
	return verification{}, errors.New("it reports a temporary failure, or its answer is none of the protocol")
}

// closed reports whether the other end has closed the connection.
func closed(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
}

// goOn passes a response of the client's on.
func (p *peer) goOn(ctx context.Context, response []byte) (answer, error) {
	line := fmt.Appendf(make([]byte, 0, len(response)+32), "CONT\t%d\t", p.last)
	return p.ask(ctx, append(append(line, response...), '\n'))
}

// ask writes a line, wipes it and waits for the answer to the newest exchange.
func (p *peer) ask(ctx context.Context, line []byte) (answer, error) {
	defer clear(line)
	if err := p.bound(ctx); err != nil {
		return answer{}, err
	}
	if _, err := p.Write(line); err != nil {
		return answer{}, err
	}
	for {
		line, err := p.lines.Read()
		if err != nil {
			return answer{}, err
		}
		a, err := parseAnswer(line)
		if err != nil {
			return answer{}, err
		}
		if a.verb != "" && a.id == p.last {
			return a, nil
		}
	}
}

// bound ends reads and writes when ctx would.
func (p *peer) bound(ctx context.Context) error {
	by, ok := ctx.Deadline()
	if !ok {
		by = time.Now().Add(answerWithin)
	}
	return p.SetDeadline(by)
}

// get returns an unused connection.
func (r *relay) get(ctx context.Context) (*peer, error) {
	r.mu.Lock()
	for n := len(r.idle); n > 0; n = len(r.idle) {
		p := r.idle[n-1]
		r.idle = r.idle[:n-1]
		if p.timer.Stop() {
			r.mu.Unlock()
			return p, nil
		}
	}
	r.mu.Unlock()
	return r.connect(ctx)
}

// put keeps a connection whose exchange has ended, for a while.
func (r *relay) put(p *peer) {
	p.used = true
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.idle) >= maxIdle || time.Since(p.born) > maxAge {
		p.end()
		return
	}
	p.timer = time.AfterFunc(idleFor, func() {
		r.mu.Lock()
		r.idle = slices.DeleteFunc(r.idle, func(q *peer) bool { return q == p })
		r.mu.Unlock()
		p.end()
	})
	r.idle = append(r.idle, p)
}

// close ends the idle connections.
func (r *relay) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.idle {
		if p.timer.Stop() {
			p.end()
		}
	}
	r.idle = nil
}

func (p *peer) end() {
	_ = p.Close() // nothing waits to be written
	p.lines.Wipe()
}

// connect opens a connection and waits for the other server's offer.
func (r *relay) connect(ctx context.Context) (*peer, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	c, err := new(net.Dialer).DialContext(ctx, "unix", r.path)
	if err != nil {
		return nil, err
	}
	p := &peer{Conn: c, lines: newLineReader(c), born: time.Now()}
	offer, err := p.hello(ctx)
	if err != nil {
		p.end()
		return nil, fmt.Errorf("reading the greeting of %s: %w", r.path, err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.offer = offer
	return p, nil
}

// hello exchanges greetings. Dovecot 2.4 lists its mechanisms only after the client has spoken.
func (p *peer) hello(ctx context.Context) ([]mechanism, error) {
	if err := p.bound(ctx); err != nil {
		return nil, err
	}
	// Dovecot refuses a CPID that another connection has; none of a process is above 2^22.
	if _, err := fmt.Fprintf(p, "VERSION\t1\t1\nCPID\t%d\n", 1<<30+rand.Uint32N(1<<30)); err != nil { //nolint:gosec // G404: a name, no secret
		return nil, err
	}
	offer := []mechanism{}
	for {
		line, err := p.lines.Read()
		if err != nil {
			return nil, err
		}
		m, done, err := parseHello(line)
		switch {
		case err != nil:
			return nil, err
		case done:
			return offer, nil
		case m.name != "" && len(offer) < maxOffer:
			offer = append(offer, m)
		}
	}
}
