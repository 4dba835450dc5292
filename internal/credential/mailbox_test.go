package credential

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

const testPassword = "secret p\u00e4ssword"

// doveadm runs "doveadm pw", without the machine's own configuration, and returns what it prints.
func doveadm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("doveadm")
	if err != nil {
		t.Fatalf("%v: apt-get install dovecot-core", err)
	}
	version, err := exec.CommandContext(t.Context(), "/usr/sbin/dovecot", "--version").Output()
	if err != nil {
		t.Fatalf("dovecot --version: %v", err)
	}
	conf := "/dev/null"
	if !strings.HasPrefix(string(version), "2.3.") { // later ones need to be told their version
		conf = filepath.Join(t.TempDir(), "dovecot.conf")
		if err := os.WriteFile(conf, []byte("dovecot_config_version = 2.4.1\ndovecot_storage_version = 2.4.1\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), path, append([]string{"-c", conf, "pw"}, args...)...)
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
}

// dovecotHash lets Dovecot hash the password.
func dovecotHash(t *testing.T, password string, args ...string) string {
	t.Helper()
	out, err := doveadm(t, append(args, "-p", password)...)
	if err != nil {
		t.Fatalf("doveadm pw %v: %v", args, err)
	}
	return out
}

func TestVerifyWhatDovecotMakes(t *testing.T) {
	schemes := strings.Fields(`
		ARGON2ID ARGON2I BLF-CRYPT SHA512-CRYPT SHA256-CRYPT MD5-CRYPT MD5 CRYPT
		PBKDF2 SCRAM-SHA-256 SCRAM-SHA-1
		SSHA512 SSHA256 SSHA SHA512 SHA256 SHA SHA1
		SSHA512.HEX SSHA512.B64 SSHA256.HEX SSHA256.B64 SSHA.HEX SSHA.B64
		SHA512.HEX SHA512.B64 SHA256.HEX SHA256.B64 SHA.HEX SHA.BASE64
		BLF-CRYPT.B64 SHA512-CRYPT.B64 SHA512-CRYPT.HEX CRYPT.HEX PBKDF2.B64 PBKDF2.HEX SCRAM-SHA-256.B64`)
	h := NewHasher(0)
	for _, scheme := range schemes {
		t.Run(scheme, func(t *testing.T) {
			stored := dovecotHash(t, testPassword, "-s", scheme)
			// Dovecot's argon2id has 64 MiB and three passes.
			checkVerifies(t, h, stored, testPassword, scheme != "ARGON2ID")
		})
	}
}

// checkVerifies checks that the stored hash is of this password and no other.
func checkVerifies(t *testing.T, h *Hasher, stored, password string, wantOutdated bool) {
	t.Helper()
	if err := CheckStored(stored); err != nil {
		t.Fatalf("CheckStored(%q): %v", stored, err)
	}
	ok, outdated, err := h.Verify(t.Context(), stored, []byte(password))
	if err != nil || !ok {
		t.Fatalf("right password for %q: %v, %v", stored, ok, err)
	}
	if outdated != wantOutdated {
		t.Errorf("outdated %v for %q", outdated, stored)
	}
	for _, wrong := range []string{password + "x", password[:len(password)-1], ""} {
		if ok, outdated, err := h.Verify(t.Context(), stored, []byte(wrong)); ok || outdated || err != nil {
			t.Errorf("password %q for %q: %v, %v, %v", wrong, stored, ok, outdated, err)
		}
	}
}

func TestVerifyCosts(t *testing.T) {
	h := NewHasher(0)
	for _, c := range []struct{ scheme, rounds, in string }{
		{"BLF-CRYPT", "4", "$2y$04$"},
		{"SHA512-CRYPT", "1000", "$rounds=1000$"},
		{"SHA256-CRYPT", "7777", "$rounds=7777$"},
		{"PBKDF2", "1", "$1$"},
		{"SCRAM-SHA-256", "9999", ""},
	} {
		stored := dovecotHash(t, testPassword, "-s", c.scheme, "-r", c.rounds)
		if !strings.Contains(stored, c.in) {
			t.Errorf("doveadm -r %s made %q", c.rounds, stored)
		}
		checkVerifies(t, h, stored, testPassword, true)
	}
}

// These were made by libxcrypt 4.4.33 through Perl's crypt; Dovecot must agree with each.
func TestVerifyWhatLibxcryptMakes(t *testing.T) {
	h := NewHasher(0)
	for name, stored := range map[string]string{
		"yescrypt, Debian's cost": "{CRYPT}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$wUFYQF6Iupt2zXCK2MG26r5WdsM2MVbvNYDgVw1BKgC",
		"yescrypt, small":         "{CRYPT}$y$j75$F5Jx5fExrKuPp53xLKQ..1$Qf4vlV7n4SLNdY464tJtJOQ134PkbO89lqo/oNAedrD",
		"bcrypt $2b$":             "{CRYPT}$2b$05$abcdefghijklmnopqrstuuQBlh0THHmCp3Amey7GYnHsp5Vs0MNOm",
		"bcrypt $2a$":             "{CRYPT}$2a$05$abcdefghijklmnopqrstuuQBlh0THHmCp3Amey7GYnHsp5Vs0MNOm",
		"SHA-256, rounds":         "{CRYPT}$5$rounds=1000$saltsalt$j1IzAmdCBffhKWVKoffrZ.dPPdtiysF29ePH9K9Dbx5",
		"SHA-512, empty salt":     "{CRYPT}$6$$FEbLz1norV12CTcfsF73U/aDPJsTJOGJZEJh4cCiUleztKCKLKW.7Y28W0reo6N.BErpZIF6C1KlgDNLtinvx/",
		"MD5, empty salt":         "{CRYPT}$1$$wvmTqWULS8tF/cr8X1vOM.",
		"named otherwise":         "{SHA512-CRYPT}$5$rounds=1000$saltsalt$j1IzAmdCBffhKWVKoffrZ.dPPdtiysF29ePH9K9Dbx5",
		"small letters":           "{sha256-crypt}$5$rounds=1000$saltsalt$j1IzAmdCBffhKWVKoffrZ.dPPdtiysF29ePH9K9Dbx5",
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := doveadm(t, "-t", stored, "-p", testPassword); err != nil {
				t.Fatalf("Dovecot disagrees with the test: %v, %s", err, out)
			}
			checkVerifies(t, h, stored, testPassword, true)
		})
	}
}

