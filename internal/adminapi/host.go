package adminapi

import (
	"net"
	"net/http"
	"net/netip"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"
)

// misdirected refuses requests without a key whose Host is another site's, on the unix socket and
// on loopback. A browser sends them for a page whose name resolves to this machine (DNS rebinding),
// or that was opened through somebody's ssh -L: on the unix socket it would be root. A page cannot
// send a key, so requests with a key are accepted: a proxy may have kept the Host.
func misdirected(r *http.Request) *api.Problem {
	if r.Header.Get("Authorization") != "" {
		return nil
	}
	switch local := r.Context().Value(http.LocalAddrContextKey).(type) {
	case *net.UnixAddr:
	case *net.TCPAddr:
		if !local.IP.IsLoopback() {
			return nil
		}
	default:
		return nil
	}
	if ownHost(r.Host) {
		return nil
	}
	return api.Refuse(http.StatusMisdirectedRequest, "misdirected", "the Host header names another site: without a key, it must be localhost, drawbridge or an IP address")
}

// ownHost reports whether a Host header, with or without a port, names this machine: it is empty,
// "localhost", "drawbridge" or an IP address.
func ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(strings.TrimSuffix(host, "."), "[]")
	if host == "" || strings.EqualFold(host, "localhost") || strings.EqualFold(host, "drawbridge") {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}
