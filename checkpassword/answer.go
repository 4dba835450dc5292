package checkpassword

import (
	"bytes"
	"errors"
	"io"
	"strconv"
)

// maxAnswer bounds an answer's body, and its head too.
const maxAnswer = 64 << 10

// The faults of an answer before its body is looked at.
var (
	errAnswer     = errors.New("the answer is not HTTP")
	errAnswerSize = errors.New("the answer is larger than 64 KiB")
)

// StatusError is an HTTP status other than 200, with the beginning of its body: a problem document
// (RFC 9457), which names the fields that the daemon cannot use and never their values.
type StatusError struct {
	Status  int
	Problem string // at most maxProblem bytes of printable ASCII
}

// maxProblem keeps the line that quotes a problem within what a pipe takes at once.
const maxProblem = 1000

func (e StatusError) Error() string {
	text := "the daemon answered HTTP status " + strconv.Itoa(e.Status)
	if e.Problem != "" {
		text += ": " + e.Problem
	}
	return text
}

// statusError describes a status by its body.
func statusError(status int, body []byte) StatusError {
	body = bytes.TrimSpace(body[:min(len(body), maxProblem)])
	for i, c := range body {
		if c < ' ' || c > '~' {
			body[i] = '?'
		}
	}
	return StatusError{status, string(body)}
}

// ReadAnswer reads one HTTP/1.1 answer (RFC 9112) with its body, by length, in chunks or up to the
// end of r, and nothing after it. A status other than 200 is a [StatusError].
func ReadAnswer(r io.Reader) ([]byte, error) {
	in := reader{r: r}
	line, err := in.line()
	if err != nil {
		return nil, err
	}
	status, err := parseStatus(line)
	if err != nil {
		return nil, err
	}
	body, err := in.body()
	if status != 200 {
		return nil, statusError(status, body) // also of a body that ended early
	}
	return body, err
}

// body reads the head after its first line, and the body.
func (in *reader) body() ([]byte, error) {
	length, chunked := -1, false
	for {
		line, err := in.line()
		if err != nil {
			return nil, err
		}
		if len(line) == 0 {
			break
		}
		name, value, ok := bytes.Cut(line, []byte{':'})
		if !ok {
			return nil, errAnswer
		}
		value = bytes.Trim(value, " \t")
		switch {
		case equalFold(name, "content-length"):
			if length, err = parseLength(value, 10); err != nil {
				return nil, err
			}
		case equalFold(name, "transfer-encoding"):
			if chunked = equalFold(value, "chunked"); !chunked {
				return nil, errAnswer
			}
		}
	}
	switch {
	case chunked && length >= 0:
		return nil, errAnswer
	case chunked:
		return in.chunks()
	case length >= 0:
		return in.bytes(nil, length)
	default:
		return in.rest()
	}
}

func parseStatus(line []byte) (int, error) {
	rest, ok := bytes.CutPrefix(line, []byte("HTTP/1."))
	if !ok || len(rest) < len("1 200") || rest[1] != ' ' {
		return 0, errAnswer
	}
	status, err := strconv.ParseUint(string(rest[2:5]), 10, 16)
	if err != nil || len(rest) > 5 && rest[5] != ' ' {
		return 0, errAnswer
	}
	return int(status), nil
}

// parseLength reads a length of at most maxAnswer.
func parseLength(digits []byte, base int) (int, error) {
	n, err := strconv.ParseUint(string(digits), base, 32)
	switch {
	case errors.Is(err, strconv.ErrRange), err == nil && n > maxAnswer:
		return 0, errAnswerSize
	case err != nil:
		return 0, errAnswer
	}
	return int(n), nil
}

// equalFold compares with a lower-case word, ignoring the case of ASCII letters.
func equalFold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != word[i] {
			return false
		}
	}
	return true
}

// A reader buffers r and counts the bytes read from it.
type reader struct {
	r     io.Reader
	buf   [4096]byte
	have  []byte // unread part of buf
	total int
}

// fill waits for more when nothing is left. At the end it returns io.ErrUnexpectedEOF.
func (in *reader) fill() error {
	for len(in.have) == 0 {
		if in.total > 2*maxAnswer { // a head and a body
			return errAnswerSize
		}
		n, err := in.r.Read(in.buf[:])
		in.have = in.buf[:n]
		in.total += n
		if n == 0 && errors.Is(err, io.EOF) {
			return io.ErrUnexpectedEOF
		}
		if n == 0 && err != nil {
			return err
		}
	}
	return nil
}

// line reads a line of at most 4096 bytes without its CR LF.
func (in *reader) line() ([]byte, error) {
	var line []byte
	for {
		if err := in.fill(); err != nil {
			return nil, err
		}
		part, rest, ended := bytes.Cut(in.have, []byte{'\n'})
		line = append(line, part...)
		in.have = rest
		switch {
		case len(line) > len(in.buf):
			return nil, errAnswer
		case ended:
			return bytes.TrimSuffix(line, []byte{'\r'}), nil
		}
	}
}

// bytes appends the next n bytes to body.
func (in *reader) bytes(body []byte, n int) ([]byte, error) {
	for n > 0 {
		if err := in.fill(); err != nil {
			return nil, err
		}
		m := min(n, len(in.have))
		body = append(body, in.have[:m]...)
		in.have = in.have[m:]
		n -= m
	}
	return body, nil
}

// chunks reads a chunked body up to its last chunk; trailers are left unread.
func (in *reader) chunks() ([]byte, error) {
	var body []byte
	for {
		line, err := in.line()
		if err != nil {
			return nil, err
		}
		size, _, _ := bytes.Cut(line, []byte{';'})
		n, err := parseLength(bytes.TrimRight(size, " \t"), 16)
		if err != nil {
			return nil, err
		}
		if n == 0 {
			return body, nil
		}
		if len(body)+n > maxAnswer {
			return nil, errAnswerSize
		}
		if body, err = in.bytes(body, n); err != nil {
			return nil, err
		}
		if line, err = in.line(); err != nil || len(line) != 0 {
			return nil, errors.Join(errAnswer, err)
		}
	}
}

// rest reads to the end.
func (in *reader) rest() ([]byte, error) {
	var body []byte
	for {
		err := in.fill()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return body, nil
		}
		if err != nil {
			return nil, err
		}
		if body = append(body, in.have...); len(body) > maxAnswer {
			return nil, errAnswerSize
		}
		in.have = nil
	}
}
