package trialstack

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// A Client speaks the mail protocols from an address of its choice, and returns what the servers
// say, word for word. The zero value comes from 127.0.0.1 and accepts any certificate: it plays
// clients, it keeps no secrets.
type Client struct {
	From         string            // source address; "" leaves it to the kernel
	Timeout      time.Duration     // for each answer; 0 means one minute
	ServerName   string            // what it asks for under TLS (SNI); "" is nothing
	Certificates []tls.Certificate // what it shows when it is asked for one
	// Behind is the address of a client behind the load balancer, which From then is: a PROXY line
	// (version 1) goes first.
	Behind netip.Addr
}

// Balanced is a client of an address anywhere, behind the site's load balancer.
func Balanced(ip netip.Addr) Client { return Client{From: Balancer, Behind: ip} }

// A session is one connection of a line protocol. The fault that ends it is the error of every
// later call as well.
type session struct {
	conn    net.Conn
	r       *bufio.Reader
	timeout time.Duration
	tls     *tls.Config
}

// dial connects; with TLS from the first byte when secure.
func (c Client) dial(ctx context.Context, addr string, secure bool) (*session, error) {
	dialer := net.Dialer{}
	if c.From != "" {
		ip := net.ParseIP(c.From)
		if ip == nil {
			return nil, fmt.Errorf("source address %q: want an IP address", c.From)
		}
		dialer.LocalAddr = &net.TCPAddr{IP: ip}
	}
	s := &session{timeout: c.Timeout, tls: &tls.Config{
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

// greeted connects and reads the line with which the server begins.
func (c Client) greeted(ctx context.Context, addr string, secure bool) (*session, string, error) {
	s, err := c.dial(ctx, addr, secure)
	if err != nil {
		return nil, "", err
	}
	greeting, err := s.line()
	if err != nil {
		_ = s.Close() // the first fault tells more
		return nil, "", err
	}
	return s, greeting, nil
}

func (s *session) use(conn net.Conn) {
	s.conn, s.r = conn, bufio.NewReader(conn)
}

// encrypt begins TLS on the connection.
func (s *session) encrypt() error {
	conn := tls.Client(s.conn, s.tls)
	if err := conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	if err := conn.Handshake(); err != nil {
		_ = s.conn.Close() // the handshake's error tells more
		return err
	}
	s.use(conn)
	return nil
}

// Close hangs up without a word.
func (s *session) Close() error { return s.conn.Close() }

// send writes a line and allows the timeout for the answer.
func (s *session) send(line string) error {
	if err := s.conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	_, err := io.WriteString(s.conn, line+"\r\n")
	return err
}

// line reads one, without its end.
func (s *session) line() (string, error) {
	line, err := s.r.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}

var literal = regexp.MustCompile(`\{(\d+)\}$`)

// unit reads a line with the literals in it, as IMAP and ManageSieve send them: "{3}", line end,
// three bytes, and the line goes on.
func (s *session) unit() (string, error) {
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

// plain is the initial response of SASL PLAIN, RFC 4616.
func plain(user, password string) string {
	return base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
}

// quoted is a string as IMAP and ManageSieve quote it.
func quoted(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}