func TestHash(t *testing.T) {
	h := NewHasher(0)
	for _, password := range []string{testPassword, "x", strings.Repeat("\u00e4", MaxNewPassword/2)} {
		stored, err := h.Hash(t.Context(), []byte(password))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(stored, "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1$") || len(stored) != 107 {
			t.Errorf("%d characters: %q", len(stored), stored)
		}
		checkVerifies(t, h, stored, password, false)
		if out, err := doveadm(t, "-t", stored, "-p", password); err != nil {
			t.Errorf("Dovecot does not verify %q: %v, %s", stored, err, out)
		}
		if out, err := doveadm(t, "-t", stored, "-p", password+"x"); err == nil {
			t.Errorf("Dovecot verifies another password for %q: %s", stored, out)
		}
		again, err := h.Hash(t.Context(), []byte(password))
		if err != nil {
			t.Fatal(err)
		}
		if again == stored {
			t.Error("hashed twice with one salt")
		}
	}
}

func TestHashRefusesWhatNeverMatches(t *testing.T) {
	for name, password := range map[string]string{
		"empty":    "",
		"NUL":      "abc\x00def",
		"too long": strings.Repeat("x", MaxPassword+1),
	} {
		if stored, err := NewHasher(0).Hash(t.Context(), []byte(password)); err == nil || stored != "" {
			t.Errorf("%s: %q, %v", name, stored, err)
		}
	}
}

func TestOutdated(t *testing.T) {
	const tail = "$WX/Pjc73wtw94um2HaMtcQ$pcE7iVRziu2rAuZRbF9vvL0AvKxinzPyFh1Wa74qYvw"
	for params, want := range map[string]bool{
		"$argon2id$v=19$m=19456,t=2,p=1":   false,
		"$argon2id$v=19$m=65536,t=3,p=1":   false,
		"$argon2id$v=19$m=47104,t=1,p=1":   false, // OWASP's other recommendation
		"$argon2id$v=19$m=19456,t=2,p=4":   false,
		"$argon2id$v=19$m=19456,t=1,p=1":   true,
		"$argon2id$v=19$m=8192,t=64,p=1":   true,
		"$argon2i$v=19$m=65536,t=3,p=1":    true,
		"$argon2id$v=19$m=262144,t=4,p=16": true, // above the limit for imports
	} {
		s, err := parse("{ARGON2ID}" + params + tail)
		if err != nil {
			t.Errorf("%s: %v", params, err)
		}
		if s.outdated != want {
			t.Errorf("%s: outdated %v", params, s.outdated)
		}
	}
}

