package adminapi

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// roles is the set of roles, beside admin, that may call an operation.
type roles uint8

const (
	forRead roles = 1 << iota
	forLogin
	forDomain
	forSelf
	forAnyone // no key needed

	forAdmin roles = 0
)

func rolesOf(r store.Role) roles {
	switch r {
	case store.RoleRead:
		return forRead
	case store.RoleLogin:
		return forLogin
	case store.RoleDomain:
		return forDomain
	case store.RoleSelf:
		return forSelf
	case store.RoleAdmin:
	}
	return forAdmin
}

// String names the roles, admin first.
func (r roles) String() string {
	names := []string{"admin"}
	for _, x := range []struct {
		role roles
		name string
	}{{forRead, "read"}, {forLogin, "login"}, {forDomain, "domain"}, {forSelf, "self"}} {
		if r&x.role != 0 {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, ", ")
}

// identity is the caller of an operation.
type identity struct {
	role    store.Role
	domain  string    // of role domain, and of a self key's account
	account string    // of role self
	expires time.Time // of the key; zero for never
	local   bool      // root or the daemon's own user, on the unix socket and without a key
	actor   store.Actor
}

// mayGrant reports whether the caller may make a key of a role: a key makes only weaker keys.
func (id *identity) mayGrant(r store.Role) bool {
	switch {
	case id.local:
		return true
	case id.role == store.RoleAdmin:
		return r != store.RoleAdmin
	case id.role == store.RoleDomain:
		return r == store.RoleSelf
	default:
		return false
	}
}

// tenant is the domain or account that a key belongs to; "" for keys of the site.
func (id *identity) tenant() string {
	switch id.role {
	case store.RoleDomain:
		return id.domain
	case store.RoleSelf:
		return id.account
	case store.RoleAdmin, store.RoleRead, store.RoleLogin:
	}
	return ""
}

// reaches reports whether the caller knows of anything in a domain at all.
func (id *identity) reaches(domain string) bool {
	switch id.role {
	case store.RoleDomain, store.RoleSelf:
		return domain == id.domain
	case store.RoleAdmin, store.RoleRead, store.RoleLogin:
	}
	return true
}

// Keys are "dbk_" and 160 random bits: too many to guess, so that one fast hash is enough to keep,
// and the time of its look-up tells nothing of it.
const (
	keyPrefix = "dbk_"
	keyBytes  = 20
)

var keyText = base32.StdEncoding.WithPadding(base32.NoPadding)

func newKey() (api.Secret, error) {
	var random [keyBytes]byte
	defer clear(random[:])
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	text := []byte(keyPrefix)
	text = keyText.AppendEncode(text, random[:])
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			text[i] = c + 'a' - 'A'
		}
	}
	return text, nil
}

// hashKey is what the store keeps of a key.
func hashKey(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

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
func (a *API) identify(r *http.Request, now time.Time) (*identity, error) {
	if uid, ok := r.Context().Value(peerUID{}).(uint32); ok && direct(r.Header) {
		id := &identity{role: store.RoleAdmin, local: true, actor: store.Actor{UID: strconv.FormatUint(uint64(uid), 10)}}
		switch {
		case uid == 0:
			id.actor.Name = "root"
			return id, nil
		case int64(uid) == int64(os.Geteuid()):
			id.actor.Name = "daemon"
			return id, nil
		}
	}
	if loaded, _ := a.Store.State.Ready(); !loaded {
		return nil, store.ErrUnavailable // keys are not loaded
	}
	scheme, key, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return nil, api.Refuse(http.StatusUnauthorized, "unauthorized", "send Authorization: Bearer and a key")
	}
	k, ok := a.Store.State.KeyByHash(hashKey([]byte(strings.TrimSpace(key))))
	switch {
	case !ok:
		return nil, api.Refuse(http.StatusUnauthorized, "unauthorized", "the key is unknown")
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return nil, api.Refuse(http.StatusUnauthorized, "key_expired", "the key has expired: create a new one")
	}
	return &identity{
		role: k.Role, domain: k.Domain, account: k.Account, expires: k.ExpiresAt,
		actor: store.Actor{Name: k.Name, Key: k.ID},
	}, nil
}

// direct reports whether a request carries no sign of a browser or a proxy that may speak for
// somebody else than the peer. Browsers send Sec-Fetch-Site also where they send no Origin: a page
// that reads what it takes for its own server, which is our socket at the end of somebody's ssh -L.
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
