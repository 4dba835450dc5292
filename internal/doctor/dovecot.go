package doctor

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/doveconf"
	"github.com/drawbridge/drawbridge/internal/listen"
)

const (
	programName   = "drawbridge-checkpassword"
	shippedPath   = "/usr/local/lib/drawbridge/" + programName // as contrib/dovecot has it
	defaultSocket = "/run/drawbridge/login.sock"               // where the program asks without -s
	policyPath    = "/v1/dovecot/policy"
	policyURL     = "http://127.0.0.1:8481" + policyPath

	maxNamed = 5 // domains in one finding

	// Below this limit of address space a Go program dies before main.
	minAddressSpace = 768 << 20
)

// Dovecot checks the configuration of a Dovecot 2.3 or 2.4 against the daemon's settings. It opens
// no file and no connection.
func Dovecot(conf DovecotConf, c *config.Config) []Finding {
	v := version(conf.Version)
	view := func(where string, all doveconf.Section) findings {
		return dovecotView(dovecotChecks{where: where, all: all, version: v, config: c, files: conf.Files, domains: conf.Domains})
	}
	all, apart := forUsers(conf.All, v)
	base := v.check(conf.File)
	base = append(base, view(conf.File, all)...)
	if apart {
		const check = "dovecot.passdb.smtp"
		where := conf.File + ": protocol !smtp"
		if len(c.SASL.Listen) > 0 {
			base.ok(check, where, "Postfix asks Drawbridge itself ([sasl] listen), and Dovecot only for the next passdb")
		} else {
			base.fail(check, where, "[sasl]\nlisten = [\"unix:/var/spool/postfix/private/drawbridge-auth?mode=0660&group=postfix\"]\nnext = \"/var/spool/postfix/private/auth\"",
				"the passdb that runs Drawbridge is not asked about Postfix' logins, and [sasl] listen is empty: no rule applies to them")
		}
	}
	known := make(map[string]bool)
	// The same passdb may have another number for a service.
	key := func(f Finding, view string) string {
		return f.Check + f.What + strings.Map(func(r rune) rune {
			if r >= '0' && r <= '9' {
				return -1
			}
			return r
		}, strings.TrimPrefix(f.Where, view))
	}
	for _, f := range base {
		known[key(f, conf.File)] = true
	}
	for _, service := range slices.Sorted(maps.Keys(conf.Services)) {
		if service == "smtp" && apart {
			continue
		}
		where := conf.File + ", protocol " + service
		for _, f := range view(where, conf.Services[service]) {
			if f.Severity != OK && !known[key(f, where)] {
				base = append(base, f)
			}
		}
	}
	return base
}

// forUsers returns the configuration as services other than Postfix see it, and whether that is
// another one: Drawbridge's passdb within "protocol !smtp { }", which Dovecot asks first.
func forUsers(all doveconf.Section, v dovecotVersion) (doveconf.Section, bool) {
	others := all.One("protocol", "!smtp")
	if v.is24() {
		others = from24(others)
	}
	if ours(others) < 0 {
		return all, false
	}
	all.Sections = slices.Concat(all.One("protocol", "!smtp").All("passdb"), all.Sections)
	return all, true
}

// dovecotVersion is the number in doveconf's first line, "2.3.19.1".
type dovecotVersion string

func version(text string) dovecotVersion {
	number, _, _ := strings.Cut(text, " ")
	number, _, _ = strings.Cut(number, "-")
	return dovecotVersion(number)
}

// is24 reports whether the configuration has the names of 2.4 and later.
func (v dovecotVersion) is24() bool {
	var major, minor int
	n, err := fmt.Sscanf(string(v), "%d.%d", &major, &minor)
	return err == nil && n == 2 && (major > 2 || major == 2 && minor >= 4)
}

// check reports versions that Drawbridge does not support, or that it was not tested with.
func (v dovecotVersion) check(where string) (f findings) {
	const check = "dovecot.version"
	var major, minor, patch int
	n, _ := fmt.Sscanf(string(v), "%d.%d.%d", &major, &minor, &patch)
	switch {
	case n < 2:
		f.warn(check, where, "doveconf -n # its first line has the version", "the version %q is not understood: the configuration is read as that of Dovecot 2.3", string(v))
	case major < 2 || major == 2 && (minor < 3 || minor == 3 && patch < 13):
		f.fail(check, where, "# install Dovecot 2.3.13 or later, or 2.4", "Dovecot %s is not supported: it cannot make Drawbridge's answers final", string(v))
	case major == 2 && minor <= 4:
		f.ok(check, where, "Dovecot %s is supported", string(v))
	default:
		f.warn(check, where, "# Dovecot 2.3 and 2.4 are supported", "Dovecot %s is newer than the versions that Drawbridge was tested with", string(v))
	}
	return f
}

