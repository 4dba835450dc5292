// Package snapshot keeps records on disk for a daemon that has to start without its store: a base
// file with all of them, and a journal of those that came later. It does not know what they mean.
//
//	DIR/snapshot        magic, generation, records, number of records
//	DIR/journal-GEN     magic, generation, lengths, records
//	DIR/lock            locked by the daemon that uses the directory
//
// Each record follows its length and the CRC-32C of both; numbers are little-endian. The journal's
// header is written with the records and names two lengths: up to the first, records are known to be
// on the disk and may be in effect; up to the second, they were being written. A journal that is
// damaged before the first length or shorter than that was altered, and nothing of the snapshot is
// used. Records after the first length were never in effect, because a power cut or a kill came
// first: they are kept as far as they are whole.
//
// A base is written beside the old one, while the journals of both receive new records, and takes
// its place by a rename. All files have mode 0600.
//
// # Diagnostics
//
// An error names the file, what is wrong with it, and wraps [ErrDamaged] if its content is not
// used. The checksums detect accidents; whoever may write to the directory can forge them.
package snapshot

import (
	"bufio"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrDamaged reports that a file is cut off, altered, of another version, or no snapshot at all.
var ErrDamaged = errors.New("the snapshot is damaged")

var (
	errBusy      = errors.New("another snapshot is being written")
	errDiscarded = errors.New("the snapshot was discarded while it was written")
)

const (
	baseMagic    = "DBsnap\x00\x02" // the last byte is the version
	journalMagic = "DBjour\x00\x02"
	frameHeader  = 8              // length and checksum of a record
	maxRecord    = 1 << 31        // bytes
	endOfBase    = ^uint32(0)     // in place of a length
	lengthAt     = 8 + generation // of the journal's lengths
	journalStart = lengthAt + 20  // of its records: lengths and checksum of the header
	generation   = 16             // bytes of random
	minJournal   = 16 << 20       // bytes below which a journal never counts as long
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Files are the files of one directory. They are safe for concurrent use.
type Files struct {
	dir  string
	lock *os.File

	mu   sync.Mutex
	base int64    // bytes of the base
	cur  *journal // nil without a valid snapshot
	next *journal // of the base that is being written
}

// Open makes the directory and locks it. It reads nothing.
func Open(dir string) (*Files, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = lock.Close()
		return nil, fmt.Errorf("%s is in use by another process: %w", dir, err)
	}
	return &Files{dir: dir, lock: lock}, nil
}

// Close ends the use of the directory.
func (f *Files) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return errors.Join(f.cur.close(), f.next.close(), f.lock.Close())
}

func (f *Files) path(name string) string { return filepath.Join(f.dir, name) }

// Resume passes the records to apply, oldest first; the record is apply's only during the call.
// Further ones are appended behind them. The error wraps [fs.ErrNotExist] if there is no snapshot.
// After any error nothing is appended until the next Replace.
func (f *Files) Resume(apply func(record []byte) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	gen, size, err := readBase(f.path("snapshot"), apply)
	if err != nil {
		return err
	}
	j, err := openJournal(f.path("journal-"+gen), gen, apply)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w: %s is missing", ErrDamaged, f.path("journal-"+gen))
	}
	if err != nil {
		return err
	}
	f.cur, f.base = j, size
	f.clean()
	return nil
}

// Append adds records to the journal. They are durable when it returns nil. Without a snapshot it
// does nothing. long reports that the journal should be replaced by a new base.
func (f *Files) Append(records ...[]byte) (long bool, err error) {
	f.mu.Lock()
	cur, next := f.cur, f.next
	err = errors.Join(cur.write(records), next.write(records))
	long = cur != nil && next == nil && cur.size > max(minJournal, f.base/2)
	f.mu.Unlock()
	return long, errors.Join(err, cur.sync(&f.mu), next.sync(&f.mu))
}

// Replace writes a new snapshot of the records that all passes to write. What was appended before
// must be among them; what is appended meanwhile follows them. Until it has succeeded the old
// snapshot stays.
func (f *Files) Replace(all func(write func(record []byte) error) error) error {
	var id [generation]byte
	_, _ = rand.Read(id[:]) // never fails (crypto/rand)
	gen := hex.EncodeToString(id[:])
	f.mu.Lock()
	if f.next != nil {
		f.mu.Unlock()
		return errBusy
	}
	next, err := createJournal(f.path("journal-"+gen), id[:])
	f.next = next
	f.mu.Unlock()
	if err != nil {
		return err
	}
	temporary := f.path("snapshot.new")
	size, err := writeBase(temporary, id[:], all)

	f.mu.Lock()
	defer f.mu.Unlock()
	if f.next != next { // Discard has closed it
		_ = os.Remove(temporary)
		return errors.Join(err, errDiscarded)
	}
	f.next = nil
	if err == nil {
		err = os.Rename(temporary, f.path("snapshot"))
	}
	if err == nil {
		err = syncDir(f.dir)
	}
	if err != nil {
		_ = os.Remove(temporary)
		return errors.Join(err, next.close(), os.Remove(next.file.Name()))
	}
	old := f.cur
	f.cur, f.base = next, size
	err = old.close()
	f.clean()
	return err
}

