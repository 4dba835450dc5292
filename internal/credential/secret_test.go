package credential

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"
)

// fixedSecret makes a well-formed secret from a given source of randomness.
func fixedSecret(r *rand.Rand) []byte {
	secret := make([]byte, secretRandom, SecretLen)
	for i := range secret {
		secret[i] = alphabet[r.IntN(len(alphabet))]
	}
	sum := checksum(secret)
	return append(secret, sum[:]...)
}

func TestGenerate(t *testing.T) {
	seen := map[string]bool{}
	count := map[byte]int{}
	for range 4096 {
		secret, err := Generate()
		if err != nil {
			t.Fatal(err)
		}
		if len(secret) != SecretLen {
			t.Fatalf("length %d", len(secret))
		}
		normal, ok := Normalise(secret)
		if !ok || !bytes.Equal(normal, secret) {
			t.Fatalf("generated secret is not in normal form")
		}
		if seen[string(secret)] {
			t.Fatal("generated the same secret twice")
		}
		seen[string(secret)] = true
		for _, c := range secret {
			count[c]++
		}
	}
	if len(count) != len(alphabet) {
		t.Errorf("%d different characters, want %d", len(count), len(alphabet))
	}
	// 2048 of each are expected, with a standard deviation of 45.
	for c, n := range count {
		if n < 1700 || n > 2400 {
			t.Errorf("character %q came %d times, want about 2048", c, n)
		}
	}
}

func TestAlphabet(t *testing.T) {
	if len(alphabet) != 32 || strings.ContainsAny(alphabet, "lo01") {
		t.Fatalf("alphabet %q", alphabet)
	}
	for c := range len(ascii) {
		var want byte
		if lower := strings.ToLower(string(rune(c))); strings.Contains(alphabet, lower) {
			want = lower[0]
		} else if strings.Contains(" -", lower) {
			want = separator
		}
		if ascii[c] != want {
			t.Errorf("%q counts as %q, want %q", rune(c), ascii[c], want)
		}
	}
}

func TestNormalise(t *testing.T) {
	const good = "k7fm2xq9hbtz4w3e" // the checksum is pinned: a change of it would revoke every secret
	yes := map[string]string{
		"as generated":        good,
		"capitals":            strings.ToUpper(good),
		"groups of four":      "k7fm-2xq9-hbtz-4w3e",
		"groups with spaces":  "K7FM 2xq9 hbtz 4W3E",
		"spaces around":       "  k7fm2xq9hbtz4w3e ",
		"the longest allowed": strings.Repeat("-", maxTyped-SecretLen) + good,
	}
	for name, in := range yes {
		t.Run(name, func(t *testing.T) {
			if got, ok := Normalise([]byte(in)); !ok || string(got) != good {
				t.Errorf("Normalise(%q) = %q, %v", in, got, ok)
			}
		})
	}
	no := map[string]string{
		"empty":                 "",
		"one short":             good[:15],
		"one long":              good + "a",
		"wrong checksum":        good[:15] + "u",
		"two swapped":           "7kfm2xq9hbtz4w3e",
		"foreign character":     "k7fm2xq9hbtz4wl0",
		"umlaut":                "k7fm2xq9hbtz4w\u00e4",
		"only dashes":           strings.Repeat("-", SecretLen),
		"tab":                   "k7fm\t2xq9hbtz4w3e",
		"longer than looked at": strings.Repeat("-", maxTyped-SecretLen+1) + good,
		"a person's choice":     "correct-horse-battery-staple",
	}
	for name, in := range no {
		t.Run(name, func(t *testing.T) {
			if got, ok := Normalise([]byte(in)); ok || got != nil {
				t.Errorf("Normalise(%q) = %q, %v", in, got, ok)
			}
		})
	}
}

func TestNormaliseDoesNotChangeItsInput(t *testing.T) {
	in := []byte("K7FM-2XQ9-HBTZ-4W3E")
	before := string(in)
	got, ok := Normalise(in)
	if !ok {
		t.Fatal("not recognised")
	}
	clear(got)
	if string(in) != before {
		t.Errorf("input is now %q", in)
	}
}

func TestNormaliseAllocates(t *testing.T) {
	for in, want := range map[string]float64{
		"k7fm2xq9hbtz4w3e":             0,
		"K7FM-2XQ9-HBTZ-4W3E":          1, // the copy
		"correct-horse-battery-staple": 0,
	} {
		secret := []byte(in)
		if got := testing.AllocsPerRun(100, func() { Normalise(secret) }); got != want {
			t.Errorf("Normalise(%q): %v allocations, want %v", in, got, want)
		}
	}
}

// The package comment says that one slip in a thousand goes unnoticed.
func TestChecksumCatchesSlips(t *testing.T) {
	r := rand.New(rand.NewChaCha8([32]byte{1}))
	tried, missed := 0, 0
	slip := func(secret []byte) {
		tried++
		if _, ok := Normalise(secret); ok {
			missed++
		}
	}
	for range 400 {
		secret := fixedSecret(r)
		for i, c := range secret {
			for _, other := range []byte(alphabet) {
				if other != c {
					secret[i] = other
					slip(secret)
				}
			}
			secret[i] = c
			if i > 0 && secret[i-1] != c {
				secret[i], secret[i-1] = secret[i-1], c
				slip(secret)
				secret[i], secret[i-1] = c, secret[i]
			}
		}
	}
	rate := float64(missed) / float64(tried)
	t.Logf("%d of %d substitutions and swaps go unnoticed: 1 in %.0f", missed, tried, 1/rate)
	if rate > 1.3/1024 {
		t.Errorf("too many for ten bits")
	}
}

func FuzzNormalise(f *testing.F) {
	f.Add([]byte("k7fm2xq9hbtz4w3e"))
	f.Add([]byte("K7FM-2XQ9-HBTZ-4W3E"))
	f.Add([]byte("correct-horse-battery-staple"))
	f.Add([]byte("aaaaaaaaaaaaaaaa"))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, in []byte) {
		before := string(in)
		got, ok := Normalise(in)
		if string(in) != before {
			t.Fatal("input changed")
		}
		if !ok {
			if got != nil {
				t.Fatalf("refused, and yet %q", got)
			}
			// What is refused must not become one by its checksum alone, or the mending is wrong.
			if len(in) >= secretRandom {
				mended := bytes.Clone(in[:secretRandom])
				for i, c := range mended {
					mended[i] = alphabet[c%32]
				}
				sum := checksum(mended)
				if _, ok := Normalise(append(mended, sum[:]...)); !ok {
					t.Fatalf("%q with its checksum refused", mended)
				}
			}
			return
		}
		if len(got) != SecretLen || len(in) > maxTyped {
			t.Fatalf("%d characters from %d", len(got), len(in))
		}
		again, ok := Normalise(got)
		if !ok || !bytes.Equal(again, got) {
			t.Fatalf("not idempotent: %q, %v", again, ok)
		}
		typed, ok := Normalise([]byte(" " + strings.ToUpper(string(got[:8])) + "-" + string(got[8:])))
		if !ok || !bytes.Equal(typed, got) {
			t.Fatalf("typed in groups: %q, %v", typed, ok)
		}
	})
}

func BenchmarkNormalise(b *testing.B) {
	for name, in := range map[string]string{
		"generated": "k7fm2xq9hbtz4w3e",
		"typed":     "K7FM-2XQ9-HBTZ-4W3E",
		"mailbox":   "correct horse battery staple",
	} {
		b.Run(name, func(b *testing.B) {
			secret := []byte(in)
			b.ReportAllocs()
			for b.Loop() {
				Normalise(secret)
			}
		})
	}
}
