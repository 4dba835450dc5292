package listen

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxText      = 4096 // bytes of one listener's text
	maxPath      = 107  // bytes of a socket path: sun_path less its NUL
	maxAllowFrom = 128  // networks in one allow_from
	defaultMode  = fs.FileMode(0o600)
)

// A Spec says where to listen and who may connect: either Path with Mode, User and Group, or Addr
// with AllowFrom and TLS. The zero Spec listens nowhere and Open refuses it.
type Spec struct {
	Path  string      // absolute path of a unix socket, at most 107 bytes
	Mode  fs.FileMode // permissions of the socket; 0 means 0600
	User  string      // name or number of its owner; "" leaves the process's own
	Group string      // name or number of its group; "" leaves the process's own

	Addr      netip.AddrPort // address and TCP port; port 0 lets the kernel choose
	AllowFrom []netip.Prefix // networks that may connect; empty means any
	TLSCert   string         // absolute path of a PEM certificate chain
	TLSKey    string         // absolute path of its PEM private key
}

// Unix reports whether s is a unix socket. Otherwise it is an address and port, and peers have no
// credentials.
func (s Spec) Unix() bool { return s.Path != "" }

// TLS reports whether connections to s are encrypted: it names a certificate and a key. A unix
// socket never is.
func (s Spec) TLS() bool { return s.TLSCert != "" }

// Network returns "unix" or "tcp", the name of the network for [net.Listen] and [net.Dial],
// together with [Spec.Address].
func (s Spec) Network() string {
	if s.Unix() {
		return "unix"
	}
	return "tcp"
}

// Address returns the path, or the address with its port, as package net dials it.
func (s Spec) Address() string {
	if s.Unix() {
		return s.Path
	}
	return s.Addr.String()
}

// String returns the text that Parse turns into s again.
func (s Spec) String() string {
	var options []string
	option := func(name, value string) {
		if value != "" {
			options = append(options, name+"="+value)
		}
	}
	kind := "inet:"
	if s.Unix() {
		kind = "unix:"
	}
	if s.Mode != 0 {
		option("mode", fmt.Sprintf("%04o", uint32(s.Mode)))
	}
	option("user", s.User)
	option("group", s.Group)
	networks := make([]string, len(s.AllowFrom))
	for i, n := range s.AllowFrom {
		networks[i] = n.String()
	}
	option("allow_from", strings.Join(networks, ","))
	option("tls_cert", s.TLSCert)
	option("tls_key", s.TLSKey)
	text := kind + s.Address()
	if len(options) > 0 {
		text += "?" + strings.Join(options, "&")
	}
	return text
}

// Parse reads a listener's text, for instance "unix:/run/x.sock?mode=0660&group=dovecot" or
// "inet:127.0.0.1:10040". Nothing is percent-decoded. The error is one line that names every fault
// of the text and says what to do.
func Parse(text string) (Spec, error) {
	if len(text) > maxText {
		return Spec{}, fmt.Errorf("a listener of %d bytes is too long: at most %d", len(text), maxText)
	}
	kind, rest, _ := strings.Cut(text, ":")
	where, query, hasQuery := strings.Cut(rest, "?")
	var s Spec
	var faults []string
	fault := func(format string, args ...any) { faults = append(faults, fmt.Sprintf(format, args...)) }

	if !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl) {
		return Spec{}, fmt.Errorf("listener %q: control characters or invalid UTF-8: remove them", text)
	}
	var err error
	switch kind {
	case "unix":
		s.Path, err = parsePath(where)
	case "inet":
		s.Addr, err = parseAddr(where)
	default:
		return Spec{}, fmt.Errorf("listener %q: write unix:/path or inet:address:port", text)
	}
	if err != nil {
		fault("%v", err)
	}
	if hasQuery {
		seen := make(map[string]bool)
		for option := range strings.SplitSeq(query, "&") {
			name, value, _ := strings.Cut(option, "=")
			if seen[name] {
				fault("option %s is given twice: keep one", name)
				continue
			}
			seen[name] = true
			if err := s.set(kind, name, value); err != nil {
				fault("%v", err)
			}
		}
	}
	if (s.TLSCert == "") != (s.TLSKey == "") {
		fault("tls_cert and tls_key belong together: give both")
	}
	if s.Addr.IsValid() && !s.Addr.Addr().IsLoopback() && len(faults) == 0 && len(s.AllowFrom) == 0 && !s.TLS() {
		fault("beyond loopback, name who may connect with allow_from=10.0.0.0/8 or encrypt with tls_cert=/path&tls_key=/path")
	}
	if len(faults) > 0 {
		return Spec{}, fmt.Errorf("listener %q: %s", text, strings.Join(faults, "; "))
	}
	return s, nil
}

