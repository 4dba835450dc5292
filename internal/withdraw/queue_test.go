package withdraw

import (
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// served runs the package's program on a socket for each connection, as systemd does, with commands in
// place of Postfix' ones.
func served(t *testing.T, commands string) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if file, err := conn.File(); err == nil {
				cmd := exec.Command("sh", "-c", commands+"\n"+strings.Join([]string{
					"script=$(sed 's,/usr/sbin/postqueue,postqueue,; s,/usr/sbin/postsuper,postsuper,; s,/usr/sbin/postcat,postcat,' ../../contrib/packaging/queue)", `eval "$script"`,
				}, "\n"))
				cmd.Stdin, cmd.Stdout = file, file
				_ = cmd.Run()
				_ = file.Close()
			}
			_ = conn.Close()
		}
	}()
	return []string{"unix:" + path}
}

func TestQueueSocket(t *testing.T) {
	s := &Site{Postqueue: served(t, `postqueue() { echo '{"queue_id":"3F2A11C","arrival_time":1700000000}'; }`)}
	if queue, err := s.queue(t.Context()); err != nil || len(queue) != 1 || queue[0].id != "3F2A11C" || queue[0].arrived.IsZero() {
		t.Errorf("the queue: %v, %v", queue, err)
	}
	s.Postqueue = served(t, `postqueue() { echo '{"queue_id":"3F2A11C","arrival_time":1700000000}'; return 69; }`)
	if queue, err := s.queue(t.Context()); err == nil || !strings.Contains(err.Error(), "exit 69") {
		t.Errorf("a queue that cannot be listed: %v, %v", queue, err)
	}
	s.Postqueue = served(t, `postqueue() { exit 1; }`)
	if queue, err := s.queue(t.Context()); err == nil {
		t.Errorf("an answer that is cut off: %v", queue)
	}
	// Whatever the daemon writes, it is queue ids only.
	removed := filepath.Join(t.TempDir(), "removed")
	s.Postsuper = served(t, "postsuper() { cat >"+removed+"; }")
	if err := s.unqueue(t.Context(), []string{"3F2A11C", "ALL", "-r", "4yZ9pX3mQ1z2"}); err != nil {
		t.Error(err)
	}
	if out, err := exec.Command("cat", removed).Output(); err != nil || string(out) != "3F2A11C\n4yZ9pX3mQ1z2\n" {
		t.Errorf("removed: %q, %v", out, err)
	}
	s.Postsuper = []string{"unix:" + filepath.Join(t.TempDir(), "none")}
	if err := s.unqueue(t.Context(), []string{"3F2A11C"}); err == nil || !strings.Contains(err.Error(), "drawbridge-queue.socket") {
		t.Errorf("without the socket: %v", err)
	}
}
