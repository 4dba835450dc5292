package main

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/daemon"
	"github.com/drawbridge/drawbridge/internal/listen"
)

// TestLive runs the real command against a real daemon with its own redis-server.
func TestLive(t *testing.T) {
	dir, err := os.MkdirTemp("", "db-live") // short: a socket's path is bounded
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	cfg := config.Default()
	cfg.StateDir = filepath.Join(dir, "state")
	cfg.Login.Listen, cfg.Policyd.Listen, cfg.Milter.Listen = nil, nil, nil
	cfg.API.Listen = []listen.Spec{{Path: filepath.Join(dir, "api.sock")}}
	cfg.Console.Listen = nil
	cfg.Regions.Database = filepath.Join(dir, "geoip")
	for name, text := range map[string]string{"geoip": "3405803776,3405804031,DE\n3405804032,3405804287,XK\n", "geoip6": "2001:db8::,2001:db8:ffff:ffff:ffff:ffff:ffff:ffff,FR\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(ctx, cfg, daemon.Reload{}, hclog.NewNullLogger(), "test") }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("the daemon: %v", err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		if _, err := os.Stat(cfg.API.Listen[0].Path); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not listen")
		}
		<-time.After(5 * time.Millisecond)
	}
	// testscript runs scripts in parallel, in subtests that end before the cleanups above.
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir:                 "testdata/live",
			RequireExplicitExec: true,
			RequireUniqueNames:  true,
			Setup: func(env *testscript.Env) error {
				env.Setenv("DRAWBRIDGE_API", "unix:"+cfg.API.Listen[0].Path)
				env.Setenv("TZ", "UTC")
				env.Setenv("GORACE", "atexit_sleep_ms=10") // else each command lingers for a second under -race
				return nil
			},
			Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": exits},
		})
	})
}
