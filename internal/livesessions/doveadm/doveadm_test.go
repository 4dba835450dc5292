package doveadm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, ok := range map[string]bool{
		"unix:/run/dovecot/doveadm-server": true, "http://127.0.0.1:8080": true, "https://imap1.example.org:8443/": true,
		"exec:/usr/bin/doveadm": true, "exec:/usr/bin/doveadm -c /etc/dovecot/b.conf": true,
		"": false, "unix:run/x": false, "unix:/" + strings.Repeat("x", 107): false, "http://": false, "http://user:x@host": false, "http://host/other": false,
		"exec:doveadm": false, "tcp:127.0.0.1:1": false, "unix:/a\nb": false,
	} {
		if d, err := Parse(text, []byte("key")); (err == nil) != ok || ok && d.String() != text {
			t.Errorf("Parse(%q): %v, %v", text, d, err)
		}
	}
	if _, err := Parse("http://127.0.0.1:8080", nil); err == nil {
		t.Error("no key for the HTTP API is accepted")
	}
}

// What doveadm 2.3.19 and 2.4.1 answered, as it was recorded.
func TestRecordedAnswers(t *testing.T) {
	ip := netip.MustParseAddr
	for _, c := range []struct {
		name, fields string
		want         []Connection
	}{
		{"2.3, nobody", "", nil},
		{"2.3", "ann@example.org\timap\t12102\t127.0.0.2\tann@example.org\tpop3\t12085\t::1\t", []Connection{
			{"ann@example.org", "imap", "12102", ip("127.0.0.2"), nil}, {"ann@example.org", "pop3", "12085", ip("::1"), nil},
		}},
		{"2.4", "ann\timap\t12119\t127.0.0.2\t\t9PUb\tcred-2\tbob\timap\t12105\t127.0.0.1\t\t\t\t", []Connection{
			{"ann", "imap", "12119", ip("127.0.0.2"), []string{"9PUb", "cred-2"}}, {"bob", "imap", "12105", ip("127.0.0.1"), nil},
		}},
		{"2.4 without fields", "ann\timap\t1\t127.0.0.2\t\tbob\timap\t2\t127.0.0.1\t\tcid\tmanagesieve\t3\t\t\tdan\timap\t4\t127.0.0.1\t\t", []Connection{
			{"ann", "imap", "1", ip("127.0.0.2"), nil},
			{"bob", "imap", "2", ip("127.0.0.1"), nil},
			{"cid", "sieve", "3", netip.Addr{}, nil},
			{"dan", "imap", "4", ip("127.0.0.1"), nil},
		}},
		{"a name with a tab", "a\x01tb\timap\t1\t127.0.0.2\t", []Connection{{"a\tb", "imap", "1", ip("127.0.0.2"), nil}}},
	} {
		d := served(t, "+\n"+c.fields+"\n+\n")
		got, err := d.Who(t.Context())
		if len(c.want) == 0 && len(got) == 0 && err == nil {
			continue
		}
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %v, %v\nwant %v", c.name, got, err, c.want)
		}
	}
	for answer, want := range map[string]struct{ found, fault bool }{
		"+\nann@example.org\t\n+\n": {found: true}, // 2.3
		"+\n\n-NOTFOUND\n":          {},            // 2.3
		"+\n0\t\n+\n":               {},            // 2.4
		"+\n2\t\n+\n":               {found: true}, // 2.4
		"+\n\n-USAGE\n":             {fault: true}, // of another version
		"-\n":                       {fault: true}, // wants a password
		"":                          {fault: true}, // hangs up
		"HTTP/1.1 400 Bad\r\n":      {fault: true}, // something else
		"+\nann":                    {fault: true}, // cut off
	} {
		found, err := served(t, answer).KickUser(t.Context(), "ann@example.org", ip("127.0.0.2"))
		if found != want.found || (err != nil) != want.fault {
			t.Errorf("%q: %v, %v", answer, found, err)
		}
	}
	for answer, want := range map[string]string{
		`[["doveadmResponse",[{"username":"ann","service":"imap","pid":"8009","ip":"127.0.0.2","dest_ip":"","user_session":"RkN5","user_credential":"c"}],"t"]]`: "[[ann imap 8009 127.0.0.2  RkN5 c]] true <nil>",
		`[["doveadmResponse",[{"username":"ann","service":"imap","pid":"6076","ip":"127.0.0.2"},{"username":"b","service":"imap","pid":"1","ip":"::1"}],"t"]]`:   "[[ann imap 6076 127.0.0.2] [b imap 1 ::1]] true <nil>",
		`[["error",{"type":"exitCode", "exitCode":68},"t"]]`: "[] false <nil>",
		`[["error",{"type":"unknownMethod"},"t"]]`:           `[] false doveadm refuses: "unknownMethod" 0`,
		`[["doveadmResponse",[{"username":["ann"]}],"t"]]`:   "[] true the answer is not doveadm's",
		`[]`: "[] false the answer is not doveadm's",
	} {
		rows, found, err := apiAnswer([]byte(answer))
		if got := fmt.Sprint(rows, found, err); got != want {
			t.Errorf("%s:\n got %s\nwant %s", answer, got, want)
		}
	}
}

