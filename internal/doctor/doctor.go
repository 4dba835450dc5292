// Package doctor checks a running Dovecot (2.3 or 2.4) and Postfix for configuration that lets
// logins past Drawbridge's rules, or blocks every login. It is the command "drawbridge doctor".
//
//	# drawbridge doctor
//	ok    dovecot.passdb.present         passdb 2 (checkpassword) runs drawbridge-checkpassword
//	ok    dovecot.passdb.first           no other passdb is asked before it
//	FAIL  dovecot.passdb.results         /etc/dovecot/dovecot.conf: passdb 2 (checkpassword): result_internalfail
//	      is "continue": while the daemon is away, the other passdbs decide alone
//	          result_internalfail = return-fail
//	…
//	failed: 1, warnings: 0, passed: 39
//
// There are three layers of checks. [Dovecot], [Postfix] and [Both] read the configuration as
// doveconf and postconf print it: with defaults, with the overrides of master.cf, with $name
// expanded, and for Dovecot 2.3 also as each protocol sees it. The second layer looks at files: who
// can change the program, who can reach the sockets. The third sends the daemon requests that
// change nothing: /readyz, /livez, /v1/regions, lists of mail rules and groups, a policy request
// without a login, a milter session and an SMTP session without a message.
//
// A finding has an identifier, a severity, a place, the consequence, and the lines to write. They
// can be pasted: a word in capitals is for the reader to fill in, a line that begins with # says
// what to do instead.
//
//	dovecot.*            the passdb chain, vsz_limit, mechanisms, the auth-policy report, userdb,
//	                     trusted networks, the penalty, connections of service auth, submission
//	postfix.*            each smtpd of master.cf: policy service, milter, SASL, XCLIENT, process limits;
//	                     settings that main.cf has twice; what mail rules in force need
//	program, script      drawbridge-checkpassword or the Lua script, and the directories above;
//	script.fields        the fields that the script returns
//	login_socket.*       the socket that checkpassword asks: it exists, Dovecot reaches it, others do not
//	policy_socket, milter_socket, sasl_socket
//	                     the sockets that Postfix asks, in its chroot if it has one
//	daemon.*             the daemon's answers, its database of regions, whether Dovecot's doveadm
//	                     lists and ends sessions, and whether notify.smtp and the OpenID provider answer
//	doctor.*             what could not be checked, and why
//
// # Diagnostics
//
// Findings go to standard output, as paragraphs or with -o json as
// {"items":[{"check","severity","where","what","fix"}], "failures","warnings"}. Exit status:
//
//	0   nothing failed; there may be warnings
//	1   some check failed
//	64  usage
//	69  neither server's configuration can be read
//
// A configuration that is missing at its default place is a warning, since the other server may run
// on another host. One that was named on the command line, or that its own server cannot read, is a
// failure.
//
// # Limits
//
// It changes nothing, logs nobody in and sends no mail. It does not evaluate access tables, other
// policy services or other passdbs. It does not look at networks and firewalls. Of Dovecot 2.4 it
// cannot see in which order the passdbs of one protocol are asked. It prints no secrets: not the
// key of the auth-policy report, and only the driver of other passdbs.
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

// Error ends the command with its own exit status, after the findings are printed.
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

// Command returns "drawbridge doctor". It reads --api, --key-file and -o from its parent's
// persistent flags, if there are any. Its errors are [*Error].
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Check Dovecot, Postfix and the daemon for faults",
		Long: `Check the configuration of Dovecot (2.3 or 2.4) and Postfix, the sockets between them and Drawbridge, and the daemon's
answers, for faults that let logins bypass the rules or that block every login. Each finding names the place, the
consequence and the line to write.

It changes nothing. Run it as root: other users may not read everything.

Exit status: 0 nothing failed, 1 some check failed, 64 usage, 69 neither server's configuration can be read.`,
		Example:           "  drawbridge doctor\n  drawbridge doctor -o json --postfix-config /etc/postfix-out",
		ValidArgsFunction: cobra.NoFileCompletions,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &Error{exitUsage, fmt.Sprintf("unexpected argument %q: doctor takes flags only", args[0])}
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
			if _, err := os.Stat(packageProgram); err == nil {
				found.usePackagePaths()
			}
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

