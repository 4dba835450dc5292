package milter

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	gomilter "github.com/emersion/go-milter"
)

const (
	// maxPacket bounds the command and data of a packet, in octets. Postfix's largest are header
	// fields (header_size_limit, 100 KiB) and body chunks (64 KiB).
	maxPacket = 1 << 20
	// maxHeader bounds the header fields of a message that go-milter gets, in octets: it collects
	// them. Mostly these are few, see declined.
	maxHeader = 16 << 20
	// keptPacket is the largest buffer that a connection keeps for the next packet.
	keptPacket = 64 << 10
	// idleTimeout has to outlast a slow client's message, during which Postfix says nothing. It is
	// libmilter's.
	idleTimeout = 7210 * time.Second
	// greetTimeout bounds the wait for the offer and for the packet after it. Postfix sends both at
	// once, so a peer that stays silent would only take up one of the listener's connections.
	greetTimeout = 5 * time.Second
	// packetTimeout bounds the wait for the rest of a packet, and for its answer to be taken.
	packetTimeout = 100 * time.Second
)

// errMalformed is what packets that break the protocol or its bounds have in common.
var errMalformed = errors.New("malformed milter packet")

// conn stands between Postfix and go-milter, which trusts what it reads, reads twice a packet and
// writes each of its own. It hands on whole packets that are in bounds and well-formed, leaves out
// header fields that no rule uses, and writes all answers at once before it waits for more.
type conn struct {
	net.Conn
	in       *bufio.Reader
	buf      []byte                 // the present packet, with its length
	rest     []byte                 // what of it go-milter has yet to read
	out      []byte                 // answers not yet written
	declined func(name []byte) bool // header fields that go-milter shall not see
	header   int                    // octets of header fields handed on for this message
	params   []string               // of the last MAIL or RCPT, which go-milter drops
	greeted  bool                   // a packet came after the offer
	stopping atomic.Bool

	once   sync.Once
	closed chan struct{}
	cause  error // why it ended, if not as connections end; read after closed
}

func newConn(nc net.Conn) *conn {
	return &conn{Conn: nc, in: bufio.NewReaderSize(nc, 8<<10), closed: make(chan struct{})}
}

// Read hands on the next octets. Its only error is io.EOF, about which go-milter does not write to
// a log of its own.
func (c *conn) Read(b []byte) (int, error) {
	for len(c.rest) == 0 {
		patience := idleTimeout
		if !c.greeted {
			patience = greetTimeout
		}
		if err := c.next(patience); err != nil {
			c.fail(err)
			return 0, io.EOF
		}
		c.greeted = true
		if wanted, err := c.wanted(); err != nil {
			c.fail(err)
			return 0, io.EOF
		} else if wanted {
			c.rest = c.buf
		}
	}
	n := copy(b, c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

// Write keeps answers until the next packet is needed.
func (c *conn) Write(b []byte) (int, error) {
	c.out = append(c.out, b...)
	return len(b), nil
}

// addRecipient requests one more recipient of the message, with parameters of RCPT: go-milter sends
// none (SMFIR_ADDRCPT_PAR).
func (c *conn) addRecipient(recipient string, params []string) {
	data := "2<" + recipient + ">\x00"
	if len(params) > 0 {
		data += strings.Join(params, " ") + "\x00"
	}
	c.out = append(binary.BigEndian.AppendUint32(c.out, uint32(len(data))), data...) //nolint:gosec // in bounds: it came in a packet
}

// Close is called by go-milter when the session ends.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { close(c.closed) })
	return err
}

// fail notes why the connection ends, unless that is how connections end.
func (c *conn) fail(err error) {
	if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
		c.cause = err
	}
}

// finishReading ends the wait for the next packet; packets read before are still answered.
func (c *conn) finishReading() {
	c.stopping.Store(true)
	_ = c.SetReadDeadline(time.Now())
}

// await sets the deadline for reading.
func (c *conn) await(d time.Duration) {
	_ = c.SetReadDeadline(time.Now().Add(d))
	if c.stopping.Load() { // finishReading came between
		_ = c.SetReadDeadline(time.Now())
	}
}

// negotiation returns the data of the first packet, which must be the MTA's offer, and leaves it to
// be read.
func (c *conn) negotiation() ([]byte, error) {
	if err := c.next(greetTimeout); err != nil {
		return nil, err
	}
	if code := c.buf[4]; code != byte(gomilter.CodeOptNeg) {
		return nil, fmt.Errorf("%w: the first is %s, not an offer of options", errMalformed, strconv.QuoteRuneToASCII(rune(code)))
	}
	c.rest = c.buf
	return c.buf[5:], nil
}

