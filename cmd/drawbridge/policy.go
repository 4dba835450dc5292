package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func policyPath(domain string, more ...string) string {
	return domainPath(domain, append([]string{"policies"}, more...)...)
}

func (c *cli) policy() *cobra.Command {
	return group("policy", "Manage access policies: who may log in, and from where",
		c.policyList(), c.policyShow(), c.policyCreate(), c.policySet(),
		c.policySwitch("enable", "Enable a policy", true), c.policySwitch("disable", "Disable a policy without deleting it", false),
		c.policyDelete(), c.policyTest(), c.policyPreview(), c.policyMigrate())
}

func (c *cli) policyList() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the access policies of a domain",
		Long:              "List the access policies of a domain. drawbridge account effective ACCOUNT lists those that apply to an account.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, policyPath(args[0]), nil, *limit,
			col("ID", "id"),
			col("NAME", "name").shortened(),
			col("TYPE", "type"),
			col("ENABLED", "enabled"),
			col("MODE", "mode"),
			column{heading: "SCOPE", field: "scope", text: whomText, soft: true},
			col("IPS", "ips").onlyWide(),
			col("REGIONS", "regions").onlyWide(),
			col("EXCEPT IPS", "except_ips").onlyWide(),
			col("CLIENTS", "clients").onlyWide(),
			col("PROTOCOLS", "protocols").onlyWide(),
		)
	}
	return cmd
}

// onPolicy is a command about one policy.
func (c *cli) onPolicy(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " DOMAIN ID",
		Short:             short,
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain, c.completePolicy()),
	}
}

func (c *cli) completePolicy() completion { return c.completeIn("domains", "policies", "id") }

func (c *cli) policyShow() *cobra.Command {
	cmd := c.onPolicy("show", "Show an access policy")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.show(cmd, policyPath(args[0], args[1])) }
	return cmd
}

// policySettings are the fields of a policy that create and set have in common.
func (c *cli) policySettings(cmd *cobra.Command) (*settings, *scope) {
	s := &settings{cmd: cmd}
	s.text("name", "name", "`name` of the policy")
	s.word("type", "type", "blacklist: refuse logins from its addresses and regions; whitelist: refuse logins from anywhere else", "whitelist", "blacklist")
	s.onOff("enabled", "enabled", "whether the policy is evaluated")
	s.word("mode", "mode", "enforce: refuse logins; report: only record which logins would be refused", "enforce", "report")
	s.list("ip", "ips", "client `address`, CIDR or a-b range")
	s.list("region", "regions", "`country` code, such as DE")
	s.list("except-ip", "except_ips", "`address`, CIDR or a-b range to exclude")
	s.list("client", "clients", "client `type`; default: any")
	s.list("protocol", "protocols", "`protocol`: imap, pop3, smtp, sieve or web; default: any")
	for flag, offers := range map[string]completion{
		"region": c.completeRegion, "client": c.completeClient,
		"protocol": cobra.FixedCompletions([]string{"imap", "pop3", "smtp", "sieve", "web"}, cobra.ShellCompDirectiveNoFileComp),
	} {
		_ = cmd.RegisterFlagCompletionFunc(flag, offers) // the flag is there
	}
	return s, scoped(cmd)
}

func (c *cli) policyCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create DOMAIN",
		Short: "Create an access policy",
		Long: "Create an access policy. Its scope says which accounts it applies to (--all, --department …), its place where the\n" +
			"client is (--ip, --region, --except-ip), and --client and --protocol limit it further. A blacklist refuses logins\n" +
			"from its place, or from anywhere if it has none. Whitelists refuse logins from outside all of their places. One\n" +
			"refusal is enough; the order of policies does not matter.",
		Example: "  drawbridge policy create example.org --id office --name \"Only from the office\" --type whitelist --all --ip 203.0.113.0/24\n" +
			"  drawbridge policy create example.org --name \"Nobody from abroad\" --type whitelist --all --region DE --ip 192.0.2.0/24\n" +
			"  drawbridge policy create example.org --name \"Interns: webmail only\" --type blacklist --department interns --client third-party",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s, whom := c.policySettings(cmd)
	s.text("id", "id", "`id` that commands use; default: generated")
	w := writes(cmd).guarded(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scope, err := whom.body()
		if err != nil {
			return err
		}
		body := object{"scope": scope}
		if err := s.into(body, nil); err != nil {
			return err
		}
		return c.write(cmd, w, http.MethodPost, policyPath(args[0]), body)
	}
	return cmd
}

