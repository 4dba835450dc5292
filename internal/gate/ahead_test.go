package gate

import (
	"slices"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/store"
)

// What a daemon announces is what the others read.
func TestAnnouncement(t *testing.T) {
	takes := []store.Take{
		{Key: "example.org/few/rh/ann@example.org", N: 3, Rate: 200, Per: time.Hour},
		{Key: "example.org/few/md/ann@example.org/06627e713bb8145f", N: -1, Rate: 1000, Per: 24 * time.Hour},
		{Key: "example.org/all/rd/*", N: 40, Rate: 100_000_000, Per: 24 * time.Hour},
	}
	e := announcement("d1", &store.Spend{Time: time.Unix(1, 0), Takes: takes})
	if got := announced(e.Account); !slices.Equal(got, takes) || e.Origin != "d1" || e.Kind != store.EventSpends || !e.Time.Equal(time.Unix(1, 0)) {
		t.Errorf("%+v reads as %+v", e, got)
	}
}

// Lines that cannot be read announce nothing, and the others are read all the same.
func FuzzAnnounced(f *testing.F) {
	f.Add("3 200/1h0m0s example.org/few/rh/ann@example.org\n")
	f.Add("x 200/1h0m0s key\n3 0/1h key\n3 200/-1h key\n\n3 200/1h\n-1 2/3s a b")
	f.Fuzz(func(t *testing.T, list string) {
		takes := announced(list)
		for _, take := range takes {
			if take.Rate <= 0 || take.Per <= 0 {
				t.Errorf("a bucket without a size: %+v", take)
			}
		}
		again := announced(announcement("", &store.Spend{Takes: takes}).Account)
		if !slices.Equal(again, takes) {
			t.Errorf("%+v reads as %+v", takes, again)
		}
	})
}