// next writes pending answers, and reads into buf a packet that begins within patience.
func (c *conn) next(patience time.Duration) error {
	if err := c.flush(); err != nil {
		return err
	}
	if c.in.Buffered() < 4 {
		c.await(patience)
	}
	head, err := c.in.Peek(4)
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	length := binary.BigEndian.Uint32(head)
	if length == 0 || length > maxPacket {
		return fmt.Errorf("%w: %d octets, not 1 to %d", errMalformed, length, maxPacket)
	}
	n := 4 + int(length)
	if cap(c.buf) < n || cap(c.buf) > keptPacket {
		c.buf = make([]byte, max(n, 1<<10))
	}
	c.buf = c.buf[:n]
	if c.in.Buffered() < n {
		c.await(packetTimeout)
	}
	if _, err := io.ReadFull(c.in, c.buf); err != nil {
		if errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		return err
	}
	return check(gomilter.Code(c.buf[4]), c.buf[5:])
}

func (c *conn) flush() error {
	if len(c.out) == 0 {
		return nil
	}
	_ = c.SetWriteDeadline(time.Now().Add(packetTimeout))
	_, err := c.Conn.Write(c.out)
	c.out = c.out[:0]
	return err
}

// wanted reports whether go-milter shall see the packet in buf.
func (c *conn) wanted() (bool, error) {
	data := c.buf[5:]
	switch c.buf[4] {
	case byte(gomilter.CodeMail), byte(gomilter.CodeAbort):
		c.header = 0
		c.params = params(data)
	case byte(gomilter.CodeRcpt):
		c.params = params(data)
	case byte(gomilter.CodeHeader):
		if name, _, _ := bytes.Cut(data, []byte{0}); c.declined(name) {
			return false, nil
		}
		if c.header += len(data); c.header > maxHeader {
			return false, fmt.Errorf("%w: header of more than %d octets", errMalformed, maxHeader)
		}
	}
	return true, nil
}

// params returns the parameters of MAIL or RCPT, which follow the address, each ending in NUL.
func params(data []byte) (list []string) {
	_, rest, _ := bytes.Cut(data, []byte{0})
	for len(rest) > 0 {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte{0})
		list = append(list, string(p))
	}
	return list
}

// check holds a packet against its form, where go-milter would misread it: it passes over header
// fields with a NUL inside, for one.
func check(code gomilter.Code, data []byte) error {
	ok := true
	switch code {
	case gomilter.CodeOptNeg:
		ok = len(data) >= 12 // version, actions, protocol
	case gomilter.CodeMacro:
		ok = len(data) == 1 || len(data) > 1 && data[len(data)-1] == 0
	case gomilter.CodeConn:
		_, data, ok = bytes.Cut(data, []byte{0})
		ok = ok && checkPeer(data)
	case gomilter.CodeHelo, gomilter.CodeMail, gomilter.CodeRcpt:
		ok = len(data) > 1 && data[len(data)-1] == 0
	case gomilter.CodeHeader:
		ok = len(data) > 2 && data[0] != 0 && data[len(data)-1] == 0 && bytes.Count(data, []byte{0}) == 2
	case gomilter.CodeBody, gomilter.CodeEOB, gomilter.CodeEOH, gomilter.CodeAbort, gomilter.CodeData, gomilter.CodeQuit:
	case gomilter.CodeQuitNewConn: // not in the version that go-milter speaks
		ok = false
	default:
		ok = false
	}
	if !ok {
		return fmt.Errorf("%w: command %s with %d octets", errMalformed, strconv.QuoteRuneToASCII(rune(code)), len(data))
	}
	return nil
}

// checkPeer looks at the part of a connect packet behind the host name: the family, and for those
// that have one a port and an address.
func checkPeer(data []byte) bool {
	if len(data) == 0 {
		return false
	}
	switch gomilter.ProtoFamily(data[0]) {
	case gomilter.FamilyUnknown:
		return true
	case gomilter.FamilyUnix:
		return data[len(data)-1] == 0
	case gomilter.FamilyInet, gomilter.FamilyInet6:
		return len(data) >= 4 && data[len(data)-1] == 0
	default:
		return false
	}
}
