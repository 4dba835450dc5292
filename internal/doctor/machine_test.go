package doctor

import (
	"io/fs"
	"net"
	"os"
	"path"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
)

const (
	uidDovecot = 104
	gidDovecot = 108
	uidPostfix = 102
	gidPostfix = 105
	uidDaemon  = 990
)

// host is a machine with these files; directories not named are root's, mode 0755.
func host(files map[string]file) machine {
	return machine{
		stat: func(name string) (file, error) {
			if f, ok := files[name]; ok {
				return f, nil
			}
			for known := range files {
				if strings.HasPrefix(known, strings.TrimSuffix(name, "/")+"/") {
					return file{mode: fs.ModeDir | 0o755}, nil
				}
			}
			return file{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrNotExist}
		},
		users:  parseUsers(strings.NewReader("root:x:0:0:root:/root:/bin/sh\ndovecot:x:104:108::/:\npostfix:x:102:105::/:\ndrawbridge:x:990:990::/:\nann:x:1000:1000::/:\nbob:x:1001:108::/:\n")),
		groups: parseGroups(strings.NewReader("root:x:0:\ndovecot:x:108:ann,drawbridge\npostfix:x:105:\nmail:x:8:dovecot\n")),
	}
}

func TestAccounts(t *testing.T) {
	m := host(nil)
	if got, want := m.members(gidDovecot), []string{"ann", "bob", "dovecot", "drawbridge"}; !reflect.DeepEqual(got, want) {
		t.Errorf("members of dovecot: %v", got)
	}
	if got := m.groupName(7); got != "7" {
		t.Errorf("a group without a name is %q", got)
	}
	if got := parseUsers(strings.NewReader("+::::::\nx:y:z\nx:x:-1:1\nx:x:1:-1\nx:x:4294967296:1:\n")); len(got) != 0 {
		t.Errorf("users: %v", got)
	}
}

func TestMay(t *testing.T) {
	for _, c := range []struct {
		uid, gid uint32
		mode     fs.FileMode
		want     bool
	}{
		{0, 0, 0o000, true},
		{1, 9, 0o600, true},
		{1, 2, 0o060, false}, // its owner is judged as owner alone
		{9, 2, 0o060, true},
		{9, 2, 0o606, false}, // and its group as group
		{9, 9, 0o002, true},
		{9, 9, 0o664, false},
	} {
		p := process{uid: c.uid, gids: []uint32{c.gid}}
		if got := p.may(file{mode: c.mode, uid: 1, gid: 2}, 2); got != c.want {
			t.Errorf("uid %d gid %d may write mode %04o of 1:2: %v", c.uid, c.gid, c.mode, got)
		}
	}
}

// sockets is a machine where all is as the shipped configuration wants it.
func sockets() map[string]file {
	return map[string]file{
		shippedPath:                             {mode: 0o755},
		defaultSocket:                           {mode: fs.ModeSocket | 0o660, uid: uidDaemon, gid: gidDovecot},
		"/var/spool/postfix/private":            {mode: fs.ModeDir | 0o700, uid: uidPostfix},
		"/var/spool/postfix/private/auth":       {mode: fs.ModeSocket | 0o660, uid: uidPostfix, gid: gidPostfix},
		"/var/spool/postfix/private/drawbridge": {mode: fs.ModeSocket | 0o660, uid: uidDaemon, gid: gidPostfix},

		"/var/spool/postfix/private/drawbridge-milter": {mode: fs.ModeSocket | 0o660, uid: uidDaemon, gid: gidPostfix},
	}
}

// lonely takes the members away that do not belong in Dovecot's group.
func lonely(m machine) machine {
	m.users = m.users[:4]
	m.groups = parseGroups(strings.NewReader("root:x:0:\ndovecot:x:108:\npostfix:x:105:\nmail:x:8:\n"))
	return m
}

func TestFiles(t *testing.T) {
	d, p := dovecotOf(t, goodDovecot()), postfixOf(t, goodMain(), goodMaster())
	m := lonely(host(sockets()))
	expectWell(t, m.checkDovecot(d), 4)
	expectWell(t, m.checkPostfix(p, site(t)), 3)
}

