// Package redistest starts private redis-server or valkey-server children for tests, and stores on
// them.
package redistest

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/embedded"
)

// Server is a redis-server of a test's own, on a unix socket and without TCP, unless it is of a
// [Cluster] or of [Sentinels].
type Server struct {
	Socket string
	Port   int // on 127.0.0.1; 0 for none
	t      testing.TB
	dir    string
	extra  []string
	cmd    *exec.Cmd
}

// Start starts a server that keeps its data in an append-only file and ends with the test. Further
// lines of redis.conf may be given.
func Start(t testing.TB, conf ...string) *Server {
	t.Helper()
	return startAt(t, 0, conf...)
}

func startAt(t testing.TB, port int, conf ...string) *Server {
	t.Helper()
	dir, err := os.MkdirTemp("", "db-redis")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &Server{Socket: filepath.Join(dir, "s"), Port: port, t: t, dir: dir, extra: conf}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// Restart starts the server again on its data, after [Server.Kill].
func (s *Server) Restart() {
	s.t.Helper()
	conf := append([]string{
		"port " + strconv.Itoa(s.Port), "bind 127.0.0.1", "unixsocket " + s.Socket, "unixsocketperm 700", "dir " + s.dir, "save \"\"",
		"appendonly yes", "appendfsync always", "daemonize no", "loglevel warning",
	}, s.extra...)
	program, err := embedded.Program("")
	if err != nil {
		s.t.Fatal(err)
	}
	s.cmd = exec.Command(program, "-") //nolint:gosec // G204: the installed server
	s.cmd.Stdin = strings.NewReader(strings.Join(conf, "\n") + "\n")
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("starting %s: %v", program, err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for {
		err := ping(s.Socket)
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("redis-server does not answer: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Client returns the path of the command-line client of the installed server.
func Client(t testing.TB) string {
	t.Helper()
	program, err := embedded.Program("")
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(program, "-server") + "-cli"
}

// Do sends one command and returns the answer, without the newline at its end.
func (s *Server) Do(args ...string) string {
	s.t.Helper()
	out, err := s.Try(args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// Try sends one command. A refusal by the server is no error but the answer.
func (s *Server) Try(args ...string) (string, error) {
	cmd := exec.Command(Client(s.t), append([]string{"-s", s.Socket, "--raw"}, args...)...) //nolint:gosec // G204: the installed client
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("redis-cli %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSuffix(string(out), "\n"), nil
}

func ping(socket string) error {
	c, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(time.Second))
	if _, err := c.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(c).ReadString('\n')
	// A server that wants a password is ready as well.
	if err == nil && answer != "+PONG\r\n" && !strings.HasPrefix(answer, "-NOAUTH ") {
		err = fmt.Errorf("answered %q", answer)
	}
	return err
}

// Kill ends the server as kill -9 does: what it has not written to its disk is lost.
// [Server.Restart] starts it again on its data.
func (s *Server) Kill() {
	if s.cmd == nil {
		return
	}
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Pause stops the server in mid-traffic (SIGSTOP), without closing its connections: clients wait
// until their time-outs.
func (s *Server) Pause() { s.signal(syscall.SIGSTOP) }

// Resume lets a paused server continue (SIGCONT) where it was; clients that waited get their
// answers then.
func (s *Server) Resume() { s.signal(syscall.SIGCONT) }

func (s *Server) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// Eventually waits until a condition holds, and fails the test if it does not hold within a minute.
func Eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
