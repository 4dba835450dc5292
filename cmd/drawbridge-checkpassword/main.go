//go:build linux

// The runtime would keep files of /sys/fs/cgroup open, and the program close them as if they were
// inherited.
//
//go:debug containermaxprocs=0

// Drawbridge-checkpassword is what Dovecot 2.3 runs for every login; see package checkpassword.
// Build it static and without position-independent code: CGO_ENABLED=0 go build -trimpath
// -buildmode=exe -ldflags "-s -w".
package main

import (
	"syscall"
	_ "unsafe" // for go:linkname

	"github.com/drawbridge/drawbridge/checkpassword"
)

func main() {
	syscall.Exit(checkpassword.Run(args()[1:], environ()))
}

// These are os.Args and os.Environ as the runtime provides them to packages that this program
// cannot afford: see checkpassword/sys_linux.go. (Package syscall would first build a map, for 3 %
// of the program's time.)

//go:linkname args os.runtime_args
func args() []string

//go:linkname environ syscall.runtime_envs
func environ() []string
