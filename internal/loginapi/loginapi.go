// Package loginapi answers questions about logins over HTTP, from drawbridge-checkpassword, the Lua
// passdb, a webmail, and Dovecot's auth-policy client.
//
//	POST /v1/login
//	{"account":"ann@example.org","secret":"…","service":"imap","ip":"203.0.113.9"}
//
//	200 {"outcome":"deny","reason":"policy","message":"", …}
//
//	POST /v1/dovecot/policy?command=report
//	{"login":"ann@example.org","remote":"203.0.113.9","protocol":"imap",
//	 "session_id":"…","success":true,"policy_reject":false}
//
//	200 {"status":0,"msg":""}
//
// Diagnostics: every outcome of a login is HTTP 200. 400 is a body that is not JSON, 413 one over
// 64 KiB, 415 another content type, 422 fields that cannot be used, all of them at once. A caller
// that gets none of these must admit nobody.
//
//	POST /v1/dovecot/policy?command=allow
//	{"login":"ann@example.org","orig_user":"a.nn@example.org","remote":"203.0.113.9", …}
//
//	200 {"status":-1,"msg":"This account is suspended."}
//
// A check (command=allow) never admits: status -1 refuses a login, and its text reaches IMAP, POP3,
// ManageSieve and SMTP clients; 0 leaves the decision to the passdbs. What it evaluates depends on
// two literals among Dovecot's request attributes:
//
//	judged=yes    Drawbridge's passdb judged the typed name (orig_user). Only the name that the site's
//	              own passdb has given the login (user=) is evaluated, if that is another account.
//	verified=yes  There is no passdb of Drawbridge, and Dovecot asks after authentication only: all
//	              rules that need no secret are evaluated, and a refusal has its text.
//	neither       The same, but the password may be wrong: only the site's webmail gets the text.
//
// Without judged=yes the report (command=report) is what makes the login's record.
//
//	POST /v1/dovecot/verified
//	{"account":"ann@example.org","typed":"a.nn@example.org","service":"imap", …}
//
// asks what a check with judged=yes asks, for Drawbridge's second passdb, which can pass on a
// temporary failure. The answer is a decision that never admits: deny, tempfail, or next.
package loginapi

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// Gate decides logins and learns how others ended.
type Gate interface {
	Login(ctx context.Context, l *access.Login) access.Decision
	Report(e *access.Ending)
	// Recheck evaluates the rules for the name that Dovecot has given a login; typed is the name
	// that the client sent.
	Recheck(l *access.Login, typed string) access.Decision
	// Check evaluates the rules that need no secret for a login that no passdb of Drawbridge
	// judges; verified means that its password was right.
	Check(l *access.Login, typed string, verified bool) access.Decision
}

// maxBody bounds a request in bytes.
const maxBody = 64 << 10

// Request is a login as it is written in JSON. Addresses are text; Protocol may be left out when
// Service is one that Drawbridge knows.
type Request struct {
	Account    string `json:"account"`
	Secret     string `json:"secret"`
	SecretB64  string `json:"secret_b64"` // instead of Secret, when it is not UTF-8
	OTP        string `json:"otp"`        // a second factor
	Service    string `json:"service"`
	Protocol   string `json:"protocol"`
	IP         string `json:"ip"`
	RealIP     string `json:"real_ip"`
	LocalIP    string `json:"local_ip"`
	LocalPort  uint16 `json:"local_port" minimum:"0" maximum:"65535"`
	ServerName string `json:"server_name"`
	TLS        bool   `json:"tls"`
	ClientCert string `json:"client_cert"`
	Mechanism  string `json:"mechanism"`
	Session    string `json:"session"`
	MasterUser string `json:"master_user"`
	Lookup     string `json:"lookup"` // none, credentials, user; empty means none
	ClientID   string `json:"client_id"`
	Time       string `json:"time"` // ignored: a login happens now
}

// verifiedRequest is a login whose password the site's own passdb has verified.
type verifiedRequest struct {
	Request
	Typed string `json:"typed"` // the name as the client sent it; Account is the passdb's
}

