// Package forwards finds what sends an account's mail on, or hides it: the actions of its Sieve scripts,
// read through doveadm, and the targets that Postfix' alias maps have for its address.
//
// A Dovecot or a map that cannot be asked is a problem in the result, never an empty list without one.
// Scripts of the site (sieve_before and the like) and .forward files are not read.
package forwards

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
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

// postmapWithin bounds one look-up.
const postmapWithin = 5 * time.Second

// Of returns the forwards of an account: Sieve scripts first, the active one before the others.
func (s *Site) Of(ctx context.Context, account string) *api.Forwards {
	r := &api.Forwards{Account: account, Items: []api.Forward{}, Scripts: []api.SieveScript{}, ManageSieve: []api.SieveLogin{}}
	if len(s.Dovecots) == 0 {
		r.Problems = append(r.Problems, "Sieve scripts are not known: set sessions.doveadm")
	}
	var scripts []doveadm.Script
	for _, d := range s.Dovecots {
		list, err := d.Scripts(ctx, account)
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
		}
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
		s.script(account, script, r)
	}
	for _, m := range s.AliasMaps {
		if err := s.aliases(ctx, account, m, r); err != nil {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	return r
}

// script adds a script and its actions.
func (s *Site) script(account string, script doveadm.Script, r *api.Forwards) {
	view := api.SieveScript{Name: script.Name, Active: script.Active, Size: len(script.Text)}
	if s.SieveDir != "" {
		at, err := s.changed(account, script.Name)
		if err != nil {
			r.Problems = append(r.Problems, err.Error())
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
func (s *Site) aliases(ctx context.Context, account, name string, r *api.Forwards) error {
	if len(s.Postmap) == 0 {
		return errors.New("alias maps cannot be asked: set mail.postmap")
	}
	keys := []string{account}
	if local, domain, _ := strings.Cut(account, "@"); domain == s.LocalDomain {
		keys = append(keys, local)
	}
	for _, key := range keys {
		targets, err := s.lookUp(ctx, key, name)
		if err != nil {
			return err
		}
		for _, target := range targets {
			if a, err := address.Parse(target, address.Domain(account)); err == nil && a == account {
				continue
			}
			r.Items = append(r.Items, api.Forward{
				Source: "alias_map", Name: name, Active: true, Action: "alias", Target: target,
				Outside: strings.Contains(target, "@") && s.outside(target), Copy: slices.Contains(targets, account),
			})
		}
	}
	return nil
}

// lookUp returns the targets of a key in a map.
func (s *Site) lookUp(ctx context.Context, key, name string) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, postmapWithin)
	defer cancel()
	args := append(s.Postmap[1:len(s.Postmap):len(s.Postmap)], "-q", "-", name)
	cmd := exec.CommandContext(ctx, s.Postmap[0], args...) //nolint:gosec // G204: the settings name it; no shell
	cmd.Stdin = strings.NewReader(key + "\n")
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
	var list []string
	for line := range strings.Lines(string(out)) { // key, tab, value
		_, value, _ := strings.Cut(strings.TrimSpace(line), "\t")
		for target := range strings.SplitSeq(value, ",") {
			if target = strings.TrimSpace(target); target != "" {
				list = append(list, target)
			}
		}
	}
	return list, nil
}
