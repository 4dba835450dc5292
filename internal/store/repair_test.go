package store

import (
	"fmt"
	"testing"

	"github.com/hashicorp/go-hclog"
)

// A check that read the store before a repair finds damage that is over.
func TestDamageFromBeforeARepair(t *testing.T) {
	s := &Store{Logger: hclog.NewNullLogger()}
	damage := fmt.Errorf("shard 3: %w", ErrDamaged)
	before := s.repaired()
	s.found(damage, before)
	if s.Damage() == nil {
		t.Fatal("damage is not reported")
	}
	s.mended()
	if s.Damage() != nil || s.Trouble() != nil {
		t.Errorf("right after the repair: %v, %v", s.Damage(), s.Trouble())
	}
	s.found(damage, before)
	if s.Damage() != nil || s.Trouble() != nil {
		t.Errorf("found before the repair: %v, %v", s.Damage(), s.Trouble())
	}
	s.found(damage, s.repaired())
	if s.Damage() == nil || s.Trouble() == nil {
		t.Error("damage after the repair is not reported")
	}
	s.setTrouble(ErrForeign)
	s.mended()
	if s.Trouble() == nil {
		t.Error("a repair of the known store accepts another one")
	}
}
