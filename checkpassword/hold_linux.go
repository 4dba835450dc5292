package checkpassword

import (
	"strconv"
	"syscall"
)

// maxHeld bounds the processes that wait at a time, for each user and socket.
const maxHeld = 64

// hold waits until by, if one of the places to wait is free; else it returns at once, and the
// client gets 535. A place is the name of an abstract unix socket, so that the kernel frees it when
// the process ends.
func hold(socket string, by instant) {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_DGRAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return
	}
	first := syscall.Getpid() // spreads simultaneous ones
	for i := range maxHeld {
		if syscall.Bind(fd, &syscall.SockaddrUnix{Name: place(socket, (first+i)%maxHeld)}) == nil {
			_ = wait(-1, 0, by)
			return
		}
	}
}

// place names the nth place of this user and socket.
func place(socket string, n int) string {
	return "@drawbridge-checkpassword." + strconv.Itoa(syscall.Getuid()) + "." +
		strconv.FormatUint(hash(socket), 16) + "." + strconv.Itoa(n)
}

// hash is 64-bit FNV-1a.
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return h
}
