package adminclient

import (
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// onSocket serves h on a unix socket and returns its API address.
func onSocket(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}}
	s.Start()
	t.Cleanup(s.Close)
	return "unix:" + socket
}

func client(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func keyFile(t *testing.T, content string, mode os.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(name, []byte(content), mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDo(t *testing.T) {
	var got *http.Request
	var body []byte
	api := onSocket(t, func(w http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
		w.Header().Set("ETag", `"7"`)
		w.WriteHeader(http.StatusCreated)
		_, _ = io.WriteString(w, `{"name":"example.org"}`)
	})
	c := client(t, Options{API: api, KeyFile: keyFile(t, "dbk_secret\n", 0o600)})
	a, err := c.Do(t.Context(), Request{
		Method: http.MethodPut,
		Path:   Path("v1", "domains", "a/b?c", "ü"),
		Query:  url.Values{"dry_run": {"true"}},
		Header: http.Header{"If-Match": {`"6"`}},
		Body:   []byte(`{"x":1}`),
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Status != 201 || a.ETag != `"7"` || string(a.Body) != `{"name":"example.org"}` {
		t.Errorf("answer %+v", a)
	}
	for what, pair := range map[string][2]string{
		"target":       {got.RequestURI, "/v1/domains/a%2Fb%3Fc/%C3%BC?dry_run=true"},
		"key":          {got.Header.Get("Authorization"), "Bearer dbk_secret"},
		"condition":    {got.Header.Get("If-Match"), `"6"`},
		"content type": {got.Header.Get("Content-Type"), "application/json"},
		"body":         {string(body), `{"x":1}`},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s is %q, want %q", what, pair[0], pair[1])
		}
	}
}

func TestNoKeyNoAuthorization(t *testing.T) {
	api := onSocket(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Authorization", "Cookie", "Origin", "Forwarded", "X-Forwarded-For"} {
			if r.Header.Get(name) != "" {
				t.Errorf("sends %s, which takes root's rights away", name)
			}
		}
		_, _ = io.WriteString(w, `{}`)
	})
	if _, err := client(t, Options{API: api}).Do(t.Context(), Request{Method: http.MethodGet, Path: "/v1/domains"}); err != nil {
		t.Error(err)
	}
}

func TestAddresses(t *testing.T) {
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for api, want := range map[string]string{ // what the error says; "" for none
		"unix:run/api.sock":                     "write unix:" + dir + "/run/api.sock",
		"unix:":                                 "write " + DefaultAPI,
		"unix:/run/drawbridge/api.sock":         "",
		"unix:///run/drawbridge/api.sock":       "",
		"https://mail.example.org":              "",
		"https://mail.example.org/drawbridge/":  "",
		"http://127.0.0.1:8480":                 "",
		"http://[::1]:8480":                     "",
		"http://localhost:8480":                 "",
		"http://[::ffff:127.0.0.1]:8480":        "",
		"unix:api.sock":                         "absolute",
		"unix:/":                                "absolute",
		"unix:/run/api.sock?mode=0660":          "leave out the ?",
		"unix:/" + strings.Repeat("x", 108):     "longer than",
		"http://mail.example.org:8480":          "in clear",
		"http://192.0.2.1":                      "in clear",
		"http://localhost.example.org":          "in clear",
		"https://key@mail.example.org":          "--key-file",
		"https://mail.example.org/?key=dbk_xyz": "leave out the ?",
		"https://":                              "write unix:",
		"ftp://mail.example.org":                "write unix:",
		"127.0.0.1:8480":                        "write unix:",
		"http://127.0.0.1:84 80":                "write unix:",
	} {
		_, err := New(Options{API: api})
		argument := new(ArgumentError)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", api, err)
		case want != "" && (!errors.As(err, &argument) || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want an ArgumentError that says %q", api, err, want)
		}
	}
}

func TestLocalhostMustBeLoopback(t *testing.T) {
	if err := loopbackOnly("tcp", "192.0.2.1:80", nil); err == nil {
		t.Error("connects in clear to 192.0.2.1")
	}
	if err := loopbackOnly("tcp6", "[::1]:80", nil); err != nil {
		t.Error(err)
	}
}

func TestKeyFiles(t *testing.T) {
	for name, f := range map[string]struct {
		content string
		mode    os.FileMode
		want    string // what the error says
	}{
		"group may read": {"dbk_x\n", 0o640, "chmod 600"},
		"world may read": {"dbk_x\n", 0o604, "chmod 600"},
		"empty":          {"\n", 0o600, "is empty"},
		"two lines":      {"dbk_x\ndbk_y\n", 0o600, "a key only"},
		"a space":        {"Bearer dbk_x\n", 0o600, "a key only"},
		"too long":       {strings.Repeat("k", maxKey+1), 0o600, "longer than"},
	} {
		_, err := New(Options{KeyFile: keyFile(t, f.content, f.mode)})
		if argument := new(ArgumentError); !errors.As(err, &argument) || !strings.Contains(err.Error(), f.want) {
			t.Errorf("%s: error %v, want an ArgumentError that says %q", name, err, f.want)
		}
		if err != nil && strings.Contains(err.Error(), "dbk_") {
			t.Errorf("%s: the error shows the key: %v", name, err)
		}
	}
	for _, content := range []string{"dbk_x", "dbk_x\n", "dbk_x\r\n"} {
		c := client(t, Options{KeyFile: keyFile(t, content, 0o400)})
		if string(c.key) != "dbk_x" {
			t.Errorf("%q is read as %q", content, c.key)
		}
	}
	if _, err := New(Options{KeyFile: t.TempDir()}); err == nil || !strings.Contains(err.Error(), "directory") {
		t.Errorf("a directory: error %v", err)
	}
}

func TestPathsThatNameSomethingElse(t *testing.T) {
	api := onSocket(t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("sent %s", r.RequestURI) })
	c := client(t, Options{API: api})
	for _, path := range []string{
		Path("v1", "domains", ""), Path("v1", "domains", "."), Path("v1", "domains", ".."),
		Path("v1", "domains", "..", "keys"), "/v1//domains", "v1/domains", "", "/v1/domains?x=1", "/v1/domains#x", "/v1/%zz",
	} {
		_, err := c.Do(t.Context(), Request{Method: http.MethodDelete, Path: path})
		if argument := new(ArgumentError); !errors.As(err, &argument) {
			t.Errorf("%q: error %v, want an ArgumentError", path, err)
		}
	}
}

func TestProblem(t *testing.T) {
	api := onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json; charset=utf-8")
		w.Header().Set("Retry-After", "5")
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"type":"about:blank","title":"Unprocessable Entity","status":422,"code":"invalid","detail":"the request has faults",
			"errors":[{"pointer":"/name","code":"required","detail":"is needed"},{"pointer":"","parameter":"limit","detail":"parameter limit: must be a number"}]}`)
	})
	_, err := client(t, Options{API: api}).Do(t.Context(), Request{Method: http.MethodGet, Path: "/v1/domains"})
	p := new(Problem)
	if !errors.As(err, &p) {
		t.Fatalf("error %v, want a Problem", err)
	}
	if p.Status != 422 || p.Code != "invalid" || p.RetryAfter != "5" || len(p.Errors) != 2 || !strings.Contains(string(p.Body), "about:blank") {
		t.Errorf("problem %+v", p)
	}
	if want := "the request has faults; /name: is needed; parameter limit: must be a number"; p.Error() != want {
		t.Errorf("says %q, want %q", p.Error(), want)
	}
}

func TestAnswersThatAreNotTheAPIs(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"redirects elsewhere": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		},
		"is not the API's own": func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "<h1>Bad Gateway</h1>", http.StatusBadGateway)
		},
		"is not JSON": func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<h1>It works!</h1>") },
		"is not the API's": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusTeapot)
			_, _ = io.WriteString(w, `{"status":"not a number"}`)
		},
	} {
		_, err := client(t, Options{API: onSocket(t, h)}).Do(t.Context(), Request{Method: http.MethodGet, Path: "/v1/domains"})
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("error %v, want one that says it %s", err, name)
		}
	}
}

func TestLongAnswer(t *testing.T) {
	api := onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
		chunk := make([]byte, 1<<20)
		for range MaxBody>>20 + 1 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	_, err := client(t, Options{API: api}).Do(t.Context(), Request{Method: http.MethodGet, Path: "/v1/domains"})
	if err == nil || !strings.Contains(err.Error(), "longer than 64 MiB") {
		t.Errorf("error %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	slow := onSocket(t, func(http.ResponseWriter, *http.Request) { <-hang })
	cut := onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, `{"half":`)
	})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = listener.Close() // nobody listens at its port now
	for name, c := range map[string]struct {
		api, method string
		hint        string
	}{
		"no socket":      {"unix:" + filepath.Join(t.TempDir(), "none"), http.MethodPut, "is drawbridged running"},
		"nobody listens": {"http://" + listener.Addr().String(), http.MethodPut, "is drawbridged running"},
		"slow read":      {slow, http.MethodGet, "try again"},
		"slow change":    {slow, http.MethodPatch, "whether the change was made is unknown"},
		"half an answer": {cut, http.MethodPatch, "whether the change was made is unknown"},
	} {
		_, err := client(t, Options{API: c.api, Timeout: 200 * time.Millisecond}).Do(t.Context(), Request{Method: c.method, Path: "/v1/keys", Query: url.Values{"q": {"hidden"}}})
		u := new(UnreachableError)
		if !errors.As(err, &u) || !strings.Contains(u.Hint, c.hint) {
			t.Errorf("%s: error %v, want an UnreachableError that says %q", name, err, c.hint)
			continue
		}
		if strings.Contains(err.Error(), "hidden") || !strings.Contains(err.Error(), c.api) {
			t.Errorf("%s: says %q, want the address and not the query", name, err)
		}
	}
}

func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	api := onSocket(t, func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	_, err := client(t, Options{API: api}).Do(ctx, Request{Method: http.MethodGet, Path: "/v1/domains"})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{}`) }))
	defer s.Close()
	_, err := client(t, Options{API: s.URL}).Do(t.Context(), Request{Method: http.MethodGet, Path: "/v1/domains"})
	u := new(UnreachableError)
	if !errors.As(err, &u) || !strings.Contains(u.Hint, "trusts") {
		t.Errorf("an unknown authority: error %v", err)
	}
	c := client(t, Options{API: s.URL})
	pool := c.http.Transport.(*http.Transport).TLSClientConfig
	pool.RootCAs = s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if _, err := c.Do(t.Context(), Request{Method: http.MethodGet, Path: "/v1/domains"}); err != nil {
		t.Errorf("a known authority: %v\n%s", err, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}))
	}
}

