package snapshot

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A power cut during the last write to the journal leaves any part of it on the disk, in any order,
// or zeros. The records before it are read; the torn one was never in effect.
func TestTornTail(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Replace(func(write func([]byte) error) error { return write([]byte("base")) }); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append([]byte("synced")); err != nil {
		t.Fatal(err)
	}
	path, before := f.cur.file.Name(), f.cur.size
	if _, err := f.Append([]byte("one"), []byte("two")); err != nil {
		t.Fatal(err)
	}
	// The header as it is while the last records are written.
	if err := f.cur.writeHead(before, f.cur.size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	read := func(content []byte) (records []string, err error) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		err = f.Resume(func(r []byte) error {
			records = append(records, string(r))
			return nil
		})
		return records, err
	}
	all := []string{"base", "synced", "one", "two"}
	if got, err := read(slices.Clone(whole)); err != nil || !slices.Equal(got, all) {
		t.Errorf("whole: %q, %v", got, err)
	}
	first := int(before) + frameHeader + len("one")
	for at := int(before); at < len(whole); at++ {
		zeros := slices.Concat(whole[:at], make([]byte, len(whole)-at))
		flipped := slices.Clone(whole)
		flipped[at] ^= 1
		longer := slices.Concat(whole[:at], make([]byte, 4096))
		for what, content := range map[string][]byte{"cut off": whole[:at], "zeros": zeros, "altered": flipped, "longer": longer} {
			want := all[:2]
			if at >= first {
				want = all[:3]
			}
			if got, err := read(slices.Clone(content)); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s at %d: %q, %v; want %q", what, at, got, err, want)
			}
			if got, err := read(must(os.ReadFile(path))); err != nil || !slices.Equal(got, want) {
				t.Errorf("%s at %d, again: %q, %v", what, at, got, err)
			}
		}
	}
	for at := range int(before) {
		damaged := slices.Clone(whole)
		damaged[at] ^= 1
		if got, err := read(damaged); !errors.Is(err, ErrDamaged) {
			t.Errorf("altered at %d: %q, %v", at, got, err)
		}
		if got, err := read(slices.Clone(whole[:at])); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut off at %d: %q, %v", at, got, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "journal-*")); len(left) != 1 {
		t.Errorf("journals %v", left)
	}
}

func must(b []byte, err error) []byte {
	if err != nil {
		panic(err)
	}
	return b
}
