// Package saslauth serves Dovecot's authentication protocol, so that Postfix asks Drawbridge about
// submission logins without Dovecot in between (smtpd_sasl_path, smtpd_sasl_type = dovecot).
//
// The client keeps one connection for many exchanges. Fields are separated by TABs:
//
//	C: VERSION  1  0
//	C: CPID  4711
//	S: VERSION  1  2
//	S: MECH  PLAIN  plaintext
//	S: MECH  LOGIN  plaintext
//	S: SPID  612
//	S: CUID  1
//	S: COOKIE  0123456789abcdef0123456789abcdef
//	S: DONE
//	C: AUTH  1  PLAIN  service=smtp  nologin  lip=192.0.2.25  rip=203.0.113.9  secured  resp=AGFubkBl…
//	S: OK  1  user=ann@example.org
//	C: AUTH  2  LOGIN  service=smtp  nologin  lip=192.0.2.25  rip=203.0.113.9  secured
//	S: CONT  2  VXNlcm5hbWU6
//	…
//	S: FAIL  2  reason=This service is switched off for your account.
//
// PLAIN and LOGIN are decided by the gate. The outcome next, and every mechanism that the gate does
// not see the secret of, is passed on to the site's own authentication server (setting sasl.next),
// with the client's address. The name that it answers with is judged before the client gets OK, so
// that a passdb which maps names opens no way around the rules. Each login has an unguessable
// session id; a passdb of Drawbridge's behind that server finds the login by it and adds nothing to
// the records.
//
// PLAIN may name another account than the one that authenticates (RFC 4616, authzid), and a name
// may be "account*master" (setting sasl.master_separator): a master login, which only the site's
// own server can verify.
//
// # Diagnostics
//
// A temporary failure closes the connection without a word. Postfix then answers 454, and asks
// again on a new connection; every FAIL becomes 535, and clients ask their user for another
// password. It happens when the gate cannot decide, when the site's own server cannot be reached,
// is too slow or reports a temporary failure itself, and when a line is malformed. The log names
// the cause; it never quotes a line, since AUTH lines contain passwords.
//
// A response that means nothing (base64, a missing NUL, a password of more than 4 KiB) and a
// mechanism that is not offered are refusals: the client's fault.
//
// # Limits
//
// A connection answers one exchange after the other, as Postfix asks. At most four wait for a
// further response of the client's; the oldest makes room. There is no greeting by TLS and no key:
// the unix socket's mode decides who may ask, and the client's addresses and TLS are trusted.
//
// Specification: https://doc.dovecot.org/2.4.1/core/developers/design/auth_protocol.html
package saslauth

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/serving"
)

// Gate decides logins. It must be safe for concurrent use; it may take as long as a slow hash, and
// Postfix gives up after ten seconds.
type Gate interface {
	// Login decides and records a login.
	Login(ctx context.Context, l *access.Login) access.Decision
	// Report records how a login with outcome next ended at the server that verified its secret. It
	// is called once for each.
	Report(e *access.Ending)
	// Recheck evaluates the rules for the name that the site's own server has given a login, and
	// records refusals. The typed name was judged by Login.
	Recheck(l *access.Login, typed string) access.Decision
}

// Server answers the authentication protocol.
type Server struct {
	Gate Gate
	Log  hclog.Logger
	// Next is the unix socket of the site's own server of the protocol; "" for none.
	Next string
	// MasterSeparator separates account and master in the name of a master login, as Dovecot's
	// auth_master_user_separator does; "" for none.
	MasterSeparator string
}

const (
	// answerWithin bounds each answer: Postfix gives up after ten seconds.
	answerWithin = 9 * time.Second
	// helloWithin bounds the wait for a client's greeting.
	helloWithin  = 30 * time.Second
	writeTimeout = 10 * time.Second
	// lingerFor bounds the wait for further responses of exchanges that are under way when the server
	// stops.
	lingerFor  = 3 * time.Second
	maxWaiting = 4 // exchanges of a connection that wait for their client
)

// past is a deadline that ends a read at once.
var past = time.Unix(1, 0)

// Serve answers on ln until ctx is done, then closes ln, finishes pending exchanges for at most 5 s
// and returns nil. It returns an error when ln fails, or when connections had to be cut off.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	var next *relay
	if s.Next != "" {
		next = &relay{path: s.Next}
		defer next.close()
	}
	var connections atomic.Int64
	// Exchanges in progress when ctx ends are still decided; serving bounds the wait.
	within := context.WithoutCancel(ctx)
	return serving.Serve(ctx, ln, "SASL", s.Log, func(nc net.Conn) serving.Session {
		c := &conn{Conn: nc, server: s, next: next, number: int(connections.Add(1)), lines: newLineReader(nc)}
		return serving.Session{
			Answer:        func() { c.serve(within) },
			FinishReading: func() { c.stopping.Store(true); _ = c.SetReadDeadline(past) },
		}
	})
}

