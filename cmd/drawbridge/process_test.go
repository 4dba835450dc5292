package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit ends a test whose command hangs.
const limit = time.Minute

// against returns the command with its arguments, aimed at a daemon that h plays.
func against(t *testing.T, h http.HandlerFunc, args ...string) *exec.Cmd {
	t.Helper()
	dir, err := os.MkdirTemp("", "api") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: h, ReadHeaderTimeout: limit}}
	s.Start()
	t.Cleanup(s.Close)
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "drawbridge", args...)
	cmd.Env = append(os.Environ(), "TZ=UTC", "GORACE=atexit_sleep_ms=10", "DRAWBRIDGE_API=unix:"+l.Addr().String())
	return cmd
}

func exitStatus(t *testing.T, cmd *exec.Cmd, want int) {
	t.Helper()
	_ = cmd.Wait() // ProcessState says it all
	if got := cmd.ProcessState.ExitCode(); got != want {
		t.Errorf("exit status %d, want %d", got, want)
	}
}

// Records are shown once each, oldest first, and again only if they are new; Ctrl-C is the end.
func TestFollow(t *testing.T) {
	record := func(second int, who string) string {
		return fmt.Sprintf(`{"id":"%d-%s","time":"2026-11-22T08:00:%02d.5Z","account":"%s@example.org","outcome":"deny"}`, second, who, second, who)
	}
	for output, lines := range map[string]int{outputJSON: 4, outputTable: 5} { // the table has headings
		t.Run(output, func(t *testing.T) {
			var asked atomic.Int32
			second := make(chan string, 1)
			cmd := against(t, func(w http.ResponseWriter, r *http.Request) {
				switch asked.Add(1) {
				case 1:
					if got := r.URL.Query().Encode(); got != "limit=2&outcome=deny" {
						t.Errorf("asks first for %s", got)
					}
					_, _ = fmt.Fprintf(w, `{"items":[%s,%s],"next":"old"}`, record(2, "bob"), record(1, "ann"))
				case 2: // a record of another daemon arrives late
					second <- r.URL.Query().Encode()
					_, _ = fmt.Fprintf(w, `{"items":[%s,%s,%s,%s]}`, record(3, "dan"), record(2, "bob"), record(2, "cat"), record(1, "ann"))
				default:
					_, _ = io.WriteString(w, `{"items":[]}`)
				}
			}, "logins", "example.org", "--outcome", "deny", "--limit", "2", "--follow", "-o", output)
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			var shown []string
			for scanner := bufio.NewScanner(stdout); lines > 0 && scanner.Scan(); lines-- {
				if who := regexp.MustCompile(`([a-z]+)@example.org`).FindStringSubmatch(scanner.Text()); who != nil {
					shown = append(shown, who[1])
				}
			}
			if got := strings.Join(shown, " "); got != "ann bob cat dan" {
				t.Errorf("shows %s, want ann bob cat dan", got)
			}
			if got := <-second; got != "limit=500&outcome=deny&since=2026-11-22T07%3A59%3A52Z" {
				t.Errorf("asks then for %s", got)
			}
			if err := cmd.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
			exitStatus(t, cmd, 0)
		})
	}
}

func TestInterrupted(t *testing.T) {
	arrived := make(chan struct{})
	cmd := against(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // the server notices a client that leaves only then
		close(arrived)
		<-r.Context().Done()
	}, "domain", "set", "example.org", "--pop3", "off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-arrived
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	exitStatus(t, cmd, exitInternal)
	if want := "drawbridge: interrupted: a change may already have been made\n"; stderr.String() != want {
		t.Errorf("says %q, want %q", stderr.String(), want)
	}
}

