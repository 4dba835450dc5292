// Package freeport chooses TCP ports of 127.0.0.1 for servers of trial stacks and tests.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// A Reservation keeps all other reservations of this machine, of any process, from choosing the same
// ports, also while their servers are stopped. It holds an abstract unix socket for each port, so that
// the port itself is free for its server. The zero value is empty.
type Reservation struct {
	held []net.Listener
}

// Port reserves a port that nobody listens on, from 15000 to 31999: below those that Linux gives to
// outgoing connections, one of which could take it before the server does. It returns an error after
// 200 ports that are taken.
func (r *Reservation) Port() (int, error) {
	const low, high, tries = 15000, 32000, 200
	for range tries {
		port := low + rand.IntN(high-low) //nolint:gosec // G404: no secret
		l, err := net.Listen("unix", fmt.Sprintf("@drawbridge-port-%d", port))
		if err != nil {
			continue
		}
		if err := Vacant(port); err != nil {
			_ = l.Close() // no client connected
			continue
		}
		r.held = append(r.held, l)
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d after %d tries", low, high, tries)
}

// Free gives the ports back.
func (r *Reservation) Free() {
	for _, l := range r.held {
		_ = l.Close() // no client connected
	}
	r.held = nil
}

// Vacant returns an error, such as [syscall.EADDRINUSE], if a port cannot be listened on.
func Vacant(port int) error {
	// A process that is being started has a copy of the listener until its exec.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return err
	}
	return l.Close()
}
