package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"drawbridge": main})
}

// TestScripts runs the real command against a daemon that is played from the script. Beside
// testscript's own commands there are:
//
//	talk FILE     what the daemon will be asked next, and answers; see dialogue
//	exits N CMD…  CMD must end with status N
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       os.Getenv("UPD") != "",
		Setup: func(env *testscript.Env) error {
			d, err := play(env)
			if err != nil {
				return err
			}
			env.Values[dialogueKey{}] = d
			env.Setenv("DRAWBRIDGE_API", "unix:"+d.socket)
			env.Setenv("SOCKET", d.socket)
			env.Setenv("TZ", "UTC")
			env.Setenv("GORACE", "atexit_sleep_ms=10") // else each command lingers for a second under -race
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"talk":  talk,
			"exits": exits,
		},
	})
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N CMD…")
	}
	status := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit := new(exec.ExitError)
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		status = exit.ExitCode()
	}
	if want, err := strconv.Atoi(args[0]); err != nil || status != want {
		ts.Fatalf("exit status %d, want %s", status, args[0])
	}
}

type dialogueKey struct{}

func talk(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: talk FILE")
	}
	d := ts.Value(dialogueKey{}).(*dialogue)
	steps, err := parseDialogue(ts.ReadFile(args[0]))
	if err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	for i := range steps {
		if err := answers.check(&steps[i]); err != nil {
			ts.Fatalf("%s: %v", args[0], err)
		}
	}
	if err := d.begin(steps); err != nil {
		ts.Fatalf("before %s: %v", args[0], err)
	}
}

// dialogue is a daemon that expects the requests of a script, in their order, and gives the
// script's answers:
//
//	> PATCH /v1/accounts/ann@example.org?dry_run=true
//	> If-Match: "3"
//	> {"suspended":true}
//	< 200
//	< ETag: "4"
//	< {"address":"ann@example.org","suspended":true}
//
// A request must have the headers that the script names, and no condition or key that it does not
// name. Bodies are compared as JSON.
type dialogue struct {
	socket string

	mu     sync.Mutex
	steps  []step
	faults []string
}

type step struct {
	request string // method and target
	header  http.Header
	body    string
	status  int
	answer  http.Header
	content string
}

func parseDialogue(text string) ([]step, error) {
	var steps []step
	asking := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if line == "" {
			continue
		}
		mark, rest, _ := strings.Cut(line, " ")
		name, value, isHeader := strings.Cut(rest, ": ")
		isHeader = isHeader && !strings.HasPrefix(rest, "{") && !strings.HasPrefix(rest, "[")
		switch {
		case mark == ">" && !asking:
			asking = true
			steps = append(steps, step{request: rest, header: http.Header{}, answer: http.Header{}})
		case len(steps) == 0:
			return nil, fmt.Errorf("begins with %q, not with a request", line)
		case mark == ">" && isHeader:
			steps[len(steps)-1].header.Add(name, value)
		case mark == ">":
			steps[len(steps)-1].body += rest + "\n"
		case mark == "<" && asking:
			asking = false
			status, err := strconv.Atoi(rest)
			if err != nil {
				return nil, fmt.Errorf("%q is no status", rest)
			}
			steps[len(steps)-1].status = status
		case mark == "<" && isHeader:
			steps[len(steps)-1].answer.Add(name, value)
		case mark == "<":
			steps[len(steps)-1].content += rest + "\n"
		default:
			return nil, fmt.Errorf("%q begins with neither > nor <", line)
		}
	}
	return steps, nil
}

// begin sets what is to be asked next. All that was set before must have been asked.
func (d *dialogue) begin(steps []step) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.steps {
		d.faults = append(d.faults, "was not asked "+s.request)
	}
	d.steps = steps
	if len(d.faults) > 0 {
		err := errors.New("the daemon " + strings.Join(d.faults, "; "))
		d.faults = nil
		return err
	}
	return nil
}

// play starts the daemon of one script.
func play(env *testscript.Env) (*dialogue, error) {
	dir, err := os.MkdirTemp("", "play") // the script's own directory may be too long for a socket
	if err != nil {
		return nil, err
	}
	d := &dialogue{socket: filepath.Join(dir, "api.sock")}
	l, err := net.Listen("unix", d.socket)
	if err != nil {
		return nil, err
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: d, ReadHeaderTimeout: time.Minute}}
	s.Start()
	env.Defer(func() {
		s.Close()
		_ = os.RemoveAll(dir)
		if err := d.begin(nil); err != nil {
			env.T().Fatal(err)
		}
	})
	return d, nil
}

func (d *dialogue) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		d.faults = append(d.faults, err.Error())
	}
	asked := r.Method + " " + r.RequestURI
	if len(d.steps) == 0 {
		d.faults = append(d.faults, "was asked "+asked+", which the script does not have")
		w.WriteHeader(http.StatusNotImplemented)
		return
	}
	s := d.steps[0]
	d.steps = d.steps[1:]
	if asked != s.request {
		d.faults = append(d.faults, "was asked "+asked+", not "+s.request)
	}
	for _, name := range []string{"If-Match", "If-None-Match", "Authorization", "Content-Type"} {
		want, got := s.header.Get(name), r.Header.Get(name)
		if name == "Content-Type" && want == "" && s.body != "" {
			want = "application/json"
		}
		if got != want {
			d.faults = append(d.faults, fmt.Sprintf("was asked %s with %s: %q, not %q", asked, name, got, want))
		}
	}
	if !sameBody(string(body), s.body) {
		d.faults = append(d.faults, fmt.Sprintf("was asked %s with the body %s, not %s", asked, body, s.body))
	}
	for name, values := range s.answer {
		w.Header()[name] = values
	}
	if w.Header().Get("Content-Type") == "" && s.content != "" {
		kind := "application/json"
		if s.status >= 400 {
			kind = "application/problem+json"
		}
		w.Header().Set("Content-Type", kind)
	}
	w.WriteHeader(s.status)
	_, _ = io.WriteString(w, s.content)
}

func sameBody(a, b string) bool {
	var x, y any
	if json.Unmarshal([]byte(a), &x) != nil || json.Unmarshal([]byte(b), &y) != nil {
		return strings.TrimRight(a, "\n") == strings.TrimRight(b, "\n")
	}
	return reflect.DeepEqual(x, y)
}