// conn is one client's connection.
type conn struct {
	net.Conn
	server   *Server
	next     *relay // nil for none
	number   int
	lines    *lineReader
	waiting  []*exchange // for a response, oldest first
	out      []byte
	stopping atomic.Bool
	phase    phase
}

// phase is the part of its life that a connection is in.
type phase uint8

const (
	running   phase = iota
	lingering       // the server stops: exchanges under way may end
	closing         // what was sent is still answered; the client can send no more
)

// exchange is one login under way.
type exchange struct {
	id uint32
	auth
	user []byte // of LOGIN, once it is known
	peer *peer  // of a mechanism that is passed on
}

// end releases the resources of an exchange.
func (x *exchange) end() {
	if x.peer != nil {
		x.peer.end()
		x.peer = nil
	}
}

var (
	errHello     = fmt.Errorf("%w: VERSION and CPID must come first", errMalformed)
	errDuplicate = fmt.Errorf("%w: AUTH repeats the number of an exchange that is under way", errMalformed)
	// errSilence closes a connection for a reason that was logged where it was known.
	errSilence = errors.New("temporary failure")
)

func (c *conn) serve(ctx context.Context) {
	defer func() {
		for _, x := range c.waiting {
			x.end()
		}
		c.lines.Wipe()
	}()
	err := c.greet(ctx)
	for err == nil {
		err = c.answer(ctx)
	}
	log := c.server.Log
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed), errors.Is(err, errSilence):
	case errors.Is(err, os.ErrDeadlineExceeded) && c.stopping.Load():
	case errors.Is(err, errMalformed):
		log.Warn("SASL request refused, connection closed", "error", err)
	default:
		log.Info("SASL connection lost", "error", err)
	}
}

// greet lists the mechanisms and waits for the client's greeting.
func (c *conn) greet(ctx context.Context) error {
	cookie := make([]byte, 16)
	_, _ = rand.Read(cookie) // never fails
	if err := c.write(appendHello(nil, c.offer(ctx), os.Getpid(), c.number, hex.EncodeToString(cookie))); err != nil {
		return err
	}
	c.readBy(time.Now().Add(helloWithin))
	for version := false; ; {
		line, err := c.read()
		if err != nil {
			return err
		}
		req, err := parseRequest(line)
		switch {
		case err != nil:
			return err
		case req.verb == "VERSION":
			version = true
		case req.verb == "CPID" && version:
			// Idle clients are not disconnected: Postfix keeps its connection from one SMTP session
			// to the next, and an AUTH that meets a closed one is answered 454.
			c.readBy(time.Time{})
			return nil
		case req.verb != "":
			return errHello
		}
	}
}

// readBy sets the deadline of reads, unless the server is about to stop.
func (c *conn) readBy(t time.Time) {
	if c.phase != running {
		return
	}
	_ = c.SetReadDeadline(t)
	if c.stopping.Load() {
		_ = c.SetReadDeadline(past)
	}
}

// read returns the next line. Once the server stops, exchanges under way may end; then the client's
// next write fails at once, so that Postfix connects again in place of waiting for an answer. What it
// has written by then is still returned.
func (c *conn) read() ([]byte, error) {
	if c.phase == lingering && len(c.waiting) == 0 {
		c.closeRead()
	}
	for {
		line, err := c.lines.Read()
		switch {
		case !errors.Is(err, os.ErrDeadlineExceeded) || !c.stopping.Load() || c.phase == closing:
			return line, err
		case c.phase == running && len(c.waiting) > 0:
			c.phase = lingering
			_ = c.SetReadDeadline(time.Now().Add(lingerFor))
		default:
			c.closeRead()
		}
	}
}

// closeRead has the client's next write fail.
func (c *conn) closeRead() {
	c.phase = closing
	r, ok := c.Conn.(interface{ CloseRead() error })
	if !ok || r.CloseRead() != nil {
		return // the deadline has passed: the next read fails
	}
	_ = c.SetReadDeadline(time.Now().Add(lingerFor)) // what was sent is there, and then the end
}

// offer returns the mechanisms: those decided here, and those of the site's own server.
func (c *conn) offer(ctx context.Context) []mechanism {
	offer := []mechanism{{"PLAIN", "plaintext"}, {"LOGIN", "plaintext"}}
	if c.next == nil {
		return offer
	}
	others, err := c.next.mechanisms(ctx)
	if err != nil {
		c.server.Log.Warn("sasl.next cannot be asked for its mechanisms; PLAIN and LOGIN alone are offered", "error", err)
	}
	for _, m := range others {
		if m.name != "PLAIN" && m.name != "LOGIN" {
			offer = append(offer, m)
		}
	}
	return offer
}

