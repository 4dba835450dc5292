// Package listen opens the sockets that Drawbridge serves on, from one line of text each:
//
//	unix:/run/drawbridge/login.sock?mode=0660&group=dovecot
//	inet:127.0.0.1:10040
//	inet:[::1]:10040
//	inet:192.0.2.7:10040?allow_from=192.0.2.0/24,2001:db8::/32
//	inet:192.0.2.7:8480?tls_cert=/etc/drawbridge/cert.pem&tls_key=/etc/drawbridge/key.pem
//
// A unix socket is made with mode 0600 and reaches its wider mode only once it belongs to its user
// and group, so that no other process can connect in between. Closing the listener removes it where the process may;
// otherwise a dead socket stays. A socket that a dead process left is removed; a live one, a file
// that is no socket, or another user's socket is never touched. Two daemons that start at once
// cannot take the socket from each other: the directory is locked (flock) meanwhile.
//
// An inet listener beyond loopback needs allow_from or TLS. With allow_from only those networks may
// connect, and loopback is not among them unless it is named. "[::]" takes IPv4 as well.
// Certificates are read at the start and by [Listener.LoadCertificate].
//
// # Diagnostics
//
// Parse and Open answer with one line that names the listener and says what to do: the port is
// taken, the directory is missing or not writable, the group is unknown, the path is too long,
// another process has the socket. A connection that is refused is logged with its peer. A reached
// connection limit is logged at most once a minute. Running out of files is logged and waited out.
//
// It does not rate connections. Systemd opens no sockets for it, but keeps them through a restart
// ([Listener.Keep], [Kept]).
package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// DefaultMaxConns is how many connections a listener keeps open at a time unless Options say
// otherwise.
const DefaultMaxConns = 1024

// Options are the settings of a listener that its text does not contain.
type Options struct {
	// MaxConns bounds the connections open at a time; further ones wait in the kernel's queue. 0
	// means DefaultMaxConns.
	MaxConns int
	// OwnersOnly admits to a unix socket, whatever its mode, only root, the user this process runs
	// as when the connection comes, and the Spec's user and group, by the peer credentials of the
	// kernel. No effect on inet.
	OwnersOnly bool
	// Owner is the user that this process changes to after Open: unix sockets whose Spec names no
	// user belong to it. 0 leaves the process's own.
	Owner int
	// Kept are the sockets of the former run: one of the same Spec is used again.
	Kept Kept
	// Log records refused connections, accept errors and a reached limit. nil discards.
	Log hclog.Logger
}

// Open binds s and listens on it. Accept survives passing errors (too many open files), and returns
// only connections that s and o admit. The error is one line that says what to do.
func Open(s Spec, o Options) (*Listener, error) {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	if o.MaxConns <= 0 {
		o.MaxConns = DefaultMaxConns
	}
	if !s.Unix() && !s.Addr.IsValid() {
		return nil, errors.New("listen: neither a path nor an address is given")
	}
	l, err := open(s, o)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", s, err)
	}
	return l, nil
}

// A Listener accepts the connections that its Spec and Options admit, and closes others at once. It
// survives passing errors of Accept.
type Listener struct {
	net.Listener
	limit *limited
	spec  Spec
	unix  *net.UnixListener                // nil for an inet listener
	kept  bool                             // by the service manager
	owner int                              // of the options
	cert  *atomic.Pointer[tls.Certificate] // nil without TLS

	patient *patient // of a unix socket
}

// LoadCertificate reads the certificate and its key again. The returned function shows them to new
// connections. Without TLS there is nothing to do.
func (l *Listener) LoadCertificate() (apply func(), err error) {
	if l.cert == nil {
		return func() {}, nil
	}
	cert, err := tls.LoadX509KeyPair(l.spec.TLSCert, l.spec.TLSKey)
	if err != nil {
		return nil, fmt.Errorf("%s: read the certificate and its key: %w", l.spec.Address(), err)
	}
	return func() { l.cert.Store(&cert) }, nil
}

// Connections returns how many connections are open and how many may be; further ones wait in the
// kernel's queue.
func (l *Listener) Connections() (open, limit int) {
	return int(l.limit.open.Load()), cap(l.limit.slots)
}

// LimitReached returns how often every connection was in use, so that further ones had to wait.
func (l *Listener) LimitReached() uint64 { return l.limit.reached.Load() }

