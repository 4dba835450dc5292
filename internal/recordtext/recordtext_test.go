package recordtext

import (
	"bytes"
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

// What a client sent is no formula in a spreadsheet, no further column or line, and no further field of a
// syslog message.
func TestOutsidersText(t *testing.T) {
	r := &access.LoginRecord{
		ID: "1", Time: time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC), Account: `=cmd|"x"`, ClientID: "a,b\r\nc\"] evil", Outcome: access.Deny, Reason: access.ReasonBadSecret,
	}
	var b bytes.Buffer
	b.WriteString(Header(CSV))
	Append(&b, CSV, "mx1", "", r)
	rows, err := csv.NewReader(&b).ReadAll()
	if err != nil || len(rows) != 2 || rows[1][2] != `'=cmd|"x"` {
		t.Errorf("%v %q", err, rows)
	}
	b.Reset()
	Append(&b, Syslog, "mx1", "", r)
	line := b.String()
	if strings.Count(line, "\n") != 1 || !strings.HasPrefix(line, "<85>1 2026-11-28T09:00:00.000Z mx1 drawbridged - login [login@32473 ") ||
		!strings.Contains(line, `client_id="a,b  c\"\] evil"`) {
		t.Errorf("%s", line)
	}
}

// A cell begins no formula either where a spreadsheet takes semicolons or tabs for separators.
func TestCells(t *testing.T) {
	for text, want := range map[string]string{
		"":                     "",
		"ann@example.org":      "ann@example.org",
		`"name" "Mail" "3.0"`:  `"name" "Mail" "3.0"`,
		"'quoted@example.org":  "'quoted@example.org",
		"=1+1":                 "'=1+1",
		" =1+1":                " '=1+1",
		"＝1":                   "'＝1",
		"Mail;=HYPERLINK(1)":   "Mail;'=HYPERLINK(1)",
		`Mail"; "@SUM(1)`:      `Mail"; "'@SUM(1)`,
		"a\t+1\r\n-1;x":        "a\t'+1\r\n'-1;x",
		"=a;=b":                "'=a;'=b",
		"outside; from DE - x": "outside; from DE - x",
	} {
		if got := cell(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// An apostrophe in front of a name is part of it: without it, the message would name another account.
func TestApostrophe(t *testing.T) {
	var b bytes.Buffer
	Append(&b, Syslog, "mx1", "", &access.LoginRecord{ID: "1", Account: "'ann@example.org", ClientID: "a\u009b2J\u2028b", Outcome: access.Deny})
	if line := b.String(); !strings.Contains(line, ` account="'ann@example.org" `) || !strings.Contains(line, ` client_id="a 2J b"`) {
		t.Error(line)
	}
}

func BenchmarkAppend(b *testing.B) {
	r := &access.LoginRecord{ID: "1", Time: time.Now(), Account: "ann@example.org", IP: "203.0.113.9", Outcome: access.Allow, Reason: access.ReasonOK}
	for _, format := range []string{CSV, Syslog} {
		b.Run(format, func(b *testing.B) {
			var out bytes.Buffer
			for b.Loop() {
				out.Reset()
				Append(&out, format, "mx1", "", r)
			}
		})
	}
}

// A row is what encoding/csv writes of the cells.
func FuzzRow(f *testing.F) {
	for _, v := range []string{"", "ann@example.org", `a,"b"`, " x", "\u00a0x", `\.`, "a\r\nb", "a;-b", "=1", "-", "a b]c", "ä", "\xff", "[::1]:25"} {
		f.Add(v, v)
	}
	f.Fuzz(func(t *testing.T, account, client string) {
		r := &access.LoginRecord{ID: "1", Time: time.Unix(1, 0), Account: account, ClientID: client}
		var got, want bytes.Buffer
		Append(&got, CSV, "mx1", "", r)
		var room [64]byte
		list := values(r, &room)
		for i, v := range list {
			list[i] = cell(v)
		}
		w := csv.NewWriter(&want)
		w.UseCRLF = true
		if err := w.Write(list[:]); err != nil {
			t.Fatal(err)
		}
		if w.Flush(); got.String() != want.String() {
			t.Errorf("%q, want %q", got.String(), want.String())
		}
	})
}
