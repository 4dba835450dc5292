package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/redistest"
)

// lone is a drawbridged process without a mail site.
type lone struct {
	t     *testing.T
	dir   string
	cmd   *exec.Cmd
	log   *redistest.Lines
	ended chan error
}

// run starts drawbridged with the settings in its directory.
func (d *lone) run() {
	d.t.Helper()
	d.log, d.ended = &redistest.Lines{}, make(chan error, 1)
	d.cmd = exec.Command(filepath.Join(bin, "drawbridged"), "-c", filepath.Join(d.dir, "drawbridge.toml"))
	d.cmd.Stderr = d.log
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd, ended := d.cmd, d.ended
	go func() { ended <- cmd.Wait() }()
	d.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		if d.t.Failed() {
			d.t.Logf("log of drawbridged:\n%s", d.log)
		}
	})
}

// settings writes the settings of a daemon with an API and no other service.
func (d *lone) settings(redisSocket string) {
	d.t.Helper()
	d.write("drawbridge.toml", fmt.Sprintf(`
state_dir = "%[1]s/state"
login.listen = []
policyd.listen = []
milter.listen = []
api.listen = ["unix:%[1]s/api.sock"]
console.listen = []
store.url = "unix://%[2]s"
`, d.dir, redisSocket))
}

// write writes a file of the daemon's directory.
func (d *lone) write(name, text string) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// signal sends a signal and waits for a further line of the log with some words.
func (d *lone) signal(sig os.Signal, words string) {
	d.t.Helper()
	before := strings.Count(d.log.String(), words)
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.t.Fatal(err)
	}
	d.eventually("the log says "+words, func() bool { return strings.Count(d.log.String(), words) > before })
}

func (d *lone) eventually(what string, f func() bool) {
	d.t.Helper()
	redistest.Eventually(d.t, what, func() bool {
		select {
		case err := <-d.ended:
			d.t.Fatalf("drawbridged has ended: %v", err)
		default:
		}
		return f()
	})
}

// call asks the API on the daemon's unix socket, as root.
func (d *lone) call(method, path, body string) (int, object) {
	d.t.Helper()
	return d.callAs("drawbridge", method, path, body)
}

// callAs is call by a client that names another host.
func (d *lone) callAs(host, method, path, body string) (int, object) {
	d.t.Helper()
	c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(d.dir, "api.sock"))
		},
	}}
	req, err := http.NewRequestWithContext(d.t.Context(), method, "http://"+host+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	var m object
	_ = json.NewDecoder(resp.Body).Decode(&m)
	return resp.StatusCode, m
}

func (d *lone) ready() {
	d.t.Helper()
	d.eventually("the daemon is ready", func() bool {
		status, m := d.call("GET", "/readyz", "")
		return status == 200 && m["status"] == "ok"
	})
}

// freePort returns a TCP port of 127.0.0.1 that nobody listens on.
func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().(*net.TCPAddr).Port
}

