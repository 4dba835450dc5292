package main

import (
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var loginColumns = [...]column{
	{heading: "TIME", field: "time", layout: "01-02 15:04:05"}, // records do not last for years
	col("ACCOUNT", "account"),
	col("IP", "ip"),
	col("REGION", "region").onlyWide(),
	col("PROTOCOL", "protocol").onlyWide(),
	col("CLIENT", "client").onlyWide(),
	col("CREDENTIAL", "credential").onlyWide(),
	col("OUTCOME", "outcome"),
	col("REASON", "reason"),
	col("ABNORMAL", "abnormal").onlyWide(),
	col("POLICY", "policy_id").onlyWide(),
	col("WOULD REFUSE", "would_refuse").onlyWide(),
	col("ID", "id").onlyWide(),
	col("NOTE", "note").onlyWide(),
}

func (c *cli) logins() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logins DOMAIN",
		Short: "Show recorded logins and why they were allowed or refused",
		Long: "Show the login records of a domain, newest first. --since and --until take a time (2026-01-31T09:30:00Z), a day\n" +
			"(2026-01-31, local time) or an age (90m, 24h, 7d). --follow waits for new records and prints them until Ctrl-C,\n" +
			"with -o json one a line. --wide also shows the IDs that drawbridge explain takes.",
		Example: "  drawbridge logins example.org --outcome deny --since 24h\n" +
			"  drawbridge logins example.org --account ann@example.org --outcome deny --limit 1",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	f := cmd.Flags()
	f.String("account", "", "only logins of this `address`")
	f.String("ip", "", "only logins from this `address`")
	f.String("client", "", "only logins with this client `type`, such as third-party or web")
	_ = cmd.RegisterFlagCompletionFunc("client", c.completeClient) // the flag is there
	choose(cmd, "outcome", "only logins with this outcome", "allow", "deny", "next", "tempfail")
	f.String("reason", "", "only logins with this reason `code`, such as policy or bad_secret")
	f.String("policy", "", "only logins that the policy with this `id` refused, or would refuse outside report mode")
	f.String("since", "", "only logins since this `time`")
	f.String("until", "", "only logins until this `time`")
	follow := f.BoolP("follow", "f", false, "wait for new records and print them")
	limit := limited(cmd, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		for _, name := range []string{"account", "ip", "client", "outcome", "reason", "policy"} {
			if v := f.Lookup(name).Value.String(); v != "" {
				q.Set(name, v)
			}
		}
		if err := periodInto(q, f); err != nil {
			return err
		}
		if !*follow {
			return c.list(cmd, domainPath(args[0], "logins"), q, *limit, loginColumns[:]...)
		}
		if q.Has("until") {
			return usage("--until: leave it out with --follow")
		}
		if *limit == 0 {
			return usage("--limit 0: with --follow it must be 1 or more, the number of old records to begin with")
		}
		return c.follow(cmd, domainPath(args[0], "logins"), q, *limit)
	}
	cmd.AddCommand(c.loginsItWasMe())
	return cmd
}

func (c *cli) loginsItWasMe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "it-was-me DOMAIN ID",
		Short: "Learn that an abnormal login was its account's own",
		Long: "Learn that a recorded login was the account's own: its network, region, device and kind of client are usual from now\n" +
			"on, and nobody is notified of them again. ID is that of the record (--wide) and of the notice.",
		Example: "  drawbridge logins it-was-me example.org 019ac3b2d1f07c0e5a1b2f3d4e60",
		Args:    takes("DOMAIN", "ID"),
	}
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, domainPath(args[0], "logins", args[1], "it-was-me"), nil)
	}
	return cmd
}

// periodInto sets since and until of a query from the flags of these names.
func periodInto(q url.Values, f *pflag.FlagSet) error {
	for _, name := range []string{"since", "until"} {
		v := f.Lookup(name).Value.String()
		if v == "" {
			continue
		}
		when, err := past(v, time.Now())
		if err != nil {
			return usage("--%s: %w", name, err)
		}
		q.Set(name, when.UTC().Format(time.RFC3339))
	}
	return nil
}
