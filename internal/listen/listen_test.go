package listen

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"io/fs"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
)

// dialHelper names the socket that this test binary, started anew with another identity, connects
// to.
const dialHelper = "LISTEN_TEST_DIAL"

func TestMain(m *testing.M) {
	path := os.Getenv(dialHelper)
	if path == "" {
		os.Exit(m.Run())
	}
	c, err := net.Dial("unix", path)
	if err != nil {
		os.Stderr.WriteString(err.Error())
		os.Exit(1)
	}
	io.Copy(io.Discard, c) // until the other side closes: an identity lasts as long as its connection
}

// socketDir is shorter than t.TempDir and open to other users of the helper process.
func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "listen")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func openT(t *testing.T, s Spec, o Options) *Listener {
	t.Helper()
	l, err := Open(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
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

// loopback is a Spec on 127.0.0.1 with a port of the kernel's choice.
func loopback() Spec { return Spec{Addr: netip.MustParseAddrPort("127.0.0.1:0")} }

func dial(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := net.Dial(l.Addr().Network(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

func accept(t *testing.T, l net.Listener) net.Conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestOpenUnixSetsModeAndGroup(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	for _, tc := range []struct{ mode, want fs.FileMode }{{0, 0o600}, {0o660, 0o660}, {0o666, 0o666}} {
		l := openT(t, Spec{Path: path, Mode: tc.mode, Group: ownGroup()}, Options{})
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != tc.want|fs.ModeSocket {
			t.Errorf("mode %v; want %v", info.Mode(), tc.want|fs.ModeSocket)
		}
		if gid := info.Sys().(*syscall.Stat_t).Gid; int(gid) != os.Getegid() {
			t.Errorf("group %d; want %d", gid, os.Getegid())
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("closing left the socket: %v", err)
		}
	}
}

// ownGroup is a group that every user may give a socket to: its own, by number.
func ownGroup() string { return big.NewInt(int64(os.Getegid())).String() }

func TestOpenUnixReplacesOnlyADeadSocket(t *testing.T) {
	path := filepath.Join(socketDir(t), "s")
	spec := Spec{Path: path}

	live := openT(t, spec, Options{})
	_, err := Open(spec, Options{})
	wantError(t, err, path, "in use by another process", "pid "+big.NewInt(int64(os.Getpid())).String())
	dial(t, live) // the refused second one has not harmed the first

	accept(t, live)
	live.Close()
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	l := openT(t, spec, Options{})
	dial(t, l)
	l.Close()

	datagram, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	_, err = Open(spec, Options{})
	wantError(t, err, "another program's socket")
	datagram.Close()
	os.Remove(path)

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(spec, Options{})
	wantError(t, err, "is not a socket", "remove it")
	if content, err := os.ReadFile(path); string(content) != "precious" {
		t.Errorf("the file is now %q, %v", content, err)
	}
}

func TestOpenUnixErrors(t *testing.T) {
	dir := socketDir(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := os.Mkdir(open, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		spec Spec
		want []string
	}{
		{Spec{}, []string{"neither a path nor an address"}},
		{Spec{Path: dir + "/missing/s"}, []string{"directory " + dir + "/missing does not exist", "install -d"}},
		{Spec{Path: file + "/s"}, []string{"is not a directory"}},
		{Spec{Path: open + "/s"}, []string{"writable by everyone", "chmod o-w"}},
		{Spec{Path: dir + "/s", Group: "no-such-group"}, []string{`unknown group "no-such-group"`, "group="}},
		{Spec{Path: dir + "/s", User: "no-such-user"}, []string{`unknown user "no-such-user"`, "user="}},
		{Spec{Path: "/" + strings.Repeat("x", 120)}, []string{"too long", "107"}},
		{Spec{Path: "/proc/s"}, []string{"/proc"}}, // nobody can make a socket there
	} {
		l, err := Open(tc.spec, Options{})
		if err == nil {
			l.Close()
		}
		wantError(t, err, tc.want...)
	}
	if left, err := filepath.Glob(dir + "/s*"); err != nil || len(left) != 0 {
		t.Errorf("failed attempts left %v, %v", left, err)
	}
}

func TestExplainPath(t *testing.T) {
	wantError(t, explainPath("/etc/s", &fs.PathError{Op: "open", Path: "/etc", Err: syscall.EACCES}),
		"may not create sockets in /etc, which belongs to uid 0 with mode 0755", "permission denied")
	wantError(t, explainPath("/etc/s", syscall.EROFS), "/etc is read-only", "ReadWritePaths=")
}

func TestOpenUnixWaitsForTheDirectory(t *testing.T) {
	dir := socketDir(t)
	locked, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		l, err := Open(Spec{Path: dir + "/s"}, Options{})
		if err == nil {
			err = l.Close()
		}
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("opened in a locked directory: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	locked.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestOpenInetErrors(t *testing.T) {
	l := openT(t, loopback(), Options{})
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_, err := Open(Spec{Addr: netip.MustParseAddrPort(l.Addr().String())}, Options{})
	wantError(t, err, "inet:127.0.0.1:"+port, "port "+port+" is taken", "ss -ltnp")

	_, err = Open(Spec{Addr: netip.MustParseAddrPort("192.0.2.1:0")}, Options{})
	wantError(t, err, "192.0.2.1 is no address of this machine")

	s := loopback()
	s.TLSCert, s.TLSKey = "/nonexistent/cert.pem", "/nonexistent/key.pem"
	_, err = Open(s, Options{})
	wantError(t, err, "certificate", "/nonexistent/cert.pem")
}

func TestPeerCred(t *testing.T) {
	l := openT(t, Spec{Path: filepath.Join(socketDir(t), "s"), Mode: 0o666}, Options{})
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{dialHelper + "=" + l.Addr().String()}
	want := Peer{UID: uint32(os.Getuid()), GID: uint32(os.Getgid())}
	if os.Getuid() == 0 { // only root can be somebody else; more groups than fit into the first buffer
		want.UID, want.GID = 12345, 23456
		for g := range uint32(40) {
			want.Groups = append(want.Groups, 34567+g)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: want.UID, Gid: want.GID, Groups: want.Groups}}
		shareBinary(t, cmd)
	} else {
		groups, err := os.Getgroups()
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			want.Groups = append(want.Groups, uint32(g))
		}
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	want.PID = int32(cmd.Process.Pid)

	c := accept(t, l)
	got, err := PeerCred(c)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(want.Groups)
	slices.Sort(got.Groups)
	if got.UID != want.UID || got.GID != want.GID || got.PID != want.PID || !slices.Equal(got.Groups, want.Groups) {
		t.Errorf("peer %+v; want %+v", got, want)
	}
	for _, g := range append(want.Groups, want.GID) {
		if !got.In(g) {
			t.Errorf("not in group %d", g)
		}
	}
	if got.In(99999) {
		t.Error("in a group that is not its own")
	}
	c.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
}

// shareBinary runs cmd from a copy of this binary that every user can reach; go test builds into a
// private directory.
func shareBinary(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	self, err := os.ReadFile(cmd.Path)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Path = filepath.Join(socketDir(t), "helper")
	if err := os.WriteFile(cmd.Path, self, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(cmd.Path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestPeerCredOfOthers(t *testing.T) {
	l := openT(t, loopback(), Options{})
	dial(t, l)
	if p, err := PeerCred(accept(t, l)); err == nil {
		t.Errorf("a TCP connection has the credential %v", p)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	if p, err := PeerCred(a); err == nil {
		t.Errorf("a pipe has the credential %v", p)
	}
}

func TestOwners(t *testing.T) {
	self := uint32(os.Geteuid())
	rule := owners(77, 88)
	for _, tc := range []struct {
		peer Peer
		want bool
	}{
		{Peer{UID: 0, GID: 5}, true},
		{Peer{UID: self, GID: 5}, true},
		{Peer{UID: 77, GID: 5}, true},
		{Peer{UID: 4242, GID: 88}, true},
		{Peer{UID: 4242, GID: 5, Groups: []uint32{6, 88}}, true},
		{Peer{UID: 4242, GID: 77}, false},
		{Peer{UID: 88, GID: 5}, false},
	} {
		if got := rule(tc.peer); got != tc.want {
			t.Errorf("%+v admitted: %v; want %v", tc.peer, got, tc.want)
		}
	}
	if owners(-1, -1)(Peer{UID: 1<<32 - 1, GID: 1<<32 - 1}) {
		t.Error("without a user and a group, -1 is admitted")
	}
}

// messages collects what is logged.
type messages chan string

func (m messages) Write(p []byte) (int, error) { m <- string(p); return len(p), nil }

func TestFilteredClosesAndLogs(t *testing.T) {
	log := make(messages, 8)
	l, err := net.Listen("unix", filepath.Join(socketDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	refuseFirst := 0
	f := &filtered{Listener: l, log: hclog.New(&hclog.LoggerOptions{Output: log}), admit: admitPeers(func(p Peer) bool {
		refuseFirst++
		return refuseFirst > 1
	})}
	refused, admitted := dial(t, l), dial(t, l)
	c := accept(t, f)
	if _, err := refused.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the refused connection reads %v; want EOF", err)
	}
	if line := <-log; !strings.Contains(line, "connection refused") || !strings.Contains(line, "pid ") {
		t.Errorf("logged %q", line)
	}
	c.Close()
	if _, err := admitted.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("the admitted connection reads %v; want EOF", err)
	}
}

func TestOpenAdmits(t *testing.T) {
	allowed, refused := loopback(), loopback()
	allowed.AllowFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	refused.AllowFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	owned := Spec{Path: filepath.Join(socketDir(t), "s")}

	for _, s := range []Spec{allowed, owned} {
		l := openT(t, s, Options{OwnersOnly: true})
		client := dial(t, l)
		if _, err := client.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if b, err := bufio.NewReader(accept(t, l)).ReadByte(); b != 'x' {
			t.Errorf("%s: read %q, %v", s, b, err)
		}
	}

	log := make(messages, 8)
	l := openT(t, refused, Options{Log: hclog.New(&hclog.LoggerOptions{Output: log})})
	ended := make(chan error)
	go func() {
		_, err := l.Accept()
		ended <- err
	}()
	if _, err := dial(t, l).Read(make([]byte, 1)); err == nil {
		t.Error("an address outside allow_from was admitted")
	}
	if line := <-log; !strings.Contains(line, "127.0.0.1 is not in allow_from") {
		t.Errorf("logged %q", line)
	}
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v", err)
	}
}

func TestMaxConns(t *testing.T) {
	log := make(messages, 8)
	l := openT(t, loopback(), Options{MaxConns: 1, Log: hclog.New(&hclog.LoggerOptions{Output: log})})
	dial(t, l)
	dial(t, l)
	first := accept(t, l)
	if open, limit := l.Connections(); open != 1 || limit != 1 || l.LimitReached() != 0 {
		t.Errorf("%d of %d connections are open, limit reached %d times", open, limit, l.LimitReached())
	}
	second := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			second <- c
		}
		close(second)
	}()
	select {
	case <-second:
		t.Fatal("a second connection beside the only one allowed")
	case <-time.After(50 * time.Millisecond):
	}
	first.Close()
	first.Close() // gives back one slot, not two
	c := <-second
	if c == nil {
		t.Fatal("the slot was not given back")
	}
	defer c.Close()

	if text := <-log; l.LimitReached() != 1 || !strings.Contains(text, "connection limit reached") || !strings.Contains(text, "limit=1") {
		t.Errorf("limit reached %d times, log:\n%s", l.LimitReached(), text)
	}

	waiting := make(chan error, 1)
	go func() {
		_, err := l.Accept()
		waiting <- err
	}()
	l.Close()
	if err := <-waiting; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept at the limit ended with %v; want net.ErrClosed", err)
	}
}

func TestSlotConnClosesWriteSide(t *testing.T) {
	l := openT(t, loopback(), Options{})
	client := dial(t, l)
	server := accept(t, l)
	if err := server.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("read %v; want EOF", err)
	}
	if _, err := client.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if n, err := server.Read(make([]byte, 1)); n != 1 {
		t.Errorf("read %d bytes, %v", n, err)
	}
}

// failing answers Accept with these errors in turn before it works.
type failing struct {
	net.Listener
	errs []error
}

func (f *failing) Accept() (net.Conn, error) {
	if len(f.errs) == 0 {
		return f.Listener.Accept()
	}
	err := f.errs[0]
	f.errs = f.errs[1:]
	return nil, err
}

func TestPatient(t *testing.T) {
	base, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer base.Close()
	log := make(messages, 8)
	emfile := &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	p := newPatient(&failing{base, []error{emfile, emfile, syscall.ECONNABORTED, io.EOF}}, hclog.New(&hclog.LoggerOptions{Output: log}))
	if _, err := p.Accept(); !errors.Is(err, io.EOF) {
		t.Errorf("Accept ended with %v; want the first lasting error", err)
	}
	dial(t, base)
	if _, err := p.Accept(); err != nil {
		t.Errorf("Accept does not go on after the errors: %v", err)
	}
	if line := <-log; !strings.Contains(line, "too many open files") {
		t.Errorf("logged %q", line)
	}
	if len(log) != 0 {
		t.Errorf("one series of errors logged more than once: %q", <-log)
	}

	forever := make([]error, 1000)
	for i := range forever {
		forever[i] = emfile
	}
	p = newPatient(&failing{base, forever}, hclog.NewNullLogger())
	ended := make(chan error)
	go func() {
		_, err := p.Accept()
		ended <- err
	}()
	p.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept ended with %v; want net.ErrClosed", err)
	}
}

func TestTLS(t *testing.T) {
	s := loopback()
	roots := x509.NewCertPool()
	s.TLSCert, s.TLSKey = selfSigned(t, roots)
	l := openT(t, s, Options{})
	served := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			_, err = c.Write([]byte("x"))
			err = errors.Join(err, c.Close())
		}
		served <- err
	}()
	c, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); string(got) != "x" {
		t.Errorf("read %q, %v", got, err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}

// selfSigned writes a certificate for 127.0.0.1 and its key, and adds it to roots.
func selfSigned(t *testing.T, roots *x509.CertPool) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots.AppendCertsFromPEM(certPEM)
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for name, content := range map[string][]byte{
		cert: certPEM,
		key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}),
	} {
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}
