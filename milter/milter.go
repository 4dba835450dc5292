// Package milter looks at messages while Postfix still holds the client: it
// refuses senders that do not belong to whoever authenticated (M1), and notes
// on submitted mail with what it was sent (M10).
//
// Postfix connects for each SMTP session, says who authenticated when a message
// begins, and then shows what was asked for of it:
//
//	MAIL {auth_authen}=ann@example.org <eve@example.org>
//	                   550 5.7.1 The sender address does not belong to your account.
//	MAIL {auth_authen}=ann@example.org <ann@example.org>
//	                   continue
//	From: Eve <eve@example.org>
//	end of headers     550 5.7.1 The address in the From header does not belong to your account.
//
// The null sender is allowed, and so is a message without From: to those of
// local clients Postfix adds one, made of the envelope's sender. What
// [mailflow.FromMailboxes] cannot read is refused. Messages of sessions that did
// not authenticate, inbound mail and local mail through sendmail, pass untouched
// but for one thing: X-Drawbridge-Client fields that somebody else wrote are
// removed, wherever header fields are looked at, so that those which remain are
// ours. Ours stands above the Received field of the server that took the message.
//
// What no rule in force needs is not asked for: bodies never, header fields
// only when [Gate] says so as the connection opens, and a message that no rule
// concerns is accepted at MAIL, without a further word about it. If a rule that
// needs header fields begins to concern a session that was opened without, the
// answer is 421, and the client connects again.
//
// # Diagnostics
//
// Refused messages are logged with account, address, sender, queue id (if any
// yet) and reason. Where nothing can be told now the answer is 451. A packet
// that is malformed, out of bounds or truncated is logged and closes the
// connection: Postfix then does what milter_default_action says, which is a
// temporary failure unless the administrator chose otherwise. Panics in a
// session end its connection; go-milter reports them through the standard
// library's log, which the program has to point at its own.
//
// # Limits
//
// The account is the macro {auth_authen}, which Postfix sends at MAIL unless
// milter_mail_macros was changed; without it every session counts as not
// authenticated. A display name may say anything. Only From is checked, not
// Sender or Reply-To.
package milter

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	gomilter "github.com/emersion/go-milter"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// Gate knows the rules. It must be safe for concurrent use and must not block:
// Postfix waits.
type Gate interface {
	// Needs tells which parts of messages some rule in force wants to see. It
	// is asked as each connection opens.
	Needs() mailflow.Needs
	// Connected tells that an SMTP session of a client begins now. Whatever
	// authenticates it comes later.
	Connected(ip netip.Addr, port uint16)
	// Submitter tells how the rules see a message that login submits from an
	// SMTP session of the given client. The address may be invalid.
	Submitter(login string, ip netip.Addr, port uint16) mailflow.Submitter
}

// Server answers milter connections.
type Server struct {
	Gate Gate
	Log  hclog.Logger
}

// stopTimeout bounds the wait for packets in flight.
const stopTimeout = 5 * time.Second

// Serve answers connections on ln until ctx is done, then closes ln, answers
// the packets in flight for at most 5 s and returns nil. It returns an error
// when ln fails for good, or when connections had to be cut off.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	conns := connections{open: map[*conn]struct{}{}}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	err := s.accept(ctx, ln, &conns)
	_ = ln.Close()
	return errors.Join(err, conns.finish(stopTimeout))
}

func (s *Server) accept(ctx context.Context, ln net.Listener, conns *connections) error {
	const longest = time.Second
	pause := 5 * time.Millisecond
	for {
		nc, err := ln.Accept()
		switch {
		case err == nil:
			pause = 5 * time.Millisecond
			c := newConn(nc)
			conns.add(c)
			go func() {
				defer conns.remove(c)
				s.serve(c)
			}()
		case ctx.Err() != nil:
			return nil //nolint:nilerr // ln was closed because ctx ended
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accepting milter connections: %w", err)
		default: // such as too many open files: those in use will be closed
			s.Log.Error("accepting milter connections", "error", err, "retry_in", pause)
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
			pause = min(2*pause, longest)
		}
	}
}

// serve answers one connection until it ends.
func (s *Server) serve(c *conn) {
	defer func() {
		if v := recover(); v != nil {
			s.Log.Error("panic opening a milter connection", "panic", ascii(fmt.Sprint(v)), "stack", ascii(string(debug.Stack())))
		}
	}()
	offered, err := c.negotiation()
	if err == nil {
		session := newSession(s, offered)
		c.declined = session.declines
		// A server of its own, because go-milter has one set of options for all of
		// a server's connections, and because it starts anew with another Milter
		// after each answer that ends a message: here it is the same one.
		server := gomilter.Server{
			NewMilter: func() gomilter.Milter { return session },
			Actions:   session.options.actions,
			Protocol:  session.options.protocol,
		}
		_ = server.Serve(&oneConn{Conn: c}) // ends at once, with the listener
		<-c.closed
		err = c.cause
	}
	switch {
	case errors.Is(err, errMalformed):
		s.Log.Warn("milter packet refused, connection closed", "error", err)
	case err != nil:
		s.Log.Info("milter connection lost", "error", err)
	}
}

// oneConn is a listener with one connection to give.
type oneConn struct {
	net.Conn
	given bool
}

func (o *oneConn) Accept() (net.Conn, error) {
	if o.given {
		return nil, net.ErrClosed
	}
	o.given = true
	return o.Conn, nil
}

func (o *oneConn) Close() error   { return nil } // of the listener, not of its connection
func (o *oneConn) Addr() net.Addr { return o.LocalAddr() }

// connections are those that a Serve has open.
type connections struct {
	mu   sync.Mutex
	open map[*conn]struct{}
	busy sync.WaitGroup
}

func (cs *connections) add(c *conn) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open[c] = struct{}{}
	cs.busy.Add(1)
}

func (cs *connections) remove(c *conn) {
	_ = c.Close()
	cs.mu.Lock()
	delete(cs.open, c)
	cs.mu.Unlock()
	cs.busy.Done()
}

func (cs *connections) each(f func(*conn)) (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		f(c)
	}
	return len(cs.open)
}

// finish lets packets in flight be answered, and cuts off what takes longer than patience.
func (cs *connections) finish(patience time.Duration) error {
	cs.each((*conn).finishReading)
	done := make(chan struct{})
	go func() {
		cs.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		n := cs.each(func(c *conn) { _ = c.Conn.Close() })
		return fmt.Errorf("stopping: %d milter connections were cut off after %v", n, patience)
	}
}

// ascii makes of anything one line of ASCII. Quotes are left to the log, which
// escapes them itself.
func ascii(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
