package trialstack

import (
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
)

func TestParseStat(t *testing.T) {
	const line = "1234 (odd) name (x) S 77 88 99 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4567 890 12"
	p, err := parseStat(line)
	if want := (process{pid: 1234, parent: 77, session: 99, start: 4567, ticks: 26}); err != nil || p != want {
		t.Errorf("parseStat gives %+v, %v; want %+v", p, err, want)
	}
	zombie := strings.Replace(line, ") S ", ") Z ", 1)
	if p, err := parseStat(zombie); err != nil || !p.dead {
		t.Errorf("a zombie is %+v, %v", p, err)
	}
	for _, broken := range []string{"", "12", "12 (a", ") 12 (", "12 (a) S 1 2 3", strings.Replace(line, " 77 ", " x ", 1)} {
		if p, err := parseStat(broken); err == nil {
			t.Errorf("parseStat(%q) gives %+v", broken, p)
		}
	}
	self, err := readProcess(os.Getpid())
	if err != nil || self.parent != os.Getppid() {
		t.Errorf("this process is %+v, %v; its parent is %d", self, err, os.Getppid())
	}
}

func TestHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		t.Fatalf("the address is %T", l.Addr())
	}
	if got := holder(addr.Port); !strings.HasPrefix(got, " by trialstack.test (process ") {
		t.Errorf("the port is taken%s", got)
	}
}

func TestEdit(t *testing.T) {
	got, err := edit("a = 1\nb = 2\n", change{"a = 1", "a = 3"}, change{"b = 2", "b = 4"})
	if want := "a = 3\nb = 4\n"; err != nil || got != want {
		t.Errorf("edit gives %q, %v; want %q", got, err, want)
	}
	if got, err := edit("a\na\n", change{"a", "b"}); err == nil {
		t.Errorf("an ambiguous edit gives %q", got)
	}
	if got, err := edit("a\n", change{"c", "b"}); err == nil {
		t.Errorf("an edit of what is not there gives %q", got)
	}
}

func TestTables(t *testing.T) {
	text, err := tables(map[string]any{"state_dir": "/s", "login.unmanaged": "next", "login.listen": []string{"unix:/l"}, "store.min_replicas": 1})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := toml.Unmarshal(text, &got); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	want := map[string]any{
		"state_dir": "/s",
		"login":     map[string]any{"unmanaged": "next", "listen": []any{"unix:/l"}},
		"store":     map[string]any{"min_replicas": int64(1)},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("tables gives %v; want %v", got, want)
	}
	if text, err := tables(map[string]any{"login": 1, "login.unmanaged": "next"}); err == nil {
		t.Errorf("a value that is a table too gives %s", text)
	}
}

func TestCheckDir(t *testing.T) {
	closed := t.TempDir()
	if err := os.Chmod(closed, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ dir, fault string }{
		{"/tmp/" + strings.Repeat("x", maxDir), "leave room for 60"},
		{"/tmp/with blank", "other characters"},
		{"/tmp/100%", "other characters"},
		{"/dev/null/x", "not a directory"},
		{filepath.Join(closed, "x"), "cannot pass through " + closed},
	} {
		if err := CheckDir(c.dir); err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v; want %q", c.dir, err, c.fault)
		}
	}
	dir, err := TempDir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := CheckDir(dir); err != nil {
		t.Errorf("a directory of TempDir: %v", err)
	}
}

// A directory with somebody's files in it is left alone, and faults come all at once.
func TestNewRefuses(t *testing.T) {
	dir, err := TempDir()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	theirs := filepath.Join(dir, "precious")
	if err := os.WriteFile(theirs, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if _, err := New(dir, Options{WithoutDrawbridge: true}); err == nil || !strings.Contains(err.Error(), "not empty and not an earlier trial's") {
		t.Errorf("a directory in use gives %v", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("it now holds %v, %v", entries, err)
	}
	if info, err := os.Stat(dir); err != nil || info.Mode() != os.ModeDir|os.ModeSticky|0o777 {
		t.Errorf("it now has the mode %v, %v", info.Mode(), err)
	}

	_, err = New("/tmp/with blank", Options{Daemons: 2, Accounts: []Account{{Address: "ann@"}}})
	if err == nil {
		t.Fatal("nothing is wrong with nonsense")
	}
	for _, fault := range []string{"other characters", "set SharedRedis", "set Bin", `account "ann@": want local@domain`} {
		if !strings.Contains(err.Error(), fault) {
			t.Errorf("the error lacks %q: %v", fault, err)
		}
	}
}

// The ports of people and of the contract do not collide, and move together.
func TestDemoPorts(t *testing.T) {
	seen := make(map[int]string)
	plain, moved := DemoPorts(0), DemoPorts(1000)
	named := moved.named()
	for i, p := range plain.named() {
		if other, ok := seen[*p.number]; ok {
			t.Errorf("%s and %s share port %d", p.name, other, *p.number)
		}
		seen[*p.number] = p.name
		if *named[i].number != *p.number+1000 {
			t.Errorf("%s moves from %d to %d", p.name, *p.number, *named[i].number)
		}
	}
}

// The snippet for Dovecot says what keeps a login from failing open.
func TestSnippetFailsClosed(t *testing.T) {
	conf := dovecot.Conf23()
	for _, line := range []string{
		"  result_success = return-ok\n", "  result_failure = return-fail\n", "  result_internalfail = return-fail\n",
		"service auth {\n  vsz_limit = 1G\n}\n", "auth_policy_check_before_auth = no\n", "auth_policy_check_after_auth = yes\n", "auth_policy_reject_on_fail = yes\n",
		"auth_policy_report_after_auth = yes\n", "imap_id_retain = yes\n",
	} {
		if strings.Count(conf, line) != 1 {
			t.Errorf("%q is there %d times", line, strings.Count(conf, line))
		}
	}
}
