package checkpassword

import (
	"errors"
	"syscall"
)

// DefaultSocket is where the daemon listens unless its settings say otherwise.
const DefaultSocket = "/run/drawbridge/login.sock"

const usage = "usage: drawbridge-checkpassword [-s SOCKET] [--verified] [REPLY...]\n"

const help = usage + `
Dovecot runs this for every login, as its checkpassword passdb:

  passdb {
    driver = checkpassword
    args = /usr/lib/drawbridge/drawbridge-checkpassword
    result_success = return-ok
    result_failure = return-fail
    result_internalfail = return-fail
  }
  service auth {
    vsz_limit = 1G
  }

It reads name and password from descriptor 3 and asks the daemon at SOCKET
(` + DefaultSocket + `). Under Dovecot it writes the reply
to descriptor 4; elsewhere it runs REPLY on success.

With --verified it is a second passdb, behind the site's own: it verifies no
password, and has the rules evaluated for the name that the site's passdb gave
the login. See drawbridge-verified.conf.ext.

Exit status: 0 admitted, 1 refused, 2 wrong usage, 111 temporary failure.
`

// The descriptors of the checkpassword interface.
const (
	fdCredentials = 3
	fdReply       = 4
)

// The time from the start by which something has ended. Postfix waits ten seconds, which is
// compiled in.
const (
	askWithin  = 8500 * millisecond
	endWithin  = 9000 * millisecond
	holdWithin = 10500 * millisecond
)

// Run is the program, without the exit: args are its arguments without its own name, env its
// environment, the result is the exit status. It takes over the process: every descriptor from 5 up
// is closed, and where another program is run on success it does not return.
func Run(args []string, env Environment) int {
	start := now()
	// Dovecot's children inherit its listening sockets and each other's pipes: kept open, they stop
	// Dovecot from starting again and logins from ending.
	closeFrom(fdReply + 1)

	p := program{start: start, env: env}
	o, err := parseArgs(args)
	if errors.Is(err, errHelp) {
		_, _ = file{fd: 1, by: p.start + endWithin}.Write([]byte(help))
		return exitOK
	}
	last := ""
	if len(o.reply) > 0 {
		last = o.reply[len(o.reply)-1]
	}
	p.options, p.asker = o, p.env.Asker(last)
	switch {
	case err != nil || p.asker != Elsewhere:
	case o.verified:
		err = errors.New("--verified: for a passdb of Dovecot only, behind another one that verifies passwords")
	case len(o.reply) == 0:
		err = errors.New("no program to run")
	}
	if err != nil {
		p.complain(err.Error() + "; " + usage[:len(usage)-1])
		if p.asker == Elsewhere {
			return exitMisuse
		}
		return exitTemp // 2 would be "found" to a look-up
	}
	return p.answer()
}

// A program is one run.
type program struct {
	options
	start instant
	env   Environment
	asker Asker
}

// options are the arguments.
type options struct {
	socket   string
	verified bool     // the passdb before has verified the password
	reply    []string // the program to run on success, outside Dovecot
}

// answer asks the daemon and speaks its decision.
func (p program) answer() int {
	if !givesCredentials(fdCredentials) {
		p.complain("descriptor 3 is not a pipe, a socket or a file; Dovecot runs this program, not people")
		return exitTemp
	}
	if p.asker != Elsewhere && !isOpen(fdReply) {
		p.complain("descriptor 4 is not open")
		return exitTemp
	}
	credentials, err := ReadCredentials(file{fd: fdCredentials, by: p.start + askWithin})
	_ = syscall.Close(fdCredentials)
	var malformed MalformedError
	switch {
	case errors.As(err, &malformed) && p.asker != DovecotLookup:
		p.complain(err.Error())
		return exitRefused
	case errors.As(err, &malformed):
		p.complain(err.Error())
		return exitTemp // "unknown" would make LMTP bounce
	case err != nil:
		p.complain("reading descriptor 3: " + err.Error())
		return exitTemp
	case p.env.asMaster():
		credentials.Wipe()
		p.complain("master users are not authenticated here: this passdb must not have master = yes")
		return Words(Deny, p.asker, false).Status
	}

	login := NewLogin(credentials, p.env)
	var decision Decision
	if p.verified {
		login = login.Verified(p.env)
		decision.Outcome = Allow // the daemon has judged this name
	}
	if login.Typed != login.Account {
		decision, err = ask(p.socket, login, p.start+askWithin)
	}
	credentials.Wipe()
	if err != nil {
		p.complain("asking the daemon at " + p.socket + ": " + err.Error())
	}
	user := decision.User
	if user == "" {
		user = login.Account
	}

	outcome := decision.Outcome
	if p.verified && outcome == Next { // no rule refuses; this passdb is the last
		outcome = Allow
	}
	speech := Words(outcome, p.asker, decision.Message != "")
	if speech.Run {
		err := run(p.reply, p.env)
		p.complain("running " + p.reply[0] + ": " + err.Error())
		return exitTemp
	}
	if words := Reply(speech.Fields, user, decision.Message); len(words) > 0 {
		if _, err := (file{fd: fdReply, by: p.start + endWithin}).Write(words); err != nil {
			p.complain("writing descriptor 4: " + err.Error())
			return exitTemp
		}
	}
	// The daemon may have reasons of its own to be busy, such as a guesser; it is not for them that
	// connections are kept.
	if speech.Hold && (decision.Reason == "" || decision.Reason == "store_unavailable") {
		hold(p.socket, p.start+holdWithin)
	}
	return speech.Status
}

// ask makes the one exchange with the daemon. With an error there is no outcome.
func ask(socket string, login Login, by instant) (Decision, error) {
	conn, err := dial(socket, by)
	if err != nil {
		return Decision{}, err
	}
	defer conn.close()
	request := login.Request()
	_, err = conn.Write(request)
	clear(request)
	if err != nil {
		return Decision{}, err
	}
	body, err := ReadAnswer(conn)
	if err != nil {
		return Decision{}, err
	}
	return ParseDecision(body)
}

// complain writes one line to stderr. Dovecot logs it; a log that is stuck delays nothing beyond
// the end.
func (p program) complain(text string) {
	_, _ = file{fd: 2, by: p.start + endWithin}.Write([]byte("drawbridge-checkpassword: " + text + "\n"))
}

var errHelp = errors.New("help")

// parseArgs reads the arguments. For a request of help it returns errHelp. With an error the program
// to run is still what follows the fault.
func parseArgs(args []string) (o options, err error) {
	o = options{socket: DefaultSocket, reply: args}
	for len(o.reply) > 0 && len(o.reply[0]) > 1 && o.reply[0][0] == '-' {
		arg := o.reply[0]
		o.reply = o.reply[1:]
		switch {
		case arg == "--":
			return o, nil
		case arg == "-h" || arg == "--help":
			return o, errHelp
		case arg == "--verified":
			o.verified = true
		case arg != "-s":
			return o, errors.New("unknown option " + arg)
		case len(o.reply) == 0 || o.reply[0] == "" || o.reply[0][0] != '/':
			return o, errors.New("-s needs an absolute path")
		case len(o.reply[0]) >= maxSocketPath:
			return o, errors.New("-s: a socket's path is shorter than 108 bytes")
		default:
			o.socket = o.reply[0]
			o.reply = o.reply[1:]
		}
	}
	return o, nil
}
