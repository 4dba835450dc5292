package main

import (
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

var loginColumns = [...]column{
	col("TIME", "time"),
	col("ACCOUNT", "account"),
	col("IP", "ip"),
	col("REGION", "region"),
	col("PROTOCOL", "protocol"),
	col("CLIENT", "client"),
	col("CREDENTIAL", "credential"),
	col("OUTCOME", "outcome"),
	col("REASON", "reason"),
	col("POLICY", "policy_id"),
	col("WOULD REFUSE", "would_refuse"),
	col("ID", "id"),
	col("NOTE", "note"),
}

func (c *cli) logins() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "logins DOMAIN",
		Short: "Show who logged in, or did not, and why",
		Long: "Show the login records of a domain, newest first. --since and --until take a time (2026-01-31T09:30:00Z), a day\n" +
			"(2026-01-31, local) or how long ago (90m, 24h, 7d). With --follow new records are shown as they come, oldest\n" +
			"first, until Ctrl-C; a record is shown as it was when it came, and with -o json as one line. drawbridge explain says\n" +
			"of an ID how it was decided.",
		Example: "  drawbridge logins example.org --outcome deny --since 24h\n" +
			"  drawbridge logins example.org --account ann@example.org --outcome deny --limit 1",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	f := cmd.Flags()
	f.String("account", "", "of this `address`")
	f.String("ip", "", "from this `address`")
	choose(cmd, "outcome", "with this outcome", "allow", "deny", "next", "tempfail")
	f.String("reason", "", "for this reason, by its `code` such as policy or bad_secret")
	f.String("policy", "", "refused by the policy with this `id`, or would be if it were not in report mode")
	f.String("since", "", "from this `time` on")
	f.String("until", "", "before this `time`")
	follow := f.BoolP("follow", "f", false, "go on showing new records")
	limit := limited(cmd, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		for _, name := range []string{"account", "ip", "outcome", "reason", "policy"} {
			if v := f.Lookup(name).Value.String(); v != "" {
				q.Set(name, v)
			}
		}
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
		if !*follow {
			return c.list(cmd, domainPath(args[0], "logins"), q, *limit, loginColumns[:]...)
		}
		if q.Has("until") {
			return usage("--follow has no end: leave out --until")
		}
		if *limit == 0 {
			return usage("--limit 0 with --follow: say how many old records to begin with, from 1")
		}
		return c.follow(cmd, domainPath(args[0], "logins"), q, *limit)
	}
	return cmd
}
