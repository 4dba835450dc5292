package snapshot_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/drawbridge/drawbridge/internal/store/snapshot"
)

func open(t *testing.T, dir string) *snapshot.Files {
	t.Helper()
	f, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// read returns the records of a directory as a daemon that starts reads them.
func read(t *testing.T, dir string) ([]string, error) {
	t.Helper()
	f := open(t, dir)
	defer func() { _ = f.Close() }()
	var records []string
	err := f.Resume(func(record []byte) error {
		records = append(records, string(record))
		return nil
	})
	return records, err
}

func replace(t *testing.T, f *snapshot.Files, records ...string) {
	t.Helper()
	err := f.Replace(func(write func([]byte) error) error {
		for _, r := range records {
			if err := write([]byte(r)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func appended(t *testing.T, f *snapshot.Files, records ...string) {
	t.Helper()
	for _, r := range records {
		if _, err := f.Append([]byte(r)); err != nil {
			t.Fatal(err)
		}
	}
}

func want(t *testing.T, dir string, records ...string) {
	t.Helper()
	got, err := read(t, dir)
	if err != nil || !slices.Equal(got, records) {
		t.Errorf("read %q (%v), want %q", got, err, records)
	}
}

func TestSnapshot(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	f := open(t, dir)
	if _, err := snapshot.Open(dir); err == nil {
		t.Error("two processes use the directory")
	}
	if err := f.Resume(nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("resumed from nothing: %v", err)
	}
	appended(t, f, "kept nowhere")
	replace(t, f, "a", "", "c")
	appended(t, f, "d", "e")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, dir, "a", "", "c", "d", "e")

	f = open(t, dir)
	if err := f.Resume(func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	appended(t, f, "f")
	// What is appended while a base is written is in the old snapshot and in the new one.
	err := f.Replace(func(write func([]byte) error) error {
		appended(t, f, "g")
		if err := f.Replace(nil); err == nil {
			t.Error("two snapshots are written at once")
		}
		return write([]byte("a to f"))
	})
	if err != nil {
		t.Fatal(err)
	}
	appended(t, f, "h")
	wrong := errors.New("wrong")
	if err := f.Replace(func(write func([]byte) error) error {
		appended(t, f, "i")
		return errors.Join(write([]byte("half")), wrong)
	}); !errors.Is(err, wrong) {
		t.Errorf("a base that could not be written: %v", err)
	}
	appended(t, f, "j")
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	want(t, dir, "a to f", "g", "h", "i", "j")
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("files %v, %v", entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, %v", e.Name(), info.Mode(), err)
		}
	}

	f = open(t, dir)
	if err := f.Discard(); err != nil {
		t.Fatal(err)
	}
	appended(t, f, "kept nowhere")
	_ = f.Close()
	if got, err := read(t, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after a discard: %q, %v", got, err)
	}
}

// A discard ends a base that is being written.
func TestDiscardWhileReplacing(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	err := f.Replace(func(write func([]byte) error) error {
		return errors.Join(write([]byte("a")), f.Discard())
	})
	if err == nil {
		t.Error("the base took its place after the discard")
	}
	_ = f.Close()
	if got, err := read(t, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("read %q, %v", got, err)
	}
}

// Every byte that is altered, and every length to which a file is cut off, is noticed.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	replace(t, f, "first record", "second")
	appended(t, f, "third", "fourth record")
	_ = f.Close()
	files := map[string][]byte{}
	var journal string
	for _, e := range must(os.ReadDir(dir)) {
		if e.Name() != "lock" {
			files[e.Name()] = must(os.ReadFile(filepath.Join(dir, e.Name())))
		}
		if strings.HasPrefix(e.Name(), "journal-") {
			journal = e.Name()
		}
	}
	restore := func() {
		for name, text := range files {
			if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	believed := func(what string) {
		t.Helper()
		records, err := read(t, dir)
		if err == nil {
			t.Errorf("%s is not noticed: %q", what, records)
		} else if !errors.Is(err, snapshot.ErrDamaged) || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for name, text := range files {
		for i := range text {
			altered := slices.Clone(text)
			altered[i] ^= 0x10
			restore()
			if err := os.WriteFile(filepath.Join(dir, name), altered, 0o600); err != nil {
				t.Fatal(err)
			}
			believed(fmt.Sprintf("byte %d of %s", i, name))
			if err := os.WriteFile(filepath.Join(dir, name), text[:i], 0o600); err != nil {
				t.Fatal(err)
			}
			believed(fmt.Sprintf("%s cut off at %d", name, i))
		}
	}
	restore()
	if err := os.Remove(filepath.Join(dir, journal)); err != nil {
		t.Fatal(err)
	}
	believed("a missing journal")

	// A record that was being written when the daemon was killed was never in effect.
	restore()
	if err := os.WriteFile(filepath.Join(dir, journal), append(slices.Clone(files[journal]), "\x05\x00\x00\x00half"...), 0o600); err != nil {
		t.Fatal(err)
	}
	want(t, dir, "first record", "second", "third", "fourth record")
	want(t, dir, "first record", "second", "third", "fourth record")
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Records of many writers are all there, through bases that are written meanwhile.
func TestConcurrent(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	var mu sync.Mutex // as the store's: a record is in effect, and so in a base, once it is appended
	var all []string
	base := func() {
		replaceWith := func(write func([]byte) error) error {
			mu.Lock()
			records := slices.Clone(all)
			mu.Unlock()
			for _, r := range records {
				if err := write([]byte(r)); err != nil {
					return err
				}
			}
			return nil
		}
		if err := f.Replace(replaceWith); err != nil {
			t.Error(err)
		}
	}
	base()
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 50 {
				mu.Lock()
				r := fmt.Sprintf("%d-%d", w, i)
				if _, err := f.Append([]byte(r)); err != nil {
					t.Error(err)
				}
				all = append(all, r)
				mu.Unlock()
			}
		})
	}
	for range 5 {
		base()
	}
	writers.Wait()
	_ = f.Close()
	got, err := read(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(all)
	if got = slices.Compact(got); !slices.Equal(got, all) {
		t.Errorf("%d records instead of %d", len(got), len(all))
	}
}

// A journal that outgrows its base asks for a new base.
func TestLongJournal(t *testing.T) {
	f := open(t, t.TempDir())
	defer func() { _ = f.Close() }()
	replace(t, f, "a")
	record := make([]byte, 1<<20)
	calls := 0
	for long := false; !long; calls++ {
		var err error
		if long, err = f.Append(record); err != nil || calls > 100 {
			t.Fatalf("%d MiB appended: %v", calls, err)
		}
	}
	if calls < 10 {
		t.Errorf("asked after %d MiB", calls)
	}
	replace(t, f, "b")
	if long, err := f.Append(record); long || err != nil {
		t.Errorf("asked again after a new base: %v", err)
	}
}
