package doctor

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/listen"
)

// daemon listens in place of drawbridged and answers as answers says.
type answers struct {
	livez  int
	readyz string // status code, blank, body
	policy string
	milter []byte

	regions string // none: 403
	store   string // none: noeviction
	rules   string // mail rules; none: []
	groups  string // none: []
}

var healthy = answers{livez: 200, readyz: `200 {"status":"ok"}`, policy: "action=DUNNO\n\n", milter: append([]byte{0, 0, 0, 13, 'O', 0, 0, 0, 6}, make([]byte, 8)...)}

func serve(t *testing.T, network, address string, handle func(net.Conn)) net.Addr {
	t.Helper()
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c)
			}()
		}
	}()
	return l.Addr()
}

// startDaemon returns the directory of the sockets and the settings that name them.
func startDaemon(t *testing.T, a answers) (dir, settings string) {
	t.Helper()
	dir = t.TempDir()
	login := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/livez" {
			t.Errorf("asked %s", r.URL.Path)
		}
		w.WriteHeader(a.livez)
	}))
	l, err := net.Listen("unix", filepath.Join(dir, "login.sock"))
	if err != nil {
		t.Fatal(err)
	}
	login.Listener = l
	login.Start()
	t.Cleanup(login.Close)

	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
		case "/v1/store":
			body := a.store
			if body == "" {
				body = `{"maxmemory_policy":"noeviction"}`
			}
			_, _ = io.WriteString(w, body)
			return
		case "/v1/domains":
			_, _ = io.WriteString(w, `{"items":[{"name":"example.org"}]}`)
			return
		case "/v1/domains/example.org/mail-rules":
			_, _ = io.WriteString(w, `{"items":[`+a.rules+`]}`)
			return
		case "/v1/domains/example.org/groups":
			_, _ = io.WriteString(w, `{"items":[`+a.groups+`]}`)
			return
		case "/v1/regions":
			body := a.regions
			if body == "" {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				body = `{"status":403,"code":"forbidden","detail":"a key of role login may not do this"}`
			}
			_, _ = io.WriteString(w, body)
			return
		default:
			t.Errorf("asked %s", r.URL.Path)
		}
		code, body, _ := strings.Cut(a.readyz, " ")
		if code == "503" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = io.WriteString(w, body)
	}))
	if l, err = net.Listen("unix", filepath.Join(dir, "api.sock")); err != nil {
		t.Fatal(err)
	}
	api.Listener = l
	api.Start()
	t.Cleanup(api.Close)

	serve(t, "unix", filepath.Join(dir, "policy.sock"), func(c net.Conn) {
		r := bufio.NewReader(c)
		for line, err := r.ReadString('\n'); line != "\n"; line, err = r.ReadString('\n') {
			if err != nil || strings.HasPrefix(line, "sasl_username=") && line != "sasl_username=\n" {
				t.Errorf("the question has %q (%v)", line, err)
				return
			}
		}
		_, _ = io.WriteString(c, a.policy)
	})
	milter := serve(t, "tcp", "127.0.0.1:0", func(c net.Conn) {
		hello := make([]byte, 17)
		if _, err := io.ReadFull(c, hello); err != nil || binary.BigEndian.Uint32(hello) != 13 || hello[4] != 'O' {
			t.Errorf("the milter is greeted with %q (%v)", hello, err)
			return
		}
		_, _ = c.Write(a.milter)
		if len(a.milter) > 4 { // else it hangs up
			_, _ = io.Copy(io.Discard, c)
		}
	})
	return dir, `state_dir = "` + dir + `"
[login]
listen = ["unix:` + dir + `/login.sock"]
next_passdb = false
[policyd]
listen = ["unix:` + dir + `/policy.sock"]
[milter]
listen = ["inet:` + milter.String() + `"]
[api]
listen = ["unix:` + dir + `/api.sock"]
`
}

