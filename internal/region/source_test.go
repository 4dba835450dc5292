package region

import (
	"bytes"
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
)

const (
	german = "3221225984,3221226239,DE\n" // 192.0.2.0/24
	french = "3221225984,3221226239,FR\n"
)

var someone = netip.MustParseAddr("192.0.2.1")

func mustOpen(t *testing.T, setting string) *Source {
	t.Helper()
	s, err := Open(setting)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// in checks what is in force after some polls, and whether there is a fault.
func (s *Source) in(t *testing.T, polls int, want, fault string) (changes int) {
	t.Helper()
	for range polls {
		if s.poll() != nil {
			changes++
		}
	}
	if got := s.Lookup(someone); got != want {
		t.Errorf("in %q, want %q", got, want)
	}
	switch err := s.Fault(); {
	case err == nil && fault != "":
		t.Errorf("no fault, want %q", fault)
	case err != nil && (fault == "" || !strings.Contains(err.Error(), fault)):
		t.Errorf("fault %q, want %q", err, fault)
	}
	return changes
}

// renew writes a file in such a way that its time tells it from before, on file systems with coarse
// clocks too.
func renew(t *testing.T, path, text string, at time.Time) {
	t.Helper()
	write(t, path, text)
	if err := os.Chtimes(path, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	path := pair(t, german, plain6)
	s := mustOpen(t, path)
	at := time.Now()
	if n := s.in(t, 3, "DE", ""); n != 0 {
		t.Errorf("%d changes of files that are the same", n)
	}

	at = at.Add(time.Minute)
	renew(t, path, french, at)
	s.in(t, 1, "DE", "") // it may still be being written
	if n := s.in(t, 1, "FR", ""); n != 1 {
		t.Errorf("%d changes", n)
	}
	s.in(t, 3, "FR", "")

	for _, broken := range []string{"", "3221225984,3221226239,DE\n3221226", "no"} {
		at = at.Add(time.Minute)
		renew(t, path, broken, at)
		s.in(t, 3, "FR", path)
	}
	at = at.Add(time.Minute)
	renew(t, path, german, at)
	s.in(t, 2, "DE", "")

	if err := os.Rename(path+"6", path+".away"); err != nil {
		t.Fatal(err)
	}
	s.in(t, 2, "DE", path+"6")
	if err := os.Rename(path+".away", path+"6"); err != nil {
		t.Fatal(err)
	}
	if n := s.in(t, 3, "DE", ""); n != 0 {
		t.Errorf("%d changes of files that are back as they were", n)
	}

	// Replaced by another file of the same size and time.
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	renew(t, path+".new", french, info.ModTime())
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	s.in(t, 2, "FR", "")
}

// A CSV file does not tell where it ends: one of the world cut off at the end of a line would take
// regions out of every blacklist that names them.
func TestReloadOfHalf(t *testing.T) {
	path := pair(t, ascending(12_000)+german, plain6)
	s := mustOpen(t, path)
	at := time.Now().Add(time.Minute)
	renew(t, path, ascending(5_000), at)
	if n := s.in(t, 3, "DE", "less than half"); n != 0 {
		t.Errorf("%d changes", n)
	}
	renew(t, path, ascending(7_000)+french, at.Add(time.Minute)) // more than half of it is no accident
	s.in(t, 2, "FR", "")
	// A small one is somebody's own, to be changed as they like.
	renew(t, path, french+"3405804032,3405804287,DE\n3405804288,3405804543,DE\n", at.Add(2*time.Minute))
	s.in(t, 2, "FR", "")
	renew(t, path, german, at.Add(3*time.Minute))
	s.in(t, 2, "DE", "")
}

// ascending are so many ranges of one address each, below those of the other fixtures.
func ascending(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strconv.Itoa(16777216+2*i) + "," + strconv.Itoa(16777216+2*i) + ",AU\n")
	}
	return b.String()
}

func TestOpen(t *testing.T) {
	var none *Source
	if none.Database() != nil || none.Fault() != nil || none.Lookup(someone) != access.RegionNoDatabase {
		t.Error("none is something")
	}
	none.Run(t.Context(), nil, nil) // has nothing to look at
	missing := filepath.Join(t.TempDir(), "geoip")
	if _, err := Open(missing); err == nil || !strings.Contains(err.Error(), missing) {
		t.Errorf("missing: %v", err)
	}
	if _, err := Open(pair(t, german, "half")); err == nil || !strings.Contains(err.Error(), "geoip6:1") {
		t.Errorf("broken: %v", err)
	}
}

// Debian's database may be installed later.
func TestArrives(t *testing.T) {
	path := filepath.Join(t.TempDir(), "geoip")
	s := &Source{path: path}
	s.in(t, 2, access.RegionNoDatabase, "")
	write(t, path, german)
	s.in(t, 3, access.RegionNoDatabase, "")
	write(t, path+"6", plain6)
	if n := s.in(t, 2, "DE", ""); n != 1 {
		t.Errorf("%d changes", n)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s.in(t, 2, "DE", path)
}

// told is what Run tells.
type told struct {
	mu      sync.Mutex
	log     bytes.Buffer
	changes int
}

func (t *told) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.log.Write(b)
}

func (t *told) changed() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.changes++
}

// take returns what was told since it was taken last.
func (t *told) take() (log string, changes int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer func() { t.changes = 0; t.log.Reset() }()
	return t.log.String(), t.changes
}

// Run tells of each change once, and of each trouble once.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := pair(t, german, plain6)
		s := mustOpen(t, path)
		var out told
		ctx, stop := context.WithCancel(t.Context())
		go s.Run(ctx, hclog.New(&hclog.LoggerOptions{Output: &out}), out.changed)
		for i, c := range []struct {
			text, want     string
			lines, changes int
		}{
			{french, "FR", 1, 1},
			{"half", "FR", 1, 0},
			{german, "DE", 2, 1}, // and all is well again
		} {
			renew(t, path, c.text, time.Now().Add(time.Duration(i+1)*time.Hour))
			time.Sleep(5 * pollEvery)
			synctest.Wait()
			log, changes := out.take()
			if got := s.Lookup(someone); got != c.want || strings.Count(log, "\n") != c.lines || changes != c.changes {
				t.Errorf("%q: in %s after %d changes: %s", c.text, got, changes, log)
			}
		}
		stop()
		synctest.Wait()
	})
}

// A source takes another's place: other files at once, the same files only if they are whole.
func TestReplace(t *testing.T) {
	const v6 = "2001:db8::,2001:db8::ffff,DE\n"
	s := mustOpen(t, pair(t, german, v6))
	replace := func(next *Source) error {
		t.Helper()
		apply, err := s.Replace(next)
		if err == nil {
			apply()
		}
		return err
	}
	if err := replace(mustOpen(t, pair(t, french, v6))); err != nil {
		t.Fatal(err)
	}
	s.in(t, 3, "FR", "")
	if err := replace(&Source{path: s.path}); err == nil {
		t.Error("files that are missing took the place of those in use")
	}
	s.in(t, 1, "FR", "")
	if err := replace(&Source{}); err != nil {
		t.Fatal(err)
	}
	s.in(t, 1, access.RegionNoDatabase, "")
	if err := replace(mustOpen(t, pair(t, german, v6))); err != nil {
		t.Fatal(err)
	}
	s.in(t, 3, "DE", "")
}