// dovecotView checks one view of the configuration: the whole of it, or what one service sees.
func dovecotView(d dovecotChecks) findings {
	if d.version.is24() {
		d.version24(d.all)
		d.all = from24(d.all)
	}
	d.passdbs()
	d.memory()
	d.mechanisms()
	d.policyServer()
	d.cache()
	d.userdbs()
	d.exposure()
	d.penalty()
	d.clientCertificates()
	d.authClients()
	d.submission()
	return d.findings
}

type dovecotChecks struct {
	findings
	where   string
	all     doveconf.Section // with the names of 2.3
	version dovecotVersion
	config  *config.Config

	files   map[string]string // of passdbs, as far as they were read
	domains map[string]string // that are managed, with their mailbox_passwords; nil if not known
}

func (d *dovecotChecks) at(parts ...string) string {
	return strings.Join(append([]string{d.where}, parts...), ": ")
}

// passdbTitle names a passdb by its place. Its args may contain a password and are not shown.
func passdbTitle(all doveconf.Section, i int) string {
	return fmt.Sprintf("passdb %d (%s)", i+1, all.All("passdb")[i].Get("driver", "no driver"))
}

// program splits the args of a checkpassword passdb as Dovecot does.
func program(p doveconf.Section) (file string, args []string) {
	words := strings.Fields(p.Get("args", ""))
	if len(words) == 0 {
		return "", nil
	}
	return words[0], words[1:]
}

func isOurs(s doveconf.Section) bool {
	file, _ := program(s)
	return s.Get("driver", "") == "checkpassword" && path.Base(file) == programName || isLua(s)
}

// isVerified reports whether a passdb is Drawbridge's second one, behind the site's own.
func isVerified(p doveconf.Section) bool {
	_, args := program(p)
	return isOurs(p) && (slices.Contains(args, "--verified") || isLua(p) && strings.Contains(path.Base(script(p)), "verified"))
}

// isLua reports whether a passdb runs Drawbridge's Lua script, known by its name.
func isLua(s doveconf.Section) bool {
	return s.Get("driver", "") == "lua" && strings.Contains(path.Base(script(s)), "drawbridge")
}

// script returns the file of a Lua passdb.
func script(s doveconf.Section) string {
	for _, word := range strings.Fields(s.Get("args", "")) {
		if file, ok := strings.CutPrefix(word, "file="); ok {
			return file
		}
	}
	return ""
}

// runs names what asks Drawbridge.
func runs(p doveconf.Section) string {
	if isLua(p) {
		return script(p)
	}
	return programName
}

// block is a passdb to write: like p if that is ours, else as shipped.
func (d *dovecotChecks) block(p doveconf.Section) string {
	switch {
	case d.version.is24():
		return luaBlock24
	case isLua(p):
		return "passdb {\n  driver = lua\n  args = " + p.Get("args", "") + "\n  result_success = return-ok\n  result_failure = return-fail\n  result_internalfail = return-fail\n}"
	case isOurs(p):
		return passdbBlock(p.Get("args", ""))
	}
	return passdbBlock(shippedPath)
}

// ours returns the place of our passdb among all, -1 if there is none that users' logins pass.
func ours(all doveconf.Section) int {
	return slices.IndexFunc(all.All("passdb"), func(p doveconf.Section) bool {
		return isOurs(p) && !isVerified(p) && p.Get("master", "no") != "yes"
	})
}

// socket returns where a checkpassword passdb of ours asks; not ok if it does not understand its
// own options.
func socket(p doveconf.Section) (path string, ok bool) {
	path = defaultSocket
	_, args := program(p)
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		if args[0] == "--" {
			return path, true
		}
		if args[0] == "--verified" {
			args = args[1:]
			continue
		}
		if args[0] != "-s" || len(args) < 2 || !strings.HasPrefix(args[1], "/") {
			return "", false
		}
		path, args = args[1], args[2:]
	}
	return path, true
}

func passdbBlock(args string) string {
	return "passdb {\n  driver = checkpassword\n  args = " + args +
		"\n  result_success = return-ok\n  result_failure = return-fail\n  result_internalfail = return-fail\n}"
}

