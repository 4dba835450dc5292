package main

import (
	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) accountForwards() *cobra.Command {
	cmd := c.onAccount("forwards", "List what sends an account's mail on, or hides it")
	cmd.Long = "List the actions of the account's Sieve scripts that send mail on, file, answer or delete it, and the targets of its\n" +
		"address in Postfix' alias maps (mail.alias_maps). A target that a script makes when it runs is \"computed\". Scripts are\n" +
		"read through doveadm (sessions.doveadm); sessions.sieve_dir shows when they were changed. Logins by ManageSieve are\n" +
		"listed, because scripts can be changed by them."
	cmd.Example = "  drawbridge account forwards ann@example.org"
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := c.get(cmd, accountPath(args[0], "forwards"), nil)
		if err != nil {
			return err
		}
		return printView(c, cmd, a, func(row func(...string), f *api.Forwards) {
			for _, problem := range f.Problems {
				c.note(cmd, "problem: %s", problem)
			}
			for _, s := range f.Scripts {
				if s.Problem != "" {
					c.note(cmd, "problem: the Sieve script %q: %s", s.Name, s.Problem)
				}
			}
			row("FROM", "CHANGED", "ACTION", "TARGET", "OUTSIDE")
			for i := range f.Items {
				i := &f.Items[i]
				row(forwardSource(i), timeCell(i.ChangedAt), i.Action, i.Target, forwardTo(i))
			}
			for _, s := range f.Scripts {
				if !s.ChangedAt.IsZero() || s.Active {
					row("script "+s.Name+activeWord(s.Active), timeCell(s.ChangedAt))
				}
			}
			for _, l := range f.ManageSieve {
				row("ManageSieve from "+l.IP, timeCell(l.Time), "login", l.Device)
			}
		})
	}
	return cmd
}

func forwardSource(f *api.Forward) string {
	if f.Source != "sieve" {
		return f.Name
	}
	return "script " + f.Name + activeWord(f.Active)
}

func activeWord(active bool) string {
	if active {
		return ""
	}
	return " (inactive)"
}

func forwardTo(f *api.Forward) string {
	switch {
	case f.Computed:
		return "computed"
	case f.Outside:
		return "yes"
	}
	return "no"
}
