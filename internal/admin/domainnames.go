package admin

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// claimFor is how long a claim reserves a name that its holder does not have yet: much longer than
// a change takes, or than the clocks of daemons differ.
const claimFor = time.Minute

// claim reserves a domain's name and aliases for it, all or none. Domains are in different shards,
// so a name is first claimed in the global one, where only one of two daemons succeeds. A claim
// whose holder does not have the name after claimFor was left by an interrupted change and is taken
// over. Only a change that hung for that long, or clocks that differ by as much, let two domains
// get a name; all daemons then agree on the one that sorts first.
func (r *Request) claim(ctx context.Context, allowed Roles, domain string, aliases []string) error {
	return r.change(ctx, allowed, store.Global, func(ch *store.Change) error {
		var claimed []string
		for _, name := range append([]string{domain}, aliases...) {
			of, has := r.Store.State.ResolveDomain(name)
			if has && of != domain {
				return api.Conflict("exists", "the name %s is taken: it is, or is an alias of, the managed domain %s", name, of)
			}
			claim, ok := r.Store.State.Claim(name)
			switch {
			case ok && claim.Domain == domain && has:
				continue
			case ok && claim.Domain != domain && ch.Now.Sub(claim.Time) < claimFor:
				return api.Conflict("exists", "the name %s is reserved for the domain %s: try again in a minute, if that change does not complete", name, claim.Domain)
			}
			ch.PutClaim(name, store.Claim{Domain: domain, Time: ch.Now})
			claimed = append(claimed, name)
		}
		Describe(ch, "domain.claim", domain, strings.Join(claimed, " "))
		return nil
	})
}

// ClaimNames reserves alias domains until done is called, which the caller does after the change.
func (d *Domain) ClaimNames(ctx context.Context, aliases []string) (done func(), err error) {
	d.names.Lock()
	if err := d.claim(ctx, ForDomain, d.name, aliases); err != nil {
		d.names.Unlock()
		return nil, err
	}
	return d.names.Unlock, nil
}

// ReleaseNames gives up names that the domain no longer has. A claim that is left over does no
// harm: it is taken over after a minute.
func (d *Domain) ReleaseNames(ctx context.Context, names []string) {
	if len(names) == 0 {
		return
	}
	err := d.change(ctx, ForDomain, store.Global, func(ch *store.Change) error {
		var released []string
		for _, name := range names {
			if claim, ok := d.Store.State.Claim(name); ok && claim.Domain == d.name {
				ch.DeleteClaim(name)
				released = append(released, name)
			}
		}
		Describe(ch, "domain.release", d.name, strings.Join(released, " "))
		return nil
	})
	if err != nil {
		d.Log.Warn("releasing names", "domain", d.name, "error", err)
	}
}

// ReleasedNames returns the alias domains that a change removes.
func ReleasedNames(cur, next *store.Domain) []string {
	return slices.DeleteFunc(slices.Clone(cur.AliasDomains), func(alias string) bool { return slices.Contains(next.AliasDomains, alias) })
}

// CheckNames refuses a change by role domain of alias domains, and of who verifies mailbox passwords.
func (d *Domain) CheckNames(cur, next *store.Domain) error {
	if d.Caller.Role == store.RoleDomain && !slices.Equal(next.AliasDomains, list(cur.AliasDomains)) {
		return api.Forbidden("only administrators of the site can change alias_domains: leave it as it is")
	}
	if d.Caller.Role == store.RoleDomain && next.MailboxPasswords != cur.MailboxPasswords {
		return api.Forbidden("only administrators of the site can change mailbox_passwords: leave it as it is")
	}
	return nil
}
