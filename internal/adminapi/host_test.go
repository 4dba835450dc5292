package adminapi

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// A page of another site cannot act as root on the unix socket, nor read what needs no key on
// loopback.
func TestMisdirected(t *testing.T) {
	unix := &net.UnixAddr{Name: "/run/drawbridge/api.sock", Net: "unix"}
	loopback := &net.TCPAddr{IP: net.IPv6loopback, Port: 8480}
	public := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 8480}
	for _, c := range []struct {
		local   net.Addr
		host    string
		key     bool
		refused bool
	}{
		{unix, "", false, false},
		{unix, "drawbridge", false, false},
		{unix, "localhost:8480", false, false},
		{unix, "LOCALHOST.", false, false},
		{unix, "[::1]:8480", false, false},
		{unix, "127.0.0.1", false, false},
		{unix, "evil.example", false, true},
		{unix, "evil.example:8480", false, true},
		{unix, "localhost.evil.example", false, true},
		{unix, "127.0.0.1.evil.example", false, true},
		{unix, "evil.example", true, false},
		{loopback, "evil.example", false, true},
		{loopback, "127.0.0.1:8480", false, false},
		{loopback, "api.example.org", true, false},
		{public, "api.example.org", false, false},
	} {
		r := httptest.NewRequestWithContext(context.WithValue(t.Context(), http.LocalAddrContextKey, c.local), http.MethodGet, "/v1/store", nil)
		r.Host = c.host
		if c.key {
			r.Header.Set("Authorization", "Bearer dbk_x")
		}
		if p := misdirected(r); (p != nil) != c.refused {
			t.Errorf("%v, Host %q, key %v: %+v", c.local, c.host, c.key, p)
		} else if p != nil && (p.Status != http.StatusMisdirectedRequest || p.Code != "misdirected") {
			t.Errorf("%q: %+v", c.host, p)
		}
	}
}
