package doctor

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/doveconf"
	"github.com/drawbridge/drawbridge/internal/postconf"
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
		all, version, err := doveconf.Parse(strings.NewReader(recorded(t, name)))
		if err != nil || version != "2.3.19.1" {
			t.Fatalf("%s: version %q, %v", name, version, err)
		}
		expectWell(t, Dovecot(DovecotConf{File: "dovecot.conf", Version: version, All: all}, site(t)), 10)
	}
	main, err := postconf.ParseMain(strings.NewReader(recorded(t, "postconf.txt")))
	if err != nil {
		t.Fatal(err)
	}
	services, err := postconf.ParseMaster(strings.NewReader(recorded(t, "postconf-M.txt")), strings.NewReader(recorded(t, "postconf-P.txt")))
	if err != nil {
		t.Fatal(err)
	}
	expectWell(t, Postfix(PostfixConf{Dir: "postfix", Main: main, Services: services}, site(t)), 15)
}

// A sick site, word for word: what an administrator reads.
func TestSickSite(t *testing.T) {
	only23(t)
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

// Whatever stands in the settings of a submission service, it is well only if Drawbridge is named
// in it.
func FuzzPostfix(f *testing.F) {
	f.Add("drawbridge_policy = check_policy_service unix:private/drawbridge", recorded(f, "postconf-M.txt"), recorded(f, "postconf-P.txt"))
	f.Add("smtpd_restriction_classes = c d\nc = d d d d\nd = c c c c\nsmtpd_recipient_restrictions = c", "s inet n - - - - smtpd", "")
	f.Add("a = ${a?{$a}:{$b}}\nsmtpd_recipient_restrictions = $a, warn_if_reject { {", "s inet n - - - - smtpd", "s/inet/smtpd_sasl_auth_enable = yes")
	f.Add("smtpd_restriction_classes = c\nc = c, permit", "s inet n - y - - smtpd", "s/inet/smtpd_recipient_restrictions = c check_policy_service { unix:private/drawbridge")
	f.Fuzz(func(t *testing.T, main, services, overrides string) {
		m, err := postconf.ParseMain(strings.NewReader(main))
		if err != nil {
			return
		}
		list, err := postconf.ParseMaster(strings.NewReader(services), strings.NewReader(overrides))
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

// Whatever doveconf prints is judged without a panic, and no finding is empty.
func FuzzDovecot(f *testing.F) {
	f.Add(recorded(f, "doveconf-n.txt"))
	f.Add("# 2.3.19\npassdb {\n driver = checkpassword\n args = %u\n}\nservice auth {\n vsz_limit = 18446744073709551615 B\n}\n")
	f.Add("# 2.4.1\npassdb lua {\n lua_file = /etc/dovecot/drawbridge.lua\n}\n")
	f.Fuzz(func(t *testing.T, text string) {
		all, version, err := doveconf.Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, x := range Dovecot(DovecotConf{File: "x", Version: version, All: all}, site(t)) {
			if x.Check == "" || x.What == "" {
				t.Errorf("empty finding %+v", x)
			}
		}
	})
}
