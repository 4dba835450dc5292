package embedded

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// helperDir makes this test binary a daemon that runs an embedded store there until it is killed.
const helperDir = "EMBEDDED_TEST_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(helperDir)
	if dir == "" {
		os.Exit(m.Run())
	}
	s, err := Start(context.Background(), Options{Dir: dir})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(s.PID())
	<-s.Done()
}

// newDir returns a path for a store; t.TempDir's are too long for sockets.
func newDir(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp("", "embedded")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	return filepath.Join(parent, "redis")
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func startT(t *testing.T, o Options) *Server {
	t.Helper()
	s, err := Start(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopT(t, s) })
	return s
}

func stopT(t *testing.T, s *Server) {
	t.Helper()
	if err := s.Stop(testContext(t)); err != nil {
		t.Error(err)
	}
}

func wantError(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error; want one with %q", parts)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error %q does not contain %q", err, p)
		}
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("error of several lines: %q", err)
	}
}

// do sends one inline command and returns the line, or for a value the second line, of the answer.
func do(url, command string) (string, error) {
	c, err := net.Dial("unix", strings.TrimPrefix(url, "unix://"))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return "", err
	}
	if _, err := c.Write([]byte(command + "\r\n")); err != nil {
		return "", err
	}
	r := bufio.NewReader(c)
	line, err := r.ReadString('\n')
	if err == nil && line[0] == '$' && line != "$-1\r\n" {
		line, err = r.ReadString('\n')
	}
	return strings.TrimSuffix(line, "\r\n"), err
}

func doT(t *testing.T, s *Server, command, want string) {
	t.Helper()
	if got, err := do(s.URL(), command); err != nil || got != want {
		t.Fatalf("%s: %q, %v; want %q", command, got, err, want)
	}
}

// eventually asks until it is answered yes; what it waits for gives no event.
func eventually(t *testing.T, what string, ask func() bool) {
	t.Helper()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for ctx := testContext(t); !ask(); {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// watch returns a wait for the end of a process that need not be ours.
func watch(t *testing.T, pid int) (ended func()) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return func() {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); ; {
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || n != 1 {
				t.Fatalf("process %d goes on: %v", pid, err)
			}
			return
		}
	}
}

func TestStartAndStop(t *testing.T) {
	dir := newDir(t)
	s := startT(t, Options{Dir: dir})
	if want := "unix://" + dir + "/redis.sock"; s.URL() != want {
		t.Errorf("URL %s; want %s", s.URL(), want)
	}
	doT(t, s, "PING", "+PONG")
	doT(t, s, "SET colour green", "+OK")
	for path, want := range map[string]os.FileMode{dir: os.ModeDir | 0o700, dir + "/redis.sock": os.ModeSocket | 0o600} {
		if info, err := os.Lstat(path); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want %v", path, info.Mode(), err, want)
		}
	}
	if group, err := unix.Getpgid(s.PID()); err != nil || group != s.PID() {
		t.Errorf("process group %d, %v; want its own, %d", group, err, s.PID())
	}

	ended := watch(t, s.PID())
	stopT(t, s)
	ended()
	<-s.Done()
	if s.Err() != nil || s.PID() != 0 {
		t.Errorf("after Stop: %v, PID %d", s.Err(), s.PID())
	}
	stopT(t, s)

	again := startT(t, Options{Dir: dir})
	doT(t, again, "GET colour", "green")
}

func TestInheritsNothing(t *testing.T) {
	t.Setenv("SECRET", "hunter2")
	dir := newDir(t)
	script, seen := filepath.Join(filepath.Dir(dir), "show"), filepath.Join(filepath.Dir(dir), "seen")
	program, err := Program("")
	if err != nil {
		t.Fatal(err)
	}
	content := "#!/bin/sh\n/bin/cat /proc/self/environ >" + seen + "\nexec " + program + " \"$@\"\n"
	if err := os.WriteFile(script, []byte(content), 0o700); err != nil {
		t.Fatal(err)
	}
	s := startT(t, Options{Dir: dir, Program: script})
	doT(t, s, "PING", "+PONG")
	environ, err := os.ReadFile(seen)
	if err != nil || !bytes.Contains(environ, []byte("LC_ALL=C")) || bytes.Contains(environ, []byte("hunter2")) {
		t.Errorf("environment %q, %v", environ, err)
	}
}

