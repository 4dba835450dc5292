package admin

import (
	"slices"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// readAliases validates the further addresses of an account. Only administrators of the site may
// add addresses of another domain; others do not learn which other domains exist.
func (d *Domain) readAliases(in []string, next, cur *store.Account, f *api.Faults) []string {
	list := make([]string, 0, len(in))
	for i, alias := range in {
		pointer := api.At("/aliases", i)
		addr, err := address.Parse(alias, d.name)
		addr = d.Store.State.Canonical(addr)
		kept := slices.Contains(cur.Aliases, addr)
		switch {
		case err != nil:
			f.Add(pointer, "invalid_address", "%v", err)
		case address.Local(addr) == "*":
			f.Add(pointer, "invalid_address", "is not a single address: put *@domain into send_as")
		case addr == next.Address:
			f.Add(pointer, "conflict", "is the account's own address, by its own or an alias domain: leave it out")
		case slices.Contains(list, addr):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		case !kept && address.Domain(addr) != d.name && d.Caller.Role != store.RoleAdmin:
			f.Add(pointer, "outside_domain", "is not an address of this domain or its alias domains")
		case !kept && !d.managed(address.Domain(addr)):
			f.Add(pointer, "unmanaged_domain", "is in a domain that is not managed: create the domain first")
		default:
			list = append(list, addr)
		}
	}
	return list
}

// readSendAs validates the sender addresses granted to an account or a department; the local part
// "*" means any address of a domain. Only administrators of the site may add addresses of another
// domain.
func (d *Domain) readSendAs(in, cur []string, f *api.Faults) []string {
	list := make([]string, 0, len(in))
	for i, entry := range in {
		pointer := api.At("/send_as", i)
		addr, err := address.Parse(entry, d.name)
		addr = d.Store.State.Canonical(addr)
		switch {
		case err != nil:
			f.Add(pointer, "invalid_address", "%v", err)
		case slices.Contains(list, addr):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		case address.Domain(addr) != d.name && d.Caller.Role != store.RoleAdmin && !slices.Contains(cur, addr):
			f.Add(pointer, "outside_domain", "is not an address of this domain or its alias domains")
		default:
			list = append(list, addr)
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list
}
