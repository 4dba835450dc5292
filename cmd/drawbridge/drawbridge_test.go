package main

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge/drawbridge/internal/api"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"My iPhone":            "My iPhone",
		"Größe → 電話 😀":         "Größe → 電話 😀",
		"a\tb\nc":              `a\tb\nc`,
		"\x1b[2J":              `\x1b[2J`,
		"\u009b2J":             `\u009b2J`,
		"\u202eevil\u2066":     `\u202eevil\u2066`,
		"\u00a0":               `\u00a0`,
		"half \xff of \xc3":    `half \xff of \xc3`,
		"replaced \ufffd here": "replaced \ufffd here",
		"":                     "",
	} {
		if got := printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
	}
}

// FuzzPrintable: nothing that steers a terminal comes through, and nothing else is changed.
func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"plain", "\x1b]0;title\x07", "\u202e", "\xff\xfe", "a\r\nb", "😀"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := printable(s)
		steers := func(r rune) bool { return !unicode.IsPrint(r) }
		if strings.ContainsFunc(out, steers) || !utf8.ValidString(out) {
			t.Fatalf("%q comes through as %q", s, out)
		}
		if utf8.ValidString(s) && !strings.ContainsFunc(s, steers) && out != s {
			t.Fatalf("%q becomes %q", s, out)
		}
	})
}

// FuzzPrintableJSON: the document means the same and prints.
func FuzzPrintableJSON(f *testing.F) {
	for _, s := range []string{`{"a":"\u001b"}`, "{\"a\":\"\u009b\u202e😀\U000e0001\"}", `[1.50,true,null]`, "\"\x7f\"", `"\ud800"`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		var before, after any
		if json.Unmarshal(doc, &before) != nil {
			return
		}
		var out bytes.Buffer
		if err := printJSON(&out, doc); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &after); err != nil || !reflect.DeepEqual(before, after) {
			t.Fatalf("%q becomes %q, error %v", doc, out.Bytes(), err)
		}
		if i := strings.IndexFunc(out.String(), func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }); i >= 0 {
			t.Fatalf("%q is printed as %q", doc, out.Bytes())
		}
	})
}

// FuzzTables: every document that the client lets through can be shown, one line for a value.
func FuzzTables(f *testing.F) {
	for _, s := range []string{`{"a":{"b":[1,{"c":null},[]]},"d":""}`, `[]`, `"x"`, `{}`, `[[["\n"]]]`, `{"":{"":1}}`, `{"time":"2026-11-22T08:00:00Z"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, doc []byte) {
		if !json.Valid(doc) {
			return
		}
		var out bytes.Buffer
		tab := newTable(&out)
		rows := 0
		if err := flatten(decoder(doc), "", func(name, text string) { rows++; tab.row(name, text) }); err != nil {
			t.Fatalf("%q: %v", doc, err)
		}
		cells, err := cellsOf(doc, []column{col("A", "a.b"), {heading: "C", field: "changes", text: changes}})
		if err != nil {
			t.Fatalf("%q: %v", doc, err)
		}
		tab.row(cells...)
		if err := tab.Flush(); err != nil {
			t.Fatal(err)
		}
		if rows == 0 || strings.Count(out.String(), "\n") != rows+1 {
			t.Fatalf("%q: %d rows are printed as %q", doc, rows, out.String())
		}
	})
}

// FuzzWithSecret: the daemon reads the very secret that was typed.
func FuzzWithSecret(f *testing.F) {
	for _, s := range []string{"hunter2", `"\`, "\t\x01", "Größe", "\x7f\u2028</script>"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, secret string) {
		if !utf8.ValidString(secret) {
			return // secretLine refuses it
		}
		for _, o := range []object{{}, {"account": "ann@example.org"}} {
			doc, err := withSecret(o, "password", []byte(secret))
			if err != nil {
				t.Fatal(err)
			}
			var back object
			if err := json.Unmarshal(doc, &back); err != nil || back["password"] != secret || len(back) != len(o)+1 {
				t.Fatalf("%q becomes %q, error %v", secret, doc, err)
			}
		}
	})
}

