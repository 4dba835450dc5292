package loginapi

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
)

// gate answers every login with one decision, and notes what it was asked.
type gate struct {
	answer  access.Decision
	logins  []access.Login
	reports []access.Ending
	checks  []access.Login
	typed   []string
}

func (g *gate) Login(_ context.Context, l *access.Login) access.Decision {
	kept := *l
	kept.Secret = bytes.Clone(l.Secret)
	g.logins = append(g.logins, kept)
	return g.answer
}

func (g *gate) Recheck(l *access.Login, typed string) access.Decision {
	g.checks, g.typed = append(g.checks, *l), append(g.typed, typed)
	return g.answer
}

func (g *gate) Check(l *access.Login, typed string, verified bool) access.Decision {
	g.checks, g.typed = append(g.checks, *l), append(g.typed, fmt.Sprintf("check %s %t", typed, verified))
	return g.answer
}

func (g *gate) Report(e *access.Ending) { g.reports = append(g.reports, *e) }

// post sends a body as JSON and returns the status and the decoded answer.
func post(t *testing.T, h http.Handler, path, body string) (status int, answer map[string]any) {
	t.Helper()
	req := httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w.Code, decoded(t, w)
}

func decoded(t *testing.T, w *httptest.ResponseRecorder) (answer map[string]any) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%d with a body that is no JSON object: %s", w.Code, w.Body)
	}
	want := "application/json"
	if w.Code >= 400 {
		want = "application/problem+json"
		if answer["code"] == "" || answer["status"] != float64(w.Code) || answer["title"] == "" {
			t.Fatalf("a problem that says nothing: %s", w.Body)
		}
	}
	if got := w.Header().Get("Content-Type"); got != want {
		t.Errorf("%d with Content-Type %q, want %q", w.Code, got, want)
	}
	if got := w.Header().Get("Cache-Control"); got != "no-store" {
		t.Errorf("Cache-Control %q", got)
	}
	return answer
}

