// Package embedded runs the private redis-server of store.url = "embedded", so that a trial or a
// small site has nothing to set up. It is an ordinary Redis behind a unix socket in a directory of
// its own, with no TCP port and every write fsynced to an append-only file before it is answered;
// the code that uses it is the code that uses any other Redis.
//
//	DIR/redis.sock       where it listens, mode 0600
//	DIR/appendonlydir/   the data
//	DIR/lock             held (flock) by this process and by redis-server, so that no second server can write the same files
//
// The directory has mode 0700, belongs to this user and holds nothing else; any other is refused.
// The configuration goes through standard input: no file, no arguments. A redis-server of the
// system is never touched. Where only Valkey is installed, its valkey-server runs instead.
//
// When redis-server dies it is started again, after 0.1 to 10 seconds, with every acknowledged
// write. When this process dies, however it dies, the kernel kills redis-server; a successor waits
// for its end.
//
// # Diagnostics
//
// The output of redis-server is logged with level debug, and its warnings, once it is up, with level
// warn. Start answers with one line that says what to do: redis-server is not installed, the
// directory is not ours or in use, the path is too long, the data is damaged. Damaged data is never
// repaired here, because the repair drops everything behind the damage: the server stops for good
// (Done, Err), the files stay as they are, and the error names the commands. A last command that
// was cut off while being written is no damage; it was never acknowledged. Data that another server
// wrote in a form of its own (before Drawbridge had it written as commands) is not damaged, and the
// error says which server to start once more.
//
// A full disk is not noticed here: redis-server continues and answers writes with MISCONF.
package embedded

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

const (
	firstDelay = 100 * time.Millisecond // before redis-server is started again
	lastDelay  = 10 * time.Second
	steady     = time.Minute      // up for so long, it has earned the first delay again
	silence    = 30 * time.Second // without any answer while starting, it is killed
)

// Options say where the store is kept and how it is run.
type Options struct {
	// Dir is the absolute path of the directory; it is created if only its last part is missing.
	Dir string
	// Program is the server's path or name; "" means what [Program] finds.
	Program string
	// Log receives the ends and restarts of redis-server, and its output. nil discards.
	Log hclog.Logger
}

// Program returns the path of the server program that is called name. For "" it looks up
// redis-server in PATH, then valkey-server. Each reads what the others wrote.
func Program(name string) (string, error) {
	names := []string{name}
	if name == "" {
		names = []string{"redis-server", "valkey-server"}
	}
	var faults []error
	for _, n := range names {
		path, err := exec.LookPath(n)
		if err == nil {
			return path, nil
		}
		faults = append(faults, err)
	}
	return "", fmt.Errorf("%s cannot be run: 'apt-get install redis-server' (or valkey-server), or set store.url to a Redis of your own: %w",
		strings.Join(names, " or "), errors.Join(faults...))
}

// A Server is a running redis-server and its supervisor.
type Server struct {
	dir     string
	socket  string
	program string
	log     hclog.Logger
	lock    *os.File

	ready     func() // closes up
	up        chan struct{}
	beginStop func() // closes stopping
	stopping  chan struct{}
	done      chan struct{}

	mu  sync.Mutex
	pid int   // of the running child; 0 when there is none that may be signalled
	err error // set before done is closed
}

// Start runs a redis-server and returns once it answers. Loading a lot of data takes time: ctx
// bounds it. Ending ctx later has no effect; use Stop.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := start(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("embedded store in %s: %w", o.Dir, err)
	}
	return s, nil
}

func start(ctx context.Context, o Options) (*Server, error) {
	if o.Log == nil {
		o.Log = hclog.NewNullLogger()
	}
	program, err := Program(o.Program)
	if err != nil {
		return nil, err
	}
	if err := prepare(o.Dir); err != nil {
		return nil, err
	}
	lock, err := acquire(ctx, filepath.Join(o.Dir, lockName))
	if err != nil {
		return nil, err
	}
	s := &Server{
		dir:      o.Dir,
		socket:   filepath.Join(o.Dir, socketName),
		program:  program,
		log:      o.Log,
		lock:     lock,
		up:       make(chan struct{}),
		stopping: make(chan struct{}),
		done:     make(chan struct{}),
	}
	s.ready = sync.OnceFunc(func() { close(s.up) })
	s.beginStop = sync.OnceFunc(func() { close(s.stopping) })
	go s.supervise()
	select {
	case <-s.up:
		return s, nil
	case <-s.done:
		return nil, s.err
	case <-ctx.Done():
		ended, cancel := context.WithCancel(context.WithoutCancel(ctx))
		cancel() // nothing was acknowledged yet: kill at once
		if err := s.Stop(ended); err != nil {
			s.log.Debug("killed while starting", "error", err)
		}
		return nil, fmt.Errorf("redis-server is not ready yet: %w", context.Cause(ctx))
	}
}

