package credential

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
)

// pepperLen is the size of the key, in bytes; the file holds twice as many hexadecimal digits.
const pepperLen = 32

// Pepper is the key under which all secure passwords are hashed. It lives in a file outside the
// store: whoever has the store alone can test no guess. It must be loaded or created; the zero
// value panics. A Pepper is safe for concurrent use.
//
// Printing one shows its fingerprint at most: the keys are behind pointers, where no verb of fmt
// follows.
type Pepper struct {
	fingerprint string
	secrets     *keyed
	tokens      *keyed
}

// LoadPepper reads the pepper from a file: one line of 64 hexadecimal digits, in a regular file
// that only its owner can read, who is root or the effective user. A symbolic link is followed, and
// its target held to the same. The error satisfies errors.Is(err, fs.ErrNotExist) when there is no
// such file.
func LoadPepper(path string) (*Pepper, error) {
	// Without O_NONBLOCK a FIFO in this place would hang the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("load pepper: %w; restore it from the backup: without it no secure password works", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("load pepper: %w; make uid %d its owner", err, os.Geteuid())
	case err != nil:
		return nil, fmt.Errorf("load pepper: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from

	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("load pepper: %w", err)
	}
	owner := -1
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(sys.Uid)
	}
	if err := checkPepperFile(info.Mode(), owner, os.Geteuid()); err != nil {
		return nil, fmt.Errorf("load pepper %s: %w", path, err)
	}

	var text [2*pepperLen + 2]byte // room for the newline, and for one byte too many
	defer clear(text[:])
	n, err := io.ReadFull(f, text[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("load pepper %s: %w", path, err)
	}
	p, err := parsePepper(text[:n])
	if err != nil {
		return nil, fmt.Errorf("load pepper %s: %w", path, err)
	}
	return p, nil
}

// checkPepperFile says all that is wrong with the file itself.
func checkPepperFile(mode fs.FileMode, owner, euid int) error {
	if !mode.IsRegular() {
		return fmt.Errorf("not a regular file (%v): name the file that holds the pepper", mode.Type())
	}
	var faults []error
	if mode.Perm()&0o077 != 0 {
		faults = append(faults, fmt.Errorf("mode %04o lets others at it: chmod 0600", mode.Perm()))
	}
	if owner != 0 && owner != euid {
		faults = append(faults, fmt.Errorf("owned by uid %d: make root or uid %d its owner", owner, euid))
	}
	return errors.Join(faults...)
}

// parsePepper reads the content of the file.
func parsePepper(text []byte) (*Pepper, error) {
	const want = "want one line of 64 hexadecimal digits: restore it from the backup"
	line := bytes.TrimSuffix(text, []byte("\n"))
	if len(line) != 2*pepperLen {
		if len(line) > 2*pepperLen {
			return nil, errors.New("more than 64 characters, " + want)
		}
		return nil, fmt.Errorf("only %d characters, %s", len(line), want)
	}
	var key [pepperLen]byte
	defer clear(key[:])
	if _, err := hex.Decode(key[:], line); err != nil {
		return nil, errors.New("not hexadecimal, " + want) // err would quote a digit
	}
	return newPepper(key[:]), nil
}

// CreatePepper makes a new random pepper and writes it to a file of mode 0600. It returns once file
// and directory are on the disk. It never overwrites: the error satisfies errors.Is(err,
// fs.ErrExist) when the name is taken. A crash leaves a whole file of that name or none.
func CreatePepper(path string) (*Pepper, error) {
	var key [pepperLen]byte
	defer clear(key[:])
	if _, err := io.ReadFull(rand.Reader, key[:]); err != nil {
		return nil, fmt.Errorf("create pepper %s: %w", path, err)
	}
	text := append(hex.AppendEncode(nil, key[:]), '\n')
	defer clear(text)
	if err := writeOnce(path, text); err != nil {
		return nil, fmt.Errorf("create pepper: %w", err)
	}
	return newPepper(key[:]), nil
}

