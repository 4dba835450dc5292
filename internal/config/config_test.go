package config

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/listen"
)

func parse(text string) (*Config, error) { return Parse(strings.NewReader(text), "f") }

func mustParse(t *testing.T, text string) *Config {
	t.Helper()
	c, err := parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestEmptyFileIsTheDefault(t *testing.T) {
	if got := mustParse(t, ""); !reflect.DeepEqual(got, Default()) {
		t.Errorf("empty file: %+v; want %+v", got, Default())
	}
}

func TestManualIsTheDefault(t *testing.T) {
	var b bytes.Buffer
	if err := WriteDefaults(&b); err != nil {
		t.Fatal(err)
	}
	if got := mustParse(t, b.String()); !reflect.DeepEqual(got, Default()) {
		t.Errorf("the manual reads as %+v; want %+v", got, Default())
	}
	for _, s := range settings() {
		if len(s.doc) < 20 || strings.HasPrefix(s.doc, " ") || !strings.Contains(b.String(), "\n"+leaf(s.name)+" = ") {
			t.Errorf("%s is not documented: %q", s.name, s.doc)
		}
	}
	for _, line := range []string{
		`url = "embedded"`,
		`max_staleness = "24h"`,
		`listen = ["unix:/run/drawbridge/login.sock?mode=0660&group=dovecot"]`,
		`listen = ["unix:/var/spool/postfix/private/drawbridge?mode=0660&group=postfix"]`,
		`listen = ["unix:/var/spool/postfix/private/drawbridge-milter?mode=0660&group=postfix"]`,
		`listen = ["unix:/run/drawbridge/api.sock", "inet:127.0.0.1:8480"]`,
		`services = {}`,
		`retention = "90d"`,
	} {
		if !strings.Contains(b.String(), "\n"+line+"\n") {
			t.Errorf("the manual lacks the line %s", line)
		}
	}
}

// TestEverySettingIsReached sets every field of Config by its setting: none is forgotten in the
// table, none is met twice.
func TestEverySettingIsReached(t *testing.T) {
	c, want := &Config{}, 0
	var fields func(reflect.Type)
	fields = func(r reflect.Type) {
		for f := range r.Fields() {
			if f.Type.Kind() == reflect.Struct && f.Type != reflect.TypeFor[StoreURL]() {
				fields(f.Type)
			} else {
				want++
			}
		}
	}
	fields(reflect.TypeFor[Config]())
	seen := make(map[uintptr]string)
	for _, s := range settings() {
		at := reflect.ValueOf(s.at(c)).Pointer()
		if seen[at] != "" {
			t.Errorf("%s and %s have the same field", s.name, seen[at])
		}
		seen[at] = s.name
	}
	if len(seen) != want {
		t.Errorf("%d settings for %d fields", len(seen), want)
	}
}

const everything = `state_dir = "/srv/db"
login.services = {"submission587" = "smtp", "a\"b" = "imap"}

[store]
url = ["rediss://10.0.0.1", "rediss://[::1]:7000"]
master = "mymaster"
username = "drawbridge"
password_file = "/etc/drawbridge/redis.password"
db = 3
tls_ca_file = "/etc/drawbridge/ca.pem"
tls_cert_file = "/etc/drawbridge/cert.pem"
tls_key_file = "/etc/drawbridge/key.pem"
min_replicas = 1
max_staleness = "1d12h"

[policyd]
listen = []

[regions]
database = "none"

[sessions]
doveadm = ["unix:/run/dovecot/doveadm-server", "exec:/usr/bin/doveadm -c /etc/dovecot/b.conf"]

[throttle]
window = "90m"
exempt = ["192.0.2.7", "2001:db8::/48"]
`

func TestChangedIsReadAgain(t *testing.T) {
	c := mustParse(t, everything)
	var b bytes.Buffer
	if err := WriteChanged(&b, c); err != nil {
		t.Fatal(err)
	}
	const want = `state_dir = "/srv/db"
[store]
url = ["rediss://10.0.0.1", "rediss://[::1]:7000"]
master = "mymaster"
username = "drawbridge"
password_file = "/etc/drawbridge/redis.password"
db = 3
tls_ca_file = "/etc/drawbridge/ca.pem"
tls_cert_file = "/etc/drawbridge/cert.pem"
tls_key_file = "/etc/drawbridge/key.pem"
min_replicas = 1
max_staleness = "36h"
[login]
services = {"a\"b" = "imap", "submission587" = "smtp"}
[policyd]
listen = []
[regions]
database = "none"
[sessions]
doveadm = ["unix:/run/dovecot/doveadm-server", "exec:/usr/bin/doveadm -c /etc/dovecot/b.conf"]
[throttle]
window = "1h30m"
exempt = ["192.0.2.7", "2001:db8::/48"]
`
	if b.String() != want {
		t.Errorf("changed settings:\n%s\nwant:\n%s", b.String(), want)
	}
	if again := mustParse(t, b.String()); !reflect.DeepEqual(again, c) {
		t.Errorf("read again: %+v; want %+v", again, c)
	}
	if got, err := c.Store.Target(); err != nil || !reflect.DeepEqual(got, Target{
		Network: "tcp", Addresses: []string{"10.0.0.1:26379", "[::1]:7000"}, TLS: true, Master: "mymaster",
	}) {
		t.Errorf("target %+v, %v", got, err)
	}
	if len(c.Policyd.Listen) != 0 || c.Store.MaxStaleness != 36*time.Hour || c.Throttle.Window != 90*time.Minute {
		t.Errorf("read %+v", c)
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	_, err := parse(`state_dir = "relative"
colour = 3
[store]
min_replicas = 11
max_staleness = "30s"
max_stalenes = "1h"
[logn]
listen = []
unmanaged = "deny"
[login]
unmanaged = "allow"
listen = ["inet:127.0.0.1:8481", "tcp:1"]
next_passdb = "yes"
password = "hunter2"
[milter]
listen = ["inet:0.0.0.0:1", "unix:/x?mode=9"]
[regions]
database = "x.mmdb"
[sessions]
doveadm = ["unix:x", "http://127.0.0.1:8080"]
`)
	var problems *Error
	if !errors.As(err, &problems) {
		t.Fatalf("error %v; want an *Error", err)
	}
	const want = `f: sessions.key_file: is needed for http://127.0.0.1:8080: name a file with Dovecot's doveadm_api_key
f:1: state_dir: "relative" is not an absolute path: start it with /
f:2: colour: there is no such setting: remove it ('drawbridged -d' prints all settings)
f:4: store.min_replicas: 11 is out of bounds: from 0 to 10
f:4: store.min_replicas: must be 0 with store.url = "embedded", which has no replicas
f:5: store.max_staleness: "30s" is out of bounds: from "1m" to "365d"
f:6: store.max_stalenes: there is no such setting: did you mean store.max_staleness?
f:7: logn: there is no such table: did you mean [login]?
f:11: login.unmanaged: "allow" is not one of "deny", "next"
f:12: login.listen: listener "tcp:1": write unix:/path or inet:address:port
f:13: login.next_passdb: must be true or false, not a string
f:14: login.password: there is no such setting: remove it ('drawbridged -d' prints all settings)
f:16: milter.listen: listener "inet:0.0.0.0:1": beyond loopback, name who may connect with allow_from=10.0.0.0/8 or encrypt with tls_cert=/path&tls_key=/path
f:16: milter.listen: listener "unix:/x?mode=9": mode "9": write octal permissions from 0600 to 0777 with which the owner can read and write, such as 0660
f:18: regions.database: "x.mmdb" is not an absolute path: start it with /
f:20: sessions.doveadm: "unix:x" is not an address of doveadm: write "unix:/path", "http://host:port" or "exec:/usr/bin/doveadm"`
	if err.Error() != want {
		t.Errorf("problems:\n%v\nwant:\n%s", err, want)
	}
}

func TestProblems(t *testing.T) {
	for text, want := range map[string]string{
		// TOML itself
		"a = ":                                "f:1: not TOML: ",
		"[login]\nreveal = x":                 "f:2: not TOML: ",
		"a = 1\na = 2":                        "f:2: not TOML: ",
		"\xff":                                "f:1: not TOML: ",
		strings.Repeat("# long\n", 1<<14):     "f: is too large: at most 65536 bytes",
		"\n# " + strings.Repeat("x", maxLine): "f:2: is too long: at most 8192 bytes a line",
		// names
		"[store]\nstate_dir = \"/x\"":   "f:2: store.state_dir: there is no such setting: did you mean state_dir, before the first [table]?",
		"url = \"embedded\"":            "f:1: url: there is no such setting: did you mean store.url?",
		"State_Dir = \"/x\"":            "f:1: State_Dir: there is no such setting: did you mean state_dir?",
		"[log]\nlevel.x = 1":            "f:2: log.level: must be a string, not a table",
		"login = 5":                     "f:1: login: is a table: write [login] on a line of its own and its settings below",
		"[a.b]\nc = 1":                  "f:1: a: there is no such table",
		"\n\na.b.c = 1":                 "f:3: a: there is no such table",
		"[[login]]\nunmanaged = \"x\"":  "f:1: login: is a table",
		"[\"lo gin\"]\nx = 1":           `f:1: "lo gin": there is no such table: did you mean [login]?`,
		strings.Repeat("x", 200) + "=1": "f:1: " + strings.Repeat("x", 64) + "…: there is no such setting: remove it",
		// types
		"[store]\nmin_replicas = 1.5":                                "f:2: store.min_replicas: must be a whole number, not a number with a fraction",
		"[store]\nmin_replicas = 5000000000":                         "f:2: store.min_replicas: 5000000000 is out of range",
		"[store]\nmin_replicas = 2024-01-01":                         "f:2: store.min_replicas: must be a whole number, not a date",
		"[store]\nurl = 1\nusername = \"x\"\npassword_file=\"/x\"":   "f:2: store.url: must be a string or a list of strings, not a number",
		"[store]\nmax_staleness = 60":                                `f:2: store.max_staleness: must be a duration in quotes, such as "15m", "24h" or "90d", not a number`,
		"[store]\nmax_staleness = \"1 hour\"":                        `f:2: store.max_staleness: "1 hour" is not a duration`,
		"[records]\nretention = \"99999999d\"":                       `f:2: records.retention: "99999999d" is not a duration`,
		"[records]\nretention = \"-5m\"":                             `f:2: records.retention: "-5m" is out of bounds: from "1h" to "3650d"`,
		"[throttle]\nexempt = [\"10.0.0.0/33\"]":                     `f:2: throttle.exempt: `,
		"[throttle]\nexempt = \"10.0.0.0/8\"":                        "f:2: throttle.exempt: must be a list of strings, not a string",
		"[records]\nmax_per_domain = 0":                              "f:2: records.max_per_domain: 0 is out of bounds",
		"[api]\nlisten = \"inet:127.0.0.1:1\"":                       `f:2: api.listen: must be a list of listeners, such as ["inet:127.0.0.1:10040"], not a string`,
		"[api]\nlisten = [1]":                                        "f:2: api.listen: must be a list of listeners",
		"[login]\nservices = \"x\"":                                  "f:2: login.services: must be a table",
		"[login.services]\nx = 1":                                    `f:1: login.services: "x" must be a string`,
		"[api]\nlisten = [" + strings.Repeat(`"unix:/x",`, 65) + "]": "f:2: api.listen: names 65 listeners: at most 64",
		"[login.services]\n" + numbered(65, "s%d = 'imap'\n"):        "f:1: login.services: names 65 services: at most 64",
		// values
		"state_dir = \"\"":                         "f:1: state_dir: must not be empty",
		"[log]\nlevel = \"loud\"":                  `f:2: log.level: "loud" is not one of "trace", "debug", "info", "warn", "error"`,
		"[login]\ndefault_domain = \"a@b\"":        `f:2: login.default_domain: "a@b" is not a domain`,
		"[login]\ndefault_domain = \"b.\"":         `f:2: login.default_domain: "b." is not a domain`,
		"[login]\ndefault_domain = \"-b.org\"":     `f:2: login.default_domain: "-b.org" is not a domain`,
		"[login]\nservices = {x = \"web\"}":        `f:2: login.services: "x" is mapped to "web", which is not one of "imap", "pop3", "smtp", "sieve"`,
		"[login]\nservices = {lmtp = \"imap\"}":    `f:2: login.services: "lmtp" has a fixed meaning`,
		"[login]\nservices = {\"a b\" = \"imap\"}": `f:2: login.services: "a b" is not a service name`,
		// settings that depend on each other
		"[login]\nlisten = [\"inet:127.0.0.1:8481\"]":                      `f: login.key_file: is needed for inet:127.0.0.1:8481 in login.listen`,
		"[milter]\nlisten = [\"inet:127.0.0.1:8480\"]":                     "f: api.listen: 127.0.0.1:8480 is already in milter.listen: choose another",
		"[milter]\nlisten = [\"unix:/x\", \"unix:/./x\"]":                  "f:2: milter.listen: /x is already in milter.listen: choose another",
		"[milter]\nlisten = [\"inet:127.0.0.1:1?tls_cert=/c&tls_key=/k\"]": "f:2: milter.listen: inet:127.0.0.1:1?tls_cert=/c&tls_key=/k: Postfix speaks no TLS here: use allow_from",
		"[sasl]\nlisten = [\"unix:/x\"]":                                   "f: sasl.next: is needed with sasl.listen",
		"[login]\nunmanaged = \"next\"":                                    `f:2: login.unmanaged: is "next", but login.unmanaged_domains names no domain`,
		"[login]\nunmanaged_domains = [\"*\"]":                             `f:2: login.unmanaged_domains: has no effect while login.unmanaged is "deny"`,
		"[login]\nnext_passdb = false\nunmanaged = \"next\"\nunmanaged_domains = [\"*\"]\n[sasl]\nlisten = [\"unix:/x\"]": "f: sasl.next: is needed with sasl.listen",
		"[sasl]\nlisten = [\"inet:127.0.0.1:1\"]\nnext = \"/x\"":                                                          "f:2: sasl.listen: inet:127.0.0.1:1: the protocol has no key",
		"[sasl]\nnext = \"x\"": `f:2: sasl.next: "x" is not an absolute path`,
		"[sasl]\nlisten = [\"unix:/x\"]\nnext = \"/y\"\n[policyd]\nlisten = [\"unix:/x\"]": "f:5: policyd.listen: /x is already in sasl.listen",
		"[store]\nmin_replicas = 1":                                                `f:2: store.min_replicas: must be 0 with store.url = "embedded"`,
		"[store]\nprogram = \"valkey-server\"":                                     `f:2: store.program: "valkey-server" is not an absolute path`,
		"[store]\nurl = \"redis://h\"\nprogram = \"/x\"":                           "f:3: store.program: has no meaning with a Redis of your own",
		"[store]\npassword_file = \"/x\"":                                          `f:2: store.password_file: has no meaning with store.url = "embedded"`,
		"[store]\nurl = \"redis://h\"\nusername = \"u\"":                           "f:3: store.username: needs store.password_file",
		"[store]\nurl = \"redis://h\"\nusername = \"u u\"\npassword_file = \"/x\"": `f:3: store.username: "u u" is not a name`,
		"[store]\nurl = \"redis://h\"\ntls_ca_file = \"/x\"":                       "f:3: store.tls_ca_file: has no effect without TLS",
		"[store]\nurl = \"rediss://h\"\ntls_key_file = \"/x\"":                     "f:3: store.tls_key_file: needs store.tls_cert_file as well",
		"[store]\nurl = [\"h\"]\nsentinel_password_file = \"/p\"":                  "f:3: store.sentinel_password_file: needs store.master",
		"[store]\nurl = \"redis://h\"\nmaster = \"m\"":                             "f:3: store.master: needs a list of Sentinels",
		"[store]\nurl = [\"h\"]\ndb = 1":                                           "f:3: store.db: must be 0",
		// store.url
		"[store]\nurl = \"\"":                                 `f:2: store.url: is "", which is not a store: write "embedded", unix:///path`,
		"[store]\nurl = \"127.0.0.1:6379\"":                   `f:2: store.url: is "127.0.0.1:6379", which is not a store`,
		"[store]\nurl = \"http://h\"":                         "which is not a store",
		"[store]\nurl = \"unix://run/x\"":                     `f:2: store.url: is "unix://run/x", which is not a unix socket: write unix:///path`,
		"[store]\nurl = \"redis://h/3\"":                      "f:2: store.url: has something after the port in \"redis://h/3\": a database number goes into store.db",
		"[store]\nurl = \"redis://h:0\"":                      "f:2: store.url: names no server",
		"[store]\nurl = \"redis://h?db=1\"":                   "f:2: store.url: has options after ? or #",
		"[store]\nurl = []":                                   "f:2: store.url: names 0 servers",
		"[store]\nurl = [\"embedded\"]":                       `f:2: store.url: address 1 "embedded" does not belong in a list`,
		"[store]\nurl = [\"h\"]\nmaster = \"a b\"":            `f:3: store.master: "a b" is not a name`,
		"[store]\nurl = [\"h:1\", \"unix:///x\"]":             `f:2: store.url: address 2 is "unix:///x", which does not belong in a list`,
		"[store]\nurl = [\"redis://h\", \"rediss://i\"]":      "f:2: store.url: mixes servers with and without TLS",
		"[store]\nurl = [" + strings.Repeat(`"h",`, 65) + "]": "f:2: store.url: names 65 servers: from 1 to 64",
	} {
		c, err := parse(text)
		if c != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.120q:\n%v\nwant:\n%s", text, err, want)
		}
		if strings.Contains(want, "f:") && err != nil && strings.Count(err.Error(), "\n") > 0 {
			t.Errorf("%.120q: more than one problem:\n%v", text, err)
		}
	}
}

// numbered repeats a line n times, each with its number.
func numbered(n int, line string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, line, i)
	}
	return b.String()
}