// Login returns the login that a request describes, and adds what is wrong with it to f.
func (r *Request) Login(f *api.Faults) *access.Login {
	ip := func(field, text string) netip.Addr {
		if text == "" {
			return netip.Addr{}
		}
		a, err := netip.ParseAddr(text)
		if err != nil {
			f.Add(api.At("", field), "invalid_network", "not an IP address: write one like 203.0.113.7 or 2001:db8::7")
			return netip.Addr{}
		}
		return a.Unmap().WithZone("") // a link-local zone names our interface, not the client
	}
	l := &access.Login{
		Account: r.Account, Service: r.Service,
		IP: ip("ip", r.IP), RealIP: ip("real_ip", r.RealIP), LocalIP: ip("local_ip", r.LocalIP),
		LocalPort: r.LocalPort, ServerName: r.ServerName, TLS: r.TLS, ClientCert: r.ClientCert,
		Mechanism: r.Mechanism, Session: r.Session, MasterUser: r.MasterUser, ClientID: r.ClientID, OTP: r.OTP,
	}
	if r.RealIP == "" {
		l.RealIP = l.IP
	}
	if r.Protocol != "" {
		if l.Protocol = access.ParseProtocol(r.Protocol); l.Protocol == 0 {
			f.Add("/protocol", "not_in_list", "not a protocol: use imap, pop3, smtp, sieve or web")
		}
		if l.Service == "" {
			l.Service = r.Protocol
		}
	}
	switch r.Lookup {
	case "", "none":
	case "credentials":
		l.Lookup = access.LookupCredentials
	case "user":
		l.Lookup = access.LookupUser
	default:
		f.Add("/lookup", "not_in_list", "not a kind of look-up: use none, credentials or user")
	}
	if r.Protocol == "" && r.Service == "" {
		f.Add("/protocol", "required", "needed: use imap, pop3, smtp, sieve or web, or name the service")
	}
	if r.Account == "" {
		f.Add("/account", "required", "needed: write local@domain")
	}
	l.Secret = []byte(r.Secret)
	if r.SecretB64 != "" {
		b, err := base64.StdEncoding.DecodeString(r.SecretB64)
		switch {
		case r.Secret != "":
			f.Add("/secret_b64", "conflict", "give secret or secret_b64, not both")
		case err != nil:
			f.Add("/secret_b64", "invalid", "not standard base64")
		}
		l.Secret = b
	}
	return l
}

// Login handles POST /v1/login.
func Login(g Gate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r, f, err := decode[Request](w, req)
		if err != nil {
			refuse(w, err)
			return
		}
		l := r.Login(f)
		if err := f.Err(); err != nil {
			refuse(w, err)
			return
		}
		d := g.Login(req.Context(), l)
		clear(l.Secret)
		answer(w, &d)
	})
}

// DovecotVerified handles POST /v1/dovecot/verified.
func DovecotVerified(g Gate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r, f, err := decode[verifiedRequest](w, req)
		if err != nil {
			refuse(w, err)
			return
		}
		l := r.Login(f)
		if r.Typed == "" {
			f.Add("/typed", "required", "needed: write the name that the client sent")
		}
		if err := f.Err(); err != nil {
			refuse(w, err)
			return
		}
		l.Reported = true
		d := g.Recheck(l, r.Typed)
		answer(w, &d)
	})
}

// policyRequest is what Dovecot sends; further attributes are ignored.
type policyRequest struct {
	Login      string `json:"login"`     // as the passdbs rewrote it
	Typed      string `json:"orig_user"` // as the client sent it; of a master login, the master
	Remote     string `json:"remote"`
	RealRemote string `json:"real_remote"`
	Protocol   string `json:"protocol"`
	LocalIP    string `json:"local_ip"`
	LocalPort  string `json:"local_port"`
	ServerName string `json:"server_name"`
	ClientCert string `json:"client_cert"`
	TLS        bool   `json:"tls"` // Dovecot adds it by itself
	Session    string `json:"session_id"`
	MasterUser string `json:"master_user"`
	Mechanism  string `json:"mechanism"`
	ClientID   string `json:"device_id"`
	Success    *bool  `json:"success"` // of a report
	Rejected   bool   `json:"policy_reject"`

	// Literals of Drawbridge's snippets, "yes" or absent.
	Judged   string `json:"judged"`   // Drawbridge's passdb judged the typed name
	Verified string `json:"verified"` // Dovecot asks after authentication only
}

// typed returns the name as the client sent it, if that is known.
func (r *policyRequest) typed() string {
	if r.MasterUser != "" || r.Typed == "" {
		return r.Login
	}
	return r.Typed
}

// login returns the login as Dovecot describes it.
func (r *policyRequest) login() *access.Login {
	port, _ := strconv.ParseUint(r.LocalPort, 10, 16) // 0 for a login from Postfix
	return &access.Login{
		Account: r.Login, Service: r.Protocol, IP: policyIP(r.Remote), RealIP: policyIP(cmp.Or(r.RealRemote, r.Remote)),
		LocalIP: policyIP(r.LocalIP), LocalPort: uint16(port), ServerName: r.ServerName, ClientCert: r.ClientCert, TLS: r.TLS,
		Mechanism: r.Mechanism, Session: r.Session, MasterUser: r.MasterUser, ClientID: r.ClientID,
	}
}

// textUnavailable is the text while the rules are not available: the protocol has no temporary
// failure.
const textUnavailable = "Access rules cannot be read at the moment, please try again later."

