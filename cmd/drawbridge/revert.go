package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"
)

func (c *cli) revert() *cobra.Command {
	return group("revert", "Confirm changes that are reverted otherwise", c.revertList(), c.revertConfirm())
}

func revertPath(domain string, more ...string) string {
	return domainPath(domain, append([]string{"reverts"}, more...)...)
}

func (c *cli) revertList() *cobra.Command {
	return &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the changes that wait for confirmation, next revert first",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.list(cmd, revertPath(args[0]), nil, 0,
				col("ID", "id"), col("REVERTS AT", "at"), col("ACTION", "action").shortened(), col("TARGET", "target").shortened(),
				col("BY", "by.name").onlyWide(), col("MADE", "created_at").onlyWide())
		},
	}
}

func (c *cli) revertConfirm() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "confirm DOMAIN ID",
		Short:             "Confirm a change, so that it is not reverted",
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "reverts", "id")),
	}
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, revertPath(args[0], args[1], "confirm"), nil)
	}
	return cmd
}

// printLockout prints the accounts that a refused change would lock out, and how to make it anyway.
// It reports whether the problem has such a list.
func (c *cli) printLockout(out io.Writer, p *api.Problem) bool {
	if p.Lockout == nil || len(p.Lockout.Who) == 0 {
		return false
	}
	who := fmt.Sprintf("%d of the %d accounts that logged in recently", p.Lockout.LockedOut, p.Lockout.Active)
	for _, as := range [...][2]string{
		{"administrator", ", including all administrators"},
		{"author", ", and all administrators at your own address"},
	} {
		for _, w := range p.Lockout.Who {
			if slices.Contains(w.As, as[0]) {
				who += as[1]
				break
			}
		}
	}
	c.printError(out, "lockout", "refused: the change would lock out "+who+
		". Make it anyway with --confirm, or with --revert-after 10m, which reverts it unless you confirm it in time")
	t := newTable(out)
	t.row("ACCOUNT", "IP", "CLIENT", "LAST LOGIN", "POLICY")
	for _, w := range p.Lockout.Who {
		t.row(w.Account, cell("", w.IP), string(w.Client), shortCell(w.LastLogin), cell("", w.PolicyID))
	}
	if p.Lockout.More > 0 {
		t.row("and " + strconv.Itoa(p.Lockout.More) + " more")
	}
	_ = t.Flush() // nowhere to report a failing standard error
	return true
}
