//go:build servers

package embedded

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Every server reads what each other one wrote for Drawbridge, and refuses with a remedy what it
// wrote before. DRAWBRIDGE_ROOTS lists roots of other Debian releases, separated by colons.
func TestServersReadEachOther(t *testing.T) {
	programs := []string{"/usr/bin/redis-server"}
	for root := range strings.SplitSeq(os.Getenv("DRAWBRIDGE_ROOTS"), ":") {
		for _, name := range []string{"redis-server", "valkey-server"} {
			if _, err := os.Stat(filepath.Join(root, "usr/bin", name)); root == "" || err != nil {
				continue
			}
			// The root's loader with the root's libraries: no root is needed to run it.
			lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
			script := fmt.Sprintf("#!/bin/sh\nexec %s/lib64/ld-linux-x86-64.so.2 --library-path %s:%s/systemd %s/usr/bin/%s \"$@\"\n", root, lib, lib, root, name)
			path := filepath.Join(t.TempDir(), name)
			if err := os.WriteFile(path, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			programs = append(programs, path)
		}
	}
	if len(programs) < 2 {
		t.Fatal("DRAWBRIDGE_ROOTS names no root with another redis-server or valkey-server")
	}
	for i, from := range programs {
		for j, to := range programs {
			if i == j {
				continue
			}
			dir := newDir(t)
			s := startT(t, Options{Dir: dir, Program: from})
			doT(t, s, "SET colour green", "+OK")
			doT(t, s, "BGREWRITEAOF", "+Background append only file rewriting started")
			eventually(t, "a new base file", func() bool {
				now, err := filepath.Glob(filepath.Join(dir, dataName, "*.2.base.aof"))
				return err == nil && len(now) == 1
			})
			doT(t, s, "XADD stream 5-0 p q", "5-0")
			stopT(t, s)
			s = startT(t, Options{Dir: dir, Program: to})
			doT(t, s, "GET colour", "green")
			doT(t, s, "XLEN stream", ":1")
			stopT(t, s)

			dir = newDir(t)
			fillBefore(t, dir, from)
			s, err := Start(testContext(t), Options{Dir: dir, Program: to})
			if err == nil {
				doT(t, s, "GET colour", "green")
				stopT(t, s)
				continue
			}
			t.Logf("%s after %s: %v", to, from, err)
			wantError(t, err, "set store.program to the former server and start once")
			s = startT(t, Options{Dir: dir, Program: from})
			eventually(t, "portable data", func() bool { return isPortable(dir) })
			stopT(t, s)
			s = startT(t, Options{Dir: dir, Program: to})
			doT(t, s, "GET shape", "round")
			stopT(t, s)
		}
	}
}
