package saslauth

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
)

// Bounds of what a peer may send. Postfix passes initial responses of up to 16 000 octets on.
const (
	maxLine       = 24 << 10 // octets, without its end
	firstBuffer   = 2 << 10
	maxMechanism  = 20 // RFC 4422, section 3.1
	maxParameters = 64
	maxName       = 512     // octets of a user name
	maxSecret     = 4 << 10 // octets of a password
)

// errMalformed is what lines that break the protocol or its bounds have in common. Its text never
// quotes the line, which may contain a password.
var errMalformed = errors.New("malformed line of the authentication protocol")

var errLong = fmt.Errorf("%w: longer than %d octets", errMalformed, maxLine)

// lineReader reads lines into memory that it wipes, because lines contain passwords.
type lineReader struct {
	src        io.Reader
	buf        []byte
	start, end int // buf[start:end] was read and not yet returned
}

func newLineReader(src io.Reader) *lineReader {
	return &lineReader{src: src, buf: make([]byte, firstBuffer)}
}

// Read returns the next line without its line feed. The line is the caller's until the next Read,
// which wipes it. The error is io.EOF at the end between two lines, io.ErrUnexpectedEOF within one,
// one that wraps [errMalformed], or the source's own.
func (r *lineReader) Read() ([]byte, error) {
	clear(r.buf[:r.start])
	searched := r.start
	for {
		if i := bytes.IndexByte(r.buf[searched:r.end], '\n'); i >= 0 {
			line := r.buf[r.start : searched+i]
			r.start = searched + i + 1
			if len(line) > maxLine {
				return nil, errLong
			}
			return line, nil
		}
		r.makeRoom()
		if r.end > maxLine {
			return nil, errLong
		}
		searched = r.end
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && r.end > 0 {
				return nil, io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// makeRoom moves the begun line to the front of a buffer with room behind it. A buffer that grew
// for one long line shrinks again, since thousands of connections are idle.
func (r *lineReader) makeRoom() {
	n := r.end - r.start
	size := len(r.buf)
	switch {
	case n < firstBuffer:
		size = firstBuffer
	case n == size:
		size *= 2
	}
	to := r.buf
	if size != len(r.buf) {
		to = make([]byte, size)
	}
	copy(to, r.buf[r.start:r.end])
	if size != len(r.buf) {
		r.Wipe()
	} else {
		clear(to[n:])
	}
	r.buf, r.start, r.end = to, 0, n
}

// Wipe clears all that was read.
func (r *lineReader) Wipe() { clear(r.buf) }

// request is one line of a client's.
type request struct {
	verb  string // VERSION, CPID, AUTH, CONT or CANCEL; empty for one to ignore
	id    uint32 // of an exchange, or the CPID
	auth  auth   // of AUTH
	reply []byte // of CONT and AUTH: base64, within the line
}

// auth is the content of an AUTH line.
type auth struct {
	mechanism string
	login     access.Login // all but Account and Secret
	// passed are the parameters as they came, without those that Drawbridge sets itself, each
	// behind a TAB.
	passed   []byte
	initial  []byte // base64, within the line
	hasFirst bool   // whether there is an initial response, which may be empty
}

// parseRequest reads a line. A verb that the protocol does not know yet is ignored, as its
// specification wants.
func parseRequest(line []byte) (request, error) {
	verb, rest, _ := bytes.Cut(line, []byte{'\t'})
	var req request
	switch string(verb) {
	case "VERSION":
		major, _, _ := bytes.Cut(rest, []byte{'\t'})
		if string(major) != "1" {
			return req, fmt.Errorf("%w: VERSION is not 1", errMalformed)
		}
		req.verb = "VERSION"
		return req, nil
	case "CPID", "CANCEL":
		id, ok := parseID(rest)
		if !ok {
			return req, fmt.Errorf("%w: %s without a number", errMalformed, verb)
		}
		req.verb, req.id = string(verb), id
		return req, nil
	case "AUTH", "CONT":
		first, rest, more := bytes.Cut(rest, []byte{'\t'})
		id, ok := parseID(first)
		if !ok || !more {
			return req, fmt.Errorf("%w: %s without a number, or nothing behind it", errMalformed, verb)
		}
		req.verb, req.id = string(verb), id
		var err error
		if req.reply = rest; req.verb == "AUTH" {
			req.auth, err = parseAuth(rest)
			req.reply = req.auth.initial
		}
		if bytes.IndexByte(req.reply, '\t') >= 0 {
			err = fmt.Errorf("%w: something follows a response", errMalformed)
		}
		return req, err
	default:
		return req, nil
	}
}

func parseID(text []byte) (uint32, bool) {
	n, err := strconv.ParseUint(string(text), 10, 32)
	return uint32(n), err == nil
}

// parseAuth reads what follows the number of an AUTH line: a mechanism and parameters. The initial
// response comes last.
func parseAuth(text []byte) (auth, error) {
	name, rest, _ := bytes.Cut(text, []byte{'\t'})
	if len(name) == 0 || len(name) > maxMechanism || bytes.ContainsFunc(name, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_'
	}) {
		return auth{}, fmt.Errorf("%w: AUTH names no mechanism", errMalformed)
	}
	a := auth{mechanism: strings.ToUpper(string(name))}
	a.login.Mechanism = a.mechanism
	var seen []string
	for n := 1; len(rest) > 0; n++ {
		if initial, ok := bytes.CutPrefix(rest, []byte("resp=")); ok {
			a.initial, a.hasFirst = initial, true
			break
		}
		var parameter []byte
		parameter, rest, _ = bytes.Cut(rest, []byte{'\t'})
		key, value, _ := bytes.Cut(parameter, []byte{'='})
		if n > maxParameters {
			return auth{}, fmt.Errorf("%w: more than %d parameters", errMalformed, maxParameters)
		}
		known, ok := a.set(string(key), value)
		switch {
		case !ok:
			return auth{}, fmt.Errorf("%w: parameter %s cannot be read", errMalformed, key)
		case known && slices.Contains(seen, string(key)):
			return auth{}, fmt.Errorf("%w: parameter %s comes twice", errMalformed, key)
		case known:
			seen = append(seen, string(key))
		}
		if string(key) != "session" && string(key) != "no-penalty" {
			a.passed = append(append(a.passed, '\t'), parameter...)
		}
	}
	if a.login.Service == "" {
		return auth{}, fmt.Errorf("%w: AUTH names no service", errMalformed)
	}
	if !a.login.RealIP.IsValid() {
		a.login.RealIP = a.login.IP
	}
	return a, nil
}

// set takes one parameter. Unknown ones are for Dovecot alone.
func (a *auth) set(key string, value []byte) (known, ok bool) {
	l := &a.login
	switch key {
	case "service":
		l.Service = unescape(value)
		return true, l.Service != ""
	case "rip":
		l.IP = ipOf(value)
		return true, true
	case "real_rip":
		l.RealIP = ipOf(value)
		return true, true
	case "lip":
		l.LocalIP = ipOf(value)
		return true, true
	case "lport":
		port, err := strconv.ParseUint(string(value), 10, 16)
		l.LocalPort = uint16(port)
		return true, err == nil
	case "secured": // Postfix sends it with TLS only
		l.TLS = true
		return true, true
	case "valid-client-cert":
		l.ClientCert = "valid"
		return true, true
	case "local_name":
		l.ServerName = unescape(value)
		return true, true
	case "client_id":
		l.ClientID = unescape(value)
		return true, true
	}
	return false, true
}

// ipOf reads an address; the zero Addr for any other text, such as Postfix' "unknown".
func ipOf(value []byte) netip.Addr {
	ip, _ := netip.ParseAddr(string(value))
	return ip.Unmap().WithZone("") // a link-local zone names our interface, not the client
}

// unescape is Dovecot's str_tabunescape. What it leaves of control characters is for the gate to
// refuse or to quote.
func unescape(b []byte) string {
	if bytes.IndexByte(b, 1) < 0 {
		return string(b)
	}
	out := make([]byte, 0, len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != 1 || i+1 == len(b) {
			out = append(out, b[i])
			continue
		}
		i++
		switch b[i] {
		case '0':
			out = append(out, 0)
		case '1':
			out = append(out, 1)
		case 't':
			out = append(out, '\t')
		case 'r':
			out = append(out, '\r')
		case 'n':
			out = append(out, '\n')
		default:
			out = append(out, b[i])
		}
	}
	return string(out)
}

// escape is the inverse of unescape.
var escape = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n").Replace

// errResponse is a client's response that no mechanism could mean. It is a refusal, not a fault of
// the mail server.
var errResponse = errors.New("malformed response")

// decode reads base64 into memory of its own, for the caller to wipe. "=" is an empty response (RFC
// 4954, section 4).
func decode(text []byte) ([]byte, error) {
	if string(text) == "=" {
		return nil, nil
	}
	b := make([]byte, base64.StdEncoding.DecodedLen(len(text)))
	n, err := base64.StdEncoding.Strict().Decode(b, text)
	if err != nil || bytes.ContainsAny(text, "\r\n") { // which Decode skips
		clear(b)
		return nil, errResponse
	}
	return b[:n], nil
}

// plain splits the one response of PLAIN (RFC 4616): three parts, within response.
func plain(response []byte) (authorise, user, secret []byte, err error) {
	parts := bytes.Split(response, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 {
		return nil, nil, nil, errResponse
	}
	for _, name := range parts[:2] {
		if !usableName(name) {
			return nil, nil, nil, errResponse
		}
	}
	if len(parts[2]) > maxSecret {
		return nil, nil, nil, errResponse
	}
	return parts[0], parts[1], parts[2], nil
}

func usableName(name []byte) bool {
	return len(name) <= maxName && !bytes.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// answer is one line of a server's about an exchange.
type answer struct {
	verb      string // OK, CONT or FAIL
	id        uint32
	challenge []byte // of CONT: base64, within the line
	user      string // of OK
	final     string // of OK: base64, the mechanism's last word
	reason    string
	nologin   bool // of OK: the passdb refuses, with a reason
	temporary bool // of FAIL
}

// parseAnswer reads a line of Dovecot's. A verb that is no answer leaves verb empty.
func parseAnswer(line []byte) (answer, error) {
	verb, rest, _ := bytes.Cut(line, []byte{'\t'})
	var a answer
	switch string(verb) {
	case "OK", "CONT", "FAIL":
		a.verb = string(verb)
	default:
		return a, nil
	}
	first, rest, _ := bytes.Cut(rest, []byte{'\t'})
	id, ok := parseID(first)
	if !ok {
		return a, fmt.Errorf("%w: %s without a number", errMalformed, verb)
	}
	a.id = id
	if a.verb == "CONT" {
		a.challenge = rest
		return a, nil
	}
	for parameter := range bytes.SplitSeq(rest, []byte{'\t'}) {
		key, value, _ := bytes.Cut(parameter, []byte{'='})
		switch string(key) {
		case "user":
			a.user = unescape(value)
		case "resp":
			a.final = string(value)
		case "reason":
			a.reason = unescape(value)
		case "nologin":
			a.nologin = true
		case "temp":
			a.temporary = true
		case "code":
			a.temporary = a.temporary || string(value) == "temp_fail"
		}
	}
	return a, nil
}

// mechanism is a line of a server's offer.
type mechanism struct{ name, flags string }

// appendAnswer appends one line about an exchange.
func appendAnswer(dst []byte, verb string, id uint32, parameters ...string) []byte {
	dst = append(dst, verb...)
	dst = strconv.AppendUint(append(dst, '\t'), uint64(id), 10)
	for _, p := range parameters {
		dst = append(append(dst, '\t'), p...)
	}
	return append(dst, '\n')
}

// maxText bounds the text of a refusal, in octets; Postfix cuts its reply at 512.
const maxText = 400

// text makes a reason fit for an SMTP reply and a parameter.
func text(reason string) string {
	b := []byte(reason[:min(len(reason), maxText)])
	for i, c := range b {
		if c < ' ' || c >= 0x7f {
			b[i] = '?'
		}
	}
	return string(b)
}

// appendHello appends a server's greeting.
func appendHello(dst []byte, offer []mechanism, pid, connection int, cookie string) []byte {
	dst = append(dst, "VERSION\t1\t2\n"...)
	for _, m := range offer {
		dst = append(append(dst, "MECH\t"...), m.name...)
		if m.flags != "" {
			dst = append(append(dst, '\t'), m.flags...)
		}
		dst = append(dst, '\n')
	}
	return fmt.Appendf(dst, "SPID\t%d\nCUID\t%d\nCOOKIE\t%s\nDONE\n", pid, connection, cookie)
}

// appendAuth appends the line that asks another server for an exchange.
func appendAuth(dst []byte, id uint32, a *auth) []byte {
	dst = append(dst, "AUTH\t"...)
	dst = strconv.AppendUint(dst, uint64(id), 10)
	dst = append(append(dst, '\t'), a.mechanism...)
	dst = append(dst, a.passed...)
	dst = append(append(dst, "\tsession="...), escape(a.login.Session)...)
	// Dovecot's penalty would delay all clients behind an address; the throttle replaces it.
	dst = append(dst, "\tno-penalty"...)
	if a.hasFirst {
		dst = append(append(dst, "\tresp="...), a.initial...)
	}
	return append(dst, '\n')
}

// parseHello reads a line of a server's greeting, which ends with done.
func parseHello(line []byte) (m mechanism, done bool, err error) {
	verb, rest, _ := bytes.Cut(line, []byte{'\t'})
	switch string(verb) {
	case "VERSION":
		if major, _, _ := bytes.Cut(rest, []byte{'\t'}); string(major) != "1" {
			return m, false, fmt.Errorf("%w: VERSION is not 1", errMalformed)
		}
	case "MECH":
		name, flags, _ := bytes.Cut(rest, []byte{'\t'})
		m = mechanism{string(name), string(flags)}
	case "DONE":
		done = true
	}
	return m, done, nil
}

// encodePlain returns the base64 response of PLAIN, for the caller to wipe.
func encodePlain(authorise, user string, secret []byte) []byte {
	b := make([]byte, 0, len(authorise)+len(user)+len(secret)+2)
	b = append(append(append(append(append(b, authorise...), 0), user...), 0), secret...)
	defer clear(b)
	return base64.StdEncoding.AppendEncode(nil, b)
}
