// Package policyd answers Postfix's policy delegation protocol: it refuses the next command of an
// open SMTP session once the account may no longer send.
//
// Postfix asks before MAIL, RCPT, DATA or the end of a message, wherever its restriction lists name
// the service, and keeps the connection for many requests. A request is a list of name=value lines
// that ends in an empty one, and so is the answer:
//
//	request=smtpd_access_policy
//	protocol_state=RCPT
//	client_address=203.0.113.9
//	client_port=50412
//	sasl_username=ann@example.org
//	...
//
//	action=DUNNO
//
// DUNNO has no opinion: the restrictions that follow decide. Sessions that the gate permits get it,
// and sessions that did not authenticate: unless a mail rule or a group concerns the recipient,
// inbound mail passes unchanged. The refusals are:
//
//	421 4.7.0  the credential that opened the session was revoked, or may no
//	           longer be used: the client is disconnected, to authenticate again
//	550 5.7.1  a mail rule or a group refuses this recipient; others are accepted
//	450 4.7.1  a sending limit is reached, or the rules are not known yet
//	554 5.7.1  anything else, with the text that the gate lets outsiders see
//
// The service must come before any restriction that permits, as in
//
//	smtpd_recipient_restrictions = check_policy_service unix:private/drawbridge,
//	    permit_mynetworks, permit_sasl_authenticated, reject_unauth_destination
//
// A credential may be revoked between RCPT and the end of the message. The same service in
// smtpd_data_restrictions and smtpd_end_of_data_restrictions refuses the message then. The end of a
// message also decides whether its recipients count towards sending limits: a message that has not
// come to its end when the next one begins, or the connection ends, gives its allowance back.
//
// # Diagnostics
//
// Where no answer is possible — the gate cannot decide, or the request is malformed, oversized or
// truncated — the connection is closed without an answer. Postfix asks once more after a second and
// then falls back on the service's default_action, which is 451 4.3.5 unless the administrator
// chose otherwise. Malformed requests are logged as warnings with what was wrong; refusals are
// logged by the gate.
//
// # Limits
//
// The protocol never shows AUTH, nor which secret was used: that is what the gate remembers of the
// login. It carries no client certificate that a CA vouches for, only the fingerprint of the one
// presented. Messages themselves are looked at by the milter.
//
// Specification: https://www.postfix.org/SMTPD_POLICY_README.html
package policyd

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/serving"
)

// Gate judges sessions and recipients. It must be safe for concurrent use and must not block:
// Postfix waits. Only the end of a message that counts towards a limit may take a moment.
type Gate interface {
	// Submission judges a request of an authenticated session.
	Submission(access.Submission) access.Decision
	// Needs reports whether any rules concern recipients.
	Needs() mailflow.Needs
	// Recipient judges a recipient of a message, which its instance identifies. The envelope is the
	// caller's again afterwards.
	Recipient(*mailflow.Envelope) mailflow.Verdict
	// MessageEnded is called once for each message that Recipient was asked about. A message that
	// was accepted may yet reach a limit that all daemons share.
	MessageEnded(e *mailflow.Envelope, accepted bool) mailflow.Verdict
}

// Server answers policy requests.
type Server struct {
	Gate Gate
	Log  hclog.Logger
}

const (
	// Postfix drops a connection that was idle for 300 s or is 1000 s old
	// (smtpd_policy_service_max_idle, _max_ttl); we outlast it, so that it never meets a connection
	// that we closed just then.
	idleTimeout = 1100 * time.Second
	// firstTimeout bounds the wait for the first request, which Postfix sends as it connects: a
	// peer that stays silent would only take up one of the listener's connections.
	firstTimeout = 5 * time.Second
	// writeTimeout bounds an answer that the client does not read.
	writeTimeout = 100 * time.Second
	// rearm is how stale a deadline may become before it costs a system timer again.
	rearm = 30 * time.Second
)

// Serve answers requests on ln until ctx is done, then closes ln, answers pending requests for at
// most 5 s and returns nil. It returns an error when ln fails, or when connections had to be cut
// off. Accept errors that pass are for ln to outlive, as the listeners of internal/listen do.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	return serving.Serve(ctx, ln, "policy", s.Log, func(nc net.Conn) serving.Session {
		c := &conn{Conn: nc}
		_ = c.SetReadDeadline(time.Now().Add(firstTimeout)) // the first read sets the others
		return serving.Session{Answer: func() { s.serve(c) }, FinishReading: c.finishReading}
	})
}

// serve answers one connection until it ends.
func (s *Server) serve(c *conn) {
	r := newReader(c)
	var answer []byte
	current := current{gate: s.Gate}
	defer current.abandon()
	for {
		req, err := r.Read()
		if err != nil {
			s.logEnd(err)
			return
		}
		verdict := permit
		if req.Account != "" {
			d := s.Gate.Submission(req)
			if verdict = action(&d); verdict == "" {
				return
			}
		}
		if req.Account != "" || s.Gate.Needs().Recipients {
			verdict = current.message(r, verdict)
		}
		answer = appendAction(answer[:0], verdict)
		if _, err := c.Write(answer); err != nil {
			s.logEnd(err)
			return
		}
	}
}

// current is the message that a connection was last asked about: Postfix uses a connection for one
// SMTP session at a time.
type current struct {
	gate     Gate
	open     bool              // it has not come to its end
	envelope mailflow.Envelope // of the last recipient
}

// message continues with the message of a request, for which verdict was found so far.
func (c *current) message(r *reader, verdict string) string {
	if c.open && c.envelope.Instance != string(r.mail.instance) {
		c.abandon()
	}
	switch string(r.mail.state) {
	case "RCPT":
		if verdict != permit || len(r.mail.instance) == 0 {
			return verdict
		}
		r.envelope(&c.envelope)
		c.open = true
		v := c.gate.Recipient(&c.envelope)
		return recipientAction(&v)
	case "DATA":
		c.envelope.Data = c.open && verdict == permit
	case "END-OF-MESSAGE":
		if c.open {
			c.open = false
			r.envelope(&c.envelope)
			if v := c.gate.MessageEnded(&c.envelope, verdict == permit); verdict == permit {
				return recipientAction(&v)
			}
		}
	}
	return verdict
}

// abandon reports a message that did not come to its end here.
func (c *current) abandon() {
	if c.open {
		c.open = false
		c.gate.MessageEnded(&c.envelope, false)
	}
}

// logEnd logs why a connection ended, unless that is how connections end.
func (s *Server) logEnd(err error) {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, net.ErrClosed):
	case errors.Is(err, errMalformed):
		s.Log.Warn("policy request refused, connection closed", "error", err)
	default:
		s.Log.Info("policy connection lost", "error", err)
	}
}

// conn is a connection whose reads and writes end in time.
type conn struct {
	net.Conn
	armed    time.Time // when the deadlines were set
	stopping atomic.Bool
}

// Read sets the deadlines behind it, for the answer and for the read after that; they are seldom
// stale enough to be worth the cost.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if time.Since(c.armed) > rearm {
		c.arm()
	}
	return n, err
}

func (c *conn) arm() {
	c.armed = time.Now()
	_ = c.SetReadDeadline(c.armed.Add(idleTimeout + rearm))
	_ = c.SetWriteDeadline(c.armed.Add(writeTimeout + rearm))
	if c.stopping.Load() { // finishReading came between
		_ = c.SetReadDeadline(c.armed)
	}
}

// finishReading ends the read that waits for the next request; a request read before is still
// answered.
func (c *conn) finishReading() {
	c.stopping.Store(true)
	_ = c.SetReadDeadline(time.Now())
}
