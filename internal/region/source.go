package region

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Debian is the path of the IPv4 file of Debian's package tor-geoipdb; its IPv6 file has the same
// name with a 6.
const Debian = "/usr/share/tor/geoip"

const pollEvery = 2 * time.Second

// Load reads a database: path is an .mmdb, or the IPv4 file of a CSV pair. The error is one line
// that names the file.
func Load(path string) (*Database, error) { return load(path, false) }

func load(path string, networks bool) (*Database, error) {
	b := newBuilder()
	b.networks = networks
	b.Paths, b.Kind = files(path)
	if networks && b.Kind != KindMMDB {
		return nil, fmt.Errorf("%s: is no MaxMind file: a database of networks is an .mmdb", path)
	}
	var modified time.Time
	for i, name := range b.Paths {
		info, err := regular(name)
		if err != nil {
			return nil, err
		}
		if modified.IsZero() || info.ModTime().Before(modified) {
			modified = info.ModTime()
		}
		if err := b.readFile(i, name); err != nil {
			return nil, err
		}
	}
	if b.Date.IsZero() {
		b.Date = modified.UTC()
	}
	b.ReadAt = time.Now().UTC()
	return b.finish(), nil
}

func files(path string) (paths []string, kind string) {
	if strings.HasSuffix(path, ".mmdb") {
		return []string{path}, KindMMDB
	}
	return []string{path, path + "6"}, KindCSV
}

// regular returns a file's status and refuses other kinds: reading a pipe could block.
func regular(name string) (fs.FileInfo, error) {
	info, err := os.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: is not a regular file", name)
	}
	return info, err
}

func (b *builder) readFile(i int, name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // read only
	switch {
	case b.Kind == KindMMDB:
		// Read, not mapped: truncating a mapped file would end the process.
		data, err := io.ReadAll(io.LimitReader(f, maxMMDB+1))
		if err == nil && len(data) > maxMMDB {
			err = fmt.Errorf("is larger than %d MiB: take the edition that holds countries only", maxMMDB>>20)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		return b.readMMDB(data, name)
	case i == 0:
		return b.readCSV(f, name, parseDecimal)
	default:
		return b.readCSV(f, name, parseIPv6)
	}
}

// Source is the database of a setting, reloaded when its files change. It is safe for concurrent
// use. A nil Source and the zero Source have no database.
type Source struct {
	current atomic.Pointer[Database]
	nat64   atomic.Pointer[[]netip.Prefix]

	polling sync.Mutex // held by whoever looks at the files; guards what follows
	path    string     // "" for no database
	of      string     // networks, or "" for regions; it stays
	wanted  bool       // it was named, or has been there
	// The result of the last poll, and of the last read, good or bad.
	seen, read []identity
	readErr    error

	mu    sync.Mutex
	fault error
}

// identity distinguishes versions of a file.
type identity struct {
	inode    uint64
	size     int64
	modified time.Time
}

// Open loads a database from a path, as [Load] does; "" means Debian's, if present now or later.
// The prefixes are those of NAT64, of 32, 40, 48, 56, 64 or 96 bits (RFC 6052). The error is one
// line that names the file.
func Open(path string, nat64 ...netip.Prefix) (*Source, error) {
	return open(path, "", nat64)
}

// OpenNetworks loads a database of networks, of which [Source.Network] answers; "" means none.
func OpenNetworks(path string, nat64 ...netip.Prefix) (*Source, error) {
	return open(path, networks, nat64)
}

const networks = "networks"

func open(path, of string, nat64 []netip.Prefix) (*Source, error) {
	s := &Source{path: path, of: of, wanted: path != ""}
	s.nat64.Store(&nat64)
	switch {
	case path == "" && of == networks:
		return s, nil
	case path == "":
		s.path = Debian
		if _, err := os.Stat(Debian); errors.Is(err, fs.ErrNotExist) {
			return s, nil
		}
	}
	var err error
	if s.read, err = identify(s.path); err != nil {
		return nil, err
	}
	d, err := load(s.path, s.of == networks)
	if err != nil {
		return nil, err
	}
	s.current.Store(d)
	s.wanted = true
	return s, nil
}

func identify(path string) ([]identity, error) {
	var list []identity
	paths, _ := files(path)
	for _, name := range paths {
		info, err := regular(name)
		if err != nil {
			return nil, err
		}
		id := identity{size: info.Size(), modified: info.ModTime()}
		if s, ok := info.Sys().(*syscall.Stat_t); ok {
			id.inode = s.Ino
		}
		list = append(list, id)
	}
	return list, nil
}

// Database returns the active database, nil for none. It is immutable: later changes of the files
// give another one.
func (s *Source) Database() *Database {
	if s == nil {
		return nil
	}
	return s.current.Load()
}

// Lookup is [Database.Lookup] in the current database; addresses of the source's NAT64 prefixes
// have the region of the IPv4 address inside.
func (s *Source) Lookup(ip netip.Addr) string {
	d, ip := s.at(ip)
	return d.Lookup(ip)
}

// at returns the current database, and the address to look up in it.
func (s *Source) at(ip netip.Addr) (*Database, netip.Addr) {
	if s == nil {
		return nil, ip
	}
	var nat64 []netip.Prefix
	if list := s.nat64.Load(); list != nil {
		nat64 = *list
	}
	return s.Database(), inner(ip, nat64)
}

// Replace prepares s to become next. It refuses a next with the same path that is missing or may be
// truncated, and changes nothing. The caller must not use next afterwards. The returned function
// applies the change.
func (s *Source) Replace(next *Source) (apply func(), err error) {
	s.polling.Lock()
	defer s.polling.Unlock()
	if was := s.current.Load(); was != nil && s.path == next.path {
		d := next.current.Load()
		if d == nil {
			return nil, fmt.Errorf("%s: is missing", s.path)
		}
		if err := d.shrunk(was); err != nil {
			return nil, err
		}
	}
	return func() {
		s.polling.Lock()
		defer s.polling.Unlock()
		s.path, s.wanted, s.seen, s.read, s.readErr = next.path, next.wanted, next.seen, next.read, next.readErr
		s.nat64.Store(next.nat64.Load())
		s.current.Store(next.current.Load())
		s.setFault(nil)
	}, nil
}

// Fault returns the reason why the present files are not active (broken, missing or truncated), or
// nil. The former content stays active meanwhile.
func (s *Source) Fault() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fault
}

