// Package servingtest runs servers of internal/serving for their tests.
package servingtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Patience is how long a test waits for what should come at once.
const Patience = 10 * time.Second

// Server is what is tried.
type Server interface {
	Serve(ctx context.Context, ln net.Listener) error
}

// Trial is a server on a unix socket, stopped when the test ends.
type Trial struct {
	Socket string
	Log    Journal
	Stop   context.CancelFunc // ends Serve

	t      testing.TB
	served chan error
}

// Start starts the server that is made with a log.
func Start(t testing.TB, server func(hclog.Logger) Server) *Trial {
	t.Helper()
	tr := &Trial{Socket: filepath.Join(t.TempDir(), "s"), t: t, served: make(chan error, 1)}
	ln, err := net.Listen("unix", tr.Socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	tr.Stop = cancel
	s := server(hclog.New(&hclog.LoggerOptions{Output: &tr.Log}))
	go func() { tr.served <- s.Serve(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := tr.Wait(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return tr
}

// Wait returns what Serve returned.
func (tr *Trial) Wait() error {
	tr.t.Helper()
	select {
	case err := <-tr.served:
		tr.served <- err
		return err
	case <-time.After(Patience):
		tr.t.Error("Serve does not return")
		return nil
	}
}

// Dial connects until the test ends, or for as long as Patience lasts.
func (tr *Trial) Dial() net.Conn {
	tr.t.Helper()
	c, err := net.Dial("unix", tr.Socket)
	if err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(Patience)); err != nil {
		tr.t.Fatal(err)
	}
	return c
}

// ExpectRefused checks that nobody can connect any more.
func (tr *Trial) ExpectRefused() {
	tr.t.Helper()
	if c, err := net.Dial("unix", tr.Socket); err == nil {
		_ = c.Close()
		tr.t.Error("a stopped server accepts connections")
	}
}

// ExpectClosed checks that a connection ends without another word.
func ExpectClosed(t testing.TB, c io.Reader) {
	t.Helper()
	if rest, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) || len(rest) > 0 {
		t.Errorf("the connection says %q, %v", rest, err)
	}
}

// Journal is a log that tests read.
type Journal struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Write implements [io.Writer].
func (j *Journal) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.Write(b)
}

// String returns all that was written.
func (j *Journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.buf.String()
}