// pages serves a list of n items in pages.
func pages(n int, asked *[]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.URL.RawQuery)
		from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		var items []string
		for i := from; i < min(from+limit, n); i++ {
			items = append(items, fmt.Sprintf(`{"n":%d}`, i))
		}
		next := ""
		if from+limit < n {
			next = fmt.Sprintf(`,"next":"%d"`, from+limit)
		}
		_, _ = fmt.Fprintf(w, `{"items":[%s]%s}`, strings.Join(items, ","), next)
	}
}

func TestList(t *testing.T) {
	for name, c := range map[string]struct {
		have, limit int
		items       int
		next        string
		asked       []string
	}{
		"none":       {0, 0, 0, "", []string{"limit=500&x=y"}},
		"all":        {1200, 0, 1200, "", []string{"limit=500&x=y", "cursor=500&limit=500&x=y", "cursor=1000&limit=500&x=y"}},
		"a few":      {1200, 3, 3, "3", []string{"limit=3&x=y"}},
		"some pages": {1200, 700, 700, "700", []string{"limit=500&x=y", "cursor=500&limit=200&x=y"}},
		"just all":   {3, 3, 3, "", []string{"limit=3&x=y"}},
	} {
		var asked []string
		query := url.Values{"x": {"y"}}
		list, err := client(t, Options{API: onSocket(t, pages(c.have, &asked))}).List(t.Context(), "/v1/domains", query, c.limit)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(list.Items) != c.items || list.Next != c.next || strings.Join(asked, " ") != strings.Join(c.asked, " ") {
			t.Errorf("%s: %d items, next %q, asked %q; want %d, %q, %q", name, len(list.Items), list.Next, asked, c.items, c.next, c.asked)
		}
		if query.Encode() != "x=y" {
			t.Errorf("%s: changes the caller's query to %s", name, query.Encode())
		}
	}
}