func TestSecretLine(t *testing.T) {
	for in, want := range map[string]string{
		"hunter2":                        "hunter2",
		"hunter2\n":                      "hunter2",
		"hunter2\r\nmore\n":              "hunter2",
		" spaces count \n":               " spaces count ",
		strings.Repeat("x", maxSecret):   strings.Repeat("x", maxSecret),
		"":                               "the secret is missing",
		"\n":                             "the secret is missing",
		strings.Repeat("x", 2*maxSecret): "longer than",
		"\xff\n":                         "not UTF-8",
	} {
		got, err := secretLine(strings.NewReader(in))
		switch {
		case err == nil && string(got) != want:
			t.Errorf("%.20q is read as %.20q", in, got)
		case err != nil && (!errors.As(err, new(usageError)) || !strings.Contains(err.Error(), want)):
			t.Errorf("%.20q: %v, want %.20q", in, err, want)
		}
	}
	if _, err := secretLine(io.MultiReader(strings.NewReader("half"), broken{})); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("a broken pipe: error %v", err)
	}
}

type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("broken") }

func TestTimes(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	day := time.Date(2026, 11, 21, 0, 0, 0, 0, time.Local)
	for in, want := range map[string]time.Time{
		"2026-11-22T08:00:00+01:00": now.Add(-5 * time.Hour),
		"2026-11-21":                day,
		"90m":                       now.Add(-90 * time.Minute),
		"7d":                        now.Add(-7 * 24 * time.Hour),
		"0s":                        now,
		"-1h":                       {},
		"-1d":                       {},
		"99999999d":                 {},
		"yesterday":                 {},
		"":                          {},
	} {
		got, err := past(in, now)
		if !got.Equal(want) || (err != nil) != want.IsZero() {
			t.Errorf("past(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
	for in, want := range map[string]time.Time{
		"2026-11-22T14:00:00Z": now.Add(2 * time.Hour),
		"90d":                  now.Add(90 * 24 * time.Hour),
		"2026-11-21":           {},
		"0s":                   {},
		"tomorrow":             {},
	} {
		got, err := future(in, now)
		if !got.Equal(want) || (err != nil) != want.IsZero() {
			t.Errorf("future(%q) = %v, %v; want %v", in, got, err, want)
		}
	}
}

// FuzzSplit: every line goes to one part, under its own number, and no part is of two domains.
func FuzzSplit(f *testing.F) {
	for _, s := range []string{
		"address\nann@a\nbob@b\n", "\ufeffaddress,x\r\nann@a,\"1\n2\"\r\nbob@b,", "x,address\n1,ann@a\n2,bob@b\n\n3,cat@a",
		",address\n0\n,ann@a", "address\n\"", "address\nann@a\n\"open", "address\n", "address\nann\n", "",
		"x;address\n1;ann@a\n2;bob@b", "address\tx\rann@a\t1\rbob@b\t2", "\xff\xfea\x00d\x00d\x00r\x00e\x00s\x00s\x00\n\x00a\x00@\x00b\x00",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		parts, err := split(file)
		if err != nil {
			return
		}
		type line struct {
			at    int
			cells string
		}
		read := func(file []byte) (lines []line, whole bool) {
			text, separator, err := api.Sheet(file)
			if err != nil {
				t.Fatalf("%q: %v", file, err)
			}
			r := csv.NewReader(bytes.NewReader(text))
			r.Comma, r.FieldsPerRecord, r.TrimLeadingSpace = separator, -1, separator != '\t'
			for {
				cells, err := r.Read()
				if err != nil {
					return lines, errors.Is(err, io.EOF)
				}
				at, _ := r.FieldPos(0)
				lines = append(lines, line{at, strings.Join(cells, "\x00")})
			}
		}
		all, whole := read(file)
		if !whole {
			return // the rest goes to one of the parts, which says what is wrong
		}
		seen := map[line]bool{}
		total := 0
		for _, p := range parts {
			lines, _ := read(p.csv())
			if len(lines) < 2 {
				t.Fatalf("%q: the part of %s is %q", file, p.domain, p.csv())
			}
			total += len(lines) - 1 // each has the header
			for _, l := range lines {
				seen[l] = true
			}
		}
		if total != len(all)-1 {
			t.Fatalf("%q: %d lines become %d", file, len(all)-1, total)
		}
		for _, l := range all {
			if !seen[l] {
				t.Fatalf("%q: line %d is lost", file, l.at)
			}
		}
	})
}

func TestAligned(t *testing.T) {
	var out strings.Builder
	var a aligned
	a.add([]string{"TIME", "WHO", "WHY"})
	a.add([]string{"now", "Jörg\x1b", "ok"})
	for range 2 { // the second time writes nothing anew
		if err := a.writeTo(&out); err != nil {
			t.Fatal(err)
		}
	}
	a.add([]string{"later on", "me", "policy"})
	if err := a.writeTo(&out); err != nil {
		t.Fatal(err)
	}
	want := "TIME  WHO       WHY\nnow   Jörg\\x1b  ok\nlater on  me        policy\n"
	if out.String() != want {
		t.Errorf("wrote %q, want %q", out.String(), want)
	}
}

type ended struct{ error }

func (ended) ExitStatus() int { return 7 }

func TestExitStatusOfItsOwn(t *testing.T) {
	for output, want := range map[string]string{
		outputTable: "drawbridge: 2 checks failed\n",
		outputJSON:  `{"code":"failed","detail":"2 checks failed"}` + "\n",
	} {
		var stderr strings.Builder
		cmd := new(cobra.Command)
		cmd.SetErr(&stderr)
		c := cli{output: output, started: true}
		if status := c.report(cmd, ended{errors.New("2 checks failed")}); status != 7 || stderr.String() != want {
			t.Errorf("status %d, says %q; want 7, %q", status, stderr.String(), want)
		}
	}
}

// A table fits a terminal: its last column continues on further lines, and others are cut.
func TestTableFits(t *testing.T) {
	var out strings.Builder
	columns := []column{col("STEP", "s"), col("VALUE", "v").shortened(), col("DETAIL", "d").wrapped()}
	long := strings.Repeat("word ", 30)
	rows := func() [][]string {
		return [][]string{headings(columns), {"policy", strings.Repeat("v", 70), long}, {"secret", "", ""}}
	}
	c := &cli{}
	if err := c.printTable(newTable(&out), rows(), columns); err != nil {
		t.Fatal(err)
	}
	words := 0
	for line := range strings.Lines(out.String()) {
		line = strings.TrimRight(line, " \n")
		if n := utf8.RuneCountInString(line); n > tableWidth {
			t.Errorf("%d characters: %s", n, line)
		}
		words += strings.Count(line, "word")
	}
	if words != 30 || !strings.Contains(out.String(), "v…") || !strings.Contains(out.String(), "\nsecret") {
		t.Errorf("%d of 30 words:\n%s", words, &out)
	}
	out.Reset()
	c.wide = true
	if err := c.printTable(newTable(&out), rows(), columns); err != nil || strings.Count(out.String(), "\n") != 3 {
		t.Errorf("with --wide: %v\n%s", err, &out)
	}
}

// Each list of a policy can be replaced, and single entries added and removed.
func TestPolicySetEditsEveryList(t *testing.T) {
	set, _, err := new(cli).root().Find([]string{"policy", "set"})
	if err != nil {
		t.Fatal(err)
	}
	lists := 0
	set.Flags().VisitAll(func(f *pflag.Flag) {
		if _, list := f.Value.(pflag.SliceValue); !list || strings.HasPrefix(f.Name, "add-") || strings.HasPrefix(f.Name, "remove-") {
			return
		}
		lists++
		for _, verb := range []string{"add-", "remove-"} {
			if set.Flags().Lookup(verb+f.Name) == nil {
				t.Errorf("there is no --%s%s", verb, f.Name)
			}
		}
	})
	if lists < 11 {
		t.Errorf("%d lists", lists)
	}
}

// Help is written for people who do not know the API; only drawbridge api speaks of it.
func TestHelpHasNoHTTPWords(t *testing.T) {
	words := regexp.MustCompile(`\?[a-z_]+=|\b(GET|PUT|POST|PATCH|DELETE) |(?i)\betag\b|If-Match|\bJSON pointer\b|\b[45]\d\d [A-Z]`)
	eachCommand(new(cli).root(), func(cmd *cobra.Command) {
		for _, text := range []string{cmd.Short, cmd.Long, cmd.Example, cmd.Flags().FlagUsages()} {
			if found := words.FindString(text); found != "" && cmd.Name() != "api" {
				t.Errorf("%s --help says %q", cmd.CommandPath(), found)
			}
		}
	})
}

// Help fits a terminal of 80 columns, except commands to copy and single words.
func TestHelpFits80Columns(t *testing.T) {
	root := new(cli).root()
	eachCommand(root, func(cmd *cobra.Command) {
		var out bytes.Buffer
		root.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			words := strings.Fields(line)
			if utf8.RuneCountInString(line) > 81 && len(words) > 1 && !strings.HasPrefix(words[0], "drawbridge") && words[0] != "pass" && !strings.HasPrefix(words[0], "https") {
				t.Errorf("%s --help has %d columns: %s", cmd.CommandPath(), utf8.RuneCountInString(line)-1, line)
			}
		}
	})
}

func eachCommand(cmd *cobra.Command, f func(*cobra.Command)) {
	f(cmd)
	for _, child := range cmd.Commands() {
		eachCommand(child, f)
	}
}