// TestLongListIsReadAgain covers what does not fit into one line.
func TestLongListIsReadAgain(t *testing.T) {
	c := mustParse(t, "[api]\nlisten = ["+numbered(64, "'unix:/run/"+strings.Repeat("x", 90)+"%d',\n")+"]")
	var b bytes.Buffer
	if err := WriteChanged(&b, c); err != nil {
		t.Fatal(err)
	}
	if again := mustParse(t, b.String()); len(c.API.Listen) != 64 || !reflect.DeepEqual(again, c) {
		t.Errorf("read %+v, and again %+v", c.API.Listen, again.API.Listen)
	}
}

// TestProblemsAreBounded feeds what takes the most time for its size.
func TestProblemsAreBounded(t *testing.T) {
	for text, want := range map[string]int{
		numbered(6000, "x%d = 1\n"):                                    maxProblems,
		strings.Repeat("a.", maxFile/2-8) + "a = 1":                    1,
		"x = " + strings.Repeat("[", 9999) + strings.Repeat("]", 9999): 1,
	} {
		_, err := parse(text)
		var problems *Error
		if !errors.As(err, &problems) || len(problems.Problems) != want {
			t.Errorf("%.20q…: %.200v; want %d problems", text, err, want)
		}
	}
}

func TestPasswordsAreNotRepeated(t *testing.T) {
	for _, text := range []string{
		`store.url = "redis://:hunter2@h"`,
		`store.url = "redis://user:hunter2@h:6379/0"`,
		`store.url = ["h:1", "redis://x:hunter2@h"]`,
		`store.url = "redis://h?password=hunter2"`,
		`store.url = "redis://:hunter2"`,
		`store.password = "hunter2"`,
		`login.key_file = ["hunter2"]`,
	} {
		if _, err := parse(text); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestTarget(t *testing.T) {
	tcp := func(tls bool, addresses ...string) Target {
		return Target{Network: "tcp", Addresses: addresses, TLS: tls}
	}
	cluster := tcp(false, "10.0.0.1:6379", "h:7000", "[::1]:6379")
	cluster.Cluster = true
	for text, want := range map[string]Target{
		`"embedded"`:                              {Embedded: true},
		`"unix:///run/redis/r.sock"`:              {Network: "unix", Addresses: []string{"/run/redis/r.sock"}},
		`"redis://h"`:                             tcp(false, "h:6379"),
		`"rediss://h:1/"`:                         tcp(true, "h:1"),
		`"redis://[2001:db8::1]:7"`:               tcp(false, "[2001:db8::1]:7"),
		`["10.0.0.1", "redis://h:7000", "[::1]"]`: cluster,
	} {
		c := mustParse(t, "store.url = "+text)
		if got, err := c.Store.Target(); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", text, got, err, want)
		}
	}
	if got, err := (Store{}).Target(); err == nil {
		t.Errorf("the zero Store is at %+v", got)
	}
}

func TestLoad(t *testing.T) {
	path := filepath.Join(t.TempDir(), "drawbridge.toml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(path, []byte("[login]\nlisten = [\"inet:127.0.0.1:0\"]\nkey_file = \"/k\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if want := []listen.Spec{{Addr: loopback(0)}}; !reflect.DeepEqual(c.Login.Listen, want) {
		t.Errorf("listen %v; want %v", c.Login.Listen, want)
	}
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]struct {
		d    time.Duration
		text string
	}{
		"90d":    {90 * day, "90d"},
		"1d":     {day, "24h"},
		"24h":    {day, "24h"},
		"1d12h":  {36 * time.Hour, "36h"},
		"15m":    {15 * time.Minute, "15m"},
		"90s":    {90 * time.Second, "1m30s"},
		"10h30m": {10*time.Hour + 30*time.Minute, "10h30m"},
		"0s":     {0, "0s"},
	} {
		got, err := parseDuration(text)
		if err != nil || got != want.d || formatDuration(got) != want.text {
			t.Errorf("%q is %v, %v, printed %q; want %v, printed %q", text, got, err, formatDuration(got), want.d, want.text)
		}
	}
	for _, text := range []string{"", "5", "d", "1.5d", "-1d", "1d-1h", "1dd", "106752d", "99999999999d", "1d9000000h"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q is %v; want an error", text, got)
		}
	}
}

