package trialstack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/drawbridge/drawbridge/internal/embedded"
)

// A Daemon is one drawbridged with its own state directory and sockets.
type Daemon struct {
	*Service
	Config       string // path of its settings
	StateDir     string
	APISocket    string // path of the API's unix socket
	APIAddr      string // "127.0.0.1:port" of the API
	ConsoleAddr  string // "127.0.0.1:port" of the pages
	LoginSocket  string // path of the socket that drawbridge-checkpassword connects to
	LoginAddr    string // "127.0.0.1:port" of the login listener, for auth-policy
	LoginKey     string // path of the key of that listener
	PolicySocket string // path of the policy service; the first daemon's is in the queue directory
	MilterSocket string // path of the milter; the first daemon's is in the queue directory

	program string // path of the drawbridge command
}

// RedisSocket is the unix socket of the shared Redis.
func (s *Stack) RedisSocket() string { return s.path("redis", "redis.sock") }

// define defines the services and writes nothing.
func (s *Stack) define() error {
	s.Dovecot = s.service("dovecot", "dovecot.log", []string{"/usr/sbin/dovecot", "/usr/lib/dovecot/", s.path("bin") + "/"})
	// The limit keeps Dovecot from warning at every start.
	s.Dovecot.argv = []string{"/bin/sh", "-c", `ulimit -n 8192; exec "$0" "$@"`, dovecotProgram, "-F", "-c", s.DovecotConf()}
	s.Dovecot.sweep = true
	s.Dovecot.prepare = func(context.Context) error {
		// Clients of a stale socket retry for seconds.
		return os.RemoveAll(s.path("dovecot", "run"))
	}
	s.Dovecot.ready = func(context.Context) error {
		_, err := os.Stat(s.path("dovecot", "run", "master.pid")) // Dovecot writes it once all sockets are bound
		return err
	}

	s.Postfix = s.service("postfix", "postfix.log", []string{"/usr/lib/postfix/"})
	// Not "postfix start", which detaches: the process that runs is the one that is watched. "-d"
	// keeps it in our session.
	s.Postfix.argv = []string{postfixMaster, "-d", "-c", s.PostfixDir()}
	s.Postfix.sweep = true
	s.Postfix.ready = func(ctx context.Context) error { // it opens its ports one by one
		return errors.Join(dial(ctx, "tcp", s.SMTP()), dial(ctx, "tcp", s.Submission()))
	}

	if s.opts.SharedRedis {
		program, err := embedded.Program("")
		if err != nil {
			return err
		}
		s.Redis = s.service("redis", "redis.log", redisPrograms)
		s.Redis.argv = []string{program, "-"}
		s.Redis.stdin = fmt.Sprintf("port 0\nunixsocket %s\nunixsocketperm 700\ndir %s\nappendonly yes\nappendfsync always\nsave \"\"\nmaxmemory-policy noeviction\n",
			s.RedisSocket(), s.path("redis"))
		s.Redis.ready = func(ctx context.Context) error { return pingRedis(ctx, s.RedisSocket()) }
	}
	for i := range s.opts.Daemons {
		if err := s.addDaemon(i); err != nil {
			return err
		}
	}
	return nil
}

// service returns the part that all servers have in common.
func (s *Stack) service(name, log string, programs []string) *Service {
	return &Service{Name: name, LogPath: s.path("log", log), programs: programs, record: s.path("pids", name), died: s.died}
}

