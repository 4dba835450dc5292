package mailclient

import (
	"bufio"
	"net"
	"testing"
	"time"
)

// Units of IMAP and ManageSieve contain literals. SMTP replies have several lines.
func TestReadReplies(t *testing.T) {
	read := func(text string) *Session {
		client, server := net.Pipe()
		t.Cleanup(func() { _ = client.Close() })
		go func() {
			_, _ = server.Write([]byte(text))
			_ = server.Close()
		}()
		return &Session{conn: client, r: bufio.NewReader(client), timeout: time.Minute}
	}
	unit, err := read("* 1 FETCH (BODY[] {7}\r\na\r\n)\r\nb UID 3)\r\na1 OK\r\n").unit()
	if want := "* 1 FETCH (BODY[] {7}\r\na\r\n)\r\nb UID 3)"; err != nil || unit != want {
		t.Errorf("a unit with a literal is %q, %v; want %q", unit, err, want)
	}
	if unit, err := read("* {10}\r\nshort").unit(); err == nil {
		t.Errorf("a literal that is cut off is %q", unit)
	}
	smtp := &SMTP{Session: read("250-a\r\n250-b\r\n250 c\r\n250 d\r\n")}
	for _, want := range []string{"250-a\n250-b\n250 c", "250 d"} {
		if reply, err := smtp.reply(); err != nil || reply != want {
			t.Errorf("a reply is %q, %v; want %q", reply, err, want)
		}
	}
}
