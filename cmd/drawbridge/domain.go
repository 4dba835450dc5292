package main

import (
	"cmp"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func domainPath(name string, more ...string) string {
	return adminclient.Path(append([]string{"v1", "domains", name}, more...)...)
}

func (c *cli) domain() *cobra.Command {
	return group("domain", "The mail domains under management",
		c.domainCreate(), c.domainList(), c.domainShow(), c.domainSet(), c.domainDelete())
}

func domainSettings(cmd *cobra.Command) *settings {
	s := &settings{cmd: cmd}
	s.list("alias-domain", "alias_domains", "another `name` of the domain")
	s.protocols("on")
	s.number("max-secure-passwords", "max_secure_passwords", "`how many` secure passwords an account may have")
	s.word("accounts", "accounts", "listed: refuse settings for addresses that have no account here, unless --create is given", "open", "listed")
	s.word("sender-check", "sender_check", "which senders must belong to the login", "both", "envelope", "off")
	s.onOff("trace-header", "trace_header", "mark submitted mail with the client type and the secure password's label")
	s.list("administrator", "administrators", "`address` that no change may lock out unasked, instead of the postmaster")
	return s
}

func (c *cli) domainCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Take a domain under management",
		Long: "Take a domain under management. Unless --third-party says otherwise, third-party clients are\n" +
			"blocked from then on, except from the addresses given by --secure-login-ip.",
		Example: "  drawbridge domain create example.org --third-party report\n" +
			"  drawbridge domain create example.org --secure-login-ip 203.0.113.0/24 --secure-login-ip 2001:db8::/32",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s := domainSettings(cmd)
	w := writes(cmd)
	access := choose(cmd, "third-party", "third-party clients: let in, keep out, or only record whom it would keep out (default block)", "allow", "block", "report")
	ips := cmd.Flags().StringArray("secure-login-ip", nil, "`address`, CIDR or a-b range that third-party clients may always come from (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := object{"name": args[0]}
		if err := s.into(body, nil); err != nil {
			return err
		}
		if *access != "" || len(*ips) > 0 {
			switched := thirdPartyAccess(cmp.Or(*access, "block"))
			if len(*ips) > 0 {
				switched["secure_login_ips"] = *ips
			}
			body["third_party_access"] = switched
		}
		return c.write(cmd, w, http.MethodPost, adminclient.Path("v1", "domains"), body)
	}
	return cmd
}

func (c *cli) domainList() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list",
		Short:             "List the managed domains",
		Long:              "List the managed domains. A dash stands for a protocol that was never switched: it is on.",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.list(cmd, adminclient.Path("v1", "domains"), nil, *limit,
			col("NAME", "name"),
			col("ALIASES", "alias_domains"),
			col("IMAP", "protocols.imap"),
			col("POP3", "protocols.pop3"),
			col("SMTP", "protocols.smtp"),
			col("SIEVE", "protocols.sieve"),
			col("SECURE PASSWORDS", "max_secure_passwords"),
			col("SENDER CHECK", "sender_check"),
			col("TRACE HEADER", "trace_header"),
		)
	}
	return cmd
}

func (c *cli) domainShow() *cobra.Command {
	return &cobra.Command{
		Use:               "show DOMAIN",
		Short:             "Show a domain's settings",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE:              func(cmd *cobra.Command, args []string) error { return c.show(cmd, domainPath(args[0])) },
	}
}

func (c *cli) domainSet() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "set DOMAIN",
		Short:             "Change a domain's settings",
		Long:              "Change a domain's settings: those that are named, and no others.",
		Example:           "  drawbridge domain set example.org --pop3 off --max-secure-passwords 5",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := domainSettings(cmd)
	s.edits("add-alias-domain", "remove-alias-domain", "alias_domains", "another `name` of the domain")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.patch(cmd, w, domainPath(args[0]), s) }
	return cmd
}

func (c *cli) domainDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete DOMAIN --confirm",
		Short: "Give up a domain with all that belongs to it",
		Long: "Give up a domain with its departments, policies, accounts and secure passwords. It is unmanaged\n" +
			"from then on: the daemon's setting login.unmanaged says what its logins are answered.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	w := writes(cmd).versioned(cmd).confirmed(cmd, "really do it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, domainPath(args[0]), nil)
	}
	return cmd
}
