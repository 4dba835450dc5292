package checkpassword

import (
	"errors"
	"slices"
	"syscall"
	"testing"
)

func TestCloseEach(t *testing.T) {
	const first, end = 900, 904
	fd, err := syscall.Open("/dev/null", syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, to := range []int{first, end - 1, end} {
		if err := syscall.Dup3(fd, to, syscall.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
	closeEach(first, end)
	if isOpen(first) || isOpen(end-1) || !isOpen(end) {
		t.Errorf("open after closing [900, 904): 900 %v, 903 %v, 904 %v", isOpen(first), isOpen(end-1), isOpen(end))
	}
	if err := errors.Join(syscall.Close(end), syscall.Close(fd)); err != nil {
		t.Error(err)
	}
}

func TestFileDeadline(t *testing.T) {
	var fds [2]int
	if err := syscall.Pipe2(fds[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = errors.Join(syscall.Close(fds[0]), syscall.Close(fds[1])) }()

	start := now()
	if _, err := (file{fd: fds[0], by: start + 50*millisecond}).Read(make([]byte, 1)); !errors.Is(err, errTimeout) {
		t.Errorf("reading an empty pipe: %v", err)
	}
	if took := now() - start; took < 50*millisecond {
		t.Errorf("gave up after %d ns", took)
	}
	if _, err := (file{fd: fds[0], by: start}).Read(make([]byte, 1)); !errors.Is(err, errTimeout) {
		t.Errorf("reading after the end of time: %v", err)
	}
	full := file{fd: fds[1], by: now() + 50*millisecond}
	for {
		if _, err := full.Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, errTimeout) {
				t.Errorf("writing to a full pipe: %v", err)
			}
			break
		}
	}
}

func TestParseArgs(t *testing.T) {
	long := "/" + string(slices.Repeat([]byte("x"), 106)) // with its NUL exactly sun_path
	tests := []struct {
		args   []string
		socket string
		reply  []string
		err    string
	}{
		{nil, DefaultSocket, nil, ""},
		{[]string{"--verified", "prog"}, DefaultSocket, []string{"prog"}, ""},
		{[]string{"-s", "/run/x", "--verified", "prog"}, "/run/x", []string{"prog"}, ""},
		{[]string{"prog", "-s", "/x"}, DefaultSocket, []string{"prog", "-s", "/x"}, ""},
		{[]string{"-s", "/run/x", "prog"}, "/run/x", []string{"prog"}, ""},
		{[]string{"-s", "/run/x", "--", "-prog"}, "/run/x", []string{"-prog"}, ""},
		{[]string{"-s", long, "prog"}, long, []string{"prog"}, ""},
		{[]string{"-"}, DefaultSocket, []string{"-"}, ""},
		{[]string{"-s", long + "x", "prog"}, DefaultSocket, []string{long + "x", "prog"}, "-s: a socket's path is shorter than 108 bytes"},
		{[]string{"-s"}, DefaultSocket, []string{}, "-s needs an absolute path"},
		{[]string{"-s", "@abstract", "prog"}, DefaultSocket, []string{"@abstract", "prog"}, "-s needs an absolute path"},
		{[]string{"-s", "", "prog"}, DefaultSocket, []string{"", "prog"}, "-s needs an absolute path"},
		{[]string{"-x", "prog"}, DefaultSocket, []string{"prog"}, "unknown option -x"},
		{[]string{"-h"}, DefaultSocket, nil, "help"},
		{[]string{"-s", "/x", "--help"}, "/x", nil, "help"},
	}
	for _, tt := range tests {
		o, err := parseArgs(tt.args)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if o.socket != tt.socket || o.verified != slices.Contains(tt.args, "--verified") || !slices.Equal(o.reply, tt.reply) || got != tt.err {
			t.Errorf("%q: %+v, error %q", tt.args, o, got)
		}
	}
}
