package spelling

import (
	"math"
	"strings"
	"testing"
)

func TestDistance(t *testing.T) {
	for _, tc := range []struct {
		a, b  string
		limit int
		want  int
	}{
		{"", "", math.MaxInt, 0},
		{"", "abc", math.MaxInt, 3},
		{"abc", "", math.MaxInt, 3},
		{"kitten", "sitting", math.MaxInt, 3},
		{"unmanged", "unmanaged", math.MaxInt, 1},
		{"kitten", "sitting", 4, 3},
		{"kitten", "sitting", 2, 2},
		{"limits", "limit", 1, 1},
		{"same", "same", 1, 0},
		{strings.Repeat("x", 1<<20), "limit", 3, 3},
	} {
		if got := Distance(tc.a, tc.b, tc.limit); got != tc.want {
			t.Errorf("%.9q to %q, up to %d: %d; want %d", tc.a, tc.b, tc.limit, got, tc.want)
		}
	}
}
