package credential

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // G505: {SSHA} and {PBKDF2} are what sites have; none is ever made here
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"

	"github.com/go-crypt/x/crypt"
	"github.com/go-crypt/x/pbkdf2"
	"github.com/go-crypt/x/yescrypt"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// The limits of the cost of any stored hash: about a second of one processor each, and three
// seconds where the longest password takes longest.
const (
	maxStored      = 512       // characters of a stored hash
	maxMemory      = 256 << 20 // bytes; libsodium's "moderate"
	maxArgon2Time  = 64        // passes over the memory
	maxArgon2Work  = 1 << 20   // KiB times passes: 256 MiB four times
	maxArgon2Lanes = 16
	maxBcryptCost  = 14
	maxCryptRounds = 1_000_000 // of SHA-crypt
	maxIterations  = 2_000_000 // of PBKDF2 and SCRAM
)

// The limits for imports: at most about eight times the cost of a hash made here, so that a few
// wrong passwords cannot keep all processors busy. Hashes that were stored before are still
// verified, and replaced when they match.
const (
	importArgon2Work  = 192 << 10 // KiB times passes: Dovecot's default, 64 MiB three times
	importBcryptCost  = 12
	importCryptRounds = 200_000
	importIterations  = 600_000
	importYescrypt    = 1 << 19 // N times r: four times libxcrypt's default
)

// above returns an error if a cost is above the limit for imports.
func above(name string, n, limit int) error {
	if n <= limit {
		return nil
	}
	return fmt.Errorf("%s=%d costs too much to verify: import a hash with %s of at most %d, or set a new password", name, n, name, limit)
}

// cost is the cost of verifying a hash, known in advance.
type cost struct {
	scheme  string
	memory  int64 // bytes, when it is more than a few
	threads int   // processors at once; zero is one
	rounds  int   // in the scheme's own unit; zero is a single digest
}

// storedHash is a parsed stored hash within the limits.
type storedHash struct {
	cost     cost
	excess   error // above the limit for imports
	outdated bool
	match    func(password []byte) bool // requires a usable password
}

// parse reads a stored hash in Dovecot's notation: {SCHEME} or {SCHEME.ENCODING}, and the value.
func parse(stored string) (storedHash, error) {
	if len(stored) > maxStored {
		return storedHash{}, fmt.Errorf("stored hash: %d characters, at most %d are read", len(stored), maxStored)
	}
	name, value, ok := strings.Cut(strings.TrimPrefix(stored, "{"), "}")
	if !ok || !strings.HasPrefix(stored, "{") {
		return storedHash{}, errors.New("stored hash: no {SCHEME} in front: put {CRYPT} before a crypt(3) string, " +
			"or the scheme that made it")
	}
	if !printableName(name) {
		return storedHash{}, errors.New("stored hash: the braces do not contain a scheme")
	}
	name = strings.ToUpper(name)
	scheme, suffix, _ := strings.Cut(name, ".")
	s, err := parseScheme(scheme, suffix, value)
	if err != nil {
		return storedHash{}, fmt.Errorf("stored hash {%s}: %w", name, err)
	}
	if s.excess != nil {
		s.excess, s.outdated = fmt.Errorf("stored hash {%s}: %w", name, s.excess), true
	}
	return s, nil
}

// printableName reports whether an error may quote a scheme's name.
func printableName(name string) bool {
	for _, c := range []byte(name) {
		if (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') && c != '-' && c != '.' {
			return false
		}
	}
	return name != "" && len(name) <= 24
}

