package trialstack

import (
	"bufio"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// A process as /proc/PID/stat reports it. The start, in clock ticks since boot, distinguishes it
// from a later one with the same number.
type process struct {
	pid, parent, session int
	start                uint64
	ticks                uint64 // processor time in 1/100 s, with that of children it has waited for
	dead                 bool   // a zombie
}

// readProcess reads /proc/PID/stat.
func readProcess(pid int) (process, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "stat"))
	if err != nil {
		return process{}, err
	}
	return parseStat(string(text))
}

// parseStat reads the line of /proc/PID/stat, proc(5). The program's name in it may contain
// anything, parentheses too.
func parseStat(line string) (process, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 0 || end < open {
		return process{}, fmt.Errorf("no process status: %q", line)
	}
	fields := strings.Fields(line[end+1:]) // fields 3 and following: state, parent, group, session, …
	const user, start = 11, 19             // user, system, and both of children that were waited for
	if len(fields) <= start {
		return process{}, fmt.Errorf("short process status: %q", line)
	}
	var p process
	var err error
	for _, n := range []struct {
		to   *int
		text string
	}{{&p.pid, strings.TrimSpace(line[:open])}, {&p.parent, fields[1]}, {&p.session, fields[3]}} {
		if *n.to, err = strconv.Atoi(n.text); err != nil {
			return process{}, fmt.Errorf("process status %q: %w", line, err)
		}
	}
	if p.start, err = strconv.ParseUint(fields[start], 10, 64); err != nil {
		return process{}, fmt.Errorf("process status %q: %w", line, err)
	}
	for _, text := range fields[user : user+4] {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return process{}, fmt.Errorf("process status %q: %w", line, err)
		}
		p.ticks += n
	}
	p.dead = fields[0] == "Z" || fields[0] == "X"
	return p, nil
}

// processes returns all running processes.
func processes() []process {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var list []process
	for _, dir := range dirs {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if p, err := readProcess(pid); err == nil && !p.dead { // it may have just ended
			list = append(list, p)
		}
	}
	return list
}

// ProcessCPU is the processor time of a process, of its session and of all their descendants, to a
// hundredth of a second; 0 if there is no such process.
func ProcessCPU(pid int) time.Duration {
	first, err := readProcess(pid)
	if err != nil {
		return 0
	}
	ticks := first.ticks
	for _, p := range (leader{first.pid, first.start}).family() {
		ticks += p.ticks
	}
	return time.Duration(ticks) * (time.Second / 100) //nolint:gosec // G115: never centuries
}

// program returns the path of the process's program, or "" after its end.
func (p process) program() string {
	path, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.pid), "exe"))
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(path, " (deleted)")
}

// children returns the running processes whose parent is pid.
func children(pid int) []process {
	var list []process
	for _, p := range processes() {
		if p.parent == pid {
			list = append(list, p)
		}
	}
	return list
}

// holder returns " by NAME (process PID)" for the process that listens on a TCP port, or "" if that
// is unknown.
func holder(port int) string {
	inodes := make(map[string]bool)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(table)
		if err != nil {
			continue
		}
		for lines := bufio.NewScanner(f); lines.Scan(); {
			// number, local address:port in hexadecimal, remote, state, …, inode
			fields := strings.Fields(lines.Text())
			const listening = "0A"
			if len(fields) > 9 && fields[3] == listening && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", port)) {
				inodes["socket:["+fields[9]+"]"] = true
			}
		}
		_ = f.Close() // only read from
	}
	for _, p := range processes() {
		dir := filepath.Join("/proc", strconv.Itoa(p.pid), "fd")
		entries, err := fs.ReadDir(os.DirFS(dir), ".")
		if err != nil {
			continue
		}
		for _, e := range entries {
			if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && inodes[target] {
				return fmt.Sprintf(" by %s (process %d)", filepath.Base(p.program()), p.pid)
			}
		}
	}
	return ""
}
