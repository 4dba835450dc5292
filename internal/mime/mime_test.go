package mime

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata/corpus.golden anew")

// corpus returns the messages in testdata/corpus by name.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	files, err := filepath.Glob("testdata/corpus/*.eml")
	if err != nil || len(files) < 60 {
		t.Fatalf("%d messages: %v", len(files), err)
	}
	all := map[string][]byte{}
	for _, f := range files {
		message, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(f), ".eml")] = message
	}
	return all
}

// The golden file shows what is read of each message: structure, subject, texts and attachments.
func TestCorpus(t *testing.T) {
	var b strings.Builder
	messages := corpus(t)
	files, _ := filepath.Glob("testdata/corpus/*.eml")
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".eml")
		m, err := Parse(messages[name], Limits{})
		fmt.Fprintf(&b, "=== %s\n%s", name, m.Structure())
		fmt.Fprintf(&b, "subject: %.300s\n", DecodeWords(m.Root.field("subject")))
		texts, textErr := m.Texts()
		for _, text := range texts {
			fmt.Fprintf(&b, "text: %.200s\n", text)
		}
		attachments, attachmentErr := m.Attachments()
		for _, a := range attachments {
			fmt.Fprintf(&b, "attachment: %q %q %d\n", a.Names, a.Types, a.Size)
		}
		for _, err := range []error{err, textErr, attachmentErr} {
			if err != nil {
				fmt.Fprintf(&b, "fault: %s\n", err)
			}
		}
	}
	const golden = "testdata/corpus.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Error(diff)
	}
}

// bannerTexts are an ASCII banner, and one that many charsets lack.
var bannerTexts = []string{"This message is from outside.", "外部邮件:请勿点击链接。\nExtern – Vorsicht!"}

// checkBanner puts a banner into a message, and compares it with the original part by part.
func checkBanner(t *testing.T, message []byte, text string) {
	t.Helper()
	m, err := Parse(message, Limits{})
	var none Changes
	if got := none.Apply(m); !bytes.Equal(got, message) {
		t.Fatalf("no change, and yet\n%q\ninstead of\n%q", got, message)
	}
	if err != nil {
		return // structure that readers disagree on stays as it is
	}
	changes, fault := m.Banner(text)
	at := 0
	for _, s := range changes.Body {
		if s.Start < at || s.End < s.Start || s.End > len(message) || s.Start < m.BodyStart() {
			t.Fatalf("a splice of [%d:%d] behind %d", s.Start, s.End, at)
		}
		at = s.End
	}
	changed := changes.Apply(m)
	after, err := Parse(changed, Limits{})
	if err != nil {
		t.Fatalf("the changed message cannot be read: %v\n%s", err, changed)
	}
	m.Root.walk(func(p *Part) bool {
		sealed := p.Type == "multipart/signed" || p.Type == "multipart/encrypted" || isMessage(p.Type)
		for _, s := range changes.Body {
			if sealed && s.Start < p.body.end && s.End > p.body.start && &p.src[0] == &message[0] {
				t.Fatalf("a splice within part %s, %s", p.Path, p.Type)
			}
		}
		return true
	})
	var before, behind []*Part
	m.Root.walk(func(p *Part) bool { before = append(before, p); return true })
	after.Root.walk(func(p *Part) bool { behind = append(behind, p); return true })
	if len(before) != len(behind) {
		t.Fatalf("%d parts instead of %d\n%s", len(behind), len(before), changed)
	}
	marked := 0
	for i, p := range before {
		q := behind[i]
		if p.Path != q.Path || p.Type != q.Type {
			t.Fatalf("part %s %s became %s %s", p.Path, p.Type, q.Path, q.Type)
		}
		if len(p.Parts) > 0 || bytes.Equal(p.body.of(p.src), q.body.of(q.src)) {
			if p.Path != "" && !bytes.Equal(p.header.of(p.src), q.header.of(q.src)) {
				t.Fatalf("part %s has another header: %q", p.Path, q.header.of(q.src))
			}
			continue
		}
		marked++
		checkMarked(t, p, q, text)
	}
	if fault == nil && marked == 0 && len(changes.Body) > 0 {
		t.Fatal("splices without effect")
	}
}

// checkMarked compares a text before and after it got a banner: without the banner it is the same.
func checkMarked(t *testing.T, p, q *Part, banner string) {
	t.Helper()
	before, behind := p.decode(1<<30), q.decode(1<<30)
	if p.Charset != q.Charset { // it became UTF-8
		text, ok := decodeCharset(p.Charset, before)
		if !ok {
			t.Fatal("it was unreadable")
		}
		before = []byte(text)
	}
	if p.Type == "text/html" {
		b := bannerChanges{text: banner}
		added := []byte(strings.ReplaceAll(b.html(), "\n", p.newline()))
		i := bytes.Index(behind, added)
		if i < 0 {
			t.Fatalf("no banner in part %s:\n%q", p.Path, behind)
		}
		rest := append(bytes.TrimRight(behind[:i:i], " \r\n"), behind[i+len(added):]...)
		if !bytes.Equal(bytes.Join(bytes.Fields(rest), nil), bytes.Join(bytes.Fields(before), nil)) || !bytes.HasSuffix(before, behind[i+len(added):]) {
			t.Fatalf("part %s was\n%q\nand without its banner is\n%q", p.Path, before, rest)
		}
		return
	}
	before = bytes.TrimPrefix(before, []byte("\xef\xbb\xbf"))
	text, ok := decodeCharset(q.Charset, behind[:len(behind)-len(before)])
	if !ok || strings.TrimLeft(strings.ReplaceAll(text, "\r\n", "\n"), " ") != banner+"\n\n" || !bytes.HasSuffix(behind, before) {
		t.Fatalf("part %s was\n%q\nand is\n%q", p.Path, before, behind)
	}
}

func TestBannerOnCorpus(t *testing.T) {
	for name, message := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			for _, text := range bannerTexts {
				checkBanner(t, message, text)
			}
		})
	}
}

func FuzzMessage(f *testing.F) {
	for _, message := range corpus(f) {
		f.Add(message)
	}
	f.Fuzz(func(t *testing.T, message []byte) {
		for _, text := range bannerTexts {
			checkBanner(t, message, text)
		}
		m, _ := Parse(message, Limits{Depth: 5, Parts: 20, Text: 1 << 16, Names: 50, Archive: 1 << 16})
		var fault *Fault
		if _, err := m.Texts(); err != nil && !errors.As(err, &fault) {
			t.Fatal(err)
		}
		if _, err := m.Attachments(); err != nil && !errors.As(err, &fault) {
			t.Fatal(err)
		}
	})
}
