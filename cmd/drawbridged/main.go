// Drawbridged is the daemon: it decides logins for Dovecot, submissions and messages for Postfix,
// and serves the administrators' API.
//
//	drawbridged -c FILE        run, in the foreground; logs to stderr
//	drawbridged -c FILE check  validate the settings: exit 0, or 78 with every problem
//	drawbridged -c FILE -n     print the settings that differ from their defaults
//	drawbridged -d             print all settings with their defaults and documentation
//	drawbridged -V, --version  print the version
//
// SIGHUP reloads the settings marked [reload] in the output of -d, region databases, key files and
// certificates. The log names changed settings that need a restart, and what is wrong with a file;
// then nothing changes. SIGTERM and SIGINT end the daemon.
//
// Exit status: 0 after a signal to end, 1 for a failure at start or later, 64 for wrong arguments,
// 78 for wrong settings.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	stdlog "log"
	"os"
	"os/signal"
	"syscall"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/daemon"
)

// version is set by the linker.
var version = "devel"

func main() { os.Exit(run()) }

func run() int {
	flags := flag.NewFlagSet("drawbridged", flag.ContinueOnError)
	file := flags.String("c", "/etc/drawbridge/drawbridge.toml", "read settings from this `file`")
	changed := flags.Bool("n", false, "print the settings that differ from their defaults")
	defaults := flags.Bool("d", false, "print all settings with their defaults and documentation")
	printVersion := flags.Bool("V", false, "print the version")
	flags.BoolVar(printVersion, "version", false, "print the version")
	flags.Usage = func() {
		fmt.Fprint(os.Stderr, "Usage: drawbridged [-c FILE] [check | -n]\n       drawbridged -d | -V | --version\n\nRun the daemon in the foreground and log to standard error. With check, validate the settings: exit with 0, or\nprint every problem and exit with 78.\n")
		flags.PrintDefaults()
	}
	if err := flags.Parse(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		return 64
	}
	check := flags.NArg() == 1 && flags.Arg(0) == "check"
	if flags.NArg() > 0 && !check {
		fmt.Fprintf(os.Stderr, "drawbridged: unknown command %q: give check or nothing\n", flags.Arg(0))
		return 64
	}
	switch {
	case *printVersion:
		fmt.Println("drawbridged", version)
		return 0
	case *defaults:
		return report(config.WriteDefaults(os.Stdout), 1)
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	load := func() (*config.Config, error) { return config.Load(*file) }
	cfg, err := load()
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: create it; an empty file works ('drawbridged -d' prints all settings)", err)
	}
	if err != nil {
		return report(err, 78)
	}
	switch {
	case check:
		return report(daemon.Check(cfg), 78)
	case *changed:
		return report(config.WriteChanged(os.Stdout, cfg), 1)
	}
	log := hclog.New(&hclog.LoggerOptions{
		Name: "drawbridged", Level: hclog.LevelFromString(cfg.Log.Level), JSONFormat: cfg.Log.JSON, Output: os.Stderr,
	})
	// go-milter reports panics to the standard logger, and to no other.
	stdlog.SetOutput(log.StandardWriter(&hclog.StandardLoggerOptions{ForceLevel: hclog.Error}))
	stdlog.SetFlags(0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return report(daemon.Run(ctx, cfg, daemon.Reload{Signal: hangups, Load: load}, log, version), 1)
}

func report(err error, status int) int {
	if err == nil {
		return 0
	}
	fmt.Fprintln(os.Stderr, "drawbridged:", err)
	return status
}