func (d *dovecotChecks) passdbs() {
	const present, first, results, filters = "dovecot.passdb.present", "dovecot.passdb.first", "dovecot.passdb.results", "dovecot.passdb.filters"
	list := d.all.All("passdb")
	at := ours(d.all)
	if d.policyOnly() {
		d.ok(present, d.at("passdb"), "no passdb runs Drawbridge; Dovecot asks it by auth-policy checks, for the rules that need no password")
		d.nextPassdb(list, at)
		return
	}
	if at < 0 {
		what := "no passdb runs Drawbridge, which is not asked about logins"
		if slices.ContainsFunc(list, isOurs) {
			what = "the passdb that runs Drawbridge has master = yes, so Dovecot asks it about master users only: remove that line"
		}
		d.fail(present, d.at("passdb"), "# above every other passdb\n"+d.block(doveconf.Section{}), "%s", what)
		return
	}
	p, title := list[at], passdbTitle(d.all, at)
	d.ok(present, d.at(title), "%s runs %s", title, runs(p))

	inOrder := true
	for i, other := range list[:at] {
		switch other := other; {
		case other.Get("master", "no") == "yes" || other.Get("deny", "no") == "yes":
		case isContinue(other):
			inOrder = false
			d.warn(first, d.at(passdbTitle(d.all, i)), "# above every other passdb\n"+d.block(p),
				"is asked before Drawbridge, and sees every secret first")
		default:
			inOrder = false
			d.fail(first, d.at(passdbTitle(d.all, i)), "# above every other passdb\n"+d.block(p),
				"is asked before Drawbridge: a right password opens the account, whatever the rules say")
		}
	}
	if inOrder {
		d.ok(first, d.at(title), "no other passdb is asked before it")
	}

	d.results(results, title, p)
	d.filters(filters, title, p)
	if isLua(p) {
		d.script(title, p)
	} else {
		d.arguments(title, p)
	}
	for i, other := range list[at+1:] {
		switch {
		case !isOurs(other) || other.Get("master", "no") == "yes":
		case isVerified(other):
			d.verified(list, at, at+1+i)
		default:
			d.warn("dovecot.passdb.duplicate", d.at(passdbTitle(d.all, at+1+i)), "# remove this passdb",
				"runs %s a second time: a login that it passes to the next passdb returns to it and fails", programName)
		}
	}
	d.nextPassdb(list, at)
	d.masters(list)
}

// isContinue reports whether a login continues to the next passdb after it succeeded in p.
func isContinue(p doveconf.Section) bool {
	return p.Get("pass", "no") == "yes" || strings.HasPrefix(p.Get("result_success", "return-ok"), "continue")
}

func (d *dovecotChecks) results(check, title string, p doveconf.Section) {
	well := true
	for _, rule := range []struct{ setting, preset, want, why string }{
		{"result_success", "return-ok", "return-ok", "logins that Drawbridge accepts are refused"},
		{"result_failure", "continue", "return-fail", "a right password in another passdb overrules a refusal"},
		{"result_internalfail", "continue", "return-fail", "while the daemon is away, the other passdbs decide alone"},
	} {
		if got := p.Get(rule.setting, rule.preset); got != rule.want {
			well = false
			d.fail(check, d.at(title, rule.setting), rule.setting+" = "+rule.want, "is %q: %s", got, rule.why)
		}
	}
	if well {
		d.ok(check, d.at(title), "Drawbridge's answer is final")
	}
}

// filters looks for what takes logins past our passdb, or turns its answer round.
func (d *dovecotChecks) filters(check, title string, p doveconf.Section) {
	well := true
	for _, rule := range []struct{ setting, want, why string }{
		{"skip", "never", "Drawbridge does not see such logins, and the other passdbs decide alone"},
		{"mechanisms", "", "Drawbridge does not see logins with other mechanisms, and the other passdbs decide alone"},
		{"username_filter", "", "Drawbridge does not see other names, and the other passdbs decide alone"},
		{"deny", "no", "every answer of Drawbridge is a refusal"},
		{"pass", "no", "logins that Drawbridge accepts are refused"},
	} {
		if got := p.Get(rule.setting, rule.want); got != rule.want {
			well = false
			d.fail(check, d.at(title, rule.setting), "# remove "+rule.setting, "is %q: %s", got, rule.why)
		}
	}
	if well {
		d.ok(check, d.at(title), "it sees every login")
	}
}

// script checks the passdb of the Lua script.
func (d *dovecotChecks) script(title string, p doveconf.Section) {
	const check = "dovecot.passdb.args"
	where, file := d.at(title, "args"), script(p)
	if d.version.is24() {
		where = d.at(title, "lua_file")
	}
	if !path.IsAbs(file) {
		d.fail(check, where, "lua_file = /etc/dovecot/drawbridge.lua", "%q is not an absolute path: Dovecot does not find the script", file)
		return
	}
	if !slices.ContainsFunc(d.config.Login.Listen, func(s listen.Spec) bool { return !s.Unix() }) {
		d.fail(check, where, fmt.Sprintf("[login]\nlisten = [\"unix:%s?mode=0660&group=dovecot\", \"inet:127.0.0.1:8481\"]\nkey_file = \"/etc/drawbridge/login.key\"", defaultSocket),
			"login.listen has no inet listener, and Dovecot's Lua cannot connect to unix sockets: every login fails")
		return
	}
	d.ok(check, where, "login.listen has an inet listener, which the script can ask")
}

