package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

var loginColumns = [...]column{
	{heading: "TIME", field: "time", layout: "01-02 15:04:05"}, // records do not last for years
	col("ACCOUNT", "account").shortened(),
	col("IP", "ip"),
	col("REGION", "region").onlyWide(),
	col("NETWORK", "network").onlyWide(),
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
		Short: "Show recorded logins, with outcome and reason",
		Long: "Show the login records of a domain, newest first. --since and --until take a time (2026-01-31T09:30:00Z), a day\n" +
			"(2026-01-31, local time) or an age (90m, 24h, 7d). --follow waits for new records and prints them until Ctrl-C,\n" +
			"with -o json one a line. --wide also shows the IDs that drawbridge explain takes.",
		Example: "  drawbridge logins example.org --outcome deny --since 24h\n" +
			"  drawbridge logins example.org --account ann@example.org --outcome deny --limit 1",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	f := cmd.Flags()
	query := c.loginFilters(cmd)
	follow := f.BoolP("follow", "f", false, "wait for new records and print them")
	limit := limited(cmd, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q, err := query()
		if err != nil {
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
	cmd.AddCommand(c.loginsItWasMe(), c.loginsExport())
	return cmd
}

// loginFilters adds the flags that select login records.
func (c *cli) loginFilters(cmd *cobra.Command) (query func() (url.Values, error)) {
	f := cmd.Flags()
	f.String("account", "", "only logins of this `address`")
	f.String("ip", "", "only logins from this `address`")
	f.String("network", "", "only logins from this `network`, such as 203.0.113.0/24")
	f.String("region", "", "only logins from this `region`, such as DE")
	f.String("client", "", "only logins with this client `type`, such as third-party or web")
	_ = cmd.RegisterFlagCompletionFunc("client", c.completeClient) // the flag is there
	f.String("device", "", "only logins with this secure password, by `id` or label")
	f.Bool("abnormal", false, "only logins that are unusual for their account")
	choose(cmd, "outcome", "only logins with this outcome", "allow", "deny", "next", "tempfail")
	f.String("reason", "", "only logins with this reason `code`, such as policy or bad_secret")
	f.String("policy", "", "only logins that the policy with this `id` refused, or would refuse outside report mode")
	f.String("since", "", "only logins since this `time`")
	f.String("until", "", "only logins until this `time`")
	return func() (url.Values, error) {
		q := url.Values{}
		for _, name := range []string{"account", "ip", "network", "region", "client", "device", "abnormal", "outcome", "reason", "policy"} {
			if v := f.Lookup(name).Value.String(); v != "" && v != "false" {
				q.Set(name, v)
			}
		}
		return q, periodInto(q, f)
	}
}

func (c *cli) loginsExport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export DOMAIN FILE",
		Short: "Write login records to a file",
		Long: "Write the login records of a domain to a new file, oldest first: as JSON Lines, as CSV for spreadsheets, or as syslog\n" +
			"messages (RFC 5424). The file gets its name when it is complete.",
		Example: "  drawbridge logins export example.org logins.csv --format csv --since 30d",
		Args:    takes("DOMAIN", "FILE"),
	}
	query := c.loginFilters(cmd)
	choose(cmd, "format", "form of the file, jsonl by default", "csv", "jsonl", "syslog")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q, err := query()
		if err != nil {
			return err
		}
		if v := cmd.Flags().Lookup("format").Value.String(); v != "" {
			q.Set("format", v)
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		var lines int64
		shown := time.Now()
		out, terminal := cmd.ErrOrStderr().(*os.File)
		terminal = terminal && isTerminal(out)
		err = writeNew(args[1], func(w io.Writer) error {
			r := adminclient.Request{Method: http.MethodGet, Path: domainPath(args[0], "logins", "export"), Query: q}
			return client.Download(cmd.Context(), r, w, func(part []byte, records int64) {
				lines += int64(bytes.Count(part, []byte("\n")))
				if terminal && records > 0 && time.Since(shown) > time.Second/4 {
					shown = time.Now()
					_, _ = fmt.Fprintf(out, "%s%d of about %d records", wipeLine, lines, records)
				}
			})
		})
		if terminal {
			_, _ = io.WriteString(out, wipeLine)
		}
		if err != nil {
			return err
		}
		c.note(cmd, "%d lines are written", lines)
		return nil
	}
	return cmd
}

func (c *cli) loginsItWasMe() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "it-was-me DOMAIN ID",
		Short: "Mark an abnormal login as the account's own",
		Long: "Mark a recorded login as the account's own: from now on its network, region, device and kind of client are usual, and\n" +
			"nobody is notified of them again. ID is that of the record (--wide) and of the notice.",
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
