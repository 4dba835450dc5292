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
		Short: "Preview which recorded logins a policy would have refused",
		Long: "Preview which recorded logins a policy would have refused, or allowed, by account, device, address, region, client\n" +
			"and protocol. Nothing is changed. The policy is evaluated as if it were enabled and enforced. With --draft, a\n" +
			"policy in a JSON file is evaluated, in place of the policy ID, if given. With --remove, the preview is for\n" +
			"deleting the policy.",
		Example: "  drawbridge policy preview example.org office\n" +
			"  drawbridge policy preview example.org office --draft policy.json --days 90\n" +
			"  drawbridge policy preview example.org office --remove",
		Args:              takes("DOMAIN", "[ID]"),
		ValidArgsFunction: arguments(c.completeDomain, c.completePolicy()),
	}
	draft := drafted(cmd, "policy")
	remove := cmd.Flags().Bool("remove", false, "preview the deletion of the policy")
	days := cmd.Flags().Int("days", 30, "`number` of days to look back")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		domain, id := args[0], strings.Join(args[1:], "")
		switch {
		case id == "" && *draft == "":
			return usage("the policy is missing: give its ID or --draft: %s", cmd.UseLine())
		case *remove && (id == "" || *draft != ""):
			return usage("--remove: give the ID of a policy, and no --draft")
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
					return usage("--draft %s: is not a policy", *draft)
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

// previewProgress is the progress of a preview as text.
func previewProgress(line []byte) string {
	var p api.PreviewProgress
	_ = json.Unmarshal(line, &p) // the result reports the fault
	return fmt.Sprintf("%d logins, back to %s, %.0f %%", p.Examined, p.At.Local().Format(time.DateTime), 100*p.Share)
}

// total formats a number of logins and their period.
func total(a *api.LoginCount) string {
	if a.Logins == 0 {
		return "0"
	}
	return fmt.Sprintf("%d, %s to %s", a.Logins, timeCell(a.First), timeCell(a.Last))
}

// shown is the maximum number of values of a kind in a table; -o json has all.
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
	for _, r := range [][2]string{
		{"since", timeCell(p.Since)},
		{"oldest record", timeCell(p.Oldest)},
		{"examined", strconv.Itoa(p.Examined)},
		{"logged in", strconv.Itoa(p.CameIn)},
		{"newly refused", total(&p.Refused.LoginCount)},
		{"newly allowed", total(&p.Admitted.LoginCount)},
	} {
		t.row(r[0], r[1])
	}
	if last := p.LastLogins; last.Accounts > 0 {
		t.row("last logins", fmt.Sprintf("%d of %d accounts change", last.Changed, last.Accounts))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, side := range [...]struct {
		word string
		api.Affected
	}{{"REFUSED", p.Refused}, {"ALLOWED", p.Admitted}} {
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
	return printLasts(out, &p.LastLogins)
}

// printLasts prints the last logins that a change decides otherwise.
func printLasts(out io.Writer, last *api.LastLogins) error {
	if last.Changed == 0 {
		return nil
	}
	t := newTable(out)
	t.row("")
	t.row("LAST LOGIN OF", "TIME", "ADDRESS", "PROTOCOL", "CLIENT", "NOW", "WITH THE CHANGE")
	for _, l := range last.Items[:min(last.Changed, shown, len(last.Items))] {
		t.row(cell("", l.Account), shortCell(l.Time), l.IP, l.Protocol, string(l.Client), l.Before, l.After)
	}
	if more := last.Changed - shown; more > 0 {
		t.row("(others)", strconv.Itoa(more))
	}
	return t.Flush()
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
		t.row(what, strconv.Itoa(item.Logins), shortCell(item.First), shortCell(item.Last))
	}
	if others > 0 {
		t.row("(others)", strconv.Itoa(others))
	}
	return t.Flush()
}
