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
		Short: "Change settings of many accounts at once",
		Long: "Change settings of all accounts in the scope. --set takes imap, pop3, smtp or sieve = on|off|default,\n" +
			"suspended = on|off, preset = " + strings.Join(presets, "|") + ", secure-passwords = " + strings.Join(securePasswords, "|") + ",\n" +
			"departments = paths separated by semicolons, which replace the current ones; empty removes all.\n\n" +
			"Up to 5000 accounts are changed in one transaction; larger batches are split. An interrupted batch prints the\n" +
			"--resume value to continue with; running it again from the start is safe. Afterwards, account effective shows\n" +
			"which settings a batch set.",
		Example:           "  drawbridge account batch example.org --sub-department sales --except-member ann@example.org --set pop3=off --dry-run",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	whom := scoped(cmd)
	set := cmd.Flags().StringArray("set", nil, "`setting=value` (repeatable)")
	resume := cmd.Flags().String("resume", "", "continue an interrupted run of the same batch after this `cursor`")
	all := cmd.Flags().Bool("all-results", false, "list every account, including those that do not change")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scope, err := whom.body()
		if err != nil {
			return err
		}
		if len(*set) == 0 {
			return usage("no setting is given: add --set, such as --set pop3=off")
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

// batchRun collects the reports of a batch.
type batchRun struct {
	all      bool // keep the results of unchanged accounts, too
	results  []json.RawMessage
	failed   int
	progress api.BatchProgress
}

// far stores a progress line and returns it as text.
func (b *batchRun) far(line []byte) string {
	_ = json.Unmarshal(line, &b.progress) // the result reports the fault
	return fmt.Sprintf("%d of %d accounts", b.progress.Done, b.progress.Selected)
}

// item stores the result of one account. An unreadable one is stored, too, and reported when
// printed.
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
			c.note(cmd, "%d of %d accounts are done: repeat the command with --resume %s to continue", b.progress.Done, b.progress.Selected, b.progress.Cursor)
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
			"%d accounts could not be changed: see their results", b.failed)}
	}
	return nil
}

// printBatch prints the totals and the changed accounts.
func (c *cli) printBatch(cmd *cobra.Command, b *batchRun, totals []byte) error {
	if c.output == outputJSON {
		doc := object{}
		if err := json.Unmarshal(totals, &doc); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		doc["results"] = b.results
		text, err := json.Marshal(doc)
		if err != nil {
			return fmt.Errorf("encoding the answer: %w", err)
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
	columns := []column{col("ADDRESS", "address"), col("RESULT", "result"), col("CHANGES", "changes").wrapped()}
	rows := [][]string{headings(columns)}
	for _, raw := range results {
		var r api.BatchAccount
		if err := decoder(raw).Decode(&r); err != nil {
			return fmt.Errorf("reading a result: %w", err)
		}
		rows = append(rows, []string{r.Address, r.Result, words(&r)})
	}
	if err := c.printTable(t, rows, columns); err != nil {
		return err
	}
	if more := len(b.results) - len(results); more > 0 {
		c.note(cmd, "%d more accounts changed: --all-results lists them", more)
	}
	return nil
}

// words lists the changed settings with their values before and after, or the faults.
func words(r *api.BatchAccount) string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(r.Changes)) {
		list = append(list, label(name)+": "+became(name, r.Changes[name]))
	}
	for _, f := range r.Errors {
		text := f.Detail
		if f.Pointer != "" {
			text = fieldWords(strings.Split(strings.TrimPrefix(f.Pointer, "/"), "/")) + ": " + text
		}
		list = append(list, text)
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
			return usage("unknown setting: must be %s, suspended, preset, secure-passwords or departments", strings.Join(protocols[:], ", "))
		}
	}
	if !slices.Contains(allowed, value) {
		return usage("must be %s", strings.Join(allowed, " or "))
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