func (c *cli) policySet() *cobra.Command {
	cmd := c.onPolicy("set", "Change an access policy")
	cmd.Long = "Change the settings of an access policy that are given; the others stay as they are. The scope flags (--all,\n" +
		"--department, --member …) replace the whole scope; the flags --add-… and --remove-… edit one list. While a change of\n" +
		"the policy waits for drawbridge revert confirm, other edits stay subject to the revert."
	cmd.Example = "  drawbridge policy set example.org office --add-ip 198.51.100.0/24\n" +
		"  drawbridge policy set example.org office --add-except-member ann@example.org"
	s, whom := c.policySettings(cmd)
	s.edits("add-ip", "remove-ip", "ips", "an `address`, CIDR or a-b range")
	s.edits("add-region", "remove-region", "regions", "a `country` code")
	s.edits("add-except-ip", "remove-except-ip", "except_ips", "an `address`, CIDR or a-b range to exclude")
	s.edits("add-client", "remove-client", "clients", "a client `type`")
	s.edits("add-protocol", "remove-protocol", "protocols", "a `protocol`")
	for flag, offers := range map[string]completion{"add-region": c.completeRegion, "add-client": c.completeClient} {
		_ = cmd.RegisterFlagCompletionFunc(flag, offers) // the flag is there
	}
	s.scope(whom)
	w := writes(cmd).versioned(cmd).guarded(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.patch(cmd, w, policyPath(args[0], args[1]), s)
	}
	return cmd
}

func (c *cli) policySwitch(verb, short string, on bool) *cobra.Command {
	cmd := c.onPolicy(verb, short)
	w := writes(cmd).versioned(cmd).guarded(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPatch, policyPath(args[0], args[1]), object{"enabled": on})
	}
	return cmd
}

func (c *cli) policyDelete() *cobra.Command {
	cmd := c.onPolicy("delete", "Delete an access policy")
	cmd.Long = "Delete an access policy. To see the effect first, run drawbridge policy preview DOMAIN ID --remove. To keep the\n" +
		"policy for later, run drawbridge policy disable instead."
	w := writes(cmd).versioned(cmd).guarded(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, policyPath(args[0], args[1]), nil)
	}
	return cmd
}

func (c *cli) policyTest() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test DOMAIN [ID]",
		Short: "Test how a login would be decided, and why",
		Long: "Test how a login would be decided, step by step, and whether a policy matches it. Nothing is recorded or counted.\n" +
			"With --draft, a policy in a JSON file is tested as if it were enabled, in place of the policy ID, if given.\n" +
			"The login uses the correct mailbox password, unless --credential names a secure password.",
		Example: "  drawbridge policy test example.org office --account ann@example.org --protocol imap --ip 198.51.100.7\n" +
			"  drawbridge policy test example.org --draft policy.json --account ann@example.org --protocol smtp",
		Args:              takes("DOMAIN", "[ID]"),
		ValidArgsFunction: arguments(c.completeDomain, c.completePolicy()),
	}
	s := hypothetical(cmd)
	draft := drafted(cmd, "policy")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		login := object{}
		if err := s.into(login, nil); err != nil {
			return err
		}
		body := object{"login": login}
		if *draft != "" {
			policy, err := readJSON(cmd, "draft", *draft)
			if err != nil {
				return err
			}
			body["policy"] = policy
		}
		return c.decide(cmd, policyPath(args[0], append(args[1:], "test")...), body)
	}
	return cmd
}

// drafted adds --draft to a command that evaluates a policy or a mail rule.
func drafted(cmd *cobra.Command, kind string) *string {
	draft := cmd.Flags().String("draft", "", "`file` with a "+kind+" in JSON; - for standard input")
	_ = cmd.MarkFlagFilename("draft", "json") // the flag is there
	return draft
}
