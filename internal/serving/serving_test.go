package serving

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStopIsBounded(t *testing.T) {
	ours, theirs := net.Pipe()
	defer func() { _ = theirs.Close() }()
	cs := connections{protocol: "policy", log: hclog.NewNullLogger(), open: map[net.Conn]Session{}}
	asked := false
	cs.add(ours, Session{FinishReading: func() { asked = true }})
	err := cs.finish(time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "1 policy connections were cut off") {
		t.Errorf("got %v", err)
	}
	if !asked {
		t.Error("the connection was cut off without being asked to finish")
	}
	if _, err := ours.Write([]byte("x")); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("writing to a connection that was cut off: %v", err)
	}
	cs.remove(ours)
}

func TestServeTellsOfALostListener(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	err = Serve(t.Context(), ln, "milter", hclog.NewNullLogger(), func(net.Conn) Session { return Session{} })
	if !errors.Is(err, net.ErrClosed) || !strings.Contains(err.Error(), "accepting milter connections") {
		t.Errorf("got %v", err)
	}
}
