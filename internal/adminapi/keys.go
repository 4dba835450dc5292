package adminapi

import (
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

func viewKey(k *store.Key) api.Key {
	return api.Key{
		ID: k.ID, Name: k.Name, Role: string(k.Role), Domain: k.Domain, Account: k.Account,
		CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt,
	}
}

// sees reports whether the caller knows of a key.
func (id *identity) sees(k *store.Key) bool {
	return id.role != store.RoleDomain || k.Domain == id.domain
}

func listKeys(c *call) (*answer, error) {
	keys := slices.DeleteFunc(c.Store.State.Keys(), func(k store.Revised[store.Key]) bool { return !c.id.sees(k.Doc) })
	return listed(c, keys, func(k *store.Key) string { return k.ID }, viewKey)
}

func createKey(c *call) (*answer, error) {
	var f api.Faults
	in := rest.Decode[api.NewKey](c.schemas, c.body, &f)
	k := &store.Key{ID: store.NewID(), Name: in.Name, Role: store.Role(in.Role), ExpiresAt: in.ExpiresAt.UTC()}
	if in.ExpiresAt.IsZero() {
		k.ExpiresAt = in.ExpiresAt
	}
	if strings.TrimSpace(in.Name) != in.Name || strings.ContainsFunc(in.Name, unprintable) {
		f.Add("/name", "unprintable", "begins or ends with a space, or has a character that does not print")
	}
	if !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(c.now) {
		f.Add("/expires_at", "in_the_past", "is not in the future")
	}
	c.keyReach(in, k, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if !c.id.mayGrant(k.Role) {
		return nil, api.Forbidden("a key makes only weaker keys: one of role %s makes none of role %s", c.id.role, k.Role)
	}
	if !c.id.expires.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(c.id.expires)) {
		return nil, api.Forbidden("a key that expires makes none that lasts longer: give an expires_at that is not after its own")
	}
	created := api.CreatedKey{Key: viewKey(k), Secret: api.Secret{}}
	if !c.dryRun {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		created.Secret, k.Hash = key, hashKey(key)
	}
	ans := &answer{etag: true, location: "/v1/keys/" + k.ID, wipe: created.Secret}
	err := c.change(store.Global, func(ch *store.Change) error {
		k.CreatedAt, created.CreatedAt, ans.rev = ch.Now, ch.Now, ch.Rev
		audit(ch, "key.create", k.Domain, k.ID)
		ch.Diff(nil, k)
		ch.PutKey(k)
		return nil
	})
	if err != nil {
		clear(created.Secret)
		return nil, err
	}
	ans.body = created
	return ans, nil
}

// keyReach reads which domain or account a key is for.
func (c *call) keyReach(in *api.NewKey, k *store.Key, f *api.Faults) {
	outside := "is not managed: create it first"
	if c.id.role == store.RoleDomain {
		outside = "is not the domain of your key"
	}
	usable := func(domain string) bool { return c.id.reaches(domain) && c.managed(domain) }
	switch k.Role {
	case store.RoleDomain:
		name, err := address.ParseDomain(in.Domain)
		switch k.Domain = name; {
		case in.Domain == "":
			f.Add("/domain", "required", "is needed for role domain")
		case err != nil:
			f.Add("/domain", "invalid_domain", "%v", err)
		case !usable(name):
			f.Add("/domain", "unmanaged_domain", "%s", outside)
		}
	case store.RoleSelf:
		addr, err := address.Parse(in.Account, c.DefaultDomain)
		k.Account = c.Store.State.Canonical(addr)
		k.Domain = address.Domain(k.Account)
		switch {
		case in.Account == "":
			f.Add("/account", "required", "is needed for role self")
		case err != nil:
			f.Add("/account", "invalid_address", "%v", err)
		case !usable(k.Domain):
			f.Add("/account", "unmanaged_domain", "has a domain that %s", outside)
		}
	case store.RoleAdmin, store.RoleRead, store.RoleLogin:
	}
	if in.Domain != "" && k.Role != store.RoleDomain {
		f.Add("/domain", "conflict", "is for role domain only: leave it out")
	}
	if in.Account != "" && k.Role != store.RoleSelf {
		f.Add("/account", "conflict", "is for role self only: leave it out")
	}
}

func deleteKey(c *call) (*answer, error) {
	ans := &answer{}
	err := c.change(store.Global, func(ch *store.Change) error {
		k, rev, ok := c.key(c.r.PathValue("id"))
		if !ok || !c.id.sees(k) {
			return api.NotFound("key")
		}
		if err := c.match(true, rev); err != nil {
			return err
		}
		if !c.id.mayGrant(k.Role) && c.id.role != store.RoleAdmin {
			return api.Forbidden("a key revokes only keys that it might have made")
		}
		ans.body = viewKey(k)
		audit(ch, "key.delete", k.Domain, k.ID)
		ch.Diff(k, nil)
		ch.DeleteKey(k.ID)
		return nil
	})
	return ans, err
}

func (c *call) key(id string) (*store.Key, uint64, bool) {
	for _, k := range c.Store.State.Keys() {
		if k.Doc.ID == id {
			return k.Doc, k.Rev, true
		}
	}
	return nil, 0, false
}

// revokeKeys removes the keys that go with what is being deleted.
func (c *call) revokeKeys(domain string, goes func(*store.Key) bool) error {
	return c.change(store.Global, func(ch *store.Change) error {
		audit(ch, "key.delete", domain, domain)
		for _, k := range c.Store.State.Keys() {
			if goes(k.Doc) {
				ch.DiffOf(k.Doc.ID, k.Doc, nil)
				ch.DeleteKey(k.Doc.ID)
			}
		}
		return nil
	})
}
