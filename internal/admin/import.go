package admin

import (
	"context"
	"maps"
	"slices"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// MaxImport is the number of accounts of one import: more would take gigabytes and block other
// changes of the shard.
const MaxImport = 100_000

// ImportedAccount is one line of an imported file.
type ImportedAccount struct {
	Address string
	Line    int // from 1
	// Edit returns the settings, given the present ones, which have no preset.
	Edit Edit[api.Account]
}

// ImportAccounts creates and changes accounts. All faults, with those found when the file was read,
// are reported together by line, and with any of them nothing changes. createDepartments creates
// missing departments.
func (d *Domain) ImportAccounts(ctx context.Context, in []ImportedAccount, createDepartments bool, f *api.Faults) (*api.ImportResult, error) {
	b := &bulk{Domain: d, action: "account.import", creates: createDepartments}
	b.edit = func(e *accountEdit, cur *store.Account, f *api.Faults) (*api.Account, error) {
		view := patchable(e.addr, cur)
		return e.edit(&view, f)
	}
	b.list = d.imported(in, f)
	if err := b.all(ctx, f, true); err != nil {
		return nil, err
	}
	slices.SortStableFunc(f.List, func(a, b api.Fault) int { return a.Line - b.Line })
	if err := f.Err(); err != nil {
		return nil, err
	}
	if !d.DryRun {
		if err := b.all(ctx, &api.Faults{}, false); err != nil {
			return nil, b.stopped(err)
		}
	}
	return &api.ImportResult{
		Lines: len(b.list), Created: b.created, Changed: len(b.changed) - b.created, Unchanged: b.unchanged,
		Departments: list(slices.Sorted(maps.Keys(b.departments))),
	}, nil
}

// imported validates the addresses of imported lines. Lines with faults are kept, so that their
// other faults are found too.
func (d *Domain) imported(in []ImportedAccount, f *api.Faults) []accountEdit {
	defer func() { f.Line = 0 }()
	edits := make([]accountEdit, len(in))
	first := make(map[string]int, len(in))
	for i, line := range in {
		f.Line = line.Line
		addr, err := address.Parse(line.Address, d.name)
		addr = d.Store.State.Canonical(addr)
		switch {
		case err != nil:
			f.Add("/address", "invalid_address", "%v", err)
		case address.Domain(addr) != d.name:
			f.Add("/address", "outside_domain", "is not an address of this domain")
		case first[addr] > 0:
			f.Add("/address", "duplicate", "is the account of line %d again: leave one out", first[addr])
		default:
			first[addr] = line.Line
		}
		edits[i] = accountEdit{addr: addr, line: line.Line, edit: line.Edit}
	}
	return edits
}