// bcrypt sees 72 bytes. Dovecot lets in whoever knows those; here the password is the whole
// password.
func TestBcryptBeyond72Bytes(t *testing.T) {
	h := NewHasher(0)
	password := strings.Repeat("x", 72)
	stored := dovecotHash(t, password, "-s", "BLF-CRYPT", "-r", "4")
	checkVerifies(t, h, stored, password, true)
	long := dovecotHash(t, password+"and more", "-s", "BLF-CRYPT", "-r", "4")
	if ok, _, err := h.Verify(t.Context(), long, []byte(password+"and more")); ok || err != nil {
		t.Errorf("80 bytes: %v, %v", ok, err)
	}
}

func TestUnusablePasswordsMatchNothing(t *testing.T) {
	h := NewHasher(0)
	// In bcrypt's key schedule "a" and "a NUL a" are the same.
	bcrypt := dovecotHash(t, "a", "-s", "BLF-CRYPT", "-r", "4")
	long := strings.Repeat("x", MaxPassword)
	sha := dovecotHash(t, long, "-s", "SHA512")
	checkVerifies(t, h, sha, long, true)
	for name, c := range map[string]struct{ stored, password string }{
		"NUL":      {bcrypt, "a\x00a"},
		"too long": {sha, long + "x"},
		"of empty": {"{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=", ""},
	} {
		if ok, _, err := h.Verify(t.Context(), c.stored, []byte(c.password)); ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
		if err := h.Imitate(t.Context(), "", []byte(c.password)); err != nil {
			t.Errorf("%s: dummy: %v", name, err)
		}
	}
}

