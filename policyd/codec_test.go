package policyd

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/drawbridge/drawbridge/internal/access"
)

// postfix is a request as Postfix 3.7 sends it before RCPT.
const postfix = `request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=203.0.113.9
client_name=unknown
client_port=50412
reverse_client_name=unknown
server_address=192.0.2.25
server_port=587
helo_name=[203.0.113.9]
sender=ann@example.org
recipient=bob@example.net
recipient_count=0
queue_id=
instance=3f2.6921d0a1.6b8f.0
size=1632
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=ann@example.org
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=submission

`

var postfixMeans = access.Submission{
	Account: "ann@example.org", IP: netip.MustParseAddr("203.0.113.9"), Port: 50412, Sender: "ann@example.org",
}

// lines is a request with the given attributes beside the one that all have.
func lines(attributes ...string) string {
	return "request=smtpd_access_policy\n" + strings.Join(append(attributes, "", ""), "\n")
}

func TestRead(t *testing.T) {
	addr := netip.MustParseAddr
	for _, c := range []struct {
		text string
		want access.Submission
	}{
		{postfix, postfixMeans},
		{lines(), access.Submission{}},
		{lines("sasl_username=ann@example.org", "client_address=2001:db8::7"), access.Submission{Account: "ann@example.org", IP: addr("2001:db8::7")}},
		{lines("client_address=::ffff:192.0.2.1"), access.Submission{IP: addr("192.0.2.1")}},
		{lines("client_address=unknown", "client_port=unknown"), access.Submission{}},
		{lines("client_address=fe80::1%eth0", "client_port=65536"), access.Submission{}},
		{lines("client_address=", "client_port=-1"), access.Submission{}},
		{lines("sender==x=y=", "recipient=ünn@example.org", "sasl_username=ünn=x"), access.Submission{Account: "ünn=x", Sender: "=x=y="}},
		// What Postfix passes on of an outsider is not validated: the session must get its answer.
		{lines("sender=\xff\x01\x7f@x", "helo_name=\x1b[0m", "recipient=\x00"), access.Submission{Sender: "\xff\x01\x7f@x"}},
		{lines("helo_name=" + strings.Repeat("x", maxLine)), access.Submission{}},
		{lines("sender=" + strings.Repeat("x", maxLine)), access.Submission{Sender: strings.Repeat("x", maxLine)}},
		{lines("later=1", "later=2"), access.Submission{}},
		{"sasl_username=ann@example.org\nrequest=smtpd_access_policy\n\n", access.Submission{Account: "ann@example.org"}},
	} {
		got, err := newReader(strings.NewReader(c.text)).Read()
		if err != nil || got != c.want {
			t.Errorf("%q:\ngot  %+v, %v\nwant %+v", c.text, got, err, c.want)
		}
	}
}

