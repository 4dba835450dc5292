// Package approval is the page on which an approver decides about a held message: the address in
// the request that they receive by mail.
//
//	GET  /decide/TOKEN    the page: sender, recipients, subject, and two buttons
//	POST /decide/TOKEN    decision=approve, or decision=reject&text=...
//
// The token names message and approver, ends with the message's expiry, and is signed: who has it
// may decide in the approver's name, once. GET never decides, because programs that scan mail open
// the addresses in it. The page needs no key, sets no cookie, loads nothing, and cannot be framed.
//
// # Diagnostics
//
// A token that is forged, damaged or expired is answered 404 with a page that says so, as is a
// message that is not there any more. A second decision is answered 409.
package approval

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"
)

// Path is where the page is, below the address of the site.
const Path = "/decide/"

// Links signs and verifies the addresses of pages.
type Links struct {
	URL string // of the site, without a slash at the end; "" for no links
	Key []byte // secret
}

// Link returns the address of the page on which an approver decides; "" for no links.
func (l *Links) Link(domain, id, approver string, expires time.Time) string {
	if l.URL == "" {
		return ""
	}
	text := strings.Join([]string{domain, id, approver, strconv.FormatInt(expires.Unix(), 10)}, "\n")
	return l.URL + Path + base64.RawURLEncoding.EncodeToString(append(l.sum(text), text...))
}

func (l *Links) sum(text string) []byte {
	mac := hmac.New(sha256.New, l.Key)
	mac.Write([]byte(text))
	return mac.Sum(nil)
}

// claim is what a token says.
type claim struct{ domain, id, approver string }

var errToken = errors.New("the address is not complete, or it has expired")

// verify reads a token.
func (l *Links) verify(token string, now time.Time) (claim, error) {
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil || len(b) <= sha256.Size {
		return claim{}, errToken
	}
	text := string(b[sha256.Size:])
	if !hmac.Equal(b[:sha256.Size], l.sum(text)) {
		return claim{}, errToken
	}
	fields := strings.Split(text, "\n")
	if len(fields) != 4 {
		return claim{}, errToken
	}
	expires, err := strconv.ParseInt(fields[3], 10, 64)
	if err != nil || now.Unix() >= expires {
		return claim{}, errToken
	}
	return claim{fields[0], fields[1], fields[2]}, nil
}