// If one of these were computed, the test would take hours or the machine's memory.
func TestCheckStoredRefuses(t *testing.T) {
	const (
		argon2Tail = "$WX/Pjc73wtw94um2HaMtcQ$pcE7iVRziu2rAuZRbF9vvL0AvKxinzPyFh1Wa74qYvw"
		bcryptTail = "O6gmaX0nvqonALn6wDpSMuKZrabubmHQ4arX7QZiNpuLQHyuf4uF6"
		sha512Tail = "$vVC2q2tf.XRWjDQbDjgaW8eEOnyQhTZ6wmaTQoNsJJrKuL95dVFoyuEaKU/MRc1BE8ZO4sFnOWX1Ur6QIlUDt0"
		yesTail    = "$F5Jx5fExrKuPp53xLKQ..1$J3tyEPSMg52pqEMHZFKaJ5HluLYFupSyYsAj0YZiQQ9"
		scramTail  = ",d7jepPSBYC+Cov5LtBbCLg==,3jLdCh2BfxXrsapklBYgp83oiBqKIBzh65t1xd644UM=,0XkD0+Ct4VppTmHpE1+T1UCzwyX6wbq0hAQz7x/WAuw="
	)
	h := NewHasher(0)
	for _, c := range []struct{ stored, want string }{
		// Costs.
		{"{ARGON2ID}$argon2id$v=19$m=4194304,t=3,p=1" + argon2Tail, "{ARGON2ID}: m=4194304 is out of bounds (1 to 262144)"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=4294967295,p=1" + argon2Tail, "t=4294967295 is out of bounds"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=255" + argon2Tail, "p=255 is out of bounds"},
		{"{ARGON2ID}$argon2id$v=19$m=4194304,t=3,p=255" + argon2Tail, "p=255 is out of bounds"},
		{"{ARGON2ID}$argon2id$v=19$m=262144,t=5,p=1" + argon2Tail, "m times t at most 1048576"},
		{"{ARGON2ID}$argon2id$v=19$m=100,t=3,p=16" + argon2Tail, "m at least 8p"},
		{"{ARGON2I}$argon2i$v=19$m=65536,t=0,p=1" + argon2Tail, "t=0 is out of bounds"},
		{"{BLF-CRYPT}$2y$31$" + bcryptTail, "{BLF-CRYPT}: cost=31 is out of bounds (4 to 14)"},
		{"{BLF-CRYPT}$2y$00$" + bcryptTail, "cost=0 is out of bounds"},
		{"{CRYPT}$6$rounds=999999999$salt" + sha512Tail, "{CRYPT}: rounds=999999999 is out of bounds (1000 to 1000000)"},
		{"{SHA512-CRYPT}$6$rounds=999$salt" + sha512Tail, "rounds=999 is out of bounds"},
		{"{SHA512-CRYPT.B64}JDYkcm91bmRzPTk5OTk5OTk5OSRzYWx0JHg=", "rounds=999999999 is out of bounds"},
		{"{PBKDF2}$1$salt$999999999$00ee6e67fa5a433f853a38119ee85acd33ba3809", "{PBKDF2}: rounds=999999999 is out of bounds (1 to 2000000)"},
		{"{PBKDF2}$1$salt$0$00ee6e67fa5a433f853a38119ee85acd33ba3809", "rounds=0 is out of bounds"},
		{"{SCRAM-SHA-256}2147483647" + scramTail, "iterations=2147483647 is out of bounds"},
		{"{CRYPT}$y$jzz" + yesTail, "N=2^64 and r=64 are out of bounds"},
		{"{CRYPT}$y$jET" + yesTail, "N=2^17 and r=32 are out of bounds"},
		{"{CRYPT}$y$j.T" + yesTail, "N=2^1 and r=32 are out of bounds"},

		// Schemes.
		{"{PLAIN}secret", "{PLAIN}: passwords are not kept in clear"},
		{"{CLEAR}secret", "{CLEAR}: passwords are not kept in clear"},
		{"{cleartext}secret", "{CLEARTEXT}: passwords are not kept in clear"},
		{"{PLAIN.B64}c2VjcmV0", "{PLAIN.B64}: passwords are not kept in clear"},
		{"{SMD5}LtzA0M/qgUL7NtvHN9a6g2pBc4Q=", "{SMD5}: scheme is not supported: set a new password"},
		{"{CRAM-MD5}ca6c9acccb5e53d96f496f2e6a480735", "{CRAM-MD5}: scheme is not supported"},
		{"{DES-CRYPT}3PwVE6zZA1Mc2", "{DES-CRYPT}: scheme is not supported"},
		{"{PLAIN-MD5}89ca2ad6603a8925e17daae983c9d932", "{PLAIN-MD5}: scheme is not supported"},
		{"{MD5}89ca2ad6603a8925e17daae983c9d932", "{MD5}: not a crypt(3) string"},
		{"{SHA512CRYPT}$6$salt" + sha512Tail, "{SHA512CRYPT}: scheme is not supported"},
		{"{CRYPT}3PwVE6zZA1Mc2", "traditional DES is not supported"},
		{"{CRYPT}$7$CU..../....salt$key", "crypt(3) algorithm is not supported"},
		{"{CRYPT}$2x$05$" + bcryptTail, "crypt(3) algorithm is not supported"},
		{"{CRYPT}$2$05$" + bcryptTail, "crypt(3) algorithm is not supported"},
		{"{CRYPT}$sha1$40000$salt$key", "crypt(3) algorithm is not supported"},
		{"{CRYPT}*", "not a crypt(3) string"},
		{"{SHA512.GZ}secret", "unknown encoding"},
		{"{SHA512.}secret", "import it as it was made"},

		// Form.
		{"", "no {SCHEME} in front"},
		{"$6$salt" + sha512Tail, "no {SCHEME} in front: put {CRYPT} before"},
		{"SHA}secret", "no {SCHEME} in front"},
		{"{SHA secret", "no {SCHEME} in front"},
		{"{}secret", "do not contain a scheme"},
		{"{my secret}", "do not contain a scheme"},
		{"{SHA}" + strings.Repeat("A", maxStored), "characters, at most 512 are read"},
		{"{SHA}", "0 bytes where a digest has 20"},
		{"{SHA}secret", "not in the encoding BASE64"},
		{"{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI", "not in the encoding BASE64"},
		{"{SHA}EfatjsUqKYSrqv18O1Fl\nA3hcIHI=", "not in the encoding BASE64"},
		{"{SHA256}EfatjsUqKYSrqv18O1FlA3hcIHI=", "20 bytes where a digest has 32"},
		{"{SHA}pEHeERbHSCX7cYG15/fZ3dcvK35P7KL/", "24 bytes where a digest has 20"},
		{"{SSHA}EfatjsUqKYSrqv18O1FlA3hcIHI=", "20 bytes where a digest has 20"},
		{"{SHA.HEX}EfatjsUqKYSrqv18O1FlA3hcIHI=", "not in the encoding HEX"},
		{"{ARGON2ID}$argon2d$v=19$m=65536,t=3,p=1" + argon2Tail, "not of the form"},
		{"{ARGON2ID}$argon2id$m=65536,t=3,p=1" + argon2Tail, "not of the form"},
		{"{ARGON2ID}$argon2id$v=16$m=65536,t=3,p=1" + argon2Tail, "only version 1.3"},
		{"{ARGON2ID}$argon2id$v=19$t=3,m=65536,p=1" + argon2Tail, "parameter m= is missing"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=3" + argon2Tail, "not of the form"},
		{"{ARGON2ID}$argon2id$v=19$m=065536,t=+3,p=1" + argon2Tail, "t is not a number"},
		{"{ARGON2ID}$argon2id$v=19$m=99999999999999999999,t=3,p=1" + argon2Tail, "m is not a number or too large"},
		{"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1$WX/Pjc73$pcE7iVRz", "salt or key is not"},
		{"{BLF-CRYPT}$2y$5$" + bcryptTail, "not of the form $2y$NN$"},
		{"{BLF-CRYPT}$2y$05$" + bcryptTail[1:], "not of the form $2y$NN$"},
		{"{BLF-CRYPT}$2y$05$" + bcryptTail[1:] + "_", "not of the form $2y$NN$"},
		{"{SHA512-CRYPT}$6$saltsaltsaltsalts" + sha512Tail, "salt of up to 16"},
		{"{SHA512-CRYPT}$6$salt" + sha512Tail + "x", "a key of 86"},
		{"{SHA512-CRYPT}$6$round=5000$salt" + sha512Tail, "$id$rounds=N$salt$key"},
		{"{SHA256-CRYPT}$5$salt" + sha512Tail, "a key of 43"},
		{"{MD5-CRYPT}$1$saltsalts$O/C9wHs88pPgfIIjfK8F.0", "$1$salt$key"},
		{"{CRYPT}$y$k75" + yesTail, "not of the form $y$jNR$salt$key"},
		{"{CRYPT}$y$j75" + yesTail + "x", "not of the form $y$jNR$salt$key"},
		{"{CRYPT}$y$j75$z$J3tyEPSMg52pqEMHZFKaJ5HluLYFupSyYsAj0YZiQQ9", "salt is not"},
		{"{PBKDF2}$1$$1000$00ee6e67fa5a433f853a38119ee85acd33ba3809", "not of the form $1$salt$rounds$hex"},
		{"{PBKDF2}$1$salt$1000$00ee", "40 hexadecimal digits"},
		{"{SCRAM-SHA-256}4096,,,", "salt or keys"},
		{"{SCRAM-SHA-1}4096" + scramTail, "not of 20 bytes"},
		{"{SCRAM-SHA-256}4096", "iterations,salt,stored key,server key"},
	} {
		t.Run(c.stored, func(t *testing.T) {
			err := CheckStored(c.stored)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %q, want %q", err, c.want)
			}
			for _, secret := range []string{"secret", argon2Tail[1:9], sha512Tail[1:9], bcryptTail[:9], "EfatjsUq"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("error %q shows %q", err, secret)
				}
			}
			ok, outdated, err := h.Verify(t.Context(), c.stored, []byte("secret"))
			if ok || outdated || err == nil {
				t.Errorf("Verify: %v, %v, %v", ok, outdated, err)
			}
		})
	}
}