// DovecotPolicy handles POST /v1/dovecot/policy, Dovecot's auth-policy protocol.
func DovecotPolicy(g Gate) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := read(w, req)
		if err != nil {
			refuse(w, err)
			return
		}
		var r policyRequest
		command := req.URL.Query().Get("command")
		if err := json.Unmarshal(body, &r); err != nil || command == "report" && r.Success == nil {
			refuse(w, api.Malformed("the body is not a JSON object with Dovecot's attributes"))
			return
		}
		var verdict struct {
			Status int    `json:"status"`
			Msg    string `json:"msg"`
		}
		judged := r.Judged == "yes"
		switch command {
		case "report":
			e := &access.Ending{
				Account: r.typed(), IP: policyIP(r.Remote), Service: r.Protocol, Session: r.Session,
				Success: *r.Success, Rejected: r.Rejected,
			}
			if !judged {
				e.Unjudged = r.login()
			}
			g.Report(e)
		case "allow":
			var d access.Decision
			if judged {
				d = g.Recheck(r.login(), r.typed())
			} else {
				d = g.Check(r.login(), r.typed(), r.Verified == "yes")
			}
			switch d.Outcome {
			case access.Next, access.Allow:
			case access.Deny:
				verdict.Status, verdict.Msg = -1, d.Message
			case access.TempFail:
				verdict.Status, verdict.Msg = -1, textUnavailable
			default: // the zero outcome is not an answer
				verdict.Status = -1
			}
		}
		answer(w, verdict)
	})
}

// policyIP reads an address; the zero Addr for none.
func policyIP(text string) netip.Addr {
	ip, _ := netip.ParseAddr(text)
	return ip.Unmap().WithZone("")
}

// Handler is what a login listener serves: the three above and /livez. With a key, requests other
// than /livez must bear it.
func Handler(g Gate, authorised func(bearer string) bool) http.Handler {
	mux := http.NewServeMux()
	guard := func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			bearer, ok := strings.CutPrefix(req.Header.Get("Authorization"), "Bearer ")
			if authorised != nil && (!ok || !authorised(bearer)) {
				refuse(w, api.Refuse(http.StatusUnauthorized, "unauthorized",
					"send Authorization: Bearer with the content of the file that login.key_file names"))
				return
			}
			h.ServeHTTP(w, req)
		})
	}
	mux.Handle("POST /v1/login", guard(Login(g)))
	mux.Handle("POST /v1/dovecot/policy", guard(DovecotPolicy(g)))
	mux.Handle("POST /v1/dovecot/verified", guard(DovecotVerified(g)))
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, map[string]string{"status": "ok"})
	})
	return mux
}

// decode reads one JSON object without unknown fields, and returns it with the faults of its fields.
// Logins are read by the standard decoder, which takes a third of the time and forgives text that is
// not UTF-8, such as a client's name for itself; what it refuses is read again to list all faults.
func decode[T any](w http.ResponseWriter, req *http.Request) (*T, *api.Faults, error) {
	if t, _, err := mime.ParseMediaType(req.Header.Get("Content-Type")); err != nil || t != "application/json" {
		return nil, nil, api.Refuse(http.StatusUnsupportedMediaType, "unsupported_media_type", "send Content-Type: application/json")
	}
	body, err := read(w, req)
	defer clear(body)
	if err != nil {
		return nil, nil, err
	}
	r, f := new(T), new(api.Faults)
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(r); err == nil {
		if _, err := dec.Token(); err == io.EOF {
			return r, f, nil
		}
	}
	n, err := rest.Parse(body)
	if err != nil {
		return nil, nil, err
	}
	schemas := rest.NewSchemas()
	schemas.Add(reflect.TypeFor[T]())
	r = rest.Decode[T](schemas, n, f)
	switch err := f.Err(); {
	case err == nil: // the two must not disagree about a login
		return nil, nil, api.Malformed("the body is not one JSON object")
	case n.Kind != rest.Object:
		return nil, nil, err
	}
	return r, f, nil
}

// read returns a body of at most maxBody bytes, or a problem.
func read(w http.ResponseWriter, req *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, req.Body, maxBody))
	var long *http.MaxBytesError
	switch {
	case errors.As(err, &long):
		return body, api.Refuse(http.StatusRequestEntityTooLarge, "too_large", "the body is longer than 64 KiB")
	case err != nil:
		return body, api.Malformed("the body ended early")
	}
	return body, nil
}

// refuse answers with a problem.
func refuse(w http.ResponseWriter, err error) {
	p := api.Internal()
	errors.As(err, &p)
	rest.WriteProblem(w, p)
}

func answer(w http.ResponseWriter, v any) {
	body, err := json.Marshal(v)
	if err != nil { // our own types: cannot happen, and must not admit anybody
		http.Error(w, fmt.Sprint(err), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(body) // the caller is gone: nobody is admitted
}
