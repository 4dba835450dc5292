package checkpassword

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The tests here run the real program as Dovecot does: descriptors 3 and 4 are pipes, and the
// writing end of 3 stays open, as siblings keep it.

const (
	command = "github.com/drawbridge/drawbridge/cmd/drawbridge-checkpassword"
	replyTo = "/usr/lib/dovecot/checkpassword-reply"
)

// buildDir is where the program is built, if a test runs it.
var buildDir string

func TestMain(m *testing.M) {
	var err error
	if buildDir, err = os.MkdirTemp("", "checkpassword"); err != nil {
		panic(err)
	}
	status := m.Run()
	_ = os.RemoveAll(buildDir)
	os.Exit(status)
}

// binary builds the program, once, and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	// What is looked at here is part of what go test caches results by.
	if _, err := os.Stat("../cmd/drawbridge-checkpassword/main.go"); err != nil {
		return "", err
	}
	path := filepath.Join(buildDir, "drawbridge-checkpassword")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, command)
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w: %s", err, out)
	}
	return path, nil
})

// A call is one run of the program. The zero value of a field is what an IMAP login has.
type call struct {
	socket    string
	fd3       string
	env       Environment
	args      []string // all but -s SOCKET
	stdin     *os.File // on descriptor 3 instead of a pipe
	closed4   bool
	stderr    *os.File
	inherited []*os.File // 5 and up
	limit     string     // ulimit -v, in KiB
}

type result struct {
	status                int
	reply, stdout, stderr string
	took                  time.Duration
}

// run runs the program to its end.
func (c call) run(t *testing.T) result {
	t.Helper()
	return c.start(t)()
}

// start starts the program; what it returns waits for the end.
func (c call) start(t *testing.T) func() result {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	if c.fd3 == "" {
		c.fd3 = "ann@example.org\x00opensesame\x00\x00"
	}
	if c.env == nil {
		c.env = dovecotIMAP
	}
	if c.args == nil {
		c.args = []string{replyTo}
	}
	credentials, keep := pipe(t)
	if _, err := io.WriteString(keep, c.fd3); err != nil {
		t.Fatal(err)
	}
	if c.stdin != nil {
		credentials = c.stdin
	}
	replies, reply := pipe(t)

	args := c.args
	if c.socket != "" {
		args = append([]string{"-s", c.socket}, args...)
	}
	if c.limit != "" {
		args = append([]string{"-c", `ulimit -v "$0"; exec "$@"`, c.limit, path}, args...)
		path = "/bin/sh"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Env = append([]string{"PATH=/usr/bin:/bin"}, c.env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if c.stderr != nil {
		cmd.Stderr = c.stderr
	}
	cmd.ExtraFiles = append([]*os.File{credentials, reply}, c.inherited...)
	if c.closed4 {
		cmd.ExtraFiles = []*os.File{credentials}
	}
	started := time.Now()
	err = cmd.Start()
	for _, f := range append(c.inherited, reply, credentials) {
		_ = f.Close()
	}
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	type end struct {
		err  error
		took time.Duration
	}
	ended := make(chan end, 1)
	go func() {
		err := cmd.Wait()
		ended <- end{err, time.Since(started)}
	}()
	return func() result {
		t.Helper()
		defer cancel()
		end := <-ended
		var exit *exec.ExitError
		if end.err != nil && !errors.As(end.err, &exit) {
			t.Fatal(end.err)
		}
		words, err := io.ReadAll(replies)
		if err != nil {
			t.Fatal(err)
		}
		return result{cmd.ProcessState.ExitCode(), string(words), stdout.String(), stderr.String(), end.took}
	}
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close(); _ = w.Close() })
	return r, w
}

// socketPath returns a path short enough for a socket.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cp")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "login.sock")
}

// serve answers with handler at the path that it returns.
func serve(t *testing.T, handler http.HandlerFunc) string {
	t.Helper()
	path := socketPath(t)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- server.Serve(listener) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return path
}

