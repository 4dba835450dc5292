// Package forwards finds what sends an account's mail on, or hides it: the actions of its Sieve scripts,
// read through doveadm, and the targets that Postfix' alias maps have for its address.
//
// A Dovecot or a map that cannot be asked is a problem in the result, never an empty list without one.
// Scripts of the site (sieve_before and the like) and .forward files are not read. Many accounts are
// looked up one after another, in a third of the time: some 20 a second, which a Dovecot hardly notices.
package forwards

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/sieve"
)

// Site is where forwards of accounts may be.
type Site struct {
	Dovecots []*doveadm.Doveadm
	// SieveDir is the directory of an account's scripts, with %u, %n and %d for the address, its local
	// part and its domain; "" if it is not known.
	SieveDir string
	// Postmap is the command that looks addresses up, and AliasMaps the maps, as Postfix names them.
	Postmap, AliasMaps []string
	// LocalDomain is the domain whose accounts the maps may also have without a domain, as aliases(5)
	// does; "" for none. Elsewhere such an entry is another tenant's.
	LocalDomain string
	// Managed reports whether mail to a domain stays in the site.
	Managed func(domain string) bool
}

// postmapWithin bounds one look-up, of one account or of a portion.
const postmapWithin = 5 * time.Second

// Bounds of [Site.Each].
const (
	// portion is the number of accounts that a map is asked for at once.
	portion = 100
	// A Dovecot or a map is not asked for further accounts after so many failures, in a row and overall.
	inRow, overall = 3, 50
	// restFactor is how much longer than the look-up of an account the pause after it is.
	restFactor = 2
)

// noDoveadm names what is not read without a Dovecot.
const noDoveadm = "sessions.doveadm"

// Of returns the forwards of an account: Sieve scripts first, the active one before the others.
func (s *Site) Of(ctx context.Context, account string) *api.Forwards {
	r := empty(account)
	if len(s.Dovecots) == 0 {
		unread(r, noDoveadm, "Sieve scripts are not known: set sessions.doveadm")
	}
	s.scripts(ctx, r, func(string) bool { return true }, func(name string, err error) {
		if err != nil {
			unread(r, name, err.Error())
		}
	})
	for _, m := range s.AliasMaps {
		targets, err := s.targets(ctx, []string{account}, m)
		if err != nil {
			unread(r, m, err.Error())
		}
		s.aliases(m, targets[account], r)
	}
	return r
}

// Each passes the forwards of many accounts of a domain, and of the users that Dovecot lists of it, to f, one after
// another, with pauses: logins need the same Dovecots and maps. A Dovecot that lists no users is no problem. A Dovecot or a map that keeps failing is not asked any more; what was not read
// because of that comes last, as the problems of the account "".
func (s *Site) Each(ctx context.Context, domain string, accounts []string, f func(*api.Forwards)) error {
	accounts = s.withUsers(ctx, domain, accounts)
	sources := map[string]*source{}
	for _, d := range s.Dovecots {
		sources[d.String()] = &source{what: "Sieve scripts"}
	}
	for _, m := range s.AliasMaps {
		sources[m] = &source{what: "targets of alias maps"}
	}
	for part := range slices.Chunk(accounts, portion) {
		targets := map[string]map[string][]string{}
		for _, m := range s.AliasMaps {
			if sources[m].skips(len(part)) {
				continue
			}
			var err error
			targets[m], err = s.targets(ctx, part, m)
			if sources[m].note(err); err != nil {
				sources[m].skipped += len(part)
			}
		}
		for _, account := range part {
			begin := time.Now()
			r := empty(account)
			s.scripts(ctx, r, func(name string) bool { return !sources[name].skips(1) }, func(name string, err error) {
				sources[name].note(err)
				if err != nil {
					unread(r, name, err.Error())
				}
			})
			for _, m := range s.AliasMaps {
				s.aliases(m, targets[m][account], r)
			}
			if err := ctx.Err(); err != nil {
				return err // and what failed because of it is nobody's forward
			}
			f(r)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(restFactor * time.Since(begin)):
			}
		}
	}
	r := empty("")
	if len(s.Dovecots) == 0 {
		unread(r, noDoveadm, "Sieve scripts are not known: set sessions.doveadm")
	}
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		if left := sources[name]; left.skipped > 0 {
			unread(r, name, fmt.Sprintf("%s of %d accounts were not read: %v", left.what, left.skipped, left.last))
		}
	}
	if len(r.Problems) > 0 {
		f(r)
	}
	return nil
}

