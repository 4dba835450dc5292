package listen

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kept are listening unix sockets that the service manager has kept open since the former run of
// this service, by name. Connections wait in their queues meanwhile.
type Kept map[string]*os.File

// identity is the name of a kept socket: which file it is, and what it was opened for. A file that
// was replaced, a changed Spec and another owner ([Options]) have another.
func (s Spec) identity(owner int) (string, error) {
	info, err := os.Lstat(s.Path)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%d %s", owner, s))
	return fileIdentity(info) + "-" + hex.EncodeToString(sum[:8]), nil
}

func fileIdentity(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type() != fs.ModeSocket {
		return "none"
	}
	return fmt.Sprintf("%x-%x", st.Dev, st.Ino)
}

// take returns the kept socket of a Spec, or nil.
func (k Kept) take(s Spec, owner int) (*net.UnixListener, error) {
	name, err := s.identity(owner)
	file := k[name]
	if err != nil || file == nil { // no socket there, or none that was kept
		return nil, nil
	}
	delete(k, name)
	defer file.Close() //nolint:errcheck // it is duplicated
	l, err := net.FileListener(file)
	if err != nil {
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, fmt.Errorf("the kept socket is of type %T: %w", l, net.UnknownNetworkError("unix"))
	}
	return u, nil
}

// Discard closes the sockets that none of specs is for, removes their files, and returns their names.
// Call it before Open: their files would count as another process's.
func (k Kept) Discard(specs []Spec, owner int) (names []string) {
	wanted := map[string]bool{}
	for _, s := range specs {
		if name, err := s.identity(owner); s.Unix() && err == nil {
			wanted[name] = true
		}
	}
	for name, file := range k {
		if wanted[name] {
			continue
		}
		if address, err := unix.Getsockname(int(file.Fd())); err == nil {
			if u, ok := address.(*unix.SockaddrUnix); ok && u.Name != "" {
				if info, err := os.Lstat(u.Name); err == nil && strings.HasPrefix(name, fileIdentity(info)+"-") {
					_ = os.Remove(u.Name) // if it stays, Open says so
				}
			}
		}
		_ = file.Close()
		delete(k, name)
		names = append(names, name)
	}
	return names
}

// Keep gives a unix socket and its name to send, which has the service manager keep it. The
// socket's file then outlives Close. Inet listeners and sockets that were kept before need nothing.
func (l *Listener) Keep(send func(name string, fd int) error) error {
	if l.unix == nil || l.kept {
		return nil
	}
	name, err := l.spec.identity(l.owner)
	if err != nil {
		return err
	}
	raw, err := l.unix.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = send(name, int(fd)) }); err != nil {
		return err
	}
	if sent == nil {
		l.unix.SetUnlinkOnClose(false)
		l.kept = true
	}
	return sent
}

// Pause accepts no more connections, without ending Accept: they wait for the next run of the
// service. False, without effect, unless the service manager keeps the socket.
func (l *Listener) Pause() bool {
	if l.kept {
		l.patient.pause()
	}
	return l.kept
}
