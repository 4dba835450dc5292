package e2e

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/drawbridge/drawbridge/contrib/dovecot"
	"github.com/drawbridge/drawbridge/contrib/postfix"
	"github.com/drawbridge/drawbridge/internal/trialstack"
	"github.com/drawbridge/drawbridge/internal/trialstack/demo"
)

// What people type and what they are promised for it.
type promise struct {
	begins string // of the command
	status int
	prints string // regular expression
}

const (
	letIn   = `INBOX`
	refused = `Login denied`
)

// Every command of the README's session does what its comment says, in its order.
func TestReadmeSession(t *testing.T) {
	t.Parallel()
	s, guide := demonstration(t)
	session := strings.Split(s.moved(block(t, "README.md", "<!-- session -->", "sh")), "\n")
	s.keep(session, []promise{
		{"curl -sSk imaps:", 67, refused},
		{"db third-party allow ", 0, `third-party clients: +allowed`},
		{"secret=$(db secure-password create ", 0, `shown only now.*"My iPhone"`},
		{"curl -sSk imaps:", 0, letIn},
		{"db logins ", 0, `allow +ok(.|
)*deny +policy`},
	}, indented(guide)[0])
}

// Every command that "make run" prints does what it says there.
func TestGuide(t *testing.T) {
	t.Parallel()
	s, guide := demonstration(t)
	const queued = `250 2\.0\.0 Ok: queued`
	s.keep(indented(guide), []promise{
		{"alias db=", 0, `^$`},
		{"curl -sSk imaps:", 67, refused},
		{"curl -sSk imaps:", 0, letIn},
		{"curl -sSk pop3s:", 67, refused},
		{"swaks --server ", 0, `235 2(.|\n)*` + queued},
		{"swaks --server ", 23, `550 5\.7\.1 The sender address dave@example\.org does not belong to your account`},
		{"swaks --server ", 0, queued},
		{"db third-party allow ", 0, `third-party clients: +allowed`},
		{"db secure-password create ", 0, `^[0-9a-z]{16}\n`},
		{"db account set ", 0, `pop3 +off`},
		{"db region lookup ", 0, `region +NL`},
		{"db policy create ", 0, `mode +report`},
		{"db policy preview ", 0, `refused +[1-9](.|\n)*ann@example.org `},
		{"db policy test ", 0, `verdict +no_match(.|\n)*region +NL`},
		{"db policy set ", 0, `ips +127.0.0.0/8(.|\n)*pending.at `},
		{"db logins ", 0, `carol@example.org .* deny +protocol_disabled`},
		{"db audit ", 0, `third_party_access.update`},
		{"db doctor ", 0, `failed: 0, `},
	})
	s.want("imap from outside", s.imap(outside, ann, s.passwords[ann]), "OK ")
	s.switchedOff()
	s.eventually("both messages at bob's", func() bool {
		inbox, err := s.Inbox(bob)
		return err == nil && len(inbox) == 2
	})

	// The next time nothing of what people changed is undone, and the guide says so.
	fresh, err := demo.SetUp(s.ctx, s.Stack)
	if err != nil || fresh {
		t.Fatalf("setting up once more: fresh is %v, %v", fresh, err)
	}
	s.switchedOff()
	var again bytes.Buffer
	if err := demo.Guide(&again, s.Stack, fresh); err != nil || !strings.Contains(again.String(), "The rules are those of the last run") {
		t.Errorf("%v: the guide of a used stack: %s", err, &again)
	}
}