// verified checks Drawbridge's second passdb, at list[second], which evaluates the rules for the name
// that a passdb behind the first one, at list[first], has given a login.
func (d *dovecotChecks) verified(list []doveconf.Section, first, second int) {
	const check = "dovecot.passdb.verified"
	p, title := list[second], passdbTitle(d.all, second)
	problems := len(d.findings)
	success := "continue"
	if d.version.is24() { // does not start with "continue" in its last passdb
		success = "return"
	}
	for _, rule := range []struct{ setting, preset, want, why string }{
		{"skip", "never", "unauthenticated", "it is asked about wrong passwords too, and would give the reason of a refusal to a guesser"},
		{"result_success", "return-ok", success, "it verifies no password: a login with a wrong one could be accepted"},
		{"result_failure", "continue", "return-fail", "its refusals have no effect"},
		{"result_internalfail", "continue", "return-fail", "while the daemon is away, changed names are accepted without their rules"},
	} {
		if got := p.Get(rule.setting, rule.preset); got != rule.want {
			d.fail(check, d.at(title, rule.setting), rule.setting+" = "+rule.want, "is %q: %s", got, rule.why)
		}
	}
	if isLua(p) {
		d.script(title, p)
	} else {
		d.arguments(title, p)
	}
	for i, other := range list[first+1:] {
		at := first + 1 + i
		where := passdbTitle(d.all, at)
		switch {
		case other.Get("master", "no") == "yes" || other.Get("deny", "no") == "yes" || isOurs(other):
		case at > second:
			d.fail(check, d.at(where), "# before Drawbridge's second passdb", "is asked behind Drawbridge's second passdb: the rules of a name that it gives a login (user=) are not evaluated")
		case other.Get("result_success", "return-ok") != "continue-ok":
			d.fail(check, d.at(where, "result_success"), "result_success = continue-ok",
				"is %q: logins that it accepts do not reach Drawbridge's second passdb, or are refused", other.Get("result_success", "return-ok"))
		}
	}
	for _, m := range strings.Fields(strings.ToUpper(d.all.Get("auth_mechanisms", "plain"))) {
		if m != "PLAIN" && m != "LOGIN" {
			d.warn(check, d.at("auth_mechanisms"), "auth_mechanisms = plain login", "%s: Drawbridge's second passdb is for PLAIN and LOGIN only", m)
		}
	}
	if d.all.Get("auth_policy_check_after_auth", "yes") != "no" {
		d.warn(check, d.at("auth_policy_check_after_auth"), "auth_policy_check_after_auth = no",
			"is on beside Drawbridge's second passdb: Dovecot asks twice, and answers \"wrong password\" when the daemon is away")
	}
	if len(d.findings) == problems {
		d.ok(check, d.at(title), "evaluates the rules for names that the site's passdb changes")
	}
}

func (d *dovecotChecks) arguments(title string, p doveconf.Section) {
	const check = "dovecot.passdb.args"
	file, _ := program(p)
	args := p.Get("args", "")
	where := d.at(title, "args")
	well := true
	if strings.Contains(args, "%") {
		well = false
		d.fail(check, where, "args = "+shippedPath, "%q has a %% variable: the client chooses arguments of the program", args)
	}
	if !path.IsAbs(file) {
		well = false
		d.fail(check, where, "args = "+shippedPath, "%q is not an absolute path: Dovecot does not find the program", file)
	}
	at, ok := socket(p)
	if !ok {
		d.fail(check, where, "args = "+file+" -s "+defaultSocket, "%q: the program takes only \"-s SOCKET\"; every login fails", args)
		return
	}
	var listens []string
	for _, s := range d.config.Login.Listen {
		if s.Unix() {
			listens = append(listens, s.Path)
		}
	}
	if !slices.Contains(listens, path.Clean(at)) {
		well = false
		fix := fmt.Sprintf("[login]\nlisten = [%q]", "unix:"+at+"?mode=0660&group=dovecot")
		if len(listens) > 0 {
			fix = "args = " + file + " -s " + listens[0]
		}
		d.fail(check, where, fix, "it connects to %s, but login.listen has %s: every login fails", at, cmp.Or(strings.Join(listens, ", "), "no unix socket"))
	}
	if well {
		d.ok(check, where, "it connects to %s, where the daemon listens", at)
	}
}

