package snapshot

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"sync"
)

// journal is an open journal. A nil journal takes records and keeps none. Its fields are guarded by
// the mutex of its [Files], except those of syncing.
type journal struct {
	file *os.File
	head []byte // the header, with the length in effect
	size int64  // where the next record goes
	err  error  // the first failure: from then on nothing can be relied on
	shut bool   // replaced or discarded: nothing is kept in it any more

	syncing sync.Mutex // held by whoever syncs; the others then find their records synced
	synced  int64      // length that is durable
}

func createJournal(path string, id []byte) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	j := &journal{file: file, head: append([]byte(journalMagic), id...), size: journalStart}
	j.head = append(j.head, make([]byte, journalStart-lengthAt)...)
	if err := errors.Join(j.writeHead(j.size, j.size), file.Sync()); err != nil {
		return nil, errors.Join(err, file.Close(), os.Remove(path))
	}
	j.synced = j.size
	return j, nil
}

// writeHead writes the header, which a disk writes whole or not at all: it lies in one sector.
func (j *journal) writeHead(synced, length int64) error {
	binary.LittleEndian.PutUint64(j.head[lengthAt:], uint64(synced))   //nolint:gosec // not negative
	binary.LittleEndian.PutUint64(j.head[lengthAt+8:], uint64(length)) //nolint:gosec // not negative
	binary.LittleEndian.PutUint32(j.head[lengthAt+16:], crc32.Checksum(j.head[:lengthAt+16], castagnoli))
	_, err := j.file.WriteAt(j.head, 0)
	return err
}

// write writes records without waiting for the disk.
func (j *journal) write(records [][]byte) error {
	if j == nil || j.shut {
		return nil
	}
	if j.err != nil {
		return j.err
	}
	var b []byte
	for _, r := range records {
		if len(r) >= maxRecord {
			j.err = fmt.Errorf("a record of %d bytes is too long", len(r))
			return j.err
		}
		if b = append(appendFrame(b, r), r...); len(b) > 1<<20 {
			j.writeAtEnd(b)
			b = b[:0]
		}
	}
	j.writeAtEnd(b)
	return j.err
}

func (j *journal) writeAtEnd(b []byte) {
	if j.err == nil {
		_, j.err = j.file.WriteAt(b, j.size)
		j.size += int64(len(b))
	}
}

// sync waits until everything written before is on the disk. Whoever comes while another syncs is
// served by one further sync for all.
func (j *journal) sync(mu *sync.Mutex) error {
	if j == nil {
		return nil
	}
	mu.Lock()
	mine := j.size
	mu.Unlock()
	j.syncing.Lock()
	defer j.syncing.Unlock()
	mu.Lock()
	if j.shut || j.err != nil || j.synced >= mine {
		defer mu.Unlock()
		return j.fault()
	}
	all := j.size
	err := j.writeHead(j.synced, all)
	mu.Unlock()
	if err == nil {
		err = j.file.Sync()
	}
	mu.Lock()
	defer mu.Unlock()
	if err != nil && !j.shut {
		j.err = err // what the disk has is not known any more
	}
	j.synced = all
	if j.fault() == nil {
		j.err = j.writeHead(all, all) // needs no sync: until it is on the disk, what it says is not relied on
	}
	return j.fault()
}

func (j *journal) fault() error {
	if j.shut {
		return nil
	}
	return j.err
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	j.shut = true
	return j.file.Close()
}

// openJournal passes the records of a journal to apply and opens it for more.
func openJournal(path, gen string, apply func([]byte) error) (*journal, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	j := &journal{file: file}
	if err := j.read(path, gen, apply); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return j, nil
}

func (j *journal) read(path, gen string, apply func([]byte) error) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	bad := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s: %s", ErrDamaged, path, fmt.Sprintf(format, args...))
	}
	if len(data) < journalStart {
		return bad("it is cut off")
	}
	j.head = data[:journalStart:journalStart]
	if err := checkMagic(j.head, journalMagic); err != nil {
		return bad("%v", err)
	}
	if hex.EncodeToString(j.head[len(journalMagic):lengthAt]) != gen {
		return bad("it belongs to another snapshot")
	}
	if binary.LittleEndian.Uint32(j.head[lengthAt+16:]) != crc32.Checksum(j.head[:lengthAt+16], castagnoli) {
		return bad("its header does not match its checksum")
	}
	synced := binary.LittleEndian.Uint64(j.head[lengthAt:])
	if length := binary.LittleEndian.Uint64(j.head[lengthAt+8:]); synced < journalStart || synced > length || synced > uint64(len(data)) {
		return bad("it has %d bytes, and %d are in effect", len(data), synced)
	}
	at := uint64(journalStart)
	for n := 0; ; n++ {
		record, next := next(data, at)
		if record == nil {
			if at < synced {
				return bad("record %d does not match its checksum", n)
			}
			break // the end, or records that were being written: they were never in effect
		}
		if err := apply(record); err != nil {
			return fmt.Errorf("%s: record %d: %w", path, n, err)
		}
		at = next
	}
	j.size, j.synced = int64(at), int64(at)
	return errors.Join(j.file.Truncate(j.size), j.writeHead(j.size, j.size), j.file.Sync())
}

// next returns the record at a place and the place behind it; nil if there is no whole one.
func next(data []byte, at uint64) (record []byte, behind uint64) {
	if uint64(len(data))-at < frameHeader {
		return nil, 0
	}
	n, sum := uint64(binary.LittleEndian.Uint32(data[at:])), binary.LittleEndian.Uint32(data[at+4:])
	at += frameHeader
	if uint64(len(data))-at < n {
		return nil, 0
	}
	if record = data[at : at+n : at+n]; checksum(record) != sum {
		return nil, 0
	}
	return record, at + n
}
