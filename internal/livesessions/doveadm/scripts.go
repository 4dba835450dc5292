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

// Bounds of what is read of a user: scripts, and bytes of all of them. The user decides how many there
// are.
const (
	maxScripts = 100
	maxText    = 16 << 20
)

// Scripts returns a user's Sieve scripts, the active one first; none if this Dovecot does not know the
// user. With an error it returns those that were read before. It needs Pigeonhole's plugin of doveadm,
// which is loaded where ManageSieve is installed.
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
		script := Script{Name: pair[0], Active: pair[1] == "ACTIVE"}
		if script.Active {
			list = slices.Insert(list, 0, script)
		} else {
			list = append(list, script)
		}
	}
	var text int
	for i := range list {
		s := &list[i]
		if i == maxScripts || text > maxText {
			return list[:i], fmt.Errorf("%s: %s has %d Sieve scripts, of which the first %d were read", d.name, user, len(list), i)
		}
		rows, _, err := d.do(ctx, command{name: "sieve get", user: user, masks: []string{s.Name}, params: map[string]any{"scriptname": s.Name}})
		if err != nil {
			return list[:i], fmt.Errorf("%s: reading the Sieve script %q of %s: %w", d.name, s.Name, user, err)
		}
		s.Text = strings.Join(slices.Concat(rows...), "")
		text += len(s.Text)
	}
	return list, nil
}