// Installing refuses nobody until the last step of the page.
func TestInstall(t *testing.T) {
	t.Parallel()
	s := start(t, trialstack.Options{Settings: map[string]any{"login.unmanaged": "next", "login.unmanaged_domains": []string{"*"}}})
	const eve = "eve@example.net"
	goesOn := func(when string) {
		t.Helper()
		for _, d := range doors {
			s.want(d.name+" "+when, d.login(s, outside, eve, s.passwords[eve]), d.yes)
		}
	}
	send := func() string {
		t.Helper()
		c, reply := s.submit(outside, ann, s.passwords[ann])
		s.want("submission", reply, "235 ")
		reply, err := c.Send(bob, bob, "From: "+bob+"\nSubject: test\n\nHello\n")
		if err != nil {
			t.Fatal(err)
		}
		return reply
	}
	commands := regexp.MustCompile("`drawbridge ((?:domain|client-type|logins|third-party) [^`]*)`").FindAllStringSubmatch(page(t, install), -1)
	if len(commands) != 5 {
		t.Fatalf("its commands are %q", commands)
	}
	goesOn("before a domain is managed")
	for i, c := range commands {
		if out, err := s.Daemons[0].Command(s.ctx, strings.Fields(c[1])...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", c[1], err, out)
		}
		if strings.HasPrefix(c[1], "third-party block") != (i == 3) {
			t.Fatalf("command %d is %s", i+1, c[1])
		}
		if i < 3 {
			s.want("somebody else's address", send(), "250 ")
			s.want("imap", s.imap(outside, ann, s.passwords[ann]), "OK ")
		} else {
			s.refuse("imap", s.imap(outside, ann, s.passwords[ann]), "OK ")
		}
	}
	goesOn("beside a managed domain")
	domain := s.api("GET", "/v1/domains/example.org", nil)
	if domain["sender_check"] != "both" {
		t.Errorf("the domain ends as %v", domain)
	}
}

// The snippets of the installation page are lines of the shipped ones.
func TestInstallSnippets(t *testing.T) {
	for _, c := range []struct{ mark, shipped string }{
		{"<!-- dovecot -->", dovecot.Conf23()},
		{"<!-- postfix -->", postfix.MainCF()},
	} {
		shipped := plain(c.shipped)
		for setting := range strings.SplitSeq(block(t, install, c.mark, ""), "\n\n") {
			if !strings.Contains(shipped, plain(setting)) {
				t.Errorf("%s is not as shipped:\n%s", c.mark, setting)
			}
		}
	}
}

// The settings of the installation page are valid.
func TestInstallSettings(t *testing.T) {
	settings := filepath.Join(t.TempDir(), "drawbridge.toml")
	if err := os.WriteFile(settings, []byte(block(t, install, "<!-- settings -->", "toml")), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), filepath.Join(bin, "drawbridged"), "-c", settings, "check").CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}

// Every relative link of the README, the changelog and the documentation leads to a file.
func TestDocumentationLinks(t *testing.T) {
	pages, err := filepath.Glob(filepath.Join(root, "contrib", "docs", "*.md"))
	if err != nil || len(pages) < 6 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	for _, name := range append(pages, filepath.Join(root, "README.md"), filepath.Join(root, "CONTRIBUTING.md"), filepath.Join(root, "CHANGELOG.md")) {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, l := range regexp.MustCompile(`\]\(([^):#]+)(?:#[^)]*)?\)`).FindAllStringSubmatch(string(text), -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), l[1])); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// The page about traps names tests and doctor's checks that exist.