// addDaemon defines another drawbridged. The mail servers ask the first, which has the fixed ports.
func (s *Stack) addDaemon(i int) error {
	name, dir := "drawbridged", "drawbridge"
	if i > 0 {
		name, dir = fmt.Sprintf("%s%d", name, i+1), fmt.Sprintf("%s%d", dir, i+1)
	}
	ports := [3]int{s.Ports.API, s.Ports.Login, s.Ports.Console}
	for j := range ports {
		if i > 0 {
			var err error
			if ports[j], err = s.reserved.Port(); err != nil {
				return err
			}
		}
	}
	d := &Daemon{
		Service:      s.service(name, name+".log", append([]string{s.path("bin", "drawbridged")}, redisPrograms...)),
		Config:       s.path("etc", name+".toml"),
		StateDir:     s.path(dir, "state"),
		APISocket:    s.path(dir, "api.sock"),
		APIAddr:      loopback(ports[0]),
		LoginSocket:  s.path(dir, "login.sock"),
		LoginAddr:    loopback(ports[1]),
		ConsoleAddr:  loopback(ports[2]),
		LoginKey:     s.path("etc", "login.key"),
		PolicySocket: s.path(dir, "policy.sock"),
		MilterSocket: s.path(dir, "milter.sock"),
		program:      s.path("bin", "drawbridge"),
	}
	if i == 0 {
		d.PolicySocket = s.path("postfix", "queue", "private", "drawbridge")
		d.MilterSocket = d.PolicySocket + "-milter"
	}
	d.argv = []string{s.path("bin", "drawbridged"), "-c", d.Config}
	d.ready = func(ctx context.Context) error {
		status, err := d.get(ctx, "/readyz")
		if err == nil && status != http.StatusOK {
			err = fmt.Errorf("/readyz says %d", status)
		}
		return err
	}
	s.Daemons = append(s.Daemons, d)
	return nil
}

// PagesURL returns the address of the pages, "http://localhost:port".
func (d *Daemon) PagesURL() string {
	_, port, _ := strings.Cut(d.ConsoleAddr, ":")
	return "http://localhost:" + port
}

// HTTP returns a client that connects to the API's unix socket for any host in the URL. Root is an
// administrator there.
func (d *Daemon) HTTP() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", d.APISocket)
		},
	}}
}

func (d *Daemon) get(ctx context.Context, path string) (status int, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://drawbridge"+path, http.NoBody)
	if err != nil {
		return 0, err
	}
	resp, err := d.HTTP().Do(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, errors.Join(err, resp.Body.Close())
}

// Command returns "drawbridge ARGS" for this daemon's API, not yet started.
func (d *Daemon) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, d.program, args...) //nolint:gosec // G204: the stack's own command
	cmd.Env = append(os.Environ(), "DRAWBRIDGE_API=unix:"+d.APISocket)
	return cmd
}

// RedisPID is the process id of the redis-server or valkey-server that the daemon runs, or 0.
func (d *Daemon) RedisPID() int {
	for _, p := range children(d.PID()) {
		program := p.program()
		if slices.ContainsFunc(redisPrograms, func(prefix string) bool { return strings.HasPrefix(program, prefix) }) {
			return p.pid
		}
	}
	return 0
}

