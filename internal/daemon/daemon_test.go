package daemon_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/daemon"
	"github.com/drawbridge/drawbridge/internal/listen"
	"github.com/drawbridge/drawbridge/internal/redistest"
)

// settings are a daemon's own: a short directory, an API socket, a login socket.
func settings(t *testing.T, more string) *config.Config {
	t.Helper()
	dir, err := os.MkdirTemp("", "db-daemon")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	text := fmt.Sprintf(`
state_dir = "%[1]s/state"
login.listen = ["unix:%[1]s/login.sock"]
policyd.listen = []
milter.listen = []
api.listen = ["unix:%[1]s/api.sock"]
console.listen = []
%[2]s
`, dir, more)
	cfg, err := config.Parse(strings.NewReader(text), "test")
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// run starts a daemon; stop ends it and returns what it said.
func run(t *testing.T, cfg *config.Config) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(ctx, cfg, daemon.Reload{}, hclog.NewNullLogger(), "test") }()
	var said error
	stop = func() error {
		cancel()
		if ended != nil {
			said = <-ended
			ended = nil
		}
		return said
	}
	t.Cleanup(func() { _ = stop() })
	return stop
}

// fails starts a daemon that must not start, or not go on.
func fails(t *testing.T, cfg *config.Config) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	err := daemon.Run(ctx, cfg, daemon.Reload{}, hclog.NewNullLogger(), "test")
	if err == nil || ctx.Err() != nil {
		t.Fatalf("it runs: %v", err)
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("more than one line: %q", err)
	}
	return err.Error()
}

// apiClient connects to the API's unix socket anew for every request.
func apiClient(cfg *config.Config) *http.Client {
	socket := cfg.API.Listen[0].Path
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

func metrics(t *testing.T, cfg *config.Config) string {
	t.Helper()
	resp, err := apiClient(cfg).Get("http://drawbridge/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func call(t *testing.T, cfg *config.Config, method, path string, body any) (int, map[string]any) {
	t.Helper()
	c := apiClient(cfg)
	b, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://drawbridge"+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if body == nil {
		req.Body = http.NoBody
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]any{}
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%s: %q", path, text)
	}
	return resp.StatusCode, m
}

func ready(t *testing.T, cfg *config.Config) {
	t.Helper()
	redistest.Eventually(t, "the daemon is ready", func() bool {
		status, m := call(t, cfg, "GET", "/readyz", nil)
		return status == 200 && m["status"] == "ok"
	})
}

