package checkpassword

import "strconv"

// Environment is a list of NAME=VALUE, as a process gets it.
type Environment []string

// Get returns the value of the first variable of that name, "" if it is not set.
func (env Environment) Get(name string) string {
	for _, entry := range env {
		if len(entry) > len(name) && entry[len(name)] == '=' && entry[:len(name)] == name {
			return entry[len(name)+1:]
		}
	}
	return ""
}

func (env Environment) first(names ...string) string {
	for _, name := range names {
		if v := env.Get(name); v != "" {
			return v
		}
	}
	return ""
}

// Service is the name of the service that logs in: imap, or the value of smtpd_sasl_service.
func (env Environment) Service() string { return env.first("AUTH_SERVICE", "SERVICE") }

// Lookup reports whether Dovecot asks for a user's data without a password.
func (env Environment) Lookup() Lookup {
	switch {
	case env.Get("AUTHORIZED") == "":
		return ""
	case env.Get("CREDENTIALS_LOOKUP") == "":
		return LookupUser
	default:
		return LookupCredentials
	}
}

// asMaster reports the first of a master login's two calls: the name and the password are the
// master's own, and the account is yet to be entered.
func (env Environment) asMaster() bool {
	return env.Get("AUTH_LOGIN_USER") != "" && env.Get("AUTH_MASTER_USER") == ""
}

// tls reports whether the client's connection is encrypted. Dovecot's own services say TLS, and
// "secured" for plain text from the same host; anybody else, like Postfix, has only "secured" and
// means TLS by it.
func (env Environment) tls() bool {
	switch env.Get("AUTH_SECURED") {
	case "TLS":
		return true
	case "secured":
		return !dovecotService(env.Service())
	default:
		return false
	}
}

func (env Environment) localPort() uint16 {
	port, err := strconv.ParseUint(env.first("AUTH_LPORT", "TCPLOCALPORT"), 10, 16)
	if err != nil {
		return 0 // unknown
	}
	return uint16(port)
}

// Asker is the recipient of the answer, which decides its words.
type Asker uint8

// The askers.
const (
	Elsewhere     Asker = iota // not Dovecot: a program that runs REPLY on success
	LoginProxy                 // Dovecot's login process for IMAP, POP3 or ManageSieve: it shows a text and honours nologin
	Dovecot                    // another service of Dovecot's own
	SASL                       // a client of Dovecot's SASL service, like Postfix: it ignores nologin and calls a temporary failure permanent
	DovecotLookup              // a look-up without a password
)

// Asker returns who asks. reply is the last word of the command line, which names Dovecot's reply
// program when Dovecot asks.
func (env Environment) Asker(reply string) Asker {
	switch {
	case base(reply) != "checkpassword-reply" && (env.Get("AUTH_SERVICE") == "" || env.Get("AUTH_PID") == ""):
		return Elsewhere
	case env.Lookup() != "":
		return DovecotLookup
	}
	service := env.Service()
	switch service {
	case "imap", "pop3", "sieve":
		// smtpd_sasl_service may say "imap" too. Only a login process has a session, and a local
		// port that is not 0.
		if env.Get("AUTH_SESSION") == "" && env.Get("AUTH_LPORT") == "0" {
			return Dovecot
		}
		return LoginProxy
	}
	if dovecotService(service) {
		return Dovecot
	}
	return SASL
}

// dovecotService reports whether Dovecot itself offers a service of that name.
func dovecotService(name string) bool {
	switch name {
	case "imap", "pop3", "sieve", "submission", "lmtp", "doveadm":
		return true
	}
	return false
}

func base(path string) string {
	for i := len(path) - 1; i >= 0; i-- {
		if path[i] == '/' {
			return path[i+1:]
		}
	}
	return path
}