func TestListThatNeverEnds(t *testing.T) {
	api := onSocket(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"items":[{}],"next":"again"}`)
	})
	if _, err := client(t, Options{API: api}).List(t.Context(), "/v1/domains", nil, 0); err == nil || !strings.Contains(err.Error(), "loop") {
		t.Errorf("error %v", err)
	}
}

func TestWholeListDespiteLimit(t *testing.T) {
	api := onSocket(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"items":[1,2,3]}`) })
	list, err := client(t, Options{API: api}).List(t.Context(), "/v1/keys", nil, 2)
	if err != nil || len(list.Items) != 2 {
		t.Errorf("%d items, error %v; want 2", len(list.Items), err)
	}
}

// FuzzPath: whatever the segments are, the daemon sees the same ones or nothing is sent.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"example.org", "a/b", "..", ".", "", "a%2fb", "ü", "?x=1", "#", "a b", ";", "%2e%2e", "\x00", "*"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, segment string) {
		u, err := url.Parse("http://drawbridge" + Path("v1", segment, "end"))
		if err != nil {
			t.Fatalf("%q: %v", segment, err)
		}
		parts := strings.Split(u.EscapedPath(), "/")
		if len(parts) != 4 {
			t.Fatalf("%q becomes %d parts", segment, len(parts)-1)
		}
		if back, err := url.PathUnescape(parts[2]); err != nil || back != segment {
			t.Fatalf("%q comes back as %q, error %v", segment, back, err)
		}
	})
}
