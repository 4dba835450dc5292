package credential

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
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

// Pepper is the key under which all secure passwords are hashed. It is kept in a file outside the
// store, so that a copy of the store is not enough to test guesses. A Pepper comes from
// [LoadPepper] or [CreatePepper]; the zero value panics. It is safe for concurrent use.
//
// Printing a Pepper shows its fingerprint at most: the keys are in pools and functions, which fmt
// does not look into.
type Pepper struct {
	fingerprint string
	secrets     *keyed
	tokens      *keyed
	codes       *keyed
	pseudonyms  *keyed
	sealing     func() cipher.AEAD
	links       func() []byte
}

// LoadPepper reads the pepper from a file: one line of 64 hexadecimal digits. The file must be
// regular, belong to root or the effective user, and be readable by its owner only; for a symbolic
// link that applies to the target. Without a file the error satisfies errors.Is(err,
// fs.ErrNotExist).
func LoadPepper(path string) (*Pepper, error) {
	// Without O_NONBLOCK a FIFO of that name would block the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("loading the pepper: %w; restore it from the backup: without it no secure password works", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("loading the pepper: %w; make uid %d its owner", err, os.Geteuid())
	case err != nil:
		return nil, fmt.Errorf("loading the pepper: %w", err)
	}
	defer func() { _ = f.Close() }() // only read from

	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("loading the pepper: %w", err)
	}
	owner := -1
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = int(sys.Uid)
	}
	if err := checkPepperFile(info.Mode(), owner, os.Geteuid()); err != nil {
		return nil, fmt.Errorf("loading the pepper %s: %w", path, err)
	}

	var text [2*pepperLen + 2]byte // room for the newline, and for one byte too many
	defer clear(text[:])
	n, err := io.ReadFull(f, text[:])
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, fmt.Errorf("loading the pepper %s: %w", path, err)
	}
	p, err := parsePepper(text[:n])
	if err != nil {
		return nil, fmt.Errorf("loading the pepper %s: %w", path, err)
	}
	return p, nil
}

// checkPepperFile returns all faults of the file's type, mode and owner, joined.
func checkPepperFile(mode fs.FileMode, owner, euid int) error {
	if !mode.IsRegular() {
		return fmt.Errorf("not a regular file (%v): name the file that holds the pepper", mode.Type())
	}
	var faults []error
	if mode.Perm()&0o077 != 0 {
		faults = append(faults, fmt.Errorf("mode %04o lets other users read it: run chmod 0600", mode.Perm()))
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

// CreatePepper generates a random pepper and writes it to a file of mode 0600. It returns once file
// and directory are on disk. It never overwrites: if the name is taken, the error satisfies
// errors.Is(err, fs.ErrExist). A crash leaves either the whole file or none.
func CreatePepper(path string) (*Pepper, error) {
	var key [pepperLen]byte
	defer clear(key[:])
	if _, err := io.ReadFull(rand.Reader, key[:]); err != nil {
		return nil, fmt.Errorf("creating the pepper %s: %w", path, err)
	}
	text := append(hex.AppendEncode(nil, key[:]), '\n')
	defer clear(text)
	if err := writeOnce(path, text); err != nil {
		return nil, fmt.Errorf("creating the pepper: %w", err)
	}
	return newPepper(key[:]), nil
}

// writeOnce creates a file durably. A link, unlike O_EXCL, leaves no half-written file after a
// crash, and unlike a rename it never replaces a file.
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

// newPepper derives a key for each purpose, so that a value of one purpose is useless for another.
func newPepper(key []byte) *Pepper {
	derive := func(label string) []byte {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(label))
		return mac.Sum(nil)
	}
	links, sealing := derive("drawbridge link 1"), newSealing(derive("drawbridge second factor 1"))
	return &Pepper{
		fingerprint: hex.EncodeToString(derive("drawbridge pepper fingerprint 1")),
		links:       func() []byte { return links },
		secrets:     newKeyed(derive("drawbridge secure password 1")),
		tokens:      newKeyed(derive("drawbridge throttle token 1")),
		codes:       newKeyed(derive("drawbridge one-time code 1")),
		pseudonyms:  newKeyed(derive("drawbridge pseudonym 1")),
		sealing:     func() cipher.AEAD { return sealing },
	}
}

// Fingerprint returns 64 hexadecimal digits that identify the pepper. They may be stored and shown.
func (p *Pepper) Fingerprint() string { return p.fingerprint }

// LinkKey returns the key that links in mail are signed with.
func (p *Pepper) LinkKey() []byte { return p.links() }

// ID returns the first 8 digits of the fingerprint, which are stored with each hash.
func (p *Pepper) ID() string { return p.fingerprint[:8] }

// Hash returns the stored form of a secure password. It depends on the account, so that the same
// secret of two accounts has two hashes. The secret must come from [Normalise]; the account is the
// canonical address.
func (p *Pepper) Hash(account string, normalised []byte) Hash {
	return p.secrets.sum(account, normalised)
}

// Token identifies a pair of account and secret when wrong secrets are counted and remembered.
// Equal pairs have equal tokens; without the pepper a token reveals neither part. Two different
// pairs share a token with a probability of 2^-64: good enough to refuse a secret, and not to
// accept one.
func (p *Pepper) Token(account string, secret []byte) uint64 {
	sum := p.tokens.sum(account, secret)
	return binary.BigEndian.Uint64(sum[:])
}

// Code returns the stored form of a code that opens something of an account once. The name
// distinguishes what for.
func (p *Pepper) Code(account, name, code string) []byte {
	sum := p.codes.sum(account+"\x00"+name, []byte(code))
	return sum[:16]
}

// Pseudonym returns 12 hexadecimal digits that replace a value in a domain's old records. Without the
// pepper they do not reveal the value. Two values share them with a probability of 2^-48.
func (p *Pepper) Pseudonym(domain, value string) string {
	sum := p.pseudonyms.sum(domain, []byte(value))
	return hex.EncodeToString(sum[:6])
}

func newSealing(key []byte) cipher.AEAD {
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err) // keys have 32 bytes
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err) // for ciphers of other block sizes
	}
	return aead
}

// Seal encrypts data that belongs to a name (AES-256-GCM): without the pepper nobody reads it, and
// under another name it cannot be opened.
func (p *Pepper) Seal(name string, data []byte) []byte {
	return p.sealing().Seal(nil, nil, data, []byte(name)) //nolint:gosec // G407: the cipher prefixes a random nonce
}

// Open returns what was sealed under a name.
func (p *Pepper) Open(name string, sealed []byte) ([]byte, error) {
	data, err := p.sealing().Open(nil, nil, sealed, []byte(name))
	if err != nil {
		return nil, fmt.Errorf("opening sealed data of %s: it was altered, or sealed with another pepper", name)
	}
	return data, nil
}

// keyed computes HMAC-SHA-256 of (account, secret) under one key, without allocation. It is safe
// for concurrent use. The pool saves hashing the key each time, which is half of the work.
type keyed struct {
	pool sync.Pool
}

// keyedState is an HMAC with buffers for message and sum, which would otherwise be allocated per
// call.
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
	// The length comes first, so that ("ab", "c") and ("a", "bc") are different messages.
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

// hashText rejects bits beyond the digest, so that each hash has one spelling.
var hashText = base64.RawURLEncoding.Strict()

// Equal reports whether both are the same, in constant time.
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
