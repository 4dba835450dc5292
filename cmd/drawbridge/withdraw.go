package main

import (
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

func (c *cli) withdraw() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "withdraw DOMAIN",
		Short: "Delete messages that were sent with a stolen password",
		Long: "Delete the messages that a secure password, or the mailbox password of an account, sent between two times, from\n" +
			"Postfix' queue on the daemon's machine and from the site's mailboxes. Messages that have left the site are counted.\n" +
			"On a site of several mail servers, repeat it on those that it names: each has a queue of its own.\n" +
			"Use --dry-run first. --since and --until take a time (2026-01-31T09:30:00Z), a day (2026-01-31) or an age (90m).",
		Example: "  drawbridge withdraw example.org --credential 8d900e59619a888a --since 2h --dry-run\n" +
			"  drawbridge withdraw example.org --credential mailbox --account ann@example.org --since 2h",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	f := cmd.Flags()
	credential := f.String("credential", "", "`id` of the secure password, or mailbox")
	account := f.String("account", "", "only messages of this `address`")
	since := f.String("since", "", "messages sent since this `time`")
	until := f.String("until", "", "messages sent until this `time`")
	uncertain := f.Bool("uncertain", false, "also messages that another password of the account may have sent")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *credential == "" || *since == "" {
			return usage("--credential and --since are needed")
		}
		body := object{"credential_id": *credential, "account": *account, "uncertain": *uncertain}
		for name, v := range map[string]string{"since": *since, "until": *until} {
			if v == "" {
				continue
			}
			when, err := past(v, time.Now())
			if err != nil {
				return usage("--%s: %w", name, err)
			}
			body[name] = when.UTC().Format(time.RFC3339)
		}
		return c.write(cmd, w, http.MethodPost, domainPath(args[0], "withdraw"), body)
	}
	return cmd
}
