package admin

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Keys are "dbk_" and 160 random bits: too many to guess, so one fast hash is enough to store, and
// the time of its look-up reveals nothing.
const (
	keyPrefix = "dbk_"
	keyBytes  = 20
)

var keyText = base32.StdEncoding.WithPadding(base32.NoPadding)

func newKey() (api.Secret, error) {
	var random [keyBytes]byte
	defer clear(random[:])
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("generating a key: %w", err)
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

// hashKey returns the hash of a key that the store keeps.
func hashKey(key []byte) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:])
}

// Holder returns the holder of a key as a caller, and whether the key is known. Expiry is for the
// user of the result to check.
func (a *Admin) Holder(key []byte) (Caller, bool) { return a.HolderOf(hashKey(key)) }

// HashKey returns the SHA-256 of a key in hex, as the store keeps it, by which [Admin.HolderOf]
// finds its holder. Keys are random: no salt is needed.
func HashKey(key []byte) string { return hashKey(key) }

// HolderOf is [Admin.Holder] for the hash of a key, as [HashKey] returns it, for callers that must
// not keep the key.
func (a *Admin) HolderOf(hash string) (Caller, bool) {
	k, ok := a.Store.State.KeyByHash(hash)
	if !ok {
		return Caller{}, false
	}
	if now := time.Now(); a.KeyUses != nil && (k.ExpiresAt.IsZero() || now.Before(k.ExpiresAt)) {
		a.KeyUses.Used(k.ID, now)
	}
	return Caller{
		Role: k.Role, Domain: k.Domain, Account: k.Account, Expires: k.ExpiresAt,
		Actor: store.Actor{Name: k.Name, Key: k.ID},
	}, true
}

func viewKey(k *store.Key) api.Key {
	return api.Key{
		ID: k.ID, Name: k.Name, Role: string(k.Role), Domain: k.Domain, Account: k.Account,
		CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt,
	}
}

// sees reports whether the caller may see a key.
func (c *Caller) sees(k *store.Key) bool {
	return c.Role != store.RoleDomain || k.Domain == c.Domain
}

// Keys returns one page of the API keys that the caller may see, by id, without their secrets: role
// domain sees those of its domain.
func (r *Request) Keys(ctx context.Context, p Page) (*api.List[api.Key], error) {
	if err := r.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	keys := slices.DeleteFunc(r.Store.State.Keys(), func(k store.Revised[store.Key]) bool { return !r.Caller.sees(k.Doc) })
	page, err := PageOf(p, keys, func(k *store.Key) string { return k.ID }, viewKey)
	if err != nil || r.KeyUses == nil {
		return page, err
	}
	uses, _, err := r.KeyUses.List(ctx)
	if err != nil {
		return nil, err
	}
	for i := range page.Items {
		page.Items[i].LastUsedAt = uses[page.Items[i].ID]
	}
	return page, nil
}

