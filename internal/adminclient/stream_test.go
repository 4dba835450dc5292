package adminclient

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// inLines answers lines; it waits for next before each but the first.
func inLines(t *testing.T, next <-chan struct{}, lines ...string) string {
	return onSocket(t, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Header.Get("Accept"), "application/x-ndjson") {
			t.Errorf("accepts %q", r.Header.Get("Accept"))
		}
		w.Header().Set("Content-Type", "application/x-ndjson")
		for i, line := range lines {
			if i > 0 && next != nil {
				select {
				case <-next:
				case <-r.Context().Done():
					return
				}
			}
			_, _ = fmt.Fprintln(w, line)
			_ = http.NewResponseController(w).Flush()
		}
	})
}

var long = Request{Method: http.MethodPost, Path: "/v1/long", Body: []byte(`{}`)}

func TestStream(t *testing.T) {
	next := make(chan struct{})
	api := inLines(t, next, `{"progress":{"n":1}}`, `{"progress":{"n":2}}`, `{"item":{"n":2}}`, `{"other":1}`, `{"result":{"n":3}}`, `{"progress":{"n":4}}`)
	var got []string
	go func() {
		for range 4 {
			next <- struct{}{}
		}
	}()
	a, err := client(t, Options{API: api}).Stream(t.Context(), long,
		func(line []byte) { got = append(got, "progress "+string(line)) }, func(line []byte) { got = append(got, "item "+string(line)) })
	if err != nil {
		t.Fatal(err)
	}
	if string(a.Body) != `{"n":3}` || a.Status != 200 || strings.Join(got, ", ") != `progress {"n":1}, progress {"n":2}, item {"n":2}` {
		t.Errorf("answer %d %s, progress %q", a.Status, a.Body, got)
	}
}

func TestStreamRefusals(t *testing.T) {
	refusal := func(status int, kind, body string) string {
		return onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		})
	}
	const busy = `{"status":429,"code":"busy","detail":"try again"}`
	for name, api := range map[string]string{
		"at once":       refusal(429, "application/problem+json", busy),
		"on the way":    inLines(t, nil, `{"progress":{}}`, `{"problem":`+busy+`}`),
		"without lines": inLines(t, nil, `{"problem":`+busy+`}`),
	} {
		_, err := client(t, Options{API: api}).Stream(t.Context(), long, nil, nil)
		p := new(Problem)
		if !errors.As(err, &p) || p.Status != 429 || p.Code != "busy" || string(p.Body) != busy {
			t.Errorf("%s: %v", name, err)
		}
	}
	const short = 200 * time.Millisecond
	for name, c := range map[string]struct {
		api     string
		timeout time.Duration
		says    string
	}{
		"one document":    {refusal(200, "application/json", `{}`), 0, "is not a stream of lines"},
		"no JSON":         {inLines(t, nil, `{"progress":{}}`, `oops`), 0, "reading a line"},
		"no problem":      {inLines(t, nil, `{"problem":[]}`), 0, "reading the problem"},
		"cut short":       {inLines(t, nil, `{"progress":{}}`), 0, "unexpected EOF"},
		"nothing at all":  {inLines(t, nil), 0, "unexpected EOF"},
		"silence":         {inLines(t, make(chan struct{}), `{"progress":{}}`, ``), short, "nothing within 200ms"},
		"nobody is there": {"unix:/nowhere/api.sock", 0, "is drawbridged running"},
		"too long a line": {inLines(t, nil, `{"progress":"`+strings.Repeat("x", MaxBody)+`"}`), 0, "longer than 64 MiB"},
	} {
		_, err := client(t, Options{API: c.api, Timeout: c.timeout}).Stream(t.Context(), long, nil, nil)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", name, err, c.says)
		}
	}
}

// The limit is for each line: an answer may take longer than that as a whole.
func TestStreamOutlastsItsTimeout(t *testing.T) {
	const limit = 300 * time.Millisecond
	next, stop := make(chan struct{}), make(chan struct{})
	defer close(stop)
	go func() {
		tick := time.NewTicker(limit / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				select {
				case next <- struct{}{}:
				case <-stop:
				}
			case <-stop:
				return
			}
		}
	}()
	lines := append(strings.Split(strings.Repeat(`{"progress":{}} `, 6), " ")[:6], `{"result":{}}`)
	begin := time.Now()
	if _, err := client(t, Options{API: inLines(t, next, lines...), Timeout: limit}).Stream(t.Context(), long, nil, nil); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took < limit {
		t.Errorf("took %v only: proves nothing", took)
	}
}