// withUsers adds the users that Dovecot lists of a domain to accounts, and sorts them.
func (s *Site) withUsers(ctx context.Context, domain string, accounts []string) []string {
	accounts = slices.Clone(accounts)
	for _, d := range s.Dovecots {
		users, err := d.Users(ctx, domain)
		if err != nil {
			continue // its userdb lists none, or asking it for scripts will say what is wrong
		}
		for _, user := range users {
			if account, err := address.Parse(user, ""); err == nil && address.Domain(account) == domain {
				accounts = append(accounts, account)
			}
		}
	}
	slices.Sort(accounts)
	return slices.Compact(accounts)
}

// source is a Dovecot or a map, and how asking it went.
type source struct {
	what            string
	inRow, failures int
	last            error
	skipped         int // accounts
}

func (s *source) note(err error) {
	if s.inRow++; err == nil {
		s.inRow = 0
		return
	}
	s.failures++
	s.last = err
}

// skips reports whether it is not asked any more, and counts the accounts.
func (s *source) skips(accounts int) bool {
	if s.inRow < inRow && s.failures < overall {
		return false
	}
	s.skipped += accounts
	return true
}

func empty(account string) *api.Forwards {
	return &api.Forwards{Account: account, Items: []api.Forward{}, Scripts: []api.SieveScript{}, ManageSieve: []api.SieveLogin{}}
}

func unread(r *api.Forwards, source, why string) {
	r.Problems, r.Unread = append(r.Problems, why), append(r.Unread, source)
}