func TestAskDaemon(t *testing.T) {
	change := func(f func(*answers)) answers {
		a := healthy
		f(&a)
		return a
	}
	for name, c := range map[string]struct {
		answers     answers
		severity    Severity
		check, what string
	}{
		"healthy":               {healthy, OK, "daemon.login", "answers"},
		"policy refuses":        {change(func(a *answers) { a.policy = "action=REJECT\n\n" }), Fail, "daemon.policyd", `"action=REJECT"`},
		"policy is silent":      {change(func(a *answers) { a.policy = "" }), Fail, "daemon.policyd", "closes without an answer"},
		"login is ill":          {change(func(a *answers) { a.livez = 500 }), Fail, "daemon.login", "500"},
		"milter hangs up":       {change(func(a *answers) { a.milter = []byte{0, 0} }), Fail, "daemon.milter", ""},
		"milter is none":        {change(func(a *answers) { a.milter = []byte("220 mail.example.org ESMTP\r\n") }), Fail, "daemon.milter", "as a milter does"},
		"ready":                 {healthy, OK, "daemon.ready", "is ready"},
		"degraded":              {change(func(a *answers) { a.readyz = `200 {"status":"degraded"}` }), Warn, "daemon.ready", "until the store is back"},
		"not ready":             {change(func(a *answers) { a.readyz = `503 {"status":"unavailable"}` }), Fail, "daemon.ready", "cannot decide"},
		"old regions":           {change(func(a *answers) { a.regions = `{"kind":"csv","paths":["/a","/a6"],"age_days":181}` }), Warn, "daemon.regions", "181 days"},
		"regions of IPv4 alone": {change(func(a *answers) { a.regions = `{"kind":"mmdb","paths":["/a.mmdb"],"missing":"IPv6"}` }), Warn, "daemon.regions", "no IPv6"},
		"broken regions":        {change(func(a *answers) { a.regions = `{"kind":"csv","paths":["/a"],"age_days":999,"error":"/a:7: what"}` }), Warn, "daemon.regions", "/a:7: what"},
		"no regions":            {change(func(a *answers) { a.regions = `{"kind":"none","domains":["example.org"]}` }), Warn, "daemon.regions", "example.org"},
		"old networks": {change(func(a *answers) {
			a.regions = `{"kind":"none","networks":{"kind":"mmdb","paths":["/asn.mmdb"],"age_days":181}}`
		}), Warn, "daemon.networks", "other networks"},
		"broken networks":       {change(func(a *answers) { a.regions = `{"kind":"none","networks":{"kind":"mmdb","error":"/asn.mmdb: what"}}` }), Warn, "daemon.networks", "/asn.mmdb: what"},
		"new networks":          {change(func(a *answers) { a.regions = `{"kind":"none","networks":{"kind":"mmdb","age_days":9}}` }), OK, "daemon.networks", "9 days"},
		"strange regions":       {change(func(a *answers) { a.regions = `[]` }), Warn, "daemon.regions", ""},
		"damaged":               {change(func(a *answers) { a.readyz = `200 {"status":"damaged"}` }), Fail, "daemon.ready", "so it can repair it"},
		"damaged, started late": {change(func(a *answers) { a.readyz = `503 {"status":"damaged"}` }), Fail, "daemon.ready", "cannot repair"},
		"evicting":              {change(func(a *answers) { a.store = `{"maxmemory_policy":"allkeys-lru","evicting":true}` }), Fail, "store.eviction", "allkeys-lru"},
		"evicting, accepted":    {change(func(a *answers) { a.store = `{"maxmemory_policy":"allkeys-lru"}` }), Warn, "store.eviction", "accepts"},
		"eviction not known":    {change(func(a *answers) { a.store = `{}` }), Warn, "store.eviction", "not known"},
		"evicting on one of several": {change(func(a *answers) {
			a.store = `{"mode":"cluster","maxmemory_policy":"allkeys-lru","evicting":true,"masters":[
				{"address":"192.0.2.1:6379","replicas":1,"maxmemory_policy":"noeviction","append_only":true,"needs_replicas":true},
				{"address":"192.0.2.2:6379","replicas":1,"maxmemory_policy":"allkeys-lru","append_only":true,"needs_replicas":true}]}`
		}), Fail, "store.eviction", "allkeys-lru on 192.0.2.2:6379"},
		"a master is away": {change(func(a *answers) {
			a.store = `{"mode":"cluster","maxmemory_policy":"noeviction","masters":[{"address":"192.0.2.1:6379","fault":"connection refused"}]}`
		}), Fail, "store.servers", "connection refused"},
		"no quorum": {change(func(a *answers) {
			a.store = `{"mode":"sentinel","maxmemory_policy":"noeviction","sentinels":[{"address":"192.0.2.9:26379","fault":"NOQUORUM 1 usable Sentinels"}]}`
		}), Fail, "store.servers", "NOQUORUM"},
		"no append-only file": {change(func(a *answers) {
			a.store = `{"mode":"single","maxmemory_policy":"noeviction","masters":[{"address":"192.0.2.1:6379","maxmemory_policy":"noeviction"}]}`
		}), Warn, "store.append_only", "writes no append-only file"},
		"appendfsync no": {change(func(a *answers) {
			a.store = `{"mode":"single","maxmemory_policy":"noeviction","masters":[{"address":"192.0.2.1:6379","maxmemory_policy":"noeviction","append_only":true,"appendfsync":"no"}]}`
		}), Warn, "store.append_only", "the last 30 seconds"},
		"no replica": {change(func(a *answers) {
			a.store = `{"mode":"sentinel","maxmemory_policy":"noeviction","masters":[{"address":"192.0.2.1:6379","maxmemory_policy":"noeviction","append_only":true}]}`
		}), Warn, "store.replicas", "nothing takes over"},
		"no min-replicas": {change(func(a *answers) {
			a.store = `{"mode":"sentinel","maxmemory_policy":"noeviction","masters":[{"address":"192.0.2.1:6379","replicas":1,"maxmemory_policy":"noeviction","append_only":true}]}`
		}), Warn, "store.replicas", "min-replicas-to-write"},
		"another's API": {change(func(a *answers) { a.readyz = "200 hello" }), Fail, "daemon.ready", "not JSON"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, settings := startDaemon(t, c.answers)
			f := append(askDaemon(t.Context(), settingsOf(t, settings)), askAPI(t.Context(), settingsOf(t, settings), "unix:"+dir+"/api.sock", "")...)
			if c.severity == OK {
				expectWell(t, f, 5)
				return
			}
			expect(t, f, c.severity, c.check, "", c.what)
			if n := len(bad(f)); n != 1 {
				t.Errorf("%d findings:\n%s", n, table(t, f))
			}
		})
	}
}

