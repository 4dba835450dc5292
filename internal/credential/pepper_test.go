package credential

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
)

// pepperDigits is the content of the pepper file that the golden values below belong to.
const pepperDigits = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f"

func testPepper(tb testing.TB) *Pepper {
	tb.Helper()
	p, err := parsePepper([]byte(pepperDigits))
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

// write puts content into a new file of the given mode and returns its path.
func write(t *testing.T, content string, mode fs.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "pepper")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil { // WriteFile's mode is subject to the umask
		t.Fatal(err)
	}
	return path
}

func TestCreatePepper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pepper")
	created, err := CreatePepper(path)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != 0o600 || info.Size() != 65 {
		t.Errorf("mode %v and size %d, want -rw------- and 65", info.Mode(), info.Size())
	}
	loaded, err := LoadPepper(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Fingerprint() != created.Fingerprint() {
		t.Errorf("fingerprint %s when created, %s when loaded", created.Fingerprint(), loaded.Fingerprint())
	}
	a, b := created.Hash("ann@example.org", []byte("secret")), loaded.Hash("ann@example.org", []byte("secret"))
	if !a.Equal(b) {
		t.Error("hashes differ")
	}

	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := CreatePepper(path); !errors.Is(err, fs.ErrExist) {
		t.Errorf("second time: %v, want fs.ErrExist", err)
	}
	after, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(after) != string(before) {
		t.Error("the second time it was overwritten")
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("left behind: %v", entries)
	}
	other, err := CreatePepper(filepath.Join(t.TempDir(), "pepper"))
	if err != nil {
		t.Fatal(err)
	}
	if other.ID() == created.ID() {
		t.Error("two peppers have one id")
	}
}

func TestCreatePepperLeavesALinkAlone(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "pepper")
	if err := os.Symlink(filepath.Join(dir, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	if _, err := CreatePepper(link); !errors.Is(err, fs.ErrExist) {
		t.Errorf("%v, want fs.ErrExist", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "elsewhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("written through the link: %v", err)
	}
}

func TestCreatePepperWithoutDirectory(t *testing.T) {
	if _, err := CreatePepper(filepath.Join(t.TempDir(), "missing", "pepper")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v, want fs.ErrNotExist", err)
	}
}

func TestLoadPepper(t *testing.T) {
	want := testPepper(t).Fingerprint()
	paths := map[string]string{
		"with newline":    write(t, pepperDigits+"\n", 0o600),
		"without newline": write(t, pepperDigits, 0o600),
		"capitals":        write(t, strings.ToUpper(pepperDigits), 0o600),
		"read-only":       write(t, pepperDigits, 0o400),
	}
	paths["symbolic link"] = filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(paths["read-only"], paths["symbolic link"]); err != nil {
		t.Fatal(err)
	}
	for name, path := range paths {
		t.Run(name, func(t *testing.T) {
			p, err := LoadPepper(path)
			if err != nil {
				t.Fatal(err)
			}
			if p.Fingerprint() != want {
				t.Errorf("fingerprint %s, want %s", p.Fingerprint(), want)
			}
		})
	}
}

func TestLoadPepperFaults(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := write(t, pepperDigits, 0o644)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ path, want string }{
		"missing":           {filepath.Join(t.TempDir(), "pepper"), "restore it from the backup"},
		"directory":         {t.TempDir(), "not a regular file"},
		"fifo":              {fifo, "not a regular file"},
		"group may read":    {write(t, pepperDigits, 0o640), "mode 0640 lets other users read it: run chmod 0600"},
		"world may read":    {open, "mode 0644"},
		"link to such":      {link, "mode 0644"},
		"others may write":  {write(t, pepperDigits, 0o602), "mode 0602"},
		"empty":             {write(t, "", 0o600), "only 0 characters"},
		"short":             {write(t, pepperDigits[:63]+"\n", 0o600), "only 63 characters"},
		"long":              {write(t, pepperDigits+"0", 0o600), "more than 64 characters"},
		"two lines":         {write(t, pepperDigits+"\n\n", 0o600), "more than 64 characters"},
		"carriage return":   {write(t, pepperDigits+"\r\n", 0o600), "more than 64 characters"},
		"many lines":        {write(t, strings.Repeat(pepperDigits+"\n", 1000), 0o600), "more than 64 characters"},
		"not hexadecimal":   {write(t, "x"+pepperDigits[1:], 0o600), "not hexadecimal"},
		"surrounding space": {write(t, " "+pepperDigits[1:], 0o600), "not hexadecimal"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := LoadPepper(c.path)
			if err == nil {
				t.Fatalf("loaded %s", p.ID())
			}
			if !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) {
				t.Errorf("error %q names not %q and %q", err, c.want, c.path)
			}
			if strings.Contains(err.Error(), pepperDigits[2:20]) {
				t.Errorf("error %q shows the key", err)
			}
			if got, want := errors.Is(err, fs.ErrNotExist), name == "missing"; got != want {
				t.Errorf("is fs.ErrNotExist: %v, want %v", got, want)
			}
		})
	}
}

