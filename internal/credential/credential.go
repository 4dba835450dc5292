// Package credential generates, hashes and verifies the two kinds of secret that open a mailbox:
// secure passwords and mailbox passwords.
//
// # Secure passwords
//
// A secure password is generated for one device and shown once. It has 16 characters of an alphabet
// of 32 without look-alikes (no l, o, 0 and 1): 14 random ones, 70 bits, and a checksum of two. It
// may be typed in capitals and in groups:
//
//	generated        k7fm2xq9hbtz4w3e
//	typed            K7FM-2XQ9-HBTZ-4W3E
//	normalised       k7fm2xq9hbtz4w3e
//
// Seventy random bits cannot be guessed, so no slow hash is needed, only one HMAC-SHA-256 under a
// [Pepper] that is kept in a file and not in the store. A login computes one HMAC, however many
// devices the account has, and a copy of the store opens nothing.
//
// The checksum is the first ten bits of the SHA-256 of the other 14 characters. It distinguishes
// the kinds of secret and protects nothing: one typing error in a thousand passes it, and so does
// one in a thousand of all other 16-character words of the alphabet.
//
// # Mailbox passwords
//
// A mailbox password is chosen by a person, so it is stored as a slow hash, in Dovecot's notation.
// A [Hasher] produces argon2id and verifies these:
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
// each also with the suffix .HEX, .B64 or .BASE64, in upper or lower case. As in Dovecot, the
// prefix of a crypt(3) string decides, whichever of the crypt schemes is named. All except argon2id
// of at least today's cost are reported as outdated when they match, so that a login can replace
// them; so are those that cost more than [CheckStored] accepts.
//
// # Diagnostics
//
// A stored hash is parsed and its cost compared with limits before anything is computed: thirty
// characters can demand hours of work and gigabytes of memory. Errors name the scheme and what to
// do; they never contain a secret, a salt or a digest. A password that is empty, has more than 512
// bytes or contains NUL matches no hash.
//
// # Limits
//
// The package does not judge the strength of passwords, keeps no history and stores nothing. It
// does not prepare Unicode (SASLprep, NFC): like Dovecot, it compares bytes. In a domain with
// hashes of several costs, accounts whose cost is not the most common one take another time than
// unknown accounts do.
package credential
