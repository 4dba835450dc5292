// Package doveadm lists and ends sessions of one Dovecot, 2.3 or 2.4, by its doveadm.
//
//	unix:/run/dovecot/doveadm-server     doveadm's own protocol; no password if the socket's mode is 0600
//	http://127.0.0.1:8080                the HTTP API, with doveadm_api_key
//	exec:/usr/bin/doveadm                the command, as the daemon's user
//
// # Which sessions a kick ends
//
// Dovecot 2.4 names each session by the fields whose names begin with "user_" that the passdb
// returned as "userdb_user_…"; the one called [Field] names a single session. Dovecot 2.3 has no
// such name: a kick ends all sessions of a user from an address, whatever their protocol. A user
// name is a mask for Dovecot, so its wildcards are escaped. A name that no mask can spell is an
// error, never a wider kick.
//
// # Diagnostics
//
// Every error is a Dovecot that did not do what it was asked: it cannot be reached, refuses the key
// or answers something else. No session to end is no error.
package doveadm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"time"
	"unicode"
)

// Field is the name of the passdb field by which Dovecot 2.4 finds one session, with the id that
// Drawbridge gave it. Dovecot 2.3 has none.
const Field = "user_session"

// Timeout bounds one command.
const Timeout = 5 * time.Second

// maxAnswer bounds an answer in bytes: some 500 000 connections.
const maxAnswer = 64 << 20

// Connection is one open session.
type Connection struct {
	User    string // as the passdbs named it
	Service string // imap, pop3, sieve, submission, …
	PID     string
	IP      netip.Addr // invalid if the session has none
	// Fields are the values of the fields that the passdb named with "user_". Only 2.4 has any.
	Fields []string
}

// Doveadm is the doveadm of one Dovecot.
type Doveadm struct {
	name string
	run  transport
}

// transport carries out one command and returns its rows, each a list of values; found is false for
// a kick that Dovecot says hit nobody.
type transport interface {
	run(ctx context.Context, c command) (rows []row, found bool, err error)
}

// row is one line of an answer: the columns in Dovecot's order, whose names differ between
// versions.
type row []string

// command is what is asked, in the words of the command line and of the HTTP API.
type command struct {
	name    string
	user    string   // whose mailboxes it is about; "" for none
	options []string // before the masks
	params  map[string]any
	masks   []string
}

// Parse reads an address. The key is that of the HTTP API, or the doveadm_password of a socket that
// wants one.
func Parse(text string, key []byte) (*Doveadm, error) {
	scheme, rest, _ := strings.Cut(text, ":")
	control := strings.ContainsFunc(text, unicode.IsControl)
	switch {
	case control || len(text) > 4096:
	case scheme == "unix" && filepath.IsAbs(rest) && len(rest) <= 107:
		return &Doveadm{text, &socket{path: rest, password: key}}, nil
	case scheme == "http" || scheme == "https":
		u, err := url.Parse(text)
		if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf(`%.200q is not an address of doveadm's HTTP API: write "http://host:port"`, text)
		}
		if len(key) == 0 {
			return nil, fmt.Errorf("%s needs a key: name the file with Dovecot's doveadm_api_key in sessions.key_file", text)
		}
		return &Doveadm{text, &api{url: scheme + "://" + u.Host + "/doveadm/v1", key: key, client: &http.Client{Transport: &http.Transport{}}}}, nil
	case scheme == "exec" && filepath.IsAbs(rest):
		return &Doveadm{text, program(strings.Fields(rest))}, nil
	}
	return nil, fmt.Errorf(`%.200q is not an address of doveadm: write "unix:/path", "http://host:port" or "exec:/usr/bin/doveadm"`, text)
}

// String returns the address.
func (d *Doveadm) String() string { return d.name }

// Who returns all open sessions.
func (d *Doveadm) Who(ctx context.Context) ([]Connection, error) {
	rows, _, err := d.do(ctx, command{name: "who", options: []string{"-1"}, params: map[string]any{"separateConnections": true}})
	if err != nil {
		return nil, fmt.Errorf("%s: listing sessions: %w", d.name, err)
	}
	list := make([]Connection, 0, len(rows))
	for _, r := range rows {
		c, err := connection(r)
		if err != nil {
			return nil, fmt.Errorf("%s: listing sessions: %w", d.name, err)
		}
		list = append(list, c)
	}
	return list, nil
}

// connection reads a row: user, service, process, address, and of 2.4 also destination and fields.
func connection(r row) (Connection, error) {
	if len(r) < 4 {
		return Connection{}, fmt.Errorf("%d columns: is it Dovecot 2.3 or 2.4?", len(r))
	}
	c := Connection{User: r[0], Service: r[1], PID: r[2]}
	if c.Service == "managesieve" { // 2.4 lists it so, and names it "sieve" at the login, as 2.3 always does
		c.Service = "sieve"
	}
	if r[3] != "" {
		ip, err := netip.ParseAddr(r[3])
		if err != nil {
			return Connection{}, fmt.Errorf("%.80q is not an IP address", r[3])
		}
		c.IP = ip.Unmap().WithZone("")
	}
	for _, v := range r[min(len(r), 5):] {
		if v != "" {
			c.Fields = append(c.Fields, v)
		}
	}
	return c, nil
}

// KickSession ends the session with an id, which only Dovecot 2.4 knows, and reports whether there
// was one.
func (d *Doveadm) KickSession(ctx context.Context, id string) (bool, error) {
	mask, err := escape(id)
	if err != nil {
		return false, err
	}
	return d.kick(ctx, command{
		name: "kick", options: []string{"-f", Field}, params: map[string]any{"passdbField": Field}, masks: []string{mask},
	})
}

// KickUser ends the sessions of a user from an address, and reports whether there were any.
func (d *Doveadm) KickUser(ctx context.Context, user string, ip netip.Addr) (bool, error) {
	mask, err := escape(user)
	if err != nil {
		return false, err
	}
	masks := []string{mask}
	if ip.IsValid() {
		masks = append(masks, ip.String())
	}
	return d.kick(ctx, command{name: "kick", masks: masks})
}

func (d *Doveadm) kick(ctx context.Context, c command) (bool, error) {
	rows, found, err := d.do(ctx, c)
	if err != nil {
		return false, fmt.Errorf("%s: ending sessions: %w", d.name, err)
	}
	// 2.3 lists the users that it kicked; 2.4 counts connections.
	none := len(rows) == 1 && len(rows[0]) == 1 && rows[0][0] == "0"
	return found && !none, nil
}

func (d *Doveadm) do(ctx context.Context, c command) ([]row, bool, error) {
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	return d.run.run(ctx, c)
}

// escape makes a mask that matches exactly a name.
func escape(name string) (string, error) {
	_, addrErr := netip.ParseAddr(name)
	_, netErr := netip.ParsePrefix(name)
	switch {
	case name == "":
		return "", errors.New("ending sessions: no name")
	case strings.ContainsRune(name, '\\'):
		return "", fmt.Errorf("ending sessions of %q: no mask of doveadm matches a name with a backslash", name)
	case strings.ContainsFunc(name, unicode.IsControl):
		return "", fmt.Errorf("ending sessions of %q: a control character in a name", name)
	case addrErr == nil, netErr == nil:
		return "", fmt.Errorf("ending sessions of %q: doveadm takes this name for an IP address", name)
	}
	return strings.NewReplacer("*", `\*`, "?", `\?`).Replace(name), nil
}
