package credential

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"unicode"
	"unicode/utf8"
)

const (
	// SecretLen is the number of characters of a secure password.
	SecretLen = 16

	// secretRandom of them are random; the others are the checksum.
	secretRandom = SecretLen - 2

	// maxTyped is the longest input in bytes that is looked at, spaces and dashes included.
	maxTyped = 16 * SecretLen

	// alphabet has 32 characters, so that five random bits make one without bias.
	alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
)

// Generate makes a secure password of [SecretLen] characters. It is the caller's to wipe. An error
// means that the system has no randomness to give.
func Generate() ([]byte, error) {
	secret := make([]byte, secretRandom, SecretLen)
	if _, err := io.ReadFull(rand.Reader, secret); err != nil {
		return nil, fmt.Errorf("generate secure password: %w", err)
	}
	for i, b := range secret {
		secret[i] = alphabet[b%32]
	}
	sum := checksum(secret)
	return append(secret, sum[:]...), nil
}

// GeneratePassword returns a new mailbox password of 4 groups of 5 letters and digits, 100 random
// bits. It is not in the shape of a secure password.
func GeneratePassword() ([]byte, error) {
	const groups, group = 4, 5
	random := make([]byte, groups*group)
	if _, err := io.ReadFull(rand.Reader, random); err != nil {
		return nil, fmt.Errorf("generating a mailbox password: %w", err)
	}
	password := make([]byte, 0, groups*(group+1))
	for i, b := range random {
		if i > 0 && i%group == 0 {
			password = append(password, '-')
		}
		password = append(password, alphabet[b%32])
	}
	return password, nil
}

// checksum is the last two characters for the given others.
func checksum(random []byte) [SecretLen - secretRandom]byte {
	sum := sha256.Sum256(random)
	return [...]byte{alphabet[sum[0]>>3], alphabet[sum[0]&7<<2|sum[1]>>6]}
}

// Normalise drops spaces, dashes and invisible characters, folds the case, and reports whether the
// rest is a secure password: 16 characters of the alphabet with the right checksum. If not, the
// result is nil. A secret in normal form is returned as it is, sharing its memory; else the result
// is a copy to be wiped as well. More than 256 bytes are never read.
//
// Programs that secrets are pasted from put a no-break space for a space, another dash for a
// hyphen, invisible characters between, or full-width letters: all of these are read.
func Normalise(secret []byte) ([]byte, bool) {
	var normal [SecretLen]byte
	defer clear(normal[:])
	if !letters(secret, &normal) || checksum(normal[:secretRandom]) != [2]byte(normal[secretRandom:]) {
		return nil, false
	}
	if bytes.Equal(secret, normal[:]) {
		return secret, true
	}
	return bytes.Clone(normal[:]), true
}

// Shaped reports whether a secret looks like a secure password, mistyped perhaps: [SecretLen]
// letters and digits of any alphabet, and nothing else but what [Normalise] drops; the checksum may
// be wrong if they stand in four groups of four.
func Shaped(secret []byte) bool {
	var normal [SecretLen]byte
	defer clear(normal[:])
	return letters(secret, &normal) && (checksum(normal[:secretRandom]) == [2]byte(normal[secretRandom:]) || grouped(secret))
}

// letters writes the characters of a secret that count to normal, and reports whether they are
// [SecretLen] of the alphabet.
func letters(secret []byte, normal *[SecretLen]byte) bool {
	if len(secret) < SecretLen || len(secret) > maxTyped {
		return false
	}
	n := 0
	for i := 0; i < len(secret); {
		c, size := secret[i], 1
		if c >= utf8.RuneSelf {
			c, size = fold(secret[i:])
		} else {
			c = ascii[c]
		}
		i += size
		switch {
		case c == separator:
			continue
		case c == 0 || n == SecretLen:
			return false
		}
		normal[n] = c
		n++
	}
	return n == SecretLen
}

// separates reports whether a character only separates others: spaces, dashes, and what cannot be
// seen.
func separates(r rune) bool {
	if r < utf8.RuneSelf {
		return r == ' ' || r == '-'
	}
	return unicode.In(r, unicode.Zs, unicode.Pd, unicode.Cf) || r == '\u2212' || r == '\u00ad'
}

// grouped reports whether separators divide a secret into four groups of four.
func grouped(secret []byte) bool {
	groups := bytes.FieldsFunc(secret, separates)
	if len(groups) != 4 {
		return false
	}
	for _, g := range groups {
		if utf8.RuneCount(g) != 4 {
			return false
		}
	}
	return true
}

// separator stands for characters that only separate others.
const separator = '-'

// ascii maps each ASCII character to its letter or digit of the alphabet, to [separator], or to 0.
var ascii = func() (table [utf8.RuneSelf]byte) {
	for _, c := range []byte(alphabet) {
		table[c] = c
		if 'a' <= c && c <= 'z' {
			table[c-'a'+'A'] = c
		}
	}
	table[' '], table['-'] = separator, separator
	return table
}()

// fold is the table [ascii] for the first character of a text that is not ASCII, and its length.
func fold(text []byte) (c byte, size int) {
	r, size := utf8.DecodeRune(text)
	switch {
	case r == utf8.RuneError && size == 1:
		return 0, size
	case separates(r):
		return separator, size
	case 0xff01 <= r && r <= 0xff5e: // full-width forms
		return ascii[r-0xff01+'!'], size
	}
	return 0, size
}