func open(s Spec, o Options) (*Listener, error) {
	if s.Unix() {
		uid, gid, err := s.owner()
		if err != nil {
			return nil, err
		}
		if uid < 0 && o.Owner > 0 {
			uid = o.Owner
		}
		raw, err := o.Kept.take(s, o.Owner)
		if err != nil {
			return nil, err
		}
		kept := raw != nil
		if !kept {
			if raw, err = openUnix(s, uid, gid); err != nil {
				return nil, err
			}
		}
		patient := newPatient(raw, o.Log)
		var l net.Listener = patient
		if o.OwnersOnly {
			l = &filtered{Listener: l, admit: admitPeers(owners(uid, gid)), log: o.Log}
		}
		limit := newLimited(l, o.MaxConns, o.Log)
		return &Listener{Listener: limit, limit: limit, spec: s, unix: raw, kept: kept, owner: o.Owner, patient: patient}, nil
	}

	var certificate *atomic.Pointer[tls.Certificate]
	if s.TLS() {
		cert, err := tls.LoadX509KeyPair(s.TLSCert, s.TLSKey)
		if err != nil {
			return nil, fmt.Errorf("read the certificate and its key: %w", err)
		}
		certificate = &atomic.Pointer[tls.Certificate]{}
		certificate.Store(&cert)
	}
	l, err := openInet(s)
	if err != nil {
		return nil, err
	}
	l = newPatient(l, o.Log)
	if len(s.AllowFrom) > 0 {
		l = &filtered{Listener: l, admit: admitNetworks(s.AllowFrom), log: o.Log}
	}
	limit := newLimited(l, o.MaxConns, o.Log)
	l = limit
	if certificate != nil {
		l = tls.NewListener(l, &tls.Config{ // outermost, for net/http looks for a *tls.Conn
			GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return certificate.Load(), nil },
			MinVersion:     tls.VersionTLS12,
		})
	}
	return &Listener{Listener: l, limit: limit, spec: s, cert: certificate}, nil
}

// owner looks up the numbers of the Spec's user and group; -1 where none is named.
func (s Spec) owner() (uid, gid int, err error) {
	uid, gid = -1, -1
	if s.User != "" {
		if u, err := user.Lookup(s.User); err == nil {
			uid, err = strconv.Atoi(u.Uid)
			if err != nil {
				return -1, -1, fmt.Errorf("user %s: %w", s.User, err)
			}
		} else if uid, err = parseID(s.User); err != nil {
			return -1, -1, fmt.Errorf("unknown user %q: create it, or name another with user=", s.User)
		}
	}
	if s.Group != "" {
		if g, err := user.LookupGroup(s.Group); err == nil {
			gid, err = strconv.Atoi(g.Gid)
			if err != nil {
				return -1, -1, fmt.Errorf("group %s: %w", s.Group, err)
			}
		} else if gid, err = parseID(s.Group); err != nil {
			return -1, -1, fmt.Errorf("unknown group %q: create it (is its server installed?), or name another with group=", s.Group)
		}
	}
	return uid, gid, nil
}

// parseID reads a user's or group's number. The largest value is the kernel's "no change".
func parseID(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	return int(n), err
}

// owners is the rule of Options.OwnersOnly. The process's own user is looked up each time: it
// may drop root later.
func owners(uid, gid int) func(Peer) bool {
	return func(p Peer) bool {
		return p.UID == 0 || int64(p.UID) == int64(os.Geteuid()) ||
			uid >= 0 && int64(p.UID) == int64(uid) ||
			gid >= 0 && p.In(uint32(gid)) //nolint:gosec // group numbers have 32 bits
	}
}

func openInet(s Spec) (net.Listener, error) {
	network := "tcp"
	if s.Addr.Addr().Is4() {
		network = "tcp4" // with "tcp", 0.0.0.0 would take IPv6 as well
	}
	var lc net.ListenConfig
	l, err := lc.Listen(context.Background(), network, s.Addr.String())
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("port %d is taken by another process ('ss -ltnp sport = :%d' shows it): stop it, or choose another port: %w",
			s.Addr.Port(), s.Addr.Port(), syscall.EADDRINUSE)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("port %d needs root: choose one from 1024 on, or grant CAP_NET_BIND_SERVICE: %w", s.Addr.Port(), syscall.EACCES)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s is no address of this machine ('ip addr' shows them): choose another: %w", s.Addr.Addr(), syscall.EADDRNOTAVAIL)
	default:
		return nil, err
	}
}

// openUnix creates the socket. The directory is locked, so that only one process at a time examines
// an existing file.
func openUnix(s Spec, uid, gid int) (*net.UnixListener, error) {
	if len(s.Path) > maxPath {
		return nil, fmt.Errorf("path of %d bytes is too long for a unix socket: at most %d", len(s.Path), maxPath)
	}
	dir, err := lockDir(filepath.Dir(s.Path))
	if err != nil {
		return nil, err
	}
	defer dir.Close() //nolint:errcheck // read only; closing ends the lock
	if err := removeStale(s.Path, uid); err != nil {
		return nil, explainPath(s.Path, err)
	}
	// A socket's own mode, set before bind, is what the file is created with (less the umask):
	// there is no moment in which others could connect. The umask belongs to the whole process and
	// stays alone.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if ctlErr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), uint32(defaultMode)) }); ctlErr != nil {
			return ctlErr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", s.Path)
	if err != nil {
		return nil, explainPath(s.Path, err)
	}
	if err := handOver(s, uid, gid); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l.(*net.UnixListener), nil //nolint:forcetypeassert // of a unix address
}

