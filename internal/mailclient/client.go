// Package mailclient speaks IMAP, POP3, ManageSieve and SMTP as a mail program does, one command at
// a time, and returns each answer of the server unchanged. Tests and the trial stack use it to play
// clients of many addresses:
//
//	s, err := mailclient.Client{From: "127.0.9.9"}.IMAP(ctx, "127.0.0.1:10143")
//	reply, err := s.Login("ann@example.org", "secret")
//	// reply.Status is "NO [AUTHENTICATIONFAILED] Authentication failed."
//
// It verifies no certificate and is no client for real mail.
package mailclient

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Client opens sessions from one source address. The zero value connects from the kernel's choice
// of address and accepts any certificate.
type Client struct {
	From         string            // source IP address; "" leaves it to the kernel
	Timeout      time.Duration     // for each answer; 0 means one minute
	ServerName   string            // SNI; "" sends none
	Certificates []tls.Certificate // client certificates, sent when the server requests one
	// Behind is the address that a PROXY line (version 1) names as the client's. From is then the
	// address of the load balancer.
	Behind netip.Addr
}

// A Session is one connection of a line protocol. After an I/O error, every later call returns an
// error too.
type Session struct {
	conn    net.Conn
	r       *bufio.Reader
	timeout time.Duration
	tls     *tls.Config
}

// dial connects; with TLS from the first byte when secure.
func (c Client) dial(ctx context.Context, addr string, secure bool) (*Session, error) {
	dialer := net.Dialer{}
	if c.From != "" {
		ip := net.ParseIP(c.From)
		if ip == nil {
			return nil, fmt.Errorf("source address %q: want an IP address", c.From)
		}
		dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	s := &Session{timeout: c.Timeout, tls: &tls.Config{
		InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, //nolint:gosec // G402: loopback, see Client
		ServerName: c.ServerName, Certificates: c.Certificates,
	}}
	if s.timeout == 0 {
		s.timeout = time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	conn, err := dialer.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	s.use(conn)
	if c.Behind.IsValid() {
		family, to := "TCP4", "192.0.2.1"
		if c.Behind.Is6() {
			family, to = "TCP6", "2001:db8::1"
		}
		if err := s.send(fmt.Sprintf("PROXY %s %s %s 40000 143", family, c.Behind, to)); err != nil {
			return nil, err
		}
	}
	if secure {
		if err := s.encrypt(); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// greeted connects and reads the server's greeting line.
func (c Client) greeted(ctx context.Context, addr string, secure bool) (*Session, string, error) {
	s, err := c.dial(ctx, addr, secure)
	if err != nil {
		return nil, "", err
	}
	greeting, err := s.line()
	if err != nil {
		_ = s.Close() // the first error says more
		return nil, "", err
	}
	return s, greeting, nil
}

func (s *Session) use(conn net.Conn) {
	s.conn, s.r = conn, bufio.NewReader(conn)
}

// encrypt starts TLS on the connection.
func (s *Session) encrypt() error {
	conn := tls.Client(s.conn, s.tls)
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if err := conn.Handshake(); err != nil {
		_ = s.conn.Close() // the handshake's error says more
		return err
	}
	s.use(conn)
	return nil
}

// Close closes the connection without logging out, as a client that crashes does. Calling it twice
// returns an error of the connection.
func (s *Session) Close() error { return s.conn.Close() }

// Ended waits until the server closes the connection, and returns its last line. The error is that
// of a connection that is still open after the time.
func (s *Session) Ended(within time.Duration) (last string, err error) {
	end := time.Now().Add(within)
	for {
		if err := s.conn.SetReadDeadline(end); err != nil {
			return last, err
		}
		line, err := s.r.ReadString('\n')
		if line != "" {
			last = strings.TrimRight(line, "\r\n")
		}
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return last, err
		case err != nil:
			return last, nil //nolint:nilerr // it ended
		}
	}
}

// send writes a line and sets the deadline for its answer.
func (s *Session) send(line string) error {
	if err := s.conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	_, err := io.WriteString(s.conn, line+"\r\n")
	return err
}

// line reads one line and strips its line ending.
func (s *Session) line() (string, error) {
	line, err := s.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

var literal = regexp.MustCompile(`\{(\d+)\}$`)

// unit reads a line together with its literals, as IMAP and ManageSieve send them: "{3}", CRLF,
// three bytes, then the rest of the line.
func (s *Session) unit() (string, error) {
	var text strings.Builder
	for {
		line, err := s.line()
		text.WriteString(line)
		if err != nil {
			return text.String(), err
		}
		m := literal.FindStringSubmatch(line)
		if m == nil {
			return text.String(), nil
		}
		n, err := strconv.ParseInt(m[1], 10, 32)
		if err != nil {
			return text.String(), err
		}
		text.WriteString("\r\n")
		if _, err := io.CopyN(&text, s.r, n); err != nil {
			return text.String(), err
		}
	}
}

// plain returns the initial response of SASL PLAIN, RFC 4616.
func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// quoted returns s as a quoted string of IMAP and ManageSieve.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
