// Package serving runs the connections of a server whose peers keep them open for many requests: it
// takes them from a listener, and at the end lets each answer the request that it has begun. The protocols are
// its callers'.
//
// # Diagnostics
//
// A panic ends its connection, and is logged with its stack. How connections end otherwise is for
// the protocol to tell.
//
// # Limits
//
// An accept error ends the server. Listeners of internal/listen outlive those that pass, such as
// too many open files, and bound the number of connections.
package serving

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Session is how a protocol treats one connection.
type Session struct {
	// Answer answers the connection until it ends. It need not close it.
	Answer func()
	// FinishReading ends the wait for the next request; what was read before is still answered. It
	// is called while Answer runs.
	FinishReading func()
}

// stopTimeout bounds the wait for requests in flight.
const stopTimeout = 5 * time.Second

// Serve takes connections from ln and opens a session for each until ctx is done, then closes ln,
// answers requests in flight for at most 5 s and returns nil. It returns an error when ln fails, or
// when connections had to be cut off. The protocol's name stands in errors and in the log.
func Serve(ctx context.Context, ln net.Listener, protocol string, log hclog.Logger, open func(net.Conn) Session) error {
	conns := connections{protocol: protocol, log: log, open: map[net.Conn]Session{}}
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	err := conns.accept(ctx, ln, open)
	_ = ln.Close()
	return errors.Join(err, conns.finish(stopTimeout))
}

// connections are those that a Serve has open.
type connections struct {
	protocol string
	log      hclog.Logger

	mu   sync.Mutex
	open map[net.Conn]Session
	busy sync.WaitGroup
}

func (cs *connections) accept(ctx context.Context, ln net.Listener, open func(net.Conn) Session) error {
	for {
		c, err := ln.Accept()
		switch {
		case err == nil:
			s := open(c)
			cs.add(c, s)
			go func() {
				defer cs.remove(c)
				cs.answer(s)
			}()
		case ctx.Err() != nil:
			return nil //nolint:nilerr // ln was closed because ctx ended
		default:
			return fmt.Errorf("accepting %s connections: %w", cs.protocol, err)
		}
	}
}

func (cs *connections) answer(s Session) {
	defer func() {
		if v := recover(); v != nil {
			cs.log.Error("panic on a "+cs.protocol+" connection", "panic", ASCII(fmt.Sprint(v)), "stack", ASCII(string(debug.Stack())))
		}
	}()
	s.Answer()
}

func (cs *connections) add(c net.Conn, s Session) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.open[c] = s
	cs.busy.Add(1)
}

func (cs *connections) remove(c net.Conn) {
	_ = c.Close()
	cs.mu.Lock()
	delete(cs.open, c)
	cs.mu.Unlock()
	cs.busy.Done()
}

func (cs *connections) each(f func(net.Conn, Session)) (n int) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c, s := range cs.open {
		f(c, s)
	}
	return len(cs.open)
}

// finish waits until requests in flight are answered, and closes connections that take longer than
// patience.
func (cs *connections) finish(patience time.Duration) error {
	cs.each(func(_ net.Conn, s Session) { s.FinishReading() })
	done := make(chan struct{})
	go func() {
		cs.busy.Wait()
		close(done)
	}()
	select {
	case <-done:
		return nil
	case <-time.After(patience):
		n := cs.each(func(c net.Conn, _ Session) { _ = c.Close() })
		return fmt.Errorf("stopping: %d %s connections were cut off after %v", n, cs.protocol, patience)
	}
}

// ASCII returns a text as one line of ASCII, for the log. Quotes are left to the log, which escapes
// them itself.
func ASCII(s string) string {
	quoted := strconv.QuoteToASCII(s)
	return strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
}
