package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) accountImport() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FILE.csv",
		Short: "Create and change accounts from a CSV file",
		Long: "Create and change accounts from a CSV file, or from standard input (-). Its first line names the columns:\n" +
			"address, and any of departments, aliases, imap, pop3, smtp, sieve, preset, suspended, secure_passwords.\n" +
			"Switches are on or off, or empty to follow the domain; departments and aliases are separated by semicolons, and\n" +
			"empty means none. Settings without a column stay as they are. Importing a file twice changes nothing more.\n" +
			"Cells are separated by commas, or by semicolons or tabs where the first line has no comma.\n\n" +
			"If the file has faults, all of them are reported and nothing is changed. A file with several domains is checked\n" +
			"as a whole, then imported domain by domain.",
		Example: "  drawbridge account import people.csv --create-departments --dry-run\n\n" +
			"  address,departments,pop3,smtp\n" +
			"  ann@example.org,sales/emea;board,off,on\n" +
			"  bob@example.org,sales,,off",
		Args: takes("FILE.csv"),
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"csv"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	domain := cmd.Flags().String("domain", "", "`domain` of all accounts, also of addresses without one")
	_ = cmd.RegisterFlagCompletionFunc("domain", c.completeDomain) // the flag is there
	departments := cmd.Flags().Bool("create-departments", false, "create missing departments")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		file, err := readFile(cmd, args[0])
		if err != nil {
			return err
		}
		parts := []part{{*domain, file, []span{{0, len(file)}}}}
		if *domain == "" {
			if parts, err = split(file); err != nil {
				return usage("%s: %w", args[0], err)
			}
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		send := func(p part, dryRun bool) (*adminclient.Answer, error) {
			q := (&writing{dryRun: dryRun}).query()
			if *departments {
				q.Set("create_departments", "true")
			}
			a, err := client.Do(cmd.Context(), adminclient.Request{
				Method: http.MethodPost, Path: domainPath(p.domain, "accounts", "import"),
				Query: q, Header: http.Header{"Content-Type": {"text/csv"}}, Body: p.csv(),
			})
			if problem := new(adminclient.Problem); errors.As(err, &problem) {
				p.explain(problem, *departments)
			}
			return a, err
		}
		if len(parts) > 1 {
			if err := tryAll(parts, send); err != nil {
				return err
			}
		}
		return c.importAll(cmd, w, parts, send)
	}
	return cmd
}

