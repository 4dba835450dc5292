package doveadm

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode"
)

// Script is a Sieve script of a user.
type Script struct {
	Name   string
	Active bool
	Text   string
}

// maxScripts bounds the scripts that are read of a user.
const maxScripts = 100

// Scripts returns a user's Sieve scripts; none if this Dovecot does not know the user. It needs
// Pigeonhole's plugin of doveadm, which is loaded where ManageSieve is installed.
func (d *Doveadm) Scripts(ctx context.Context, user string) ([]Script, error) {
	rows, _, err := d.do(ctx, command{name: "sieve list", user: user})
	if err != nil {
		return nil, fmt.Errorf("%s: listing the Sieve scripts of %s: %w", d.name, user, err)
	}
	var list []Script
	for pair := range slices.Chunk(slices.Concat(rows...), 2) { // the socket's answer is one row of all
		if len(pair) != 2 || pair[0] == "" || strings.ContainsFunc(pair[0], unicode.IsControl) {
			return nil, fmt.Errorf("%s: listing the Sieve scripts of %s: %w", d.name, user, errAnswer)
		}
		list = append(list, Script{Name: pair[0], Active: pair[1] == "ACTIVE"})
	}
	if len(list) > maxScripts {
		return nil, fmt.Errorf("%s: %s has %d Sieve scripts, more than %d", d.name, user, len(list), maxScripts)
	}
	for i := range list {
		s := &list[i]
		rows, _, err := d.do(ctx, command{name: "sieve get", user: user, masks: []string{s.Name}, params: map[string]any{"scriptname": s.Name}})
		if err != nil {
			return nil, fmt.Errorf("%s: reading the Sieve script %q of %s: %w", d.name, s.Name, user, err)
		}
		s.Text = strings.Join(slices.Concat(rows...), "")
	}
	return list, nil
}
