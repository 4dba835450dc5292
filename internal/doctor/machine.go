package doctor

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/doveconf"
	"github.com/drawbridge/drawbridge/internal/postconf"
)

// file is the metadata of a file or socket that the checks read.
type file struct {
	mode     fs.FileMode
	uid, gid uint32
}

// statFile follows links, as those do who use the file.
func statFile(name string) (file, error) {
	info, err := os.Stat(name)
	if err != nil {
		return file{}, err
	}
	f := file{mode: info.Mode()}
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		f.uid, f.gid = s.Uid, s.Gid
	}
	return f, nil
}

// A user is a line of passwd(5).
type user struct {
	name     string
	uid, gid uint32
}

// A group is a line of group(5).
type group struct {
	name    string
	gid     uint32
	members []string
}

// A machine is the host that the servers run on: its files, users and groups.
type machine struct {
	stat   func(string) (file, error)
	read   func(string) ([]byte, error)
	users  []user
	groups []group
}

// parseUsers reads passwd(5), parseGroups group(5); lines of other forms are passed over.
func parseUsers(r io.Reader) (users []user) {
	eachAccount(r, func(f []string, id uint32) {
		if gid, err := strconv.ParseUint(f[3], 10, 32); err == nil {
			users = append(users, user{f[0], id, uint32(gid)})
		}
	})
	return users
}

func parseGroups(r io.Reader) (groups []group) {
	eachAccount(r, func(f []string, id uint32) {
		groups = append(groups, group{f[0], id, splitWords(f[3])})
	})
	return groups
}

const maxAccountLine = 256 << 10 // bytes: a group may have many members

func eachAccount(r io.Reader, do func(fields []string, id uint32)) {
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, maxAccountLine)
	for scanner.Scan() {
		fields := strings.Split(strings.TrimSpace(scanner.Text()), ":")
		if len(fields) < 4 {
			continue
		}
		if id, err := strconv.ParseUint(fields[2], 10, 32); err == nil {
			do(fields, uint32(id))
		}
	}
}

func (m machine) user(name string) (user, bool) {
	i := slices.IndexFunc(m.users, func(u user) bool { return u.name == name })
	if i < 0 {
		return user{}, false
	}
	return m.users[i], true
}

func (m machine) group(name string) (group, bool) {
	i := slices.IndexFunc(m.groups, func(g group) bool { return g.name == name })
	if i < 0 {
		return group{}, false
	}
	return m.groups[i], true
}

// groupName returns the name of a group, or its number.
func (m machine) groupName(gid uint32) string {
	for _, g := range m.groups {
		if g.gid == gid {
			return g.name
		}
	}
	return strconv.FormatUint(uint64(gid), 10)
}