func TestCheckStoredNamesAllCosts(t *testing.T) {
	err := CheckStored("{ARGON2ID}$argon2id$v=19$m=4194304,t=65,p=17$WX/Pjc73wtw94um2HaMtcQ$pcE7iVRziu2rAuZRbF9vvL0AvKxinzPyFh1Wa74qYvw")
	for _, want := range []string{"m=4194304", "t=65", "p=17"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %s in it", err, want)
		}
	}
}

func TestCheckNew(t *testing.T) {
	for _, good := range []string{
		"x", testPassword, "with spaces and - dashes", " ", strings.Repeat("x", MaxNewPassword),
		"k7fm2xq9hbtz4w3f", // not a secure password: the checksum is another
	} {
		if err := CheckNew([]byte(good)); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for bad, want := range map[string][]string{
		"":                                    {"empty"},
		strings.Repeat("x", MaxNewPassword+1): {"193 bytes: use at most 192"},
		"a\tb":                                {"control character"},
		"a\nb":                                {"control character"},
		"a\x00b":                              {"control character"},
		"a\x7fb":                              {"control character"},
		"a\u0085b":                            {"control character"},
		"a\xffb":                              {"UTF-8"},
		"k7fm2xq9hbtz4w3e":                    {"shape of a secure password"},
		"K7FM-2XQ9-HBTZ-4W3E":                 {"shape of a secure password"},
		"a\xff\n":                             {"UTF-8", "control character"},
	} {
		err := CheckNew([]byte(bad))
		for _, want := range want {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%q: %v, want %q", bad, err, want)
			}
		}
		if err != nil && len(bad) > 2 && strings.Contains(err.Error(), bad) {
			t.Errorf("error %q shows the password", err)
		}
	}
}