// CreateKey creates an API key. The caller clears its secret once it is sent; a dry run has none.
func (r *Request) CreateKey(ctx context.Context, in *api.NewKey, f *api.Faults) (*Result[api.CreatedKey], error) {
	k := &store.Key{ID: store.NewID(), Name: in.Name, Role: store.Role(in.Role)}
	if !in.ExpiresAt.IsZero() {
		k.ExpiresAt = in.ExpiresAt.UTC()
	}
	CheckText(in.Name, "/name", f)
	if !k.ExpiresAt.IsZero() && !k.ExpiresAt.After(r.Time) {
		f.Add("/expires_at", "in_the_past", "is not in the future")
	}
	r.keyReach(in, k, f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	if err := r.mayCreate(k); err != nil {
		return nil, err
	}
	res := &Result[api.CreatedKey]{View: api.CreatedKey{Key: viewKey(k), Secret: api.Secret{}}, Created: true}
	if !r.DryRun {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		res.View.Secret, k.Hash = key, hashKey(key)
	}
	err := r.change(ctx, ForDomain, store.Global, func(ch *store.Change) error {
		k.CreatedAt, res.View.CreatedAt, res.Rev = ch.Now, ch.Now, ch.Rev
		Describe(ch, "key.create", k.Domain, k.ID)
		ch.Diff(nil, k)
		ch.PutKey(k)
		return nil
	})
	if err != nil {
		clear(res.View.Secret)
		return nil, err
	}
	return res, nil
}

// mayCreate refuses a key that is as strong as the caller's, or lasts longer.
func (r *Request) mayCreate(k *store.Key) error {
	if !r.Caller.mayGrant(k.Role) {
		return api.Forbidden("a key creates only weaker keys: one of role %s creates none of role %s", r.Caller.Role, k.Role)
	}
	expires := r.Caller.Expires
	if !expires.IsZero() && (k.ExpiresAt.IsZero() || k.ExpiresAt.After(expires)) {
		return api.Forbidden("a key that expires creates none that lasts longer: set expires_at to %s or earlier", expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// keyReach reads which domain or account a key is for.
func (r *Request) keyReach(in *api.NewKey, k *store.Key, f *api.Faults) {
	outside := "is not managed: create it first"
	if r.Caller.Role == store.RoleDomain {
		outside = "is not the domain of your key"
	}
	usable := func(domain string) bool { return r.Caller.Reaches(domain) && r.managed(domain) }
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
		addr, err := address.Parse(in.Account, r.DefaultDomain)
		k.Account = r.within(addr) // nobody logs in as an alias
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

// mayRevoke reports whether the caller may end a key: one that it sees and could create.
func (r *Request) mayRevoke(k *store.Key) bool {
	return r.Caller.sees(k) && (r.Caller.mayGrant(k.Role) || r.Caller.Role == store.RoleAdmin)
}

// RevokeKey deletes an API key and returns its last state.
func (r *Request) RevokeKey(ctx context.Context, id string) (*Result[api.Key], error) {
	res := &Result[api.Key]{}
	err := r.change(ctx, ForDomain, store.Global, func(ch *store.Change) error {
		keys := r.Store.State.Keys()
		i := slices.IndexFunc(keys, func(k store.Revised[store.Key]) bool { return k.Doc.ID == id })
		if i < 0 || !r.Caller.sees(keys[i].Doc) {
			return api.NotFound("key")
		}
		k := keys[i].Doc
		if err := r.Match(true, keys[i].Rev); err != nil {
			return err
		}
		if !r.mayRevoke(k) {
			return api.Forbidden("a key revokes only keys that it could create")
		}
		res.View = viewKey(k)
		Describe(ch, "key.delete", k.Domain, k.ID)
		ch.Diff(k, nil)
		ch.DeleteKey(k.ID)
		return nil
	})
	if err == nil && !r.DryRun {
		r.forgetUses(ctx, id)
	}
	return res, err
}

// forgetUses forgets when keys that are deleted were last used. If Redis fails, what is left names no
// key and is small.
func (r *Request) forgetUses(ctx context.Context, ids ...string) {
	if r.KeyUses != nil && len(ids) > 0 {
		if err := r.KeyUses.Forget(ctx, ids...); err != nil {
			r.Log.Debug("forgetting the last uses of keys", "error", err)
		}
	}
}

// RevokeKeys deletes the keys of accounts or domains that are about to be deleted: a key that
// outlived its account would open the next account of that name.
func (d *Domain) RevokeKeys(ctx context.Context, revoked func(*store.Key) bool) error {
	return d.revokeKeys(ctx, d.name, revoked)
}

func (r *Request) revokeKeys(ctx context.Context, domain string, revoked func(*store.Key) bool) error {
	var ids []string
	err := r.change(ctx, ForDomain, store.Global, func(ch *store.Change) error {
		Describe(ch, "key.delete", domain, domain)
		ids = nil
		for _, k := range r.Store.State.Keys() {
			if revoked(k.Doc) {
				ids = append(ids, k.Doc.ID)
				ch.DiffOf(k.Doc.ID, k.Doc, nil)
				ch.DeleteKey(k.Doc.ID)
			}
		}
		return nil
	})
	if err == nil && !r.DryRun {
		r.forgetUses(ctx, ids...)
	}
	return err
}
