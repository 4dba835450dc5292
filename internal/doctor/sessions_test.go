package doctor

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/config"
)

func TestDoveadm(t *testing.T) {
	c := config.Default()
	if f := askDoveadm(t.Context(), c); len(f) != 1 || f[0].Severity != Warn {
		t.Errorf("no doveadm: %v", f)
	}
	c.Sessions.Doveadm = config.OneOrMore{"unix:" + filepath.Join(t.TempDir(), "none"), "exec:/bin/false"}
	f := askDoveadm(t.Context(), c)
	if len(f) != 2 || f[0].Severity != Fail || f[1].Severity != Fail || !strings.Contains(f[0].What, "no such file") {
		t.Errorf("away: %v", f)
	}
	c.Sessions.KeyFile = filepath.Join(t.TempDir(), "none")
	if f := askDoveadm(t.Context(), c); len(f) != 1 || f[0].Severity != Fail {
		t.Errorf("no key: %v", f)
	}
}