// The Hasher of this test has room for two hashes of 100 bytes. Six want in, and two get in.
func TestHasherBoundsConcurrency(t *testing.T) {
	h := NewHasher(200)
	h.share = 1
	c := cost{memory: 100, rounds: 1}
	entered, leave := make(chan struct{}), make(chan struct{})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	var mu sync.Mutex
	var now, most int
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			err := h.run(ctx, c, func() {
				mu.Lock()
				now++
				most = max(most, now)
				mu.Unlock()
				entered <- struct{}{}
				<-leave
				mu.Lock()
				now--
				mu.Unlock()
			})
			if err != nil {
				t.Errorf("run: %v", err)
			}
		})
	}
	for range 3 {
		<-entered
		<-entered
		if h.slots.TryAcquire(1) {
			t.Error("room for a third")
		}
		leave <- struct{}{}
		leave <- struct{}{}
	}
	wg.Wait()
	if most != 2 {
		t.Errorf("%d at once, want 2", most)
	}
	if !h.slots.TryAcquire(200) {
		t.Error("not all room given back")
	}
}

func TestHasherWaitsUntilContextEnds(t *testing.T) {
	h := NewHasher(0)
	stored, err := h.Hash(t.Context(), []byte(testPassword))
	if err != nil {
		t.Fatal(err)
	}
	if !h.slots.TryAcquire(h.budget) {
		t.Fatal("not all room given back")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if ok, _, err := h.Verify(ctx, stored, []byte(testPassword)); ok || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Verify: %v, %v", ok, err)
	}
	if s, err := h.Hash(ctx, []byte(testPassword)); s != "" || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Hash: %q, %v", s, err)
	}
	if err := h.Imitate(ctx, "", []byte(testPassword)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Imitate: %v", err)
	}
	// A single digest takes no room, but is not for the dead either.
	const sha = "{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI="
	if ok, _, err := h.Verify(t.Context(), sha, []byte("x")); err != nil || !ok {
		t.Errorf("a single digest had to wait: %v, %v", ok, err)
	}
	if _, _, err := h.Verify(ctx, sha, []byte("x")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Verify after the end: %v", err)
	}
	h.slots.Release(h.budget)
	if ok, _, err := h.Verify(t.Context(), stored, []byte(testPassword)); !ok || err != nil {
		t.Errorf("Verify with room: %v, %v", ok, err)
	}
}

func TestHasherWeight(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	for _, memory := range []int64{-1, 0, 1, 19 << 20, 1 << 30} {
		h := NewHasher(memory)
		for _, c := range []cost{
			{rounds: 5000},
			{rounds: 1, memory: 19 << 20},
			{rounds: 1, memory: maxMemory, threads: maxArgon2Lanes},
		} {
			w := h.weight(c)
			if w < 1 || w > h.budget {
				t.Errorf("budget %d: weight %d of %+v", h.budget, w, c)
			}
			if most := h.budget / w; most > int64(threads)+1 { // the share is rounded down
				t.Errorf("budget %d: %d of %+v at once on %d processors", h.budget, most, c, threads)
			}
			if w < min(c.memory, h.budget) {
				t.Errorf("budget %d: weight %d is less than the memory of %+v", h.budget, w, c)
			}
		}
	}
}

// A wrong secret takes no less time where an older site's quick hash is kept than where there is no
// account.
func TestWrongSecretOfQuickHashCostsAsDummy(t *testing.T) {
	h := NewHasher(0)
	for _, scheme := range []string{"SSHA512", "SHA512-CRYPT", "MD5-CRYPT"} {
		stored := dovecotHash(t, testPassword, "-s", scheme)
		verify := func(password string) uint64 {
			return allocated(func() {
				if ok, _, err := h.Verify(t.Context(), stored, []byte(password)); ok != (password == testPassword) || err != nil {
					t.Errorf("%s: %v, %v", scheme, ok, err)
				}
			})
		}
		if wrong := verify("wrong"); wrong < argon2Memory<<10 {
			t.Errorf("%s: a wrong secret allocates %d bytes only", scheme, wrong)
		}
		if right := verify(testPassword); right >= argon2Memory<<10 {
			t.Errorf("%s: the right one allocates %d bytes", scheme, right)
		}
	}
}

func TestDummyCostsAsVerify(t *testing.T) {
	h := NewHasher(0)
	stored, err := h.Hash(t.Context(), []byte(testPassword))
	if err != nil {
		t.Fatal(err)
	}
	s, err := parse(stored)
	if err != nil {
		t.Fatal(err)
	}
	if dummy := newArgon2().cost(); dummy != s.cost {
		t.Errorf("dummy %+v, hash %+v", dummy, s.cost)
	}
	// Bytes are a better measure than time on a busy machine: argon2 allocates what it works on.
	verify := allocated(func() {
		if ok, _, err := h.Verify(t.Context(), stored, []byte("wrong")); ok || err != nil {
			t.Errorf("Verify: %v, %v", ok, err)
		}
	})
	dummy := allocated(func() {
		if err := h.Imitate(t.Context(), "", []byte("wrong")); err != nil {
			t.Errorf("Imitate: %v", err)
		}
	})
	if dummy < argon2Memory<<10 || dummy > verify*101/100 || verify > dummy*101/100 {
		t.Errorf("Verify allocates %d bytes, Imitate %d", verify, dummy)
	}
}

