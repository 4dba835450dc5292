package postconf

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParsePostconf(t *testing.T) {
	main, err := ParseMain(strings.NewReader("a = b = c\nempty =\n# comment\n"))
	if want := map[string]string{"a": "b = c", "empty": ""}; err != nil || !maps.Equal(main, want) {
		t.Errorf("%v, %v", main, err)
	}
	services, err := ParseMaster(
		strings.NewReader("[::1]:25   inet  n  -  y  -  -  smtpd -o a=b\nsmtp unix - - - - 7 smtp\n"),
		strings.NewReader("[::1]:25/inet/a = b\n[::1]:25/inet/empty =\n"))
	want := []Service{
		{"[::1]:25", "inet", "y", "-", "smtpd", map[string]string{"a": "b", "empty": ""}},
		{"smtp", "unix", "-", "7", "smtp", map[string]string{}},
	}
	if err != nil || !reflect.DeepEqual(services, want) {
		t.Errorf("%+v, %v", services, err)
	}
	if _, err := ParseMain(strings.NewReader("nonsense\n")); err == nil {
		t.Error("a line without = is a setting")
	}
	for _, c := range [][2]string{{"too few", ""}, {"", "x/inet/a = b"}, {"s inet n - n - - smtpd", "nonsense"}} {
		if _, err := ParseMaster(strings.NewReader(c[0]), strings.NewReader(c[1])); err == nil {
			t.Errorf("%q is taken for services", c)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	// Postfix reads a file younger than a second again until it is older.
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(file, old, old); err != nil {
		t.Fatal(err)
	}
}

func postconf(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/usr/sbin/postconf", args...)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends postfix", err)
	}
	return string(out)
}

// Expand agrees with "postconf -x".
func TestExpandLikePostfix(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "master.cf"), "")
	write(t, filepath.Join(dir, "main.cf"), `compatibility_level = 3.6
x = X
none =
nested = <$x>
t1 = $x, ${x}, $(x), $none, a$x-b, $nested
t2 = ${x?yes} ${none?yes} ${x:no} ${none:no} ${x? $nested }
t3 = ${x?{then $x}:{else}} ${none?{then}:{else $x}} ${none?{then}}
t4 = { a, { b = $x c } } ${x?{{a}}}
t5 = $$x
all = $t1 $t2 $t3 $t4 $t5
smtpd_banner = $all
`)
	main, err := ParseMain(strings.NewReader(postconf(t, "-c", dir)))
	if err != nil {
		t.Fatal(err)
	}
	lookup := func(name string) string { return main[name] }
	for name := range strings.FieldsSeq("t1 t2 t3 t4 t5 smtpd_banner") {
		one := func(s string) string { return strings.Join(strings.Fields(s), " ") } // postconf prints it so
		want := one(postconf(t, "-c", dir, "-x", "-h", name))
		if got := one(Expand(main[name], lookup)); got != want {
			t.Errorf("%s = %s\n got %q\nwant %q", name, main[name], got, want)
		}
	}
	if got := Expand("${{$x} == {X} ? {a} : {b}}", lookup); !strings.Contains(got, "$") {
		t.Errorf("a comparison is judged: %q", got)
	}
	if got := Expand("$loop", func(string) string { return "$loop $loop" }); len(got) > maxExpanded {
		t.Errorf("a loop yields %d bytes", len(got))
	}
}

func TestParseServer(t *testing.T) {
	for text, want := range map[string]Server{
		"unix:private/x": {"unix:private/x", map[string]string{}},
		"{ inet:h:1, timeout=3s, { default_action=451 4.3.0 a, b } }": {"inet:h:1", map[string]string{"timeout": "3s", "default_action": "451 4.3.0 a, b"}},
		"{inet:h:1}": {"inet:h:1", map[string]string{}},
		"{ }":        {"", map[string]string{}},
	} {
		if got := ParseServer(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", text, got)
		}
	}
	for address, want := range map[string]string{
		"unix:private/x": "/q/private/x /q/private/x", "unix:/a/x": "/a/x /q/a/x", "local:x": "/q/x /q/x", "inet:h:1": " ",
	} {
		open, _ := Server{Address: address}.UnixPath("/q/", false)
		inside, _ := Server{Address: address}.UnixPath("/q/", true)
		if got := open + " " + inside; got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	for address, want := range map[string]string{
		"inet:127.0.0.1:25": "127.0.0.1 25 true", "inet:[::1]:25": "[::1] 25 true", "inet:25": "localhost 25 true", "inet::25": "localhost 25 true",
		"inet:h:smtp": "h smtp false", "unix:x": "  false", "inet:": "localhost  false",
	} {
		host, port, ok := Server{Address: address}.HostPort()
		if got := fmt.Sprint(host, " ", port, " ", ok); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

// Splitting is stable and loses only separators. Expanding ends, and leaves text without $ alone.
func FuzzLists(f *testing.F) {
	for _, seed := range []string{"a, b c", "{ a, { b } } c", "check_policy_service { inet:h:1, { default_action=451 x } }, permit", "${a?{b}:{c}} $d $$ ${", "}{"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		items := SplitList(text)
		if again := SplitList(strings.Join(items, ", ")); strings.Count(text, "{") == strings.Count(text, "}") && !strings.HasPrefix(strings.TrimLeft(text, " ,\t\r\n"), "}") && len(again) < len(items) {
			t.Errorf("%q, then %q", items, again)
		}
		bare := strings.NewReplacer(",", "", " ", "", "\t", "", "\r", "", "\n", "")
		if bare.Replace(strings.Join(items, "")) != bare.Replace(text) {
			t.Errorf("%q loses something: %q", text, items)
		}
		ParseServer(text)
		out := Expand(text, func(name string) string { return "$" + name + " " + name })
		if len(out) > maxExpanded || !strings.Contains(text, "$") && out != text {
			t.Errorf("%q is written out to %d bytes", text, len(out))
		}
	})
}

func TestRepeated(t *testing.T) {
	got, err := Repeated(strings.NewReader("a = 1\n  a = 2\n# a = 3\n\nb=1\nb = 2\nc = 1\na\t= 4\na = 5\nno setting\n"))
	if want := []string{"b", "a"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v; want %q", got, err, want)
	}
	if _, err := Repeated(strings.NewReader(strings.Repeat("x", maxLine+1))); err == nil {
		t.Error("a line without end is read")
	}
}