func (d *dovecotChecks) nextPassdb(list []doveconf.Section, at int) {
	const check = "dovecot.passdb.next"
	needed, domains := d.asksNext(), d.leftToNext()
	found, well := false, true
	for i, p := range list[at+1:] {
		if p.Get("master", "no") == "yes" || p.Get("deny", "no") == "yes" || isOurs(p) {
			continue
		}
		found = true
		title := passdbTitle(d.all, at+1+i)
		well = d.comparesDomain(title, p) && well
		switch open, proxy := opensToAll(p); {
		case open && proxy:
			well = false
			d.warn(check, d.at(title), "# a passdb that verifies passwords", "leaves the password to the proxied server: Postfix' logins are not proxied and succeed with any password")
		case open:
			well = false
			d.fail(check, d.at(title), "# a passdb that verifies passwords", "accepts any password, or one fixed password, for every account: every login that Drawbridge passes to it succeeds")
		}
	}
	if len(domains) > 0 && d.config.SASL.Next == "" {
		what := "their users cannot log in to /account"
		if len(d.config.SASL.Listen) > 0 {
			what = "their logins to Postfix are temporary failures, and " + what
		}
		d.fail("daemon.sasl.next", "sasl.next", "[sasl]\nnext = \"/var/spool/postfix/private/auth\"",
			"is empty, and mailbox_passwords of %s leaves mailbox passwords to the next passdb: %s", strings.Join(domains, ", "), what)
	}
	switch {
	case needed && !found && len(domains) > 0 && !d.config.Login.NextPassdb && d.config.Login.Unmanaged != config.Next:
		d.fail(check, d.at("passdb"), "# a passdb that verifies their passwords, below Drawbridge's\n# or keep them in Drawbridge: drawbridge domain set DOMAIN --mailbox-passwords here --confirm",
			"no passdb follows, but mailbox_passwords of %s leaves mailbox passwords to one: such logins are temporary failures", strings.Join(domains, ", "))
	case !needed && !found && d.config.Login.NextPassdb:
		d.warn(check, d.at("passdb"), "[login]\nnext_passdb = false",
			"no passdb follows: no domain needs one, since mailbox_passwords of each is \"here\", but a new domain will, because login.next_passdb is true")
	case needed && !found:
		d.fail(check, d.at("passdb"), "[login]\nnext_passdb = false\nunmanaged = \"deny\"",
			"no passdb follows, but login.next_passdb or login.unmanaged = \"next\" leaves mailbox passwords to one: such logins are temporary failures")
	case !needed && found:
		d.ok(check, d.at("passdb"), "Drawbridge verifies all mailbox passwords: the following passdbs are not asked about logins")
	case well:
		d.ok(check, d.at("passdb"), "the next passdb verifies the logins that Drawbridge passes to it")
	}
}

// asksNext reports whether the daemon ever leaves a login to the next passdb.
func (d *dovecotChecks) asksNext() bool {
	switch {
	case d.config.Login.Unmanaged == config.Next, len(d.leftToNext()) > 0:
		return true
	case !d.config.Login.NextPassdb:
		return false
	}
	asSite := len(d.domains) == 0
	for _, place := range d.domains {
		asSite = asSite || place != "here"
	}
	return asSite
}

// leftToNext returns the domains whose own setting leaves mailbox passwords to the next passdb.
func (d *dovecotChecks) leftToNext() (list []string) {
	for _, name := range slices.Sorted(maps.Keys(d.domains)) {
		if place := d.domains[name]; place == "next" || place == "stored" {
			list = append(list, name)
		}
	}
	if n := len(list) - maxNamed; n > 0 {
		list = append(list[:maxNamed], fmt.Sprintf("and %d more", n))
	}
	return list
}

// opensToAll reports whether a passdb succeeds for every client, and whether it does so to hand the
// login on to another server.
func opensToAll(p doveconf.Section) (open, proxy bool) {
	fields := strings.Fields(p.Get("default_fields", "") + " " + p.Get("override_fields", ""))
	if p.Get("driver", "") == "static" {
		fields = append(fields, strings.Fields(p.Get("args", ""))...)
	}
	for _, field := range fields {
		switch name, _, _ := strings.Cut(field, "="); name {
		case "nopassword":
			open = true
		case "password":
			open = open || p.Get("driver", "") == "static"
		case "proxy", "proxy_maybe":
			proxy = true
		}
	}
	return open, proxy
}

// masters looks at the passdbs of master users, whose login is only then a user's when it goes on
// to the others.
func (d *dovecotChecks) masters(list []doveconf.Section) {
	const check = "dovecot.passdb.master"
	for i, p := range list {
		if p.Get("master", "no") != "yes" || isOurs(p) {
			continue
		}
		title := passdbTitle(d.all, i)
		if isContinue(p) {
			d.ok(check, d.at(title), "a master user's login continues to Drawbridge")
			continue
		}
		d.fail(check, d.at(title, "result_success"), "result_success = continue",
			"is %q: a master user's login ends there, and Drawbridge is not asked", p.Get("result_success", "return-ok"))
	}
}

