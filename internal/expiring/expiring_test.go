package expiring

import (
	"testing"
	"time"
)

// until is an entry that expires at a fixed time.
type until time.Time

func (u until) Expired(now time.Time) bool { return !now.Before(time.Time(u)) }

func TestEntriesExpire(t *testing.T) {
	m := New[string, until](10)
	now := time.Now()
	m.Put("a", until(now.Add(time.Minute)))
	m.Put("b", until(now.Add(time.Hour)))
	for after, want := range map[time.Duration]bool{0: true, time.Minute - 1: true, time.Minute: false, time.Hour: false} {
		if _, ok := m.Get("a", now.Add(after)); ok != want {
			t.Errorf("found after %s: %t", after, ok)
		}
	}
	if m.Sweep(now.Add(time.Minute)); m.Len() != 1 {
		t.Errorf("%d entries after a minute, want 1", m.Len())
	}
	if m.Delete("b"); m.Len() != 0 {
		t.Errorf("%d entries after Delete, want 0", m.Len())
	}
}

func TestSizeIsBounded(t *testing.T) {
	m := New[int, until](100)
	now := time.Now()
	for i := range 1000 {
		m.Put(i, until(now.Add(time.Hour)))
		if _, ok := m.Get(i, now); !ok {
			t.Fatalf("entry %d is missing right after Put", i)
		}
	}
	m.Put(999, until(now.Add(2*time.Hour))) // replacing an entry drops no other
	if m.Len() != 100 {
		t.Errorf("%d entries, want 100", m.Len())
	}
}