func ip(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func TestLogin(t *testing.T) {
	tests := map[string]struct {
		body string
		want access.Login
	}{
		"all fields": {
			`{"account":"ann@example.org","secret":"s","service":"imap","protocol":"imap","ip":"203.0.113.9","real_ip":"192.0.2.1",
			  "local_ip":"198.51.100.1","local_port":993,"server_name":"mail.example.org","tls":true,"client_cert":"ab:cd","mechanism":"PLAIN",
			  "session":"x1","master_user":"admin","lookup":"none","client_id":"\"name\" \"Thunderbird\"","time":"2026-11-22T08:00:00Z"}`,
			access.Login{
				Account: "ann@example.org", Secret: []byte("s"), Service: "imap", Protocol: access.IMAP, IP: ip("203.0.113.9"), RealIP: ip("192.0.2.1"),
				LocalIP: ip("198.51.100.1"), LocalPort: 993, ServerName: "mail.example.org", TLS: true, ClientCert: "ab:cd", Mechanism: "PLAIN",
				Session: "x1", MasterUser: "admin", ClientID: `"name" "Thunderbird"`,
			},
		},
		"the TCP peer is the user, if not said otherwise": {
			`{"account":"a@b","secret":"s","service":"imap","ip":"203.0.113.9"}`,
			access.Login{Account: "a@b", Secret: []byte("s"), Service: "imap", IP: ip("203.0.113.9"), RealIP: ip("203.0.113.9")},
		},
		"no address": {
			`{"account":"a@b","secret":"s","service":"imap"}`,
			access.Login{Account: "a@b", Secret: []byte("s"), Service: "imap"},
		},
		"IPv4 mapped into IPv6": {
			`{"account":"a@b","secret":"s","service":"imap","ip":"::ffff:203.0.113.9"}`,
			access.Login{Account: "a@b", Secret: []byte("s"), Service: "imap", IP: ip("203.0.113.9"), RealIP: ip("203.0.113.9")},
		},
		"a zone names an interface of ours": {
			`{"account":"a@b","secret":"s","service":"imap","ip":"fe80::1%eth0"}`,
			access.Login{Account: "a@b", Secret: []byte("s"), Service: "imap", IP: ip("fe80::1"), RealIP: ip("fe80::1")},
		},
		"the protocol stands for the service": {
			`{"account":"a@b","secret":"s","protocol":"web"}`,
			access.Login{Account: "a@b", Secret: []byte("s"), Service: "web", Protocol: access.Web},
		},
		"a service that is not known here": {
			`{"account":"a@b","secret":"s","service":"submission587"}`,
			access.Login{Account: "a@b", Secret: []byte("s"), Service: "submission587"},
		},
		"a secret in base64": {
			`{"account":"a@b","secret_b64":"/wA=","service":"imap"}`,
			access.Login{Account: "a@b", Secret: []byte{0xff, 0}, Service: "imap"},
		},
		"look-ups": {
			`{"account":"a@b","service":"lmtp","lookup":"user"}`,
			access.Login{Account: "a@b", Secret: []byte{}, Service: "lmtp", Lookup: access.LookupUser},
		},
		"a hidden secret": {
			`{"account":"a@b","service":"imap","lookup":"credentials","mechanism":"SCRAM-SHA-256"}`,
			access.Login{Account: "a@b", Secret: []byte{}, Service: "imap", Lookup: access.LookupCredentials, Mechanism: "SCRAM-SHA-256"},
		},
		"null is as if left out": {
			`{"account":"a@b","secret":null,"service":"imap","ip":null,"local_port":null}`,
			access.Login{Account: "a@b", Secret: []byte{}, Service: "imap"},
		},
		"of two fields with one name the last counts": {
			`{"account":"x@y","account":"a@b","service":"imap"}`,
			access.Login{Account: "a@b", Secret: []byte{}, Service: "imap"},
		},
		"the largest body": {
			`{"account":"a@b","service":"imap"}` + strings.Repeat(" ", maxBody-34),
			access.Login{Account: "a@b", Secret: []byte{}, Service: "imap"},
		},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			g := &gate{answer: access.Decision{Outcome: access.Allow, Reason: access.ReasonOK}}
			if status, answer := post(t, Login(g), "/v1/login", tt.body); status != http.StatusOK {
				t.Fatalf("%d: %v", status, answer)
			}
			if len(g.logins) != 1 || !reflect.DeepEqual(g.logins[0], tt.want) {
				t.Errorf("asked for %+v, want %+v", g.logins, tt.want)
			}
		})
	}
}

func TestEveryOutcomeIsOK(t *testing.T) {
	for _, d := range []access.Decision{
		{Outcome: access.Allow, Reason: access.ReasonOK, Account: "ann@example.org", Client: "web", CredentialID: "5e2f"},
		{Outcome: access.Deny, Reason: access.ReasonPolicy, Message: "No.", PolicyID: "p", Region: "DE"},
		{Outcome: access.Next, Reason: access.ReasonOK},
		{Outcome: access.TempFail, Reason: access.ReasonStoreUnavailable},
	} {
		status, answer := post(t, Login(&gate{answer: d}), "/v1/login", `{"account":"a@b","service":"imap"}`)
		if status != http.StatusOK {
			t.Errorf("%v is %d", d.Outcome, status)
		}
		for field, want := range map[string]string{
			"outcome": d.Outcome.String(), "reason": string(d.Reason), "message": d.Message, "account": d.Account,
			"client": string(d.Client), "region": d.Region, "policy_id": d.PolicyID, "credential_id": d.CredentialID,
		} {
			if answer[field] != want {
				t.Errorf("%v: %s is %v, want %q", d.Outcome, field, answer[field], want)
			}
		}
		for _, internal := range []string{"guess", "verified", "stale", "Guess", "Verified", "Stale"} {
			if _, told := answer[internal]; told {
				t.Errorf("the answer tells %s", internal)
			}
		}
	}
}

