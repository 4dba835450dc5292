package adminapi

import (
	"context"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

type peerUID struct{}

// ConnContext records the peer of a connection, for [http.Server.ConnContext].
func (a *API) ConnContext(ctx context.Context, conn net.Conn) context.Context {
	if a.PeerUID == nil {
		return ctx
	}
	uid, ok := a.PeerUID(conn)
	if !ok {
		return ctx
	}
	return context.WithValue(ctx, peerUID{}, uid)
}

// identify identifies the sender of a request.
func (a *API) identify(r *http.Request, now time.Time) (*admin.Caller, error) {
	if uid, ok := r.Context().Value(peerUID{}).(uint32); ok && direct(r.Header) {
		c := &admin.Caller{Role: store.RoleAdmin, Local: true, Actor: store.Actor{UID: strconv.FormatUint(uint64(uid), 10)}}
		switch {
		case uid == 0:
			c.Actor.Name = "root"
			return c, nil
		case int64(uid) == int64(os.Geteuid()):
			c.Actor.Name = "daemon"
			return c, nil
		}
	}
	if loaded, _ := a.Store.State.Ready(); !loaded {
		return nil, store.ErrUnavailable // keys are not loaded
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, api.Refuse(http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer and a key")
	}
	c, ok := a.Holder([]byte(strings.TrimSpace(key)))
	switch {
	case !ok:
		return nil, api.Refuse(http.StatusUnauthorized, "unauthorized", "the key is unknown")
	case !c.Expires.IsZero() && !now.Before(c.Expires):
		return nil, api.Refuse(http.StatusUnauthorized, "key_expired", "the key has expired: create a new one")
	}
	c.From = from(r)
	return &c, nil
}

// from returns the address of the caller; the zero Addr on a unix socket.
func from(r *http.Request) netip.Addr {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	ip, _ := netip.ParseAddr(host) // the zero Addr for none
	return ip.Unmap().WithZone("")
}

// direct reports whether a request has no header of a browser or a proxy, which may act for
// somebody other than the peer. Browsers send Sec-Fetch-Site even where they send no Origin, as to
// the page's own server, which may be this socket at the end of an ssh -L tunnel.
func direct(h http.Header) bool {
	for name := range h {
		switch name {
		case "Authorization", "Cookie", "Origin", "Referer", "Forwarded", "Via", "X-Real-Ip":
			return false
		}
		if strings.HasPrefix(name, "X-Forwarded") || strings.HasPrefix(name, "Sec-") {
			return false
		}
	}
	return true
}