func TestProgramAndLoginSocket(t *testing.T) {
	dir := path.Dir(shippedPath)
	socket := func(mode fs.FileMode, uid, gid uint32) file { return file{fs.ModeSocket | mode, uid, gid} }
	for name, c := range map[string]struct {
		path        string // what stands there instead
		file        file   // zero: nothing
		more        string // for service auth
		severity    Severity
		check, what string
	}{
		"no program":                 {shippedPath, file{}, "", Fail, "program", "is missing"},
		"no program but a directory": {shippedPath, file{mode: fs.ModeDir | 0o755}, "", Fail, "program", "not a program"},
		"not executable":             {shippedPath, file{mode: 0o744}, "", Fail, "program", "every user may run"},
		"another's program":          {shippedPath, file{mode: 0o755, uid: 1000}, "", Fail, "program", "uid 1000"},
		"writable program":           {shippedPath, file{mode: 0o775}, "", Fail, "program", "mode 0775"},
		"another's directory":        {dir, file{mode: fs.ModeDir | 0o755, uid: 1000}, "", Fail, "program", "uid 1000"},
		"writable directory":         {dir, file{mode: fs.ModeDir | 0o777}, "", Fail, "program", "mode 0777"},
		"sticky directory":           {dir, file{mode: fs.ModeDir | fs.ModeSticky | 0o777}, "", OK, "program", "only root"},
		"no socket":                  {defaultSocket, file{}, "", Fail, "login_socket.reach", "is missing"},
		"a file":                     {defaultSocket, file{mode: 0o660}, "", Fail, "login_socket.reach", "is not a socket"},
		"another group":              {defaultSocket, socket(0o660, uidDaemon, 990), "", Fail, "login_socket.reach", "cannot be written by dovecot"},
		"the group of group(5)":      {defaultSocket, socket(0o660, uidDaemon, 8), "", Fail, "login_socket.reach", "group mail"},
		"an extra group":             {defaultSocket, socket(0o660, uidDaemon, 8), "extra_groups = mail", OK, "login_socket.reach", "dovecot reaches"},
		"a group instead":            {defaultSocket, socket(0o660, uidDaemon, 8), "group = mail", OK, "login_socket.reach", "dovecot reaches"},
		"auth is root":               {defaultSocket, socket(0o600, uidDaemon, 990), "user = root", OK, "login_socket.reach", "root reaches"},
		"auth is nobody known":       {defaultSocket, socket(0o660, uidDaemon, gidDovecot), "user = vmail", Fail, "login_socket.reach", "there is no user vmail"},
		"a closed directory":         {path.Dir(defaultSocket), file{mode: fs.ModeDir | 0o700, uid: uidDaemon}, "", Fail, "login_socket.reach", "/run/drawbridge (mode 0700) cannot be searched by dovecot"},
		"open to everyone":           {defaultSocket, socket(0o666, uidDaemon, gidDovecot), "", Fail, "login_socket.mode", "guess passwords"},
		"open to its group":          {defaultSocket, socket(0o660, uidDaemon, gidDovecot), "", Warn, "login_socket.group", "(ann, bob)"},
		"closed to its group":        {defaultSocket, socket(0o600, uidDovecot, gidDovecot), "", OK, "login_socket.mode", "closed to other users"},
	} {
		t.Run(name, func(t *testing.T) {
			files := sockets()
			if c.file == (file{}) {
				delete(files, c.path)
			} else {
				files[c.path] = c.file
			}
			d := dovecotOf(t, strings.Replace(goodDovecot(), "vsz_limit = 1G", "vsz_limit = 1G\n  "+c.more, 1))
			expect(t, host(files).checkDovecot(d), c.severity, c.check, "", c.what)
		})
	}
}

