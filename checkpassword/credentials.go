package checkpassword

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"
)

// maxCredentials bounds name, password and their three NULs, as
// https://cr.yp.to/checkpwd/interface.html does and Dovecot enforces.
const maxCredentials = 512

// MalformedError describes a fault of the bytes on descriptor 3. It never quotes them.
type MalformedError string

func (e MalformedError) Error() string { return "descriptor 3: " + string(e) }

// Credentials is what descriptor 3 carries. Both fields point into one buffer that
// [Credentials.Wipe] clears.
type Credentials struct {
	User   []byte // not empty, valid UTF-8
	Secret []byte // any bytes but NUL; empty in a look-up
	buf    []byte
}

// ReadCredentials reads name, password and timestamp, each ended by NUL, from r, and no further
// than the read that holds the third NUL: sibling processes may keep the writing end open for as
// long as they live. The timestamp is ignored. The error is a [MalformedError], or what r returned.
func ReadCredentials(r io.Reader) (Credentials, error) {
	buf := make([]byte, maxCredentials)
	n := 0
	for bytes.Count(buf[:n], []byte{0}) < 3 {
		if n == len(buf) {
			clear(buf)
			return Credentials{}, MalformedError("name and password are longer than 512 bytes with their three NULs")
		}
		m, err := r.Read(buf[n:])
		n += m
		if m > 0 {
			continue
		}
		if err != nil {
			clear(buf)
			if errors.Is(err, io.EOF) {
				err = MalformedError("ends before the third NUL")
			}
			return Credentials{}, err
		}
	}
	user, rest, _ := bytes.Cut(buf[:n], []byte{0})
	secret, _, _ := bytes.Cut(rest, []byte{0})
	c := Credentials{User: user, Secret: secret, buf: buf}
	if len(user) == 0 || !utf8.Valid(user) {
		c.Wipe()
		return Credentials{}, MalformedError("the name is empty or not UTF-8")
	}
	return c, nil
}

// Wipe clears name and password.
func (c Credentials) Wipe() { clear(c.buf) }
