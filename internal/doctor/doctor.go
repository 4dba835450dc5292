// Package doctor checks a running Dovecot 2.3 and Postfix for what makes the bridge fail open, or
// not stand at all. It is the command "drawbridge doctor".
//
//	# drawbridge doctor
//	ok    dovecot.passdb.present         passdb 2 (checkpassword) runs drawbridge-checkpassword
//	ok    dovecot.passdb.first           no other passdb is asked before it
//	FAIL  dovecot.passdb.results         /etc/dovecot/dovecot.conf: passdb 2 (checkpassword): result_internalfail
//	      is "continue": while the daemon is away, the other passdbs let in on their own
//	          result_internalfail = return-fail
//	…
//	failed: 1, warnings: 0, well: 39
//
// Three layers of checks follow each other. [Dovecot] and [Postfix] judge configuration alone, as
// doveconf and postconf print it: with defaults, with what master.cf overrides, with $name written
// out, and for Dovecot also as each protocol sees it. Then come files: who can change the program,
// who reaches the sockets. Last, the daemon itself is asked, in ways that change nothing: /readyz,
// /livez, /v1/regions, a policy question about nobody, a milter session without a message.
//
// A finding has an identifier, a severity, the place, what follows from it, and the lines to write.
// The lines are meant to be pasted; a word in capitals in them is the reader's to fill in, and a
// line that begins with # says what to do instead.
//
//	dovecot.*            the passdb chain, vsz_limit, mechanisms, the auth-policy report, userdb, who may claim an address
//	postfix.*            each smtpd of master.cf: policy service, milter, SASL, XCLIENT
//	program              drawbridge-checkpassword and the directories above it
//	login_socket.*       the socket that checkpassword asks: there, reached by Dovecot, closed to others
//	policy_socket, milter_socket, sasl_socket
//	                     the sockets that Postfix asks, in its chroot where it has one
//	daemon.*             the daemon's answers, and how old its database of regions is
//	doctor.*             what could not be looked at, and why
//
// # Diagnostics
//
// Findings go to standard output, as paragraphs or with -o json as
// {"items":[{"check","severity","where","what","fix"}], "failures","warnings"}. Exit status:
//
//	0   nothing failed; there may be warnings
//	1   some check failed
//	64  the command line cannot be used
//	69  neither server's configuration can be read
//
// A configuration that does not exist where it is looked for by default is a warning, since the
// other server may live on another host; one that was named, or that its own server cannot read, is
// a failure.
//
// # What it does not do
//
// It changes nothing, logs nobody in and sends no mail. It does not know what an access table,
// another policy service or another passdb answers. It does not look at networks and firewalls, nor
// at Dovecot 2.4. Secrets are not printed: not the key of the auth-policy report, and of other
// passdbs only the driver.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/config"
)

// The exit statuses beside 0.
const (
	exitFailed     = 1
	exitUsage      = 64
	exitUnreadable = 69
)

// Error ends the command with a status of its own. The findings are printed by then.
type Error struct {
	Status int // of the process
	Text   string
}

func (e *Error) Error() string { return e.Text }

// ExitStatus returns the status that the process should end with.
func (e *Error) ExitStatus() int { return e.Status }

const (
	defaultDovecot  = "/etc/dovecot/dovecot.conf"
	defaultPostfix  = "/etc/postfix"
	defaultSettings = "/etc/drawbridge/drawbridge.toml"
)

// options are the command line.
type options struct {
	dovecot, postfix, settings                string
	dovecotNamed, postfixNamed, settingsNamed bool
	api, keyFile                              string
	apiNamed                                  bool
}

