package trialstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	readyWithin = 30 * time.Second      // from the start of a server to its first answer
	stopWithin  = 20 * time.Second      // from SIGTERM to SIGKILL
	orphanGrace = 2 * time.Second       // for processes that outlive their leader, before SIGKILL
	pollEvery   = 10 * time.Millisecond // between checks of states without an event
)

// A Service is one server of the stack. Its methods may be called from several goroutines.
type Service struct {
	Name    string
	LogPath string // its log, which also receives its output

	argv     []string
	stdin    string
	programs []string                    // prefixes of its programs' paths
	sweep    bool                        // whether processes of a killed predecessor block the next start
	prepare  func(context.Context) error // runs before each start; may be nil
	ready    func(context.Context) error // nil once it serves
	record   string                      // file with the leader's process id
	died     chan<- error

	mu      sync.Mutex
	running *running
	leaders []leader // started by this process; their sessions may have members left
}

// A running server. done is closed after its leader's end.
type running struct {
	leader  leader
	handle  *os.Process
	done    chan struct{}
	err     error // valid once done is closed
	wanted  bool  // its end was requested; guarded by Service.mu
	logFrom int64 // where its part of the log begins
}

// A leader is the first process of a session, running or not. The kernel does not reuse its process
// id while the session has members.
type leader struct {
	pid   int
	start uint64
}

// Start starts the server and returns when it is ready. It is an error if the server runs already,
// ends, or is not ready within 30 seconds; the error contains the last lines of its log.
func (s *Service) Start(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running != nil {
		return fmt.Errorf("start %s: it runs already", s.Name)
	}
	if s.sweep {
		s.endOrphans(nil)
	}
	if s.prepare != nil {
		if err := s.prepare(ctx); err != nil {
			return fmt.Errorf("start %s: %w", s.Name, err)
		}
	}
	r, err := s.launch()
	if err != nil {
		return fmt.Errorf("start %s: %w", s.Name, err)
	}
	s.running = r
	s.leaders = append(s.leaders, r.leader)
	if err := s.awaitReady(ctx, r); err != nil {
		err = fmt.Errorf("start %s: %w%s", s.Name, err, lastLines(s.LogPath, r.logFrom))
		_ = s.stop() // the first error explains more
		return err
	}
	go s.watch(r)
	return nil
}

// launch starts the leader and a goroutine that waits for its end.
func (s *Service) launch() (*running, error) {
	log, err := os.OpenFile(s.LogPath, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644) //nolint:gosec // G302: logs are for reading
	if err != nil {
		return nil, err
	}
	defer func() { _ = log.Close() }() // the server has its own descriptor
	end, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(s.argv[0], s.argv[1:]...) //nolint:gosec // G204: the stack's own servers
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C"}
	cmd.Stdout, cmd.Stderr = log, log
	if s.stdin != "" {
		cmd.Stdin = strings.NewReader(s.stdin)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}

	r := &running{done: make(chan struct{}), logFrom: end}
	started := make(chan error, 1)
	go func() {
		// Pdeathsig is sent when the thread that forked ends, so this goroutine keeps it until the
		// child is gone.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			r.err = cmd.Wait()
			close(r.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	r.handle, r.leader.pid = cmd.Process, cmd.Process.Pid
	if p, err := readProcess(r.leader.pid); err == nil { // a child that has ended already has nothing to clean up
		r.leader.start = p.start
	}
	if err := s.write(r.leader); err != nil {
		_ = r.handle.Kill() // its end is seen by waiting
		<-r.done
		return nil, err
	}
	return r, nil
}

// awaitReady polls: the servers signal readiness in different ways, none of which is an event.
func (s *Service) awaitReady(ctx context.Context, r *running) error {
	ctx, cancel := context.WithTimeoutCause(ctx, readyWithin, fmt.Errorf("not ready within %v", readyWithin))
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-r.done:
			return fmt.Errorf("it ended at once (%s)", ending(r.err))
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// watch reports an unrequested end.
func (s *Service) watch(r *running) {
	<-r.done
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.wanted {
		return
	}
	s.running = nil
	select {
	case s.died <- fmt.Errorf("%s ended by itself (%s)%s", s.Name, ending(r.err), lastLines(s.LogPath, r.logFrom)):
	default: // the channel is full: the first ones are enough
	}
}

// Stop sends SIGTERM, waits for the server's end and ends the processes that it leaves. The error
// reports that it had to be killed, or its exit status. A server that does not run is no error.
func (s *Service) Stop() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stop()
}

func (s *Service) stop() error {
	defer func() { _ = os.Remove(s.record) }() // at worst, the next start searches for processes that have ended
	r := s.running
	if r == nil {
		s.endOrphans(nil)
		return nil
	}
	family := r.leader.family()
	err := s.end(r, syscall.SIGTERM)
	s.endOrphans(family)
	return err
}

// end sends the leader a signal and waits until it has ended.
func (s *Service) end(r *running, sig syscall.Signal) error {
	r.wanted = true
	s.running = nil
	_ = r.handle.Signal(sig) // if it has ended already, that is noticed below
	select {
	case <-r.done:
	case <-time.After(stopWithin):
		_ = r.handle.Kill() // its end is seen by waiting
		<-r.done
		return fmt.Errorf("stop %s: it did not end within %v and was killed%s", s.Name, stopWithin, lastLines(s.LogPath, r.logFrom))
	}
	var exit *exec.ExitError
	if errors.As(r.err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() && status.Signal() == sig {
			return nil
		}
	}
	if r.err != nil {
		return fmt.Errorf("stop %s: %s%s", s.Name, ending(r.err), lastLines(s.LogPath, r.logFrom))
	}
	return nil
}

// Kill sends SIGKILL to the leader only. Its children are orphaned, as after a crash; Stop cleans
// up, and so does the next Start of a Dovecot or Postfix.
func (s *Service) Kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return fmt.Errorf("kill %s: it does not run", s.Name)
	}
	return s.end(s.running, syscall.SIGKILL)
}