// URL is the store.url under which the server is reached; the same for its whole life.
func (s *Server) URL() string { return "unix://" + s.socket }

// PID is the process id of the running redis-server, or 0 between the end of one and the start of
// the next.
func (s *Server) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pid
}

// Done is closed when no redis-server runs and none will be started again: after Stop, or when Err
// says why.
func (s *Server) Done() <-chan struct{} { return s.done }

// Err returns why the server ended for good; nil while it runs and after Stop.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err == nil {
		return nil
	}
	return fmt.Errorf("embedded store in %s: %w", s.dir, s.err)
}

// Stop ends redis-server and waits for it. When ctx ends first it is killed, which loses no
// acknowledged write, and the error says so. Further calls wait as well.
func (s *Server) Stop(ctx context.Context) error {
	s.beginStop()
	s.signal(unix.SIGTERM)
	select {
	case <-s.done:
		return nil
	case <-ctx.Done():
	}
	s.signal(unix.SIGKILL)
	<-s.done
	return fmt.Errorf("embedded store in %s: redis-server was killed: %w", s.dir, context.Cause(ctx))
}

// signal reaches the child only while its PID is its own: supervise takes the number back before it
// reaps.
func (s *Server) signal(sig unix.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pid != 0 {
		if err := unix.Kill(s.pid, sig); err != nil {
			s.log.Warn("cannot signal redis-server", "pid", s.pid, "error", err)
		}
	}
}

func (s *Server) isStopping() bool {
	select {
	case <-s.stopping:
		return true
	default:
		return false
	}
}

// supervise runs one redis-server after the other. It keeps its thread, which ends with it:
// Pdeathsig fires when the thread that forked ends, not the process.
func (s *Server) supervise() {
	runtime.LockOSThread()
	defer close(s.done)
	defer s.lock.Close() //nolint:errcheck // closing ends the lock; nothing to lose
	delay := firstDelay
	for {
		began := time.Now()
		err := s.run()
		if s.isStopping() {
			return
		}
		select {
		case <-s.up:
		default: // never was ready: another attempt will not be either
			s.fail(err)
			return
		}
		if errors.Is(err, errDamaged) {
			s.log.Error("the embedded store is stopped", "error", err)
			s.fail(err)
			return
		}
		if time.Since(began) > steady {
			delay = firstDelay
		}
		s.log.Error("the embedded store died and is started again", "error", err, "in", delay)
		select {
		case <-s.stopping:
			return
		case <-time.After(delay):
		}
		delay = min(2*delay, lastDelay)
	}
}

func (s *Server) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

// run starts a redis-server and returns when it has ended, with the reason.
func (s *Server) run() error {
	if err := removeLeftovers(s.dir); err != nil {
		return err
	}
	out := &output{log: s.log, quiet: s.isStopping}
	cmd := exec.Command(s.program, "-") //nolint:gosec // the program is the administrator's
	cmd.Dir = s.dir
	cmd.Env = []string{"LC_ALL=C"} // not our environment, which may hold secrets
	cmd.Stdin = strings.NewReader(configuration(s.dir))
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{s.lock} // the lock outlives us until redis-server and its forks have ended, too
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setpgid:   true, // Ctrl-C is for us; we stop it in order
		Pdeathsig: unix.SIGKILL,
	}
	s.mu.Lock()
	if s.isStopping() { // and if not yet, Stop finds the PID
		s.mu.Unlock()
		return nil
	}
	err := cmd.Start()
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("start redis-server: %w", err)
	}
	pid := cmd.Process.Pid
	s.pid = pid
	s.mu.Unlock()

	exited, probed := make(chan struct{}), make(chan bool)
	go func() {
		ready := s.probe(exited)
		if ready {
			out.becomeReady()
			s.ready()
			s.makePortable()
			s.log.Info("the embedded store is ready", "pid", pid)
		}
		probed <- ready
	}()
	waitErr := awaitExit(pid)
	s.mu.Lock()
	s.pid = 0
	s.mu.Unlock()
	// Its forks (a rewrite of the file) end with it. It is not reaped yet, so the group's number is
	// still its own.
	_ = unix.Kill(-pid, unix.SIGKILL)
	if err := cmd.Wait(); err != nil {
		waitErr = err
	}
	close(exited)
	ready := <-probed
	if !ready && cmd.ProcessState.ExitCode() == 1 && (out.foreignFile() || foreignBase(s.dir, out.lastWarning())) {
		return fmt.Errorf("%w, which %s does not read, and was left as it is: set store.program to the former server and start "+
			"once, which rewrites the file for all servers, then change the server; or put a backup in its place", errForeign, s.program)
	}
	if !ready && cmd.ProcessState.ExitCode() == 1 && damaged(out.lastWarning()) {
		return fmt.Errorf("%w and was left as it is (redis-server: %s): make a copy ('cp -a %s %s.damaged'), then "+
			"'%s --fix %s', which drops everything behind the damage, or put a backup in its place",
			errDamaged, out.lastWarning(), s.dir, s.dir, strings.Replace(filepath.Base(s.program), "-server", "-check-aof", 1), filepath.Join(s.dir, dataName, "appendonly.aof.manifest"))
	}
	if waitErr == nil {
		waitErr = errors.New("exit status 0")
	}
	return fmt.Errorf("redis-server ended: %w: %s", waitErr, out.lastWarning())
}