func TestLoginRefuses(t *testing.T) {
	tests := map[string]struct {
		body   string
		status int
		fields []string // JSON pointers of the faults, in order
	}{
		"nothing":                  {``, 400, nil},
		"not JSON":                 {`account=ann`, 400, nil},
		"a list":                   {`[]`, 422, []string{""}},
		"a string":                 {`"ann"`, 422, []string{""}},
		"half an object":           {`{"account":"ann@example.org"`, 400, nil},
		"something behind it":      {`{"account":"a@b","service":"imap"}{}`, 400, nil},
		"a bracket behind it":      {`{"account":"a@b","service":"imap"}]`, 400, nil},
		"too long":                 {`{"account":"a@b","service":"imap"}` + strings.Repeat(" ", maxBody), 413, nil},
		"null":                     {`null`, 422, []string{"/protocol", "/account"}},
		"no field":                 {`{}`, 422, []string{"/protocol", "/account"}},
		"unknown field":            {`{"account":"a@b","service":"imap","otp_code":"123456"}`, 422, []string{"/otp_code"}},
		"unknown field with signs": {`{"a/b~c.d\"":1}`, 422, []string{`/a~1b~0c.d"`, "/protocol", "/account"}},
		"number for text":          {`{"account":7}`, 422, []string{"/account", "/protocol"}},
		"text for number":          {`{"local_port":"993"}`, 422, []string{"/local_port", "/protocol", "/account"}},
		"number out of range":      {`{"local_port":70000}`, 422, []string{"/local_port", "/protocol", "/account"}},
		"object for text":          {`{"secret":{"b64":"x"}}`, 422, []string{"/secret", "/protocol", "/account"}},
		"text for yes or no":       {`{"tls":"yes"}`, 422, []string{"/tls", "/protocol", "/account"}},
		"all faults at once": {
			`{"ip":"x","real_ip":"1.2.3","local_ip":"::g","protocol":"nntp","lookup":"dns","secret":"s","secret_b64":"*","tls":"yes","local_port":70000,"acount":"a@b"}`, 422,
			[]string{"/tls", "/local_port", "/acount", "/ip", "/real_ip", "/local_ip", "/protocol", "/lookup", "/account", "/secret_b64"},
		},
		"secret not in base64":     {`{"account":"a@b","service":"imap","secret_b64":"*"}`, 422, []string{"/secret_b64"}},
		"two secrets":              {`{"account":"a@b","service":"imap","secret":"s","secret_b64":"cw=="}`, 422, []string{"/secret_b64"}},
		"an address with a port":   {`{"account":"a@b","service":"imap","ip":"203.0.113.9:993"}`, 422, []string{"/ip"}},
		"a network for an address": {`{"account":"a@b","service":"imap","ip":"203.0.113.0/24"}`, 422, []string{"/ip"}},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			g := &gate{answer: access.Decision{Outcome: access.Allow}}
			status, answer := post(t, Login(g), "/v1/login", tt.body)
			if status != tt.status {
				t.Fatalf("%d, want %d: %v", status, tt.status, answer)
			}
			if len(g.logins) != 0 {
				t.Fatal("the gate was asked")
			}
			var fields []string
			faults, _ := answer["errors"].([]any)
			for _, f := range faults {
				fault, _ := f.(map[string]any)
				fields = append(fields, fmt.Sprint(fault["pointer"]))
				if fault["detail"] == "" || fault["code"] == "" || answer["detail"] == "" {
					t.Errorf("a fault that does not say what to do: %v", fault)
				}
			}
			if !slices.Equal(fields, tt.fields) {
				t.Errorf("faults of %v, want %v", fields, tt.fields)
			}
		})
	}
}

// broken is a body that ends before its time.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

func TestTruncatedBody(t *testing.T) {
	for path, h := range map[string]http.Handler{"/v1/login": Login(&gate{}), "/v1/dovecot/policy?command=report": DovecotPolicy(&gate{})} {
		req := httptest.NewRequest(http.MethodPost, path, io.MultiReader(strings.NewReader(`{"account":"a@b","service":"imap"}`), broken{}))
		req.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, req)
		if decoded(t, w); w.Code != http.StatusBadRequest {
			t.Errorf("%s: %d", path, w.Code)
		}
	}
}