// writeDrawbridge writes the settings of the daemons and Dovecot's snippet.
func (s *Stack) writeDrawbridge() error {
	if err := s.copyCommands(); err != nil {
		return err
	}
	key, err := secret(s.path("etc", "login.key"))
	if err != nil {
		return err
	}
	nonce, err := secret(s.path("etc", "nonce"))
	if err != nil {
		return err
	}
	if err := s.writeSnippet(key, nonce); err != nil {
		return err
	}
	for _, d := range s.Daemons {
		if err := s.writeSettings(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *Stack) writeSettings(d *Daemon) error {
	settings := map[string]any{
		"state_dir":      d.StateDir,
		"login.listen":   []string{"unix:" + d.LoginSocket + "?mode=0660&group=dovecot", "inet:" + d.LoginAddr},
		"login.key_file": d.LoginKey,
		"policyd.listen": []string{"unix:" + d.PolicySocket + "?mode=0660&group=postfix"},
		"milter.listen":  []string{"unix:" + d.MilterSocket + "?mode=0660&group=postfix"},
		"api.listen":     []string{"unix:" + d.APISocket, "inet:" + d.APIAddr},
		"console.listen": []string{"inet:" + d.ConsoleAddr},
		// A name, and not the address: browsers permit passkeys on localhost without TLS.
		"console.public_url": d.PagesURL(),
		"console.imap":       fmt.Sprintf("%s:%d", Hostname, s.Ports.IMAPS),
		"console.smtp":       fmt.Sprintf("%s:%d", Hostname, s.Ports.SMTPS),
		// Log-ins to the pages are verified by Dovecot, as Postfix' are.
		"sasl.next": s.path("postfix", "queue", "private", "auth"),
		// Its mode is 0600, and all runs as root.
		"sessions.doveadm":   "unix:" + s.path("dovecot", "run", "doveadm-server"),
		"sessions.sieve_dir": s.path("mail") + "/%d/%n/sieve",
		"notify.smtp":        s.SMTP(),
		"mail.postqueue":     []string{"/usr/sbin/postqueue", "-c", s.PostfixDir()},
		"mail.postsuper":     []string{"/usr/sbin/postsuper", "-c", s.PostfixDir()},
		"mail.postcat":       []string{"/usr/sbin/postcat", "-c", s.PostfixDir()},
		"mail.postmap":       []string{"/usr/sbin/postmap", "-c", s.PostfixDir()},
		// Not the database that this machine may have.
		"regions.database": "none",
	}
	if d != s.Daemons[0] {
		settings["mail.node"] = d.Name // the first has the host's name, and no two have the same
	}
	if s.opts.SASLDoor && d == s.Daemons[0] {
		settings["sasl.listen"] = []string{"unix:" + s.path("postfix", "queue", "private", "drawbridge-auth") + "?mode=0660&group=postfix"}
	}
	if err := errors.Join(makeDir(filepath.Dir(d.StateDir), 0o755, 0, 0), makeDir(d.StateDir, 0o700, 0, 0)); err != nil {
		return err
	}
	shared := s
	if s.opts.StoreOf != nil {
		shared = s.opts.StoreOf
	}
	if shared.Redis != nil {
		settings["store.url"] = "unix://" + shared.RedisSocket()
		// Daemons that share a store need the same pepper, which an administrator copies.
		pepper, err := secret(shared.path("etc", "pepper"))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(d.StateDir, "pepper"), 0o600, 0, []byte(pepper+"\n")); err != nil {
			return err
		}
	}
	for name, value := range s.opts.Settings {
		settings[name] = value
	}
	text, err := tables(settings)
	if err != nil {
		return fmt.Errorf("settings of %s: %w", d.Name, err)
	}
	return writeFile(d.Config, 0o644, 0, text)
}

// tables encodes settings with dotted names as TOML.
func tables(settings map[string]any) ([]byte, error) {
	root := make(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(settings)) { // a value sorts before a table with its name, so the conflict is found
		value, at := settings[name], root
		table, key, dotted := strings.Cut(name, ".")
		if dotted {
			if _, ok := root[table]; !ok {
				root[table] = make(map[string]any)
			}
			inner, ok := root[table].(map[string]any)
			if !ok {
				return nil, fmt.Errorf("%q is a value and a table", table)
			}
			at = inner
		} else {
			key = table
		}
		at[key] = value
	}
	return toml.Marshal(root)
}

// checkPostfix completes the queue directory and validates the configuration.
func (s *Stack) checkPostfix(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, postfixProgram, "-c", s.PostfixDir(), "check").CombinedOutput() //nolint:gosec // G204: fixed words
	if err != nil {
		return fmt.Errorf("postfix check: %w\n%s%s", err, out, lastLines(s.path("log", "postfix.log"), 0))
	}
	return nil
}

// Sendmail submits a message as a local program does, without SMTP.
func (s *Stack) Sendmail(ctx context.Context, from, to, message string) error {
	cmd := exec.CommandContext(ctx, sendmailProgram, "-C", s.PostfixDir(), "-i", "-f", from, "--", to) //nolint:gosec // G204: run without a shell
	cmd.Stdin = strings.NewReader(message)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("sendmail: %w: %s", err, out)
	}
	return nil
}

// Doveadm runs "doveadm ARGS" on the stack's Dovecot and returns its output.
func (s *Stack) Doveadm(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, doveadmProgram, append([]string{"-c", s.DovecotConf()}, args...)...) //nolint:gosec // G204: run without a shell
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// dial connects and hangs up.
func dial(ctx context.Context, network, address string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return err
	}
	return conn.Close()
}

// pingRedis returns nil once Redis has loaded its data.
func pingRedis(ctx context.Context, socket string) error {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // the answer was read
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	answer := make([]byte, 64)
	n, err := conn.Read(answer)
	if err != nil {
		return err
	}
	if got := strings.TrimSpace(string(answer[:n])); got != "+PONG" {
		return fmt.Errorf("redis answers %q", got)
	}
	return nil
}
