package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) securePasswordPolicy() *cobra.Command {
	return group("secure-password-policy", "Enforce secure passwords for third-party clients",
		c.showIn("Show for which accounts secure passwords are enforced", enforcementPath, c.printEnforcement), c.enforce(), c.lift())
}

// printEnforcement prints the enforcement in the words of the commands that set it.
func (c *cli) printEnforcement(cmd *cobra.Command, a *adminclient.Answer) error {
	type policy struct {
		Enforced bool           `json:"enforced"`
		Scope    map[string]any `json:"scope"`
	}
	return printView(c, cmd, a, func(row func(...string), p *policy) {
		enforced := "not enforced"
		if p.Enforced {
			enforced = "enforced"
		}
		row("secure passwords:", enforced)
		row("scope:", whomText(p.Scope))
	})
}

func enforcementPath(domain string) string { return domainPath(domain, "secure-password-policy") }

func (c *cli) enforce() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enforce DOMAIN",
		Short: "Enforce secure passwords for third-party clients",
		Long: "Refuse the mailbox password in third-party clients of the accounts in the scope. The scope replaces the current\n" +
			"one. New logins with the mailbox password are refused at once, and open submission sessions at their next\n" +
			"command. Open IMAP, POP3 and ManageSieve sessions with a mailbox password are ended if the daemon's setting\n" +
			"sessions.doveadm names the Dovecots; otherwise they stay open until the client reconnects.",
		Example:           "  drawbridge secure-password-policy enforce example.org --all --except-member scanner@example.org",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	whom := scoped(cmd)
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := whom.body()
		if err != nil {
			return err
		}
		return c.writeWith(cmd, w, http.MethodPut, enforcementPath(args[0]), object{"enforced": true, "scope": body}, c.printEnforcement)
	}
	return cmd
}

func (c *cli) lift() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "lift DOMAIN",
		Short:             "Accept mailbox passwords again",
		Long:              "Accept mailbox passwords in third-party clients again, except for accounts set to --secure-passwords required.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.edit(cmd, w, http.MethodPut, enforcementPath(args[0]), func(current object) (object, error) {
			body := object{"enforced": false}
			if scope, ok := current["scope"]; ok {
				body["scope"] = scope // for the next time
			}
			return body, nil
		}, c.printEnforcement)
	}
	return cmd
}