func TestContentType(t *testing.T) {
	for kind, want := range map[string]int{
		"application/json": 200, "application/json; charset=utf-8": 200, "Application/JSON": 200,
		"": 415, "text/plain": 415, "application/x-www-form-urlencoded": 415, "application/json;": 200, ";": 415,
	} {
		req := httptest.NewRequest(http.MethodPost, "/v1/login", strings.NewReader(`{"account":"a@b","service":"imap"}`))
		req.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		Login(&gate{answer: access.Decision{Outcome: access.Deny}}).ServeHTTP(w, req)
		if decoded(t, w); w.Code != want {
			t.Errorf("%q: %d, want %d", kind, w.Code, want)
		}
	}
}

// wiping keeps the login itself, to see what becomes of the secret.
type wiping struct {
	gate
	secret []byte
}

func (g *wiping) Login(_ context.Context, l *access.Login) access.Decision {
	g.secret = l.Secret
	return access.Decision{Outcome: access.Allow}
}

func TestSecretIsWiped(t *testing.T) {
	for _, body := range []string{`{"account":"a@b","service":"imap","secret":"opensesame"}`, `{"account":"a@b","service":"imap","secret_b64":"b3BlbnNlc2FtZQ=="}`} {
		var g wiping
		if status, answer := post(t, Login(&g), "/v1/login", body); status != 200 {
			t.Fatalf("%d: %v", status, answer)
		}
		if !bytes.Equal(g.secret, make([]byte, len("opensesame"))) {
			t.Errorf("after the login the secret is %q", g.secret)
		}
	}
}

func TestDovecotPolicy(t *testing.T) {
	report := "/v1/dovecot/policy?command=report"
	tests := map[string]struct {
		path, body string
		status     int
		want       []access.Ending
	}{
		// as Dovecot 2.3.19.1 sends it
		"a success": {
			report, `{"device_id":"","login":"ann@example.org","protocol":"imap","pwhash":"057d","remote":"127.0.0.2","session_id":"x1","tls":true,"success":true,"policy_reject":false}`,
			200,
			[]access.Ending{{Account: "ann@example.org", IP: ip("127.0.0.2"), Service: "imap", Session: "x1", Success: true}},
		},
		"a failure, from Postfix": {
			report, `{"login":"ann","protocol":"smtp","remote":"::ffff:203.0.113.9","session_id":"","success":false,"policy_reject":false,"fail_type":"credentials"}`,
			200,
			[]access.Ending{{Account: "ann", IP: ip("203.0.113.9"), Service: "smtp"}},
		},
		"refused by a policy server": {
			report, `{"login":"ann@example.org","success":false,"policy_reject":true}`, 200,
			[]access.Ending{{Account: "ann@example.org", Rejected: true}},
		},
		"no address":              {report, `{"login":"a@b","remote":"","success":true}`, 200, []access.Ending{{Account: "a@b", Success: true}}},
		"an unreadable address":   {report, `{"login":"a@b","remote":"x","success":true}`, 200, []access.Ending{{Account: "a@b", Success: true}}},
		"how it ended is missing": {report, `{"login":"a@b"}`, 400, nil},
		"not JSON":                {report, `login=ann`, 400, nil},
		"the wrong type":          {report, `{"login":"a@b","success":"true"}`, 400, nil},
		"something behind it":     {report, `{"login":"a@b","success":true}{}`, 400, nil},
		"too long":                {report, strings.Repeat(" ", maxBody+1), 413, nil},
		"a check":                 {"/v1/dovecot/policy?command=allow", `{"login":"a@b"}`, 200, nil},
		"a check that is no JSON": {"/v1/dovecot/policy?command=allow", `x`, 400, nil},
		"no command":              {"/v1/dovecot/policy", `{"login":"a@b","success":true}`, 200, nil},
	}
	for what, tt := range tests {
		t.Run(what, func(t *testing.T) {
			g := &gate{answer: access.Decision{Outcome: access.Next}}
			status, answer := post(t, DovecotPolicy(g), tt.path, strings.Replace(tt.body, `"login":`, `"judged":"yes","login":`, 1))
			if status != tt.status || !slices.Equal(g.reports, tt.want) {
				t.Fatalf("%d %v, reports %+v; want %d, %+v", status, answer, g.reports, tt.status, tt.want)
			}
			// 0 is "go on": less would refuse, more would delay.
			if status == 200 && (answer["status"] != 0.0 || answer["msg"] != "") {
				t.Errorf("Dovecot is told %v", answer)
			}
		})
	}
}

