package main

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) inspect() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "inspect DOMAIN",
		Short: "Find unused access, and rules without end or effect",
		Long: "Find in a domain, or for one account: unused protocols, sending rights and secure passwords, accounts without a secure\n" +
			"password, old mailbox passwords, exceptions and keys that never expire, unused keys, and policies that refuse nobody,\n" +
			"or only logins that another policy refuses; with --account or --forwards also what forwards mail to outside. The login\n" +
			"records show which of them are used. drawbridge inspect reclaim carries out a PROPOSAL. drawbridge domain set DOMAIN\n" +
			"--inspect-every 7d inspects the domain regularly, and drawbridge inspect report shows what that found.",
		Example: "  drawbridge inspect example.org\n" +
			"  drawbridge inspect example.org --account ann@example.org --days 30",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	account, days := inspected(cmd)
	forwards := cmd.Flags().Bool("forwards", false, "also look up what forwards mail of accounts to outside: some 20 accounts a second")
	limit := limited(cmd, 1000)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{"days": {strconv.Itoa(*days)}}
		if *account != "" {
			q.Set("account", *account)
		}
		if *forwards {
			q.Set("forwards", "true")
		}
		return c.list(cmd, domainPath(args[0], "inspection"), q, *limit,
			col("KIND", "kind"), col("ACCOUNT", "account"), col("ID", "id").onlyWide(),
			column{heading: "PROPOSAL", field: "proposal", text: proposal}, column{heading: "DETAIL", field: "detail", wraps: true})
	}
	cmd.AddCommand(c.inspectReclaim(), c.inspectUndo(), c.inspectReport())
	return cmd
}

func inspected(cmd *cobra.Command) (account *string, days *int) {
	return cmd.Flags().String("account", "", "only this `address`"), cmd.Flags().Int("days", 90, "number of `days` without use after which access counts as unused; 0: only access that was never used")
}

// proposal is the proposal of a finding in a word.
func proposal(v any) string {
	fields, _ := v.(map[string]any)
	switch {
	case fields["switch_off"] != nil:
		return "switch off"
	case fields["revoke"] != nil:
		return "revoke"
	case fields["disable"] != nil:
		return "disable"
	case fields["expire_key"] != nil:
		return "expire"
	}
	return "-"
}

func (c *cli) inspectReclaim() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "reclaim DOMAIN",
		Short: "Carry out the proposals of findings",
		Long: "Switch off, revoke or disable as drawbridge inspect proposes: the findings of the given kinds, or single ones by ID\n" +
			"(--wide shows them). Use --dry-run first. The output contains the ID for drawbridge inspect undo.",
		Example: "  drawbridge inspect reclaim example.org --kind unused_protocol --dry-run\n" +
			"  drawbridge inspect reclaim example.org --id unused_protocol:ann@example.org:pop3",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	account, days := inspected(cmd)
	kinds := cmd.Flags().StringArray("kind", nil, "all findings of this `kind` that have a proposal (repeatable)")
	ids := cmd.Flags().StringArray("id", nil, "the finding with this `id` (repeatable)")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, domainPath(args[0], "inspection", "reclaim"), object{
			"findings": list(*ids), "kinds": list(*kinds), "account": *account, "days": *days,
		})
	}
	return cmd
}

func list(texts []string) []string {
	if texts == nil {
		return []string{}
	}
	return texts
}

func (c *cli) inspectUndo() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "undo DOMAIN ID",
		Short:             "Revert a reclaim",
		Long:              "Revert the changes of a reclaim. Settings that somebody has changed since stay as they are and are listed.",
		Example:           "  drawbridge inspect undo example.org 7-123",
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, domainPath(args[0], "inspection", "reclaim"), api.Reclaim{Undo: args[1], Findings: []string{}, Kinds: []string{}})
	}
	return cmd
}

func (c *cli) inspectReport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "report DOMAIN",
		Short: "Show what the latest inspection on the domain's schedule found",
		Long: "Show the report of the latest inspection that the domain's schedule had made (drawbridge domain set --inspect-every), new\n" +
			"findings first: those that the inspection before did not have. At most 1000 are shown.",
		Example:           "  drawbridge inspect report example.org",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := c.get(cmd, domainPath(args[0], "inspection", "report"), nil)
		if err != nil {
			return err
		}
		return printView(c, cmd, a, func(row func(...string), r *api.InspectionReport) {
			c.note(cmd, "inspected %s: %d findings, %d of them new; %d accounts and %d logins since %s", timeCell(r.Time), r.Found, r.New, r.Accounts, r.Records, timeCell(r.Since))
			row("NEW", "KIND", "ACCOUNT", "DETAIL")
			for i := range r.Items {
				f := &r.Items[i]
				row(yesNo(f.New), f.Kind, f.Account, f.Detail)
			}
			if more := r.Found - len(r.Items); more > 0 {
				c.note(cmd, "%d more findings: drawbridge inspect %s lists all", more, r.Domain)
			}
		})
	}
	return cmd
}

func yesNo(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}