// answer reads one line and answers it.
func (c *conn) answer(ctx context.Context) error {
	line, err := c.read()
	if err != nil {
		return err
	}
	req, err := parseRequest(line)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	switch req.verb {
	case "AUTH":
		return c.begin(ctx, req)
	case "CONT":
		x := c.take(req.id)
		if x == nil { // it was cancelled, or made room
			return c.say("FAIL", req.id)
		}
		return c.goOn(ctx, x, req.reply)
	case "CANCEL":
		if x := c.take(req.id); x != nil {
			x.end()
		}
	case "VERSION", "CPID":
		return errHello
	}
	return nil
}

// take removes an exchange from those that wait.
func (c *conn) take(id uint32) *exchange {
	i := slices.IndexFunc(c.waiting, func(x *exchange) bool { return x.id == id })
	if i < 0 {
		return nil
	}
	x := c.waiting[i]
	c.waiting = slices.Delete(c.waiting, i, i+1)
	return x
}

// challenge asks the client for a response.
func (c *conn) challenge(x *exchange, challenge string) error {
	if len(c.waiting) == maxWaiting {
		c.waiting[0].end()
		c.waiting = slices.Delete(c.waiting, 0, 1)
	}
	x.initial = nil // within a line that is about to be wiped
	c.waiting = append(c.waiting, x)
	return c.say("CONT", x.id, challenge)
}

// The prompts of LOGIN, as Dovecot has them.
const (
	promptUser   = "VXNlcm5hbWU6" // "Username:"
	promptSecret = "UGFzc3dvcmQ6" //nolint:gosec // G101: it says "Password:"
)

// begin answers AUTH.
func (c *conn) begin(ctx context.Context, req request) error {
	if slices.ContainsFunc(c.waiting, func(x *exchange) bool { return x.id == req.id }) {
		return errDuplicate
	}
	x := &exchange{id: req.id, auth: req.auth}
	x.login.Session = access.RelayedSession + rand.Text()
	switch x.mechanism {
	case "PLAIN":
		if !x.hasFirst {
			return c.challenge(x, "")
		}
		return c.plain(ctx, x, x.initial)
	case "LOGIN":
		if !x.hasFirst || len(x.initial) == 0 {
			return c.challenge(x, promptUser)
		}
		return c.loginUser(x, x.initial)
	}
	if c.next == nil {
		return c.say("FAIL", x.id)
	}
	offered, err := c.next.offers(ctx, x.mechanism)
	switch {
	case err != nil:
		return c.unreachable(err)
	case !offered: // Dovecot 2.4 would hang up
		return c.say("FAIL", x.id)
	}
	p, ans, err := c.next.begin(ctx, &x.auth)
	if err != nil {
		return c.unreachable(err)
	}
	x.peer = p
	return c.passBack(ctx, x, ans)
}

// goOn answers CONT.
func (c *conn) goOn(ctx context.Context, x *exchange, response []byte) error {
	switch {
	case x.peer != nil:
		ans, err := x.peer.goOn(ctx, response)
		if err != nil {
			x.end()
			return c.unreachable(err)
		}
		return c.passBack(ctx, x, ans)
	case x.mechanism == "PLAIN":
		return c.plain(ctx, x, response)
	case x.user == nil:
		return c.loginUser(x, response)
	default:
		return c.loginSecret(ctx, x, response)
	}
}

func (c *conn) plain(ctx context.Context, x *exchange, response []byte) error {
	b, err := decode(response)
	if err != nil {
		return c.say("FAIL", x.id)
	}
	defer clear(b)
	authorise, user, secret, err := plain(b)
	if err != nil {
		return c.say("FAIL", x.id)
	}
	if len(authorise) > 0 && string(authorise) != string(user) {
		return c.master(ctx, x, string(user), response)
	}
	return c.decide(ctx, x, user, secret)
}

func (c *conn) loginUser(x *exchange, response []byte) error {
	user, err := decode(response)
	if err != nil || len(user) == 0 || !usableName(user) {
		return c.say("FAIL", x.id)
	}
	x.user = user
	return c.challenge(x, promptSecret)
}

func (c *conn) loginSecret(ctx context.Context, x *exchange, response []byte) error {
	secret, err := decode(response)
	defer clear(secret)
	if err != nil || len(secret) > maxSecret || slices.Contains(secret, 0) {
		return c.say("FAIL", x.id)
	}
	return c.decide(ctx, x, x.user, secret)
}

