package config

import (
	"fmt"
	"net"
	"path"
	"strconv"
	"strings"
	"unicode"
)

const (
	embedded     = "embedded"
	maxAddresses = 64
	maxSocket    = 107 // bytes of a unix socket's path
)

// A Target is where the store is, as store.url and store.master say.
type Target struct {
	Embedded  bool     // run a private server; nothing else is set
	Network   string   // "unix" or "tcp"
	Addresses []string // paths, or host:port; more than one only for a Cluster or Sentinels
	TLS       bool
	Cluster   bool   // Addresses are some nodes of a Cluster
	Master    string // Addresses are the Sentinels that watch this master set
}

// Embedded reports whether the daemon runs its own store.
func (s Store) Embedded() bool {
	return !s.URL.List && len(s.URL.Addresses) == 1 && s.URL.Addresses[0] == embedded
}

// Target reads store.url. The error is nil for every Config that Load or Parse returned.
func (s Store) Target() (Target, error) {
	t, faults := s.target()
	if len(faults) > 0 {
		return Target{}, fmt.Errorf("store.url: %s", strings.Join(faults, "; "))
	}
	return t, nil
}

func (s Store) target() (t Target, faults []string) {
	if s.Embedded() {
		return Target{Embedded: true}, nil
	}
	if n := len(s.URL.Addresses); n == 0 || n > maxAddresses {
		return Target{}, []string{fmt.Sprintf("names %d servers: from 1 to %d", n, maxAddresses)}
	}
	t = Target{Master: s.Master, Cluster: s.URL.List && s.Master == ""}
	for i, text := range s.URL.Addresses {
		a, fault := parseServer(text, s.URL.List, s.Master != "")
		switch {
		case fault != "" && s.URL.List:
			faults = append(faults, fmt.Sprintf("address %d %s", i+1, fault))
		case fault != "":
			faults = append(faults, fault)
		case i > 0 && len(t.Addresses) > 0 && a.tls != t.TLS:
			faults = append(faults, "mixes servers with and without TLS: write rediss:// before each, or before none")
		default:
			t.Network, t.TLS = a.network, a.tls
			t.Addresses = append(t.Addresses, a.address)
		}
	}
	return t, faults
}

type server struct {
	network, address string
	tls              bool
}

// parseServer reads one address. A text that may hold a password is not repeated in the fault.
func parseServer(text string, inList, sentinel bool) (s server, fault string) {
	if strings.Contains(text, "@") {
		return server{}, "contains a user name or a password: remove it, and use store.username and store.password_file"
	}
	if strings.ContainsAny(text, "?#") {
		return server{}, "has options after ? or #: use the settings of [store] for them"
	}
	scheme, rest, hasScheme := strings.Cut(text, "://")
	switch {
	case hasScheme && scheme == "unix" && !inList:
		if !path.IsAbs(rest) || len(rest) > maxSocket || strings.ContainsFunc(rest, unicode.IsControl) {
			return server{}, fmt.Sprintf("is %.200q, which is not a unix socket: write unix:///path of at most %d bytes", text, maxSocket)
		}
		return server{network: "unix", address: path.Clean(rest)}, ""
	case hasScheme && (scheme == "redis" || scheme == "rediss"):
		host, db, _ := strings.Cut(rest, "/")
		if db != "" {
			return server{}, fmt.Sprintf("has something after the port in %.200q: a database number goes into store.db", text)
		}
		s.tls, rest = scheme == "rediss", host
	case text == embedded:
		return server{}, "\"embedded\" does not belong in a list: write store.url = \"embedded\""
	case !hasScheme && inList:
		rest = text
	case inList:
		return server{}, fmt.Sprintf("is %.200q, which does not belong in a list: write host:port, redis://host:port or rediss://host:port", text)
	default:
		return server{}, fmt.Sprintf("is %.200q, which is not a store: write \"embedded\", unix:///path, redis://host:port or rediss://host:port", text)
	}
	port := "6379"
	if sentinel {
		port = "26379"
	}
	address, ok := hostPort(rest, port)
	if !ok {
		// Not repeated: redis://:secret is how a password without a host looks.
		return server{}, "names no server: write host:port with a port from 1 to 65535"
	}
	s.network, s.address = "tcp", address
	return s, ""
}

// hostPort completes host, host:port, [v6] or [v6]:port to a form that can be dialled.
func hostPort(text, defaultPort string) (address string, ok bool) {
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		if host, port, err = net.SplitHostPort(text + ":" + defaultPort); err != nil {
			return "", false
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 || host == "" || len(host) > 253 {
		return "", false
	}
	bad := func(r rune) bool {
		return r != '.' && r != '-' && r != '_' && r != ':' && r != '%' && !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}
	if strings.ContainsFunc(host, bad) {
		return "", false
	}
	return net.JoinHostPort(host, strconv.FormatUint(n, 10)), true
}