func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	file := func(content string, mode fs.FileMode) string {
		path := filepath.Join(dir, fmt.Sprintf("%d-%o", len(content), mode))
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	full := strings.Repeat("x", maxSecret)
	for content, want := range map[string]string{"hunter2": "hunter2", "hunter2\n": "hunter2", "a b\r\n": "a b", full + "\r\n": full} {
		if got, err := ReadSecret(file(content, 0o640)); err != nil || string(got) != want {
			t.Errorf("%.20q is %.20q, %v", content, got, err)
		}
	}
	for path, want := range map[string]string{
		file("hunter2\n", 0o604):        "'chmod o= ",
		file("", 0o600):                 "one line",
		file("\n", 0o600):               "one line",
		file("hunter2\nhunter3", 0o600): "one line",
		file("hunter2\n\n", 0o600):      "one line",
		file(full+"x", 0o600):           "one line",
		file(full+"xxxxxxxxx", 0o600):   "one line",
		dir:                             "not a regular file",
		dir + "/missing":                "no such file",
	} {
		got, err := ReadSecret(path)
		if got != nil || err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %.20q, %v; want %q", path, got, err, want)
		}
	}
}

// FuzzParse holds that what is read is written so that it is read again, and that problems are
// single lines.
func FuzzParse(f *testing.F) {
	var manual bytes.Buffer
	if err := WriteDefaults(&manual); err != nil {
		f.Fatal(err)
	}
	f.Add(manual.String())
	f.Add(everything)
	f.Add("[login]\nlisten = [\"inet:[::1]:1\"]\nkey_file = \"/\\u007f\"\n")
	f.Add("store.url = \"redis://:secret@h\"")
	f.Add("\"\\n\" = 1\n[[a]]\n[a.b]\nlogin.services.x = 'imap'")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := parse(text)
		if err != nil {
			var problems *Error
			if !errors.As(err, &problems) || len(problems.Problems) == 0 || c != nil {
				t.Fatalf("%+v with the error %#v", c, err)
			}
			for _, p := range problems.Problems {
				if p.Text == "" || strings.Contains(p.Setting+p.Text, "\n") {
					t.Fatalf("problem %+v", p)
				}
			}
			return
		}
		var b bytes.Buffer
		if err := WriteChanged(&b, c); err != nil {
			t.Fatal(err)
		}
		again, err := parse(b.String())
		if err != nil || !reflect.DeepEqual(again, c) {
			t.Fatalf("%+v was written as\n%s\nand read as %+v, %v", c, b.String(), again, err)
		}
	})
}

// A reload takes the settings that it can apply, and no others.
func TestChanged(t *testing.T) {
	from, to := Default(), Default()
	to.Log.Level, to.Regions.Database, to.Throttle.Window, to.API.MaxConnections = "debug", NoRegions, time.Hour, 7
	live, restart := Changed(from, to)
	if !slices.Equal(live, []string{"regions.database", "log.level"}) || !slices.Equal(restart, []string{"api.max_connections", "throttle.window"}) {
		t.Errorf("reloaded %v, with a restart %v", live, restart)
	}
	applied := Applied(from, to)
	if live, restart := Changed(applied, to); len(live) > 0 || len(restart) != 2 {
		t.Errorf("afterwards %v and %v differ", live, restart)
	}
	if from.Log.Level != "info" {
		t.Error("the settings in effect were changed in place")
	}
}
