package listen

import (
	"fmt"
	"net"
	"slices"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Peer is the process at the other end of a unix socket, as it was when it connected.
type Peer struct {
	UID    uint32
	GID    uint32   // its primary group
	Groups []uint32 // its supplementary groups
	PID    int32    // in our PID namespace; 0 when it lives outside
}

// In reports whether gid is the peer's primary group or one of its supplementary ones.
func (p Peer) In(gid uint32) bool { return p.GID == gid || slices.Contains(p.Groups, gid) }

// String names the peer of a unix socket as an operator looks for it: process, user and group by
// their numbers, as ps shows them.
func (p Peer) String() string { return fmt.Sprintf("pid %d (uid %d, gid %d)", p.PID, p.UID, p.GID) }

// PeerCred asks the kernel who is at the other end of c, a unix socket's connection or anything
// that wraps one and gives it away through a method NetConn, as *tls.Conn and the connections of
// Open do. The error is set for any other connection; the Peer is then not to be used.
func PeerCred(c net.Conn) (Peer, error) {
	for {
		if sc, ok := c.(syscall.Conn); ok {
			return peerCred(sc)
		}
		w, ok := c.(interface{ NetConn() net.Conn })
		if !ok {
			return Peer{}, fmt.Errorf("peer credential of a %T: it has no socket", c)
		}
		c = w.NetConn()
	}
}

func peerCred(sc syscall.Conn) (Peer, error) {
	raw, err := sc.SyscallConn()
	if err != nil {
		return Peer{}, fmt.Errorf("peer credential: %w", err)
	}
	var p Peer
	var sockErr error
	err = raw.Control(func(fd uintptr) {
		var domain int
		if domain, sockErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); sockErr != nil {
			return
		}
		if domain != unix.AF_UNIX {
			sockErr = unix.EAFNOSUPPORT // SO_PEERCRED of a TCP socket answers without an error, with an unset credential
			return
		}
		var cred *unix.Ucred
		if cred, sockErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); sockErr != nil {
			return
		}
		p = Peer{UID: cred.Uid, GID: cred.Gid, PID: cred.Pid}
		p.Groups, sockErr = peerGroups(fd)
	})
	if err == nil {
		err = sockErr
	}
	if err != nil {
		return Peer{}, fmt.Errorf("peer credential: %w", err)
	}
	return p, nil
}

// peerGroups reads SO_PEERGROUPS, for which x/sys has no call. Reading /proc/PID/status instead
// would race with the reuse of the PID. A first buffer too small is answered with ERANGE and the
// size that is needed.
func peerGroups(fd uintptr) ([]uint32, error) {
	groups := make([]uint32, 32)
	for {
		size := uint32(len(groups) * 4) //nolint:gosec // at most NGROUPS_MAX, 65536, times four
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, fd, unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(unsafe.SliceData(groups))), uintptr(unsafe.Pointer(&size)), 0) //nolint:gosec // the kernel writes at most size bytes
		switch {
		case errno == 0:
			return groups[:size/4], nil
		case errno == unix.ERANGE && int(size/4) > len(groups):
			groups = make([]uint32, size/4)
		default:
			return nil, errno
		}
	}
}
