package main

import (
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) audit() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "audit [DOMAIN]",
		Short:             "Show who changed what",
		Long:              "Show administrative changes and events of credentials, newest first: of a domain, or of all.",
		Args:              takes("[DOMAIN]"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 100)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if len(args) == 1 {
			q.Set("domain", args[0])
		}
		return c.list(cmd, adminclient.Path("v1", "audit"), q, *limit,
			col("TIME", "time"),
			col("BY", "actor.name"),
			col("ACTION", "action"),
			col("TARGET", "target"),
			col("NOTE", "note"),
			column{"CHANGES", "changes", changes},
		)
	}
	return cmd
}

// changes shows the fields of a change, each with its value before, if it had one, and after.
func changes(value any) string {
	fields, _ := value.(map[string]any)
	var texts []string
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		before, after := "-", cell(name, fields[name])
		if pair, ok := fields[name].([]any); ok && len(pair) == 2 {
			before, after = cell(name, pair[0]), cell(name, pair[1])
		}
		switch before {
		case after:
		case "-":
			texts = append(texts, name+": "+after)
		default:
			texts = append(texts, name+": "+before+" → "+after)
		}
	}
	return cell("", strings.Join(texts, "; "))
}