// answering serves one answer to all.
func answering(t *testing.T, status int, body string) string {
	t.Helper()
	return serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func TestExecQuestion(t *testing.T) {
	t.Parallel()
	asked := make(chan map[string]any, 1)
	socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		body["request"] = r.Method + " " + r.URL.Path + " " + r.Header.Get("Content-Type")
		asked <- body
		_, _ = io.WriteString(w, `{"outcome":"allow","user":"ann@example.org"}`)
	})
	got := call{socket: socket, fd3: "Ann@example.org\x00öffne\t\"dich\"\x00\x00"}.run(t)
	if got.status != 0 || got.reply != "user=ann@example.org\t" || got.stdout+got.stderr != "" {
		t.Errorf("answer %+v", got)
	}
	want := map[string]any{
		"request": "POST /v1/login application/json",
		"account": "Ann@example.org", "secret": "öffne\t\"dich\"", "service": "imap", "ip": "203.0.113.9", "real_ip": "192.0.2.80",
		"local_ip": "192.0.2.1", "local_port": 993.0, "server_name": "imap.example.org", "tls": true, "mechanism": "PLAIN",
		"session": "t7OTfdlg", "client_id": `"name" "Thunderbird"`,
	}
	if diff := cmp.Diff(want, <-asked); diff != "" {
		t.Errorf("question (-want +got)\n%s", diff)
	}
}

// The second passdb asks about the name that the first has given, without the password.
func TestExecVerified(t *testing.T) {
	t.Parallel()
	asked := make(chan map[string]any, 1)
	socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var body map[string]any
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
		}
		body["request"] = r.Method + " " + r.URL.Path
		asked <- body
		_, _ = io.WriteString(w, `{"outcome":"next","reason":"ok"}`)
	})
	got := call{socket: socket, args: []string{"--verified", replyTo}, fd3: "bob@example.org\x00opensesame\x00\x00", env: Environment{
		"AUTH_ORIG_USER=Nick@example.org", "AUTH_SERVICE=imap", "AUTH_PID=7", "AUTH_RIP=203.0.113.9", "AUTH_SESSION=t7OTfdlg", "AUTH_LPORT=993",
	}}.run(t)
	if got.status != 0 || got.reply != "user=bob@example.org\t" || got.stdout+got.stderr != "" {
		t.Errorf("answer %+v", got)
	}
	want := map[string]any{
		"request": "POST /v1/dovecot/verified", "account": "bob@example.org", "typed": "Nick@example.org", "service": "imap",
		"ip": "203.0.113.9", "local_port": 993.0, "session": "t7OTfdlg",
	}
	if diff := cmp.Diff(want, <-asked); diff != "" {
		t.Errorf("question (-want +got)\n%s", diff)
	}
	got = call{socket: "/nonexistent/login.sock", args: []string{"--verified", replyTo}}.run(t)
	if got.status != 111 || got.reply != "" {
		t.Errorf("without the daemon: %+v", got)
	}
}