// memory checks what checkpassword inherits from the auth process.
func (d *dovecotChecks) memory() {
	const check = "dovecot.vsz_limit"
	if at := ours(d.all); at >= 0 && isLua(d.all.All("passdb")[at]) || d.version.is24() || d.policyOnly() {
		return // Dovecot starts no program
	}
	auth := d.all.One("service", "auth")
	where, text := d.at("service auth", "vsz_limit"), auth.Get("vsz_limit", "")
	if size, ok := doveconf.ParseSize(text); !ok || size > 1<<62 { // doveconf -a writes "unset" as the largest number
		where, text = d.at("default_vsz_limit"), d.all.Get("default_vsz_limit", "256 M")
	}
	size, ok := doveconf.ParseSize(text)
	switch {
	case ok && (size == 0 || size >= minAddressSpace):
		d.ok(check, where, "%s is enough address space for %s", text, programName)
	default:
		d.fail(check, where, "service auth {\n  vsz_limit = 1G\n}",
			"is %s: %s cannot start, and every login is a temporary failure; it reserves 768 MB of address space and uses 2", text, programName)
	}
	if chroot := auth.Get("chroot", ""); chroot != "" {
		d.fail("dovecot.chroot", d.at("service auth", "chroot"), "service auth {\n  chroot =\n}",
			"is %q: the program and the login socket are outside of it", chroot)
	}
}

func (d *dovecotChecks) mechanisms() {
	const check = "dovecot.mechanisms"
	where := d.at("auth_mechanisms")
	offered := strings.Fields(strings.ToUpper(d.all.Get("auth_mechanisms", "plain")))
	var bypass, tokens, hide, plain []string
	for _, m := range offered {
		switch {
		case m == "PLAIN" || m == "LOGIN":
			plain = append(plain, m)
		case m == "ANONYMOUS", m == "GSSAPI", m == "GSS-SPNEGO", m == "NTLM" && d.all.Get("auth_use_winbind", "no") == "yes":
			bypass = append(bypass, m)
		case d.version.is24() && (m == "OAUTHBEARER" || m == "XOAUTH2"):
			tokens = append(tokens, m)
		default:
			hide = append(hide, m)
		}
	}
	fix := "auth_mechanisms = plain login"
	if len(bypass) > 0 {
		d.fail(check, where, fix, "%s: these mechanisms ask no passdb, and so not Drawbridge", strings.Join(bypass, ", "))
	}
	if d.policyOnly() { // which needs no secret
		plain, tokens, hide = offered, nil, nil
	}
	if len(tokens) > 0 {
		d.fail(check, where, fix, "%s: not supported, since Dovecot 2.4 verifies tokens itself and not by a passdb", strings.Join(tokens, ", "))
	}
	if len(plain) == 0 {
		d.fail(check, where, fix, "neither PLAIN nor LOGIN: Drawbridge must see the secret, and no other mechanism sends it")
	}
	if len(hide) > 0 {
		then := "secure passwords do not work with it, only the mailbox password of the next passdb"
		if !d.asksNext() {
			then = "no login with it succeeds, since Drawbridge keeps the mailbox passwords"
		}
		d.warn(check, where, fix, "%s: hides the secret, so %s", strings.Join(hide, ", "), then)
	}
	if len(bypass)+len(tokens)+len(hide) == 0 && len(plain) > 0 {
		d.ok(check, where, "%s: Drawbridge is asked", strings.Join(plain, ", "))
	}
	format := d.all.Get("auth_username_format", "%Lu")
	if nameUsed(format) == usesLocal && d.config.Login.DefaultDomain == "" {
		d.harmful("dovecot.username_format", d.at("auth_username_format"), "auth_username_format = %Lu",
			"is %q: names lose their domain before Drawbridge sees them, and login.default_domain is empty: no rule of a domain applies to any login", format)
	}
}

// sameAddress reports whether a client of host and port comes to a listener. A name other than
// localhost may be any address.
func sameAddress(host, port string, listener netip.AddrPort) bool {
	if port != strconv.Itoa(int(listener.Port())) {
		return false
	}
	addr := listener.Addr()
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	switch {
	case addr.IsUnspecified():
		return true
	case err != nil:
		return !strings.EqualFold(host, "localhost") || addr.IsLoopback()
	}
	return ip.Unmap() == addr
}

func (d *dovecotChecks) cache() {
	size, ok := doveconf.ParseSize(d.all.Get("auth_cache_size", "0"))
	if !ok || size == 0 {
		return
	}
	if at := ours(d.all); at >= 0 && isLua(d.all.All("passdb")[at]) && !d.version.is24() {
		d.fail("dovecot.auth_cache", d.at("auth_cache_size"), "auth_cache_size = 0",
			"is on, and Dovecot 2.3 answers for a Lua passdb from it: a revoked secret still opens the account")
		return
	}
	d.ok("dovecot.auth_cache", d.at("auth_cache_size"), "on, which is harmless: Dovecot still asks Drawbridge at every login")
}