// Restart is Stop and Start.
func (s *Service) Restart(ctx context.Context) error {
	if err := s.Stop(); err != nil {
		return err
	}
	return s.Start(ctx)
}

// PID returns the process id of the server's leader, or 0 if it does not run.
func (s *Service) PID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil {
		return 0
	}
	return s.running.leader.pid
}

// family returns all processes of the leader's session and all its descendants, without the leader.
// It is empty if another process has the leader's process id.
func (l leader) family() []process {
	all := processes()
	member := map[int]bool{l.pid: true}
	for _, p := range all {
		if p.pid == l.pid && p.start != l.start {
			return nil
		}
		if p.session == l.pid {
			member[p.pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for _, p := range all {
			if member[p.parent] && !member[p.pid] {
				member[p.pid] = true
				grown = true
			}
		}
	}
	var list []process
	for _, p := range all {
		if member[p.pid] && p.pid != l.pid {
			list = append(list, p)
		}
	}
	return list
}

// endOrphans ends the processes that ended leaders left: those known to be theirs and those of
// their sessions. It waits two seconds for them to end by themselves first.
func (s *Service) endOrphans(known []process) {
	remaining := func() []process {
		found := make(map[int]process)
		for _, p := range known {
			if now, err := readProcess(p.pid); err == nil && now.start == p.start && !now.dead {
				found[p.pid] = now
			}
		}
		for _, l := range s.leaders {
			for _, p := range l.family() {
				found[p.pid] = p
			}
		}
		list := make([]process, 0, len(found))
		for _, p := range found {
			list = append(list, p)
		}
		return list
	}
	for deadline := time.Now().Add(orphanGrace); len(remaining()) > 0; time.Sleep(pollEvery) {
		if time.Now().Before(deadline) {
			continue
		}
		for _, p := range remaining() {
			_ = syscall.Kill(p.pid, syscall.SIGKILL) // it may have ended meanwhile
		}
		if time.Now().After(deadline.Add(stopWithin)) {
			break // stuck in the kernel
		}
	}
	s.leaders = nil
}

// endLeftovers ends the processes of a server that an earlier run started and did not stop. It ends
// only programs of that server, because another session may have the process id by now.
func (s *Service) endLeftovers() {
	text, err := os.ReadFile(s.record)
	if err != nil {
		return // there was no earlier run
	}
	var l leader
	var boot string
	if _, err := fmt.Sscan(string(text), &l.pid, &l.start, &boot); err != nil || boot != bootID() {
		return // written before a reboot, or truncated
	}
	var known []process
	if p, err := readProcess(l.pid); err == nil && p.start == l.start {
		known = append(known, p)
	}
	known = append(known, l.family()...)
	var ours []process
	for _, p := range known {
		for _, prefix := range s.programs {
			if strings.HasPrefix(p.program(), prefix) && p.start >= l.start {
				ours = append(ours, p)
				_ = syscall.Kill(p.pid, syscall.SIGTERM) // it may have ended meanwhile
				break
			}
		}
	}
	s.endOrphans(ours)
}

// write records the leader for endLeftovers.
func (s *Service) write(l leader) error {
	if err := os.MkdirAll(filepath.Dir(s.record), 0o755); err != nil { //nolint:gosec // G301: nothing secret
		return err
	}
	return os.WriteFile(s.record, fmt.Appendf(nil, "%d %d %s\n", l.pid, l.start, bootID()), 0o644) //nolint:gosec // G306: nothing secret
}

// bootID identifies the boot: process ids of another boot mean nothing.
func bootID() string {
	text, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}

// ending describes how a process ended.
func ending(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}
