// Package spool is a bounded queue of texts on disk, oldest first: one file each, numbered, mode
// 0600, with a CRC-32C in front. Add returns when the text is durable.
//
// A file that is damaged is reported once, by name, and renamed to NAME.bad, which is not read
// again.
package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strconv"
)

// A Dir is the directory of one queue. It is for one goroutine at a time.
type Dir struct {
	path string
	max  int64 // bytes of all files
	list []file
	size int64 // of those in list
	next uint64
}

type file struct {
	n    uint64
	size int64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Open makes the directory if needed and continues the queue in it.
func Open(path string, maxBytes int64) (*Dir, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, max: maxBytes}
	for _, e := range entries {
		n, err := strconv.ParseUint(e.Name(), 10, 64)
		if err != nil || e.Name() != name(n) {
			continue // being written when the process ended, or damaged
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		d.list, d.size = append(d.list, file{n, info.Size()}), d.size+info.Size()
		d.next = max(d.next, n+1)
	}
	slices.SortFunc(d.list, func(a, b file) int { return int(a.n) - int(b.n) }) //nolint:gosec // small numbers
	return d, nil
}

func name(n uint64) string { return fmt.Sprintf("%020d", n) }

func (d *Dir) file(n uint64) string { return filepath.Join(d.path, name(n)) }

// Len returns the number of texts.
func (d *Dir) Len() int { return len(d.list) }

// Add puts a text at the end. Where the queue becomes too large it drops the oldest ones, and
// returns how many.
func (d *Dir) Add(text []byte) (dropped int, err error) {
	b := binary.LittleEndian.AppendUint32(nil, crc32.Checksum(text, castagnoli))
	b = append(b, text...)
	for len(d.list) > 0 && d.size+int64(len(b)) > d.max {
		if err := d.Remove(); err != nil {
			return dropped, err
		}
		dropped++
	}
	f, err := os.OpenFile(filepath.Join(d.path, "new"), os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return dropped, err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), d.file(d.next))
	}
	if err != nil {
		return dropped, errors.Join(err, os.Remove(f.Name()))
	}
	d.list, d.size = append(d.list, file{d.next, int64(len(b))}), d.size+int64(len(b))
	d.next++
	return dropped, d.sync()
}

// First returns the oldest text. A damaged one is put aside with an error; the next call returns the
// one behind it.
func (d *Dir) First() ([]byte, error) {
	path := d.file(d.list[0].n)
	b, err := os.ReadFile(path)
	if err == nil && (len(b) < 4 || crc32.Checksum(b[4:], castagnoli) != binary.LittleEndian.Uint32(b)) {
		err = errors.New("it does not match its checksum")
	}
	if err == nil {
		return b[4:], nil
	}
	d.drop()
	return nil, errors.Join(fmt.Errorf("%s: %w", path, err), os.Rename(path, path+".bad"))
}

// Remove removes the oldest text.
func (d *Dir) Remove() error {
	path := d.file(d.list[0].n)
	d.drop()
	return os.Remove(path)
}

func (d *Dir) drop() {
	d.size -= d.list[0].size
	d.list = d.list[1:]
}

func (d *Dir) sync() error {
	f, err := os.Open(d.path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
