package doctor

import (
	"bytes"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func recorded(t testing.TB, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "recorded", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What was recorded from Dovecot 2.3.19.1 and Postfix 3.7.11 with the shipped configuration is
// judged well without them.
func TestRecorded(t *testing.T) {
	for _, name := range []string{"doveconf-n.txt", "doveconf-a.txt"} {
		all, version, err := ParseDoveconf(strings.NewReader(recorded(t, name)))
		if err != nil || version != "2.3.19.1" {
			t.Fatalf("%s: version %q, %v", name, version, err)
		}
		expectWell(t, Dovecot(DovecotConf{File: "dovecot.conf", Version: version, All: all}, site(t)), 10)
	}
	main, err := ParseMain(strings.NewReader(recorded(t, "postconf.txt")))
	if err != nil {
		t.Fatal(err)
	}
	services, err := ParseMaster(strings.NewReader(recorded(t, "postconf-M.txt")), strings.NewReader(recorded(t, "postconf-P.txt")))
	if err != nil {
		t.Fatal(err)
	}
	expectWell(t, Postfix(PostfixConf{Dir: "postfix", Main: main, Services: services}, site(t)), 15)
}

// A sick site, word for word: what an administrator reads.
func TestSickSite(t *testing.T) {
	needs(t, "doveconf", "dovecot-core dovecot-imapd dovecot-pop3d")
	needs(t, "postconf", "postfix")
	d, err := readDovecot(t.Context(), filepath.Join("testdata", "sick", "dovecot.conf"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{"main.cf", "master.cf"} {
		data, err := os.ReadFile(filepath.Join("testdata", "sick", name))
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), string(data))
	}
	p, err := readPostfix(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	d.File, p.Dir = "/etc/dovecot/dovecot.conf", "/etc/postfix"
	got := table(t, slices.Concat(Dovecot(d, site(t)), Postfix(p, site(t))))
	golden := filepath.Join("testdata", "sick", "findings.txt")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the findings differ from %s (-update writes it anew):\n%s", golden, got)
	}
}

func TestParseDoveconf(t *testing.T) {
	all, version, err := ParseDoveconf(strings.NewReader(`# 2.3.19.1 (9b53102964): dovecot.conf
auth_policy_hash_nonce = # hidden, use -P to show it
auth_policy_server_url =
auth_realms = " a b "
namespace inbox {
  mailbox "a = b {" {
    special_use = \Sent
  }
}
passdb {
  args = a "b" \ c
  default_fields = "a=\"x\" # \\ "
}
passdb {
  driver = pam
}
`))
	if err != nil {
		t.Fatal(err)
	}
	settings := func(pairs ...string) map[string]string {
		m := make(map[string]string)
		for i := 0; i < len(pairs); i += 2 {
			m[pairs[i]] = pairs[i+1]
		}
		return m
	}
	want := Section{
		Settings: settings("auth_policy_hash_nonce", "# hidden, use -P to show it", "auth_policy_server_url", "", "auth_realms", " a b "),
		Sections: []Section{
			{Kind: "namespace", Name: "inbox", Settings: settings(), Sections: []Section{{Kind: "mailbox", Name: "a = b {", Settings: settings("special_use", `\Sent`)}}},
			{Kind: "passdb", Settings: settings("args", `a "b" \ c`, "default_fields", `a="x" # \ `)},
			{Kind: "passdb", Settings: settings("driver", "pam")},
		},
	}
	if version != "2.3.19.1" || !reflect.DeepEqual(all, want) {
		t.Errorf("version %q\n%+v", version, all)
	}
	for text, what := range map[string]string{
		"}\n":                          "line 1: a } too many",
		"a = b\npassdb {\n":            "ends within passdb",
		"nonsense\n":                   "line 1 is neither",
		strings.Repeat("a {\n", 30):    "nested",
		strings.Repeat("a", maxLine+1): "too long",
	} {
		if _, _, err := ParseDoveconf(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("%.40q: %v, want %q", text, err, what)
		}
	}
}

func TestParsePostconf(t *testing.T) {
	main, err := ParseMain(strings.NewReader("a = b = c\nempty =\n# comment\n"))
	if want := map[string]string{"a": "b = c", "empty": ""}; err != nil || !maps.Equal(main, want) {
		t.Errorf("%v, %v", main, err)
	}
	services, err := ParseMaster(
		strings.NewReader("[::1]:25   inet  n  -  y  -  -  smtpd -o a=b\nsmtp unix - - - - - smtp\n"),
		strings.NewReader("[::1]:25/inet/a = b\n[::1]:25/inet/empty =\n"))
	want := []MasterService{
		{"[::1]:25", "inet", "y", "smtpd", map[string]string{"a": "b", "empty": ""}},
		{"smtp", "unix", "-", "smtp", map[string]string{}},
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

// The same as Postfix itself writes out.
func TestExpandLikePostfix(t *testing.T) {
	needs(t, "postconf", "postfix")
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
	conf := postconfDir(t, dir)
	lookup := func(name string) string { return conf.Main[name] }
	for name := range strings.FieldsSeq("t1 t2 t3 t4 t5 smtpd_banner") {
		one := func(s string) string { return strings.Join(strings.Fields(s), " ") } // postconf prints it so
		want := one(postconf(t, "-c", dir, "-x", "-h", name))
		if got := one(expand(conf.Main[name], lookup)); got != want {
			t.Errorf("%s = %s\n got %q\nwant %q", name, conf.Main[name], got, want)
		}
	}
	if got := expand("${{$x} == {X} ? {a} : {b}}", lookup); !strings.Contains(got, "$") {
		t.Errorf("a comparison is judged: %q", got)
	}
	if got := expand("$loop", func(string) string { return "$loop $loop" }); len(got) > maxExpanded {
		t.Errorf("a loop yields %d bytes", len(got))
	}
}

func TestParseServer(t *testing.T) {
	for text, want := range map[string]server{
		"unix:private/x": {"unix:private/x", map[string]string{}},
		"{ inet:h:1, timeout=3s, { default_action=451 4.3.0 a, b } }": {"inet:h:1", map[string]string{"timeout": "3s", "default_action": "451 4.3.0 a, b"}},
		"{inet:h:1}": {"inet:h:1", map[string]string{}},
		"{ }":        {"", map[string]string{}},
	} {
		if got := parseServer(text); !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v", text, got)
		}
	}
	for address, want := range map[string]string{
		"unix:private/x": "/q/private/x /q/private/x", "unix:/a/x": "/a/x /q/a/x", "local:x": "/q/x /q/x", "inet:h:1": " ",
	} {
		open, _ := server{address: address}.unixPath("/q/", false)
		inside, _ := server{address: address}.unixPath("/q/", true)
		if got := open + " " + inside; got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
	for address, want := range map[string]string{
		"inet:127.0.0.1:25": "127.0.0.1 25 true", "inet:[::1]:25": "[::1] 25 true", "inet:25": "localhost 25 true", "inet::25": "localhost 25 true",
		"inet:h:smtp": "h smtp false", "unix:x": "  false", "inet:": "localhost  false",
	} {
		host, port, ok := server{address: address}.hostPort()
		if got := fmt.Sprint(host, " ", port, " ", ok); got != want {
			t.Errorf("%s: %q, want %q", address, got, want)
		}
	}
}

// render writes a section as doveconf does.
func render(b *bytes.Buffer, s Section) {
	quote := func(v string) string {
		if v == strings.TrimSpace(v) && !strings.HasPrefix(v, `"`) {
			return v
		}
		return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`
	}
	for _, name := range slices.Sorted(maps.Keys(s.Settings)) {
		fmt.Fprintf(b, "%s = %s\n", name, quote(s.Settings[name]))
	}
	for _, sub := range s.Sections {
		fmt.Fprintf(b, "%s %s {\n", sub.Kind, quote(sub.Name))
		render(b, sub)
		b.WriteString("}\n")
	}
}

// What parses prints back to what parses alike, and is judged without a panic.
func FuzzParseDoveconf(f *testing.F) {
	f.Add(recorded(f, "doveconf-n.txt"))
	f.Add("passdb {\n driver = checkpassword\n args = %u\n}\nservice auth {\n vsz_limit = 18446744073709551615 B\n}\n")
	f.Add("a = \"\\\"\"\nb \"c {\" {\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, version, err := ParseDoveconf(strings.NewReader(text))
		if err != nil {
			return
		}
		var b bytes.Buffer
		b.WriteString("# \n")
		render(&b, all)
		again, _, err := ParseDoveconf(&b)
		if err != nil || !reflect.DeepEqual(all, again) {
			t.Fatalf("%v\n%+v\n%+v", err, all, again)
		}
		for _, x := range Dovecot(DovecotConf{File: "x", Version: version, All: all}, site(t)) {
			if x.Check == "" || x.What == "" {
				t.Errorf("empty finding %+v", x)
			}
		}
	})
}

// Whatever stands in the settings of a submission service, it is well only if Drawbridge is named
// in it.
func FuzzPostfix(f *testing.F) {
	f.Add("drawbridge_policy = check_policy_service unix:private/drawbridge", recorded(f, "postconf-M.txt"), recorded(f, "postconf-P.txt"))
	f.Add("smtpd_restriction_classes = c d\nc = d d d d\nd = c c c c\nsmtpd_recipient_restrictions = c", "s inet n - - - - smtpd", "")
	f.Add("a = ${a?{$a}:{$b}}\nsmtpd_recipient_restrictions = $a, warn_if_reject { {", "s inet n - - - - smtpd", "s/inet/smtpd_sasl_auth_enable = yes")
	f.Add("smtpd_restriction_classes = c\nc = c, permit", "s inet n - y - - smtpd", "s/inet/smtpd_recipient_restrictions = c check_policy_service { unix:private/drawbridge")
	f.Fuzz(func(t *testing.T, main, services, overrides string) {
		m, err := ParseMain(strings.NewReader(main))
		if err != nil {
			return
		}
		list, err := ParseMaster(strings.NewReader(services), strings.NewReader(overrides))
		if err != nil || len(list) > 8 {
			return
		}
		for _, x := range Postfix(PostfixConf{Dir: "x", Main: m, Services: list}, site(t)) {
			if x.Check == "postfix.policy" && strings.Contains(x.What, "asks Drawbridge before") && !strings.Contains(main+overrides, "drawbridge") {
				t.Errorf("nothing names Drawbridge, and yet: %+v", x)
			}
		}
	})
}

// Splitting is stable, and loses nothing but separators. Writing out ends, and leaves text without
// $ alone.
func FuzzLists(f *testing.F) {
	for _, seed := range []string{"a, b c", "{ a, { b } } c", "check_policy_service { inet:h:1, { default_action=451 x } }, permit", "${a?{b}:{c}} $d $$ ${", "}{"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		items := splitList(text)
		if again := splitList(strings.Join(items, ", ")); strings.Count(text, "{") == strings.Count(text, "}") && !strings.HasPrefix(strings.TrimLeft(text, " ,\t\r\n"), "}") && len(again) < len(items) {
			t.Errorf("%q, then %q", items, again)
		}
		bare := strings.NewReplacer(",", "", " ", "", "\t", "", "\r", "", "\n", "")
		if bare.Replace(strings.Join(items, "")) != bare.Replace(text) {
			t.Errorf("%q loses something: %q", text, items)
		}
		parseServer(text)
		out := expand(text, func(name string) string { return "$" + name + " " + name })
		if len(out) > maxExpanded || !strings.Contains(text, "$") && out != text {
			t.Errorf("%q is written out to %d bytes", text, len(out))
		}
	})
}
