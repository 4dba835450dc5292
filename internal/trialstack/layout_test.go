package trialstack

import "testing"

func TestLastEntries(t *testing.T) {
	const conf = `# Names.
one = 1
two =
    2,
# a comment inside
    3
three = 3
one = 11
two =
`
	const want = `# Names.
three = 3
one = 11
two =
`
	if got := string(lastEntries([]byte(conf))); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