// decide asks the gate about a login whose secret is known.
func (c *conn) decide(ctx context.Context, x *exchange, user, secret []byte) error {
	if account, master, ok := c.server.masterName(string(user)); ok {
		response := encodePlain(account, master, secret)
		defer clear(response)
		return c.master(ctx, x, master, response)
	}
	l := x.login
	l.Account, l.Secret, l.Relayed = string(user), secret, c.next != nil
	d := c.server.Gate.Login(ctx, &l)
	switch words(d.Outcome) {
	case admit:
		return c.say("OK", x.id, "user="+escape(cmp.Or(d.User, d.Account)))
	case refuse:
		return c.refuse(x.id, d.Message)
	case passOn:
		return c.verify(ctx, x, &l)
	case silence:
	}
	return errSilence // the gate has logged it
}

// verify answers by what the site's own server says of a secret, and the rules of its name for the
// account.
func (c *conn) verify(ctx context.Context, x *exchange, l *access.Login) error {
	if c.next == nil {
		c.server.Log.Error("a login is for the next passdb, and the setting sasl.next names none", "account", serving.ASCII(l.Account))
		return errSilence
	}
	found, err := c.next.verify(ctx, c.server.Gate, &x.auth, l, l.Account)
	switch {
	case err != nil:
		return c.unreachable(err)
	case found.permits():
		return c.say("OK", x.id, "user="+escape(found.user))
	case found.accepted:
		return c.refuseFinal(x.id, &found.rules)
	}
	return c.refuse(x.id, found.reason)
}

// masterName splits the name of a master login, "account*master".
func (s *Server) masterName(name string) (account, master string, ok bool) {
	if s.MasterSeparator == "" {
		return "", "", false
	}
	account, master, ok = strings.Cut(name, s.MasterSeparator)
	return account, master, ok && account != "" && master != ""
}

// master passes on a login in which one user authenticates and another one's account is opened.
func (c *conn) master(ctx context.Context, x *exchange, user string, response []byte) error {
	if c.next == nil {
		return c.say("FAIL", x.id)
	}
	x.login.MasterUser = user
	x.mechanism, x.initial, x.hasFirst = "PLAIN", response, true
	p, ans, err := c.next.begin(ctx, &x.auth)
	x.initial = nil
	if err != nil {
		return c.unreachable(err)
	}
	x.peer = p
	return c.passBack(ctx, x, ans)
}

// passBack relays the site's own server's answer about a mechanism that hides its secret.
func (c *conn) passBack(ctx context.Context, x *exchange, ans answer) error {
	switch {
	case ans.verb == "CONT":
		return c.challenge(x, string(ans.challenge))
	case ans.verb == "OK" && ans.user != "" && !ans.nologin:
		c.next.put(x.peer)
		l := x.login
		l.Account, l.Lookup, l.Relayed = ans.user, access.LookupCredentials, true
		d := c.server.Gate.Login(ctx, &l)
		if d.Outcome != access.Allow && d.Outcome != access.Next {
			return c.refuseFinal(x.id, &d)
		}
		c.server.Gate.Report(&access.Ending{Account: l.Account, IP: l.IP, Service: l.Service, Session: l.Session, Success: true})
		parameters := []string{"user=" + escape(ans.user)}
		if ans.final != "" {
			parameters = append(parameters, "resp="+ans.final)
		}
		return c.say("OK", x.id, parameters...)
	case ans.verb == "FAIL" && !ans.temporary, ans.verb == "OK" && ans.nologin:
		c.next.put(x.peer)
		return c.refuse(x.id, ans.reason)
	}
	x.end()
	return c.unreachable(errors.New("sasl.next reports a temporary failure"))
}

// refuseFinal answers a decision about the name that the site's own server authenticated.
func (c *conn) refuseFinal(id uint32, d *access.Decision) error {
	if words(d.Outcome) != refuse {
		return errSilence
	}
	return c.refuse(id, d.Message)
}

func (c *conn) refuse(id uint32, reason string) error {
	if reason == "" {
		return c.say("FAIL", id)
	}
	return c.say("FAIL", id, "reason="+text(reason))
}

// unreachable logs why the site's own server could not decide.
func (c *conn) unreachable(err error) error {
	c.server.Log.Warn("sasl.next cannot be asked, the connection is closed for a temporary failure", "error", err)
	return errSilence
}

func (c *conn) say(verb string, id uint32, parameters ...string) error {
	c.out = appendAnswer(c.out[:0], verb, id, parameters...)
	return c.write(c.out)
}

func (c *conn) write(b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := c.Write(b)
	return err
}