// Command returns the command. It takes --api, --key-file and -o from the persistent flags of its
// parent, where there are any. What it returns is nil or an [*Error].
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check Dovecot and Postfix for what makes the bridge fail open, or not at all",
		Long: `Check the configuration of Dovecot 2.3 and Postfix, the sockets between them and Drawbridge, and the daemon's answers,
for what lets logins past the rules or lets nobody in. Each finding says where it is, what follows from it and what to write.

Nothing is changed. Run it as root: others cannot look at everything.

Exit status: 0 nothing failed, 1 some check failed, 64 usage, 69 neither server's configuration can be read.`,
		Example:           "  drawbridge doctor\n  drawbridge doctor -o json --postfix-config /etc/postfix-out",
		ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &Error{exitUsage, fmt.Sprintf("%q is one argument too many: doctor takes flags only", args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			flag := func(name, preset string) (value string, named bool) {
				if f := cmd.Flag(name); f != nil {
					return f.Value.String(), f.Changed
				}
				return preset, false
			}
			output, _ := flag("output", "table")
			if output != "table" && output != "json" {
				return &Error{exitUsage, fmt.Sprintf("-o %q: write table or json", output)}
			}
			o.api, o.apiNamed = flag("api", adminclient.DefaultAPI)
			o.apiNamed = o.apiNamed || o.api != adminclient.DefaultAPI // by the environment
			o.keyFile, _ = flag("key-file", "")
			_, o.dovecotNamed = flag("dovecot-config", "")
			_, o.postfixNamed = flag("postfix-config", "")
			_, o.settingsNamed = flag("config", "")
			found, end := examine(cmd.Context(), o, readMachine(cmd.Context()))
			write := found.writeTable
			if output == "json" {
				write = found.writeJSON
			}
			if err := write(cmd.OutOrStdout()); err != nil {
				return &Error{exitFailed, fmt.Sprintf("print the findings: %v", err)}
			}
			if end != nil {
				return end
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&o.dovecot, "dovecot-config", defaultDovecot, "Dovecot's configuration `file`")
	cmd.Flags().StringVar(&o.postfix, "postfix-config", defaultPostfix, "Postfix' configuration `directory`")
	cmd.Flags().StringVar(&o.settings, "config", defaultSettings, "drawbridged's settings `file`")
	_ = cmd.MarkFlagFilename("dovecot-config") // the flags are there
	_ = cmd.MarkFlagDirname("postfix-config")
	_ = cmd.MarkFlagFilename("config", "toml")
	return cmd
}

// examine makes all checks. The error says how the command ends; nil is well.
func examine(ctx context.Context, o options, m machine) (findings, *Error) {
	var f findings
	if os.Geteuid() != 0 {
		f.warn("doctor.privileges", "", "# run this as root", "not root: some of what is checked cannot be looked at")
	}
	c, known := settings(&f, o)
	unread := 0

	if file, conf, ok := readable(&f, "dovecot", o.dovecot, o.dovecotNamed, func(file string) (DovecotConf, error) { return readDovecot(ctx, file) }); ok {
		conf.File = file
		f = append(f, Dovecot(conf, c)...)
		f = append(f, m.checkDovecot(conf)...)
	} else {
		unread++
	}
	if dir, conf, ok := readable(&f, "postfix", o.postfix, o.postfixNamed, func(dir string) (PostfixConf, error) { return readPostfix(ctx, dir) }); ok {
		conf.Dir = dir
		f = append(f, Postfix(conf, c)...)
		f = append(f, m.checkPostfix(conf, c)...)
	} else {
		unread++
	}

	if known {
		f = append(f, askDaemon(ctx, c)...)
	}
	if known || o.apiNamed {
		f = append(f, askAPI(ctx, o.api, o.keyFile)...)
	}
	switch failed := f.count(Fail); {
	case unread == 2:
		return f, &Error{exitUnreadable, "neither Dovecot's nor Postfix' configuration can be read: --dovecot-config and --postfix-config name them"}
	case failed == 1:
		return f, &Error{exitFailed, "1 check failed"}
	case failed > 0:
		return f, &Error{exitFailed, fmt.Sprintf("%d checks failed", failed)}
	}
	return f, nil
}

// settings reads the daemon's settings. Where they cannot be read the defaults are returned, which
// are then not known to hold.
func settings(f *findings, o options) (c *config.Config, known bool) {
	const check = "doctor.settings"
	c, err := config.Load(o.settings)
	switch {
	case err == nil:
		f.ok(check, o.settings, "the daemon's settings are read")
		return c, true
	case errors.Is(err, fs.ErrNotExist) && !o.settingsNamed:
		f.warn(check, o.settings, "drawbridge doctor --config FILE", "not there: the defaults are taken for the daemon's settings, and its sockets are not asked")
	case errors.Is(err, fs.ErrPermission):
		f.warn(check, o.settings, "# run this as root", "cannot be read by you: the defaults are taken for the daemon's settings, and its sockets are not asked")
	default:
		f.fail(check, o.settings, "drawbridged -c "+o.settings+" check", "the daemon's settings cannot be read: %v", err)
	}
	return config.Default(), false
}

// readable reads a server's configuration, and says why if it cannot.
func readable[T any](f *findings, server, place string, named bool, read func(string) (T, error)) (string, T, bool) {
	check := "doctor." + server
	place, err := filepath.Abs(place)
	var conf T
	if err == nil {
		_, err = os.Stat(place)
	}
	if errors.Is(err, fs.ErrNotExist) && !named {
		f.warn(check, place, "drawbridge doctor --"+server+"-config "+place, "not there: this server is not checked")
		return place, conf, false
	}
	if err == nil {
		conf, err = read(place)
	}
	switch {
	case err == nil:
		return place, conf, true
	case os.Geteuid() != 0:
		f.fail(check, place, "# run this as root", "cannot be read by you: %v", cause(err))
	case strings.Contains(err.Error(), "auth_policy_hash_nonce"):
		f.fail(check, place, "auth_policy_hash_nonce = RANDOM", "cannot be read: %v", err)
	default:
		f.fail(check, place, "", "cannot be read: %v", cause(err))
	}
	return place, conf, false
}
