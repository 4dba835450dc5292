// Package adminclient speaks to Drawbridge's HTTP API.
//
// It implements the transport and knows no resource: addresses, keys, size limits, errors (RFC
// 9457), pages of lists, and progress reports of long requests.
//
//	c, err := adminclient.New(adminclient.Options{API: "unix:/run/drawbridge/api.sock"})
//	a, err := c.Do(ctx, adminclient.Request{Method: http.MethodGet, Path: adminclient.Path("v1", "domains", name)})
//	fmt.Printf("%s %s\n", a.ETag, a.Body)
//
// # Where the daemon is
//
//	unix:/run/drawbridge/api.sock    the socket; root and the daemon's user need no key
//	https://mail.example.org:8480    certificates are verified against the system's (or SSL_CERT_FILE's)
//	http://127.0.0.1:8480            loopback only: keys and passwords would cross the network in clear
//
// # Diagnostics
//
// [*ArgumentError]: the address, the key file or the path is unusable; nothing
// was sent. [*UnreachableError]: no whole answer came; whether a change was made is then unknown,
// unless the connection itself failed. [*Problem]: the daemon refused. Everything else is an answer
// that is not the API's.
//
// Redirects are not followed, proxies are used for https only, and nothing is repeated: a change is
// sent once.
package adminclient

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Defaults and bounds.
const (
	DefaultAPI     = "unix:/run/drawbridge/api.sock"
	DefaultTimeout = 30 * time.Second
	// MaxBody bounds an answer and a request, in bytes.
	MaxBody = 64 << 20

	maxHeader   = 1 << 20 // bytes of an answer's header
	maxUnixPath = 107     // bytes: sun_path less its NUL
)

// Options say which daemon to speak to, and as whom.
type Options struct {
	API     string        // see the package comment; "" means [DefaultAPI]
	KeyFile string        // file with the API key and nothing else, readable by its owner only; "" sends none
	Timeout time.Duration // of one request with its answer, or of each line of it; 0 means [DefaultTimeout]
}

// Client speaks to one daemon. It may be used by several goroutines.
type Client struct {
	api     string // as given, for messages
	base    string // scheme, host and path that every request's path follows
	key     []byte
	timeout time.Duration
	http    http.Client
}

