package spool_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/drawbridge/drawbridge/internal/store/spool"
)

func open(t *testing.T, dir string, maxBytes int64) *spool.Dir {
	t.Helper()
	d, err := spool.Open(dir, maxBytes)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func add(t *testing.T, d *spool.Dir, text string) (dropped int) {
	t.Helper()
	dropped, err := d.Add([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

func take(t *testing.T, d *spool.Dir, want ...string) {
	t.Helper()
	for _, w := range want {
		got, err := d.First()
		if err != nil || string(got) != w {
			t.Fatalf("first is %q (%v), want %q", got, err, w)
		}
		if err := d.Remove(); err != nil {
			t.Fatal(err)
		}
	}
}

// The order holds over restarts and beyond ten files.
func TestOrder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	d := open(t, dir, 1000)
	for i := range 12 {
		add(t, d, fmt.Sprint(i))
	}
	take(t, d, "0", "1")
	d = open(t, dir, 1000)
	add(t, d, "12")
	take(t, d, "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12")
	if d.Len() != 0 {
		t.Errorf("%d are left", d.Len())
	}
	add(t, d, "again")
	if info, err := os.Stat(filepath.Join(dir, fmt.Sprintf("%020d", 13))); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", info, err)
	}
}

func TestBound(t *testing.T) {
	d := open(t, t.TempDir(), 3*(4+5))
	for i := range 3 {
		if n := add(t, d, fmt.Sprintf("text%d", i)); n != 0 {
			t.Errorf("%d dropped too early", n)
		}
	}
	if n := add(t, d, "text3"); n != 1 {
		t.Errorf("dropped %d", n)
	}
	take(t, d, "text1", "text2", "text3")
}

// A damaged file is named and put aside; a file that was being written is not read.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	d := open(t, dir, 1000)
	add(t, d, "first")
	add(t, d, "second")
	first := filepath.Join(dir, fmt.Sprintf("%020d", 0))
	for path, text := range map[string]string{first: "xxxxfirst", filepath.Join(dir, "new"): "half"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	d = open(t, dir, 1000)
	if got, err := d.First(); err == nil {
		t.Errorf("a damaged file is read: %q", got)
	}
	take(t, d, "second")
	if _, err := os.Stat(first + ".bad"); err != nil {
		t.Error(err)
	}
	if d = open(t, dir, 1000); d.Len() != 0 {
		t.Error("a damaged file is read again")
	}
}