// What one request said must not linger in the next.
func TestReadForgets(t *testing.T) {
	inbound := lines("client_address=192.0.2.1")
	texts := []string{postfix, inbound, lines(), postfix, inbound}
	want := []access.Submission{
		postfixMeans,
		{IP: netip.MustParseAddr("192.0.2.1")},
		{},
		postfixMeans,
		{IP: netip.MustParseAddr("192.0.2.1")},
	}
	for name, chop := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r }, "one octet": iotest.OneByteReader,
		"halves": iotest.HalfReader, "error with data": iotest.DataErrReader,
	} {
		r := newReader(chop(strings.NewReader(strings.Join(texts, ""))))
		for i := range texts {
			if got, err := r.Read(); err != nil || got != want[i] {
				t.Errorf("%s, request %d: got %+v, %v, want %+v", name, i, got, err, want[i])
			}
		}
		if _, err := r.Read(); !errors.Is(err, io.EOF) {
			t.Errorf("%s, after the last request: %v, want EOF", name, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	many := make([]string, maxAttributes)
	for i := range many {
		many[i] = fmt.Sprintf("attribute%d=", i)
	}
	for name, text := range map[string]string{
		"no request":                "sasl_username=ann@example.org\n\n",
		"another request":           "request=junk\n\n",
		"empty request":             "\n\n",
		"begins with an empty line": "\n" + lines(),
		"no value":                  lines("sasl_username"),
		"no name":                   lines("=ann@example.org"),
		"account twice":             lines("sasl_username=ann@example.org", "sasl_username="),
		"address twice":             lines("client_address=192.0.2.1", "client_address=192.0.2.1"),
		"port twice":                lines("client_port=1", "client_port=1"),
		"request twice":             lines("request=smtpd_access_policy"),
		"NUL":                       lines("sasl_username=ann@example.org\x00"),
		"carriage return":           lines("sasl_username=ann@example.org\r"),
		"delete":                    lines("sasl_username=\x7f"),
		"sender twice":              lines("sender=a@b", "sender=a@b"),
		"account too long":          lines("sasl_username=" + strings.Repeat("x", maxLine)),
		"too many attributes":       lines(many...),
		"too long":                  lines(strings.Repeat("helo_name="+strings.Repeat("x", maxLine-20)+"\n", 10) + "x="),
		"too long without an end":   strings.Repeat("x", maxRequest+1),
		"HTTP":                      "GET / HTTP/1.1\nHost: localhost\n\n",
	} {
		got, err := newReader(strings.NewReader(text)).Read()
		if !errors.Is(err, errMalformed) {
			t.Errorf("%s: got %+v, %v, want %v", name, got, err, errMalformed)
			continue
		}
		if s := err.Error(); strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) || len(s) > 300 {
			t.Errorf("%s: unfit for the log: %q", name, s)
		}
	}
}

func TestReadTruncated(t *testing.T) {
	for n := 1; n < len(postfix); n++ {
		if got, err := newReader(strings.NewReader(postfix[:n])).Read(); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d octets: got %+v, %v", n, got, err)
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	r := newReader(endless(postfix))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// endless reads its text again and again, once each time.
type endless string

func (e endless) Read(b []byte) (int, error) { return copy(b, e), nil }

func TestAppendAction(t *testing.T) {
	for action, want := range map[string]string{
		"DUNNO":                           "action=DUNNO\n\n",
		"554 5.7.1 No.\n\naction=OK":      "action=554 5.7.1 No.??action=OK\n\n",
		"554 5.7.1 Nö\x00\r":              "action=554 5.7.1 N????\n\n",
		"554 " + strings.Repeat("x", 500): "action=554 " + strings.Repeat("x", maxAction-4) + "\n\n",
	} {
		if got := string(appendAction(nil, action)); got != want {
			t.Errorf("%q: got %q, want %q", action, got, want)
		}
	}
}

// appendRequest prints a request as Postfix would.
func appendRequest(dst []byte, s *access.Submission) []byte {
	dst = append(dst, "request=smtpd_access_policy\n"...)
	ip := ""
	if s.IP.IsValid() {
		ip = s.IP.String()
	}
	return fmt.Appendf(dst, "sasl_username=%s\nclient_address=%s\nclient_port=%d\nsender=%s\n\n", s.Account, ip, s.Port, s.Sender)
}

// FuzzRead checks that what is read prints and reads back as the same, however it arrives, and that
// a good request after it still reads well.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		postfix, lines(), lines("client_address=2001:db8::7", "client_port=0"), lines("client_address=::ffff:1.2.3.4"),
		lines("sender=a=b", "helo_name=\xff"), "request=smtpd_access_policy\n", "\n\n", lines("sasl_username=a", "sasl_username=b"),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got, err := newReader(strings.NewReader(string(text))).Read()
		slow, slowErr := newReader(iotest.OneByteReader(strings.NewReader(string(text)))).Read()
		if got != slow || (err == nil) != (slowErr == nil) {
			t.Fatalf("at once: %+v, %v; octet by octet: %+v, %v", got, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		again, err := newReader(strings.NewReader(string(appendRequest(nil, &got)))).Read()
		if err != nil || again != got {
			t.Fatalf("%q is %+v, which prints as %+v, %v", text, got, again, err)
		}
		r := newReader(io.MultiReader(strings.NewReader(string(appendRequest(nil, &got))), strings.NewReader(postfix)))
		if _, err := r.Read(); err != nil {
			t.Fatal(err)
		}
		if next, err := r.Read(); err != nil || next != postfixMeans {
			t.Fatalf("after %+v: %+v, %v", got, next, err)
		}
	})
}

func TestIndexControl(t *testing.T) {
	for c := range 256 {
		for at := range 18 {
			b := []byte("ann@example.org \xff~")
			b[at] = byte(c)
			want := len(b)
			if c < ' ' || c == 0x7f {
				want = at
			}
			if got := indexControl(b); got != want {
				t.Errorf("octet %#x at %d: %d, want %d", c, at, got, want)
			}
		}
	}
}