func TestCheckPepperFile(t *testing.T) {
	for _, c := range []struct {
		mode        fs.FileMode
		owner, euid int
		want        []string // none: nothing wrong
	}{
		{0o600, 0, 0, nil},
		{0o400, 0, 997, nil},
		{0o600, 997, 997, nil},
		{0o600, 998, 997, []string{"owned by uid 998: make root or uid 997 its owner"}},
		{0o600, 998, 0, []string{"owned by uid 998"}},
		{0o600, -1, 0, []string{"owned by uid -1"}},
		{0o644, 998, 997, []string{"mode 0644", "owned by uid 998"}},
		{fs.ModeDir | 0o700, 0, 0, []string{"not a regular file"}},
		{fs.ModeDevice | 0o600, 0, 0, []string{"not a regular file"}},
	} {
		err := checkPepperFile(c.mode, c.owner, c.euid)
		if (err == nil) != (c.want == nil) {
			t.Errorf("%v of %d as %d: %v", c.mode, c.owner, c.euid, err)
		}
		for _, want := range c.want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%v of %d as %d: %v, want %q", c.mode, c.owner, c.euid, err, want)
			}
		}
	}
}

// Whatever changes one of these values makes every stored secure password worthless.
func TestPepperGolden(t *testing.T) {
	p := testPepper(t)
	if got, want := p.Fingerprint(), "f756388230b4bb0b1774bad5662e3c80772ae340e329701b63b6eed633539896"; got != want {
		t.Errorf("fingerprint %s, want %s", got, want)
	}
	if got, want := p.ID(), p.Fingerprint()[:8]; got != want || len(got) != 8 {
		t.Errorf("id %s, want %s", got, want)
	}
	text, err := p.Hash("ann@example.org", []byte("k7fm2xq9hbtz4w3e")).MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(text), "dg6oDmF37m_hkiNGf5zHaARxtiruIWl4vv_CxJA9KQc"; got != want {
		t.Errorf("hash %s, want %s", got, want)
	}
	if got, want := p.Token("ann@example.org", []byte("hunter2")), uint64(0x7aaf2f5d199425a1); got != want {
		t.Errorf("token %#x, want %#x", got, want)
	}
}

func TestPepperSeparates(t *testing.T) {
	p := testPepper(t)
	q, err := parsePepper([]byte(strings.Repeat("07", pepperLen)))
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", 200)
	type input struct {
		pepper          *Pepper
		account, secret string
	}
	inputs := []input{
		{p, "ann@example.org", "secret"},
		{q, "ann@example.org", "secret"},
		{p, "bob@example.org", "secret"},
		{p, "ann@example.org", "secreT"},
		{p, "ann@example.orgs", "ecret"},
		{p, "ann@example.org\x00", "secret"},
		{p, "", "ann@example.orgsecret"},
		{p, "ann@example.orgsecret", ""},
		{p, long, "secret"},
		{p, long[1:], "xsecret"},
		{p, "", ""},
	}
	hashes, tokens := map[Hash]input{}, map[uint64]input{}
	for _, in := range inputs {
		h, token := in.pepper.Hash(in.account, []byte(in.secret)), in.pepper.Token(in.account, []byte(in.secret))
		if o, ok := hashes[h]; ok {
			t.Errorf("one hash for %v and %v", o, in)
		}
		if o, ok := tokens[token]; ok {
			t.Errorf("one token for %v and %v", o, in)
		}
		hashes[h], tokens[token] = in, in
		if fmt.Sprintf("%x", h[:8]) == fmt.Sprintf("%016x", token) {
			t.Errorf("the token is the beginning of the hash of %v", in)
		}
	}
}

