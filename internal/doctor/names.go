package doctor

import (
	"cmp"
	"io"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/doveconf"
)

// maxPassdbFile bounds in bytes how much is read of a file that a passdb names.
const maxPassdbFile = 4 << 20

// A nameUse says which parts of a login name a Dovecot text uses.
type nameUse uint8

const (
	usesNothing nameUse = iota
	usesLocal           // the local part and nothing else: any domain will do
	usesWhole           // the whole name, or the domain
)

var variable = regexp.MustCompile(`%[A-Z0-9.-]*(?:\{([^}]*)\}|([a-z]))`)

// nameUsed reads the variables of a format, filter or query of Dovecot 2.3 or 2.4: %u, %Ln,
// %{username}, %{user | username | lower}.
func nameUsed(text string) nameUse {
	use := usesNothing
	for _, m := range variable.FindAllStringSubmatch(text, -1) {
		words := strings.FieldsFunc(m[1]+m[2], func(r rune) bool { return r == '|' || r == ' ' || r == ':' || r == '(' })
		if len(words) == 0 {
			continue
		}
		whole := false
		switch words[0] {
		case "n", "username":
		case "u", "user", "d", "domain", "original_user", "orig_user", "login_user", "auth_user":
			whole = !slices.Contains(words[1:], "username")
		default:
			continue
		}
		if whole {
			return usesWhole
		}
		use = usesLocal
	}
	return use
}

// readPassdbFiles returns the files that passdbs name, as far as they can be read: the settings of
// ldap and sql, and the names in passwd-files, without the passwords.
func readPassdbFiles(all doveconf.Section) map[string]string {
	files := make(map[string]string)
	for _, p := range all.All("passdb") {
		name := passdbFile(p)
		if !path.IsAbs(name) || strings.Contains(name, "%") {
			continue
		}
		f, err := os.Open(name)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(f, maxPassdbFile))
		_ = f.Close()
		if err != nil {
			continue
		}
		lines := strings.Split(string(text), "\n")
		if p.Get("driver", "") == "passwd-file" {
			for i, line := range lines {
				lines[i], _, _ = strings.Cut(line, ":")
			}
		}
		files[name] = strings.Join(lines, "\n")
	}
	return files
}

// passdbFile returns the file that a passdb names, "" for none.
func passdbFile(p doveconf.Section) string {
	switch p.Get("driver", "") {
	case "ldap", "sql", "passwd-file":
		words := strings.Fields(p.Get("args", ""))
		if len(words) > 0 && !strings.Contains(words[len(words)-1], "=") {
			return words[len(words)-1]
		}
	}
	return ""
}

// comparesDomain checks that a following passdb distinguishes a login of an unmanaged domain, or
// without a domain, from one of a managed domain with the same local part. It reports whether no
// fault was found.
func (d *dovecotChecks) comparesDomain(title string, p doveconf.Section) bool {
	const check = "dovecot.passdb.domain"
	const whole = "# a filter, query or username_format that compares the whole name (%u) or the domain (%d)"
	unmanaged := d.config.Login.Unmanaged == config.Next
	if unmanaged {
		use, where, what, read := d.lookup(p)
		switch {
		case use == usesLocal:
			d.harmful(check, d.at(title, where), whole+"\n# or:\n[login]\nunmanaged = \"deny\"",
				"compares the local part alone (%s): an account that Drawbridge refuses logs in under any domain of login.unmanaged_domains", what)
			return false
		case !read:
			d.warn(check, d.at(title), whole,
				"its filter or query cannot be read here: if it compares the local part (%%n) alone, an account that Drawbridge refuses logs in under any domain of login.unmanaged_domains")
			return false
		}
	}
	bare := d.knowsBareNames(p)
	if bare == "" || d.config.Login.DefaultDomain != "" {
		return true
	}
	const fix = "[login]\ndefault_domain = \"example.org\"   # the domain of names without one"
	if unmanaged && slices.Contains(d.config.Login.UnmanagedDomains, "*") {
		d.harmful(check, d.at(title), fix, "accepts names without a domain (%s), and login.default_domain is empty: "+
			"such logins reach its mailboxes, and no rule of any domain applies to them", bare)
		return false
	}
	d.fail(check, d.at(title), fix, "accepts names without a domain (%s), and login.default_domain is empty: Drawbridge refuses such logins", bare)
	return false
}

// harmful reports a way around the rules: a failure, unless there are no rules yet.
func (d *dovecotChecks) harmful(check, where, fix, format string, args ...any) {
	if d.domains != nil && len(d.domains) == 0 {
		d.warn(check, where, fix, format, args...)
		return
	}
	d.fail(check, where, fix, format, args...)
}

// lookup returns which parts of a name a passdb compares, the setting that says so, and its text;
// not read if the setting is in a file that cannot be read.
func (d *dovecotChecks) lookup(p doveconf.Section) (use nameUse, where, what string, read bool) {
	format := p.Get("username_format", p.Get("auth_username_format", ""))
	for arg := range strings.FieldsSeq(p.Get("args", "")) {
		if value, ok := strings.CutPrefix(arg, "username_format="); ok {
			format = value
		}
	}
	if use := nameUsed(format); use != usesNothing {
		return use, "username_format", format, true
	}
	settings := map[string][]string{
		"sql":  {"password_query", "query", "passdb_sql_query"},
		"ldap": {"auth_bind_userdn", "bind_userdn", "passdb_ldap_bind_userdn", "pass_filter", "filter", "passdb_ldap_filter"},
	}[p.Get("driver", "")]
	if settings == nil {
		return usesNothing, "", "", true
	}
	name := passdbFile(p)
	text, found := d.files[name]
	in := parsePassdbFile(text)
	for _, setting := range settings {
		value := cmp.Or(p.Get(setting, ""), in[setting])
		if use := nameUsed(value); use != usesNothing {
			return use, strings.TrimSpace(name + " " + setting), value, true
		}
	}
	return usesNothing, "", "", found // 2.3's default filter of ldap compares %u
}

// parsePassdbFile reads "name = value" lines, which a backslash continues.
func parsePassdbFile(text string) map[string]string {
	settings := make(map[string]string)
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(line, "="); ok && !strings.HasPrefix(strings.TrimSpace(line), "#") {
			settings[strings.TrimSpace(name)] = strings.TrimSpace(value)
		}
	}
	return settings
}

// knowsBareNames says why a passdb accepts names without a domain, "" if nothing says that it does.
func (d *dovecotChecks) knowsBareNames(p doveconf.Section) string {
	if nameUsed(d.all.Get("auth_username_format", "%Lu")) == usesLocal {
		return "" // reported for all passdbs
	}
	switch driver := p.Get("driver", ""); driver {
	case "pam", "passwd", "shadow", "bsdauth":
		return "system users, " + driver
	case "passwd-file":
		for line := range strings.Lines(d.files[passdbFile(p)]) {
			if name := strings.TrimSpace(line); name != "" && !strings.HasPrefix(name, "#") && !strings.Contains(name, "@") {
				return passdbFile(p) + " has some"
			}
		}
	}
	return ""
}
