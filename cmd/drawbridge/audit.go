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

// changes shows the fields of a change, each with its value before, if it had one, and after. Of a
// change to several resources it shows each with its fields.
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
			texts = append(texts, name+": "+after)
		default:
			texts = append(texts, name+": "+became(name, values))
		}
	}
	return texts
}

// become shows what became of one resource of several. When it was created never changes: it
// differs for those that were made or removed.
func become(fields map[string]any) string {
	if born, ok := fields["created_at"].([]any); ok && len(born) == 2 {
		if born[0] == nil {
			return "created"
		}
		return "deleted"
	}
	return cell("", strings.Join(changed(fields), ", "))
}
