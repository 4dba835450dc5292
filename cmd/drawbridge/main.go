// Command drawbridge manages a running drawbridged through its HTTP API. It prints tables for
// people and JSON for scripts.
//
//	# drawbridge domain create example.org --third-party block --secure-login-ip 203.0.113.0/24
//	# drawbridge account set ann@example.org --pop3 off --department sales/emea
//	# drawbridge secure-password create ann@example.org --label "My iPhone"
//	K7QF3XW9M2TRVD4H
//	drawbridge: the secret is shown only now: enter it on the device "My iPhone" of ann@example.org (id 5b0c…)
//	# drawbridge logins example.org --reason bad_secret --since 24h
//
// # Reaching the daemon
//
// --api, else DRAWBRIDGE_API, else unix:/run/drawbridge/api.sock, where root and the daemon's own
// user need no key. Other users name a file with a key that only they can read: --key-file, else
// DRAWBRIDGE_KEY_FILE. Secrets are never read from the command line or the environment.
//
// # Output
//
// Answers go to standard output: a table that fits 80 columns (--wide shows everything), or with -o
// json the API's own JSON, a list as one document. Unprintable characters are escaped, because some
// values come from strangers, such as the name that a client gives itself. Everything else goes to
// standard error, so that a pipe receives a new secret and nothing more.
//
// # Diagnostics
//
// One line for each fault: the flag with its value, the cause and the remedy. With -o json it is
// the daemon's problem document (RFC 9457), or an object with a detail and one of the codes usage,
// unreachable, interrupted, failed and internal.
//
//	0   done
//	64  a mistake in the command line, or in a file that it names
//	65  refused by the daemon as invalid (400, 422)
//	66  not found (404)
//	69  no answer from the daemon
//	70  anything else
//	73  conflict: exists, in use, limit, lock-out, confirmation needed, changed meanwhile (409, 412)
//	75  try again later (429, 503)
//	77  not allowed (401, 403)
//
// # Limits
//
// The command has no settings file and no cache, and never repeats a change that may have been
// made. It asks no questions, except for a secret on a terminal.
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