func parseScheme(scheme, suffix, value string) (storedHash, error) {
	switch scheme {
	case "ARGON2ID", "ARGON2I":
		return parseText(suffix, value, parseArgon2)
	case "CRYPT", "BLF-CRYPT", "SHA512-CRYPT", "SHA256-CRYPT", "MD5-CRYPT", "MD5":
		return parseText(suffix, value, parseCrypt)
	case "PBKDF2":
		return parseText(suffix, value, parsePBKDF2)
	case "SCRAM-SHA-256":
		return parseText(suffix, value, func(value string) (storedHash, error) { return parseSCRAM("scram-sha-256", sha256.New, value) })
	case "SCRAM-SHA-1":
		return parseText(suffix, value, func(value string) (storedHash, error) { return parseSCRAM("scram-sha-1", sha1.New, value) })
	case "SSHA512":
		return parseDigest(sha512.New, true, suffix, value)
	case "SSHA256":
		return parseDigest(sha256.New, true, suffix, value)
	case "SSHA":
		return parseDigest(sha1.New, true, suffix, value)
	case "SHA512":
		return parseDigest(sha512.New, false, suffix, value)
	case "SHA256":
		return parseDigest(sha256.New, false, suffix, value)
	case "SHA", "SHA1":
		return parseDigest(sha1.New, false, suffix, value)
	case "PLAIN", "CLEAR", "CLEARTEXT", "PLAIN-TRUNC", "OTP", "RPA":
		return storedHash{}, errors.New("passwords are not kept in clear: set the password itself, or hash it with 'doveadm pw -s ARGON2ID'")
	default:
		return storedHash{}, errors.New("scheme is not supported: set a new password, or import an ARGON2ID, BLF-CRYPT or SHA512-CRYPT hash")
	}
}

// parseText removes the encoding that Dovecot allows around schemes whose value is text.
func parseText(suffix, value string, parse func(string) (storedHash, error)) (storedHash, error) {
	if suffix == "" {
		return parse(value)
	}
	raw, err := decode(suffix, value)
	if err != nil {
		return storedHash{}, err
	}
	return parse(string(raw))
}

func decode(encoding, value string) ([]byte, error) {
	var raw []byte
	var err error
	switch encoding {
	case "HEX":
		raw, err = hex.DecodeString(value)
	case "B64", "BASE64":
		raw, err = unbase64(base64.StdEncoding, value)
	default:
		return nil, errors.New("unknown encoding: the suffix is .HEX, .B64 or .BASE64")
	}
	if err != nil {
		return nil, fmt.Errorf("value is not in the encoding %s: import it as it was made", encoding) // err would quote it
	}
	return raw, nil
}

// unbase64 decodes base64 strictly: only the spelling that an encoder produces.
func unbase64(enc *base64.Encoding, value string) ([]byte, error) {
	raw, err := enc.Strict().DecodeString(value)
	if err == nil && len(value) != enc.EncodedLen(len(raw)) { // the decoder skips line breaks
		err = errors.New("line break in base64")
	}
	return raw, err
}

// parseDigest reads a plain digest, followed by its salt if it is salted.
func parseDigest(newHash func() hash.Hash, salted bool, encoding, value string) (storedHash, error) {
	size := newHash().Size()
	if encoding == "" {
		encoding = "BASE64"
		if !salted && len(value) == hex.EncodedLen(size) {
			encoding = "HEX" // Dovecot distinguishes them by the length, too
		}
	}
	raw, err := decode(encoding, value)
	if err != nil {
		return storedHash{}, err
	}
	if len(raw) < size || salted == (len(raw) == size) {
		return storedHash{}, fmt.Errorf("%d bytes where a digest has %d: import it as it was made", len(raw), size)
	}
	digest, salt := raw[:size], raw[size:]
	return storedHash{outdated: true, match: func(password []byte) bool {
		h := newHash()
		h.Write(password)
		h.Write(salt)
		return equal(h.Sum(nil), digest)
	}}, nil
}

// parsePBKDF2 reads Dovecot's own form, $1$salt$rounds$hex: HMAC-SHA-1 over the salt as it is
// written.
func parsePBKDF2(value string) (storedHash, error) {
	f := strings.Split(value, "$")
	if len(f) != 5 || f[0] != "" || f[1] != "1" || f[2] == "" {
		return storedHash{}, errors.New("not of the form $1$salt$rounds$hex")
	}
	rounds, err := number("rounds", f[3], 1, maxIterations)
	if err != nil {
		return storedHash{}, err
	}
	key, err := hex.DecodeString(f[4])
	if err != nil || len(key) != sha1.Size {
		return storedHash{}, errors.New("key is not of 40 hexadecimal digits")
	}
	salt := []byte(f[2])
	return storedHash{cost: cost{scheme: "pbkdf2", rounds: rounds}, excess: above("rounds", rounds, importIterations), outdated: true, match: func(password []byte) bool {
		return equal(pbkdf2.Key(password, salt, rounds, sha1.Size, sha1.New), key)
	}}, nil
}

