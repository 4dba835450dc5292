// Package checkpassword is the program that Dovecot 2.3 runs for every login, as its checkpassword
// passdb: it takes the name and the password from file descriptor 3, asks the Drawbridge daemon
// over a unix socket, and gives the answer in the words that Dovecot, and Postfix behind it,
// understand.
//
// # Synopsis
//
//	drawbridge-checkpassword [-s SOCKET] [--verified] [REPLY…]
//
// SOCKET is the daemon's login socket, an absolute path of less than 108 bytes,
// /run/drawbridge/login.sock unless given. Under Dovecot — the last argument's base name is
// checkpassword-reply, or AUTH_SERVICE and AUTH_PID are set — the reply is written to descriptor 4
// by this program itself and REPLY is not run. Elsewhere REPLY is run on success, as any
// checkpassword does. dovecot.conf needs all of this; both results default to failing open, and 256
// MB of address space end a Go program before its first line:
//
//	passdb {
//	  driver = checkpassword
//	  args = /usr/lib/drawbridge/drawbridge-checkpassword
//	  result_success = return-ok
//	  result_failure = return-fail
//	  result_internalfail = return-fail
//	}
//	service auth {
//	  vsz_limit = 1G
//	}
//
// # A dialogue
//
//	fd 3      ann@example.org NUL opensesame NUL NUL
//	daemon <- POST /v1/login {"account":"ann@example.org","secret":"opensesame","service":"imap","ip":"203.0.113.9",…}
//	daemon -> 200 {"outcome":"allow","reason":"ok","account":"ann@example.org",…}
//	fd 4      user=ann@example.org TAB
//	exit 0
//
// A look-up (AUTHORIZED=1, for CRAM and SCRAM mechanisms and for LMTP) has no password and other
// exit codes. [Words] is the whole table of answers.
//
// Of the environment that Dovecot sets (AUTH_RIP, AUTH_SERVICE, AUTH_SESSION and so on) the values
// that evidence needs are passed to the daemon; values that the client chooses are cut to a bound
// first. A password that is not UTF-8 travels as base64 in "secret_b64" instead of "secret".
//
// # A second passdb
//
// With --verified the program stands behind the site's own passdb, and only logins that this one has
// accepted reach it (skip = unauthenticated). It verifies no password and sends none: the daemon
// evaluates the rules for the name that the site's passdb gave the login. A name that is the typed
// one was judged before, and is admitted without a question.
//
//	daemon <- POST /v1/dovecot/verified {"account":"bob@example.org","service":"imap",…,"typed":"nick@example.org"}
//	daemon -> 200 {"outcome":"next",…}
//
// Dovecot's own check after authentication (auth_policy_check_after_auth) evaluates the same, but
// calls a daemon that is away a wrong password. With "result_success = return-ok" a login with a wrong
// password would be accepted if skip were missing; with "continue" it is not.
//
// # Exit status
//
//	0    admitted, or passed on to the next passdb, or a refusal with a text (nologin)
//	1    refused; outside Dovecot also logins for the next passdb, as there is none
//	2    found (look-ups); wrong usage, outside Dovecot
//	3    unknown (look-ups)
//	111  temporary failure; wrong usage, under Dovecot
//
// # Diagnostics
//
// One line on stderr, which Dovecot logs as an error, says why an exit was 111 or why no question
// was asked. A refusal is silent here; the daemon logs it.
//
// A name and password that are cut short, longer than 512 bytes with their three NULs, without a
// name, or with a name that is not UTF-8, are refused (1), as Dovecot itself refuses what is too
// long. In a look-up they are a temporary failure: 3 would make LMTP bounce the message.
//
// Everything ends within nine seconds, one before Postfix gives up, however slowly the daemon
// drips. Postfix answers 535 even for a temporary failure unless its timeout expires first,
// so a service that is not Dovecot's own waits for 10.5 seconds when the daemon or its store
// is away, by 64 processes at most; the client then sees 454 and keeps its password.
//
// # Limits
//
// It decides nothing, keeps nothing, reads no settings, authenticates no master user (put it
// outside passdbs with master = yes: it refuses there), and does not iterate users.
package checkpassword