func TestTraps(t *testing.T) {
	var tests, checks strings.Builder
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(name, ".go") {
			return err
		}
		text, err := os.ReadFile(name)
		if strings.HasSuffix(name, "_test.go") {
			tests.Write(text)
		} else if filepath.Base(filepath.Dir(name)) == "doctor" {
			checks.Write(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile("`(?:(Test\\w+)|((?:dovecot|postfix|daemon|script)\\.[a-z_.]+))`").FindAllStringSubmatch(page(t, "contrib/docs/traps.md"), -1)
	if len(names) < 70 {
		t.Errorf("%d names are read", len(names))
	}
	for _, n := range names {
		if n[1] != "" && !strings.Contains(tests.String(), "\nfunc "+n[1]+"(") || n[2] != "" && !strings.Contains(checks.String(), `"`+n[2]+`"`) {
			t.Errorf("there is no %s%s", n[1], n[2])
		}
	}
}

// The README fits a screen of 120 columns.
func TestReadmeWidth(t *testing.T) {
	for i, line := range strings.Split(page(t, "README.md"), "\n") {
		if n := utf8.RuneCountInString(line); n > 120 {
			t.Errorf("line %d has %d characters", i+1, n)
		}
	}
}

// demonstration is a site as "make run" makes it, and what that prints.
func demonstration(t *testing.T) (*site, string) {
	t.Helper()
	s := start(t, trialstack.Options{Settings: map[string]any{"regions.database": debian(t)}})
	fresh, err := demo.SetUp(s.ctx, s.Stack)
	if err != nil || !fresh {
		t.Fatalf("setting up the demo: fresh is %v, %v", fresh, err)
	}
	var guide bytes.Buffer
	if err := demo.Guide(&guide, s.Stack, fresh); err != nil {
		t.Fatal(err)
	}
	return s, guide.String()
}

// switchedOff checks that POP3 is off for ann and IMAP is not, with a secret of her own.
func (s *site) switchedOff() {
	s.t.Helper()
	_, secret := s.device(ann, "another")
	s.refuse("pop3", s.pop3(outside, ann, secret), "+OK ")
	s.want("imap", s.imap(outside, ann, secret), "OK ")
}

// root is the project's directory; install is the page that a new site follows.
var (
	root    = filepath.Join("..", "..")
	install = filepath.Join("contrib", "docs", "install-2.3.md")
)

// page returns a page of the documentation.
func page(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// block returns the code that follows a mark in a page.
func block(t *testing.T, name, mark, language string) string {
	t.Helper()
	_, text, ok := strings.Cut(page(t, name), mark+"\n```"+language+"\n")
	code, _, closed := strings.Cut(text, "\n```")
	if !ok || !closed {
		t.Fatalf("%s has no block %s", name, mark)
	}
	return code
}

// plain is a snippet without comments and line breaks.
func plain(snippet string) string {
	var words []string
	for line := range strings.Lines(snippet) {
		code, _, _ := strings.Cut(line, "#")
		words = append(words, strings.Fields(code)...)
	}
	return strings.Join(words, " ")
}

// indented are the commands of a guide; the first is the alias db.
func indented(guide string) []string {
	return regexp.MustCompile(`(?m)^  [^ #].*$`).FindAllString(guide, -1)
}

// keep types commands into one shell, after those before, and checks what each was promised to do.
// Commands that show records are typed again until the record of the command before is written.
func (s *site) keep(commands []string, promises []promise, before ...string) {
	s.t.Helper()
	if len(commands) != len(promises) {
		s.t.Fatalf("%d commands for %d promises:\n%s", len(commands), len(promises), strings.Join(commands, "\n"))
	}
	shell := exec.CommandContext(s.ctx, "bash", "-s")
	shell.Env = []string{"PATH=" + os.Getenv("PATH")}
	in, err := shell.StdinPipe()
	s.must(err)
	out, err := shell.StdoutPipe()
	s.must(err)
	shell.Stderr = shell.Stdout
	s.must(shell.Start())
	read := bufio.NewReader(out)
	typed := func(command string) (printed, status string) {
		s.t.Helper()
		_, err := io.WriteString(in, command+"\nprintf '\\036%d\\036' $?\n")
		s.must(err)
		for _, text := range []*string{&printed, &status} {
			if *text, err = read.ReadString('\036'); err != nil {
				s.t.Fatalf("the shell ended early: %v: %s%s", err, command, *text)
			}
			*text = strings.TrimSuffix(*text, "\036")
		}
		return printed, status
	}
	typed(strings.Join(append([]string{"shopt -s expand_aliases"}, before...), "\n"))
	for i, p := range promises {
		command := strings.TrimSpace(commands[i])
		var printed, status string
		kept := func() bool {
			printed, status = typed(command)
			return strings.HasPrefix(command, p.begins) && status == strconv.Itoa(p.status) && regexp.MustCompile(p.prints).MatchString(printed)
		}
		showsRecords := strings.HasPrefix(command, "db logins ") || strings.HasPrefix(command, "db policy preview ")
		for end := time.Now().Add(20 * time.Second); !kept(); {
			if !showsRecords || time.Now().After(end) {
				s.t.Errorf("$ %s\n%s=> %s; want %s…, %d, %s", command, printed, status, p.begins, p.status, p.prints)
				break
			}
		}
	}
	s.must(in.Close())
	s.must(shell.Wait())
}

// moved puts this site's ports in the place of those that "make run" takes.
func (s *site) moved(text string) string {
	s.t.Helper()
	told, here := reflect.ValueOf(trialstack.DemoPorts(0)), reflect.ValueOf(s.Ports)
	ports := make(map[string]string)
	for i := range told.NumField() {
		ports[fmt.Sprint(told.Field(i).Int())] = fmt.Sprint(here.Field(i).Int())
	}
	return regexp.MustCompile(`127\.0\.0\.1:\d+`).ReplaceAllStringFunc(text, func(address string) string {
		_, port, _ := net.SplitHostPort(address)
		if ports[port] == "" {
			s.t.Fatalf("%s is nobody's address", address)
		}
		return net.JoinHostPort("127.0.0.1", ports[port])
	})
}
