package adminclient

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"net/url"
	"syscall"

	"github.com/drawbridge/drawbridge/internal/api"
)

// ArgumentError is a fault in the caller's arguments. No request was sent.
type ArgumentError struct{ Err error }

func (e *ArgumentError) Error() string { return e.Err.Error() }
func (e *ArgumentError) Unwrap() error { return e.Err }

// UnreachableError is a daemon that gave no whole answer.
type UnreachableError struct {
	API  string
	Hint string // what to do; never empty
	Err  error
}

func (e *UnreachableError) Error() string {
	return fmt.Sprintf("no answer from %s: %v: %s", e.API, e.Err, e.Hint)
}
func (e *UnreachableError) Unwrap() error { return e.Err }

func (c *Client) unreachable(method string, err error) error {
	if wrapped := new(url.Error); errors.As(err, &wrapped) {
		err = wrapped.Err // its text repeats the URL with its query
	}
	u := &UnreachableError{API: c.api, Err: err}
	dial := new(net.OpError)
	if errors.As(err, &dial) && dial.Op == "dial" {
		u.Err = dial.Err // its text repeats the address
	}
	var certificate *tls.CertificateVerificationError
	switch {
	case errors.As(err, &certificate):
		u.Hint = "the certificate is not one that this machine trusts; SSL_CERT_FILE names the authority's"
		if wrong := new(x509.HostnameError); errors.As(err, wrong) {
			u.Hint = "the certificate is for another name: use that one"
		}
	case errors.Is(err, syscall.EACCES):
		u.Hint = "run it as root or as the daemon's user, or give --api http://127.0.0.1:8480 and --key-file"
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		u.Hint = "is drawbridged running, and is this one of its [api] listen addresses?"
	case errors.As(err, &dial) && dial.Op == "dial":
		u.Hint = "is the address right, and open in the firewall?"
	case method == http.MethodGet || method == http.MethodHead:
		u.Hint = "try again; --timeout waits longer"
	default:
		u.Hint = "whether the change was made is unknown: check before you repeat it"
	}
	if errors.Is(err, context.DeadlineExceeded) {
		u.Err = fmt.Errorf("nothing within %v", c.timeout)
	}
	return u
}

// Problem is a problem document that the API answered (RFC 9457). Its code is "" if the answer did
// not come from the API.
type Problem struct {
	api.Problem

	RetryAfter string `json:"-"` // the header: seconds, or a date; "" if there was none
	Body       []byte `json:"-"` // the body as received; with a code it is the problem document
}

// problem reads a refusal. For other documents, such as a proxy's page, it reports the status
// alone.
func problem(resp *http.Response, body []byte) error {
	p := &Problem{}
	kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || kind != "application/problem+json" || json.Unmarshal(body, p) != nil {
		*p = Problem{Problem: api.Problem{Detail: "the answer is not the API's own: is this address Drawbridge's?"}}
		if resp.StatusCode/100 == 3 {
			p.Detail = "the answer redirects elsewhere, which is not followed: give the API's own address"
		}
	}
	p.Status, p.Body = resp.StatusCode, body
	if p.Title == "" {
		p.Title = resp.Status
	}
	p.RetryAfter = resp.Header.Get("Retry-After")
	return p
}