func TestExecAnswers(t *testing.T) {
	t.Parallel()
	postfix := Environment{"AUTH_SERVICE=smtp", "AUTH_PID=7", "AUTH_LPORT=0", "AUTH_SECURED=secured", "AUTH_RIP=203.0.113.9"}
	scram := dovecotIMAP.with("AUTHORIZED=1", "CREDENTIALS_LOOKUP=1")
	lmtp := Environment{"AUTH_SERVICE=lmtp", "AUTH_PID=7", "AUTHORIZED=1"}
	master := dovecotIMAP.with("AUTH_MASTER_USER=boss@example.org")
	const (
		allow    = `{"outcome":"allow","reason":"ok","user":"ann@example.org"}`
		next     = `{"outcome":"next","reason":"ok","user":""}`
		deny     = `{"outcome":"deny","reason":"policy","message":"","user":"ann@example.org"}`
		denyText = `{"outcome":"deny","reason":"policy","message":"Not\tfrom\r\nhere.","user":"ann@example.org"}`
		tempfail = `{"outcome":"tempfail","reason":"throttled","message":"Later."}`
	)
	lookUp := "ann@example.org\x00\x00\x00"
	tests := []struct {
		name   string
		answer string
		call   call
		status int
		reply  string
	}{
		{"IMAP, allow", allow, call{}, 0, "user=ann@example.org\t"},
		{"IMAP, allow by its canonical name", allow, call{fd3: "Ann\x00pw\x00\x00"}, 0, "user=ann@example.org\t"},
		{"IMAP, next by the name given", next, call{fd3: "Ann\x00pw\x00\x00"}, 0, "user=Ann\tnoauthenticate=y\t"},
		{"IMAP, a name that wants escaping", next, call{fd3: "a\tnologin=y\n\x00pw\x00\x00"}, 0, "user=a\001tnologin=y\001n\tnoauthenticate=y\t"},
		{"IMAP, deny", deny, call{}, 1, ""},
		{"IMAP, deny with a text", denyText, call{}, 0, "user=ann@example.org\tnologin=y\treason=Not from  here.\t"},
		{"IMAP, tempfail", tempfail, call{}, 111, ""},
		{"Postfix, allow", allow, call{env: postfix}, 0, "user=ann@example.org\t"},
		{"Postfix, next", next, call{env: postfix}, 0, "user=ann@example.org\tnoauthenticate=y\t"},
		{"Postfix, deny with a text", denyText, call{env: postfix}, 1, ""},
		{"Postfix as imap, deny with a text", denyText, call{env: postfix.with("AUTH_SERVICE=imap")}, 1, ""},
		{"Postfix, tempfail that is not held", tempfail, call{env: postfix}, 111, ""},
		{"SCRAM, next", next, call{env: scram, fd3: lookUp}, 2, "user=ann@example.org\tnoauthenticate=y\t"},
		{"SCRAM, deny with a text", denyText, call{env: scram, fd3: lookUp}, 3, ""},
		{"SCRAM, tempfail", tempfail, call{env: scram, fd3: lookUp}, 111, ""},
		{"LMTP, allow", allow, call{env: lmtp, fd3: lookUp}, 2, "user=ann@example.org\t"},
		{"LMTP, cut short", allow, call{env: lmtp, fd3: strings.Repeat("x", 600)}, 111, ""},
		{"master's second call, allow", allow, call{env: master}, 0, "user=ann@example.org\t"},
		{"master's first call", allow, call{env: dovecotIMAP.with("AUTH_LOGIN_USER=bob@example.org")}, 1, ""},
		{"master's first call as a look-up", allow, call{env: scram.with("AUTH_LOGIN_USER=bob@example.org")}, 3, ""},
		{"oversized", allow, call{fd3: strings.Repeat("x", 600) + "\x00pw\x00\x00"}, 1, ""},
		{"no name", allow, call{fd3: "\x00pw\x00\x00"}, 1, ""},
		{"descriptor 4 closed", allow, call{closed4: true}, 111, ""},
		{"elsewhere, allow", allow, call{env: Environment{"SERVICE=pop3"}, args: []string{"sh", "-c", "echo ran >&4; test ! -e /proc/self/fd/3 && exit 7"}}, 7, "ran\n"},
		{"elsewhere, deny", denyText, call{env: Environment{"SERVICE=pop3"}, args: []string{"sh", "-c", "echo ran >&4"}}, 1, ""},
		{"elsewhere, next", next, call{env: Environment{"SERVICE=pop3"}, args: []string{"sh", "-c", "echo ran >&4"}}, 1, ""},
		{"elsewhere, tempfail", tempfail, call{env: Environment{"SERVICE=smtp"}, args: []string{"sh", "-c", "echo ran >&4"}}, 111, ""},
		{"elsewhere, no such program", allow, call{env: Environment{"SERVICE=pop3"}, args: []string{"no-such-program"}}, 111, ""},
		{"elsewhere, no such path", allow, call{env: Environment{"SERVICE=pop3"}, args: []string{"/no/such/program"}}, 111, ""},
		{"elsewhere, no program", allow, call{env: Environment{"SERVICE=pop3"}, args: []string{}}, 2, ""},
		{"wrong option", allow, call{args: []string{"-x", replyTo}}, 111, ""},
		{"no reply program under Dovecot", allow, call{args: []string{}}, 0, "user=ann@example.org\t"},
		{"second passdb, no objection", next, call{args: []string{"--verified", replyTo}}, 0, "user=ann@example.org\t"},
		{"second passdb, deny", deny, call{args: []string{"--verified", replyTo}}, 1, ""},
		{"second passdb, deny with a text", denyText, call{args: []string{"--verified", replyTo}}, 0, "user=ann@example.org\tnologin=y\treason=Not from  here.\t"},
		{"second passdb, tempfail", tempfail, call{args: []string{"--verified", replyTo}}, 111, ""},
		{"second passdb, the name as typed", deny, call{args: []string{"--verified", replyTo}, env: dovecotIMAP.with("AUTH_ORIG_USER=ann@example.org")}, 0, "user=ann@example.org\t"},
		{"second passdb, a master", deny, call{args: []string{"--verified", replyTo}, env: master}, 0, "user=ann@example.org\t"},
		{"second passdb, look-up", next, call{args: []string{"--verified", replyTo}, env: lmtp.with("AUTH_ORIG_USER=nick@example.org"), fd3: lookUp}, 2, "user=ann@example.org\t"},
		{"second passdb, elsewhere", allow, call{env: Environment{"SERVICE=pop3"}, args: []string{"--verified", "sh", "-c", "echo ran >&4"}}, 2, ""},
		{"within Dovecot's memory limit", allow, call{limit: "1048576"}, 0, "user=ann@example.org\t"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.call.socket = answering(t, http.StatusOK, tt.answer)
			got := tt.call.run(t)
			if got.status != tt.status || got.reply != tt.reply {
				t.Errorf("status %d, reply %q, want %d, %q; stderr %q", got.status, got.reply, tt.status, tt.reply, got.stderr)
			}
			if got.took > 5*time.Second {
				t.Errorf("took %v", got.took)
			}
			if strings.Contains(got.stderr, "opensesame") {
				t.Errorf("the password is in %q", got.stderr)
			}
		})
	}
}

