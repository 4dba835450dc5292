//go:build servers

package packaging_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/machine"
)

// profile checks the AppArmor profile without a kernel that has AppArmor: Debian's parser accepts it,
// and it permits every path that a daemon which root starts uses successfully: its own start, a login
// and a withdrawal.
func profile(t *testing.T, m *machine.Machine) {
	t.Helper()
	const file = "/etc/apparmor.d/usr.sbin.drawbridged"
	m.InstallDebian("apparmor strace")
	m.Run("apparmor_parser -Q -K -T " + file)
	rules := permitted(m.Run("apparmor_parser -p -Q -K " + file + " 2>/dev/null"))
	if len(rules) < 100 {
		t.Fatalf("%d rules", len(rules))
	}
	m.Run("systemctl stop drawbridge")
	// AppArmor permits stat, access and readlink always.
	const calls = "?open,openat,execve,connect,bind,?unlink,unlinkat,?rename,renameat,renameat2,?mkdir,mkdirat,?chmod,fchmodat,?chown,fchownat,?link,linkat,truncate"
	m.Run("systemd-run --unit traced strace -f -qq -e trace=" + calls + " -e status=successful -o /root/trace drawbridged -c /etc/drawbridge/drawbridge.toml; " +
		"until drawbridge status; do sleep 0.2; done; drawbridge withdraw example.org --credential mailbox --account " + machine.Ann + " --since 1h --dry-run")
	if answer := m.IMAP("", "ann", machine.AnnPassword); !strings.HasPrefix(answer, "OK ") {
		t.Errorf("a login: %q", answer)
	}
	m.Run("systemctl stop traced; systemctl start drawbridge")
	used := map[string]bool{}
	for _, found := range regexp.MustCompile(`"(/[^"]+)"`).FindAllStringSubmatch(m.Read("/root/trace"), -1) {
		if !strings.HasPrefix(found[1], "/proc/self/fd/") { // AppArmor sees the socket to which it leads
			used[strings.Replace(found[1], "/proc/self/", "/proc/1/", 1)] = true
		}
	}
	if len(used) < 20 {
		t.Errorf("the daemon uses %d paths", len(used))
	}
	for path := range used {
		if !matches(rules, path) && !matches(rules, path+"/") {
			t.Errorf("the AppArmor profile refuses %s", path)
		}
	}
}

func matches(rules []*regexp.Regexp, path string) bool {
	for _, r := range rules {
		if r.MatchString(path) {
			return true
		}
	}
	return false
}

// permitted returns the paths that a profile permits, in any way. Its includes are resolved.
func permitted(text string) (rules []*regexp.Regexp) {
	variables := map[string]string{"pid": "[0-9]*", "tid": "[0-9]*", "pids": "[0-9]*"}
	for _, v := range regexp.MustCompile(`(?m)^\s*@\{(\w+)\}\s*\+?=\s*(.+)$`).FindAllStringSubmatch(text, -1) {
		if _, known := variables[v[1]]; !known {
			values := strings.Fields(v[2])
			for i := range values {
				values[i] = strings.TrimSuffix(values[i], "/") // a slash follows
			}
			variables[v[1]] = "{" + strings.Join(values, ",") + "}"
		}
	}
	// In AppArmor's globs "**" crosses slashes, and "{a,b}" nests.
	glob := strings.NewReplacer("**", ".*", "*", "[^/]*", "?", "[^/]", "{", "(?:", "}", ")", ",", "|", ".", `\.`, "+", `\+`)
	for _, rule := range regexp.MustCompile(`(?m)^\s*(?:owner\s+)?"?([/@][^"\s]*)"?\s+[a-zA-Z]+,`).FindAllStringSubmatch(text, -1) {
		path := rule[1]
		for range 5 {
			path = regexp.MustCompile(`@\{(\w+)\}`).ReplaceAllStringFunc(path, func(v string) string { return variables[strings.Trim(v, "@{}")] })
		}
		path = strings.ReplaceAll(path, "[0-9]*", "{pid}")
		path = strings.ReplaceAll(glob.Replace(path), "(?:pid)", "[0-9]+")
		if r, err := regexp.Compile("^" + strings.ReplaceAll(path, "//", "/") + "$"); err == nil {
			rules = append(rules, r)
		}
	}
	return rules
}