// A check refuses what the gate refuses, with its text, and admits nobody.
func TestDovecotPolicyCheck(t *testing.T) {
	const body = `{"login":"alice@example.org","orig_user":"bob@example.org","remote":"203.0.113.9","real_remote":"192.0.2.1","protocol":"imap","session_id":"s1","device_id":"\"name\" \"x\"",
		"local_ip":"192.0.2.25","local_port":"993","server_name":"imap.example.org","client_cert":"valid","tls":true,"judged":"yes"}`
	for _, tt := range []struct {
		d      access.Decision
		status float64
		msg    string
	}{
		{access.Decision{Outcome: access.Next}, 0, ""},
		{access.Decision{Outcome: access.Deny, Reason: access.ReasonSuspended, Message: "This account is suspended."}, -1, "This account is suspended."},
		{access.Decision{Outcome: access.Deny, Reason: access.ReasonSuspended}, -1, ""},
		{access.Decision{Outcome: access.TempFail}, -1, textUnavailable},
		{access.Decision{}, -1, ""},
	} {
		g := &gate{answer: tt.d}
		if status, answer := post(t, DovecotPolicy(g), "/v1/dovecot/policy?command=allow", body); status != 200 || answer["status"] != tt.status || answer["msg"] != tt.msg {
			t.Errorf("%v: %d %v, want %v %q", tt.d, status, answer, tt.status, tt.msg)
		}
		want := access.Login{
			Account: "alice@example.org", Service: "imap", IP: netip.MustParseAddr("203.0.113.9"), RealIP: netip.MustParseAddr("192.0.2.1"),
			Session: "s1", ClientID: `"name" "x"`,
			LocalIP: netip.MustParseAddr("192.0.2.25"), LocalPort: 993, ServerName: "imap.example.org", ClientCert: "valid", TLS: true,
		}
		if !reflect.DeepEqual(g.checks, []access.Login{want}) || g.typed[0] != "bob@example.org" {
			t.Errorf("asked %+v, %q", g.checks, g.typed)
		}
	}
	g := &gate{answer: access.Decision{Outcome: access.Next}}
	post(t, DovecotPolicy(g), "/v1/dovecot/policy?command=allow", `{"login":"ann@example.org","orig_user":"boss","master_user":"boss","judged":"yes"}`)
	if g.typed[0] != "ann@example.org" || g.checks[0].MasterUser != "boss" {
		t.Errorf("a master login: %+v, %q", g.checks, g.typed)
	}
}

// Where no passdb of Drawbridge is asked, all rules are checked, and the report is the record.
// The second passdb asks about the final name, and can pass on a temporary failure.
func TestDovecotVerified(t *testing.T) {
	for _, outcome := range []access.Outcome{access.Deny, access.Next, access.TempFail} {
		g := &gate{answer: access.Decision{Outcome: outcome, Message: "text"}}
		status, answer := post(t, DovecotVerified(g), "/v1/dovecot/verified", `{"account":"bob@example.org","typed":"nick@example.org","service":"imap","ip":"203.0.113.9","session":"s1"}`)
		if status != http.StatusOK || answer["outcome"] != outcome.String() || answer["message"] != "text" {
			t.Errorf("%v: %d %v", outcome, status, answer)
		}
		if len(g.checks) != 1 || g.typed[0] != "nick@example.org" || g.checks[0].Account != "bob@example.org" || g.checks[0].Session != "s1" || len(g.logins) != 0 {
			t.Errorf("asked about %+v, typed %q", g.checks, g.typed)
		}
	}
	g := &gate{}
	for _, body := range []string{
		`{"account":"bob@example.org","service":"imap"}`, `{"account":"bob@example.org","service":"imap","typed":"x","unknown":1}`,
		`{"typed":"nick@example.org","service":"imap"}`,
	} {
		if status, answer := post(t, DovecotVerified(g), "/v1/dovecot/verified", body); status != http.StatusUnprocessableEntity {
			t.Errorf("%s: %d %v", body, status, answer)
		}
	}
	if len(g.checks) != 0 {
		t.Errorf("asked about %+v", g.checks)
	}
	// The API's own login endpoint takes no such claim.
	if status, answer := post(t, Login(g), "/v1/login", `{"account":"bob@example.org","typed":"nick@example.org","service":"imap"}`); status != http.StatusUnprocessableEntity || len(g.logins) != 0 {
		t.Errorf("/v1/login: %d %v", status, answer)
	}
}

