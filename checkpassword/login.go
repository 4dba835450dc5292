package checkpassword

import (
	"encoding/base64"
	"strconv"
	"unicode/utf8"
)

// Bounds of the values that a request takes from the environment, in bytes.
const (
	maxName     = 256  // a service, an address, a session, …
	maxClientID = 1024 // the IMAP ID, which the client makes as long as it likes
)

// Lookup distinguishes a login from Dovecot's look-ups.
type Lookup string

// The kinds of look-up; the zero value is a login with its password.
const (
	LookupCredentials Lookup = "credentials" // AUTHORIZED and CREDENTIALS_LOOKUP are set
	LookupUser        Lookup = "user"        // AUTHORIZED alone
)

// Login is the request to the daemon: the body of POST /v1/login. Empty fields are left out of it.
type Login struct {
	Account    string
	Secret     []byte // wiped by its owner
	Service    string
	IP         string // the user's address
	RealIP     string // the TCP peer's
	LocalIP    string
	LocalPort  uint16
	ServerName string // TLS SNI
	TLS        bool
	ClientCert string // "valid" when Dovecot verified one
	Mechanism  string
	Session    string
	MasterUser string // the master who logs in as Account; the secret is then not the account's, and not sent
	Lookup     Lookup
	ClientID   string
	Typed      string // the name as the client sent it, of a login that the passdb before has verified
}

// NewLogin gathers the question from descriptor 3 and the environment.
func NewLogin(c Credentials, env Environment) Login {
	l := Login{
		Account:    string(c.User),
		Secret:     c.Secret,
		Service:    env.Service(),
		IP:         env.Get("AUTH_RIP"),
		RealIP:     env.Get("AUTH_REAL_RIP"),
		LocalIP:    env.first("AUTH_LIP", "TCPLOCALIP"),
		LocalPort:  env.localPort(),
		ServerName: env.Get("AUTH_LOCAL_NAME"),
		TLS:        env.tls(),
		ClientCert: env.Get("AUTH_CERT"),
		Mechanism:  env.Get("AUTH_MECH"),
		Session:    env.Get("AUTH_SESSION"),
		MasterUser: env.Get("AUTH_MASTER_USER"),
		Lookup:     env.Lookup(),
		ClientID:   env.Get("AUTH_CLIENT_ID"),
	}
	if l.IP == "" {
		// Outside Dovecot addresses are not forwarded: the peer is the user.
		l.IP = env.Get("TCPREMOTEIP")
		l.RealIP = l.IP
	}
	if l.MasterUser != "" {
		l.Secret = nil
	}
	return l
}

// Verified returns the request about the final name of a login whose password another passdb has
// verified. It has no secret.
func (l Login) Verified(env Environment) Login {
	l.Secret, l.Typed = nil, env.Get("AUTH_ORIG_USER")
	if l.MasterUser != "" || l.Typed == "" {
		l.Typed = l.Account // AUTH_ORIG_USER names the master
	}
	return l
}

// The head of every request, after its path. The length is written over the spaces, which HTTP
// allows before a field's value (RFC 9112, section 5).
const (
	pathLogin    = "/v1/login"
	pathVerified = "/v1/dovecot/verified"
	requestHead  = " HTTP/1.1\r\nHost: drawbridge\r\nConnection: close\r\n" +
		"Content-Type: application/json\r\nContent-Length:"
	lengthSpace = "      "
	headEnd     = "\r\n\r\n"
)

// maxRequest holds the largest request, every byte escaped to six, so that the buffer never grows
// and leaves no copy of a secret behind.
const maxRequest = 32 << 10

// Request returns l as one HTTP/1.1 request. It contains the secret: the caller wipes it.
func (l Login) Request() []byte {
	b := make([]byte, 0, maxRequest)
	b = append(b, "POST "...)
	if l.Typed != "" {
		b = append(b, pathVerified...)
	} else {
		b = append(b, pathLogin...)
	}
	b = append(b, requestHead+lengthSpace+headEnd...)
	start := len(b)
	b = l.appendJSON(b)

	var digits [20]byte
	length := strconv.AppendInt(digits[:0], int64(len(b)-start), 10)
	copy(b[start-len(headEnd)-len(length):], length)
	return b
}

func (l Login) appendJSON(b []byte) []byte {
	b = append(b, `{"account":`...)
	b = appendString(b, l.Account)
	switch {
	case len(l.Secret) == 0:
	case utf8.Valid(l.Secret):
		b = append(b, `,"secret":`...)
		b = appendString(b, l.Secret)
	default:
		b = append(b, `,"secret_b64":"`...)
		b = base64.StdEncoding.AppendEncode(b, l.Secret)
		b = append(b, '"')
	}
	b = appendField(b, "service", l.Service, maxName)
	b = appendField(b, "ip", l.IP, maxName)
	b = appendField(b, "real_ip", l.RealIP, maxName)
	b = appendField(b, "local_ip", l.LocalIP, maxName)
	if l.LocalPort != 0 {
		b = append(b, `,"local_port":`...)
		b = strconv.AppendUint(b, uint64(l.LocalPort), 10)
	}
	b = appendField(b, "server_name", l.ServerName, maxName)
	if l.TLS {
		b = append(b, `,"tls":true`...)
	}
	b = appendField(b, "client_cert", l.ClientCert, maxName)
	b = appendField(b, "mechanism", l.Mechanism, maxName)
	b = appendField(b, "session", l.Session, maxName)
	b = appendField(b, "master_user", l.MasterUser, maxName)
	b = appendField(b, "lookup", string(l.Lookup), maxName)
	b = appendField(b, "client_id", l.ClientID, maxClientID)
	b = appendField(b, "typed", l.Typed, maxName)
	return append(b, '}')
}

// appendField appends one member, its value cut to limit, unless it is empty.
func appendField(b []byte, name, value string, limit int) []byte {
	if value == "" {
		return b
	}
	b = append(b, `,"`...)
	b = append(b, name...)
	b = append(b, `":`...)
	return appendString(b, clip(value, limit))
}

// clip cuts s to at most limit bytes, before the character that would cross it.
func clip(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit]
}

// appendString appends s as a JSON string (RFC 8259, section 7); invalid UTF-8 becomes U+FFFD.
func appendString[T string | []byte](b []byte, s T) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < ' ':
			b = append(b, `\u00`...)
			b = append(b, hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, size := utf8.DecodeRuneInString(string(s[i:min(len(s), i+utf8.UTFMax)]))
			b = utf8.AppendRune(b, r)
			i += size
		}
	}
	return append(b, '"')
}
