package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/doctor"
)

// cli is one run of the command: its global flags and its progress.
type cli struct {
	api     string
	keyFile string
	output  string
	wide    bool
	timeout time.Duration

	started bool // the command line was accepted: later errors are no usage errors
}

func (c *cli) root() *cobra.Command {
	root := group("drawbridge", "Manage the login and mail rules of a running drawbridged")
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"rules", "Domains and their rules:", []*cobra.Command{
			c.domain(), c.thirdParty(), c.securePasswordPolicy(), c.policy(), c.ipBlock(), c.revert(), c.export(), c.apply(),
		}},
		{"accounts", "Accounts:", []*cobra.Command{c.account(), c.department(), c.securePassword(), c.mailboxPassword(), c.factor()}},
		{"mail", "Messages:", []*cobra.Command{c.mailRule(), c.mailGroup(), c.held(), c.messages(), c.withdraw()}},
		{"records", "Logins and changes:", []*cobra.Command{c.logins(), c.explain(), c.tryLogin(), c.sessions(), c.throttle(), c.inspect(), c.audit()}},
		{"site", "The site:", []*cobra.Command{c.status(), doctor.Command(), c.store(), c.backup(), c.restore(), c.region(), c.clientType(), c.key(), c.rawAPI(), c.versionCommand()}},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.id
		}
		root.AddCommand(g.commands...)
	}
	root.AddCommand(manual())
	root.Long = "drawbridge manages who may log in to the mail domains of a site, with which client, from where and with which\n" +
		"password. It talks to a running drawbridged; root and the daemon's user need no key.\n\n" +
		"Exit status: 0 done, 64 usage, 65 invalid, 66 not found, 69 daemon unreachable, 70 other errors, 73 conflict,\n" +
		"75 try again later, 77 not allowed. doctor exits with 1 if a check failed."
	root.Example = "  drawbridge domain create example.org --third-party report\n" +
		"  drawbridge account set ann@example.org --pop3 off\n" +
		"  drawbridge logins example.org --outcome deny --since 24h"
	root.Version = version
	root.SetVersionTemplate("drawbridge {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		if wrong := new(pflag.InvalidValueError); errors.As(err, &wrong) {
			return usage("--%s %s: %w", wrong.GetFlag().Name, wrong.GetValue(), wrong.Unwrap())
		}
		return usage("%w", err)
	})
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) {
		_, _ = fmt.Fprintf(cmd.OutOrStdout(), "%s\n\n%s", fold(cmp.Or(cmd.Long, cmd.Short), helpWidth), cmd.UsageString()) // nowhere to report a failing standard output
	})
	root.SetUsageTemplate(strings.NewReplacer(
		".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth),
		`Use "{{.CommandPath}} [command] --help" for more information about a command.`, `Help for a command: {{.CommandPath}} COMMAND --help`,
	).Replace(root.UsageTemplate()))
	f := root.PersistentFlags()
	f.StringVar(&c.api, "api", fromEnv("DRAWBRIDGE_API", adminclient.DefaultAPI), "`address` of the daemon: unix:/path, https://host:port or http://127.0.0.1:port (env DRAWBRIDGE_API)")
	f.StringVar(&c.keyFile, "key-file", fromEnv("DRAWBRIDGE_KEY_FILE", ""), "read the API key from this `file` (env DRAWBRIDGE_KEY_FILE)")
	f.DurationVar(&c.timeout, "timeout", adminclient.DefaultTimeout, "maximum time to wait for each answer")
	c.output = outputTable
	f.VarP(oneOf(&c.output, outputTable, outputJSON), "output", "o", "output format")
	f.BoolVar(&c.wide, "wide", false, "show all columns, uncut, however wide the table is")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	root.InitDefaultCompletionCmd()
	if completion, _, err := root.Find([]string{"completion"}); err == nil {
		completion.Short = "Print the completion script of a shell"
	}
	root.InitDefaultHelpCmd()
	c.markStart(root)
	return root
}

// helpWidth is the number of columns of help texts, as of a terminal.
const helpWidth = 80

// fold breaks the lines of a text at a number of columns. Blocks with indented lines stay as they
// are.
func fold(text string, width int) string {
	blocks := strings.Split(text, "\n\n")
	for i, block := range blocks {
		if strings.ContainsAny(block[:min(1, len(block))], " \t") || strings.Contains(block, "\n ") || strings.Contains(block, "\n\t") {
			continue
		}
		var b strings.Builder
		column := 0
		for _, word := range strings.Fields(block) {
			switch n := utf8.RuneCountInString(word); {
			case column == 0:
				column = n
			case column+1+n > width:
				b.WriteByte('\n')
				column = n
			default:
				b.WriteByte(' ')
				column += 1 + n
			}
			b.WriteString(word)
		}
		blocks[i] = b.String()
	}
	return strings.Join(blocks, "\n\n")
}

// The forms of output.
const (
	outputTable = "table"
	outputJSON  = "json"
)

func fromEnv(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// markStart makes every command record that its arguments were accepted.
func (c *cli) markStart(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			c.started = true
			return run(cmd, args)
		}
	}
	for _, child := range cmd.Commands() {
		c.markStart(child)
	}
}

// client prepares the client that the global flags describe. The caller closes it.
func (c *cli) client() (*adminclient.Client, error) {
	if c.timeout <= 0 {
		return nil, usage("--timeout %v: must be more than 0, such as 30s", c.timeout)
	}
	return adminclient.New(adminclient.Options{API: c.api, KeyFile: c.keyFile, Timeout: c.timeout})
}

// group is a command with subcommands only. Unlike cobra's own, it refuses unknown subcommands.
func group(use, short string, children ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use, Short: short, Args: cobra.ArbitraryArgs, ValidArgsFunction: cobra.NoFileCompletions, SuggestionsMinimumDistance: 2}
	g.AddCommand(children...)
	g.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 && !cmd.HasParent() {
			return cmd.Help()
		}
		if len(args) == 0 {
			var names []string
			for _, child := range cmd.Commands() {
				names = append(names, child.Name())
			}
			return usage("a subcommand is missing: %s %s", cmd.CommandPath(), strings.Join(names, "|"))
		}
		hint := "see " + cmd.CommandPath() + " --help"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage("unknown command %q: %s", strings.TrimPrefix(cmd.CommandPath()+" "+args[0], cmd.Root().Name()+" "), hint)
	}
	return g
}

// usageError is a mistake in the command line, or in a file that it names.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// takes requires one argument for each name. A name in brackets may be missing.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usage("unexpected argument %q: %s", args[len(names)], cmd.UseLine())
		}
		for i, name := range names {
			switch {
			case i < len(args) && args[i] == "":
				return usage("%s is empty: %s", name, cmd.UseLine())
			case i >= len(args) && !strings.HasPrefix(name, "["):
				return usage("%s is missing: %s", name, cmd.UseLine())
			}
		}
		return nil
	}
}
