package policyd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"net/netip"
	"strconv"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// Bounds of a request. Postfix sends about 35 attributes in 1 KiB; its own lines end at 2 KiB
// (line_length_limit).
const (
	maxRequest    = 64 << 10 // octets
	maxLine       = 8 << 10  // octets
	maxAttributes = 200
	firstBuffer   = 4 << 10
)

// errMalformed is what requests that break the protocol or its bounds have in common. Its text
// quotes the fault in ASCII.
var errMalformed = errors.New("malformed policy request")

// reader reads requests from anything. It reuses its memory, and the strings of the previous
// request where they recur, as they do from one recipient to the next.
type reader struct {
	src        io.Reader
	buf        []byte
	start, end int // buf[start:end] was read and not yet used
	last       access.Submission
	ip, port   string // the texts of last.IP and last.Port
	mail       mail   // of the last request
}

// mail is the message of a request. Its texts are valid until the next request is read.
type mail struct{ state, recipient, recipients, instance, queueID, size []byte }

// envelope copies the message of the last request to e, and reuses the texts of the message before.
func (r *reader) envelope(e *mailflow.Envelope) {
	m := &r.mail
	e.Login, e.IP, e.Port, e.Sender = r.last.Account, r.last.IP, r.last.Port, r.last.Sender
	e.Size, _ = strconv.ParseInt(string(m.size), 10, 64)
	e.Recipients, _ = strconv.Atoi(string(m.recipients))
	e.Data = false
	reuse(&e.Recipient, m.recipient)
	reuse(&e.Instance, m.instance)
	reuse(&e.QueueID, m.queueID)
}

// newReader returns a reader of src, which needs no buffer of its own.
func newReader(src io.Reader) *reader {
	return &reader{src: src, buf: make([]byte, firstBuffer)}
}

// Read returns the next request. The error is io.EOF at the end between two requests,
// io.ErrUnexpectedEOF within one, one that wraps [errMalformed], or that of the underlying reader;
// after any of them the reader is of no more use.
//
// An address or port that is missing or cannot be read, such as "unknown", is the zero one.
func (r *reader) Read() (access.Submission, error) {
	if err := r.fill(); err != nil {
		return access.Submission{}, err
	}
	if err := r.parse(); err != nil {
		return access.Submission{}, err
	}
	return r.last, nil
}

// fill reads until buf[start:end] holds a whole request, with the empty line that ends it.
func (r *reader) fill() error {
	end := []byte("\n\n")
	// Mostly one whole request has come at once: look there before searching.
	if bytes.HasSuffix(r.buf[r.start:r.end], end) {
		return nil
	}
	searched := r.start
	for {
		if bytes.Contains(r.buf[searched:r.end], end) {
			return nil
		}
		if r.start > 0 {
			r.end = copy(r.buf, r.buf[r.start:r.end])
			r.start = 0
		}
		if r.end == maxRequest {
			return fmt.Errorf("%w: longer than %d octets", errMalformed, maxRequest)
		}
		if r.end == len(r.buf) {
			r.buf = append(r.buf, make([]byte, min(len(r.buf), maxRequest-len(r.buf)))...)
		}
		searched = max(r.end-1, 0) // the first of the two line ends may have come before
		n, err := r.src.Read(r.buf[r.end:])
		r.end += n
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) && r.end > 0 {
				return io.ErrUnexpectedEOF
			}
			return err
		}
		if bytes.HasSuffix(r.buf[:r.end], end) {
			return nil
		}
	}
}

// The attributes that matter, as bits, to notice those given twice.
const (
	seenRequest = 1 << iota
	seenAccount
	seenIP
	seenPort
	seenSender
	seenState
	seenRecipient
	seenRecipients
	seenInstance
	seenQueueID
	seenSize
	seenMethod
)

