package doveadm

import (
	"context"
	"fmt"
	"slices"
)

// Users returns the users of a domain that this Dovecot's userdbs list. A userdb that cannot list its users has
// none.
func (d *Doveadm) Users(ctx context.Context, domain string) ([]string, error) {
	mask := []string{"*@" + domain}
	rows, _, err := d.do(ctx, command{name: "user", masks: mask, params: map[string]any{"userMask": mask}})
	if err != nil {
		return nil, fmt.Errorf("%s: listing the users of %s: %w", d.name, domain, err)
	}
	return slices.Concat(rows...), nil
}