var (
	errDamaged = errors.New("the data is damaged")
	errForeign = errors.New("the data was written by another server or a newer version of it")
)

// bases are files that servers before aof-use-rdb-preamble was switched off have written, in a form
// that only they and their successors read.
func bases(dir string) []string {
	found, _ := filepath.Glob(filepath.Join(escapePattern(dir), dataName, "*.base.rdb")) // the pattern is right
	return found
}

// escapePattern quotes what has a meaning for [filepath.Glob].
func escapePattern(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

// foreignBase reports whether the data begins with an intact signature of Valkey 9 or later that the
// server took for commands, as redis 7 words it. A server that reads the form reports other faults.
func foreignBase(dir, words string) bool {
	if !strings.Contains(words, "Bad file format reading the append only file") {
		return false
	}
	for _, path := range bases(dir) {
		if b, err := os.ReadFile(path); err == nil && strings.HasPrefix(string(b), "VALKEY") && strings.Contains(words, filepath.Base(path)) {
			return true
		}
	}
	return false
}

// makePortable has the data rewritten as commands if it is not. The server does it beside its work;
// if it fails, the next start tries again.
func (s *Server) makePortable() {
	if len(bases(s.dir)) == 0 {
		return
	}
	answer, err := ask(s.socket, "BGREWRITEAOF")
	if err != nil || !strings.HasPrefix(answer, "+") {
		s.log.Warn("the data could not be rewritten for other servers", "error", err, "answer", answer)
		return
	}
	s.log.Info("the data is rewritten so that every version of Redis and Valkey reads it")
}

// damaged reports whether redis-server's last words before exit status 1 mean that its files are, as
// redis 7 words it.
func damaged(words string) bool {
	if strings.Contains(words, "Permission denied") || strings.Contains(words, "No space left") {
		return false
	}
	for _, sign := range []string{
		"Bad file format reading the append only file",
		"Unexpected end of file reading the append only file",
		"Unrecoverable error reading the append only file",
		"AOF manifest",
		"Unable to obtain the AOF file",
		"loading the DB",
		"RDB",
		"rdb file reading failure",
	} {
		if strings.Contains(words, sign) {
			return true
		}
	}
	return false
}

// awaitExit returns when the child has ended, without reaping it.
func awaitExit(pid int) error {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// probe returns true as soon as redis-server answers PING with PONG, false when it has ended
// before. Loading may take as long as it takes; a server that says nothing at all is killed.
func (s *Server) probe(exited <-chan struct{}) bool {
	heard, pause := time.Now(), 2*time.Millisecond
	for {
		switch ping(s.socket) {
		case pong:
			return true
		case loading:
			heard = time.Now()
		case nothing:
			if time.Since(heard) > silence {
				s.log.Error("redis-server does not answer and is killed", "after", silence)
				s.signal(unix.SIGKILL)
				heard = time.Now()
			}
		}
		select {
		case <-exited:
			return false
		case <-time.After(pause):
		}
		pause = min(2*pause, 100*time.Millisecond)
	}
}

type answer int

const (
	nothing answer = iota
	loading
	pong
)

// ping asks once, as an inline command, within a second.
func ping(socket string) answer {
	line, err := ask(socket, "PING")
	switch {
	case err != nil:
		return nothing
	case line == "+PONG\r\n":
		return pong
	case strings.HasPrefix(line, "-LOADING"):
		return loading
	default:
		return nothing
	}
}

// ask sends an inline command and returns the first line of the answer.
func ask(socket, command string) (string, error) {
	c, err := net.DialTimeout("unix", socket, time.Second)
	if err != nil {
		return "", err
	}
	defer c.Close() //nolint:errcheck // nothing to lose
	if err := c.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	line, err := bufio.NewReaderSize(c, 256).ReadSlice('\n')
	return string(line), err
}
