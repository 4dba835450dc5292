package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/redistest"
)

// asDaemon makes this test's program the daemon itself.
const asDaemon = "DRAWBRIDGED_TEST_IS_DAEMON"

func TestMain(m *testing.M) {
	if os.Getenv(asDaemon) != "" {
		main()
	}
	os.Exit(m.Run())
}

// limit ends a test whose daemon hangs.
const limit = time.Minute

// A process is a daemon with a directory of its own, which everybody may pass through.
type process struct {
	t      *testing.T
	dir    string
	states redistest.Lines // what it reported to the service manager
	cmd    *exec.Cmd
	log    *redistest.Lines

	mu     sync.Mutex
	stored []*os.File // sockets that the service manager keeps
}

// store keeps the sockets that a message brings, as systemd does.
func (p *process) store(state string, rights []byte) {
	_, name, found := strings.Cut(state, "FDSTORE=1\nFDNAME=")
	messages, err := syscall.ParseSocketControlMessage(rights)
	if !found || err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range messages {
		fds, _ := syscall.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			p.stored = append(p.stored, os.NewFile(uintptr(fd), name))
		}
	}
}

// newProcess writes the settings, in which DIR is the process's directory.
func newProcess(t *testing.T, settings string) *process {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("only root can change to another user: run this as root")
	}
	dir, err := os.MkdirTemp("", "db-user") // t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, dir: dir}
	p.write(settings)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: p.path("notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = notify.Close() })
	go func() { // systemd reads at once, too: a full queue would block the daemon
		buf, rights := make([]byte, 4096), make([]byte, 4096)
		for {
			n, m, _, _, err := notify.ReadMsgUnix(buf, rights)
			if err != nil {
				return
			}
			p.store(string(buf[:n]), rights[:m])
			_, _ = p.states.Write(append(buf[:n:n], '\n'))
		}
	}()
	if err := os.Chmod(p.path("notify"), 0o666); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) path(name string) string { return filepath.Join(p.dir, name) }

func (p *process) write(settings string) {
	p.t.Helper()
	if !strings.Contains(settings, "milter.listen") {
		settings = "milter.listen = []\n" + settings
	}
	settings = "state_dir = \"DIR/state\"\npolicyd.listen = []\nconsole.listen = []\napi.listen = [\"unix:DIR/api.sock\"]\n" + settings
	if err := os.WriteFile(p.path("drawbridge.toml"), []byte(strings.ReplaceAll(settings, "DIR", p.dir)), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// start runs the daemon by a command in front of it, such as setpriv; nil is none.
func (p *process) start(front ...string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	p.t.Cleanup(cancel)
	argv := append(front, os.Args[0], "-c", p.path("drawbridge.toml"))
	p.mu.Lock()
	kept, names := slices.Clone(p.stored), make([]string, len(p.stored))
	p.mu.Unlock()
	for i, f := range kept {
		names[i] = f.Name()
	}
	if len(kept) > 0 {
		argv = append([]string{"sh", "-c", `LISTEN_PID=$$ exec "$0" "$@"`}, argv...)
	}
	p.cmd = exec.CommandContext(ctx, argv[0], argv[1:]...)
	p.cmd.ExtraFiles = kept
	p.cmd.Env = append(os.Environ(), asDaemon+"=yes", "NOTIFY_SOCKET="+p.path("notify"), "WATCHDOG_USEC=2000",
		fmt.Sprint("LISTEN_FDS=", len(kept)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	p.log = &redistest.Lines{}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _, _ = p.stop() })
}

// stop ends the daemon and returns its exit status and its log.
func (p *process) stop() (int, string) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	_ = p.cmd.Wait()                          // ProcessState says it all
	return p.cmd.ProcessState.ExitCode(), p.log.String()
}

// reported waits until the daemon has reported a state once more than before times.
func (p *process) reported(state string, before int) {
	p.t.Helper()
	redistest.Eventually(p.t, state+" is reported", func() bool { return strings.Count(p.states.String(), state) > before })
}

// post sends a request to the API and returns its status.
func (p *process) post(path, body string) int {
	p.t.Helper()
	c := &http.Client{Timeout: limit, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", p.path("api.sock"))
		},
	}}
	resp, err := c.Post("http://drawbridge"+path, "application/json", strings.NewReader(body))
	if err != nil {
		p.t.Fatalf("%v\n%s", err, p.log)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// createDomain waits until the daemon creates a domain, or has it.
func (p *process) createDomain(name string, want int) {
	p.t.Helper()
	body, err := json.Marshal(map[string]string{"name": name})
	if err != nil {
		p.t.Fatal(err)
	}
	status := 0
	redistest.Eventually(p.t, "the store is ready", func() bool {
		status = p.post("/v1/domains", string(body))
		return status != http.StatusServiceUnavailable
	})
	if status != want {
		p.t.Errorf("creating %s: %d, want %d\n%s", name, status, want, p.log)
	}
}

// identity is what /proc says of all threads of a process: Uid, Gid and Groups.
func identity(t *testing.T, pid int) (lines []string) {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("pid %d has no threads: %v", pid, err)
	}
	seen := make(map[string]bool)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		who := strings.Join(regexp.MustCompile(`(?m)^(?:Uid|Gid|Groups|CapEff):.*$`).FindAllString(string(text), -1), " ")
		who = strings.Join(strings.Fields(who), " ")
		if !seen[who] {
			seen[who] = true
			lines = append(lines, who)
		}
	}
	return lines
}