// What a failure of the machine loses is said, and nothing of a server that does not report it.
func TestAppendFsync(t *testing.T) {
	for set, want := range map[string]string{
		"always": "no acknowledged change is lost", "everysec": "the last two seconds", "no": "about the last 30 seconds", "": "",
	} {
		f := checkServers(&api.StoreStatus{Mode: "single", Masters: []api.Master{{Address: "192.0.2.1:6379", AppendOnly: true, AppendFsync: set}}})
		if text := table(t, f); (len(f) == 1) != (want != "") || !strings.Contains(text, want) || len(bad(f)) > 0 != (set == "no") {
			t.Errorf("%q:\n%s", set, text)
		}
	}
}

// A database that nobody needs is not missed; one that is young is fine.
func TestAskRegions(t *testing.T) {
	for regions, want := range map[string]int{
		`{"kind":"none","paths":[],"domains":[]}`:                                    0,
		`{"kind":"mmdb","paths":["/a.mmdb"],"age_days":180,"domains":["a.example"]}`: 1,
	} {
		a := healthy
		a.regions = regions
		dir, _ := startDaemon(t, a)
		f := askAPI(t.Context(), nil, "unix:"+dir+"/api.sock", "")
		if len(bad(f)) > 0 || len(f) != 2+want {
			t.Errorf("%s:\n%s", regions, table(t, f))
		}
	}
}

func TestAskNobody(t *testing.T) {
	dir := t.TempDir()
	c := site(t)
	c.Login.Listen = listeners(t, "unix:"+dir+"/login.sock", "inet:127.0.0.1:8481?allow_from=192.0.2.0/24", "inet:127.0.0.1:8482?tls_cert=/c&tls_key=/k", "inet:127.0.0.1:0")
	c.Policyd.Listen = listeners(t, "unix:"+dir+"/policy.sock")
	c.Milter.Listen = nil
	f := askDaemon(t.Context(), c)
	expect(t, f, Fail, "daemon.login", dir+"/login.sock", "temporary failure")
	expect(t, f, Fail, "daemon.policyd", dir+"/policy.sock", "default_action")
	if len(f) != 2 {
		t.Errorf("others are asked:\n%s", table(t, f))
	}
	expect(t, askAPI(t.Context(), nil, "unix:"+dir+"/api.sock", ""), Fail, "daemon.ready", "api.sock", "")
	expect(t, askAPI(t.Context(), nil, "ftp://x", ""), Fail, "daemon.ready", "ftp://x", "")
}

// The milter is needed when rules read headers or bodies, and costs time when none does.
func TestMilterUse(t *testing.T) {
	without := site(t)
	without.Milter.Listen = nil
	for name, c := range map[string]struct {
		config   *config.Config
		readyz   string
		severity Severity
		what     string
	}{
		"missing":     {without, `{"status":"ok","milter_needed":true}`, Fail, "they are not evaluated"},
		"left out":    {without, `{"status":"ok"}`, OK, "no rule in force needs the milter"},
		"almost full": {site(t), `{"status":"ok","hold_dir_full":true}`, Warn, "nine tenths"},
		"needed":      {site(t), `{"status":"ok","milter_needed":true}`, OK, "rules in force need the milter"},
		"superfluous": {site(t), `{"status":"ok"}`, OK, "can be left out"},
	} {
		t.Run(name, func(t *testing.T) {
			check, where := "daemon.milter.use", "milter.listen"
			if c.severity == Warn {
				check, where = "daemon.hold_quota", "mail.hold_quota"
			}
			expect(t, milterUse(c.config, []byte(c.readyz)), c.severity, check, where, c.what)
		})
	}
	if f := milterUse(without, []byte("hello")); len(f) != 0 {
		t.Errorf("an answer that is not JSON:\n%s", table(t, f))
	}
}

// The authentication service greets before it is asked anything.
func TestAskSASL(t *testing.T) {
	for greeting, want := range map[string]string{
		"VERSION\t1\t2\nMECH\tPLAIN\tplaintext\nSPID\t1\nDONE\n": "",
		"VERSION\t1\t2\nDONE\n":                                  "does not greet",
		"":                                                       "does not greet",
	} {
		socket := filepath.Join(t.TempDir(), "s")
		serve(t, "unix", socket, func(c net.Conn) { _, _ = io.WriteString(c, greeting) })
		err := askSASL(t.Context(), listen.Spec{Path: socket})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", greeting, err, want)
		}
	}
}
