package milter

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	gomilter "github.com/emersion/go-milter"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// FuzzConn checks that what go-milter gets to read is what the MTA said, in whole well-formed
// packets, up to the first that is not.
func FuzzConn(f *testing.F) {
	all := packet(nil, gomilter.CodeOptNeg, string(offer(postfixActions, postfixProtocol)))
	f.Add(all)
	all = packet(all, gomilter.CodeConn, "host\x004\x00\x19203.0.113.9\x00")
	all = packet(all, gomilter.CodeMacro, "M{auth_authen}\x00ann@example.org\x00")
	all = packet(all, gomilter.CodeMail, "<ann@example.org>\x00")
	all = packet(all, gomilter.CodeHeader, "From\x00ann@example.org\x00")
	f.Add(packet(all, gomilter.CodeEOH, ""))
	f.Add(packet(all, gomilter.CodeHeader, "From\x00a\x00b\x00"))
	f.Add([]byte("\xff\xff\xff\xffO"))
	f.Fuzz(func(t *testing.T, said []byte) {
		c := newConn(&script{in: bytes.NewReader(said)})
		c.declined = func([]byte) bool { return false }
		read, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.HasPrefix(said, read) {
			t.Fatalf("%q reads as %q", said, read)
		}
		for rest := read; len(rest) > 0; {
			n := 4 + int(binary.BigEndian.Uint32(rest))
			if err := check(gomilter.Code(rest[4]), rest[5:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		if left := said[len(read):]; len(left) > 0 && c.cause == nil {
			t.Fatalf("no complaint about %q", left)
		}
	})
}

// FuzzSession checks that a message of ann's is admitted only if every From field can be read and
// holds nobody but her, whatever else the MTA says of it.
func FuzzSession(f *testing.F) {
	f.Add("ann@example.org", []byte(nil))
	f.Add("eve@example.org", []byte(nil))
	f.Add("ann@example.org", packet(nil, gomilter.CodeHeader, "from \x00eve@example.org\x00"))
	f.Add("(", packet(nil, gomilter.CodeEOB, ""))
	f.Add("Team: ann@example.org;", packet(packet(nil, gomilter.CodeAbort, ""), gomilter.CodeMail, "<>\x00"))
	f.Fuzz(func(t *testing.T, from string, further []byte) {
		if strings.ContainsRune(from, 0) {
			return
		}
		said := packet(nil, gomilter.CodeOptNeg, string(offer(postfixActions, postfixProtocol)))
		said = packet(said, gomilter.CodeMacro, "M{auth_authen}\x00"+ann+"\x00")
		said = packet(said, gomilter.CodeMail, "<"+ann+">\x00")
		said = packet(said, gomilter.CodeHeader, "From\x00"+from+"\x00")
		s := checking(mailflow.CheckBoth, "").Submitter(access.Submission{Account: ann})
		owned := !s.Header([]mailflow.Field{{Name: "From", Value: from}}).Refused
		want := "Ocy"
		if owned {
			want = "Oca"
		}
		if got := play(t, checking(mailflow.CheckBoth, ""), packet(said, gomilter.CodeEOH, "")); got != want {
			t.Errorf("From %q: %s, want %s", from, got, want)
		}
		// Anything at all may follow: answers stay whole, and as long as it is the same message,
		// what cannot be owned is not admitted.
		got := play(t, checking(mailflow.CheckBoth, ""), append(said, further...))
		if !owned && strings.Contains(got, "a") && !begins(further) {
			t.Errorf("From %q, then %q: %s", from, further, got)
		}
	})
}

// begins reports whether an MTA goes on to another message.
func begins(said []byte) bool {
	for len(said) >= 5 {
		code, n := gomilter.Code(said[4]), 4+int(binary.BigEndian.Uint32(said))
		if code == gomilter.CodeAbort || code == gomilter.CodeMail {
			return true
		}
		if n > len(said) || n < 5 {
			return false
		}
		said = said[n:]
	}
	return false
}