// served is a doveadm-server that answers one command.
func served(t *testing.T, answer string) *Doveadm {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		in := bufio.NewReader(conn)
		_, _ = in.ReadString('\n')
		_, _ = conn.Write([]byte(answer))
		if strings.HasPrefix(answer, "+\n") {
			_, _ = in.ReadString('\n')
		}
		_ = conn.Close()
	}()
	d, err := Parse("unix:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// A kick is a mask: no name ends anybody else's sessions, or becomes another command.
func TestMasks(t *testing.T) {
	for name, want := range map[string]string{
		"ann@example.org": "ann@example.org", "*@example.org": `\*@example.org`, "?nn": `\?nn`, "-A": "-A",
	} {
		if got, err := escape(name); err != nil || got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"", `a\*`, "a\tb", "a\nb", "10.0.0.1", "::1", "10.0.0.0/8"} {
		if got, err := escape(name); err == nil {
			t.Errorf("%q: %q", name, got)
		}
	}
	c := command{name: "kick", masks: []string{"-A", "127.0.0.1"}}
	if got := strings.Join(c.words(), " "); got != "kick -- -A 127.0.0.1" {
		t.Error(got)
	}
}

// A server that accepts and says nothing is given up.
func TestSilence(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	d, err := Parse("unix:"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	var timeout net.Error
	if _, err := d.Who(ctx); !errors.As(err, &timeout) || !timeout.Timeout() {
		t.Error(err)
	}
}

func FuzzAnswers(f *testing.F) {
	f.Add(`[["doveadmResponse",[{"username":"ann","service":"imap","pid":"1","ip":"::1"}],"t"]]`, "a\timap\t1\t::1\t\tx")
	f.Fuzz(func(t *testing.T, body, fields string) {
		_, _, _ = apiAnswer([]byte(body))
		list := strings.Split(fields, "\t")
		rows, err := split(list)
		n := 0
		for _, r := range rows {
			n += len(r)
		}
		if err == nil && n != len(list) {
			t.Errorf("%d of %d fields", n, len(list))
		}
		if back := unescapeField(escapeField(fields)); back != fields {
			t.Errorf("%q became %q", fields, back)
		}
	})
}

// A queue id is no part of another one, and a Message-ID that the sender chose needs the sender, too.
func TestSentQuery(t *testing.T) {
	since := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		sent Sent
		want string
	}{
		{Sent{QueueID: "3F2A11C", Since: since}, "mailbox * savedsince 1700000000 ( header received id 3F2A11C; or header received id 3F2A11C for )"},
		{
			Sent{QueueID: "3F2A11C", MessageID: "<x@example.org>", Sender: "ann@example.org", Since: since},
			"mailbox * savedsince 1700000000 ( ( header received id 3F2A11C; or header received id 3F2A11C for ) or ( header message-id <x@example.org> header return-path <ann@example.org> ) )",
		},
		{Sent{QueueID: "3F2A11C", MessageID: "x@example.org", Sender: "ann@example.org", Since: since}, "mailbox * savedsince 1700000000 ( header received id 3F2A11C; or header received id 3F2A11C for )"},
	} {
		if got, err := c.sent.query(); err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%+v:\n got %q, %v\nwant %q", c.sent, strings.Join(got, " "), err, c.want)
		}
	}
	for _, sent := range []Sent{{}, {QueueID: "3F2A11C\n"}, {QueueID: "3F2A11C", MessageID: "<x>", Sender: "a\tb"}} {
		if got, err := sent.query(); err == nil {
			t.Errorf("%+v: %q", sent, got)
		}
	}
}

// A script whose name begins with "-" is no refusal: it would hide itself and all others.
func TestAnswersThatLookLikeRefusals(t *testing.T) {
	for answer, want := range map[string]string{
		"+\n-NOUSER\n":              "[] false <nil>",
		"+\n-old\t\t\n+\n":          "[[-old ]] true <nil>",
		"+\n-a\t\tb\tACTIVE\t\n+\n": "[[-a  b ACTIVE]] true <nil>",
	} {
		rows, found, err := served(t, answer).do(t.Context(), command{name: "sieve list", user: "ann@example.org"})
		if got := fmt.Sprint(rows, found, err); got != want {
			t.Errorf("%q: %s, want %s", answer, got, want)
		}
	}
}

// answers is a transport that answers by itself.
type answers func(c command) []row

func (a answers) run(_ context.Context, c command) ([]row, bool, error) { return a(c), true, nil }

// A user who has more scripts than are read, or larger ones, hides neither the active one nor that
// there are more.
func TestScriptsAreBounded(t *testing.T) {
	for what, c := range map[string]struct {
		scripts, size, read int
	}{
		"few":      {3, 10, 3},
		"many":     {maxScripts + 1, 10, maxScripts},
		"long":     {4, maxText/2 + 1, 2},
		"the last": {2, maxText/2 + 1, 2},
	} {
		d := &Doveadm{"here", answers(func(asked command) []row {
			if asked.name == "sieve get" {
				return []row{{strings.Repeat("#", c.size)}}
			}
			var list []row
			for i := range c.scripts {
				list = append(list, row{fmt.Sprint("s", i), ""})
			}
			list[c.scripts-1][1] = "ACTIVE"
			return list
		})}
		list, err := d.Scripts(t.Context(), "ann@example.org")
		if len(list) != c.read || (err != nil) != (c.read < c.scripts) || !list[0].Active || len(list[0].Text) != c.size {
			t.Errorf("%s: %d scripts, %v", what, len(list), err)
		}
	}
}
