package listen

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// patient outlives passing accept errors: too many open files, or a connection that broke before it
// was accepted. net/http does so by itself; other servers end at the first one.
type patient struct {
	net.Listener
	log    hclog.Logger
	closed chan struct{}
	close  func() error
	paused atomic.Bool
}

func newPatient(l net.Listener, log hclog.Logger) *patient {
	p := &patient{Listener: l, log: log, closed: make(chan struct{})}
	p.close = sync.OnceValue(func() error {
		close(p.closed)
		return p.Listener.Close()
	})
	return p
}

func (p *patient) Close() error { return p.close() }

// pause closes the socket, and has Accept wait for Close.
func (p *patient) pause() {
	p.paused.Store(true)
	_ = p.Listener.Close()
}

func (p *patient) Accept() (net.Conn, error) {
	const first, last = 5 * time.Millisecond, time.Second
	for delay := first; ; delay = min(2*delay, last) {
		c, err := p.Listener.Accept()
		if err != nil && p.paused.Load() {
			<-p.closed
			return nil, net.ErrClosed
		}
		if err == nil || !passes(err) {
			return c, err
		}
		if delay == first {
			p.log.Warn("cannot accept a connection, trying again", "listener", p.Addr().String(), "error", err)
		}
		select {
		case <-p.closed:
			return nil, net.ErrClosed
		case <-time.After(delay):
		}
	}
}

// passes reports whether an accept error says nothing about the listener itself; see "Error handling"
// in accept(2).
func passes(err error) bool {
	return slices.ContainsFunc([]syscall.Errno{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.EINTR, syscall.EPERM, syscall.EPROTO, syscall.ETIMEDOUT, syscall.ENOPROTOOPT,
		syscall.ENETDOWN, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENONET,
	}, func(e syscall.Errno) bool { return errors.Is(err, e) })
}

// filtered closes every connection that admit objects to, before a byte of it is read.
type filtered struct {
	net.Listener
	admit func(net.Conn) error
	log   hclog.Logger
}

func (f *filtered) Accept() (net.Conn, error) {
	for {
		c, err := f.Listener.Accept()
		if err != nil {
			return nil, err
		}
		refusal := f.admit(c)
		if refusal == nil {
			return c, nil
		}
		f.log.Warn("connection refused", "listener", f.Addr().String(), "reason", refusal)
		c.Close() //nolint:errcheck // nothing was exchanged that could be lost
	}
}

func admitNetworks(networks []netip.Prefix) func(net.Conn) error {
	return func(c net.Conn) error {
		tcp, ok := c.RemoteAddr().(*net.TCPAddr)
		if !ok {
			return fmt.Errorf("peer %v has no IP address", c.RemoteAddr())
		}
		peer := tcp.AddrPort().Addr().Unmap().WithZone("")
		if !slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(peer) }) {
			return fmt.Errorf("peer %s is not in allow_from", peer)
		}
		return nil
	}
}

func admitPeers(rule func(Peer) bool) func(net.Conn) error {
	return func(c net.Conn) error {
		peer, err := PeerCred(c)
		if err != nil {
			return err
		}
		if !rule(peer) {
			return fmt.Errorf("peer %s is neither root, the daemon's user, nor of the listener's user or group", peer)
		}
		return nil
	}
}

// limited keeps at most cap(slots) connections open; further ones wait in the kernel's queue.
type limited struct {
	net.Listener
	log     hclog.Logger
	slots   chan struct{} // taken before Accept, so one may belong to no connection yet
	open    atomic.Int64
	reached atomic.Uint64 // how often Accept found no free slot
	logged  time.Time     // when that was last logged; Accept's alone
	closed  chan struct{}
	close   func() error
}

// limitLogInterval keeps a listener that stays at its limit from filling the log.
const limitLogInterval = time.Minute

func newLimited(l net.Listener, n int, log hclog.Logger) *limited {
	m := &limited{Listener: l, log: log, slots: make(chan struct{}, n), closed: make(chan struct{})}
	m.close = sync.OnceValue(func() error {
		close(m.closed)
		return m.Listener.Close()
	})
	return m
}

func (m *limited) Close() error { return m.close() }

func (m *limited) Accept() (net.Conn, error) {
	select {
	case m.slots <- struct{}{}:
	default:
		m.full()
		select {
		case m.slots <- struct{}{}:
		case <-m.closed:
			return nil, net.ErrClosed
		}
	}
	c, err := m.Listener.Accept()
	if err != nil {
		<-m.slots
		return nil, err
	}
	m.open.Add(1)
	return &slotConn{Conn: c, release: sync.OnceFunc(func() {
		m.open.Add(-1)
		<-m.slots
	})}, nil
}

// full counts and logs that every slot is taken.
func (m *limited) full() {
	m.reached.Add(1)
	if now := time.Now(); now.Sub(m.logged) >= limitLogInterval {
		m.logged = now
		m.log.Warn("connection limit reached, further connections wait", "listener", m.Addr().String(), "limit", cap(m.slots))
	}
}

// slotConn gives its slot back when it is closed.
type slotConn struct {
	net.Conn
	release func()
}

func (c *slotConn) Close() error {
	defer c.release()
	return c.Conn.Close()
}

// NetConn lets PeerCred reach the socket.
func (c *slotConn) NetConn() net.Conn { return c.Conn }

// CloseWrite lets net/http end a connection without a reset, which could overtake the answer.
func (c *slotConn) CloseWrite() error {
	w, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return w.CloseWrite()
}

// CloseRead lets a server that stops read what was sent before, and fails its clients' next write at
// once.
func (c *slotConn) CloseRead() error {
	r, ok := c.Conn.(interface{ CloseRead() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return r.CloseRead()
}