// TestExecBrokenDaemon: whatever the daemon does wrong, nobody is admitted and nothing is said to
// be final.
func TestExecBrokenDaemon(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		answer http.HandlerFunc
		stderr string
	}{
		{"status 500 with an allow", plain(500, `{"outcome":"allow"}`), `the daemon answered HTTP status 500: {"outcome":"allow"}`},
		{"status 403", plain(403, ``), "the daemon answered HTTP status 403"},
		{"status 204", plain(204, ``), "the daemon answered HTTP status 204"},
		{"empty", plain(200, ``), "the answer is not a decision"},
		{"not JSON", plain(200, `allow`), "the answer is not a decision"},
		{"unknown outcome", plain(200, `{"outcome":"welcome"}`), "the answer is not a decision"},
		{"no outcome", plain(200, `{"reason":"ok"}`), "the answer is not a decision"},
		{"two outcomes", plain(200, `{"outcome":"allow","outcome":"allow"}`), "the answer is not a decision"},
		{"too large", plain(200, `{"outcome":"allow","x":"`+strings.Repeat("x", maxAnswer)+`"}`), "the answer is larger than 64 KiB"},
		{"hangs up", raw(""), "unexpected EOF"},
		{"hangs up in the body", raw("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"outcome\":\"allow\"}"), "unexpected EOF"},
		{"not HTTP", raw("{\"outcome\":\"allow\"}\n"), "the answer is not HTTP"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := call{socket: serve(t, tt.answer)}.run(t)
			if got.status != 111 || got.reply != "" || !strings.HasSuffix(got.stderr, tt.stderr+"\n") || strings.Count(got.stderr, "\n") != 1 {
				t.Errorf("%+v, want status 111 and %q", got, tt.stderr)
			}
		})
	}
}

