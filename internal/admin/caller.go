package admin

import (
	"net/netip"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Caller is who makes a request: the holder of a key, or a local user. The zero value may do
// nothing.
type Caller struct {
	Role store.Role
	// Domain is that of role domain, and of the account of role self.
	Domain  string
	Account string    // of role self
	Expires time.Time // of the key; zero for never
	// Local is root or the daemon's own user: the only caller who may create keys of role admin.
	Local bool
	Actor store.Actor // in the audit
	// Proven is when the caller last proved a second factor of the account; zero for never. Role self
	// needs it for some changes, see [Account.StepUp].
	Proven time.Time
	// From is the address of the caller, which the lock-out guard keeps open; the zero Addr if no
	// policy concerns the caller, as on a unix socket.
	From netip.Addr
}

// Owner returns the owner of an account as a caller, for pages that know who it is.
func Owner(account string, from netip.Addr, proven time.Time) Caller {
	return Caller{
		Role: store.RoleSelf, Domain: address.Domain(account), Account: account, Actor: store.Actor{Name: account}, From: from, Proven: proven,
	}
}

// Roles is a set of roles. Admin is always in it.
type Roles uint8

// The roles beside admin.
const (
	ForRead Roles = 1 << iota
	ForLogin
	ForDomain
	ForSelf

	ForAdmin Roles = 0
)

// String names the roles, admin first.
func (r Roles) String() string {
	names := []string{"admin"}
	for _, x := range []struct {
		role Roles
		name string
	}{{ForRead, "read"}, {ForLogin, "login"}, {ForDomain, "domain"}, {ForSelf, "self"}} {
		if r&x.role != 0 {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, ", ")
}

// May refuses a caller whose role is not allowed.
func (c *Caller) May(allowed Roles) error {
	var role Roles
	switch c.Role {
	case store.RoleAdmin:
		return nil
	case store.RoleRead:
		role = ForRead
	case store.RoleLogin:
		role = ForLogin
	case store.RoleDomain:
		role = ForDomain
	case store.RoleSelf:
		role = ForSelf
	}
	if allowed&role != 0 {
		return nil
	}
	return api.Forbidden("a key of role %s may not do this", c.Role)
}

// Reaches reports whether the caller may read anything of a domain.
func (c *Caller) Reaches(domain string) bool {
	switch c.Role {
	case store.RoleDomain, store.RoleSelf:
		return domain == c.Domain
	case store.RoleAdmin, store.RoleRead, store.RoleLogin:
	}
	return true
}

// ReachesAccount reports whether the caller may read an account of a domain.
func (c *Caller) ReachesAccount(domain, account string) bool {
	return c.Reaches(domain) && (c.Role != store.RoleSelf || account == c.Account)
}

// Tenant is the domain or account that the caller belongs to; "" for callers of the whole site.
func (c *Caller) Tenant() string {
	switch c.Role {
	case store.RoleDomain:
		return c.Domain
	case store.RoleSelf:
		return c.Account
	case store.RoleAdmin, store.RoleRead, store.RoleLogin:
	}
	return ""
}

// mayGrant reports whether the caller may create a key of a role: a key creates only weaker keys.
func (c *Caller) mayGrant(r store.Role) bool {
	switch {
	case c.Local:
		return true
	case c.Role == store.RoleAdmin:
		return r != store.RoleAdmin
	case c.Role == store.RoleDomain:
		return r == store.RoleSelf
	default:
		return false
	}
}