// parseSCRAM reads iterations,salt,StoredKey,ServerKey; the names are those of RFC 5802, section 3.
func parseSCRAM(scheme string, newHash func() hash.Hash, value string) (storedHash, error) {
	f := strings.Split(value, ",")
	if len(f) != 4 {
		return storedHash{}, errors.New("not of the form iterations,salt,stored key,server key")
	}
	size := newHash().Size()
	iterations, err := number("iterations", f[0], 1, maxIterations)
	if err != nil {
		return storedHash{}, err
	}
	salt, errSalt := unbase64(base64.StdEncoding, f[1])
	storedKey, errStored := unbase64(base64.StdEncoding, f[2])
	serverKey, errServer := unbase64(base64.StdEncoding, f[3])
	if errSalt != nil || errStored != nil || errServer != nil ||
		len(salt) == 0 || len(storedKey) != size || len(serverKey) != size {
		return storedHash{}, fmt.Errorf("salt or keys are not base64, or the keys not of %d bytes", size)
	}
	return storedHash{cost: cost{scheme: scheme, rounds: iterations}, excess: above("iterations", iterations, importIterations), outdated: true, match: func(password []byte) bool {
		salted := pbkdf2.Key(password, salt, iterations, size, newHash)
		defer clear(salted)
		mac := hmac.New(newHash, salted)
		mac.Write([]byte("Client Key"))
		clientKey := mac.Sum(nil)
		defer clear(clientKey)
		h := newHash()
		h.Write(clientKey)
		return equal(h.Sum(nil), storedKey)
	}}, nil
}

// parseCrypt reads a crypt(3) string; its prefix names the algorithm.
func parseCrypt(value string) (storedHash, error) {
	f := strings.Split(value, "$")
	if len(f) < 4 || f[0] != "" {
		return storedHash{}, errors.New("not a crypt(3) string that starts with $1$, $2y$, $5$, $6$ or $y$; traditional DES is not supported: set a new password")
	}
	switch id, f := f[1], f[2:]; id {
	case "1":
		return parseMD5Crypt(f)
	case "2a", "2b", "2y":
		return parseBcrypt(value, f)
	case "5":
		return parseSHACrypt("sha256-crypt", sha256.New, 43, f)
	case "6":
		return parseSHACrypt("sha512-crypt", sha512.New, 86, f)
	case "y":
		return parseYescrypt(value, f)
	default:
		return storedHash{}, errors.New("crypt(3) algorithm is not supported, only $1$, $2a$, $2b$, $2y$, $5$, $6$ and $y$ are: set a new password")
	}
}

// parseMD5Crypt reads salt and key.
func parseMD5Crypt(f []string) (storedHash, error) {
	if len(f) != 2 || len(f[0]) > 8 || !cryptText(f[1], 22) {
		return storedHash{}, errors.New("not of the form $1$salt$key with a salt of up to 8 characters and a key of 22")
	}
	salt, key := []byte(f[0]), []byte(f[1])
	return storedHash{cost: cost{scheme: "md5-crypt", rounds: 1000}, outdated: true, match: func(password []byte) bool {
		return equal(crypt.KeyMD5Crypt(password, salt), key)
	}}, nil
}

// parseSHACrypt reads salt and key, with rounds= before them unless it is the default of 5000.
func parseSHACrypt(scheme string, newHash func() hash.Hash, keyLen int, f []string) (storedHash, error) {
	rounds := 5000
	if len(f) == 3 {
		text, ok := strings.CutPrefix(f[0], "rounds=")
		if !ok {
			return storedHash{}, errors.New("not of the form $id$rounds=N$salt$key")
		}
		var err error
		if rounds, err = number("rounds", text, 1000, maxCryptRounds); err != nil {
			return storedHash{}, err
		}
		f = f[1:]
	}
	if len(f) != 2 || len(f[0]) > 16 || !cryptText(f[1], keyLen) {
		return storedHash{}, fmt.Errorf("not of the form $id$salt$key with a salt of up to 16 characters and a key of %d", keyLen)
	}
	salt, key := []byte(f[0]), []byte(f[1])
	return storedHash{cost: cost{scheme: scheme, rounds: rounds}, excess: above("rounds", rounds, importCryptRounds), outdated: true, match: func(password []byte) bool {
		return equal(crypt.KeySHACrypt(newHash, password, salt, rounds), key)
	}}, nil
}