func plain(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

// raw answers with bytes, and hangs up.
func raw(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

func TestExecNoDaemon(t *testing.T) {
	t.Parallel()
	path := socketPath(t)
	got := call{socket: path}.run(t)
	if want := "drawbridge-checkpassword: asking the daemon at " + path + ": no such file or directory\n"; got.status != 111 || got.reply != "" || got.stderr != want {
		t.Errorf("%+v, want status 111 and %q", got, want)
	}
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	if err := listener.Close(); err != nil {
		t.Fatal(err)
	}
	got = call{socket: path}.run(t)
	if got.status != 111 || !strings.HasSuffix(got.stderr, ": connection refused\n") {
		t.Errorf("%+v, want status 111 and connection refused", got)
	}
}

func TestExecByHand(t *testing.T) {
	t.Parallel()
	got := call{args: []string{"--help"}}.run(t)
	if got.status != 0 || !strings.HasPrefix(got.stdout, "usage: drawbridge-checkpassword [-s SOCKET] [--verified] [REPLY...]\n") || got.stderr != "" {
		t.Errorf("--help: %+v", got)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	got = call{stdin: null}.run(t)
	if want := "drawbridge-checkpassword: descriptor 3 is not a pipe, a socket or a file; Dovecot runs this program, not people\n"; got.status != 111 || got.stderr != want || got.reply != "" {
		t.Errorf("descriptor 3 is a device: %+v, want status 111 and %q", got, want)
	}
}

// A script may give name and password by a file.
func TestExecFile(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]int{"ann@example.org\x00opensesame\x00\x00": 0, "ann@example.org\x00opensesame\x00": 1, "": 1} {
		path := filepath.Join(t.TempDir(), "credentials")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		socket := answering(t, 200, `{"outcome":"allow","reason":"ok","account":"ann@example.org"}`)
		if got := (call{socket: socket, stdin: file}).run(t); got.status != want {
			t.Errorf("%q: %+v, want status %d", content, got, want)
		}
	}
}

// TestExecTruncated: the writer dies before the third NUL.
func TestExecTruncated(t *testing.T) {
	t.Parallel()
	socket := answering(t, http.StatusOK, `{"outcome":"allow"}`)
	for env, want := range map[string]int{"": 1, "AUTHORIZED=1": 111} {
		r, w := pipe(t)
		if _, err := io.WriteString(w, "ann@example.org\x00open"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got := call{socket: socket, stdin: r, env: dovecotIMAP.with(env)}.run(t)
		if got.status != want || got.reply != "" || got.stderr != "drawbridge-checkpassword: descriptor 3: ends before the third NUL\n" {
			t.Errorf("%q: %+v, want status %d", env, got, want)
		}
	}
}

// TestExecInherited: everything from 5 up is closed before anything is waited for, while stderr is
// non-blocking, which would make package os open more.
func TestExecInherited(t *testing.T) {
	t.Parallel()
	sibling, held := pipe(t)
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	said, stderr := os.NewFile(uintptr(fds[0]), "read"), os.NewFile(uintptr(fds[1]), "write")
	t.Cleanup(func() { _ = said.Close(); _ = stderr.Close() })
	if err := syscall.SetNonblock(fds[1], true); err != nil {
		t.Fatal(err)
	}
	socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
		// The test closes its own end once the program runs; the program's is the last one, and
		// must be gone although it has no answer yet.
		if err := sibling.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Error(err)
		}
		if _, err := sibling.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the program keeps a pipe that it inherited: %v", err)
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, `{"outcome":"allow"}`)
	})
	got := call{socket: socket, inherited: []*os.File{held}, stderr: stderr}.run(t)
	if got.status != 0 || got.reply != "user=ann@example.org\t" {
		t.Errorf("%+v", got)
	}
	_ = stderr.Close()
	if text, err := io.ReadAll(said); err != nil || len(text) > 0 {
		t.Errorf("stderr %q, %v", text, err)
	}
}

// TestExecParallel: no run waits for another, although no descriptor 3 is closed before all have
// ended. Nobody is answered until all have asked.
func TestExecParallel(t *testing.T) {
	t.Parallel()
	const runs = 30
	var asked sync.WaitGroup
	asked.Add(runs)
	socket := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var login struct{ Account string }
		if err := json.NewDecoder(r.Body).Decode(&login); err != nil {
			t.Error(err)
		}
		asked.Done()
		asked.Wait()
		fmt.Fprintf(w, `{"outcome":"next","user":%q}`, strings.ToLower(login.Account))
	})
	var ends []func() result
	for i := range runs {
		ends = append(ends, call{socket: socket, fd3: fmt.Sprintf("USER%d\x00pw\x00\x00", i)}.start(t))
	}
	for i, end := range ends {
		got := end()
		if want := fmt.Sprintf("user=user%d\tnoauthenticate=y\t", i); got.status != 0 || got.reply != want {
			t.Errorf("%+v, want reply %q", got, want)
		}
	}
}