func (d *dovecotChecks) userdbs() {
	const check = "dovecot.userdb"
	list := d.all.All("userdb")
	prefetch := 0
	for i, u := range list {
		where := d.at(fmt.Sprintf("userdb %d (%s)", i+1, u.Get("driver", "no driver")))
		switch {
		case isOurs(u):
			d.fail(check, where, "# remove this userdb", "%s returns no homes: mail for every account is deferred or bounces", programName)
			return
		case u.Get("driver", "") == "prefetch":
			prefetch++
		}
	}
	switch {
	case len(list) > 0 && prefetch == len(list):
		d.fail(check, d.at("userdb"), "userdb {\n  driver = …   # the site's own, after prefetch\n}",
			"prefetch alone: it takes the home from the passdb, and Drawbridge returns none; logins with secure passwords fail")
	case len(list) > 0:
		d.ok(check, d.at("userdb"), "homes come from the site's own userdb")
	}
}

// exposure looks for who may claim another address than his own, and for secrets in clear.
func (d *dovecotChecks) exposure() {
	if d.all.Get("disable_plaintext_auth", "yes") == "no" && d.all.Get("ssl", "yes") != "required" {
		setting, line := "disable_plaintext_auth", "disable_plaintext_auth = yes"
		if d.version.is24() {
			setting, line = "auth_allow_cleartext", "auth_allow_cleartext = no"
		}
		d.warn("dovecot.plaintext", d.at(setting), line, "clients may send secrets without encryption")
	}
	d.trusted("login_trusted_networks")
	proxied := slices.ContainsFunc(d.all.All("service"), func(s doveconf.Section) bool {
		return slices.ContainsFunc(s.All("inet_listener"), func(l doveconf.Section) bool { return l.Get("haproxy", "no") == "yes" })
	})
	if proxied {
		d.trusted("haproxy_trusted_networks")
	}
	auth := d.all.One("service", "auth")
	for _, l := range auth.All("unix_listener") {
		mode, err := strconv.ParseUint(l.Get("mode", "0600"), 8, 16)
		// Dovecot's own are open to everyone in a directory that is not, or answer no more
		// than homes.
		own := strings.HasSuffix(l.Name, "userdb") || l.Name == "login/login" || l.Name == "token-login/tokenlogin"
		if err == nil && mode&0o002 != 0 && !own {
			d.warn("dovecot.auth_listener", d.at("service auth", l.Title()), "mode = 0660\nuser = postfix\ngroup = postfix",
				"mode %s: every local user may guess passwords as if from any address", l.Get("mode", ""))
		}
	}
	for _, l := range auth.All("inet_listener") {
		if port := l.Get("port", "0"); port != "0" {
			d.warn("dovecot.auth_listener", d.at("service auth", l.Title()), "# a unix_listener instead",
				"everybody who reaches port %s may guess passwords as if from any address", port)
		}
	}
}

func (d *dovecotChecks) trusted(setting string) {
	const check = "dovecot.trusted_networks"
	text := d.all.Get(setting, "")
	well := true
	for _, word := range splitWords(text) {
		switch n, ok := parseNetwork(word); {
		case ok && n.Bits() == 0:
			well = false
			d.fail(check, d.at(setting), setting+" = 127.0.0.1", "%s is everyone: any client may claim any address, and policies with a place have no effect", word)
		case ok && isWide(n):
			well = false
			d.warn(check, d.at(setting), setting+" = ADDRESS-OF-THE-PROXY", "%s: every host in it may claim any address; name only the proxies and the webmail", word)
		}
	}
	if well && text != "" {
		d.ok(check, d.at(setting), "only named hosts may claim an address for others")
	}
}

// penalty checks Dovecot's delay by address (anvil), which is shared by all who log in from there.
// auth_failure_delay does not end it (measured on 2.3.19).
func (d *dovecotChecks) penalty() {
	const check = "dovecot.penalty"
	if d.policyOnly() {
		return // Drawbridge's throttle does not count wrong passwords
	}
	for _, l := range d.all.One("service", "anvil").All("unix_listener") {
		if mode, err := strconv.ParseUint(l.Get("mode", "0600"), 8, 16); l.Name == "anvil-auth-penalty" && err == nil && mode == 0 {
			d.ok(check, d.at("service anvil", l.Title()), "off: Drawbridge's throttle counts guesses, by address and by account")
			return
		}
	}
	d.warn(check, d.at("service anvil"), "service anvil {\n  unix_listener anvil-auth-penalty {\n    mode = 0\n  }\n}",
		"after wrong passwords, every login from that address waits up to 15 s, right ones of other accounts too: one attacker delays a whole office or webmail, "+
			"and Postfix gives up after 10 s; login_trusted_networks exempts the webmail, Drawbridge's throttle replaces the delay; restart Dovecot after this change, a reload is not enough")
}

