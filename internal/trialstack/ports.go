package trialstack

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"syscall"
)

// Ports are the TCP ports of a stack, all on 127.0.0.1.
type Ports struct {
	IMAP, IMAPS, POP3, POP3S, Sieve int // Dovecot
	SMTP, Submission, SMTPS         int // Postfix
	BalancedIMAP                    int // Dovecot, behind the load balancer
	BalancedSubmission              int // Postfix, likewise
	Outgoing                        int // Postfix, that mail to other sites passes
	API, Login, Console             int // the first drawbridged
}

// DemoPorts returns fixed ports that people can type, each increased by offset.
func DemoPorts(offset int) Ports {
	p := Ports{
		IMAP: 10143, IMAPS: 10993, POP3: 10110, POP3S: 10995, Sieve: 14190,
		SMTP: 10025, Submission: 10587, SMTPS: 10465, BalancedIMAP: 10144, BalancedSubmission: 10588, Outgoing: 10027,
		API: 8480, Login: 8481, Console: 8482,
	}
	for _, port := range p.named() {
		*port.number += offset
	}
	return p
}

type namedPort struct {
	name   string
	number *int
}

func (p *Ports) named() []namedPort {
	return []namedPort{
		{"imap", &p.IMAP},
		{"imaps", &p.IMAPS},
		{"pop3", &p.POP3},
		{"pop3s", &p.POP3S},
		{"sieve", &p.Sieve},
		{"smtp", &p.SMTP},
		{"submission", &p.Submission},
		{"smtps", &p.SMTPS},
		{"balanced imap", &p.BalancedIMAP},
		{"balanced submission", &p.BalancedSubmission},
		{"outgoing", &p.Outgoing},
		{"api", &p.API},
		{"login", &p.Login},
		{"console", &p.Console},
	}
}

// A reservation keeps other stacks of this machine, of any process, from choosing the same ports.
// It holds an abstract unix socket for each port, so that the port itself is free for its server.
type reservation []net.Listener

func (r *reservation) free() {
	for _, l := range *r {
		_ = l.Close() // no client connected
	}
	*r = nil
}

// port reserves a free port below the kernel's range for outgoing connections.
func (r *reservation) port() (int, error) {
	const low, high, tries = 15000, 32000, 200
	for range tries {
		port := low + rand.IntN(high-low) //nolint:gosec // G404: no secret
		l, err := net.Listen("unix", fmt.Sprintf("@trialstack-port-%d", port))
		if err != nil {
			continue
		}
		if err := vacant(port); err != nil {
			_ = l.Close() // no client connected
			continue
		}
		*r = append(*r, l)
		return port, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d after %d tries", low, high, tries)
}

// vacant returns an error if a port cannot be listened on.
func vacant(port int) error {
	// A process that is being started has a copy of the listener until its exec.
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	l, err := net.Listen("tcp", loopback(port))
	if err != nil {
		return err
	}
	return l.Close()
}

// choosePorts chooses the ports that the options do not name.
func (s *Stack) choosePorts() error {
	s.Ports = s.opts.Ports
	var faults []error
	for _, p := range s.Ports.named() {
		switch {
		case *p.number < 0 || *p.number > 65535:
			faults = append(faults, fmt.Errorf("port %d for %s: want 1 to 65535", *p.number, p.name))
		case *p.number == 0:
			port, err := s.reserved.port()
			if err != nil {
				faults = append(faults, err)
			}
			*p.number = port
		}
	}
	return errors.Join(faults...)
}

// ErrPortTaken is returned by Start when another process listens on a port of the stack.
var ErrPortTaken = errors.New("ports are taken")

// checkPorts reports each port that another process listens on.
func (s *Stack) checkPorts() error {
	var taken []string
	for _, p := range s.Ports.named() {
		err := vacant(*p.number)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			taken = append(taken, fmt.Sprintf("\n\tport %d (%s)%s", *p.number, p.name, holder(*p.number)))
		case err != nil:
			return fmt.Errorf("port %d for %s: %w", *p.number, p.name, err)
		}
	}
	if len(taken) > 0 {
		return fmt.Errorf("%w: stop what has them, or choose others:%s", ErrPortTaken, strings.Join(taken, ""))
	}
	return nil
}
