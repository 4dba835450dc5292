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
		Short: "Print all that is set for a domain as a file to keep, edit and apply",
		Long: "Print all that is set for a domain: its settings, departments, policies, blocked addresses and accounts, and\n" +
			"never a secret. The file can be kept, edited, and applied again. Its revision keeps an edited file from undoing\n" +
			"what somebody else changed since; a file without one holds whatever was changed.",
		Example:           "  drawbridge export example.org > example.org.yaml\n  drawbridge export example.org --no-accounts --format json",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	format := choose(cmd, "format", "the form of the file (default yaml)", "yaml", "json")
	leaveOut := cmd.Flags().Bool("no-accounts", false, "leave the accounts out, and alone when the file is applied")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		q := url.Values{}
		if *leaveOut {
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
		Short: "Make a domain what a file says, and show what changes",
		Long: "Make a domain what a file in YAML or JSON says, such as export prints; - for standard input. First comes the plan:\n" +
			"+ what is added, ~ what is changed, - what is removed. Sections that the file does not have are left alone; an\n" +
			"empty one ([]) empties the domain's. Applying a file twice is applying it once.\n\n" +
			"A file with the revision that it was exported with is refused when somebody else changed meanwhile what it\n" +
			"would change: export again, and put your changes into that. Exit status 73.",
		Example: "  drawbridge apply example.org.yaml --dry-run\n  drawbridge apply example.org.yaml --write-revision",
		Args:    takes("FILE"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	domain := cmd.Flags().String("domain", "", "the `domain`, for a file that has no section of that name")
	_ = cmd.RegisterFlagCompletionFunc("domain", c.completeDomain) // the flag is there
	goOn := cmd.Flags().Bool("write-revision", false, "put the domain's new revision into FILE, to go on editing it")
	w := writes(cmd).undone(cmd).confirmed(cmd, "make it although it would lock people out, or removes accounts with their secrets")
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
		_ = json.Unmarshal(doc.json, &head) // what is of the wrong type is for the daemon to say
		switch {
		case *domain != "":
			head.Domain.Name = *domain
		case head.Domain.Name == "":
			return usage("%s: names no domain: give --domain", args[0])
		}
		if *goOn && (head.Revision == "" || args[0] == "-") {
			return usage("--write-revision: needs a file with a revision, as export prints it")
		}
		done, err := c.applyDocument(cmd, w, domainPath(head.Domain.Name, "apply"), doc)
		if err != nil || w.dryRun || done.empty() {
			return err
		}
		if done.Pending != nil {
			c.note(cmd, "it is undone at %s, unless you keep it: drawbridge revert confirm %s %s", timeCell(done.Pending.At), head.Domain.Name, done.Pending.ID)
		}
		switch {
		case *goOn:
			return writeRevision(args[0], file, head.Revision, done.Revision)
		case head.Revision != "":
			c.note(cmd, "before you edit the file again, export again, or put the new revision into it: %s", done.Revision)
		}
		return nil
	}
	return cmd
}

// applyDocument shows the plan of a document, and carries that out and no other.
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
				problem.Detail = "the domain changed since the plan was made, and nothing was done: look at a new plan with --dry-run"
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
	look := *w
	look.dryRun = true
	a, p, err := send(&look, nil)
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

// plan is what a document changes.
type plan struct{ api.Plan }

func (p *plan) empty() bool { return len(p.Additions)+len(p.Changes)+len(p.Removals) == 0 }

// print shows a plan: a line for each thing, and below it one for each field that changes.
func (p *plan) print(c *cli, cmd *cobra.Command) error {
	if p.empty() {
		c.note(cmd, "nothing to do: the domain is what the file says")
		return nil
	}
	t := newTable(cmd.OutOrStdout())
	for _, list := range []struct {
		sign  string
		items []api.PlanItem
	}{{"+", p.Additions}, {"~", p.Changes}, {"-", p.Removals}} {
		for _, item := range list.items {
			t.row(list.sign+" "+item.Kind, item.ID)
			for _, field := range slices.Sorted(maps.Keys(item.Changes)) {
				var values [2]any
				if err := decoder(item.Changes[field]).Decode(&values); err != nil {
					return fmt.Errorf("reading the change of %s: %w", field, err)
				}
				t.row("    "+field, became(field, values))
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
