package checkpassword

import (
	"errors"
	"io"
	"strings"
	"syscall"
	"unsafe"
)

// This file is what packages os, net and time would do. os and time alone cost a tenth of the
// program's time, and os does worse: with a non-blocking stderr its initialisation makes an epoll
// descriptor, 5 or above, which closeFrom would close under the runtime's feet.

// maxSocketPath is the size of sun_path with its NUL, unix(7).
const maxSocketPath = 108

// sysCloseRange is the same on every architecture, close_range(2).
const sysCloseRange = 436

var errTimeout = errors.New("out of time")

// An instant is a time of CLOCK_MONOTONIC, or a duration, in nanoseconds.
type instant int64

const millisecond instant = 1e6

func now() instant {
	const clockMonotonic = 1
	var ts syscall.Timespec
	//nolint:gosec // package syscall has no clock_gettime(2); ts outlives the call
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, clockMonotonic, uintptr(unsafe.Pointer(&ts)), 0)
	return instant(ts.Nano())
}

// poll(2).
const (
	pollIn  = 0x1
	pollOut = 0x4
)

type pollFD struct {
	fd      int32
	events  int16
	revents int16
}

// wait waits until fd is ready for events or has an error, which the next call on it returns. A
// negative fd is never ready. The error is errTimeout, or ppoll's.
func wait(fd int, events int16, by instant) error {
	for {
		left := by - now()
		if left <= 0 {
			return errTimeout
		}
		set := pollFD{fd: int32(fd), events: events} //nolint:gosec // descriptors are small
		ts := syscall.NsecToTimespec(int64(left))
		//nolint:gosec // package syscall has no ppoll(2); set and ts outlive the call
		n, _, errno := syscall.Syscall6(syscall.SYS_PPOLL, uintptr(unsafe.Pointer(&set)), 1, uintptr(unsafe.Pointer(&ts)), 0, 0, 0)
		switch {
		case errno == syscall.EINTR:
		case errno != 0:
			return errno
		case n == 0:
			return errTimeout
		default:
			return nil
		}
	}
}

// A file is a descriptor on which every operation ends by a time, however little comes at once.
type file struct {
	fd int
	by instant
}

// Read implements [io.Reader].
func (f file) Read(p []byte) (int, error) {
	for {
		if err := wait(f.fd, pollIn, f.by); err != nil {
			return 0, err
		}
		n, err := syscall.Read(f.fd, p)
		switch {
		case again(err):
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// Write implements [io.Writer]. On a blocking pipe p must be less than 4096 bytes, which then fit
// or have to wait.
func (f file) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if err := wait(f.fd, pollOut, f.by); err != nil {
			return done, err
		}
		n, err := syscall.Write(f.fd, p[done:])
		switch {
		case again(err):
		case err != nil:
			return done, err
		default:
			done += n
		}
	}
	return done, nil
}

func (f file) close() { _ = syscall.Close(f.fd) }

func again(err error) bool { return errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) }

// dial connects to a unix stream socket. When the daemon's backlog is full it waits its turn.
func dial(path string, by instant) (file, error) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return file{}, err
	}
	f := file{fd: fd, by: by}
	for {
		left := by - now()
		if left <= 0 {
			f.close()
			return file{}, errTimeout
		}
		timeout := syscall.NsecToTimeval(int64(left))
		err = syscall.SetsockoptTimeval(fd, syscall.SOL_SOCKET, syscall.SO_SNDTIMEO, &timeout)
		if err == nil {
			err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		}
		if !again(err) {
			break
		}
	}
	if err == nil {
		err = syscall.SetNonblock(fd, true)
	}
	if err != nil {
		f.close()
		return file{}, err
	}
	return f, nil
}

// closeFrom closes all descriptors from first up.
func closeFrom(first int) {
	_, _, errno := syscall.RawSyscall(sysCloseRange, uintptr(first), uintptr(^uint32(0)), 0)
	if errno == 0 {
		return
	}
	// A kernel before 5.9, or a filter that does not know the call.
	var limit syscall.Rlimit
	_ = syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	closeEach(first, int(min(limit.Cur, 1<<16)))
}

// closeEach closes the descriptors from first up to, but not including, end.
func closeEach(first, end int) {
	for fd := first; fd < end; fd++ {
		_ = syscall.Close(fd)
	}
}

func isOpen(fd int) bool {
	var st syscall.Stat_t
	return syscall.Fstat(fd, &st) == nil
}

// givesCredentials reports whether fd is a pipe, a socket or a file: no terminal, which a person
// would have to end.
func givesCredentials(fd int) bool {
	var st syscall.Stat_t
	if err := syscall.Fstat(fd, &st); err != nil {
		return false
	}
	kind := st.Mode & syscall.S_IFMT
	return kind == syscall.S_IFIFO || kind == syscall.S_IFSOCK || kind == syscall.S_IFREG
}

// run replaces the process by argv, found as execvp(3) does. It returns only on failure.
func run(argv []string, env Environment) error {
	name := argv[0]
	if base(name) != name {
		return syscall.Exec(name, argv, env) //nolint:gosec // the administrator's own command line
	}
	path := env.Get("PATH")
	if path == "" {
		path = "/bin:/usr/bin"
	}
	for dir := range strings.SplitSeq(path, ":") {
		if dir == "" {
			dir = "."
		}
		//nolint:gosec // the administrator's own command line
		if err := syscall.Exec(dir+"/"+name, argv, env); !errors.Is(err, syscall.ENOENT) {
			return err
		}
	}
	return syscall.ENOENT
}
