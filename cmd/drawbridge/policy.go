package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func policyPath(domain string, more ...string) string {
	return domainPath(domain, append([]string{"policies"}, more...)...)
}

func (c *cli) policy() *cobra.Command {
	return group("policy", "Who may log in to a domain, from where, with what",
		c.policyList(), c.policyShow(), c.policyCreate(), c.policySet(),
		c.policySwitch("enable", "Put a policy into force", true), c.policySwitch("disable", "Put a policy out of force, and keep it", false),
		c.policyDelete(), c.policyTest(), c.policyPreview(), c.policyMigrate())
}

func (c *cli) policyList() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the access policies of a domain",
		Long:              "List the access policies of a domain. drawbridge account effective ACCOUNT lists those that concern an account.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, policyPath(args[0]), nil, *limit,
			col("ID", "id"),
			col("NAME", "name"),
			col("TYPE", "type"),
			col("ENABLED", "enabled"),
			col("MODE", "mode"),
			column{"WHOM", "scope", whomText},
			col("IPS", "ips"),
			col("REGIONS", "regions"),
			col("EXCEPT IPS", "except_ips"),
			col("CLIENTS", "clients"),
			col("PROTOCOLS", "protocols"),
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
	s.text("name", "name", "what people read")
	s.word("type", "type", "a blacklist refuses at its place, a whitelist everywhere else", "whitelist", "blacklist")
	s.onOff("enabled", "enabled", "whether it is in force")
	s.word("mode", "mode", "report only records what would be refused", "enforce", "report")
	s.list("ip", "ips", "`address`, CIDR or a-b range")
	s.list("region", "regions", "`country` by its code, such as DE")
	s.list("except-ip", "except_ips", "but not this `address`, CIDR or a-b range")
	s.list("client", "clients", "`type` of client, any without")
	s.list("protocol", "protocols", "`protocol`: imap, pop3, smtp, sieve or web; any without")
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
		Short: "Make an access policy",
		Long: "Make an access policy: for whom (--all, --department …), from where (--ip, --region, --except-ip), with what\n" +
			"(--client, --protocol). A blacklist refuses at its place, or anywhere when it names none; whitelists refuse wherever none\n" +
			"of them has its place. Deny wins, and the order never matters.",
		Example: "  drawbridge policy create example.org --id office --name \"Only from the office\" --type whitelist --all --ip 203.0.113.0/24\n" +
			"  drawbridge policy create example.org --name \"Nobody from abroad\" --type whitelist --all --region DE --ip 192.0.2.0/24\n" +
			"  drawbridge policy create example.org --name \"Interns: webmail only\" --type blacklist --department interns --client third-party",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s, whom := c.policySettings(cmd)
	s.text("id", "id", "what commands call it; generated without")
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
	cmd.Long = "Change an access policy: what is named, and nothing else. Flags that say whom it concerns replace all of that,\n" +
		"but for --add-member, --add-except-member and their counterparts."
	cmd.Example = "  drawbridge policy set example.org office --add-ip 198.51.100.0/24\n" +
		"  drawbridge policy set example.org office --add-except-member ann@example.org"
	s, whom := c.policySettings(cmd)
	s.edits("add-ip", "remove-ip", "ips", "an `address`, CIDR or a-b range, spelled as in the list")
	s.edits("add-region", "remove-region", "regions", "a `country` by its code, spelled as in the list")
	s.edits("add-except-ip", "remove-except-ip", "except_ips", "an `address`, CIDR or a-b range that is excepted")
	s.fields = append(s.fields, setting{flags: scopeFlags[:], apply: func(body, _ object) error {
		scope, err := whom.body()
		if err != nil {
			return err
		}
		for _, part := range []string{"all", "departments", "members", "except"} {
			if _, ok := scope[part]; !ok {
				scope[part] = nil // a patch would leave it as it was
			}
		}
		body["scope"] = scope
		return nil
	}})
	s.members("add-member", "remove-member", "whom it concerns", false)
	s.members("add-except-member", "remove-except-member", "whom it does not concern", true)
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
	cmd := c.onPolicy("delete", "Remove an access policy")
	cmd.Long = "Remove an access policy. drawbridge policy preview DOMAIN ID --remove says before what that would have let in or\n" +
		"refused; drawbridge policy disable keeps the policy for later."
	w := writes(cmd).versioned(cmd).guarded(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, policyPath(args[0], args[1]), nil)
	}
	return cmd
}

func (c *cli) policyTest() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "test DOMAIN [ID]",
		Short: "Say how a login would be decided, and why",
		Long: "Say how a login would be decided, step by step, and what a policy has to do with it. Nothing is recorded or\n" +
			"counted. A policy is judged by its status, a draft (a policy as JSON) as if it were in force beside all others,\n" +
			"in place of the one named. Without --credential the login has the mailbox password, verified.",
		Example: "  drawbridge policy test example.org office --account ann@example.org --protocol imap --ip 198.51.100.7\n" +
			"  drawbridge policy test example.org --draft policy.json --account ann@example.org --protocol smtp",
		Args:              takes("DOMAIN", "[ID]"),
		ValidArgsFunction: arguments(c.completeDomain, c.completePolicy()),
	}
	s := hypothetical(cmd)
	draft := drafted(cmd)
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

// drafted adds --draft to a command that judges policies.
func drafted(cmd *cobra.Command) *string {
	draft := cmd.Flags().String("draft", "", "`file` with a policy as JSON; - for standard input")
	_ = cmd.MarkFlagFilename("draft", "json") // the flag is there
	return draft
}
