// Package backup writes and reads the files of 'drawbridge backup': documents of the store as lines
// of JSON, compressed, and encrypted with age (age-encryption.org/v1) for a passphrase or for
// recipients. The age command decrypts them, too.
//
//	{"drawbridge_backup":1,"store_id":"…","pepper":"…","taken_at":"…"}
//	{"key":"account/ann@example.org","document":"{…}"}
//	{"end":true,"documents":2}
//
// # Diagnostics
//
// A file that is cut off, altered or none of ours is refused with [ErrDamaged], at the latest at its
// end: read all of it before you use any of it. A passphrase or identity that does not open it is
// [ErrLocked].
package backup

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"filippo.io/age"
)

// The errors of [Read].
var (
	ErrDamaged = errors.New("it is cut off, altered, or no backup of Drawbridge")
	ErrLocked  = errors.New("the passphrase or identity does not open it")
)

// version is that of the lines.
const version = 1

// maxLine bounds a line: an account with all its secure passwords is far smaller.
const maxLine = 4 << 20

// Header says what a backup is of.
type Header struct {
	Version int       `json:"drawbridge_backup"`
	StoreID string    `json:"store_id"`
	Pepper  string    `json:"pepper"` // fingerprint, "" if no secret was ever made
	TakenAt time.Time `json:"taken_at"`
}

type line struct {
	Key      string `json:"key,omitempty"`
	Document string `json:"document,omitempty"`

	End       bool `json:"end,omitempty"`
	Documents int  `json:"documents,omitempty"`
}

// Writer writes a backup. Without Close it is not valid.
type Writer struct {
	sealed io.WriteCloser
	packed *gzip.Writer
	enc    *json.Encoder
	count  int
}

// NewWriter begins a backup for recipients.
func NewWriter(w io.Writer, h Header, to ...age.Recipient) (*Writer, error) {
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return nil, fmt.Errorf("encrypting the backup: %w", err)
	}
	packed := gzip.NewWriter(sealed)
	b := &Writer{sealed: sealed, packed: packed, enc: json.NewEncoder(packed)}
	b.enc.SetEscapeHTML(false)
	h.Version = version
	return b, b.enc.Encode(h)
}

// Add adds a document.
func (b *Writer) Add(key, document string) error {
	b.count++
	return b.enc.Encode(line{Key: key, Document: document})
}

// Close writes the end.
func (b *Writer) Close() error {
	return errors.Join(b.enc.Encode(line{End: true, Documents: b.count}), b.packed.Close(), b.sealed.Close())
}

// Read passes the documents of a backup to each. An error of each ends it and is returned as it is.
func Read(r io.Reader, each func(h Header, key, document string) error, with ...age.Identity) (h Header, count int, err error) {
	opened, err := age.Decrypt(r, with...)
	if none := (*age.NoIdentityMatchError)(nil); errors.As(err, &none) {
		return h, 0, ErrLocked
	}
	if err != nil {
		return h, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	packed, err := gzip.NewReader(opened)
	if err != nil {
		return h, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	lines := bufio.NewScanner(packed)
	lines.Buffer(nil, maxLine)
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &h) != nil || h.Version == 0 {
		return h, 0, ErrDamaged
	}
	if h.Version != version {
		return h, 0, fmt.Errorf("it has version %d, and this program reads version %d: use the drawbridge that wrote it, or a newer one", h.Version, version)
	}
	for lines.Scan() {
		var l line
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&l); err != nil {
			return h, count, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if l.End {
			if l.Documents != count || lines.Scan() || lines.Err() != nil {
				return h, count, ErrDamaged
			}
			return h, count, nil
		}
		count++
		if err := each(h, l.Key, l.Document); err != nil {
			return h, count, err
		}
	}
	return h, count, fmt.Errorf("%w: it has no end", ErrDamaged)
}
