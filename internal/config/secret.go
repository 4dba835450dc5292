package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
)

const maxSecret = 4096

// ReadSecret reads the one line of a file that a setting names, without its end of line: 1 to 4096
// bytes. A file that everyone may read is refused. The caller wipes what it got after use; errors
// name the file, never its content.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read a secret: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("read a secret: %w", err)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("read a secret: %s is not a regular file: name another", path)
	case info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("read a secret: %s is open to everyone: 'chmod o= %s'", path, path)
	}
	buf := make([]byte, maxSecret+3) // with CR LF, and one byte to see that there is more
	n, err := io.ReadFull(f, buf)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		clear(buf)
		return nil, fmt.Errorf("read a secret: %w", err)
	}
	secret := bytes.TrimSuffix(bytes.TrimSuffix(buf[:n], []byte("\n")), []byte("\r"))
	if len(secret) == 0 || len(secret) > maxSecret || bytes.ContainsAny(secret, "\r\n\x00") {
		clear(buf)
		return nil, fmt.Errorf("read a secret: %s must hold one line of 1 to %d bytes", path, maxSecret)
	}
	return secret, nil
}