// scripts adds the account's Sieve scripts and their actions. ask says whether a Dovecot is asked, and
// asked receives how that went.
func (s *Site) scripts(ctx context.Context, r *api.Forwards, ask func(source string) bool, asked func(source string, err error)) {
	var scripts []doveadm.Script
	for _, d := range s.Dovecots {
		if !ask(d.String()) {
			continue
		}
		list, err := d.Scripts(ctx, r.Account)
		asked(d.String(), err)
		for _, script := range list { // Dovecots that share their storage have the same ones
			if !slices.Contains(scripts, script) {
				scripts = append(scripts, script)
			}
		}
	}
	slices.SortStableFunc(scripts, func(a, b doveadm.Script) int {
		if a.Active != b.Active {
			if a.Active {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Name, b.Name)
	})
	for _, script := range scripts {
		s.script(r.Account, script, r)
	}
}

// script adds a script and its actions.
func (s *Site) script(account string, script doveadm.Script, r *api.Forwards) {
	view := api.SieveScript{Name: script.Name, Active: script.Active, Size: len(script.Text)}
	if s.SieveDir != "" {
		at, err := s.changed(account, script.Name)
		if err != nil {
			unread(r, "sessions.sieve_dir", err.Error())
		}
		view.ChangedAt = at
	}
	actions, err := sieve.Actions(script.Text)
	if err != nil {
		view.Problem = err.Error()
	}
	for _, a := range actions {
		r.Items = append(r.Items, api.Forward{
			Source: "sieve", Name: script.Name, Active: script.Active, ChangedAt: view.ChangedAt, Line: a.Line,
			Action: a.Name, Target: a.Target, Computed: a.Computed, Copy: a.Copy, Outside: s.leaves(a),
		})
	}
	r.Scripts = append(r.Scripts, view)
}

// leaves reports whether an action may send mail out of the site.
func (s *Site) leaves(a sieve.Action) bool {
	switch a.Name {
	case "redirect", "report":
		return a.Computed || s.outside(a.Target)
	case "notify":
		return a.Computed || s.notifiesOutside(a.Target)
	}
	return false
}

// notifiesOutside reports whether a method of notification is mail to somebody outside (RFC 6068):
// recipients stand before the "?", several with commas between, and in header fields behind it.
func (s *Site) notifiesOutside(method string) bool {
	scheme, rest, _ := strings.Cut(method, ":")
	if !strings.EqualFold(scheme, "mailto") {
		return false
	}
	to, fields, _ := strings.Cut(rest, "?")
	to, err := url.PathUnescape(to)
	query, queryErr := url.ParseQuery(strings.ReplaceAll(fields, "+", "%2B"))
	if err != nil || queryErr != nil {
		return true
	}
	var all []string
	if to != "" {
		all = strings.Split(to, ",")
	}
	for name, values := range query {
		if slices.Contains([]string{"to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc"}, strings.ToLower(name)) {
			all = append(all, strings.Split(strings.Join(values, ","), ",")...)
		}
	}
	return slices.ContainsFunc(all, s.outside)
}

// outside reports whether an address is not one of a managed domain.
func (s *Site) outside(text string) bool {
	if i := strings.LastIndexByte(text, '<'); i >= 0 {
		text, _, _ = strings.Cut(text[i+1:], ">")
	}
	a, err := address.Parse(text, "")
	return err != nil || !s.Managed(address.Domain(a))
}

// changed returns when the file of a script was changed.
func (s *Site) changed(account, script string) (time.Time, error) {
	local, domain, _ := strings.Cut(account, "@")
	if filepath.Base(script) != script || strings.Contains(account, "/") || strings.HasPrefix(local, ".") {
		return time.Time{}, fmt.Errorf("the time of the Sieve script %q of %s is not known: its name is not that of a file", script, account)
	}
	dir := strings.NewReplacer("%u", account, "%n", local, "%d", domain).Replace(s.SieveDir)
	info, err := os.Stat(filepath.Join(dir, script+".sieve"))
	if err != nil {
		return time.Time{}, fmt.Errorf("the time of the Sieve script %q of %s is not known: %w", script, account, err)
	}
	return info.ModTime().UTC(), nil
}

// aliases adds the targets that a map has for an account.
func (s *Site) aliases(name string, targets []string, r *api.Forwards) {
	for _, target := range targets {
		if a, err := address.Parse(target, address.Domain(r.Account)); err == nil && a == r.Account {
			continue
		}
		r.Items = append(r.Items, api.Forward{
			Source: "alias_map", Name: name, Active: true, Action: "alias", Target: target,
			Outside: strings.Contains(target, "@") && s.outside(target), Copy: slices.Contains(targets, r.Account),
		})
	}
}

// targets returns what a map has for accounts.
func (s *Site) targets(ctx context.Context, accounts []string, name string) (map[string][]string, error) {
	if len(s.Postmap) == 0 {
		return nil, errors.New("alias maps cannot be asked: set mail.postmap")
	}
	keys, of := slices.Clone(accounts), map[string]string{}
	for _, account := range accounts {
		of[account] = account
		if local, domain, _ := strings.Cut(account, "@"); domain == s.LocalDomain {
			keys = append(keys, local)
			of[local] = account
		}
	}
	found, err := s.lookUp(ctx, keys, name)
	if err != nil {
		return nil, err
	}
	targets := make(map[string][]string, len(found))
	for _, key := range keys {
		if list := found[key]; len(list) > 0 {
			targets[of[key]] = append(targets[of[key]], list...)
		}
	}
	return targets, nil
}

// lookUp returns the targets of keys in a map.
func (s *Site) lookUp(ctx context.Context, keys []string, name string) (map[string][]string, error) {
	ctx, cancel := context.WithTimeout(ctx, postmapWithin)
	defer cancel()
	args := append(s.Postmap[1:len(s.Postmap):len(s.Postmap)], "-q", "-", name)
	cmd := exec.CommandContext(ctx, s.Postmap[0], args...) //nolint:gosec // G204: the settings name it; no shell
	cmd.Stdin = strings.NewReader(strings.Join(keys, "\n") + "\n")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.Output()
	first, _, _ := strings.Cut(strings.TrimSpace(said.String()), "\n")
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == 1 && first == "": // not found
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("asking the alias map %s: %w: %.200q", name, err, first)
	}
	found := map[string][]string{}
	for line := range strings.Lines(string(out)) { // key, tab, value
		key, value, _ := strings.Cut(strings.TrimSpace(line), "\t")
		for target := range strings.SplitSeq(value, ",") {
			if target = strings.TrimSpace(target); target != "" {
				found[key] = append(found[key], target)
			}
		}
	}
	return found, nil
}