// parseBcrypt reads the cost, and salt and key as one text.
func parseBcrypt(value string, f []string) (storedHash, error) {
	const maxPassword = 72 // bytes that bcrypt uses
	if len(f) != 2 || len(f[0]) != 2 || !cryptText(f[1], 53) {
		return storedHash{}, errors.New("not of the form $2y$NN$ followed by 53 characters")
	}
	n, err := number("cost", strings.TrimPrefix(f[0], "0"), bcrypt.MinCost, maxBcryptCost)
	if err != nil {
		return storedHash{}, err
	}
	key := []byte(value)
	return storedHash{cost: cost{scheme: "bcrypt", rounds: 1 << n}, excess: above("cost", n, importBcryptCost), outdated: true, match: func(password []byte) bool {
		// The package truncates silently: a longer password must not match by its beginning, nor be
		// recognisable by a quicker answer.
		looked := password[:min(len(password), maxPassword)]
		return bcrypt.CompareHashAndPassword(key, looked) == nil && len(password) <= maxPassword
	}}, nil
}

// parseYescrypt reads parameters, salt and key of the flavour that libxcrypt produces: "j", p=1,
// t=0.
func parseYescrypt(value string, f []string) (storedHash, error) {
	const digits = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	if len(f) != 3 || len(f[0]) != 3 || f[0][0] != 'j' || !cryptText(f[1], len(f[1])) || !cryptText(f[2], 43) {
		return storedHash{}, errors.New("not of the form $y$jNR$salt$key that libxcrypt makes")
	}
	if salt := yescrypt.Decode64([]byte(f[1])); salt == nil || len(salt) > 64 {
		return storedHash{}, errors.New("the salt is not base64 of up to 64 bytes")
	}
	log2N, r := strings.IndexByte(digits, f[0][1])+1, strings.IndexByte(digits, f[0][2])+1
	// The package itself supports 10 to 18 and 1 to 32.
	if log2N < 10 || log2N > 18 || r < 1 || r > 32 || 128*r<<log2N > maxMemory {
		return storedHash{}, fmt.Errorf("N=2^%d and r=%d are out of bounds (2^10 to 2^18, 1 to 32, at most %d MiB in all): set a new password",
			log2N, r, maxMemory>>20)
	}
	key := []byte(value)
	return storedHash{cost: cost{scheme: "yescrypt", rounds: r << log2N, memory: int64(128*r) << log2N}, excess: above("N*r", r<<log2N, importYescrypt), outdated: true, match: func(password []byte) bool {
		computed, err := yescrypt.Hash(password, key) // parameters and salt are read from the hash
		return err == nil && equal(computed, key)
	}}, nil
}

