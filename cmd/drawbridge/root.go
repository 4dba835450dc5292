package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/doctor"
)

// cli is one run of the command: its global flags, and how far it got.
type cli struct {
	api     string
	keyFile string
	output  string
	timeout time.Duration

	started bool // the command line was understood: errors from here on are not of usage
}

func (c *cli) root() *cobra.Command {
	root := group("drawbridge", "Administer a running drawbridged",
		c.domain(),
		c.export(),
		c.apply(),
		c.thirdParty(),
		c.enforcement(),
		c.policy(),
		c.ipBlock(),
		c.revert(),
		c.department(),
		c.account(),
		c.mailboxPassword(),
		c.securePassword(),
		c.logins(),
		c.explain(),
		c.tryLogin(),
		c.clientType(),
		c.region(),
		c.key(),
		c.audit(),
		c.store(),
		c.status(),
		doctor.Command(),
		c.version(),
		c.raw(),
	)
	root.Long = "drawbridge does what drawbridged's HTTP API does.\n\nExit status: 0 done, 64 usage, 65 refused as invalid, 66 not found, 69 daemon unreachable,\n70 other errors, 73 conflict, 75 try later, 77 not allowed. doctor ends with 1 when a check failed."
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w", err) })
	f := root.PersistentFlags()
	f.StringVar(&c.api, "api", fromEnv("DRAWBRIDGE_API", adminclient.DefaultAPI), "the daemon: unix:/path, https://host:port or http://127.0.0.1:port (env DRAWBRIDGE_API)")
	f.StringVar(&c.keyFile, "key-file", fromEnv("DRAWBRIDGE_KEY_FILE", ""), "`file` that holds an API key (env DRAWBRIDGE_KEY_FILE)")
	f.DurationVar(&c.timeout, "timeout", adminclient.DefaultTimeout, "how long to wait for each answer")
	c.output = outputTable
	f.VarP(oneOf(&c.output, outputTable, outputJSON), "output", "o", "how to print answers")
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{outputTable, outputJSON}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	c.markStart(root)
	return root
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

// markStart has every command note that its arguments were understood.
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
		return nil, usage("--timeout %v: give a time longer than nothing, such as 30s", c.timeout)
	}
	return adminclient.New(adminclient.Options{API: c.api, KeyFile: c.keyFile, Timeout: c.timeout})
}

// group is a command that only gathers others. Unlike cobra's own it refuses a name that it does
// not know.
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
			return usage("say what to do: %s %s", cmd.CommandPath(), strings.Join(names, "|"))
		}
		hint := "see " + cmd.CommandPath() + " --help"
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			hint = "did you mean " + strings.Join(near, " or ") + "?"
		}
		return usage("%s has no command %q: %s", cmd.CommandPath(), args[0], hint)
	}
	return g
}

// usageError is a fault of the command line, or of a file that it names.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usage(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// takes requires one argument for each name. A name in brackets may be missing.
func takes(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usage("%q is one argument too many: %s", args[len(names)], cmd.UseLine())
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