// The script names its sessions, which userdb prefetch takes for all of a user's data.
func TestSessionFields(t *testing.T) {
	const name = "/etc/dovecot/drawbridge.lua"
	without := strings.NewReplacer(`"userdb_user_session"`, `""`, `"userdb_user_credential"`, `""`).Replace(dovecot.Script())
	for series, text := range map[string]string{
		"2.3": strings.NewReplacer("driver = checkpassword", "driver = lua", "args = "+shippedPath, "args = file="+name+" blocking=yes").Replace(goodDovecot()),
		"2.4": recorded(t, "doveconf24-n.txt"),
	} {
		prefetch := map[string]string{"2.3": "userdb {\n  driver = prefetch\n}\n", "2.4": "userdb prefetch {\n}\n"}[series]
		read := func(text string) DovecotConf {
			if series == "2.3" {
				return dovecotOf(t, text)
			}
			return parsed(t, text)
		}
		first := strings.Replace(text, "userdb ", prefetch+"userdb ", 1)
		m := host(map[string]file{name: {mode: 0o644}})
		m.read = func(string) ([]byte, error) { return []byte(dovecot.Script()), nil }
		expect(t, m.checkDovecot(read(first)), Fail, "script.fields", name, "userdb_user_session")
		for _, f := range slices.Concat(m.checkDovecot(read(text)), m.checkDovecot(read(text+prefetch))) {
			if f.Check == "script.fields" {
				t.Errorf("%s, prefetch not there or last: %v", series, f)
			}
		}
		m.read = func(string) ([]byte, error) { return []byte(without), nil }
		expect(t, m.checkDovecot(read(first)), OK, "script.fields", name, "no field")
	}
}

func TestPostfixSockets(t *testing.T) {
	const policy = "/var/spool/postfix/private/drawbridge"
	p := postfixOf(t, goodMain(), goodMaster())
	for name, c := range map[string]struct {
		path        string
		file        file
		severity    Severity
		check, what string
	}{
		"no policy socket":          {policy, file{}, Fail, "policy_socket", "is missing"},
		"another group's":           {policy, file{fs.ModeSocket | 0o660, uidDaemon, 990}, Fail, "policy_socket", "cannot be written by postfix"},
		"nobody listens to logins":  {"/var/spool/postfix/private/auth", file{}, Fail, "sasl_socket", "nobody can log in"},
		"another's directory":       {"/var/spool/postfix/private", file{fs.ModeDir | 0o700, 1000, 0}, Fail, "policy_socket", "cannot be searched by postfix"},
		"a closed way to the queue": {"/var/spool", file{fs.ModeDir | 0o700, 0, 0}, OK, "policy_socket", "postfix reaches"}, // it is in there already
	} {
		t.Run(name, func(t *testing.T) {
			files := sockets()
			if c.file == (file{}) {
				delete(files, c.path)
			} else {
				files[c.path] = c.file
			}
			expect(t, host(files).checkPostfix(p, site(t)), c.severity, c.check, "", c.what)
		})
	}
	p.Main["mail_owner"] = "nobody-here"
	expect(t, host(sockets()).checkPostfix(p, site(t)), Fail, "postfix.sockets", "mail_owner", "no user nobody-here")

	// The milter's, when it is one.
	settings := settingsOf(t, "[milter]\nlisten = [\"unix:/run/drawbridge/milter.sock\"]\n")
	conf := postfixOf(t, strings.Replace(goodMain(), "unix:private/drawbridge-milter", "unix:/run/drawbridge/milter.sock", 1), strings.ReplaceAll(strings.ReplaceAll(goodMaster(), " y ", " n "), "smtpd_milters=", "x="))
	expect(t, host(sockets()).checkPostfix(conf, settings), Fail, "milter_socket", "/run/drawbridge/milter.sock", "no mail is checked")
}

// Who is not root cannot look everywhere: that is said, and is no fault of the site.
func TestNotAllowedToLook(t *testing.T) {
	m := host(sockets())
	m.stat = func(name string) (file, error) {
		return file{}, &fs.PathError{Op: "stat", Path: name, Err: fs.ErrPermission}
	}
	d, p := dovecotOf(t, goodDovecot()), postfixOf(t, goodMain(), goodMaster())
	for _, x := range append(m.checkDovecot(d), m.checkPostfix(p, site(t))...) {
		if x.Severity == Fail {
			t.Errorf("%s: %s: %s", x.Check, x.Where, x.What)
		}
	}
}

func TestStatFile(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Symlink(filepath.Join(dir, "s"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	f, err := statFile(filepath.Join(dir, "link"))
	if err != nil || f.mode.Type() != fs.ModeSocket || int(f.uid) != os.Getuid() {
		t.Errorf("%+v, %v", f, err)
	}
	if _, err := statFile(filepath.Join(dir, "none")); err == nil {
		t.Error("a file that is not there has facts")
	}
	m := readMachine(t.Context())
	if _, ok := m.user("root"); !ok || m.groupName(0) != "root" {
		t.Errorf("%d users and %d groups, and no root among them", len(m.users), len(m.groups))
	}
}