// cryptText reports whether s has n characters, all of crypt(3)'s base 64.
func cryptText(s string, n int) bool {
	for _, c := range []byte(s) {
		if (c < '.' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return len(s) == n
}

// The cost of new hashes: the first recommendation of OWASP's Password Storage Cheat Sheet.
const (
	argon2Memory = 19 << 10 // KiB
	argon2Time   = 2
	argon2Salt   = 16 // bytes
	argon2Key    = 32 // bytes
)

const (
	argon2id = "argon2id"
	argon2i  = "argon2i"
)

// argon2Hash is one hash of the argon2 family, version 1.3.
type argon2Hash struct {
	variant   string
	memory    uint32 // KiB
	time      uint32
	threads   uint8
	salt, key []byte
}

// newArgon2 returns a hash of today's cost with zero salt and key.
func newArgon2() argon2Hash {
	return argon2Hash{
		variant: argon2id, memory: argon2Memory, time: argon2Time, threads: 1,
		salt: make([]byte, argon2Salt), key: make([]byte, argon2Key),
	}
}

func parseArgon2(value string) (storedHash, error) {
	a, err := argon2Text(value)
	if err != nil {
		return storedHash{}, err
	}
	return storedHash{cost: a.cost(), excess: above("m*t", int(a.memory)*int(a.time), importArgon2Work), outdated: a.outdated(), match: a.match}, nil
}

// argon2Text parses the form of the reference implementation and of libsodium:
// $argon2id$v=19$m=…,t=…,p=…$salt$key.
func argon2Text(value string) (argon2Hash, error) {
	const form = "not of the form $argon2id$v=19$m=…,t=…,p=…$salt$key"
	f := strings.Split(value, "$")
	if len(f) != 6 || f[0] != "" || f[1] != argon2id && f[1] != argon2i {
		return argon2Hash{}, errors.New(form)
	}
	if f[2] != "v=19" {
		return argon2Hash{}, errors.New("only version 1.3 (v=19) is supported: set a new password")
	}
	params := strings.Split(f[3], ",")
	if len(params) != 3 {
		return argon2Hash{}, errors.New(form)
	}
	m, errM := argon2Param(params[0], "m=", maxMemory>>10)
	t, errT := argon2Param(params[1], "t=", maxArgon2Time)
	p, errP := argon2Param(params[2], "p=", maxArgon2Lanes)
	if err := errors.Join(errM, errT, errP); err != nil {
		return argon2Hash{}, err
	}
	if m < 8*p || m*t > maxArgon2Work {
		return argon2Hash{}, fmt.Errorf("m=%d,t=%d,p=%d is out of bounds (m at least 8p, m times t at most %d): set a new password",
			m, t, p, maxArgon2Work)
	}
	salt, errSalt := unbase64(base64.RawStdEncoding, f[4])
	key, errKey := unbase64(base64.RawStdEncoding, f[5])
	if errSalt != nil || errKey != nil || len(salt) < 8 || len(salt) > 64 || len(key) < 16 || len(key) > 64 {
		return argon2Hash{}, errors.New("salt or key is not unpadded base64 of 8 to 64 and 16 to 64 bytes")
	}
	return argon2Hash{
		variant: f[1], memory: uint32(m), time: uint32(t), threads: uint8(p), //nolint:gosec // G115: bounded above
		salt: salt, key: key,
	}, nil
}

func argon2Param(field, name string, most int) (int, error) {
	text, ok := strings.CutPrefix(field, name)
	if !ok {
		return 0, fmt.Errorf("parameter %s is missing or out of order", name)
	}
	return number(strings.TrimSuffix(name, "="), text, 1, most)
}

func (a argon2Hash) String() string {
	return fmt.Sprintf("$%s$v=%d$m=%d,t=%d,p=%d$%s$%s", a.variant, argon2.Version, a.memory, a.time, a.threads,
		base64.RawStdEncoding.EncodeToString(a.salt), base64.RawStdEncoding.EncodeToString(a.key))
}

func (a argon2Hash) cost() cost {
	return cost{scheme: a.variant, memory: int64(a.memory) << 10, threads: int(a.threads), rounds: int(a.memory) * int(a.time)}
}

// outdated reports whether a hash of today's cost would be stronger.
func (a argon2Hash) outdated() bool {
	return a.variant != argon2id || a.memory < argon2Memory || a.memory*a.time < argon2Memory*argon2Time ||
		len(a.salt) < argon2Salt || len(a.key) < argon2Key
}

func (a argon2Hash) match(password []byte) bool { return equal(a.derive(password), a.key) }

// derive computes the key of a password, as long as the present one.
func (a argon2Hash) derive(password []byte) []byte {
	keyLen := uint32(len(a.key)) //nolint:gosec // G115: at most 64
	if a.variant == argon2i {
		return argon2.Key(password, a.salt, a.time, a.memory, a.threads, keyLen)
	}
	return argon2.IDKey(password, a.salt, a.time, a.memory, a.threads, keyLen)
}

// number parses a decimal number without sign or leading zeros.
func number(name, text string, least, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || strconv.Itoa(n) != text {
		return 0, fmt.Errorf("%s is not a number or too large", name)
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%s=%d is out of bounds (%d to %d): set a new password", name, n, least, most)
	}
	return n, nil
}

// equal compares in constant time and wipes the computed key.
func equal(computed, stored []byte) bool {
	defer clear(computed)
	return subtle.ConstantTimeCompare(computed, stored) == 1
}