// TestExecDeadline: a daemon that keeps sending, a byte at a time, does not keep the program beyond
// nine seconds; nor does one that never accepts, or a descriptor 3 that says nothing.
func TestExecDeadline(t *testing.T) {
	t.Parallel()
	drip := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		ticks := time.NewTicker(100 * time.Millisecond)
		defer ticks.Stop()
		for _, c := range []byte("HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 1000)) {
			if _, err := conn.Write([]byte{c}); err != nil {
				return // as it should be: the program has given up
			}
			<-ticks.C
		}
	})
	silent, _ := pipe(t)
	calls := map[string]call{
		"drip":         {socket: drip},
		"never reads":  {socket: fullSocket(t)},
		"no name":      {socket: drip, stdin: silent},
		"held Postfix": {socket: drip, env: Environment{"AUTH_SERVICE=submission587", "AUTH_PID=7", "AUTH_LPORT=0"}},
	}
	ends := map[string]func() result{}
	for name, c := range calls {
		ends[name] = c.start(t)
	}
	for name, end := range ends {
		earliest, latest := 8*time.Second, 10*time.Second // when Postfix gives up
		if name == "held Postfix" {
			earliest, latest = 10400*time.Millisecond, 13*time.Second
		}
		got := end()
		if got.status != 111 || got.reply != "" || got.took < earliest || got.took > latest || !strings.HasSuffix(got.stderr, "out of time\n") {
			t.Errorf("%s: %+v, want status 111 after %v to %v", name, got, earliest, latest)
		}
	}
}

// fullSocket listens with a backlog that is full, so that connecting blocks.
func fullSocket(t *testing.T) string {
	t.Helper()
	path := socketPath(t)
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	addr := &syscall.SockaddrUnix{Name: path}
	if err := errors.Join(syscall.Bind(fd, addr), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for {
		client, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(client) })
		switch err := syscall.Connect(client, addr); {
		case errors.Is(err, syscall.EAGAIN):
			return path
		case err != nil:
			t.Fatal(err)
		}
	}
}

// TestExecHold: Postfix is kept waiting beyond its own patience when the daemon or its store is
// away, if there is a place to wait; Dovecot never is.
func TestExecHold(t *testing.T) {
	t.Parallel()
	postfix := Environment{"AUTH_SERVICE=smtp", "AUTH_PID=7", "AUTH_LPORT=0"}
	storeless := answering(t, http.StatusOK, `{"outcome":"tempfail","reason":"store_unavailable"}`)
	crowded := socketPath(t)
	occupy(t, crowded)
	tests := []struct {
		name string
		call call
		held bool
	}{
		{"daemon away", call{socket: socketPath(t), env: postfix}, true},
		{"store away", call{socket: storeless, env: postfix}, true},
		{"all places taken", call{socket: crowded, env: postfix}, false},
		{"a look-up", call{socket: storeless, env: postfix.with("AUTHORIZED=1")}, false},
		{"Dovecot's submission", call{socket: storeless, env: dovecotIMAP.with("AUTH_SERVICE=submission")}, false},
		{"IMAP", call{socket: storeless}, false},
	}
	var ends []func() result
	for _, tt := range tests {
		ends = append(ends, tt.call.start(t))
	}
	for i, tt := range tests {
		got := ends[i]()
		if got.status != 111 || got.reply != "" {
			t.Errorf("%s: %+v, want status 111", tt.name, got)
		}
		if held := got.took > 10400*time.Millisecond; held != tt.held || got.took > 13*time.Second || !held && got.took > 5*time.Second {
			t.Errorf("%s: took %v, want held: %v", tt.name, got.took, tt.held)
		}
	}
}

// occupy takes every place to wait.
func occupy(t *testing.T, socket string) {
	t.Helper()
	for n := range maxHeld {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Close(fd) })
		if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: place(socket, n)}); err != nil {
			t.Fatal(err)
		}
	}
}

// TestThin: what the program must not link, for each costs time in every login or, like os, breaks
// it: see sys_linux.go.
func TestThin(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", command).Output()
	if err != nil {
		t.Fatal(err)
	}
	deps := strings.Fields(string(out))
	for _, dep := range deps {
		switch dep {
		case "os", "net", "time", "fmt", "reflect", "encoding/json", "net/http", "runtime/cgo":
			t.Errorf("links %s", dep)
		}
		if strings.Contains(dep, ".") && dep != command && dep != "github.com/drawbridge/drawbridge/checkpassword" {
			t.Errorf("links %s", dep)
		}
	}
	if len(deps) == 0 {
		t.Error("no dependencies listed")
	}
}
