package notify

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/store/spool"
)

func dir(t *testing.T) Spool {
	t.Helper()
	d, err := spool.Open(t.TempDir(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A webhook that fails gets the notice again, signed; one that refuses it for good does not.
func TestWebhook(t *testing.T) {
	type request struct{ signature, body string }
	got := make(chan request, 10)
	var answers atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- request{r.Header.Get("X-Drawbridge-Signature"), string(body)}
		w.WriteHeader([]int{500, 200, 400, 200}[answers.Add(1)-1])
	}))
	defer server.Close()
	key := []byte("a key")
	n := &Notifier{Webhook: NewWebhook(server.URL, key, dir(t), hclog.NewNullLogger())}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { n.Run(ctx); close(done) }()
	for _, id := range []string{"first", "refused", "last"} {
		n.Notify(&Notice{ID: id, Event: "test", Time: time.Now(), Account: "ann@example.org", Data: map[string]int{"n": 1}})
	}
	for i, want := range []string{"first", "first", "refused", "last"} {
		r := <-got
		var body Notice
		if err := json.Unmarshal([]byte(r.body), &body); err != nil || body.ID != want || body.Account != "ann@example.org" {
			t.Errorf("request %d: %v %s, want %s", i, err, r.body, want)
		}
		at := strings.TrimPrefix(strings.Split(r.signature, ",")[0], "t=")
		var unix int64
		_ = json.Unmarshal([]byte(at), &unix)
		if r.signature != Sign(key, time.Unix(unix, 0), []byte(r.body)) || time.Since(time.Unix(unix, 0)) > time.Minute {
			t.Errorf("signature %q", r.signature)
		}
	}
	cancel()
	<-done
}

// What is queued is sent after a restart.
func TestRestart(t *testing.T) {
	d := dir(t)
	NewWebhook("http://127.0.0.1:1", nil, d, hclog.NewNullLogger()).put(Notice{ID: "kept"}, time.Now())
	got := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- string(body)
	}))
	defer server.Close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go NewWebhook(server.URL, nil, d, hclog.NewNullLogger()).run(ctx)
	if body := <-got; !strings.Contains(body, `"kept"`) {
		t.Errorf("sent %s", body)
	}
}

// Nothing in a notice adds header fields or lines.
func TestCompose(t *testing.T) {
	m := mailed{ID: "1", Domain: "example.org", To: "ann@example.org", Subject: "New login\r\nBcc: eve@example.com", Text: "Gerät: x\r\n.\r\nQUIT\n", Time: time.Now()}
	text := string(m.compose("mx1"))
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	if strings.Contains(head, "\r\nBcc") || strings.Contains(strings.ReplaceAll(text, "\r\n", ""), "\n") || !strings.Contains(body, "Ger=C3=A4t") {
		t.Errorf("%s", text)
	}
}

// A server that refuses a mail for now delays no other mail, and gets it again.
func TestDeferredMailDelaysNoOther(t *testing.T) {
	q := newQueue("mail", dir(t), hclog.NewNullLogger(), nil)
	q.later, q.laterEvery = &texts{Spool: dir(t)}, 10*time.Millisecond
	got, full := make(chan string, 100), true
	q.send = func(_ context.Context, body []byte) error {
		text := string(body)
		if text == `"full"` && full {
			full = false
			return fmt.Errorf("%w: 452 the mailbox is full", errDeferred)
		}
		got <- text
		return nil
	}
	for _, text := range []string{"full", "other"} {
		q.put(text, time.Now())
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { q.run(ctx); close(done) }()
	for _, want := range []string{`"other"`, `"full"`} {
		if text := <-got; text != want {
			t.Errorf("sent %s, want %s", text, want)
		}
	}
	cancel()
	<-done
	if n := q.waiting(); n != 0 {
		t.Errorf("%d wait", n)
	}
}

// A notice that a full queue drops while it is being sent is not removed in place of the next one.
func TestDroppedWhileSent(t *testing.T) {
	small, err := spool.Open(t.TempDir(), 1000)
	if err != nil {
		t.Fatal(err)
	}
	q := newQueue("mail", small, hclog.NewNullLogger(), nil)
	var sent []string
	q.send = func(_ context.Context, body []byte) error {
		if sent = append(sent, string(body[1:2])); len(sent) == 1 {
			q.put("b"+strings.Repeat("x", 600), time.Now())
		}
		return nil
	}
	q.put("a"+strings.Repeat("x", 600), time.Now())
	for range 2 {
		if _, err := q.first(t.Context(), q.spool); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Join(sent, "") != "ab" {
		t.Errorf("sent %v", sent)
	}
}

// waiting returns how many notices wait to be sent, those that failed before included.
func (q *Queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.spool.Len()
	if q.later != nil {
		n += q.later.Len()
	}
	return n
}