// terminal opens a terminal: what is written to keys is typed at tty.
func terminal(t *testing.T) (keys, tty *os.File) {
	t.Helper()
	keys, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = keys.Close() })
	if err := unix.IoctlSetPointerInt(int(keys.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(keys.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return keys, tty
}

func shows(t *testing.T, tty *os.File) bool {
	t.Helper()
	settings, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return settings.Lflag&unix.ECHO != 0
}

// asks reads from a command's standard error up to a prompt.
func asks(t *testing.T, stderr *bufio.Reader, want string) {
	t.Helper()
	prompt, err := stderr.ReadString(':')
	if err != nil || !strings.Contains(prompt, want) {
		t.Fatalf("asks %q, error %v; want %q", prompt, err, want)
	}
}

func TestPasswordOnTerminal(t *testing.T) {
	for name, c := range map[string]struct {
		again  string
		status int
		sent   string
	}{
		"the same twice":  {"correct horse\n", 0, `{"password":"correct horse"}`},
		"two that differ": {"correct hose\n", exitUsage, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var sent []byte
			cmd := against(t, func(w http.ResponseWriter, r *http.Request) {
				sent, _ = io.ReadAll(r.Body)
				_, _ = io.WriteString(w, `{}`)
			}, "mailbox-password", "set", "ann@example.org")
			keys, tty := terminal(t)
			cmd.Stdin = tty
			pipe, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			stderr := bufio.NewReader(pipe)
			asks(t, stderr, "Mailbox password of ann@example.org")
			if shows(t, tty) {
				t.Error("the terminal shows what is typed")
			}
			_, _ = io.WriteString(keys, "correct horse\n")
			asks(t, stderr, "Repeat")
			_, _ = io.WriteString(keys, c.again)
			rest, err := io.ReadAll(stderr)
			if err != nil {
				t.Fatal(err)
			}
			exitStatus(t, cmd, c.status)
			if string(sent) != c.sent || bytes.Contains(rest, []byte("horse")) {
				t.Errorf("sends %q, want %q; says %q", sent, c.sent, rest)
			}
			if !shows(t, tty) {
				t.Error("the terminal stays silent afterwards")
			}
		})
	}
}

func TestPasswordInterrupted(t *testing.T) {
	cmd := against(t, func(http.ResponseWriter, *http.Request) { t.Error("sends something") }, "mailbox-password", "set", "ann@example.org")
	_, tty := terminal(t)
	cmd.Stdin = tty
	pipe, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stderr := bufio.NewReader(pipe)
	asks(t, stderr, "Mailbox password")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, stderr); err != nil {
		t.Fatal(err)
	}
	exitStatus(t, cmd, exitInternal)
	if !shows(t, tty) {
		t.Error("the terminal stays silent afterwards")
	}
}

// A terminal shows how far a preview is, and no trace of that is left.
func TestProgressOnTerminal(t *testing.T) {
	next := make(chan struct{})
	cmd := against(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, `{"progress":{"examined":24000,"at":"2026-11-20T08:15:00Z","share":0.163}}`+"\n")
		_ = http.NewResponseController(w).Flush()
		select {
		case <-next:
		case <-r.Context().Done():
		}
		_, _ = io.WriteString(w, `{"result":{"examined":150000}}`+"\n")
	}, "policy", "preview", "example.org", "office", "--remove")
	screen, tty := terminal(t)
	cmd.Stderr = tty
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const far = "\r\x1b[K24000 logins, back to 2026-11-20 08:15:00, 16 %"
	got := make([]byte, len(far))
	if _, err := io.ReadFull(screen, got); err != nil || string(got) != far {
		t.Errorf("shows %q, error %v; want %q", got, err, far)
	}
	close(next)
	exitStatus(t, cmd, 0)
	got = make([]byte, len(wipeLine))
	if _, err := io.ReadFull(screen, got); err != nil || string(got) != wipeLine {
		t.Errorf("leaves %q, error %v", got, err)
	}
	if !strings.Contains(out.String(), "150000") {
		t.Errorf("prints %q", out.String())
	}
}

// A batch shows on a terminal how far it is, and when it is interrupted how to go on.
func TestBatchInterrupted(t *testing.T) {
	cmd := against(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/x-ndjson")
		_, _ = io.WriteString(w, `{"progress":{"done":5000,"selected":12000,"cursor":"Yw"}}`+"\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, "account", "batch", "example.org", "--all", "--set", "pop3=off")
	keys, tty := terminal(t)
	cmd.Stderr = tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	screen := bufio.NewReader(keys)
	until := func(want string) {
		t.Helper()
		var seen strings.Builder
		for !strings.Contains(seen.String(), want) {
			c, err := screen.ReadByte()
			if err != nil {
				t.Fatalf("shows %q, want %q: %v", seen.String(), want, err)
			}
			seen.WriteByte(c)
		}
	}
	until("5000 of 12000 accounts")
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	until("5000 of 12000 accounts are done: repeat the command with --resume Yw to continue\r\n")
	until("interrupted")
	exitStatus(t, cmd, exitInternal)
}
