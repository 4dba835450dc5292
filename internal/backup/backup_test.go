package backup_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/drawbridge/drawbridge/internal/backup"
)

func passphrase(t *testing.T, p string) (*age.ScryptRecipient, *age.ScryptIdentity) {
	t.Helper()
	to, err := age.NewScryptRecipient(p)
	if err != nil {
		t.Fatal(err)
	}
	to.SetWorkFactor(10) // quick
	with, err := age.NewScryptIdentity(p)
	if err != nil {
		t.Fatal(err)
	}
	return to, with
}

// A backup has what was added and shows nothing of it; whatever is cut off or altered is noticed.
func TestBackup(t *testing.T) {
	to, with := passphrase(t, "correct horse")
	var file bytes.Buffer
	h := backup.Header{StoreID: "id", Pepper: "f", TakenAt: time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)}
	w, err := backup.NewWriter(&file, h, to)
	if err != nil {
		t.Fatal(err)
	}
	want := ""
	for i := range 20 {
		key, document := fmt.Sprintf("account/u%d@example.org", i), strings.Repeat("secret", i)
		if err := w.Add(key, document); err != nil {
			t.Fatal(err)
		}
		want += key + document
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	read := func(b []byte, with age.Identity) (string, error) {
		got := ""
		r, count, err := backup.Read(bytes.NewReader(b), func(_ backup.Header, key, document string) error {
			got += key + document
			return nil
		}, with)
		if err == nil && (r.StoreID != h.StoreID || r.Pepper != h.Pepper || !r.TakenAt.Equal(h.TakenAt) || count != 20) {
			t.Errorf("header %+v, %d documents", r, count)
		}
		return got, err
	}
	whole := file.Bytes()
	if got, err := read(whole, with); err != nil || got != want {
		t.Errorf("%q, %v", got, err)
	}
	if bytes.Contains(whole, []byte("secret")) || bytes.Contains(whole, []byte("example")) {
		t.Error("the file is readable")
	}
	if _, wrong := passphrase(t, "another"); wrong != nil {
		if _, err := read(whole, wrong); !errors.Is(err, backup.ErrLocked) {
			t.Errorf("another passphrase: %v", err)
		}
	}
	for i := 0; i < len(whole); i += 1 + i/40 {
		if _, err := read(whole[:i], with); err == nil {
			t.Errorf("cut off at %d: not noticed", i)
		}
		altered := bytes.Clone(whole)
		altered[i] ^= 1
		if _, err := read(altered, with); err == nil {
			t.Errorf("altered at %d: not noticed", i)
		}
	}
	for _, foreign := range []string{"", "no backup", "age-encryption.org/v1\n"} {
		if _, err := read([]byte(foreign), with); !errors.Is(err, backup.ErrDamaged) {
			t.Errorf("%q: %v", foreign, err)
		}
	}
	var other bytes.Buffer // by age, but not by us
	sealed, err := age.Encrypt(&other, to)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sealed.Write([]byte("letter")); err != nil {
		t.Fatal(err)
	}
	if err := sealed.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := read(other.Bytes(), with); !errors.Is(err, backup.ErrDamaged) {
		t.Errorf("a letter: %v", err)
	}
}
