package adminclient

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// maxKey bounds a key file, in bytes.
const maxKey = 4096

// readKey reads a file that holds a key and nothing else.
func readKey(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, unwrapPath(err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, unwrapPath(err)
	}
	// A pipe, as of <(command), has no other readers: its mode does not matter.
	if mode := info.Mode(); mode.IsDir() {
		return nil, errors.New("is a directory")
	} else if mode.IsRegular() && mode.Perm()&0o077 != 0 {
		return nil, fmt.Errorf("others than its owner may use it (mode %04o): chmod 600 it, and replace the key if anybody could have read it", mode.Perm())
	}
	raw := make([]byte, maxKey+1)
	defer clear(raw)
	n, err := io.ReadFull(f, raw)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, unwrapPath(err)
	}
	if n > maxKey {
		return nil, fmt.Errorf("is longer than %d bytes: it must contain a key only", maxKey)
	}
	key := raw[:n]
	for len(key) > 0 && (key[len(key)-1] == '\n' || key[len(key)-1] == '\r') {
		key = key[:len(key)-1]
	}
	if len(key) == 0 {
		return nil, errors.New("is empty: it must contain a key")
	}
	for _, c := range key {
		if c <= ' ' || c > '~' {
			return nil, errors.New("has a space, a line break or another character that keys do not have: it must contain a key only")
		}
	}
	return append([]byte(nil), key...), nil
}

// unwrapPath leaves out the file's name, which the caller says already.
func unwrapPath(err error) error {
	if wrapped := new(fs.PathError); errors.As(err, &wrapped) {
		return wrapped.Err
	}
	return err
}
