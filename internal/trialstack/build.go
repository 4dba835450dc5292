package trialstack

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BinEnv names the environment variable with the directory of the built commands.
const BinEnv = "DRAWBRIDGE_BIN"

// Build returns a directory with drawbridged, drawbridge and drawbridge-checkpassword: the one that
// DRAWBRIDGE_BIN names, or dir, after building them there from the module of the current directory.
// Call it once in a test binary, from TestMain.
func Build(ctx context.Context, dir string) (string, error) {
	if bin := os.Getenv(BinEnv); bin != "" {
		return bin, nil
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("build the commands: find the module: %w", err)
	}
	builds := []struct {
		name string
		args []string
		env  []string
	}{
		{name: "drawbridged"},
		{name: "drawbridge"},
		// As the Makefile builds it: this one runs at every login.
		{name: "drawbridge-checkpassword", args: []string{"-trimpath", "-buildmode=exe", "-ldflags=-s -w"}, env: []string{"CGO_ENABLED=0"}},
	}
	for _, b := range builds {
		args := append([]string{"build", "-buildvcs=false", "-o", filepath.Join(dir, b.name)}, b.args...)
		cmd := exec.CommandContext(ctx, "go", append(args, "./cmd/"+b.name)...) //nolint:gosec // G204: fixed words
		cmd.Dir = strings.TrimSpace(string(root))
		cmd.Env = append(os.Environ(), b.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", b.name, err, out)
		}
	}
	return dir, nil
}
