package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"
)

func (c *cli) accountBatch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "batch DOMAIN",
		Short: "Change a setting of many accounts at once",
		Long: "Change settings of all accounts in a scope. --set takes imap, pop3, smtp or sieve = on|off|default,\n" +
			"suspended = on|off, preset = " + strings.Join(presets, "|") + ", secure-passwords = " + strings.Join(securePasswords, "|") + ",\n" +
			"departments = paths separated by semicolons, which replace theirs; nothing empties them.\n\n" +
			"Accounts are changed in chunks of 5000, each whole or not at all. What is interrupted says how to go on with\n" +
			"--resume; beginning anew does no harm either. What each account got is shown, and account effective tells later\n" +
			"which settings are from a batch.",
		Example:           "  drawbridge account batch example.org --sub-department sales --except-member ann@example.org --set pop3=off --dry-run",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	whom := scoped(cmd)
	set := cmd.Flags().StringArray("set", nil, "`setting=value` (repeatable)")
	resume := cmd.Flags().String("resume", "", "go on behind the `cursor` that an interrupted run of the same batch showed")
	all := cmd.Flags().Bool("all-results", false, "list every account, also those that stay as they are")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scope, err := whom.body()
		if err != nil {
			return err
		}
		if len(*set) == 0 {
			return usage("nothing to set: give --set, such as --set pop3=off")
		}
		body := object{}
		for _, s := range *set {
			name, value, _ := strings.Cut(s, "=")
			if err := putSwitch(body, name, value); err != nil {
				return usage("--set %s: %w", s, err)
			}
		}
		query := w.query()
		if *resume != "" {
			query.Set("resume", *resume)
		}
		return c.runBatch(cmd, w, *all, domainPath(args[0], "accounts", "batch"), query, object{"select": scope, "set": body})
	}
	return cmd
}

// batchRun is what a batch has told so far.
type batchRun struct {
	all      bool // keep the results of accounts that stay as they are, too
	results  []json.RawMessage
	failed   int
	progress api.BatchProgress
}

// far keeps how far the batch is, and words it.
func (b *batchRun) far(line []byte) string {
	_ = json.Unmarshal(line, &b.progress) // the result says what is wrong
	return fmt.Sprintf("%d of %d accounts", b.progress.Done, b.progress.Selected)
}

// item keeps one account's result. What cannot be read is kept, and complained of when it is shown.
func (b *batchRun) item(line []byte) {
	var r api.BatchAccount
	_ = json.Unmarshal(line, &r)
	if r.Result == "failed" {
		b.failed++
	}
	if b.all || r.Result != "unchanged" {
		b.results = append(b.results, bytes.Clone(line))
	}
}

func (c *cli) runBatch(cmd *cobra.Command, w *writing, all bool, path string, query url.Values, body object) error {
	b := batchRun{all: all}
	a, err := c.stream(cmd, path, query, body, b.far, b.item)
	if err != nil {
		if b.progress.Cursor != "" {
			c.note(cmd, "%d of %d accounts are done: the same command goes on with --resume %s", b.progress.Done, b.progress.Selected, b.progress.Cursor)
		}
		return err
	}
	if w.dryRun {
		c.note(cmd, "dry run: nothing was changed")
	}
	if err := c.printBatch(cmd, &b, a.Body); err != nil {
		return err
	}
	if b.failed > 0 {
		return &adminclient.Problem{Problem: *api.Refuse(http.StatusUnprocessableEntity, "invalid",
			"%d accounts have faults and stay as they were: mend them with account set", b.failed)}
	}
	return nil
}

// printBatch prints the totals and who changed how.
func (c *cli) printBatch(cmd *cobra.Command, b *batchRun, totals []byte) error {
	if c.output == outputJSON {
		doc := object{}
		if err := json.Unmarshal(totals, &doc); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		doc["results"] = b.results
		text, err := json.Marshal(doc)
		if err != nil {
			return fmt.Errorf("putting the answer together: %w", err)
		}
		return printJSON(cmd.OutOrStdout(), text)
	}
	t := newTable(cmd.OutOrStdout())
	if err := t.document("", totals); err != nil {
		return err
	}
	if err := t.Flush(); err != nil {
		return err
	}
	results := b.results
	if !b.all {
		results = results[:min(len(results), shown)]
	}
	if len(results) == 0 {
		return nil
	}
	t = newTable(cmd.OutOrStdout())
	t.row("")
	t.row("ADDRESS", "RESULT", "CHANGES")
	for _, raw := range results {
		var r api.BatchAccount
		if err := decoder(raw).Decode(&r); err != nil {
			return fmt.Errorf("reading a result: %w", err)
		}
		t.row(r.Address, r.Result, words(&r))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	if more := len(b.results) - len(results); more > 0 {
		c.note(cmd, "and %d more: --all-results lists them", more)
	}
	return nil
}

// words says what changed, from what to what, or why nothing could.
func words(r *api.BatchAccount) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(r.Changes)) {
		list = append(list, name+": "+became(name, r.Changes[name]))
	}
	for _, f := range r.Errors {
		list = append(list, f.String())
	}
	return cell("", strings.Join(list, "; "))
}

// putSwitch adds an account's setting, given as two words, to a merge patch.
func putSwitch(body object, name, value string) error {
	allowed := []string{"on", "off", "default"}
	switch name {
	case "departments":
		body[name] = strings.FieldsFunc(value, func(r rune) bool { return r == ';' })
		return nil
	case "suspended":
		allowed = []string{"on", "off"}
	case "preset":
		allowed = presets
	case "secure-passwords", "secure_passwords":
		name, allowed = "secure_passwords", securePasswords
	default:
		if !slices.Contains(protocols[:], name) {
			return usage("no such setting: say %s, suspended, preset, secure-passwords or departments", strings.Join(protocols[:], ", "))
		}
	}
	if !slices.Contains(allowed, value) {
		return usage("say %s", strings.Join(allowed, " or "))
	}
	switch name {
	case "suspended":
		body[name] = value == "on"
	case "preset", "secure_passwords":
		body[name] = value
	default:
		switches, _ := body["protocols"].(object)
		if switches == nil {
			switches = object{}
			body["protocols"] = switches
		}
		switches[name] = switchValue(value)
	}
	return nil
}
