package main

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"
)

func (c *cli) revert() *cobra.Command {
	return group("revert", "Changes that undo themselves unless they are confirmed", c.revertList(), c.revertConfirm())
}

func revertPath(domain string, more ...string) string {
	return domainPath(domain, append([]string{"reverts"}, more...)...)
}

func (c *cli) revertList() *cobra.Command {
	return &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the changes that wait to be confirmed, the next one that is undone first",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.list(cmd, revertPath(args[0]), nil, 0,
				col("ID", "id"), col("UNDONE AT", "at"), col("ACTION", "action"), col("TARGET", "target"), col("BY", "by.name"), col("MADE", "created_at"))
		},
	}
}

func (c *cli) revertConfirm() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "confirm DOMAIN ID",
		Short:             "Keep a change: it does not undo itself any more",
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "reverts", "id")),
	}
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, revertPath(args[0], args[1], "confirm"), nil)
	}
	return cmd
}

// printLockout lists whom a refused change would lock out, and says what to do in this command's
// own words. It reports whether there was such a list.
func (c *cli) printLockout(out io.Writer, p *api.Problem) bool {
	if p.Lockout == nil || len(p.Lockout.Who) == 0 {
		return false
	}
	who := fmt.Sprintf("%d of the %d members who came in lately", p.Lockout.LockedOut, p.Lockout.Active)
	for _, as := range [...][2]string{
		{"administrator", ", all administrators among them"},
		{"author", ", and all administrators at the address that you call from"},
	} {
		for _, w := range p.Lockout.Who {
			if slices.Contains(w.As, as[0]) {
				who += as[1]
				break
			}
		}
	}
	c.printError(out, "lockout", "refused: it would lock out "+who+
		". --confirm makes the change all the same; --revert-after 10m makes it, and undoes it unless you confirm it in time")
	t := newTable(out)
	t.row("ACCOUNT", "AS", "IP", "CLIENT", "PROTOCOL", "LAST LOGIN", "POLICY")
	for _, w := range p.Lockout.Who {
		t.row(w.Account, strings.Join(w.As, " "), cell("", w.IP), string(w.Client), w.Protocol, timeCell(w.LastLogin), cell("", w.PolicyID))
	}
	if p.Lockout.More > 0 {
		t.row("and " + strconv.Itoa(p.Lockout.More) + " more")
	}
	_ = t.Flush() // standard error has nobody to complain to
	return true
}