// Hashes above the limit for imports are refused when they are imported, and still verified.
func TestImportLimits(t *testing.T) {
	const tail = "$WX/Pjc73wtw94um2HaMtcQ$pcE7iVRziu2rAuZRbF9vvL0AvKxinzPyFh1Wa74qYvw"
	for stored, limit := range map[string]string{
		"{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1" + tail:                                                        "",
		"{ARGON2ID}$argon2id$v=19$m=65536,t=4,p=1" + tail:                                                        "m*t of at most 196608",
		"{BLF-CRYPT}$2y$12$O6gmaX0nvqonALn6wDpSMuKZrabubmHQ4arX7QZiNpuLQHyuf4uF6":                                "",
		"{BLF-CRYPT}$2y$13$O6gmaX0nvqonALn6wDpSMuKZrabubmHQ4arX7QZiNpuLQHyuf4uF6":                                "cost of at most 12",
		"{SHA256-CRYPT}$5$rounds=200001$saltsalt$j1IzAmdCBffhKWVKoffrZ.dPPdtiysF29ePH9K9Dbx5":                    "rounds of at most 200000",
		"{PBKDF2}$1$pqq6eCFwOSVGQVgB$600001$19ce4eb7a3a627ef05ee4e86eb0741e1503816ae":                            "rounds of at most 600000",
		"{SCRAM-SHA-1}600001,BCRqzbIqFMO3oy/IcgQbgg==,BSYfi8JMacf2NPQSwMztBzVn5m4=,X2IVDqJEauPZPmdqZSSt6w3D8Z0=": "iterations of at most 600000",
		"{CRYPT}$y$j9T$F5Jx5fExrKuPp53xLKQ..1$wUFYQF6Iupt2zXCK2MG26r5WdsM2MVbvNYDgVw1BKgC":                       "",
		"{CRYPT}$y$jCT$F5Jx5fExrKuPp53xLKQ..1$wUFYQF6Iupt2zXCK2MG26r5WdsM2MVbvNYDgVw1BKgC":                       "N*r of at most 524288",
	} {
		err := CheckStored(stored)
		if (err == nil) != (limit == "") || err != nil && !strings.Contains(err.Error(), limit) {
			t.Errorf("CheckStored(%q): %v, want %q", stored, err, limit)
		}
	}
	h := NewHasher(0)
	// Made by libxcrypt: 250 000 rounds of SHA-256.
	stored := dovecotHash(t, testPassword, "-s", "SHA256-CRYPT", "-r", "250000")
	if err := CheckStored(stored); err == nil {
		t.Errorf("%q may be imported", stored)
	}
	if ok, outdated, err := h.Verify(t.Context(), stored, []byte(testPassword)); !ok || !outdated || err != nil {
		t.Errorf("%q: %v, %v, %v", stored, ok, outdated, err)
	}
}

func TestTypical(t *testing.T) {
	const tail = "$WX/Pjc73wtw94um2HaMtcQ$pcE7iVRziu2rAuZRbF9vvL0AvKxinzPyFh1Wa74qYvw"
	today, dovecots, quick := "{ARGON2ID}$argon2id$v=19$m=19456,t=2,p=1"+tail, "{ARGON2ID}$argon2id$v=19$m=65536,t=3,p=1"+tail, "{SHA}TkmXn7Dc4BFlDrJ6ET3l9TprS/E="
	const sha = "{SHA256-CRYPT}$5$0sLqc7dB1GNIfdgt$HF9LmmD19KJExj4ssC2HH9vakujlMyMe5hKG0YsvwH7"
	const pbkdf2 = "{PBKDF2}$1$pqq6eCFwOSVGQVgB$5000$19ce4eb7a3a627ef05ee4e86eb0741e1503816ae" // 5000 rounds, as sha has
	for want, stored := range map[string][]string{
		"":       {"", "{PLAIN}secret"},
		today:    {quick, today, today, dovecots},
		dovecots: {"", today, dovecots, dovecots, quick},
		sha:      {sha, sha, pbkdf2},
	} {
		if got := Typical(stored); got != want {
			t.Errorf("Typical(%q) = %q, want %q", stored, got, want)
		}
	}
}