// parse takes the next request out of the buffer and notes it in last.
func (r *reader) parse() error {
	last := &r.last
	r.mail = mail{}
	last.Passed = false
	seen := 0
	for n := 1; ; n++ {
		line := r.buf[r.start:r.end]
		end := bytes.IndexByte(line, '\n')
		line = line[:end]
		r.start += end + 1
		if end == 0 {
			break
		}
		if n > maxAttributes {
			return fmt.Errorf("%w: more than %d attributes", errMalformed, maxAttributes)
		}
		at := bytes.IndexByte(line, '=') // not bytes.Cut, which takes half as long again
		if at <= 0 {
			return fmt.Errorf("%w: line %d is no name=value: %s", errMalformed, n, excerpt(line))
		}
		name, value := line[:at], line[at+1:]
		bit := 0
		switch string(name) {
		case "request":
			bit = seenRequest
			if string(value) != "smtpd_access_policy" {
				return fmt.Errorf("%w: request is %s, not smtpd_access_policy", errMalformed, excerpt(value))
			}
		case "sasl_username":
			bit = seenAccount
			reuse(&last.Account, value)
		case "sasl_method":
			bit, last.Passed = seenMethod, string(value) == "XCLIENT"
		case "sender":
			bit = seenSender
			reuse(&last.Sender, value)
		case "client_address":
			bit = seenIP
			if reuse(&r.ip, value) {
				last.IP, _ = address.ParseIP(r.ip)
			}
		case "client_port":
			bit = seenPort
			if reuse(&r.port, value) {
				port, err := strconv.ParseUint(r.port, 10, 16)
				if err != nil {
					port = 0
				}
				last.Port = uint16(port)
			}
		case "protocol_state":
			bit, r.mail.state = seenState, value
		case "recipient":
			bit, r.mail.recipient = seenRecipient, value
		case "recipient_count":
			bit, r.mail.recipients = seenRecipients, value
		case "instance":
			bit, r.mail.instance = seenInstance, value
		case "queue_id":
			bit, r.mail.queueID = seenQueueID, value
		case "size":
			bit, r.mail.size = seenSize, value
		}
		if bit == 0 {
			continue // unused attribute: its value may come from the client
		}
		switch {
		case seen&bit != 0:
			return fmt.Errorf("%w: line %d repeats an attribute: %s", errMalformed, n, excerpt(line))
		case bit == seenSender || bit == seenRecipient: // any text: the gate reads it, if anybody authenticated
		case len(line) > maxLine:
			return fmt.Errorf("%w: line %d is longer than %d octets", errMalformed, n, maxLine)
		case indexControl(value) < len(value):
			return fmt.Errorf("%w: line %d has a control character: %s", errMalformed, n, excerpt(line))
		}
		seen |= bit
	}
	if seen&seenRequest == 0 {
		return fmt.Errorf("%w: no request=smtpd_access_policy", errMalformed)
	}
	r.forget(seen)
	return nil
}

// forget clears the attributes that the present request did not name.
func (r *reader) forget(seen int) {
	for _, f := range [...]struct {
		bit  int
		text *string
	}{
		{seenAccount, &r.last.Account},
		{seenIP, &r.ip},
		{seenPort, &r.port},
		{seenSender, &r.last.Sender},
	} {
		if seen&f.bit == 0 {
			*f.text = ""
		}
	}
	if r.ip == "" {
		r.last.IP = netip.Addr{}
	}
	if r.port == "" {
		r.last.Port = 0
	}
}

// reuse sets s to what b says and reports whether that is a change. Comparing costs no memory,
// unlike converting.
func reuse(s *string, b []byte) bool {
	if *s == string(b) {
		return false
	}
	*s = string(b)
	return true
}

// indexControl returns the index of the first control character, or len(b). It looks at eight
// octets at a time because it sees every octet of every request.
func indexControl(b []byte) int {
	const each, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; len(b)-i >= 8; i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		d := x ^ 0x7f*each
		// The lowest bit of found belongs to the first octet below ' ' or equal to 0x7f.
		if found := ((x-' '*each)&^x | (d-each)&^d) & high; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(b) && b[i] >= ' ' && b[i] != 0x7f {
		i++
	}
	return i
}

// excerpt quotes the beginning of a peer's input, for the log.
func excerpt(b []byte) string {
	const enough = 80
	if len(b) > enough {
		return strconv.QuoteToASCII(string(b[:enough])) + "..."
	}
	return strconv.QuoteToASCII(string(b))
}

// maxAction bounds the text of an action, in octets; Postfix would cut the reply that comes of it
// at 512.
const maxAction = 400

// appendAction appends the answer that carries an action. Whatever cannot stand in an SMTP reply
// becomes a question mark, so that no text of a gate can end the line.
func appendAction(dst []byte, action string) []byte {
	dst = append(dst, "action="...)
	for i := range min(len(action), maxAction) {
		c := action[i]
		if c < ' ' || c >= 0x7f {
			c = '?'
		}
		dst = append(dst, c)
	}
	return append(dst, "\n\n"...)
}
