package approval

import (
	"context"
	"encoding/base64"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/api"
)

// held is one message that one approver may decide about.
type held struct {
	decided string
	text    string
	err     error
}

func (h *held) HeldForApprover(domain, id, approver string) (*api.Held, error) {
	if domain != "example.org" || id != "1" || approver != "boss@example.org" {
		return nil, api.NotFound("message")
	}
	if h.decided != "" {
		return nil, api.Conflict("decided", "it is decided")
	}
	return &api.Held{Subject: `<script>alert("x")</script>`, From: "", Recipients: []string{"a@example.com"}, Then: "reject"}, h.err
}

func (h *held) DecideAsApprover(_ context.Context, domain, id, approver string, approve bool, text string) (*api.Held, error) {
	if _, err := h.HeldForApprover(domain, id, approver); err != nil {
		return nil, err
	}
	h.decided, h.text = map[bool]string{true: "approved", false: "rejected"}[approve], text
	return &api.Held{State: h.decided}, nil
}

func TestPage(t *testing.T) {
	links := &Links{URL: "https://mail.example.org", Key: []byte("secret")}
	at := func(l *Links, domain, id, approver string, expires time.Time) string {
		return strings.TrimPrefix(l.Link(domain, id, approver, expires), l.URL)
	}
	later := time.Now().Add(time.Hour)
	good := at(links, "example.org", "1", "boss@example.org", later)
	raw, err := base64.RawURLEncoding.DecodeString(strings.TrimPrefix(good, Path))
	if err != nil {
		t.Fatal(err)
	}
	altered := Path + base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), "boss@", "evil@", 1)))
	form := func(v ...string) string { return url.Values{"decision": {v[0]}, "text": v[1:]}.Encode() }
	tests := []struct {
		name, method, path, body string
		status                   int
		says                     string
		decided                  string
	}{
		{"the page", "GET", good, "", 200, "&lt;script&gt;", ""},
		{"the page, by a scanner", "HEAD", good, "", 200, "", ""},
		{"GET decides nothing", "GET", good + "?decision=approve", "", 200, "Approve this message?", ""},
		{"POST needs a decision", "POST", good, "", 400, "Nothing decided", ""},
		{"a decision in the query", "POST", good + "?decision=approve", "", 400, "Nothing decided", ""},
		{"approve", "POST", good, form("approve"), 200, "will be sent", "approved"},
		{"reject", "POST", good, form("reject", "no"), 200, "will not be sent", "rejected"},
		{"another method", "PUT", good, form("approve"), 405, "", ""},
		{"expired", "POST", at(links, "example.org", "1", "boss@example.org", time.Now()), form("approve"), 404, "Nothing to decide", ""},
		{"altered", "POST", altered, form("approve"), 404, "Nothing to decide", ""},
		{"cut off", "GET", good[:len(good)-3], "", 404, "Nothing to decide", ""},
		{"no token", "GET", Path, "", 404, "Nothing to decide", ""},
		{"of another key", "GET", at(&Links{URL: links.URL, Key: []byte("other")}, "example.org", "1", "boss@example.org", later), "", 404, "Nothing to decide", ""},
		{"another message", "GET", at(links, "example.org", "2", "boss@example.org", later), "", 404, "Nothing to decide", ""},
		{"a long body", "POST", good, form("reject", strings.Repeat("x", maxForm)), 400, "", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := &held{}
			w := httptest.NewRecorder()
			r := httptest.NewRequest(tt.method, tt.path, strings.NewReader(tt.body))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			Handler(links, h, hclog.NewNullLogger()).ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) || h.decided != tt.decided {
				t.Errorf("%d, decided %q: %s", w.Code, h.decided, w.Body)
			}
			if w.Header().Get("Content-Security-Policy") == "" || w.Header().Get("Referrer-Policy") != "no-referrer" {
				t.Errorf("headers %v", w.Header())
			}
		})
	}
	t.Run("once", func(t *testing.T) {
		handler := Handler(links, &held{}, hclog.NewNullLogger())
		for i, status := range []int{http.StatusOK, http.StatusConflict} {
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, good, strings.NewReader(form("approve")))
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			handler.ServeHTTP(w, r)
			if w.Code != status {
				t.Errorf("decision %d: %d", i+1, w.Code)
			}
		}
	})
	if link := (&Links{}).Link("example.org", "1", "boss@example.org", later); link != "" {
		t.Error(link)
	}
}
