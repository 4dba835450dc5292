package trialstack

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"github.com/drawbridge/drawbridge/internal/freeport"
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

// choosePorts chooses the ports that the options do not name.
func (s *Stack) choosePorts() error {
	s.Ports = s.opts.Ports
	var faults []error
	for _, p := range s.Ports.named() {
		switch {
		case *p.number < 0 || *p.number > 65535:
			faults = append(faults, fmt.Errorf("port %d for %s: want 1 to 65535", *p.number, p.name))
		case *p.number == 0:
			port, err := s.reserved.Port()
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
		err := freeport.Vacant(*p.number)
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