func TestDovecotPolicyAlone(t *testing.T) {
	for attributes, want := range map[string]string{
		``:                                   "check ann@example.org false",
		`,"verified":"yes"`:                  "check ann@example.org true",
		`,"verified":"no","judged":"no"`:     "check ann@example.org false",
		`,"orig_user":"nick"`:                "check nick false",
		`,"orig_user":"b","master_user":"b"`: "check ann@example.org false",
	} {
		g := &gate{answer: access.Decision{Outcome: access.Deny, Message: "why"}}
		body := `{"login":"ann@example.org","remote":"203.0.113.9","protocol":"smtp","success":true` + attributes + `}`
		if _, answer := post(t, DovecotPolicy(g), "/v1/dovecot/policy?command=allow", body); g.typed[0] != want || answer["status"] != -1.0 || answer["msg"] != "why" {
			t.Errorf("%s: asked %q, answers %v", attributes, g.typed, answer)
		}
		post(t, DovecotPolicy(g), "/v1/dovecot/policy?command=report", body)
		if l := g.reports[0].Unjudged; l == nil || l.Account != "ann@example.org" || l.Service != "smtp" || l.IP != ip("203.0.113.9") {
			t.Errorf("%s: reports %+v", attributes, g.reports)
		}
	}
}

func TestHandler(t *testing.T) {
	const login, key = `{"account":"a@b","service":"imap"}`, "Bearer k3y"
	locked := Handler(&gate{answer: access.Decision{Outcome: access.Deny}}, func(bearer string) bool { return bearer == "k3y" })
	open := Handler(&gate{answer: access.Decision{Outcome: access.Deny}}, nil)
	tests := []struct {
		h                  http.Handler
		method, path, auth string
		want               int
	}{
		{open, "POST", "/v1/login", "", 200},
		{open, "POST", "/v1/login", key, 200},
		{open, "POST", "/v1/dovecot/policy?command=allow", "", 200},
		{open, "GET", "/livez", "", 200},
		{locked, "POST", "/v1/login", "", 401},
		{locked, "POST", "/v1/login", key, 200},
		{locked, "POST", "/v1/login", "Bearer k3yx", 401},
		{locked, "POST", "/v1/login", "Bearer ", 401},
		{locked, "POST", "/v1/login", "Bearer", 401},
		{locked, "POST", "/v1/login", "k3y", 401},
		{locked, "POST", "/v1/login", "Basic azN5", 401},
		{locked, "POST", "/v1/dovecot/policy?command=report", "", 401},
		{locked, "POST", "/v1/dovecot/policy?command=allow", key, 200},
		{locked, "GET", "/livez", "", 200},
		{open, "GET", "/v1/login", "", 405},
		{open, "PUT", "/v1/login", "", 405},
		{open, "POST", "/livez", "", 405},
		{open, "GET", "/v1/domains", "", 404},
		{open, "GET", "/", "", 404},
		{locked, "GET", "/v1/domains", key, 404},
	}
	for _, tt := range tests {
		req := httptest.NewRequest(tt.method, tt.path, strings.NewReader(login))
		req.Header.Set("Content-Type", "application/json")
		if tt.auth != "" {
			req.Header.Set("Authorization", tt.auth)
		}
		w := httptest.NewRecorder()
		tt.h.ServeHTTP(w, req)
		if w.Code != tt.want {
			t.Errorf("%s %s with %q: %d, want %d", tt.method, tt.path, tt.auth, w.Code, tt.want)
		}
		if got := w.Header().Get("WWW-Authenticate"); (got == "Bearer") != (w.Code == 401) {
			t.Errorf("%d with WWW-Authenticate %q", w.Code, got)
		}
	}
}

