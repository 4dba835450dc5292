package checkpassword

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestReply(t *testing.T) {
	tests := []struct {
		name            string
		fields          Fields
		account, reason string
		want            string
	}{
		{"nothing", NoFields, "ann@example.org", "x", ""},
		{"admitted", AdmitUser, "ann@example.org", "x", "user=ann@example.org\t"},
		{"passed on", PassOn, "ann@example.org", "x", "user=ann@example.org\tnoauthenticate=y\t"},
		{"told why", TellWhy, "ann@example.org", "Not from here.", "user=ann@example.org\tnologin=y\treason=Not from here.\t"},
		{"escaped", AdmitUser, "a\tb\001c\rd\ne\x00f", "", "user=a\001tb\0011c\001rd\001ne\0010f\t"},
		{"one line", TellWhy, "ann", "a\r\nb\tc\x00d\u0085e", "user=ann\tnologin=y\treason=a  b c d e\t"},
		{"cut between characters", TellWhy, "ann", strings.Repeat("x", 399) + "ä", "user=ann\tnologin=y\treason=" + strings.Repeat("x", 399) + "\t"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(Reply(tt.fields, tt.account, tt.reason)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// FuzzReply reads a reply back as Dovecot does, and finds the fields that were meant and no others.
func FuzzReply(f *testing.F) {
	f.Add("ann@example.org", "Not from here.")
	f.Add("a\tnologin=y", "x\tuser=bob\n")
	f.Add("\x00\001\x0011\r", strings.Repeat("ä", 300))
	f.Fuzz(func(t *testing.T, account, reason string) {
		if len(account) > maxUser {
			return
		}
		reply := Reply(TellWhy, account, reason)
		if bytes.ContainsAny(reply, "\n\x00") || len(reply) >= 4096 {
			t.Fatalf("%d bytes: %q", len(reply), reply)
		}
		fields := strings.Split(string(reply), "\t")
		if len(fields) != 4 || fields[1] != "nologin=y" || fields[3] != "" {
			t.Fatalf("fields %q", fields)
		}
		if got := unescape(strings.TrimPrefix(fields[0], "user=")); got != account {
			t.Errorf("account %q came back as %q", account, got)
		}
		text := unescape(strings.TrimPrefix(fields[2], "reason="))
		if !utf8.ValidString(text) || strings.ContainsAny(text, "\r\n\t\x00\001") {
			t.Errorf("reason %q", text)
		}
		if len(reason) <= maxReason && !strings.ContainsFunc(reason, func(r rune) bool { return r < ' ' || r == utf8.RuneError || r >= 0x7f && r < 0xa0 }) && text != reason {
			t.Errorf("reason %q came back as %q", reason, text)
		}
	})
}

// unescape is Dovecot's str_tabunescape.
func unescape(s string) string {
	return strings.NewReplacer("\0010", "\x00", "\0011", "\001", "\001t", "\t", "\001r", "\r", "\001n", "\n").Replace(s)
}