// Run checks every two seconds whether the files have changed, and activates them once they have
// not changed for that long, so that a file is not read while it is being written. If a file is
// broken or missing, or a world database has lost more than half of its ranges, the former content
// stays active. Run calls changed after each change, and returns when ctx ends.
func (s *Source) Run(ctx context.Context, log hclog.Logger, changed func()) {
	if s == nil {
		return
	}
	s.incomplete(log, s.Database())
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		before := s.Fault()
		if d := s.poll(); d != nil {
			log.Info("the database of "+cmp.Or(s.of, "regions")+" was read", "path", d.Paths[0], "date", d.Date, "ranges_v4", d.RangesV4, "ranges_v6", d.RangesV6)
			s.incomplete(log, d)
			changed()
		}
		switch now := s.Fault(); {
		case now != nil && (before == nil || before.Error() != now.Error()):
			log.Error("the database of "+cmp.Or(s.of, "regions")+" is left as it was read before", "error", now)
		case now == nil && before != nil:
			log.Info("the files of the database of " + cmp.Or(s.of, "regions") + " are readable again")
		}
	}
}

// incomplete logs that a database lacks an address family.
func (s *Source) incomplete(log hclog.Logger, d *Database) {
	if s.of == networks {
		return
	}
	if family := d.Missing(); family != "" {
		log.Warn("the database of regions has no "+family+" addresses: they are unknown, no whitelist of regions admits them", "path", strings.Join(d.Paths, ", "))
	}
}

// poll checks the files once. It returns a database that became active.
func (s *Source) poll() *Database {
	s.polling.Lock()
	defer s.polling.Unlock()
	if s.path == "" {
		return nil
	}
	now, err := identify(s.path)
	if err != nil {
		if !s.wanted && errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		s.setFault(err)
		return nil
	}
	settled := slices.Equal(now, s.seen)
	s.seen = now
	if slices.Equal(now, s.read) {
		s.setFault(s.readErr)
		return nil
	}
	if !settled {
		return nil
	}
	d, err := load(s.path, s.of == networks)
	if after, changed := identify(s.path); changed != nil || !slices.Equal(after, now) {
		return nil // while it was read: the next poll sees what became of it
	}
	if err == nil {
		err = d.shrunk(s.current.Load())
	}
	s.wanted, s.read, s.readErr = true, now, err
	s.setFault(err)
	if err != nil {
		return nil
	}
	s.current.Store(d)
	return d
}

// ofTheWorld is the smallest number of ranges of a database of all countries. Debian's has hundreds
// of thousands; smaller ones are a site's own and may shrink freely.
const ofTheWorld = 10_000

// shrunk refuses to replace a world database by one with less than half of the ranges: a CSV file
// has no end mark, and a truncated one would weaken every blacklist of regions.
func (d *Database) shrunk(from *Database) error {
	halved := func(now, was int) bool { return was >= ofTheWorld && 2*now < was }
	if from == nil || !halved(d.RangesV4, from.RangesV4) && !halved(d.RangesV6, from.RangesV6) {
		return nil
	}
	return fmt.Errorf("%s: holds less than half of the ranges that are in force, and may be cut off: if it is meant, restart the daemon", strings.Join(d.Paths, ", "))
}

func (s *Source) setFault(err error) {
	s.mu.Lock()
	s.fault = err
	s.mu.Unlock()
}
