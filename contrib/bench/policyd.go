package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/trialstack"
	"github.com/drawbridge/drawbridge/policyd"
)

// connections is how many smtpd processes ask at once.
const connections = 64

// serve runs one side of a comparison in a process of its own.
func serve(ctx context.Context, what string, sockets ...string) error {
	if what == "stand-ins" {
		return serveStandIns(ctx, sockets)
	}
	l, err := net.Listen("unix", sockets[0])
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = l.Close() })
	switch what {
	case "dunno":
		return serveDunno(ctx, l)
	case "parsed":
		return (&policyd.Server{Gate: permitting{}, Log: hclog.NewNullLogger()}).Serve(ctx, l)
	case "policyd", "sessions":
		g, end, err := newGate(ctx)
		if err != nil {
			return err
		}
		defer end()
		for i := range connections {
			if what == "sessions" { // else nothing is known of them, and nothing is remembered
				g.Login(ctx, &access.Login{
					Account: account(i), Secret: []byte("mailbox"), Service: "smtp",
					IP: netip.MustParseAddr(fmt.Sprintf("203.0.113.%d", i)),
				})
			}
		}
		return (&policyd.Server{Gate: g, Log: hclog.NewNullLogger()}).Serve(ctx, l)
	default:
		return fmt.Errorf("%q is no server", what)
	}
}

// permitting is a gate that looks at nothing.
type permitting struct{}

func (permitting) Submission(access.Submission) access.Decision {
	return access.Decision{Outcome: access.Next}
}

func (permitting) Needs() mailflow.Needs                                      { return mailflow.Needs{} }
func (permitting) Recipient(*mailflow.Envelope) (v mailflow.Verdict)          { return v }
func (permitting) MessageEnded(*mailflow.Envelope, bool) (v mailflow.Verdict) { return v }

// serveDunno answers every request without looking at it.
func serveDunno(ctx context.Context, l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return ctx.Err()
		}
		go func() {
			defer func() { _ = c.Close() }()
			buf := make([]byte, 0, 4096)
			for {
				n, err := c.Read(buf[len(buf):cap(buf)])
				if err != nil {
					return
				}
				if buf = buf[:len(buf)+n]; !bytes.HasSuffix(buf, []byte("\n\n")) {
					continue
				}
				buf = buf[:0]
				if _, err := c.Write([]byte("action=DUNNO\n\n")); err != nil {
					return
				}
			}
		}()
	}
}

// start starts this program as a server.
func start(ctx context.Context, args ...string) (pid int, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, nil, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{"serve"}, args...)...) //nolint:gosec // this program
	cmd.Stderr = os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	return cmd.Process.Pid, func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}, nil
}

// await waits until somebody listens on each socket.
func await(sockets []string) error {
	for _, path := range sockets {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			c, err := net.Dial(network(path), path)
			if err == nil {
				_ = c.Close()
				break
			}
			if time.Now().After(end) {
				return err
			}
		}
	}
	return nil
}

// policyServer is one side of a comparison, which runs as a process of its own.
type policyServer struct {
	socket string
	pid    int
	rates  []float64 // answers a second, of each round
	costs  []float64 // processor time of an answer, in microseconds
}

