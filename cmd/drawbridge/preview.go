package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) policyPreview() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "preview DOMAIN [ID]",
		Short: "Say whose recorded logins a policy would have refused",
		Long: "Say what a policy would have done to the logins on record: how many it would have refused that came in, whose,\n" +
			"with which device, from where, and how many it would have let in that are refused. Nothing is changed.\n" +
			"A policy is judged as if it were in force, also one that is disabled or only reports; a draft (a policy as JSON)\n" +
			"in place of the one named, if any. With --remove it is judged what would be without the policy.",
		Example: "  drawbridge policy preview example.org office\n" +
			"  drawbridge policy preview example.org office --draft policy.json --days 90\n" +
			"  drawbridge policy preview example.org office --remove",
		Args:              takes("DOMAIN", "[ID]"),
		ValidArgsFunction: arguments(c.completeDomain, c.completePolicy()),
	}
	draft := drafted(cmd)
	remove := cmd.Flags().Bool("remove", false, "judge the policy's removal")
	days := cmd.Flags().Int("days", 30, "how many days to look back")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		domain, id := args[0], strings.Join(args[1:], "")
		switch {
		case id == "" && *draft == "":
			return usage("name a policy, or a draft by --draft: %s", cmd.UseLine())
		case *remove && (id == "" || *draft != ""):
			return usage("--remove takes the ID of a policy, and no --draft")
		}
		body := object{"days": *days}
		switch {
		case *remove:
			body["remove"] = id
		case *draft != "":
			policy, err := readJSON(cmd, "draft", *draft)
			if err != nil {
				return err
			}
			body["policy"] = policy
			if id != "" {
				var named object
				if err := json.Unmarshal(policy, &named); err != nil || named == nil {
					return usage("--draft %s: is no policy", *draft)
				}
				named["id"] = id
				body["policy"] = named
			}
		default:
			policy, err := c.get(cmd, policyPath(domain, id), nil)
			if err != nil {
				return err
			}
			body["policy"] = json.RawMessage(policy.Body)
		}
		a, err := c.stream(cmd, policyPath(domain, "preview"), nil, body, previewProgress, nil)
		if err != nil {
			return err
		}
		return c.printPreview(cmd, a)
	}
	return cmd
}

// previewProgress words how far a preview is.
func previewProgress(line []byte) string {
	var p api.PreviewProgress
	_ = json.Unmarshal(line, &p) // the result says what is wrong
	return fmt.Sprintf("%d logins, back to %s, %.0f %%", p.Examined, p.At.Local().Format(time.DateTime), 100*p.Share)
}

// total formats a number of logins and their period.
func total(a *api.LoginCount) string {
	if a.Logins == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, %s to %s", a.Logins, timeCell(a.First), timeCell(a.Last))
}

// shown is how many values of a kind a table has; -o json has them all.
const shown = 20

func (c *cli) printPreview(cmd *cobra.Command, a *adminclient.Answer) error {
	if c.output == outputJSON {
		return c.printAnswer(cmd, a)
	}
	var p api.PolicyPreviewed
	if err := json.Unmarshal(a.Body, &p); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	out := cmd.OutOrStdout()
	t := newTable(out)
	for _, r := range [...][2]string{
		{"since", timeCell(p.Since)},
		{"oldest", timeCell(p.Oldest)},
		{"examined", strconv.Itoa(p.Examined)},
		{"came_in", strconv.Itoa(p.CameIn)},
		{"refused", total(&p.Refused.LoginCount)},
		{"admitted", total(&p.Admitted.LoginCount)},
	} {
		t.row(r[0], r[1])
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, side := range [...]struct {
		word string
		api.Affected
	}{{"REFUSED", p.Refused}, {"ADMITTED", p.Admitted}} {
		if side.Logins == 0 {
			continue
		}
		for _, kind := range [...]struct {
			heading string
			api.Spread
		}{
			{"ACCOUNT", side.Accounts},
			{"DEVICE", side.Devices},
			{"ADDRESS", side.Addresses},
			{"REGION", side.Regions},
			{"CLIENT", side.Clients},
			{"PROTOCOL", side.Protocols},
		} {
			if err := printSpread(out, &kind.Spread, side.word+" "+kind.heading); err != nil {
				return err
			}
		}
	}
	return nil
}

// printSpread prints the values of one kind in a table of its own.
func printSpread(out io.Writer, s *api.Spread, heading string) error {
	t := newTable(out)
	t.row("")
	t.row(heading, "LOGINS", "FIRST", "LAST")
	others := s.Others
	for i, item := range s.Items {
		if i >= shown {
			others += item.Logins
			continue
		}
		what := cell("", item.Value)
		if item.Account != "" {
			what = cell("", item.Label) + " of " + item.Account
		}
		t.row(what, strconv.Itoa(item.Logins), timeCell(item.First), timeCell(item.Last))
	}
	if others > 0 {
		t.row("(others)", strconv.Itoa(others))
	}
	return t.Flush()
}
