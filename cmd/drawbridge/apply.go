package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"slices"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) export() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "export DOMAIN",
		Short: "Export a domain to a file that apply reads",
		Long: "Print the settings, departments, policies, blocked IP addresses and accounts of a domain, without secrets, as a\n" +
			"file to keep, edit and apply. The revision in the file protects changes that others make after the export: apply\n" +
			"refuses to overwrite them. Without a revision, the file overwrites everything.",
		Example:           "  drawbridge export example.org > example.org.yaml\n  drawbridge export example.org --no-accounts --format json",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	format := choose(cmd, "format", "file format (default yaml)", "yaml", "json")
	noAccounts := cmd.Flags().Bool("no-accounts", false, "leave out the accounts; apply then leaves them as they are")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if *noAccounts {
			q.Set("accounts", "false")
		}
		a, err := c.get(cmd, domainPath(args[0], "export"), q)
		if err != nil {
			return err
		}
		if *format == "json" || *format == "" && c.output == outputJSON {
			return printJSON(cmd.OutOrStdout(), a.Body)
		}
		text, err := toYAML(a.Body)
		if err != nil {
			return err
		}
		_, err = cmd.OutOrStdout().Write(text)
		return err
	}
	return cmd
}

func (c *cli) apply() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Apply a domain file and show the changes",
		Long: "Apply a domain file in YAML or JSON, as export prints it; - for standard input. The plan is printed first:\n" +
			"+ added, ~ changed, - removed. Sections that the file does not have stay as they are; an empty section ([])\n" +
			"removes everything in it. Applying a file twice changes nothing more.\n\n" +
			"If the file has a revision and somebody else changed the same things since the export, it is refused with exit\n" +
			"status 73: export again and repeat your changes.",
		Example: "  drawbridge apply example.org.yaml --dry-run\n  drawbridge apply example.org.yaml --write-revision",
		Args:    takes("FILE"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	domain := cmd.Flags().String("domain", "", "`domain` to apply a file to that has no section domain")
	_ = cmd.RegisterFlagCompletionFunc("domain", c.completeDomain) // the flag is there
	writeBack := cmd.Flags().Bool("write-revision", false, "write the new revision into FILE, to continue editing it")
	w := writes(cmd).revertible(cmd).confirmed(cmd, "apply it even if it locks people out, deletes secrets or lifts suspensions")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := readFile(cmd, args[0])
		if err != nil {
			return err
		}
		doc, err := readDocument(file)
		if err != nil {
			return usage("%s: %w", args[0], err)
		}
		var head struct {
			Revision string                `json:"revision"`
			Domain   struct{ Name string } `json:"domain"`
		}
		_ = json.Unmarshal(doc.json, &head) // the daemon reports wrong types
		switch {
		case *domain != "":
			head.Domain.Name = *domain
		case head.Domain.Name == "":
			return usage("%s: has no section domain: give --domain", args[0])
		}
		if *writeBack && (head.Revision == "" || args[0] == "-") {
			return usage("--write-revision: the file has no revision: export it again")
		}
		done, err := c.applyDocument(cmd, w, domainPath(head.Domain.Name, "apply"), doc)
		if err != nil || w.dryRun || done.empty() {
			return err
		}
		if done.Pending != nil {
			c.note(cmd, "the change will be reverted at %s unless you confirm it: drawbridge revert confirm %s %s", timeCell(done.Pending.At), head.Domain.Name, done.Pending.ID)
		}
		switch {
		case *writeBack:
			return writeRevision(args[0], file, head.Revision, done.Revision)
		case head.Revision != "":
			c.note(cmd, "before you edit the file again, export it again or put the new revision into it: %s", done.Revision)
		}
		return nil
	}
	return cmd
}

// applyDocument shows the plan of a document and applies it, unless the domain changed meanwhile.
func (c *cli) applyDocument(cmd *cobra.Command, w *writing, path string, doc *document) (*plan, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	send := func(w *writing, header http.Header) (*adminclient.Answer, *plan, error) {
		a, err := client.Do(cmd.Context(), adminclient.Request{Method: http.MethodPost, Path: path, Query: w.query(), Header: header, Body: doc.json})
		if problem := new(adminclient.Problem); errors.As(err, &problem) {
			doc.locate(problem)
			if problem.Status == http.StatusPreconditionFailed {
				problem.Detail = "the domain changed after the plan was made, and nothing was applied: make a new plan with --dry-run"
			}
		}
		if err != nil {
			return nil, nil, err
		}
		p := new(plan)
		if err := decoder(a.Body).Decode(p); err != nil {
			return nil, nil, fmt.Errorf("reading the answer: %w", err)
		}
		return a, p, nil
	}
	dry := *w
	dry.dryRun = true
	a, p, err := send(&dry, nil)
	if err != nil {
		return nil, err
	}
	if c.output == outputTable {
		if err := p.print(c, cmd); err != nil {
			return nil, err
		}
	}
	if w.dryRun {
		c.note(cmd, "dry run: nothing was changed")
	} else if a, p, err = send(w, http.Header{"If-Match": {a.ETag}}); err != nil {
		return nil, err
	}
	if c.output == outputJSON {
		return p, c.printAnswer(cmd, a)
	}
	return p, nil
}

// plan contains the changes of a document.
type plan struct{ api.Plan }

func (p *plan) empty() bool { return len(p.Additions)+len(p.Changes)+len(p.Removals) == 0 }

// print shows a plan: a line for each resource, and below it a line for each field that changes.
func (p *plan) print(c *cli, cmd *cobra.Command) error {
	if p.empty() {
		c.note(cmd, "nothing to change")
		return nil
	}
	t := newTable(cmd.OutOrStdout())
	for _, list := range []struct {
		sign  string
		items []api.PlanItem
	}{{"+", p.Additions}, {"~", p.Changes}, {"-", p.Removals}} {
		for _, item := range list.items {
			t.row(list.sign+" "+label(item.Kind), item.ID)
			for _, field := range slices.Sorted(maps.Keys(item.Changes)) {
				var values [2]any
				if err := decoder(item.Changes[field]).Decode(&values); err != nil {
					return fmt.Errorf("reading the change of %s: %w", field, err)
				}
				t.row("    "+label(field), became(field, values))
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, w := range p.Warnings {
		c.note(cmd, "%s", w.Detail)
	}
	c.note(cmd, "%d to add, %d to change, %d to remove", len(p.Additions), len(p.Changes), len(p.Removals))
	return nil
}

// writeRevision puts a new revision in place of the one in a file.
func writeRevision(name string, file []byte, was, is string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fmt.Errorf("writing the revision: %w", err)
	}
	if err := os.WriteFile(name, bytes.Replace(file, []byte(was), []byte(is), 1), info.Mode()); err != nil {
		return fmt.Errorf("writing the revision: %w", err)
	}
	return nil
}