// set takes one option of a listener of this kind.
func (s *Spec) set(kind, name, value string) (err error) {
	switch kind + " " + name {
	case "unix mode":
		s.Mode, err = parseMode(value)
	case "unix user":
		s.User, err = parseName(name, value)
	case "unix group":
		s.Group, err = parseName(name, value)
	case "inet allow_from":
		s.AllowFrom, err = parseNetworks(value)
	case "inet tls_cert":
		s.TLSCert, err = parseFile(name, value)
	case "inet tls_key":
		s.TLSKey, err = parseFile(name, value)
	default:
		options := "mode, user and group"
		if kind == "inet" {
			options = "allow_from, tls_cert and tls_key"
		}
		return fmt.Errorf("unknown option %q: %s: takes %s", name, kind, options)
	}
	return err
}

func parsePath(text string) (string, error) {
	clean := path.Clean(text)
	switch {
	case !path.IsAbs(text) || clean == "/":
		return "", fmt.Errorf("path %q is not absolute: write unix:/run/drawbridge/name.sock", text)
	case len(clean) > maxPath:
		return "", fmt.Errorf("path of %d bytes is too long for a unix socket: at most %d", len(clean), maxPath)
	}
	return clean, nil
}

func parseAddr(text string) (netip.AddrPort, error) {
	a, err := netip.ParseAddrPort(text)
	if err != nil || a.Addr().Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("%q is not an address with a port: write inet:127.0.0.1:10040 or inet:[::1]:10040 (no names, no zones)", text)
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()), nil
}

func parseMode(text string) (fs.FileMode, error) {
	n, err := strconv.ParseUint(text, 8, 16)
	if err != nil || n > 0o777 || n&0o600 != 0o600 {
		return 0, fmt.Errorf("mode %q: write octal permissions from 0600 to 0777 with which the owner can read and write, such as 0660", text)
	}
	return fs.FileMode(n), nil
}

func parseName(option, text string) (string, error) {
	if text == "" || len(text) > 64 || strings.ContainsFunc(text, unicode.IsSpace) {
		return "", fmt.Errorf("%s %q: write the name of a %s, or its number", option, text, option)
	}
	return text, nil
}

func parseFile(option, text string) (string, error) {
	if !path.IsAbs(text) {
		return "", fmt.Errorf("%s %q: write the absolute path of a PEM file", option, text)
	}
	return text, nil
}

func parseNetworks(text string) ([]netip.Prefix, error) {
	items := strings.Split(text, ",")
	if len(items) > maxAllowFrom {
		return nil, fmt.Errorf("allow_from names %d networks: at most %d", len(items), maxAllowFrom)
	}
	networks := make([]netip.Prefix, len(items))
	for i, item := range items {
		n, err := parseNetwork(item)
		if err != nil {
			return nil, fmt.Errorf("allow_from %q: %w", item, err)
		}
		networks[i] = n
	}
	return networks, nil
}

func parseNetwork(text string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return netip.Prefix{}, errors.New("write an address or a network such as 10.0.0.0/8")
	case n.Addr().Is4In6():
		return netip.Prefix{}, errors.New("write it as an IPv4 network")
	case n != n.Masked():
		return netip.Prefix{}, fmt.Errorf("has bits beyond its length: write %s if the whole network is meant", n.Masked())
	}
	return n, nil
}