// New prepares a client; it reads the key file and does not connect yet. The error is an
// [*ArgumentError].
func New(o Options) (*Client, error) {
	if o.API == "" {
		o.API = DefaultAPI
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	c := &Client{api: o.API, timeout: o.Timeout}
	transport, base, err := parseAPI(o.API)
	if err != nil {
		return nil, &ArgumentError{fmt.Errorf("API address %q: %w", o.API, err)}
	}
	if o.KeyFile != "" {
		if c.key, err = readKey(o.KeyFile); err != nil {
			return nil, &ArgumentError{fmt.Errorf("key file %s: %w", o.KeyFile, err)}
		}
	}
	c.base = base
	c.http = http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

// Close ends idle connections and wipes the key.
func (c *Client) Close() {
	c.http.CloseIdleConnections()
	clear(c.key)
	c.key = nil
}

// absolute is the path that was probably meant by one that is not.
func absolute(path string) string {
	if strings.Trim(path, "/") == "" {
		return strings.TrimPrefix(DefaultAPI, "unix:")
	}
	full, err := filepath.Abs(path)
	if err != nil {
		return strings.TrimPrefix(DefaultAPI, "unix:")
	}
	return full
}

// parseAPI returns how to reach an API address, and the URL that requests begin with.
func parseAPI(api string) (*http.Transport, string, error) {
	t := &http.Transport{
		MaxResponseHeaderBytes: maxHeader,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		ForceAttemptHTTP2:      true,
	}
	if socket, ok := strings.CutPrefix(api, "unix:"); ok {
		socket = "/" + strings.TrimLeft(socket, "/")
		switch {
		case !strings.HasPrefix(api, "unix:/") || socket == "/":
			return nil, "", fmt.Errorf("the socket's path must be absolute: write unix:%s", absolute(strings.TrimPrefix(api, "unix:")))
		case strings.ContainsAny(socket, "?#"):
			return nil, "", errors.New("a socket path takes no options: leave out the ? and everything after it")
		case len(socket) > maxUnixPath:
			return nil, "", fmt.Errorf("the socket's path is longer than %d bytes, the most that the kernel takes", maxUnixPath)
		}
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
		return t, "http://drawbridge", nil
	}
	u, err := url.Parse(api)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return nil, "", errors.New("write unix:/path, https://host:port or http://127.0.0.1:port")
	case u.User != nil:
		return nil, "", errors.New("it must not contain a name, password or key: give the key by --key-file")
	case u.RawQuery != "" || u.Fragment != "":
		return nil, "", errors.New("leave out the ? or # and everything after it")
	}
	if u.Scheme == "https" {
		t.Proxy = http.ProxyFromEnvironment
	} else {
		if ip, err := netip.ParseAddr(u.Hostname()); u.Hostname() != "localhost" && (err != nil || !ip.Unmap().IsLoopback()) {
			return nil, "", errors.New("http:// would send keys and passwords over the network in clear: use https://, or the unix socket")
		}
		t.DialContext = (&net.Dialer{Control: loopbackOnly}).DialContext
	}
	return t, u.Scheme + "://" + u.Host + strings.TrimRight(u.EscapedPath(), "/"), nil
}

// loopbackOnly accepts "localhost" too, whatever its address.
func loopbackOnly(_, address string, _ syscall.RawConn) error {
	if a, err := netip.ParseAddrPort(address); err != nil || !a.Addr().Unmap().IsLoopback() {
		return fmt.Errorf("%s is not a loopback address: use https://", address)
	}
	return nil
}

// Path joins segments to a request's path, each escaped.
func Path(segments ...string) string {
	var b strings.Builder
	for _, s := range segments {
		b.WriteByte('/')
		b.WriteString(url.PathEscape(s))
	}
	return b.String()
}

// Request is one call of the API.
type Request struct {
	Method string
	Path   string // escaped, as [Path] makes it; no segment empty, "." or ".."
	Query  url.Values
	Header http.Header // such as If-Match; Content-Type if the body is not JSON
	Body   []byte      // empty for none
	Accept string      // what may be answered; "" for JSON, and then nothing else is taken
}

// Answer is a successful response of the daemon.
type Answer struct {
	Status int
	ETag   string // as it came, quotes included; "" when there is none
	Revert string // path of the pending revert that a change has; "" when it has none
	// Sessions counts the open sessions that a change ended, as the header has it; "" for none.
	Sessions string
	Body     []byte // JSON, or what [Request.Accept] takes; empty with status 204
}

// Do sends one request and reads the whole answer. An answer of 2xx is an [*Answer]; the errors are
// those of the package comment.
func (c *Client) Do(ctx context.Context, r Request) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.open(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	return c.whole(&r, resp)
}

// open sends a request. The caller closes the answer's body.
func (c *Client) open(ctx context.Context, r *Request) (*http.Response, error) {
	// A segment that is empty or a dot would name another resource than the caller meant.
	if !strings.HasPrefix(r.Path, "/") || path.Clean(r.Path) != r.Path || strings.ContainsAny(r.Path, "?#") {
		return nil, &ArgumentError{fmt.Errorf("path %q: a name in it is empty, \".\" or \"..\", or it does not begin with /", r.Path)}
	}
	if len(r.Body) > MaxBody {
		return nil, &ArgumentError{fmt.Errorf("body of %d bytes: at most %d", len(r.Body), MaxBody)}
	}
	target := c.base + r.Path
	if len(r.Query) > 0 {
		target += "?" + r.Query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader(r.Body))
	if err != nil {
		return nil, &ArgumentError{fmt.Errorf("%s %s: %w", r.Method, r.Path, err)}
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	req.Header.Set("Accept", cmp.Or(r.Accept, "application/json, application/problem+json"))
	req.Header.Set("User-Agent", "drawbridge")
	if len(r.Body) > 0 && req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.key != nil {
		req.Header.Set("Authorization", "Bearer "+string(c.key))
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.unreachable(r.Method, err)
	}
	return resp, nil
}

// whole reads an answer that is one document.
func (c *Client) whole(r *Request, resp *http.Response) (*Answer, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, MaxBody+1))
	if err != nil {
		return nil, c.unreachable(r.Method, err)
	}
	if len(body) > MaxBody {
		return nil, fmt.Errorf("answer to %s %s is longer than %d MiB: ask for less at a time", r.Method, r.Path, MaxBody>>20)
	}
	if resp.StatusCode/100 != 2 {
		return nil, problem(resp, body)
	}
	if r.Accept == "" && len(body) > 0 && !json.Valid(body) {
		return nil, fmt.Errorf("answer to %s %s is not JSON: is %s Drawbridge's API?", r.Method, r.Path, c.api)
	}
	return &Answer{Status: resp.StatusCode, ETag: resp.Header.Get("ETag"), Revert: resp.Header.Get("Revert"), Sessions: resp.Header.Get("Sessions"), Body: body}, nil
}