func TestStoreOverTLSWithPassword(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := certificate(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	redistest.Start(t, fmt.Sprintf("tls-port %d", port), "bind 127.0.0.1", "tls-auth-clients no",
		"tls-cert-file "+certFile, "tls-key-file "+keyFile, "tls-ca-cert-file "+certFile, "requirepass correct-horse")
	password := filepath.Join(dir, "password")
	if err := os.WriteFile(password, []byte("correct-horse\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := settings(t, fmt.Sprintf(`
[store]
url = "rediss://127.0.0.1:%d"
password_file = "%s"
tls_ca_file = "%s"
`, port, password, certFile))
	stop := run(t, cfg)
	ready(t, cfg)
	if status, m := call(t, cfg, "POST", "/v1/domains", map[string]any{"name": "example.org"}); status != 201 {
		t.Fatalf("%d %v", status, m)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	run(t, cfg)
	ready(t, cfg)
	if status, m := call(t, cfg, "GET", "/v1/domains/example.org", nil); status != 200 {
		t.Fatalf("after a restart: %d %v", status, m)
	}

	// A certificate that nobody we trust has signed is no Redis of ours.
	untrusted := settings(t, fmt.Sprintf("[store]\nurl = \"rediss://127.0.0.1:%d\"\npassword_file = \"%s\"\n", port, password))
	if err := os.MkdirAll(untrusted.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	pepper, err := os.ReadFile(filepath.Join(cfg.StateDir, "pepper"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(untrusted.StateDir, "pepper"), pepper, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, untrusted)
	redistest.Eventually(t, "the daemon says that it has no store", func() bool {
		status, m := call(t, untrusted, "GET", "/readyz", nil)
		return status == 503 && m["status"] == "unavailable"
	})
}

// certificate makes one for 127.0.0.1, its own authority.
func certificate(t *testing.T, dir string) (certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "redis"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "EC PRIVATE KEY", Bytes: der}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// One line that says what to do, for each way not to start.
func TestStartFaults(t *testing.T) {
	want := func(t *testing.T, got string, words ...string) {
		t.Helper()
		for _, w := range words {
			if !strings.Contains(got, w) {
				t.Errorf("%q does not say %q", got, w)
			}
		}
	}
	t.Run("a port that is taken", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		cfg := settings(t, "[policyd]\n")
		other, err := config.Parse(strings.NewReader(fmt.Sprintf("[milter]\nlisten = [\"inet:%s\"]\n", l.Addr())), "test")
		if err != nil {
			t.Fatal(err)
		}
		cfg.Milter.Listen = other.Milter.Listen
		want(t, fails(t, cfg), l.Addr().String(), "in use")
	})
	t.Run("no Postfix on this machine", func(t *testing.T) {
		cfg := settings(t, "[policyd]\n")
		cfg.Milter.Listen = []listen.Spec{{Path: "/nowhere/private/drawbridge-milter", Mode: 0o660}}
		want(t, fails(t, cfg), "milter.listen", "directory /nowhere/private does not exist", "milter.listen = []")
	})
	t.Run("a state directory that others can write", func(t *testing.T) {
		cfg := settings(t, "")
		if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(cfg.StateDir, 0o777); err != nil {
			t.Fatal(err)
		}
		want(t, fails(t, cfg), "state_dir", "chmod go-w")
	})
	t.Run("a state directory that is not ours", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Fatal("run the tests as root, as make test does")
		}
		cfg := settings(t, "")
		if err := os.MkdirAll(cfg.StateDir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(cfg.StateDir, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		want(t, fails(t, cfg), "state_dir", "65534", "chown")
	})
	t.Run("a database of regions that is not there", func(t *testing.T) {
		cfg := settings(t, "[regions]\ndatabase = \"/nowhere/geoip\"\n")
		want(t, fails(t, cfg), "regions.database", "/nowhere/geoip", "no such file")
		want(t, fmt.Sprint(daemon.Check(cfg)), "regions.database", "/nowhere/geoip")
	})
	t.Run("a database of regions that is broken", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "x.mmdb")
		if err := os.WriteFile(path, []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg := settings(t, fmt.Sprintf("[regions]\ndatabase = %q\n", path))
		want(t, fails(t, cfg), "regions.database", path, `"none"`)
		want(t, fmt.Sprint(daemon.Check(cfg)), "regions.database", path)
	})
}

// A missing or another pepper stops the daemon, and none is made over it.
func TestPepper(t *testing.T) {
	cfg := settings(t, "")
	stop := run(t, cfg)
	ready(t, cfg)
	redistest.Eventually(t, "the pepper is on record", func() bool {
		_, m := call(t, cfg, "GET", "/v1/audit", nil)
		b, _ := json.Marshal(m)
		return strings.Contains(string(b), "pepper.note")
	})
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(cfg.StateDir, "pepper")
	pepper, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if said := fails(t, cfg); !strings.Contains(said, path) || !strings.Contains(said, "put it back") {
		t.Errorf("missing: %q", said)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("another pepper was made")
	}
	if err := os.WriteFile(path, bytes.Repeat([]byte("ab"), 32), 0o600); err != nil {
		t.Fatal(err)
	}
	if said := fails(t, cfg); !strings.Contains(said, path) || !strings.Contains(said, "not the pepper") {
		t.Errorf("another: %q", said)
	}
	if err := os.WriteFile(path, pepper, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, cfg)
	ready(t, cfg)
}

// The connections of each listener and their limit are in the metrics.
func TestConnectionMetrics(t *testing.T) {
	cfg := settings(t, "[api]\nmax_connections = 77\n")
	run(t, cfg)
	ready(t, cfg)
	text := metrics(t, cfg)
	socket := cfg.API.Listen[0].Path
	for _, line := range []string{
		fmt.Sprintf("drawbridge_connections{listener=%q,service=\"api\"} ", socket),
		fmt.Sprintf("drawbridge_connections_limit{listener=%q,service=\"api\"} 77\n", socket),
		fmt.Sprintf("drawbridge_connections_limit_reached_total{listener=%q,service=\"api\"} 0\n", socket),
	} {
		if !strings.Contains(text, line) {
			t.Errorf("the metrics lack %s:\n%s", line, text)
		}
	}
}

// A daemon without a database of regions says which domains miss it.
func TestRegionsAreMissed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "geoip")
	for name, text := range map[string]string{path: "3405803776,3405804031,DE\n", path + "6": "2001:db8::,2001:db8::ffff,DE\n"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg := settings(t, fmt.Sprintf("[regions]\ndatabase = %q\n", path))
	stop := run(t, cfg)
	ready(t, cfg)
	if status, m := call(t, cfg, "GET", "/v1/regions/203.0.113.9", nil); status != 200 || m["region"] != "DE" {
		t.Errorf("%d %v", status, m)
	}
	call(t, cfg, "POST", "/v1/domains", map[string]any{"name": "example.org"})
	status, m := call(t, cfg, "POST", "/v1/domains/example.org/policies", map[string]any{
		"name": "Home", "type": "whitelist", "scope": map[string]any{"all": true}, "regions": []string{"DE"},
	})
	if status != 201 {
		t.Fatalf("%d %v", status, m)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	cfg.Regions.Database = config.NoRegions
	var said redistest.Lines
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- daemon.Run(ctx, cfg, daemon.Reload{}, hclog.New(&hclog.LoggerOptions{Output: &said}), "test")
	}()
	redistest.Eventually(t, "the domain is named", func() bool {
		return strings.Contains(said.String(), "there is no region database") && strings.Contains(said.String(), "example.org")
	})
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
