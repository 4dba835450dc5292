package credential

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
)

const (
	// SecretLen is the number of characters of a secure password.
	SecretLen = 16

	// secretRandom of them are random; the others are the checksum.
	secretRandom = SecretLen - 2

	// maxTyped is the longest input in bytes that is looked at, spaces and dashes included.
	maxTyped = 4 * SecretLen

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

// checksum is the last two characters for the given others.
func checksum(random []byte) [SecretLen - secretRandom]byte {
	sum := sha256.Sum256(random)
	return [...]byte{alphabet[sum[0]>>3], alphabet[sum[0]&7<<2|sum[1]>>6]}
}

// Normalise drops spaces and dashes, folds the case, and reports whether the rest has the shape of
// a secure password: 16 characters of the alphabet with the right checksum. If it has not, the
// result is nil. A secret in normal form is returned as it is, sharing its memory; else the result
// is a copy to be wiped as well. More than 64 bytes are never looked at.
func Normalise(secret []byte) ([]byte, bool) {
	if len(secret) < SecretLen || len(secret) > maxTyped {
		return nil, false
	}
	var normal [SecretLen]byte
	defer clear(normal[:])
	n := 0
	for _, c := range secret {
		if c == ' ' || c == '-' {
			continue
		}
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if n == SecretLen || !inAlphabet(c) {
			return nil, false
		}
		normal[n] = c
		n++
	}
	if n != SecretLen || checksum(normal[:secretRandom]) != [2]byte(normal[secretRandom:]) {
		return nil, false
	}
	if bytes.Equal(secret, normal[:]) {
		return secret, true
	}
	return bytes.Clone(normal[:]), true
}

func inAlphabet(c byte) bool {
	return 'a' <= c && c <= 'z' && c != 'l' && c != 'o' || '2' <= c && c <= '9'
}
