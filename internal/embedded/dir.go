package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode"

	"golang.org/x/sys/unix"
)

const (
	lockName   = "lock"
	socketName = "redis.sock"
	dataName   = "appendonlydir"
	leftovers  = "temp-rewriteaof-*.aof" // of a rewrite that was killed
	maxSocket  = 107                     // bytes of a unix socket's path
	orphanWait = 10 * time.Second        // for the redis-server of a dead process to end
)

// configuration is the text that redis-server reads from standard input. Every setting that keeps data safe
// is named, so that no default of another version decides. Without the preamble the file is commands
// only, which Redis and Valkey of all versions read; with it, theirs alone.
func configuration(dir string) string {
	quote := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	return `port 0
unixsocket ` + quote(filepath.Join(dir, socketName)) + `
unixsocketperm 600
dir ` + quote(dir) + `
daemonize no
supervised no
logfile ""
loglevel notice
always-show-logo no
databases 1
maxclients 1000
appendonly yes
appenddirname ` + dataName + `
appendfilename appendonly.aof
appendfsync always
no-appendfsync-on-rewrite no
aof-use-rdb-preamble no
aof-load-truncated yes
save ""
maxmemory 0
maxmemory-policy noeviction
`
}

// prepare creates the directory if needed, and refuses one that others can reach or that holds what
// is not ours.
func prepare(dir string) error {
	if !filepath.IsAbs(dir) || strings.ContainsFunc(dir, unicode.IsControl) {
		return fmt.Errorf("%q is not an absolute path: start it with /", dir)
	}
	if socket := filepath.Join(dir, socketName); len(socket) > maxSocket {
		return fmt.Errorf("%s has %d bytes, too long for a unix socket (at most %d): choose a shorter state_dir", socket, len(socket), maxSocket)
	}
	err := os.Mkdir(dir, 0o700)
	switch {
	case err == nil, errors.Is(err, fs.ErrExist):
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s does not exist: create it ('install -d -m 0700 %s' as the daemon's user)", filepath.Dir(dir), filepath.Dir(dir))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("uid %d may not write to %s: give it that directory, or choose another state_dir: %w", os.Geteuid(), filepath.Dir(dir), syscall.EACCES)
	default:
		return err
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.IsDir() || !ok:
		return errors.New("is not a directory: choose another state_dir")
	case int64(st.Uid) != int64(os.Geteuid()):
		return fmt.Errorf("belongs to uid %d, and we are uid %d: run as its owner, or choose another state_dir", st.Uid, os.Geteuid())
	case info.Mode().Perm()&0o077 != 0:
		return fmt.Errorf("is open to others (mode %04o): 'chmod 0700 %s'", uint32(info.Mode().Perm()), dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !ours(e.Name()) {
			return fmt.Errorf("contains %q, which is not the store's: move it away, or choose another state_dir", e.Name())
		}
	}
	return nil
}

// ours reports whether this package or redis-server creates a file of this name.
func ours(name string) bool {
	return slices.ContainsFunc([]string{lockName, socketName, dataName, "dump.rdb", "temp-*.rdb", leftovers}, func(pattern string) bool {
		match, err := filepath.Match(pattern, name)
		return match && err == nil
	})
}

// acquire takes the lock and writes our PID into it. When the process named there is dead, its
// redis-server is dying as well, and is waited for.
func acquire(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(ctx, f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	pid := strconv.Itoa(os.Getpid()) + "\n"
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(pid), 0)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func lockFile(ctx context.Context, f *os.File) error {
	deadline := time.Now().Add(orphanWait)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		holder := readPID(f)
		if holder > 0 && !errors.Is(unix.Kill(holder, 0), unix.ESRCH) {
			return fmt.Errorf("already in use by pid %d: stop it, or choose another state_dir", holder)
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("already in use ('fuser %s' shows by whom): stop it, or choose another state_dir", f.Name())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the redis-server of pid %d, which is dead, to end: %w", holder, context.Cause(ctx))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// readPID returns the number in the file, or 0.
func readPID(f *os.File) int {
	var buf [24]byte
	n, _ := f.ReadAt(buf[:], 0) // the file is shorter, which is an error
	pid, err := strconv.ParseInt(strings.TrimSpace(string(buf[:n])), 10, 32)
	if err != nil || pid < 0 {
		return 0
	}
	return int(pid)
}

// removeLeftovers deletes the files of a killed rewrite, which redis-server itself never does. Only
// under the lock.
func removeLeftovers(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if match, _ := filepath.Match(leftovers, e.Name()); match {
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