// examine runs all checks. The error, if any, has the exit status.
func examine(ctx context.Context, o options, m machine) (findings, *Error) {
	var f findings
	if os.Geteuid() != 0 {
		f.warn("doctor.privileges", "", "# run this as root", "not run as root: some files and sockets cannot be checked")
	}
	c, known := settings(&f, o)
	unread := 0
	var dovecot *DovecotConf
	var postfix *PostfixConf

	if file, conf, ok := readable(&f, "dovecot", o.dovecot, o.dovecotNamed, func(file string) (DovecotConf, error) { return readDovecot(ctx, file) }); ok {
		conf.File = file
		if known || o.apiNamed {
			conf.Domains = managed(ctx, o.api, o.keyFile)
		}
		f = append(f, Dovecot(conf, c)...)
		f = append(f, m.checkDovecot(conf)...)
		dovecot = &conf
	} else {
		unread++
	}
	if dir, conf, ok := readable(&f, "postfix", o.postfix, o.postfixNamed, func(dir string) (PostfixConf, error) { return readPostfix(ctx, dir) }); ok {
		conf.Dir = dir
		postfix = &conf
		f = append(f, Postfix(conf, c)...)
		f = append(f, m.checkPostfix(conf, c)...)
		if dovecot != nil {
			f = append(f, Both(*dovecot, conf, c)...)
		}
	} else {
		unread++
	}

	if known {
		f = append(f, askDaemon(ctx, c)...)
		f = append(f, askDoveadm(ctx, c)...)
		f = append(f, askIssuer(ctx, c)...)
	}
	if known || o.apiNamed {
		var own *config.Config
		if known {
			own = c
		}
		f = append(f, askAPI(ctx, own, o.api, o.keyFile)...)
		f = append(f, checkMailRules(ctx, postfix, own, o.api, o.keyFile)...)
	}
	switch failed := f.count(Fail); {
	case unread == 2:
		return f, &Error{exitUnreadable, "neither Dovecot's nor Postfix' configuration can be read: name them with --dovecot-config and --postfix-config"}
	case failed == 1:
		return f, &Error{exitFailed, "1 check failed"}
	case failed > 0:
		return f, &Error{exitFailed, fmt.Sprintf("%d checks failed", failed)}
	}
	return f, nil
}

// settings reads the daemon's settings. If they cannot be read, it returns the defaults and not
// known.
func settings(f *findings, o options) (c *config.Config, known bool) {
	const check = "doctor.settings"
	c, err := config.Load(o.settings)
	switch {
	case err == nil:
		f.ok(check, o.settings, "settings read")
		return c, true
	case errors.Is(err, fs.ErrNotExist) && !o.settingsNamed:
		f.warn(check, o.settings, "drawbridge doctor --config FILE", "does not exist: the checks assume the default settings, and the daemon's sockets are not asked")
	case errors.Is(err, fs.ErrPermission):
		f.warn(check, o.settings, "# run this as root", "permission denied: the checks assume the default settings, and the daemon's sockets are not asked")
	default:
		f.fail(check, o.settings, "drawbridged -c "+o.settings+" check", "settings cannot be read: %v", err)
	}
	return config.Default(), false
}

// mixedVersions returns what to write when a Dovecot was given the configuration of another
// version, "" for other errors of doveconf.
func mixedVersions(text string) string {
	switch {
	case strings.Contains(text, "is missing section name"), strings.Contains(text, "The first setting must be dovecot_config_version"),
		strings.Contains(text, "Unknown setting: args"):
		return "# Dovecot 2.4 with a configuration for 2.3: above every other passdb, instead of drawbridge.conf.ext for 2.3\n" + luaBlock24
	case strings.Contains(text, "Unknown setting: dovecot_config_version"), strings.Contains(text, "Unknown setting: passdb { lua_file"):
		return "# Dovecot 2.3 with a configuration for 2.4: above every other passdb, instead of the Lua passdb for 2.4\n" + passdbBlock(shippedPath)
	case strings.Contains(text, "Invalid dovecot_config_version"):
		_, list, _ := strings.Cut(text, "supported versions are: ")
		if versions := strings.Fields(list); len(versions) > 0 {
			return "dovecot_config_version = " + versions[len(versions)-1]
		}
	}
	return ""
}

// readable reads a server's configuration, or reports why it cannot.
func readable[T any](f *findings, server, place string, named bool, read func(string) (T, error)) (string, T, bool) {
	check := "doctor." + server
	place, err := filepath.Abs(place)
	var conf T
	if err == nil {
		_, err = os.Stat(place)
	}
	if errors.Is(err, fs.ErrNotExist) && !named {
		f.warn(check, place, "drawbridge doctor --"+server+"-config "+place, "does not exist: this server is not checked")
		return place, conf, false
	}
	if err == nil {
		conf, err = read(place)
	}
	switch {
	case err == nil:
		return place, conf, true
	case os.Geteuid() != 0:
		f.fail(check, place, "# run this as root", "permission denied: %v", cause(err))
	case mixedVersions(err.Error()) != "":
		f.fail(check, place, mixedVersions(err.Error()), "cannot be read: %v", cause(err))
	case strings.Contains(err.Error(), "auth_policy_hash_nonce"):
		f.fail(check, place, "auth_policy_hash_nonce = RANDOM", "cannot be read: %v", err)
	default:
		f.fail(check, place, "", "cannot be read: %v", cause(err))
	}
	return place, conf, false
}
