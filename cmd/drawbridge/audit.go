package main

import (
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) audit() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "audit [DOMAIN]",
		Short: "Show who changed what",
		Long: "Show administrative changes and credential events of a domain, or of all domains, newest first. --since takes a\n" +
			"time (2026-01-31T09:30:00Z), a day (2026-01-31, local time) or an age (90m, 24h, 7d).",
		Example: "  drawbridge audit example.org --since 7d\n" +
			"  drawbridge audit verify",
		Args:              takes("[DOMAIN]"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	since := cmd.Flags().String("since", "", "only changes since this `time`")
	limit := limited(cmd, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if len(args) == 1 {
			q.Set("domain", args[0])
		}
		if *since != "" {
			when, err := past(*since, time.Now())
			if err != nil {
				return usage("--since: %w", err)
			}
			q.Set("since", when.UTC().Format(time.RFC3339))
		}
		return c.list(cmd, adminclient.Path("v1", "audit"), q, *limit,
			col("TIME", "time"),
			col("BY", "actor.name"),
			col("ACTION", "action"),
			col("TARGET", "target").shortened(),
			col("NOTE", "note").onlyWide(),
			column{heading: "CHANGES", field: "changes", text: changes, soft: true},
		)
	}
	cmd.AddCommand(c.auditVerify(), c.auditExport())
	return cmd
}

// changes lists the changed fields with their values before, if any, and after; for a change of
// several resources, the fields of each.
func changes(value any) string {
	fields, _ := value.(map[string]any)
	return cell("", strings.Join(changed(fields), "; "))
}

func changed(fields map[string]any) (texts []string) {
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if inner, ok := fields[name].(map[string]any); ok {
			texts = append(texts, name+": "+become(inner))
			continue
		}
		values := [2]any{nil, fields[name]}
		if pair, ok := fields[name].([]any); ok && len(pair) == 2 {
			values = [2]any(pair)
		}
		switch before, after := cell(name, values[0]), cell(name, values[1]); before {
		case after:
		case "-":
			texts = append(texts, label(name)+": "+after)
		default:
			texts = append(texts, label(name)+": "+became(name, values))
		}
	}
	return texts
}

// become says whether one of several resources was created, deleted or changed. created_at differs
// only for those that were created or deleted.
func become(fields map[string]any) string {
	if born, ok := fields["created_at"].([]any); ok && len(born) == 2 {
		if born[0] == nil {
			return "created"
		}
		return "deleted"
	}
	return cell("", strings.Join(changed(fields), ", "))
}