// writeOnce puts content under a new name, durably. Linking, unlike O_EXCL, shows no half-written
// file to whoever comes after a crash, and unlike rename it never replaces one.
func writeOnce(path string, content []byte) error {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	_, err = tmp.Write(content)
	if err == nil {
		err = tmp.Sync()
	}
	if err := errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// newPepper derives a key for each purpose, so that no value made for one can be presented as
// another.
func newPepper(key []byte) *Pepper {
	derive := func(label string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(label))
		return mac.Sum(nil)
	}
	return &Pepper{
		fingerprint: hex.EncodeToString(derive("drawbridge pepper fingerprint 1")),
		secrets:     newKeyed(derive("drawbridge secure password 1")),
		tokens:      newKeyed(derive("drawbridge throttle token 1")),
	}
}

// Fingerprint tells one pepper from another: 64 hexadecimal digits that are safe to store and to
// show.
func (p *Pepper) Fingerprint() string { return p.fingerprint }

// ID is the short form of the fingerprint, its first 8 digits, which goes with each hash.
func (p *Pepper) ID() string { return p.fingerprint[:8] }

// Hash is what is stored of a secure password of the account. The same secret of two accounts has
// two hashes. The secret must come from [Normalise]; the account is the canonical address.
func (p *Pepper) Hash(account string, normalised []byte) Hash {
	return p.secrets.sum(account, normalised)
}

// Token names a pair of account and secret, of whatever shape, in counters of wrong guesses: equal
// pairs have equal tokens, and without the pepper a token reveals neither. Two different pairs
// share one with a probability of 2^-64, which is good enough to count and not to let anyone in.
func (p *Pepper) Token(account string, secret []byte) uint64 {
	sum := p.tokens.sum(account, secret)
	return binary.BigEndian.Uint64(sum[:])
}

// keyed is HMAC-SHA-256 of (account, secret) under one key, without allocation and safe for
// concurrent use. The pool spares hashing the key anew, which is half of the work.
type keyed struct {
	pool sync.Pool
}

// keyedState is one HMAC with its message and its sum, which would otherwise be allocated per call.
type keyedState struct {
	mac hash.Hash
	msg []byte
	sum [sha256.Size]byte
}

func newKeyed(key []byte) *keyed {
	k := new(keyed)
	k.pool.New = func() any { return &keyedState{mac: hmac.New(sha256.New, key)} }
	return k
}

func (k *keyed) sum(account string, secret []byte) [sha256.Size]byte {
	s := k.pool.Get().(*keyedState)
	defer k.pool.Put(s)
	// The length first: ("ab", "c") and ("a", "bc") must not be the same message.
	if need := binary.MaxVarintLen64 + len(account) + len(secret); cap(s.msg) < need {
		s.msg = make([]byte, 0, need)
	}
	s.msg = binary.AppendUvarint(s.msg[:0], uint64(len(account)))
	s.msg = append(s.msg, account...)
	s.msg = append(s.msg, secret...)
	s.mac.Write(s.msg)
	clear(s.msg)
	s.mac.Sum(s.sum[:0])
	s.mac.Reset()
	return s.sum
}

// Hash is the stored form of a secure password. As text, and so in JSON, it is 43 characters of
// unpadded base64url.
type Hash [sha256.Size]byte

// hashText refuses the bits that no digest sets, so that each hash has one spelling.
var hashText = base64.RawURLEncoding.Strict()

// Equal reports whether both are the same, in a time that does not depend on where they differ.
func (h Hash) Equal(o Hash) bool {
	return subtle.ConstantTimeCompare(h[:], o[:]) == 1
}

// MarshalText implements [encoding.TextMarshaler].
func (h Hash) MarshalText() ([]byte, error) {
	return hashText.AppendEncode(nil, h[:]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler]. On an error the hash is unchanged.
func (h *Hash) UnmarshalText(text []byte) error {
	if len(text) != hashText.EncodedLen(len(h)) {
		return fmt.Errorf("hash of a secure password: %d characters, want %d", len(text), hashText.EncodedLen(len(h)))
	}
	raw := make([]byte, 0, len(h)+1)
	raw, err := hashText.AppendDecode(raw, text)
	if err != nil || len(raw) != len(h) { // line breaks in the text are skipped by the decoder
		return errors.New("hash of a secure password: not unpadded base64url")
	}
	*h = Hash(raw)
	return nil
}