func TestPepperConcurrently(t *testing.T) {
	p := testPepper(t)
	want := map[string]Hash{}
	for _, account := range []string{"ann@example.org", "bob@example.org", strings.Repeat("c", 300)} {
		want[account] = p.Hash(account, []byte("secret"))
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				for account, h := range want {
					if !p.Hash(account, []byte("secret")).Equal(h) {
						t.Errorf("another hash for %s", account)
						return
					}
				}
			}
		})
	}
	wg.Wait()
}

func TestPepperPrintsNoKey(t *testing.T) {
	p := testPepper(t)
	key := make([]byte, pepperLen)
	for i := range key {
		key[i] = byte(i)
	}
	values := []any{p, struct{ P *Pepper }{p}, []*Pepper{p}}
	for _, v := range values {
		out, err := json.Marshal(v)
		if err != nil || len(out) > len(`{"P":{}}`) {
			t.Errorf("JSON of %T: %s, %v", v, out, err)
		}
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x", "%X", "% x", "%o"} {
		for _, v := range values {
			out := fmt.Sprintf(verb, v)
			for _, leak := range []string{pepperDigits[:16], "[0 1 2", "0x0, 0x1, 0x2", "00 01 02", fmt.Sprintf(verb, key), fmt.Sprintf(verb, p.LinkKey())} {
				if strings.Contains(strings.ToLower(out), strings.ToLower(leak)) {
					t.Errorf("%s of %T shows the key: %s", verb, v, out)
				}
			}
			if len(out) > 400 {
				t.Errorf("%s of %T shows more than a fingerprint and addresses: %s", verb, v, out)
			}
		}
	}
}

func TestHashText(t *testing.T) {
	h := testPepper(t).Hash("ann@example.org", []byte("secret"))
	doc, err := json.Marshal(map[string]Hash{"hash": h})
	if err != nil {
		t.Fatal(err)
	}
	var back map[string]Hash
	if err := json.Unmarshal(doc, &back); err != nil {
		t.Fatal(err)
	}
	if !back["hash"].Equal(h) {
		t.Errorf("%s came back as another", doc)
	}
	good, err := h.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":         "",
		"short":         string(good[:42]),
		"long":          string(good) + "A",
		"padded":        string(good) + "=",
		"foreign":       "+" + string(good[1:]),
		"line breaks":   "\n\n\n\n" + string(good[:39]),
		"trailing bits": string(good[:42]) + "_", // the last character carries four bits
	} {
		got := h
		if err := got.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%s: %q accepted", name, text)
		}
		if got != h {
			t.Errorf("%s: changed in spite of the error", name)
		}
	}
}

func TestHashEqual(t *testing.T) {
	h := testPepper(t).Hash("ann@example.org", []byte("secret"))
	if !h.Equal(h) {
		t.Error("not equal to itself")
	}
	for i := range h {
		o := h
		o[i] ^= 1
		if h.Equal(o) {
			t.Errorf("equal in spite of byte %d", i)
		}
	}
}

func FuzzHashText(f *testing.F) {
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	f.Add([]byte("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAB"))
	f.Add([]byte("\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var h Hash
		if err := h.UnmarshalText(text); err != nil {
			if h != (Hash{}) {
				t.Fatal("changed in spite of the error")
			}
			return
		}
		if back, err := h.MarshalText(); err != nil || string(back) != string(text) {
			t.Fatalf("%q came back as %q, %v", text, back, err)
		}
	})
}

func FuzzPepperFile(f *testing.F) {
	f.Add([]byte(pepperDigits))
	f.Add([]byte(pepperDigits + "\n"))
	f.Add([]byte(pepperDigits[:63] + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := parsePepper(text)
		if err != nil {
			if p != nil {
				t.Fatal("a pepper and an error")
			}
			return
		}
		if n := len(text); n != 64 && (n != 65 || text[64] != '\n') {
			t.Fatalf("%q accepted", text)
		}
		if again, err := parsePepper([]byte(strings.ToLower(string(text)))); err != nil || again.Fingerprint() != p.Fingerprint() {
			t.Fatalf("case matters: %v", err)
		}
	})
}

func BenchmarkPepperHash(b *testing.B) {
	p := testPepper(b)
	secret := []byte("k7fm2xq9hbtz4w3e")
	b.ReportAllocs()
	for b.Loop() {
		p.Hash("ann@example.org", secret)
	}
}

func BenchmarkPepperToken(b *testing.B) {
	p := testPepper(b)
	secret := []byte("correct horse battery staple")
	b.ReportAllocs()
	for b.Loop() {
		p.Token("ann@example.org", secret)
	}
}