// lockDir opens and locks the directory of a socket. Other processes hold the lock for milliseconds,
// so the wait is bounded.
func lockDir(name string) (*os.File, error) {
	dir, err := os.Open(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("directory %s does not exist: install the server that it belongs to, create it ('install -d -m 0755 %s', or RuntimeDirectory= of systemd), "+
			"or choose another path: %w", name, name, fs.ErrNotExist)
	case err != nil:
		return nil, explainPath(filepath.Join(name, "x"), err)
	}
	info, err := dir.Stat()
	switch {
	case err != nil:
	case !info.IsDir():
		err = fmt.Errorf("%s is not a directory: choose another path", name)
	case info.Mode().Perm()&0o002 != 0 && info.Mode()&fs.ModeSticky == 0:
		err = fmt.Errorf("directory %s is writable by everyone, who could put a socket of their own there: 'chmod o-w %s'", name, name)
	default:
		err = flock(dir)
	}
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir, nil
}

func flock(dir *os.File) error {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("lock directory %s: %w", dir.Name(), err)
		case time.Now().After(deadline):
			return fmt.Errorf("directory %s is locked by another process ('fuser %s' shows it): stop it", dir.Name(), dir.Name())
		}
	}
}

// removeStale removes the socket that a dead process left at path. Any other file there is an error
// and is not touched.
func removeStale(path string, uid int) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != fs.ModeSocket {
		return fmt.Errorf("%s exists and is not a socket: remove it, or choose another path", path)
	}
	c, err := net.DialTimeout("unix", path, 2*time.Second)
	var netErr net.Error
	switch {
	case err == nil:
		peer, err := PeerCred(c)
		if closeErr := c.Close(); err != nil || closeErr != nil {
			return fmt.Errorf("%s is in use by another process: stop it, or choose another path", path)
		}
		return fmt.Errorf("%s is in use by another process, %s: stop it, or choose another path", path, peer)
	case errors.Is(err, syscall.ECONNREFUSED):
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case errors.Is(err, syscall.EAGAIN), errors.As(err, &netErr) && netErr.Timeout():
		return fmt.Errorf("%s is in use by another process, which is not answering: stop it, or choose another path", path)
	case errors.Is(err, syscall.EPROTOTYPE):
		return fmt.Errorf("%s is another program's socket: choose another path", path)
	default:
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Errorf("%s: its owner cannot be read", path)
	}
	if owner := int64(st.Uid); owner != 0 && owner != int64(os.Geteuid()) && owner != int64(uid) {
		return fmt.Errorf("%s is a dead socket of uid %d: remove it, or choose another path", path, st.Uid)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// handOver gives the new socket its owner and only then its mode. It uses a descriptor of the file
// and not its name: the owner of the directory (postfix, say) could replace the name by a link to a
// file that root must not hand over.
func handOver(s Spec, uid, gid int) error {
	fd, err := unix.Open(s.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the new socket: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // nothing was written through it
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("look at the new socket: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int64(st.Uid) != int64(os.Geteuid()) {
		return errors.New("somebody replaced the new socket: keep others from writing to its directory")
	}
	// A directory with the set-group-ID bit has given the group already, and a sandboxed service may
	// not change owners.
	if uid >= 0 && uint32(uid) != st.Uid || gid >= 0 && uint32(gid) != st.Gid { //nolint:gosec // user and group numbers have 32 bits
		if err := unix.Fchownat(fd, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("give the socket to user %q and group %q: only root can, or a member for its own group: %w", s.User, s.Group, err)
		}
	}
	mode := s.Mode
	if mode == 0 {
		mode = defaultMode
	}
	if err := os.Chmod("/proc/self/fd/"+strconv.Itoa(fd), mode); err != nil {
		return fmt.Errorf("set the mode of the socket to %04o: %w", uint32(mode), err)
	}
	return nil
}

// explainPath adds the remedy to an error of the file system.
func explainPath(path string, err error) error {
	dir := filepath.Dir(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		owner := "somebody else"
		if info, statErr := os.Stat(dir); statErr == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				owner = fmt.Sprintf("uid %d with mode %04o", st.Uid, uint32(info.Mode().Perm()))
			}
		}
		return fmt.Errorf("uid %d may not create sockets in %s, which belongs to %s: give it the directory, or choose another: %w",
			os.Geteuid(), dir, owner, syscall.EACCES)
	case errors.Is(err, syscall.EROFS):
		return fmt.Errorf("directory %s is read-only: choose another, or allow it in the unit (ReadWritePaths=): %w", dir, syscall.EROFS)
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("%s appeared meanwhile: another process is starting on it: %w", path, syscall.EADDRINUSE)
	default:
		return err
	}
}
