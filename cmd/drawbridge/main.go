// Command drawbridge is the administrator's hand on a running drawbridged: it does what the HTTP
// API does, with tables for people and JSON for scripts.
//
//	# drawbridge domain create example.org --third-party block --secure-login-ip 203.0.113.0/24
//	# drawbridge account set ann@example.org --pop3 off --department sales/emea
//	# drawbridge secure-password create ann@example.org --label "My iPhone"
//	K7QF3XW9M2TRVD4H
//	drawbridge: this secret is shown only now: give it to the device "My iPhone" of ann@example.org (id 5b0c…)
//	# drawbridge logins example.org --reason bad_secret --since 24h
//
// # Where the daemon is
//
// --api, else DRAWBRIDGE_API, else unix:/run/drawbridge/api.sock, where root and the daemon's own
// user need no key. Others name a file that holds one and that nobody else may read: --key-file,
// else DRAWBRIDGE_KEY_FILE. No secret is taken from the command line or the environment.
//
// # Output
//
// Answers go to standard output: a table, or with -o json the API's own JSON (the pages of a list
// put together). What the daemon tells about other people, such as the name a client gives itself,
// cannot steer the terminal: characters that do not print are escaped. Everything else goes to
// standard error, so that a new secret alone is what a pipe receives.
//
// # Diagnostics
//
// One line for each fault: the field as a JSON pointer, what is wrong, what to do. With -o json the
// daemon's problem document (RFC 9457) on standard error instead, or an object with a detail and a
// code of this command's own: usage, unreachable, interrupted, failed, internal.
//
//	0   done
//	64  the command line, or a file that it names, cannot be used
//	65  the daemon refused it as invalid (400, 422)
//	66  not found (404)
//	69  no answer from the daemon
//	70  anything else
//	73  in conflict: exists, is in use, limit, lock-out, changed meanwhile (409, 412)
//	75  try later (429, 503)
//	77  not allowed (401, 403)
//
// # What it does not do
//
// It decides nothing and keeps nothing: no settings file, no cache, no retries of a change that may
// have been made. It asks no questions, except for a secret on a terminal.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	c := new(cli)
	cmd, err := c.root().ExecuteContextC(ctx)
	stop()
	os.Exit(c.report(cmd, err))
}