// redisPID returns the process number of the daemon's redis-server.
func (p *process) redisPID() int {
	p.t.Helper()
	match := regexp.MustCompile(`store is ready: .*?pid=(\d+)`).FindStringSubmatch(p.log.String())
	if match == nil {
		p.t.Fatalf("no redis-server in the log:\n%s", p.log)
	}
	pid, err := strconv.Atoi(match[1])
	if err != nil {
		p.t.Fatal(err)
	}
	return pid
}

func owner(t *testing.T, path string) uint32 {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Uid
}

// The user that Debian calls "mail" has a group of its own name; any other would do.
const somebody = "mail"

// A daemon started as root, its redis-server and everything in its state directory belong to the
// user of the settings, what an earlier daemon left as root included. Its sockets and secrets are
// root's to open. It starts again on its own sockets.
func TestUser(t *testing.T) {
	u, err := user.Lookup(somebody)
	if err != nil {
		t.Fatal(err)
	}
	groups, err := u.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	inet := "login.listen = [\"inet:127.0.0.1:0\"]\nlogin.key_file = \"DIR/login.key\"\n"
	p := newProcess(t, inet)
	if err := os.WriteFile(p.path("login.key"), []byte("only-root-reads-this\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.reported("READY=1", 0)
	p.reported("WATCHDOG=1", 0)
	p.createDomain("example.org", http.StatusCreated)
	if who := identity(t, p.cmd.Process.Pid); len(who) != 1 || !strings.HasPrefix(who[0], "Uid: 0 0 0 0 ") {
		t.Errorf("without the setting it runs as %q", who)
	}
	if status, log := p.stop(); status != 0 || !strings.Contains(log, "keeps running as root") {
		t.Errorf("status %d, no warning of root:\n%s", status, log)
	}
	p.reported("STOPPING=1", 0)

	p.write(inet + "user = \"" + somebody + "\"\n")
	for start := range 2 {
		p.start()
		p.reported("READY=1", 1+2*start)
		p.createDomain("example.org", http.StatusConflict)
		want := fmt.Sprintf("Uid: %[1]s %[1]s %[1]s %[1]s Gid: %[2]s %[2]s %[2]s %[2]s Groups: %[3]s CapEff: 0000000000000000",
			u.Uid, u.Gid, strings.Join(groups, " "))
		for what, pid := range map[string]int{"drawbridged": p.cmd.Process.Pid, "redis-server": p.redisPID()} {
			if who := identity(t, pid); len(who) != 1 || who[0] != want {
				t.Errorf("%s runs as %q, want %q", what, who, want)
			}
		}
		err := filepath.WalkDir(p.path("state"), func(path string, _ fs.DirEntry, err error) error {
			if err == nil && fmt.Sprint(owner(t, path)) != u.Uid {
				t.Errorf("%s belongs to uid %d", path, owner(t, path))
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		// What only root reads is not read again, which the reload reports; the daemon goes on.
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.reported("RELOADING=1\nMONOTONIC_USEC=", start)
		p.reported("READY=1", 2+2*start)
		if log := p.log.String(); !strings.Contains(log, "reload: nothing was applied") || !strings.Contains(log, "login.key_file") {
			t.Errorf("the reload does not report the key that it cannot read:\n%s", log)
		}
		p.createDomain("example.org", http.StatusConflict)
		if uid := owner(t, p.path("api.sock")); fmt.Sprint(uid) != u.Uid {
			t.Errorf("the API's socket belongs to uid %d", uid)
		}
		if status, log := p.stop(); status != 0 {
			t.Errorf("status %d\n%s", status, log)
		}
	}
}

// Who connects while the daemon restarts, or has died, waits for the next one.
func TestSocketsOutliveRestarts(t *testing.T) {
	p := newProcess(t, "login.next_passdb = false\nlogin.listen = []\nsasl.listen = [\"unix:DIR/sasl.sock\"]\n")
	p.start()
	p.reported("READY=1", 0)
	for i, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		_ = p.cmd.Process.Signal(end)
		_ = p.cmd.Wait()
		c, err := net.Dial("unix", p.path("sasl.sock"))
		if err != nil {
			t.Fatalf("%v: %v\n%s", end, err, p.log)
		}
		p.start()
		p.reported("READY=1", i+1)
		_ = c.SetDeadline(time.Now().Add(limit))
		if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.HasPrefix(line, "VERSION\t1") {
			t.Errorf("%v: %q, %v\n%s", end, line, err, p.log)
		}
		_ = c.Close()
	}
	if status, log := p.stop(); status != 0 {
		t.Errorf("status %d: %s", status, log)
	}
	p.write("login.listen = [\"unix:DIR/login.sock\"]\nsasl.listen = []\n")
	p.start()
	p.reported("READY=1", 3)
	if _, err := os.Lstat(p.path("sasl.sock")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket that no setting names any more is left: %v", err)
	}
	p.reported("FDSTOREREMOVE=1", 0)
}

// An SMTP session that the milter has seen begin may end before the daemon does; another one waits for
// the next run.
func TestSessionsEndBeforeTheDaemon(t *testing.T) {
	p := newProcess(t, "login.next_passdb = false\nlogin.listen = []\nmilter.listen = [\"unix:DIR/milter.sock\"]\n")
	p.start()
	p.reported("READY=1", 0)
	dial := func() net.Conn {
		c, err := net.Dial("unix", p.path("milter.sock"))
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(limit))
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	// ask sends a packet of the milter protocol and returns the code of the answer.
	ask := func(c net.Conn, packet string) string {
		t.Helper()
		head := make([]byte, 5)
		_, err := c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(packet))), packet...))
		if err == nil {
			_, err = io.ReadFull(c, head)
		}
		if err == nil {
			_, err = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head))-1)
		}
		if err != nil {
			t.Fatalf("%q: %v\n%s", packet, err, p.log)
		}
		return string(head[4:])
	}
	const offer, client = "O\x00\x00\x00\x06\x00\x00\x01\xff\x00\x1f\xff\xff", "Cclient\x004\x27\x10127.0.0.1\x00"
	c := dial()
	ask(c, offer)
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	p.reported("STOPPING=1", 0)
	later := dial()
	if code := ask(c, client); code != "c" {
		t.Errorf("answer %q", code)
	}
	_ = c.Close()
	if status, log := p.stop(); status != 0 {
		t.Errorf("status %d: %s", status, log)
	}
	p.start()
	ask(later, offer)
}