// certificate writes a certificate for 127.0.0.1 with a serial number, and its key.
func (d *lone) certificate(serial int64) (certFile, keyFile string) {
	d.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		d.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		d.t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.write("cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))),
		d.write("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
}

// SIGHUP applies the settings and files that can be reloaded, names those that cannot, and applies
// nothing at all when one is wrong.
func TestReload(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t, "requirepass first")
	cli := func(password string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), redistest.Client(t), append([]string{"-s", redis.Socket}, args...)...)
		cmd.Env = append(os.Environ(), "REDISCLI_AUTH="+password)
		if out, err := cmd.CombinedOutput(); err != nil || bytes.Contains(out, []byte("ERR")) {
			t.Fatalf("redis-cli %v: %v %s", args, err, out)
		}
	}
	d := &lone{t: t, dir: t.TempDir()}
	apiPort, loginPort := freePort(t), freePort(t)
	certFile, keyFile := d.certificate(1)
	loginKey, password := d.write("login-key", "old-key"), d.write("redis-password", "first")
	geoip := d.write("geoip", "3405803776,3405804031,DE\n")
	d.write("geoip6", "2001:db8::,2001:db8::ffff,DE\n")
	other := d.write("other", "3405803776,3405804031,FR\n")
	d.write("other6", "2001:db8::,2001:db8::ffff,FR\n")
	settings := func(level, database, more string) {
		t.Helper()
		d.write("drawbridge.toml", fmt.Sprintf(`
state_dir = "%[1]s/state"
login.listen = ["inet:127.0.0.1:%[2]d"]
login.key_file = "%[3]s"
policyd.listen = []
milter.listen = []
api.listen = ["unix:%[1]s/api.sock", "inet:127.0.0.1:%[4]d?tls_cert=%[5]s&tls_key=%[6]s"]
console.listen = []
store.url = "unix://%[7]s"
store.password_file = "%[8]s"
log.level = "%[9]s"
regions.database = "%[10]s"
%[11]s
`, d.dir, loginPort, loginKey, apiPort, certFile, keyFile, redis.Socket, password, level, database, more))
	}
	region := func() any {
		_, m := d.call("GET", "/v1/regions/203.0.113.9", "")
		return m["region"]
	}
	serial := func() int64 {
		t.Helper()
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", apiPort), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
	}
	admits := func(key string) bool {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, fmt.Sprintf("http://127.0.0.1:%d/v1/login", loginPort), strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		return resp.StatusCode != http.StatusUnauthorized
	}
	is := func(when string, wantRegion string, wantSerial int64, key, not string) {
		t.Helper()
		if r, n := region(), serial(); r != wantRegion || n != wantSerial {
			t.Errorf("%s: region %v, certificate %d, want %s and %d", when, r, n, wantRegion, wantSerial)
		}
		if !admits(key) || admits(not) {
			t.Errorf("%s: %s is admitted: %v, %s: %v", when, key, admits(key), not, admits(not))
		}
	}
	const reloaded, refused = "were read again", "reload: nothing was applied"

	settings("info", geoip, "")
	d.run()
	d.ready()
	is("at the start", "DE", 1, "old-key", "new-key")

	// Whatever is wrong is named, and keeps everything else from being applied.
	d.write("login-key", "new-key")
	d.certificate(2)
	for _, c := range []struct{ name, level, database, more, want string }{
		{"an unknown setting", "error", other, "store.urk = 1", "store.urk"},
		{"a wrong value", "loud", other, "", "log.level"},
		{"no TOML", "error", other, "[[[", "not TOML"},
		{"a missing region database", "error", "/nowhere/geoip", "", "regions.database"},
		{"a store that this version cannot use", "error", other, "store.master = \"x\"", "store.master"},
	} {
		settings(c.level, c.database, c.more)
		d.signal(syscall.SIGHUP, refused)
		if !strings.Contains(d.log.String(), c.want) {
			t.Errorf("%s: the log does not name %s", c.name, c.want)
		}
		is(c.name, "DE", 1, "old-key", "new-key")
	}
	settings("info", other, "")
	for file, want := range map[string]string{"login-key": "login.key_file", "key.pem": "api.listen", "redis-password": "store.password_file", "other6": "regions.database"} {
		path := filepath.Join(d.dir, file)
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		d.write(file, "\n\n")
		d.signal(syscall.SIGHUP, refused)
		if !strings.Contains(d.log.String(), want) {
			t.Errorf("a broken %s: the log does not name %s", file, want)
		}
		is("a broken "+file, "DE", 1, "old-key", "new-key")
		d.write(file, string(good))
	}

	// Redis gets another password, and its open connections end.
	d.write("redis-password", "second")
	cli("first", "CONFIG", "SET", "requirepass", "second")
	settings("info", other, "api.max_connections = 9\nthrottle.window = \"1h\"")
	d.signal(syscall.SIGHUP, reloaded)
	is("after the reload", "FR", 2, "new-key", "old-key")
	if log := d.log.String(); !strings.Contains(log, `need a restart: settings=["api.max_connections", "throttle.window"]`) {
		t.Error("the log does not name the settings that need a restart")
	}
	cli("second", "CLIENT", "KILL", "TYPE", "normal")
	d.eventually("changes are taken with the new password", func() bool {
		status, _ := d.call("POST", "/v1/domains", `{"name":"example.org"}`)
		return status == 201
	})

	// The log level. Nothing is logged below it.
	settings("error", "none", "")
	d.write("login-key", "third-key")
	before := d.log.String()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.eventually("the third key is admitted", func() bool { return admits("third-key") })
	if r := region(); r == "FR" {
		t.Error("the region database is still in use")
	}
	if now := d.log.String(); now != before {
		t.Errorf("logged at level error: %s", strings.TrimPrefix(now, before))
	}

	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-d.ended; err != nil {
		t.Errorf("SIGTERM: %v", err)
	}
}

// SIGHUP does not end a daemon that is still starting.
func TestReloadAtStart(t *testing.T) {
	t.Parallel()
	redis := redistest.Start(t)
	redis.Kill()
	d := &lone{t: t, dir: t.TempDir()}
	d.settings(redis.Socket)
	d.run()
	d.eventually("the daemon misses its store", func() bool { return strings.Contains(d.log.String(), "cannot be reached") })
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	redis.Restart()
	d.ready()
	d.eventually("the reload is done", func() bool { return strings.Contains(d.log.String(), "were read again") })

	// A page of another site that reaches the socket does not act as root.
	if status, m := d.callAs("evil.example", "POST", "/v1/domains", `{"name":"example.org"}`); status != 421 || m["code"] != "misdirected" {
		t.Errorf("another host: %d %v", status, m)
	}
	if status, _ := d.call("GET", "/v1/domains/example.org", ""); status != 404 {
		t.Errorf("another host made a domain: %d", status)
	}
}