// spawn starts a policy server and waits until it answers.
func spawn(ctx context.Context, what, socket string) (s *policyServer, stop func(), err error) {
	pid, stop, err := start(ctx, what, socket)
	if err != nil {
		return nil, nil, err
	}
	for range 1000 {
		c, err := net.Dial("unix", socket)
		if err == nil {
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = c.Write(request(0, account(0)))
			answer, err := bufio.NewReader(c).ReadString('\n')
			_ = c.Close()
			if err == nil && strings.HasPrefix(answer, "action=DUNNO") {
				return &policyServer{socket: socket, pid: pid}, stop, nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	stop()
	return nil, nil, fmt.Errorf("the server %s does not answer DUNNO", what)
}

// request is what Postfix 3.7 asks at RCPT of an authenticated session.
func request(i int, sender string) []byte {
	return fmt.Appendf(nil, `request=smtpd_access_policy
protocol_state=RCPT
protocol_name=ESMTP
client_address=203.0.113.%d
client_name=unknown
client_port=%d
reverse_client_name=unknown
server_address=192.0.2.25
server_port=587
helo_name=[192.168.1.20]
sender=%s
recipient=someone@elsewhere.example
recipient_count=0
queue_id=
instance=1f3c.6733a1b2.%d.0
size=2345
etrn_domain=
stress=
sasl_method=PLAIN
sasl_username=%s
sasl_sender=
ccert_subject=
ccert_issuer=
ccert_fingerprint=
ccert_pubkey_fingerprint=
encryption_protocol=TLSv1.3
encryption_cipher=TLS_AES_256_GCM_SHA384
encryption_keysize=256
policy_context=

`, i%250, 40000+i, sender, i, account(i))
}

// load asks a server over all connections for a while. The requests of a connection are by the same
// account, in turns with one of the senders.
func (s *policyServer) load(senders ...func(i int) string) error {
	var answers atomic.Int64
	var failed atomic.Value
	var all sync.WaitGroup
	begin, spent := time.Now(), trialstack.ProcessCPU(s.pid)
	end := begin.Add(time.Second)
	for i := range connections {
		all.Go(func() {
			c, err := net.Dial("unix", s.socket)
			if err != nil {
				failed.Store(err)
				return
			}
			defer func() { _ = c.Close() }()
			asks, buf := make([][]byte, len(senders)), make([]byte, 256)
			for k := range senders {
				asks[k] = request(i, senders[k](i))
			}
			for n := 0; ; n++ {
				if n%64 == 0 && time.Now().After(end) {
					answers.Add(int64(n))
					return
				}
				if _, err := c.Write(asks[n%len(asks)]); err != nil {
					failed.Store(err)
					return
				}
				if k, err := c.Read(buf); err != nil || string(buf[:k]) != "action=DUNNO\n\n" {
					failed.Store(fmt.Errorf("answered %q, %w", buf[:k], err))
					return
				}
			}
		})
	}
	all.Wait()
	if err, ok := failed.Load().(error); ok {
		return err
	}
	n := float64(answers.Load())
	s.rates = append(s.rates, n/time.Since(begin).Seconds())
	s.costs = append(s.costs, (trialstack.ProcessCPU(s.pid)-spent).Seconds()*1e6/n)
	return nil
}

// benchPolicyd compares a full decision with an answer that looks at nothing, and with one that reads
// the request and decides nothing.
func benchPolicyd(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "db-bench")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	null := func(int) string { return "" }
	rows := []struct {
		what, name, goal string
		senders          []func(int) string // in turns: only the last permit is remembered
		*policyServer
	}{
		{what: "dunno", name: "a policy server that does not look", senders: []func(int) string{account}},
		{what: "parsed", name: "policyd, every request read and none decided (floor) / no look", senders: []func(int) string{account}},
		{what: "policyd", name: "policyd, every request decided in full / no look", goal: "≥ 0.80", senders: []func(int) string{account, null}},
		{what: "sessions", name: "policyd, further commands of sessions / no look", goal: "≥ 0.80", senders: []func(int) string{account}},
	}
	for i := range rows {
		var stop func()
		if rows[i].policyServer, stop, err = spawn(ctx, rows[i].what, filepath.Join(dir, rows[i].what)); err != nil {
			return err
		}
		defer stop()
	}
	for range rounds {
		for _, r := range rows {
			if err := r.load(r.senders...); err != nil {
				return fmt.Errorf("%s: %w", r.what, err)
			}
		}
	}
	blind := rows[0]
	for _, r := range rows[1:] {
		line(r.name, fmt.Sprintf("%.2f  (%.0f / %.0f a second), CPU %.2f  (%.1f / %.1f µs)", median(r.rates)/median(blind.rates),
			median(r.rates), median(blind.rates), median(r.costs)/median(blind.costs), median(r.costs), median(blind.costs)), r.goal)
	}
	return nil
}