// readFile reads a file that the command line names, - for standard input.
func readFile(cmd *cobra.Command, name string) ([]byte, error) {
	in := cmd.InOrStdin()
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, usage("%w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	content, err := io.ReadAll(io.LimitReader(in, adminclient.MaxBody+1))
	if err != nil {
		return nil, usage("reading %s: %w", name, err)
	}
	return content, nil
}

// readJSON reads a JSON document from the file that a flag names.
func readJSON(cmd *cobra.Command, flag, name string) (json.RawMessage, error) {
	doc, err := readFile(cmd, name)
	if err != nil {
		return nil, err
	}
	if !json.Valid(doc) {
		return nil, usage("--%s %s: is not JSON", flag, name)
	}
	return doc, nil
}

// part is the section of a file for one domain.
type part struct {
	domain string
	file   []byte
	lines  []span // in the order of the file
}

// span is a piece of a file, by its bytes.
type span struct{ from, to int }

// maxDomains bounds the domains of one file: more are a column that was mistaken for the addresses.
const maxDomains = 1000

// split divides a file by the domains of its addresses, in the order of their first. What is wrong
// with the lines is for the daemon to say.
func split(file []byte) ([]part, error) {
	file, separator, err := api.Sheet(file)
	if err != nil {
		return nil, err
	}
	r := csv.NewReader(bytes.NewReader(file))
	r.Comma = separator
	r.FieldsPerRecord, r.TrimLeadingSpace = -1, separator != '\t'
	header, err := r.Read()
	column := slices.IndexFunc(header, func(name string) bool { return strings.EqualFold(strings.TrimSpace(name), "address") })
	if err != nil || column < 0 {
		return nil, errors.New("the first line has no column address: start the file with the column names, such as address,departments,imap,pop3,smtp")
	}
	end := int(r.InputOffset())
	anybodys := []span{{0, end}} // the header and unreadable lines: the first domain's import reports them
	var parts []part
	for end < len(file) {
		line := span{end, len(file)} // the rest, unless it can be read
		domain := ""
		if cells, err := r.Read(); err == nil {
			line.to = int(r.InputOffset())
			if column < len(cells) {
				address := strings.TrimSpace(cells[column])
				if at := strings.LastIndexByte(address, '@'); at >= 0 {
					domain = strings.ToLower(strings.TrimSuffix(address[at+1:], "."))
				}
				if domain == "" {
					n, _ := r.FieldPos(column)
					return nil, fmt.Errorf("line %d: the address has no domain: write local@domain, or give --domain", n)
				}
			}
		}
		end = line.to
		i := slices.IndexFunc(parts, func(p part) bool { return p.domain == domain })
		switch {
		case domain == "" && len(parts) > 0:
			i = 0
		case domain == "":
			anybodys = append(anybodys, line)
			continue
		case i < 0 && len(parts) == maxDomains:
			return nil, fmt.Errorf("it has more than %d domains: check the column address, or split the file", maxDomains)
		case i < 0:
			i = len(parts)
			parts = append(parts, part{domain, file, slices.Clone(anybodys)})
			anybodys = anybodys[:1]
		}
		parts[i].lines = append(parts[i].lines, line)
	}
	if len(parts) == 0 {
		return nil, errors.New("it has no address")
	}
	return parts, nil
}

// csv is the part as a file of its own. In place of the lines left out it has empty ones, so that
// the others keep their numbers.
func (p part) csv() []byte {
	var out []byte
	at := 0
	for _, line := range p.lines {
		out = append(out, bytes.Repeat([]byte("\n"), bytes.Count(p.file[at:line.from], []byte("\n")))...)
		out = append(out, p.file[line.from:line.to]...)
		at = line.to
	}
	return out
}

// explain puts a refusal of a part in this command's own words.
func (p part) explain(problem *adminclient.Problem, createDepartments bool) {
	if problem.Status == http.StatusNotFound && problem.Code == "not_found" {
		problem.Errors = []api.Fault{{Detail: fmt.Sprintf("%sthe domain %s is not managed: create it first, or correct the address", p.where(), p.domain)}}
	}
	for i := range problem.Errors {
		if f := &problem.Errors[i]; f.Code == "unknown_department" && !createDepartments {
			f.Detail += ", or give --create-departments"
		}
	}
}

// where names the lines of the file that the part consists of, the first ones if there are many;
// nothing when it is the whole file.
func (p part) where() string {
	lines := p.lines[1:] // without the header
	if len(lines) == 0 {
		return ""
	}
	const most = 5
	var numbers []string
	for _, line := range lines[:min(len(lines), most)] {
		blank := len(p.file[line.from:line.to]) - len(bytes.TrimLeft(p.file[line.from:line.to], "\r\n"))
		numbers = append(numbers, strconv.Itoa(1+bytes.Count(p.file[:line.from+blank], []byte("\n"))))
	}
	word := "lines "
	if len(lines) == 1 {
		word = "line "
	}
	text := word + strings.Join(numbers, ", ")
	if len(lines) > most {
		text += fmt.Sprintf(" and %d more", len(lines)-most)
	}
	return text + ": "
}

// tryAll sends all parts as dry runs, and returns the faults of all.
func tryAll(parts []part, send func(p part, dryRun bool) (*adminclient.Answer, error)) error {
	var all *adminclient.Problem
	for _, p := range parts {
		_, err := send(p, true)
		problem := new(adminclient.Problem)
		switch {
		case err == nil:
		case !errors.As(err, &problem) || len(problem.Errors) == 0:
			return fmt.Errorf("%s: %w", p.domain, err)
		case all == nil:
			all = problem
		default:
			all.Errors = append(all.Errors, problem.Errors...)
			all.Body = nil // it contains the first domain only
		}
	}
	if all == nil {
		return nil
	}
	return all
}

// imported is the daemon's answer to a part.
type imported struct {
	Domain string          `json:"domain"`
	Result json.RawMessage `json:"result"`
}

// importAll sends the parts. If one fails, it still reports those before it.
func (c *cli) importAll(cmd *cobra.Command, w *writing, parts []part, send func(p part, dryRun bool) (*adminclient.Answer, error)) error {
	list := &adminclient.List{}
	var failed error
	for _, p := range parts {
		a, err := send(p, w.dryRun)
		if err != nil {
			failed = err
			break
		}
		item, err := json.Marshal(imported{p.domain, a.Body})
		if err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		list.Items = append(list.Items, item)
	}
	if len(list.Items) == 0 {
		return failed
	}
	if w.dryRun {
		c.note(cmd, "dry run: nothing was changed")
	}
	err := c.printItems(cmd, list,
		col("DOMAIN", "domain"),
		col("LINES", "result.lines"),
		col("CREATED", "result.created"),
		col("CHANGED", "result.changed"),
		col("UNCHANGED", "result.unchanged"),
		col("NEW DEPARTMENTS", "result.departments").shortened(),
	)
	if failed != nil {
		return failed
	}
	return err
}
