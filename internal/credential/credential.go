// Package credential makes, hashes and checks the two kinds of secret that open a mailbox: secure
// passwords and mailbox passwords.
//
// # Secure passwords
//
// A secure password is generated for one device, shown once and never chosen by anyone. It is 16
// characters of an alphabet of 32 without look-alikes (no l, o, 0 and 1): 14 random ones, 70 bits,
// and two that carry a checksum. What a person types may be in capitals and in groups:
//
//	generated        k7fm2xq9hbtz4w3e
//	typed            K7FM-2XQ9-HBTZ-4W3E
//	normalised       k7fm2xq9hbtz4w3e
//
// Seventy random bits cannot be guessed, so no slow hash is needed: one HMAC-SHA-256 under a
// [Pepper] that is kept in a file and not in the store. A login costs one HMAC, however many
// devices the account has, and a copy of the store opens nothing.
//
// The checksum is the first ten bits of the SHA-256 of the other fourteen characters. One slip of
// the finger in a thousand goes unnoticed, and one in a thousand of the 16-character words of this
// alphabet that were not generated looks as if it were. It is there to tell the kinds of secret
// apart, and protects nothing.
//
// # Mailbox passwords
//
// A mailbox password is chosen by a person, so it is kept as a slow hash, in Dovecot's notation. A
// [Hasher] makes argon2id and verifies what sites have:
//
//	{ARGON2ID} {ARGON2I}          $argon2id$v=19$m=19456,t=2,p=1$…
//	{BLF-CRYPT}                   $2a$ $2b$ $2y$
//	{SHA512-CRYPT} {SHA256-CRYPT} $6$ $5$
//	{MD5-CRYPT} {MD5}             $1$
//	{CRYPT}                       all of the four lines above, and yescrypt, $y$
//	{PBKDF2}                      $1$salt$rounds$hex
//	{SCRAM-SHA-256} {SCRAM-SHA-1} iterations,salt,stored key,server key
//	{SSHA512} {SSHA256} {SSHA}    base64 of digest and salt
//	{SHA512} {SHA256} {SHA}       base64 or hexadecimal
//
// each also with the suffix .HEX, .B64 or .BASE64, and in any case of letters. As in Dovecot, the
// prefix of a crypt(3) string counts, and not which of the crypt schemes names it. All but argon2id
// of at least today's cost are reported as outdated when they match, so that a login can replace
// them; so are those that cost more than [CheckStored] accepts.
//
// # Diagnostics
//
// A stored hash is parsed, and its cost held against the limits of this package, before anything is
// computed: a hash can ask for hours of work and gigabytes in thirty characters. Errors name the
// scheme and what to do about it; they never hold a secret, a salt or a digest. A password that no
// hash can have (empty, more than 512 bytes, with a NUL in it) matches nothing.
//
// # What it does not do
//
// It judges no strength, remembers no history and stores nothing. It does not prepare Unicode
// (SASLprep, NFC): like Dovecot, it compares bytes. In a domain with hashes of several costs,
// accounts whose cost is not the most common one take another time than unknown accounts do.
package credential