// What is taken is taken whole: a login that is written as JSON again and read once more is the
// same login; what is refused never reaches the gate.
func FuzzLogin(f *testing.F) {
	for _, body := range []string{
		`{"account":"ann@example.org","secret":"s","service":"imap","ip":"203.0.113.9"}`,
		`{"account":"a@b","secret_b64":"/wA=","protocol":"smtp","real_ip":"::1","local_port":587,"tls":true,"lookup":"credentials"}`,
		`{"account":"a@b","account":"b@c","service":"x"}`, `{}`, `null`, `[]`, `{"x":1}`, `{"account":7}`, `{"ip":"fe80::1%1"}`, "\xff", `{"account":"\ud800","service":"i"}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		g := &gate{answer: access.Decision{Outcome: access.Deny, Reason: access.ReasonBadSecret}}
		status, answer := post(t, Login(g), "/v1/login", string(body))
		if (status == 200) != (len(g.logins) == 1) {
			t.Fatalf("%d, and the gate was asked %d times: %v", status, len(g.logins), answer)
		}
		if status != 200 {
			if status != 400 && status != 413 && status != 422 {
				t.Fatalf("%d: %v", status, answer)
			}
			return
		}
		l := g.logins[0]
		if l.Account == "" || l.Service == "" || l.IP.Zone() != "" || l.IP.Is4In6() || !l.Time.IsZero() {
			t.Fatalf("an unusable login was taken: %+v", l)
		}
		again, err := json.Marshal(Request{
			Account: l.Account, SecretB64: base64.StdEncoding.EncodeToString(l.Secret), Service: l.Service, Protocol: l.Protocol.String(),
			IP: text(l.IP), RealIP: text(l.RealIP), LocalIP: text(l.LocalIP), LocalPort: l.LocalPort, ServerName: l.ServerName, TLS: l.TLS,
			ClientCert: l.ClientCert, Mechanism: l.Mechanism, Session: l.Session, MasterUser: l.MasterUser, ClientID: l.ClientID,
			Lookup: []string{"none", "credentials", "user"}[l.Lookup],
		})
		if err != nil {
			t.Fatal(err)
		}
		if len(again) > maxBody {
			return // written more verbosely
		}
		if status, answer := post(t, Login(g), "/v1/login", string(again)); status != 200 || !reflect.DeepEqual(g.logins[1], l) {
			t.Fatalf("%d %v: %+v became %+v", status, answer, l, g.logins[1:])
		}
	})
}

func text(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func BenchmarkLogin(b *testing.B) {
	h := Login(&quiet{})
	body := `{"account":"ann@example.org","secret":"correct horse","service":"imap","ip":"203.0.113.9","session":"x1","mechanism":"PLAIN"}`
	b.ReportAllocs()
	for b.Loop() {
		req := httptest.NewRequest(http.MethodPost, "/v1/login", strings.NewReader(body))
		req.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(httptest.NewRecorder(), req)
	}
}

type quiet struct{}

func (*quiet) Login(context.Context, *access.Login) access.Decision {
	return access.Decision{Outcome: access.Allow, Reason: access.ReasonOK}
}
func (*quiet) Report(*access.Ending) {}
func (*quiet) Recheck(*access.Login, string) access.Decision {
	return access.Decision{Outcome: access.Next}
}

func (*quiet) Check(*access.Login, string, bool) access.Decision {
	return access.Decision{Outcome: access.Next}
}