// TestConfiguration asks the running server for what keeps the data safe.
func TestConfiguration(t *testing.T) {
	s := startT(t, Options{Dir: newDir(t) + ` "q\`})
	for name, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "always", "aof-use-rdb-preamble": "no", "save": "", "maxmemory-policy": "noeviction", "port": "0", "dir": s.dir,
	} {
		c, err := net.Dial("unix", s.socket)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "CONFIG GET %s\r\nQUIT\r\n", name)
		got, err := io.ReadAll(c)
		c.Close()
		if answer := fmt.Sprintf("*2\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n+OK\r\n", len(name), name, len(want), want); err != nil || string(got) != answer {
			t.Errorf("%s: %q, %v; want %q", name, got, err, answer)
		}
	}
}

func TestComesBackWithEveryAcknowledgedWrite(t *testing.T) {
	s := startT(t, Options{Dir: newDir(t)})
	acknowledged := make(chan int)
	go func() { // writes one after the other until the server dies under it
		defer close(acknowledged)
		for i := 0; ; i++ {
			if answer, err := do(s.URL(), fmt.Sprintf("SET key%d value%d", i, i)); err != nil || answer != "+OK" {
				return
			}
			acknowledged <- i
		}
	}()
	last, first := -1, s.PID()
	for i := range acknowledged {
		if last = i; i == 50 {
			if err := unix.Kill(first, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
		}
	}
	if last < 50 {
		t.Fatalf("only %d writes", last)
	}
	eventually(t, "the server is back", func() bool {
		answer, err := do(s.URL(), "PING")
		return err == nil && answer == "+PONG" && s.PID() != first
	})
	for i := range last + 1 {
		doT(t, s, fmt.Sprintf("GET key%d", i), fmt.Sprintf("value%d", i))
	}
	if s.Err() != nil {
		t.Error(s.Err())
	}
}

func TestSecondOnSameDirectoryIsRefused(t *testing.T) {
	dir := newDir(t)
	s := startT(t, Options{Dir: dir})
	_, err := Start(testContext(t), Options{Dir: dir})
	wantError(t, err, dir, fmt.Sprintf("already in use by pid %d", os.Getpid()))
	doT(t, s, "PING", "+PONG")
}

func TestDiesWithItsParent(t *testing.T) {
	dir := newDir(t)
	daemon := exec.Command(os.Args[0])
	daemon.Env = append(os.Environ(), helperDir+"="+dir)
	out, err := daemon.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := daemon.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, atoiErr := strconv.Atoi(strings.TrimSpace(line))
	if err != nil || atoiErr != nil {
		t.Fatalf("the daemon says %q: %v", line, err)
	}
	if answer, err := do("unix://"+dir+"/redis.sock", "SET colour green"); err != nil || answer != "+OK" {
		t.Fatalf("SET: %q, %v", answer, err)
	}
	ended := watch(t, pid)
	if err := daemon.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := daemon.Wait(); err == nil {
		t.Error("the killed daemon ended well")
	}
	// A successor at once, while the orphan may still be dying.
	s := startT(t, Options{Dir: dir})
	ended()
	doT(t, s, "GET colour", "green")
}

// TestSuccessorWaitsForTheOrphan holds the lock as the redis-server of a dead process does.
func TestSuccessorWaitsForTheOrphan(t *testing.T) {
	dir := newDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	dead := exec.Command("/bin/true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	orphan, err := acquire(testContext(t), filepath.Join(dir, lockName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(orphan.Name(), []byte(strconv.Itoa(dead.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err = Start(short, Options{Dir: dir})
	wantError(t, err, "which is dead, to end", "deadline exceeded")
	type result struct {
		s   *Server
		err error
	}
	done := make(chan result, 1)
	ctx := testContext(t)
	go func() {
		s, err := Start(ctx, Options{Dir: dir})
		done <- result{s, err}
	}()
	orphan.Close()
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	stopT(t, r.s)
}

// fill writes something, ends the server and returns the name of the file that holds it.
func fill(t *testing.T, dir string) string {
	t.Helper()
	s := startT(t, Options{Dir: dir})
	doT(t, s, "SET colour green", "+OK")
	doT(t, s, "SET shape round", "+OK")
	stopT(t, s)
	return filepath.Join(dir, dataName, "appendonly.aof.1.incr.aof")
}

// fillBefore does the same with a program that writes a base file of its own, as all did before; "" is
// the one that is found.
func fillBefore(t *testing.T, dir, program string) {
	t.Helper()
	program, err := Program(program)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "-")
	cmd.Stdin = strings.NewReader(strings.Replace(configuration(dir), "preamble no", "preamble yes", 1))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, socketName)
	eventually(t, "an answer", func() bool { return ping(socket) == pong })
	for _, command := range []string{"SET colour green", "BGREWRITEAOF"} {
		if answer, err := ask(socket, command); err != nil || answer[0] != '+' {
			t.Fatal(answer, err)
		}
	}
	eventually(t, "a new base file", func() bool {
		now, err := filepath.Glob(filepath.Join(dir, dataName, "*.2.base.rdb"))
		return err == nil && len(now) == 1
	})
	if answer, err := ask(socket, "SET shape round"); err != nil || answer[0] != '+' {
		t.Fatal(answer, err)
	}
	if err := errors.Join(cmd.Process.Signal(unix.SIGTERM), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
}

// isPortable reports whether all data is commands.
func isPortable(dir string) bool {
	manifest, err := os.ReadFile(filepath.Join(dir, dataName, "appendonly.aof.manifest"))
	return err == nil && !bytes.Contains(manifest, []byte(".rdb")) && len(bases(dir)) == 0
}

// Data that a server wrote in a form of its own is rewritten at the first start.
func TestDataBecomesPortable(t *testing.T) {
	dir := newDir(t)
	fillBefore(t, dir, "")
	s := startT(t, Options{Dir: dir})
	eventually(t, "portable data", func() bool { return isPortable(dir) })
	doT(t, s, "GET colour", "green")
	doT(t, s, "GET shape", "round")
	stopT(t, s)
	if s := startT(t, Options{Dir: dir}); !isPortable(dir) {
		t.Error("a start makes the data the server's own again")
	} else {
		doT(t, s, "GET colour", "green")
	}
}

// Data of a newer or another server is not taken for damaged: the remedy for damage would delete it.
func TestDataOfAnotherServer(t *testing.T) {
	for _, magic := range []string{"REDIS0099", "VALKEY099"} {
		dir := newDir(t)
		fillBefore(t, dir, "")
		path := filepath.Join(dir, dataName, "appendonly.aof.2.base.rdb")
		content := damage(t, path, func(b []byte) []byte { return append([]byte(magic), b[9:]...) })
		_, err := Start(testContext(t), Options{Dir: dir})
		wantError(t, err, dir, "written by another server or a newer version", "set store.program to the former server and start once")
		if strings.Contains(err.Error(), "--fix") {
			t.Errorf("the error advises to delete the data: %v", err)
		}
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("the data was changed: %v", err)
		}
	}
}

func damage(t *testing.T, path string, change func([]byte) []byte) (damaged []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content = change(content)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return content
}

func TestDamagedDataIsLeftAlone(t *testing.T) {
	overwrite := func(b []byte) []byte { return append(b[:4], append([]byte("garbage"), b[11:]...)...) }
	for _, tc := range []struct {
		name   string
		change func([]byte) []byte
	}{
		{"appendonly.aof.1.incr.aof", overwrite},
		{"appendonly.aof.1.base.aof", func([]byte) []byte { return []byte("garbage") }},
		{"appendonly.aof.2.base.rdb", overwrite},
		{"appendonly.aof.2.base.rdb", func(b []byte) []byte { return b[:len(b)-12] }},
		{"appendonly.aof.2.base.rdb", func(b []byte) []byte { b[len(b)-1]++; return b }},
		{"appendonly.aof.manifest", overwrite},
		{"appendonly.aof.manifest", func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("incr.aof"), []byte("gone.aof")) }},
	} {
		dir := newDir(t)
		if strings.HasSuffix(tc.name, ".rdb") {
			fillBefore(t, dir, "")
		} else {
			fill(t, dir)
		}
		path := filepath.Join(dir, dataName, tc.name)
		content := damage(t, path, tc.change)
		_, err := Start(testContext(t), Options{Dir: dir})
		wantError(t, err, dir, "the data is damaged and was left as it is", "cp -a "+dir+" "+dir+".damaged", "-check-aof --fix")
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, content) {
			t.Errorf("%s was changed: %q, %v; want %q", tc.name, now, err, content)
		}
	}
}

func TestCutOffCommandIsForgiven(t *testing.T) {
	dir := newDir(t)
	damage(t, fill(t, dir), func(b []byte) []byte { return b[:len(b)-3] })
	s := startT(t, Options{Dir: dir})
	doT(t, s, "GET colour", "green")
	doT(t, s, "GET shape", "$-1")
}

func TestDamageEndsRestarts(t *testing.T) {
	dir := newDir(t)
	s := startT(t, Options{Dir: dir})
	doT(t, s, "SET colour green", "+OK")
	damage(t, filepath.Join(dir, dataName, "appendonly.aof.1.incr.aof"), func(b []byte) []byte { return append([]byte("garbage"), b...) })
	if err := unix.Kill(s.PID(), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.Done():
	case <-testContext(t).Done():
		t.Fatal("the server is not given up")
	}
	wantError(t, s.Err(), dir, "the data is damaged")
	stopT(t, s)
}

func TestLeftoversAreRemoved(t *testing.T) {
	dir := newDir(t)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, "temp-rewriteaof-bg-4711.aof")
	if err := os.WriteFile(left, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	startT(t, Options{Dir: dir})
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is still there: %v", left, err)
	}
}

func TestDirectoryIsRefused(t *testing.T) {
	made := func(mode os.FileMode) string {
		dir := newDir(t)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	foreign := made(0o700)
	if err := os.WriteFile(foreign+"/thesis.txt", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	file := newDir(t)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := newDir(t)
	if err := os.Symlink(made(0o700), link); err != nil {
		t.Fatal(err)
	}
	theirs := "/" // root's, unless we are
	if os.Geteuid() == 0 {
		theirs = made(0o700)
		if err := os.Chown(theirs, 12345, 12345); err != nil {
			t.Fatal(err)
		}
	}
	for dir, want := range map[string]string{
		"relative":                    "not an absolute path",
		"/a\nport 6379":               "not an absolute path",
		newDir(t) + "/deeper":         "does not exist: create it",
		"/" + strings.Repeat("x", 97): "has 109 bytes, too long for a unix socket (at most 107)",
		made(0o750):                   "open to others (mode 0750): 'chmod 0700 ",
		foreign:                       `contains "thesis.txt", which is not the store's`,
		file:                          "is not a directory",
		link:                          "is not a directory",
		theirs:                        "belongs to uid ",
	} {
		_, err := Start(testContext(t), Options{Dir: dir})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", dir, err, want)
		}
	}
	if _, err := os.Stat(foreign + "/" + lockName); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a foreign directory was written to: %v", err)
	}
}