// An imitation costs as much as a wrong password at the hash that it imitates.
func TestImitateCostsAsVerify(t *testing.T) {
	h := NewHasher(0)
	for _, scheme := range []string{"ARGON2ID", "SHA512-CRYPT"} {
		stored := dovecotHash(t, testPassword, "-s", scheme)
		verify := allocated(func() { h.Verify(t.Context(), stored, []byte("wrong")) })
		imitate := allocated(func() { h.Imitate(t.Context(), stored, []byte("wrong")) })
		right := allocated(func() { h.Imitate(t.Context(), stored, []byte(testPassword)) })
		for _, n := range []uint64{imitate, right} {
			if n > verify*101/100 || verify > n*101/100 {
				t.Errorf("%s: Verify allocates %d bytes, Imitate %d", scheme, verify, n)
			}
		}
	}
}

func allocated(f func()) uint64 {
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	f()
	runtime.ReadMemStats(&after)
	return after.TotalAlloc - before.TotalAlloc
}

func FuzzStored(f *testing.F) {
	for _, seed := range []string{
		"{ARGON2ID}$argon2id$v=19$m=32,t=1,p=1$WX/Pjc73wtw94um2HaMtcQ$pcE7iVRziu2rAuZRbF9vvL0AvKxinzPyFh1Wa74qYvw",
		"{ARGON2I}$argon2i$v=19$m=4194304,t=4,p=1$tBc4ssov9++/2Thri791vA$8v6pLNICTWg9YvhCOztC8VvfOV8WsWcQI57WEXIUH5o",
		"{BLF-CRYPT}$2y$05$O6gmaX0nvqonALn6wDpSMuKZrabubmHQ4arX7QZiNpuLQHyuf4uF6",
		"{SHA512-CRYPT}$6$rounds=1000$$vVC2q2tf.XRWjDQbDjgaW8eEOnyQhTZ6wmaTQoNsJJrKuL95dVFoyuEaKU/MRc1BE8ZO4sFnOWX1Ur6QIlUDt0",
		"{SHA256-CRYPT}$5$0sLqc7dB1GNIfdgt$HF9LmmD19KJExj4ssC2HH9vakujlMyMe5hKG0YsvwH7",
		"{MD5-CRYPT}$1$ldjKGQr5$jqA84mKaNV0vlZ09QjZ.W.",
		"{CRYPT}$y$j75$F5Jx5fExrKuPp53xLKQ..1$J3tyEPSMg52pqEMHZFKaJ5HluLYFupSyYsAj0YZiQQ9",
		"{PBKDF2}$1$pqq6eCFwOSVGQVgB$5000$19ce4eb7a3a627ef05ee4e86eb0741e1503816ae",
		"{SCRAM-SHA-1}4096,BCRqzbIqFMO3oy/IcgQbgg==,BSYfi8JMacf2NPQSwMztBzVn5m4=,X2IVDqJEauPZPmdqZSSt6w3D8Z0=",
		"{SSHA512}bF2qQbu7I6tBNuQW+cdpnV7xNLmKq81S/WFqBw8LmGy83ZnV8l6i+INPTsG56qn29+QGgvfhMcHxvwIzeply9Ba936w=",
		"{SSHA.HEX}4e49979fb0dce011650eb27a113de5f53a6b4bf1ff",
		"{SHA}TkmXn7Dc4BFlDrJ6ET3l9TprS/E=",
		"{PLAIN}secret",
		"{sha512-crypt.b64}JDYkcm91bmRzPTk5OTk5OTk5OSRzYWx0JHg=",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, stored string) {
		s, err := parse(stored)
		if err != nil {
			if s.match != nil {
				t.Fatal("an error, and yet something to match")
			}
			// Errors go to logs and to clients: one line of printable text for each fault.
			if len(err.Error()) > 400 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r != '\n' && (r < ' ' || r == 0x7f) }) {
				t.Fatalf("error %q", err)
			}
			return
		}
		if len(stored) > maxStored || s.cost.memory > maxMemory || s.cost.rounds > 1<<21 || s.cost.threads > maxArgon2Lanes {
			t.Fatalf("accepted at a cost of %+v", s.cost)
		}
		if value, ok := strings.CutPrefix(stored, "{ARGON2ID}"); ok {
			a, err := argon2Text(value)
			if err != nil || a.String() != value {
				t.Fatalf("%q came back as %q, %v", value, a, err)
			}
		}
		if s.cost.memory <= 2<<20 && s.cost.rounds <= 1<<14 {
			s.match([]byte("a password that nobody has hashed"))
		}
	})
}

func BenchmarkVerify(b *testing.B) {
	h := NewHasher(0)
	stored, err := h.Hash(b.Context(), []byte(testPassword))
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if ok, _, err := h.Verify(b.Context(), stored, []byte(testPassword)); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
