package redisstore_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/snapshot"
)

// keeping is a daemon with a snapshot, which can be stopped.
type keeping struct {
	*daemon
	files *snapshot.Files
	stop  func()
}

// keep starts a daemon that keeps a snapshot in a directory. wrap, unless nil, is put around it.
func keep(t *testing.T, r *redistest.Server, m *redistest.Marker, dir string, wrap func(store.Snapshot, *store.State) store.Snapshot) *keeping {
	t.Helper()
	files, err := snapshot.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	k := &keeping{daemon: newDaemon(t, r.Options(), m), files: files}
	k.Snapshot = files
	if wrap != nil {
		k.Snapshot = wrap(files, k.State)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	k.stop = func() {
		cancel()
		<-done
		_ = files.Close()
	}
	t.Cleanup(k.stop)
	return k
}

func (k *keeping) written(t *testing.T, dir string) {
	t.Helper()
	redistest.Eventually(t, "a snapshot is written", func() bool {
		_, err := os.Stat(filepath.Join(dir, "snapshot"))
		return err == nil
	})
}

// loaded waits until the state serves, whatever the store is like.
func (k *keeping) loaded(t *testing.T) {
	t.Helper()
	redistest.Eventually(t, "the state serves", func() bool { ok, _ := k.State.Ready(); return ok && k.Trouble() != nil })
}

// A daemon that starts without Redis has all that it had, in the journal too, and catches up when
// Redis is back.
func TestStartWithoutRedis(t *testing.T) {
	r := redistest.Start(t)
	m, dir := &redistest.Marker{}, t.TempDir()
	a := keep(t, r, m, dir, nil)
	a.ready(t)
	if err := a.putDomain("before.example"); err != nil {
		t.Fatal(err)
	}
	a.written(t, dir)
	if err := errors.Join(a.putDomain("after.example"), a.putDomain("after.example")); err != nil {
		t.Fatal(err)
	}
	other := start(t, r.Options(), &redistest.Marker{ID: m.ID}).ready(t)
	if err := other.putDomain("others.example"); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "another daemon's change is there", func() bool { return a.has("others.example") })
	want := a.State.Heads()
	_, synced := a.State.Ready()
	a.stop()
	if err := other.putDomain("unseen.example"); err != nil {
		t.Fatal(err)
	}

	r.Kill()
	b := keep(t, r, m, dir, nil)
	b.loaded(t)
	if b.State.Heads() != want || !b.has("before.example") || !b.has("after.example") || !b.has("others.example") {
		t.Errorf("started at %v, want %v", b.State.Heads(), want)
	}
	if _, s := b.State.Ready(); s.IsZero() || s.Round(0).After(synced.Round(0)) || synced.Sub(s) > time.Minute {
		t.Errorf("it agreed with the store at %v, before the restart at %v", s, synced)
	}
	if err := b.putDomain("x.example"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a change without Redis: %v", err)
	}
	r.Restart()
	b.ready(t)
	redistest.Eventually(t, "what happened meanwhile is there", func() bool { return b.has("unseen.example") })
	if err := b.putDomain("x.example"); err != nil {
		t.Error(err)
	}
	want = b.State.Heads()
	b.stop()

	// What was loaded again from Redis is in the journal, too.
	r.Kill()
	c := keep(t, r, m, dir, nil)
	c.loaded(t)
	if c.State.Heads() != want || !c.has("unseen.example") {
		t.Errorf("started at %v, want %v", c.State.Heads(), want)
	}
}

// watched is a snapshot that lets a test look at each Append.
type watched struct {
	store.Snapshot
	append func([][]byte) error
}

func (w *watched) Append(records ...[]byte) (bool, error) {
	if err := w.append(records); err != nil {
		return false, err
	}
	return w.Snapshot.Append(records...)
}

// A change is on the disk before it takes effect: on the daemon that makes it and on the others.
func TestKeptBeforeEffect(t *testing.T) {
	r := redistest.Start(t)
	m := &redistest.Marker{}
	look := make(chan bool, 1000)
	wrap := func(s store.Snapshot, st *store.State) store.Snapshot {
		return &watched{s, func(records [][]byte) error {
			if records[0][0] == 3 { // an entry
				_, there := st.Domain("example.org")
				look <- there
			}
			return nil
		}}
	}
	a, b := keep(t, r, m, t.TempDir(), wrap), keep(t, r, &redistest.Marker{}, t.TempDir(), wrap)
	a.ready(t)
	b.ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	redistest.Eventually(t, "the other daemon has it", func() bool { return b.has("example.org") })
	for range 2 {
		if <-look {
			t.Error("the change was in effect before it was kept")
		}
	}
}

// Where the disk takes nothing, changes take effect all the same, and the snapshot is removed: it
// would bring back what was revoked. A new one is written as soon as the disk takes it.
func TestDiskFull(t *testing.T) {
	r := redistest.Start(t)
	m, dir := &redistest.Marker{}, t.TempDir()
	full := false
	a := keep(t, r, m, dir, func(s store.Snapshot, _ *store.State) store.Snapshot {
		return &watched{s, func(records [][]byte) error {
			if full && records[0][0] == 3 {
				full = false
				if _, err := os.Stat(filepath.Join(dir, "snapshot")); err != nil {
					t.Error("there was no snapshot")
				}
				return errors.New("no space left on device")
			}
			return nil
		}}
	})
	a.ready(t)
	a.written(t, dir)
	full = true
	if err := a.putDomain("example.org"); err != nil || !a.has("example.org") {
		t.Fatal(err)
	}
	a.written(t, dir)
	want := a.State.Heads()
	a.stop()
	r.Kill()
	b := keep(t, r, m, dir, nil)
	b.loaded(t)
	if b.State.Heads() != want {
		t.Errorf("started at %v, want %v", b.State.Heads(), want)
	}
}

// A store that is adopted takes the place of the snapshot of the former one.
func TestAdoptedStoreReplacesSnapshot(t *testing.T) {
	r := redistest.Start(t)
	m, dir := &redistest.Marker{}, t.TempDir()
	a := keep(t, r, m, dir, nil)
	a.ready(t)
	if err := a.putDomain("example.org"); err != nil {
		t.Fatal(err)
	}
	a.written(t, dir)
	a.stop()
	empty := redistest.Start(t)
	b := keep(t, empty, m, dir, nil)
	b.loaded(t)
	if !errors.Is(b.Trouble(), store.ErrForeign) || !b.has("example.org") {
		t.Fatalf("an empty store: %v", b.Trouble())
	}
	if _, err := b.Adopt(context.Background()); err != nil {
		t.Fatal(err)
	}
	b.ready(t)
	if b.has("example.org") {
		t.Error("the former store's domain is there")
	}
	b.written(t, dir)
	want := b.State.Heads()
	b.stop()
	empty.Kill()
	c := keep(t, empty, m, dir, nil)
	c.loaded(t)
	if c.State.Heads() != want || c.has("example.org") {
		t.Errorf("started at %v, want %v", c.State.Heads(), want)
	}
}
