package listen

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// keepT has a socket kept as a service manager does, and closes its listener.
func keepT(t *testing.T, l *Listener) Kept {
	t.Helper()
	kept := Kept{}
	err := l.Keep(func(name string, fd int) error {
		copied, err := unix.Dup(fd)
		kept[name] = os.NewFile(uintptr(copied), name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return kept
}

// A client that connects while no process listens is accepted by the next one.
func TestKeptSocket(t *testing.T) {
	s := Spec{Path: filepath.Join(socketDir(t), "s"), Mode: 0o660}
	kept := keepT(t, openT(t, s, Options{}))
	c, err := net.Dial("unix", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if names := kept.Discard([]Spec{s}, 0); len(kept) != 1 || len(names) != 0 {
		t.Fatalf("%v is discarded, %v left", names, kept)
	}
	l := openT(t, s, Options{Kept: kept})
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := accepted.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	err = l.Keep(func(string, int) error {
		t.Error("the socket is kept twice")
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A paused listener leaves connections to its successor, and Accept waits for Close.
func TestPause(t *testing.T) {
	s := Spec{Path: filepath.Join(socketDir(t), "s"), Mode: 0o660}
	l := openT(t, s, Options{})
	if l.Pause() {
		t.Error("a socket that nobody keeps is paused")
	}
	kept := Kept{}
	err := l.Keep(func(name string, fd int) error {
		copied, err := unix.Dup(fd)
		kept[name] = os.NewFile(uintptr(copied), name)
		return err
	})
	if err != nil || !l.Pause() {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	next := openT(t, s, Options{Kept: kept})
	if _, err := next.Accept(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		t.Errorf("Accept ended before Close: %v", err)
	default:
	}
	_ = l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A kept socket whose setting has changed, or whose file was replaced, is not used again.
func TestKeptSocketOfOtherSettings(t *testing.T) {
	s := Spec{Path: filepath.Join(socketDir(t), "s"), Mode: 0o660}
	kept := keepT(t, openT(t, s, Options{}))
	s.Mode = 0o600
	if names := kept.Discard([]Spec{s}, 0); len(names) != 1 || len(kept) != 0 {
		t.Fatalf("%v is discarded, %v left", names, kept)
	}
	l := openT(t, s, Options{Kept: kept})
	if info, err := os.Stat(s.Path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}

	kept = keepT(t, l)
	if err := os.Remove(s.Path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path, []byte("another's"), 0o600); err != nil {
		t.Fatal(err)
	}
	if kept.Discard(nil, 0); len(kept) != 0 {
		t.Errorf("%v is left", kept)
	}
	if b, err := os.ReadFile(s.Path); err != nil || string(b) != "another's" {
		t.Errorf("the file of somebody else was touched: %q, %v", b, err)
	}
}
