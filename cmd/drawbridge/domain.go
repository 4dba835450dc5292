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
	return group("domain", "Manage domains",
		c.domainCreate(), c.domainList(),
		c.showIn("Show a domain's settings", func(domain string) string { return domainPath(domain) }, c.printAnswer),
		c.domainSet(), c.domainDelete())
}

func domainSettings(cmd *cobra.Command) *settings {
	s := &settings{cmd: cmd}
	s.list("alias-domain", "alias_domains", "another `name` of the domain")
	s.protocols("on")
	s.number("max-secure-passwords", "max_secure_passwords", "maximum `number` of secure passwords of an account")
	s.word("accounts", "accounts", "open: any address may get settings and secure passwords; listed: only existing accounts, unless --create is given", "open", "listed")
	s.word("sender-check", "sender_check", "which sender addresses must belong to the login: envelope and header (both), envelope, or none (off)", "both", "envelope", "off")
	s.onOff("trace-header", "trace_header", "add a header with the client type and the device label to submitted mail")
	s.number("password-min-length", "password_policy.min_length", "minimum `number` of characters of new mailbox passwords kept here; 0 for none")
	s.number("password-min-strength", "password_policy.min_strength", "minimum estimated strength of new mailbox passwords, a `number` from 1 (very guessable) to 4 (very unguessable); 0: not checked")
	s.list("password-keyword", "password_policy.forbidden_keywords", "forbidden `word` in new mailbox passwords")
	s.number("password-history", "password_policy.history", "`number` of latest passwords that must not be used again; 0 for none")
	s.text("password-max-age", "password_policy.max_age", "`age` at which mailbox passwords expire, such as 180d; \"\" for never")
	s.text("records-retention", "records.retention", "`age` at which login and message records are deleted, such as 30d; \"\" for that of the site")
	s.text("pseudonymise-after", "records.pseudonymise_after", "`age` at which addresses and client ids in records are replaced by keyed hashes, such as 14d; \"\" for never")
	s.text("inspect-every", "inspection.every", "`time` between two inspections of the domain, such as 7d; its administrators get a mail about new findings; \"\" for never")
	s.number("inspect-days", "inspection.days", "`number` of days without use after which these inspections count access as unused; 0 for 90")
	s.word("mailbox-passwords", "mailbox_passwords", "who verifies mailbox passwords: as login.next_passdb says (site), Drawbridge (here), the next passdb (next), or Drawbridge for accounts that have one set here (stored)", "site", "here", "next", "stored")
	factor := choose(cmd, "second-factor", "require a second factor of all accounts, at pages and clients that ask for one; for other scopes use the API", "required", "off")
	s.add("second-factor", func(body, _ object) error {
		body.put("second_factor", nil)
		if *factor == "required" {
			body.put("second_factor", object{"required": true, "scope": object{"all": true}})
		}
		return nil
	})
	s.list("administrator", "administrators", "`address` of an administrator, protected against lock-outs; default: the postmaster")
	return s
}

func (c *cli) domainCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Add a domain",
		Long: "Add a domain. Third-party clients are blocked from now on, except from the addresses given with\n" +
			"--secure-login-ip; --third-party report only records which logins would be refused.",
		Example: "  drawbridge domain create example.org --third-party report\n" +
			"  drawbridge domain create example.org --secure-login-ip 203.0.113.0/24 --secure-login-ip 2001:db8::/32",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s := domainSettings(cmd)
	w := writes(cmd)
	access := choose(cmd, "third-party", "allow or block third-party clients, or only report which logins would be refused (default block)", "allow", "block", "report")
	ips := cmd.Flags().StringArray("secure-login-ip", nil, "`address`, CIDR or a-b range from which third-party clients are always allowed (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := single("secure-login-ip", *ips); err != nil {
			return err
		}
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
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.list(cmd, adminclient.Path("v1", "domains"), nil, *limit,
			col("NAME", "name"),
			col("ALIASES", "alias_domains").onlyWide(),
			col("IMAP", "protocols.imap"),
			col("POP3", "protocols.pop3"),
			col("SMTP", "protocols.smtp"),
			col("SIEVE", "protocols.sieve"),
			col("ACCOUNTS", "accounts"),
			col("SENDER CHECK", "sender_check"),
			col("MAX SECURE PASSWORDS", "max_secure_passwords").onlyWide(),
			col("TRACE HEADER", "trace_header").onlyWide(),
		)
	}
	return cmd
}

// showIn is a command that shows a resource of a domain.
func (c *cli) showIn(short string, path func(domain string) string, show printer) *cobra.Command {
	return &cobra.Command{
		Use:               "show DOMAIN",
		Short:             short,
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := c.get(cmd, path(args[0]), nil)
			if err != nil {
				return err
			}
			return show(cmd, a)
		},
	}
}

func (c *cli) domainSet() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "set DOMAIN",
		Short:             "Change a domain's settings",
		Long:              "Change the settings of a domain that are given; the others stay as they are.",
		Example:           "  drawbridge domain set example.org --pop3 off --max-secure-passwords 5",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := domainSettings(cmd)
	s.edits("add-alias-domain", "remove-alias-domain", "alias_domains", "another `name` of the domain")
	s.edits("add-password-keyword", "remove-password-keyword", "password_policy.forbidden_keywords", "a forbidden `word`")
	s.edits("add-administrator", "remove-administrator", "administrators", "the `address` of an administrator")
	w := writes(cmd).versioned(cmd).confirmed(cmd, "make the change even if mailbox passwords become invalid at once")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.patch(cmd, w, domainPath(args[0]), s) }
	return cmd
}

func (c *cli) domainDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "delete DOMAIN --confirm",
		Short: "Delete a domain and everything in it",
		Long: "Delete a domain with its departments, policies, accounts, secure passwords and records. Without --confirm the\n" +
			"command only shows what would be deleted. The domain is unmanaged afterwards: the daemon's setting\n" +
			"login.unmanaged decides its logins.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	w := writes(cmd).versioned(cmd).confirmed(cmd, "delete the domain and everything listed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, domainPath(args[0]), nil)
	}
	return cmd
}
