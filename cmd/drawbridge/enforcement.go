package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func (c *cli) enforcement() *cobra.Command {
	show := &cobra.Command{
		Use:               "show DOMAIN",
		Short:             "Show for whom secure passwords are enforced",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.show(cmd, enforcementPath(args[0]))
		},
	}
	return group("secure-password-policy", "For whom third-party clients need a secure password", show, c.enforce(), c.lift())
}

func enforcementPath(domain string) string { return domainPath(domain, "secure-password-policy") }

func (c *cli) enforce() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enforce DOMAIN",
		Short: "Accept nothing but secure passwords from third-party clients",
		Long: "Accept nothing but secure passwords from the third-party clients of the accounts named, and of no\n" +
			"others. Of those who come in by the mailbox password, new logins are refused at once, and open submission\n" +
			"sessions at their next command; open IMAP, POP3 and ManageSieve sessions go on until they reconnect.",
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
		return c.write(cmd, w, http.MethodPut, enforcementPath(args[0]), object{"enforced": true, "scope": body})
	}
	return cmd
}

func (c *cli) lift() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "lift DOMAIN",
		Short:             "Accept mailbox passwords again",
		Long:              "Accept mailbox passwords from third-party clients again, except for accounts whose own choice is required.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.edit(cmd, w, http.MethodPut, enforcementPath(args[0]), func(current object) (object, error) {
			body := object{"enforced": false}
			if scope, ok := current["scope"]; ok {
				body["scope"] = scope // kept for the next time
			}
			return body, nil
		})
	}
	return cmd
}