func TestProgramIsMissingOrBroken(t *testing.T) {
	dir := newDir(t)
	_, err := Start(testContext(t), Options{Dir: dir, Program: "no-redis-server"})
	wantError(t, err, "no-redis-server cannot be run", "apt-get install redis-server")

	_, err = Start(testContext(t), Options{Dir: dir, Program: "/bin/false"})
	wantError(t, err, "redis-server ended: exit status 1: it gave no reason")

	// A server that never answers.
	script := filepath.Join(filepath.Dir(dir), "mute")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexec cat /dev/zero >/dev/null\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err = Start(ctx, Options{Dir: dir, Program: script})
	wantError(t, err, "redis-server is not ready yet", "deadline exceeded")
	s := startT(t, Options{Dir: dir}) // nothing of all this holds the lock
	doT(t, s, "PING", "+PONG")
}

func TestStopKills(t *testing.T) {
	s := startT(t, Options{Dir: newDir(t)})
	ended := watch(t, s.PID())
	if err := unix.Kill(s.PID(), unix.SIGSTOP); err != nil { // hangs
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	wantError(t, s.Stop(ctx), "redis-server was killed")
	ended()
	if s.Err() != nil {
		t.Error(s.Err())
	}
}

func TestOutput(t *testing.T) {
	var log bytes.Buffer
	quiet := false
	o := &output{
		log:   hclog.New(&hclog.LoggerOptions{Output: &log, Level: hclog.Debug, DisableTime: true}),
		quiet: func() bool { return quiet },
	}
	say := func(text string) string {
		t.Helper()
		log.Reset()
		if n, err := o.Write([]byte(text)); n != len(text) || err != nil {
			t.Fatalf("wrote %d, %v", n, err)
		}
		return log.String()
	}
	if o.lastWarning() != "it gave no reason" {
		t.Errorf("last warning %q", o.lastWarning())
	}
	const warning = "22071:M 22 Nov 2026 08:46:52.572 # Server initialized\n"
	for _, tc := range []struct{ text, log, last string }{
		{warning[:20], "", "it gave no reason"},
		{warning[20:], "[DEBUG] redis-server says: text=\"Server initialized\"\n", "Server initialized"},
		{"1:M 22 Nov 2026 08:46:52.572 * Ready\n\n", "[DEBUG] redis-server says: text=Ready\n", "Server initialized"},
		{"1:M 22 Nov 2026 08:46:52.572 # \n", "", "Server initialized"},
		{"\n*** FATAL\nat line 2\n", "[DEBUG] redis-server says: text=\"*** FATAL\"\n[DEBUG] redis-server says: text=\"at line 2\"\n", "*** FATAL at line 2"},
		{"1:signal-handler (17) Received SIGTERM\n", "[DEBUG] redis-server says: text=\"1:signal-handler (17) Received SIGTERM\"\n", "*** FATAL at line 2"},
	} {
		if got := say(tc.text); got != tc.log || o.lastWarning() != tc.last {
			t.Errorf("%q is logged as %q, last warning %q; want %q, %q", tc.text, got, o.lastWarning(), tc.log, tc.last)
		}
	}
	o.becomeReady()
	if got := say(warning); !strings.HasPrefix(got, "[WARN]") {
		t.Errorf("a warning of a server that is up is logged as %q", got)
	}
	quiet = true
	if got := say(warning); !strings.HasPrefix(got, "[DEBUG]") {
		t.Errorf("a warning of a server that is stopping is logged as %q", got)
	}
	for range 100 {
		say(strings.Repeat("x", 100))
	}
	if got := say("\n"); len(got) > maxLine+100 || len(o.lastWarning()) != maxLine {
		t.Errorf("a long line is logged with %d bytes, kept with %d", len(got), len(o.lastWarning()))
	}
}

// TestRestartIsLogged holds that a death is told, and how.
func TestRestartIsLogged(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	s := startT(t, Options{Dir: newDir(t), Log: hclog.New(&hclog.LoggerOptions{Output: w, Level: hclog.Info})})
	if err := unix.Kill(s.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for scanner := bufio.NewScanner(r); len(lines) < 3 && scanner.Scan(); {
		lines = append(lines, scanner.Text())
	}
	for i, want := range []string{"is ready", "died and is started again: error=\"redis-server ended: signal: killed", "is ready"} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Errorf("line %d of %q; want %q", i, lines, want)
		}
	}
}
