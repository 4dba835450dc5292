// Package milter checks messages while Postfix still holds the client: it refuses sender addresses
// that the authenticated user may not use (M1), and adds a header to submitted mail that names
// client and device sent it (M10).
//
// Postfix connects for each SMTP session, reports who authenticated when a message begins, and then
// sends the requested packets:
//
//	MAIL {auth_authen}=ann@example.org <eve@example.org>
//	                   550 5.7.1 The sender address eve@example.org does not belong to your account: ...
//	MAIL {auth_authen}=ann@example.org <ann@example.org>
//	                   continue
//	From: Eve <eve@example.org>
//	end of headers     550 5.7.1 The address eve@example.org in the From header does not belong ...
//
// The null sender is allowed. The originator fields From, Sender, Resent-From and Resent-Sender are
// checked, and From must be there; what [mailflow.Mailboxes] cannot read is refused. Messages of
// sessions that did not authenticate (inbound mail, local mail through sendmail) pass unchanged,
// except that X-Drawbridge-Client fields are removed wherever header fields are seen: those that
// remain are ours. Ours stands above the Received field of the server that accepted the message.
//
// The milter asks only for what enforced rules use: for recipients, header fields and bodies only
// if [Gate] says so as the connection opens. A message that no rule concerns is accepted at MAIL.
// If a rule that needs more takes effect in a session that was opened without, the answer to MAIL
// is 421, and the client connects again.
//
// A whole message is judged once at its end, at all its recipients ([Rules]). What a rule wants
// approved or copied is stored before the client reads 250 ([Keeper]): recipients for whom the
// message is held are removed, and if none is left the message is discarded. So are recipients whose
// filter files it as spam, where others get it as well: the keeper sends it to them apart. If it
// cannot be stored, the answer is 451.
//
// # Diagnostics
//
// Refused messages are logged with account, address, sender, queue id (if any yet) and reason. When
// the rules are not available the answer is 451. A packet that is malformed, out of bounds or
// truncated is logged and closes the connection: Postfix then applies milter_default_action, a
// temporary failure unless the administrator chose otherwise. A panic in a session ends its
// connection; go-milter reports it through the standard library's log, which the program has to
// redirect to its own.
//
// # Limits
//
// The account is the macro {auth_authen}, which Postfix sends at MAIL unless milter_mail_macros was
// changed; without it every session counts as not authenticated. A display name may say anything.
// Reply-To is not checked.
package milter

import (
	"context"
	"errors"
	"net"
	"net/netip"

	gomilter "github.com/emersion/go-milter"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/serving"
)

// Gate knows the rules. It must be safe for concurrent use and must not block: Postfix waits for it.
type Gate interface {
	// Needs returns the parts of messages that enforced rules use. It is asked as each connection
	// opens.
	Needs() mailflow.Needs
	// Connected reports that an SMTP session of a client begins now, before anything can
	// authenticate it. The returned function reports the session's end.
	Connected(ip netip.Addr, port uint16) (ended func())
	// Submitter returns the rules for a message of an authenticated session, as MAIL begins. The
	// client's address may be invalid.
	Submitter(access.Submission) mailflow.Submitter
	// Submission decides whether an authenticated session may still send. It is asked when a
	// message has been received: the login may have been revoked since it began.
	Submission(access.Submission) access.Decision
}

// Server answers milter connections.
type Server struct {
	Gate  Gate
	Rules Rules // nil if no rule is to be evaluated
	// Envelopes says what is known before a message is there; nil if nothing is.
	Envelopes Envelopes
	Keeper    Keeper // nil if nothing can be held or copied
	Log       hclog.Logger
	// MaxMemory bounds the octets of messages that are collected at the same time; 0 for 256 MiB.
	// All listeners of a daemon share one server.
	MaxMemory int64

	memory memory
}

// Serve answers connections on ln until ctx is done, then closes ln, answers the packets in flight
// for at most 5 s and returns nil. It returns an error when ln fails, or when connections had to be
// cut off. Accept errors that pass are for ln to outlive, as the listeners of internal/listen do.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return serving.Serve(ctx, ln, "milter", s.Log, func(nc net.Conn) serving.Session {
		c := newConn(nc)
		return serving.Session{Answer: func() { s.serve(c) }, FinishReading: c.finishReading}
	})
}

// serve answers one connection until it ends.
func (s *Server) serve(c *conn) {
	if offered, err := c.negotiation(); err != nil {
		c.fail(err)
	} else {
		session := newSession(s, offered)
		c.declined = session.declines
		session.params = func() []string { return c.params }
		session.add = c.addRecipient
		// A server of its own, because go-milter has one set of options for all of a server's
		// connections, and because it starts anew with another Milter after each answer that ends a
		// message: here it is the same one.
		server := gomilter.Server{
			NewMilter: func() gomilter.Milter { return session },
			Actions:   session.options.actions,
			Protocol:  session.options.protocol,
		}
		_ = server.Serve(&oneConn{Conn: c}) // ends at once, with the listener
		<-c.closed
		session.end()
		session.drop()
	}
	switch {
	case errors.Is(c.cause, errMalformed):
		s.Log.Warn("milter packet refused, connection closed", "error", c.cause)
	case c.cause != nil:
		s.Log.Info("milter connection lost", "error", c.cause)
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