// Discard removes the snapshot.
func (f *Files) Discard() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := os.Remove(f.path("snapshot")) // first: without it no journal is read
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, syncDir(f.dir), f.cur.close(), f.next.close())
	f.cur, f.next, f.base = nil, nil, 0
	f.clean()
	return err
}

// clean removes the files that belong to no snapshot in use.
func (f *Files) clean() {
	entries, _ := os.ReadDir(f.dir)
	for _, e := range entries {
		path := f.path(e.Name())
		journal := strings.HasPrefix(e.Name(), "journal-")
		if f.cur != nil && path == f.cur.file.Name() || f.next != nil && path == f.next.file.Name() {
			continue
		}
		if journal || e.Name() == "snapshot.new" && f.next == nil {
			_ = os.Remove(path) // tried again next time
		}
	}
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// appendFrame appends what stands before a record.
func appendFrame(b, record []byte) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(record))) //nolint:gosec // below maxRecord
	return binary.LittleEndian.AppendUint32(b, checksum(record))
}

// checksum covers the length too, so that zeros, which a power cut leaves, are no empty record.
func checksum(record []byte) uint32 {
	var length [4]byte
	binary.LittleEndian.PutUint32(length[:], uint32(len(record))) //nolint:gosec // below maxRecord
	return crc32.Update(crc32.Checksum(length[:], castagnoli), castagnoli, record)
}

func writeBase(path string, id []byte, all func(func([]byte) error) error) (size int64, err error) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return 0, err
	}
	w := bufio.NewWriterSize(file, 1<<20)
	put := func(b []byte) {
		n, _ := w.Write(b) // the error is kept by w
		size += int64(n)
	}
	put(append([]byte(baseMagic), id...))
	var count uint32
	err = all(func(record []byte) error {
		if len(record) >= maxRecord {
			return fmt.Errorf("a record of %d bytes is too long", len(record))
		}
		count++
		put(appendFrame(nil, record))
		put(record)
		_, err := w.Write(nil)
		return err
	})
	end := binary.LittleEndian.AppendUint32(nil, endOfBase)
	put(binary.LittleEndian.AppendUint32(end, count))
	err = errors.Join(err, w.Flush())
	if err == nil {
		err = file.Sync()
	}
	return size, errors.Join(err, file.Close())
}

// readBase passes the records of a base to apply and returns its generation and size.
func readBase(path string, apply func([]byte) error) (gen string, size int64, err error) {
	file, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer file.Close() //nolint:errcheck // read only
	info, err := file.Stat()
	if err != nil {
		return "", 0, err
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrDamaged, path, fmt.Sprintf(format, args...))
	}
	r := bufio.NewReaderSize(file, 1<<20)
	head := make([]byte, len(baseMagic)+generation)
	if _, err := io.ReadFull(r, head); err != nil {
		return "", 0, bad("it is cut off")
	}
	if err := checkMagic(head, baseMagic); err != nil {
		return "", 0, bad("%v", err)
	}
	left := info.Size() - int64(len(head))
	var room []byte
	for count := uint32(0); ; count++ {
		var h [frameHeader]byte
		if _, err := io.ReadFull(r, h[:]); err != nil {
			return "", 0, bad("it is cut off")
		}
		left -= frameHeader
		n, sum := binary.LittleEndian.Uint32(h[:]), binary.LittleEndian.Uint32(h[4:])
		if n == endOfBase {
			if sum != count || left != 0 {
				return "", 0, bad("it has %d records instead of %d", count, sum)
			}
			return hex.EncodeToString(head[len(baseMagic):]), info.Size(), nil
		}
		if int64(n) > left {
			return "", 0, bad("it is cut off")
		}
		if uint32(cap(room)) < n { //nolint:gosec // below maxRecord
			room = make([]byte, n)
		}
		record := room[:n]
		if _, err := io.ReadFull(r, record); err != nil {
			return "", 0, fmt.Errorf("reading %s: %w", path, err)
		}
		left -= int64(n)
		if checksum(record) != sum {
			return "", 0, bad("record %d does not match its checksum", count)
		}
		if err := apply(record); err != nil {
			return "", 0, fmt.Errorf("%s: record %d: %w", path, count, err)
		}
	}
}

// checkMagic compares the beginning of a file, whose last byte is the version.
func checkMagic(head []byte, magic string) error {
	n := len(magic) - 1
	switch {
	case string(head[:n]) != magic[:n]:
		return errors.New("it is no file of a snapshot")
	case head[n] != magic[n]:
		return fmt.Errorf("it has version %d, and this program reads version %d", head[n], magic[n])
	}
	return nil
}