// members returns the names of all who are in a group, by their first group or by group(5).
func (m machine) members(gid uint32) []string {
	var names []string
	for _, u := range m.users {
		if u.gid == gid {
			names = append(names, u.name)
		}
	}
	for _, g := range m.groups {
		if g.gid == gid {
			names = append(names, g.members...)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// A process is who a server runs as. Neither Dovecot nor Postfix takes the groups of group(5)
// along.
type process struct {
	name string
	uid  uint32
	gids []uint32
}

// may reports whether p has a permission, 4 to read, 2 to write, 1 to execute or to search.
func (p process) may(f file, permission fs.FileMode) bool {
	mode := f.mode.Perm()
	switch {
	case p.uid == 0:
		return true
	case p.uid == f.uid:
		return mode>>6&permission != 0
	case slices.Contains(p.gids, f.gid):
		return mode>>3&permission != 0
	}
	return mode&permission != 0
}

// reach reports whether p can connect to a socket. Directories above from are not looked at: a
// process that is in from already has passed them. Then says what follows if it cannot, fix what to
// write.
func (m machine) reach(f *findings, check string, p process, socket, from, fix, then string) {
	info, err := m.stat(socket)
	switch {
	case errors.Is(err, fs.ErrPermission):
		f.warn(check, socket, "# run this as root", "permission denied")
		return
	case err != nil:
		f.fail(check, socket, fix, "is missing (%v): %s", cause(err), then)
		return
	case info.mode.Type() != fs.ModeSocket:
		f.fail(check, socket, fix, "is not a socket: %s", then)
		return
	}
	for dir := path.Dir(socket); strings.HasPrefix(dir, from); dir = path.Dir(dir) {
		if d, err := m.stat(dir); err == nil && !p.may(d, 1) {
			f.fail(check, socket, fix, "%s (mode %04o) cannot be searched by %s: %s", dir, d.mode.Perm(), p.name, then)
			return
		}
		if dir == "/" {
			break
		}
	}
	if !p.may(info, 2) {
		f.fail(check, socket, fix, "cannot be written by %s (mode %04o, group %s): %s", p.name, info.mode.Perm(), m.groupName(info.gid), then)
		return
	}
	f.ok(check, socket, "%s reaches %s", p.name, socket)
}

// cause leaves out the path that an error of a file repeats.
func cause(err error) error {
	if inner := new(fs.PathError); errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

// dovecotAuth returns who Dovecot's auth process, and so checkpassword, runs as.
func (m machine) dovecotAuth(all doveconf.Section) (process, error) {
	auth := all.One("service", "auth")
	name := auth.Get("user", "$default_internal_user")
	if name == "" {
		return process{name: "root"}, nil
	}
	if name == "$default_internal_user" {
		name = all.Get("default_internal_user", "dovecot")
	}
	u, ok := m.user(name)
	if !ok {
		return process{}, fmt.Errorf("there is no user %s", name)
	}
	p := process{name: u.name, uid: u.uid, gids: []uint32{u.gid}}
	if g, ok := m.group(auth.Get("group", "")); ok {
		p.gids = []uint32{g.gid}
	}
	for _, extra := range splitWords(auth.Get("extra_groups", "")) {
		if g, ok := m.group(extra); ok {
			p.gids = append(p.gids, g.gid)
		}
	}
	return p, nil
}

// checkDovecot looks at the files that Dovecot's configuration names: the program, and the socket
// that it asks.
func (m machine) checkDovecot(conf DovecotConf) findings {
	var f findings
	all := conf.All
	if version(conf.Version).is24() {
		all = from24(all)
	}
	at := ours(all)
	if at < 0 {
		return nil // reported by Dovecot
	}
	p := all.All("passdb")[at]
	if isLua(p) {
		m.checkScript(&f, script(p))
		m.checkSessionFields(&f, all, script(p))
		return f
	}
	name, _ := program(p)
	m.checkProgram(&f, name)
	who, err := m.dovecotAuth(conf.All)
	if err != nil {
		f.fail("login_socket.reach", conf.File+": service auth: user", "# install Dovecot, or name its user", "%v", err)
		return f
	}
	if socket, ok := socket(p); ok {
		m.checkLoginSocket(&f, socket, who)
	}
	return f
}

// checkProgram looks for who could put another program in the place of checkpassword, and with it
// any answer.
func (m machine) checkProgram(f *findings, name string) {
	const check = "program"
	if !path.IsAbs(name) {
		return // reported by Dovecot
	}
	info, err := m.stat(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		f.warn(check, name, "# run this as root", "permission denied")
		return
	case err != nil:
		f.fail(check, name, "install -o root -g root -m 0755 "+programName+" "+name, "is missing (%v): every login is a temporary failure", cause(err))
		return
	case !info.mode.IsRegular() || info.mode.Perm()&0o111 != 0o111:
		f.fail(check, name, "chmod 0755 "+name, "is not a program that every user may run: every login is a temporary failure")
		return
	}
	m.checkWriters(f, check, name)
}

// checkScript looks for what checkProgram looks for, at a Lua script.
func (m machine) checkScript(f *findings, name string) {
	const check = "script"
	if !path.IsAbs(name) {
		return // reported by Dovecot
	}
	info, err := m.stat(name)
	switch {
	case errors.Is(err, fs.ErrPermission):
		f.warn(check, name, "# run this as root", "permission denied")
	case err != nil:
		f.fail(check, name, "install -o root -g root -m 0644 drawbridge.lua "+name, "is missing (%v): every login is a temporary failure", cause(err))
	case !info.mode.IsRegular() || info.mode.Perm()&0o444 != 0o444:
		f.fail(check, name, "chmod 0644 "+name, "is not a file that Dovecot's user may read: every login is a temporary failure")
	default:
		m.checkWriters(f, check, name)
	}
}

// sessionField is a line of the Lua script that names a field of each session.
var sessionField = regexp.MustCompile(`(?m)^local (?:session|credential)_field = "(userdb_[^"]*)"`)

// checkSessionFields looks for fields of the script that a userdb takes for all data of a user.
func (m machine) checkSessionFields(f *findings, all doveconf.Section, name string) {
	userdbs := all.All("userdb")
	first := slices.IndexFunc(userdbs, func(u doveconf.Section) bool { return u.Get("driver", "") == "prefetch" })
	if first < 0 || first == len(userdbs)-1 {
		return // dovecot.userdb judges one that stands alone
	}
	const check = "script.fields"
	text, err := m.read(name)
	if err != nil {
		return // reported by checkScript
	}
	if fields := sessionField.FindAllSubmatch(text, -1); len(fields) > 0 {
		f.fail(check, name, "local session_field = \"\"\nlocal credential_field = \"\"",
			"returns %s, and userdb prefetch before another userdb takes it for all of a user's data: logins succeed, and their sessions end for want of a home", fields[0][1])
		return
	}
	f.ok(check, name, "returns no field that userdb prefetch would take for a user's data")
}

// checkWriters reports who beside root can replace a file, or a directory above it.
func (m machine) checkWriters(f *findings, check, name string) {
	well := true
	for part := name; ; part = path.Dir(part) {
		info, err := m.stat(part)
		if err == nil {
			shared := info.mode.IsDir() && info.mode&fs.ModeSticky != 0 // others' entries are safe there
			switch {
			case info.uid != 0:
				well = false
				f.fail(check, part, "chown root:root "+part, "belongs to uid %d, who can replace it and admit anyone", info.uid)
			case info.mode.Perm()&0o022 != 0 && !shared:
				well = false
				f.fail(check, part, "chmod go-w "+part, "mode %04o: other users than root can replace it and admit anyone", info.mode.Perm())
			}
		}
		if part == "/" || part == "." {
			break
		}
	}
	if well {
		f.ok(check, name, "only root can change %s", name)
	}
}

func (m machine) checkLoginSocket(f *findings, socket string, who process) {
	const there, open, members = "login_socket.reach", "login_socket.mode", "login_socket.group"
	line := fmt.Sprintf("[login]\nlisten = [%q]", "unix:"+socket+"?mode=0660&group=dovecot")
	m.reach(f, there, who, socket, "/", line, "every login is a temporary failure")
	info, err := m.stat(socket)
	if err != nil {
		return
	}
	if mode := info.mode.Perm(); mode&0o002 != 0 {
		f.fail(open, socket, line, "mode %04o: every local user may request decisions, and guess passwords as if from any address", mode)
		return
	}
	f.ok(open, socket, "closed to other users")
	if info.mode.Perm()&0o020 == 0 {
		return
	}
	var others []string
	for _, name := range m.members(info.gid) {
		u, known := m.user(name)
		daemons := known && u.uid == info.uid // the socket is the daemon's
		if name != who.name && name != "root" && !daemons {
			others = append(others, name)
		}
	}
	if len(others) > 0 {
		f.warn(members, socket, fmt.Sprintf("gpasswd --delete USER %s", m.groupName(info.gid)),
			"group %s has other members (%s): each may request decisions, and guess passwords as if from any address", m.groupName(info.gid), strings.Join(others, ", "))
		return
	}
	f.ok(members, socket, "%s is the only member of group %s", who.name, m.groupName(info.gid))
}

// checkPostfix looks at the sockets that Postfix asks: Dovecot's, ours.
func (m machine) checkPostfix(conf PostfixConf, c *config.Config) findings {
	p := postfixChecks{conf: conf, config: c}
	owner := cmp.Or(conf.Main["mail_owner"], "postfix")
	u, ok := m.user(owner)
	if !ok {
		p.fail("postfix.sockets", p.main("mail_owner"), "# install Postfix, or name its user", "there is no user %s", owner)
		return p.findings
	}
	who := process{name: u.name, uid: u.uid, gids: []uint32{u.gid}}
	seen := make(map[string]bool)
	look := func(check, path, fix, then string) {
		if path == "" || seen[path] {
			return
		}
		seen[path] = true
		from := "/"
		if strings.HasPrefix(path, p.queue()+"/") {
			from = p.queue() // where every Postfix process is
		}
		m.reach(&p.findings, check, who, path, from, fix, then)
	}
	for i := range conf.Services {
		s := p.smtpd(i)
		if s == nil {
			continue
		}
		if w := p.walk(s, s.value("smtpd_recipient_restrictions", "")); w.found {
			path, _ := w.server.UnixPath(p.queue(), s.chroot)
			look("policy_socket", path, fmt.Sprintf("[policyd]\nlisten = [%q]", "unix:"+path+"?mode=0660&group=postfix"), "no mail is accepted")
		}
		if ours, what := p.findMilter(s, "smtpd_milters"); what == "" {
			path, _ := ours.UnixPath(p.queue(), s.chroot)
			look("milter_socket", path, fmt.Sprintf("[milter]\nlisten = [%q]", "unix:"+path+"?mode=0660&group=postfix"), "no mail is checked")
		}
		if path := s.value("smtpd_sasl_path", "smtpd"); s.sasl && s.value("smtpd_sasl_type", "cyrus") == "dovecot" && path != "smtpd" && !strings.HasPrefix(path, "inet:") {
			path, _ := postconf.Server{Address: "unix:" + strings.TrimPrefix(path, "unix:")}.UnixPath(p.queue(), s.chroot)
			look("sasl_socket", path, "service auth {\n  unix_listener "+path+" {\n    mode = 0660\n    user = postfix\n    group = postfix\n  }\n}", "nobody can log in to Postfix")
		}
	}
	return p.findings
}