// A daemon that cannot become its user does not start, whatever keeps it.
func TestUserFails(t *testing.T) {
	for name, c := range map[string]struct {
		user   string
		front  []string
		before func(*process) error
		want   string
	}{
		"unknown": {user: "no-such-user", want: `user: there is no user "no-such-user": create it`},
		"started as another": {
			user: somebody, front: []string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"},
			want: "user: drawbridged was started as uid 65534 and cannot change to mail: start it as root or as mail",
		},
		"no right to groups": {user: somebody, front: []string{"setpriv", "--bounding-set=-setgid"}, want: "user: changing to the groups of mail"},
		"no right to change": {user: somebody, front: []string{"setpriv", "--bounding-set=-setuid"}, want: "user: changing to mail"},
		"a way back":         {user: somebody, front: []string{"setpriv", "--securebits=+no_setuid_fixup"}, want: "user: the process can change back from mail to root"},
		"another's state": {
			user: somebody,
			before: func(p *process) error {
				return errors.Join(os.Mkdir(p.path("state"), 0o700), os.Chown(p.path("state"), 65534, 65534))
			},
			want: "belongs to uid 65534",
		},
		"a directory of all users": {
			user: somebody, before: func(p *process) error { return os.Mkdir(p.path("state"), 0o755) },
			want: "is open to others (mode 0755)",
		},
		"root's own files": {
			user: somebody,
			before: func(p *process) error {
				return errors.Join(os.Mkdir(p.path("state"), 0o700), os.WriteFile(p.path("state/id_rsa"), nil, 0o600))
			},
			want: `contains "id_rsa", which is not the daemon's`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProcess(t, "login.listen = [\"unix:DIR/login.sock\"]\nuser = \""+c.user+"\"\n")
			if c.before != nil {
				if err := c.before(p); err != nil {
					t.Fatal(err)
				}
			}
			p.start(c.front...)
			_ = p.cmd.Wait() // ProcessState says it all
			if status := p.cmd.ProcessState.ExitCode(); status != 1 || !strings.Contains(p.log.String(), c.want) {
				t.Errorf("status %d, want 1 and %q:\n%s", status, c.want, p.log)
			}
			if _, err := os.Stat(p.path("state/redis")); err == nil {
				t.Error("redis-server was started")
			}
		})
	}
}

// The check of the settings finds a user that is not there.
func TestCheckFindsUnknownUser(t *testing.T) {
	p := newProcess(t, "user = \"no-such-user\"\n")
	cmd := exec.Command(os.Args[0], "-c", p.path("drawbridge.toml"), "check")
	cmd.Env = append(os.Environ(), asDaemon+"=yes")
	out, _ := cmd.CombinedOutput() // the status is looked at
	if status := cmd.ProcessState.ExitCode(); status != 78 || !strings.Contains(string(out), `there is no user "no-such-user"`) {
		t.Errorf("status %d: %s", status, out)
	}
}
