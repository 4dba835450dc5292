package admin

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Batch is one run of a change of many accounts.
type Batch struct {
	bulk
	id       string // of selection and settings: a cursor of another batch is refused
	selected int
	earlier  int    // of the selected, those of an earlier run
	cursor   string // after the last account that is done
}

// Batch validates a change of many accounts, and selects them. named are the settings that it sets,
// including those set to null: "suspended", "departments", "protocols.imap" …. resume is the cursor
// of an interrupted run; "" to start.
func (d *Domain) Batch(in *api.Batch, named []string, resume string, f *api.Faults) (*Batch, error) {
	var scope access.Scope
	if in.Select != nil {
		scope = d.ReadScope(in.Select, "/select", f)
		if emptyScope(in.Select) {
			f.Add("/select", "required", `selects no account: send "all":true, departments or members`)
		}
	}
	if in.Set != nil {
		d.checkSet(in.Set, named, f)
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	settings, covers := BatchSettings(in.Set, named), d.Covers(&scope)
	b := &Batch{id: d.batchID(in, named), cursor: resume, bulk: bulk{
		Domain: d, action: "account.batch", selects: covers,
		edit: func(_ *accountEdit, cur *store.Account, _ *api.Faults) (*api.Account, error) {
			return settings(cur), nil
		},
		mark:  &store.BatchMark{At: d.Time.UTC().Truncate(time.Millisecond), By: d.Caller.Actor.Name, Scope: describeScope(&scope)},
		tally: tally{departments: map[string]bool{}},
	}}
	after, err := b.after()
	if err != nil {
		return nil, err
	}
	for _, addr := range d.selected(&scope, covers) {
		b.selected++
		if addr <= after {
			b.earlier++
			continue
		}
		b.list = append(b.list, accountEdit{addr: addr})
	}
	return b, nil
}

// checkSet validates the settings of a batch, and resolves their preset.
func (d *Domain) checkSet(set *api.BatchSet, named []string, f *api.Faults) {
	if len(named) == 0 {
		f.Add("/set", "required", "is empty: give at least one setting")
	}
	for i, path := range set.Departments {
		switch pointer := api.At("/set/departments", i); {
		case !d.HasDepartment(path):
			f.Add(pointer, "unknown_department", "there is no such department: create it first")
		case slices.Contains(set.Departments[:i], path):
			f.Add(pointer, "duplicate", "is named twice: leave it out")
		}
	}
	applyPreset(&set.Protocols, set.Preset, "/set", f)
}

// BatchSettings returns a function that applies the settings of a batch to a record, as a merge
// patch would.
func BatchSettings(set *api.BatchSet, named []string) func(cur *store.Account) *api.Account {
	has := map[string]bool{}
	for _, name := range named {
		has[name] = true
	}
	if set.Preset != "" {
		has["protocols.imap"], has["protocols.pop3"], has["protocols.smtp"] = true, true, true
	}
	return func(cur *store.Account) *api.Account {
		in := ViewAccount(cur)
		in.Preset = set.Preset // not that of the present switches
		if has["suspended"] {
			in.Suspended = set.Suspended
		}
		if has["departments"] {
			in.Departments = set.Departments
		}
		if has["secure_passwords"] {
			in.SecurePasswords = set.SecurePasswords
		}
		for _, p := range []struct {
			name     string
			to, from **bool
		}{
			{"imap", &in.Protocols.IMAP, &set.Protocols.IMAP},
			{"pop3", &in.Protocols.POP3, &set.Protocols.POP3},
			{"smtp", &in.Protocols.SMTP, &set.Protocols.SMTP},
			{"sieve", &in.Protocols.Sieve, &set.Protocols.Sieve},
		} {
			if has["protocols."+p.name] {
				*p.to = *p.from
			}
		}
		return &in
	}
}

// selected returns the accounts in a scope, sorted. Members need no record.
func (d *Domain) selected(scope *access.Scope, covers func(string, *store.Account) bool) []string {
	var selected []string
	for _, a := range d.Store.State.Accounts(d.name, "", 0) {
		if covers(a.Doc.Address, a.Doc) {
			selected = append(selected, a.Doc.Address)
		}
	}
	for _, m := range scope.Members {
		if _, ok := d.Store.State.Account(m); !ok && covers(m, nil) {
			selected = append(selected, m)
		}
	}
	slices.Sort(selected)
	return selected
}

// batchID identifies a batch by domain, selection and settings, and by whether it is a dry run.
func (d *Domain) batchID(in *api.Batch, named []string) string {
	text, _ := json.Marshal([]any{d.name, d.DryRun, in, slices.Sorted(slices.Values(named))}) // texts and flags: never fails
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:8])
}

// after returns the account after which the batch continues; "" to start.
func (b *Batch) after() (string, error) {
	if b.cursor == "" {
		return "", nil
	}
	text, err := base64.RawURLEncoding.DecodeString(b.cursor)
	id, after, _ := strings.Cut(string(text), " ")
	if err != nil || id != b.id {
		return "", api.BadCursor("the cursor belongs to another batch: send the body of that batch, or leave the cursor out to start again, which is safe")
	}
	return after, nil
}

// Run makes the changes in one transaction or several. report receives the results of each chunk once they are durable;
// its error stops the batch and is returned.
func (b *Batch) Run(ctx context.Context, report func(results []api.BatchAccount) error) error {
	for list := range b.portions() {
		t, err := b.chunk(ctx, list, &api.Faults{}, b.DryRun)
		if err != nil {
			p := b.stopped(err)
			p.Cursor = b.cursor
			return p
		}
		b.add(t)
		b.cursor = cursorOf(b.id + " " + list[len(list)-1].addr)
		if err := report(t.results); err != nil {
			return err
		}
	}
	return nil
}

// Progress returns how far the batch is, with the cursor that resumes it.
func (b *Batch) Progress() api.BatchProgress {
	done := b.earlier + len(b.changed) + b.unchanged + b.skipped + b.failed
	return api.BatchProgress{Done: done, Selected: b.selected, Cursor: b.cursor}
}

// Totals counts the accounts by result.
func (b *Batch) Totals() api.BatchTotals {
	return api.BatchTotals{
		Selected: b.selected, Earlier: b.earlier,
		Changed: len(b.changed), Unchanged: b.unchanged, Skipped: b.skipped, Failed: b.failed,
	}
}

// Changed returns the addresses of the accounts that changed.
func (b *Batch) Changed() []string { return list(b.changed) }