// clientCertificates checks that certificates of clients are recognised where they are asked for: by
// default one counts as none if its authority has no revocation list.
func (d *dovecotChecks) clientCertificates() {
	if d.all.Get("ssl_verify_client_cert", "no") != "yes" || d.all.Get("ssl_require_crl", "yes") == "no" {
		return
	}
	setting, file := "ssl_require_crl", "ssl_ca"
	if d.version.is24() {
		setting, file = "ssl_server_require_crl", "ssl_server_ca_file"
	}
	d.warn("dovecot.client_cert", d.at(setting), setting+" = no",
		"a valid certificate of a client counts as none, and rules by certificate never match, unless %s contains the revocation list of its authority", file)
}

// authClients compares the connections that service auth takes with the login processes that may
// exist at once, each of which has one.
func (d *dovecotChecks) authClients() {
	const check = "dovecot.auth.client_limit"
	number := func(s doveconf.Section, name, global string, preset int) int {
		if n, err := strconv.Atoi(s.Get(name, "0")); err == nil && n > 0 {
			return n
		}
		if n, err := strconv.Atoi(d.all.Get(global, "")); err == nil && n > 0 {
			return n
		}
		return preset
	}
	needed := 0
	enabled := strings.Fields(d.all.Get("protocols", "imap pop3 lmtp"))
	for protocol, service := range map[string]string{"imap": "imap-login", "pop3": "pop3-login", "sieve": "managesieve-login", "submission": "submission-login"} {
		if slices.Contains(enabled, protocol) {
			needed += number(d.all.One("service", service), "process_limit", "default_process_limit", 100)
		}
	}
	where := d.at("service auth", "client_limit")
	if limit := number(d.all.One("service", "auth"), "client_limit", "default_client_limit", 1000); limit < needed {
		d.warn(check, where, fmt.Sprintf("service auth {\n  client_limit = %d\n}", needed+1000),
			"is %d, and up to %d login processes connect, beside Postfix: logins beyond the limit hang until the client gives up", limit, needed)
		return
	}
	d.ok(check, where, "service auth takes the connections of all %d login processes", needed)
}

// submission checks Dovecot's own submission service, which relays mail to Postfix as a client of
// its own: unless it passes the login on, neither the milter nor the policy service sees whose it
// is.
func (d *dovecotChecks) submission() {
	const check = "dovecot.submission"
	if !slices.Contains(strings.Fields(d.all.Get("protocols", "imap pop3 lmtp")), "submission") {
		return
	}
	where := d.at("protocols")
	off := "protocols = imap lmtp   # without submission: clients use Postfix' own service"
	switch {
	case d.all.Get("submission_relay_trusted", "no") == "yes":
		d.ok(check, where, "the login is passed on to Postfix (XCLIENT LOGIN): see postfix.submission_relay")
	case d.all.Get("submission_relay_user", "") != "":
		d.fail(check, d.at("submission_relay_user"), off,
			"Dovecot's submission service logs in to the relay as one user for all: no sender is checked against its login")
	default:
		d.fail(check, where, "submission_relay_trusted = yes\n# and in Postfix, for the service that it relays to: smtpd_authorized_xclient_hosts = 127.0.0.1\n# or "+off,
			"Dovecot's submission service relays to Postfix without naming the login: the sender is not checked, and an open session can still send after its secret is revoked")
	}
}

func splitWords(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
}

// parseNetwork reads an address or a prefix, also "[::1]/128" as Postfix writes it.
func parseNetwork(text string) (netip.Prefix, bool) {
	text = strings.NewReplacer("[", "", "]", "").Replace(text)
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), true
	}
	n, err := netip.ParsePrefix(text)
	return n, err == nil
}

// isWide reports whether a network holds others than a site's own proxies: more addresses than such
// a group has, or several public ones.
func isWide(n netip.Prefix) bool {
	a := n.Addr().Unmap()
	if a.IsLoopback() {
		return false
	}
	narrowest := 24
	if !a.Is4() {
		narrowest = 64
	}
	return n.Bits() < narrowest || !a.IsPrivate() && !a.IsLinkLocalUnicast() && n.Bits() < a.BitLen()
}

// loopbackHost reports whether a listening address is this machine's alone.
func loopbackHost(host string) bool {
	a, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return host == "localhost" || err == nil && a.IsLoopback()
}
