// Package trialstack runs a whole mail site on loopback, in one directory: Debian's Dovecot 2.3 or
// 2.4 (IMAP, POP3, ManageSieve, LMTP), whichever is installed, Postfix (port 25 and both submission
// services) and drawbridged. It uses the snippets of contrib/dovecot and contrib/postfix as they
// are shipped. "make run" starts it for people; the end-to-end tests use it as well.
//
//	stack, err := trialstack.New("/tmp/trial", trialstack.Options{Bin: "bin"})
//	…
//	err = stack.Start(ctx)
//	defer stack.Stop()
//	imap, err := mailclient.Client{From: trialstack.Outside}.IMAP(ctx, stack.IMAP())
//	reply, err := imap.Login("ann@example.org", "ann-mailbox") // reply.Status: "NO [AUTHENTICATIONFAILED] …"
//
// The source address selects the client's role. All of 127.0.0.0/8 is this machine, so a client
// binds to an address in Office, to Webmail or to Outside, and the servers see that address.
//
// The system's own Postfix, Dovecot and Redis are never read or changed, running or not; only their
// programs are used. Mail for foreign domains is returned; none leaves the machine. The directory
// keeps mail, the queue, drawbridged's state and the logs (log/*.log) between runs. New rewrites
// the configuration, and each start of Dovecot clears its runtime directory.
//
// # Stopping
//
// Each server leads a session of its own. Stop sends SIGTERM to the leader, then ends the rest of
// that session by process id: Dovecot's auth process and a running checkpassword outlive their
// master and would keep its sockets. When this process dies, the kernel sends SIGTERM to the
// leaders, except Postfix, which loses that setting when it changes its user. The next Start in the
// directory ends survivors.
//
// # Diagnostics
//
// New reports all faults at once: not being root, a missing program (with the line that installs
// it), a Dovecot other than 2.3 and 2.4, and a directory that is too long, has unusual characters,
// is not empty or cannot be reached by the servers' users. Start reports a taken port and the
// process that has it; a server that ends or is not ready in time is reported with the last lines
// of its log.
//
// # Limits
//
// It needs root, installs nothing and creates no domains or rules: use [Daemon.Command] or
// [Daemon.HTTP].
package trialstack

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/drawbridge/drawbridge/internal/freeport"
	"github.com/drawbridge/drawbridge/internal/mailclient"
)

// Source addresses of clients. They need no network interface.
const (
	Office  = "127.0.1.0/24" // the company's network; its first host is 127.0.1.1
	Webmail = "127.0.0.5"    // the site's webmail, which may forward its user's address to Dovecot
	Outside = "127.0.9.9"    // any other client
	// Balancer is the site's load balancer, from which clients can have any address: see
	// [Balanced].
	Balancer = "127.0.0.6"
)

// Balanced returns a client with any address, connected through the site's load balancer.
func Balanced(ip netip.Addr) mailclient.Client {
	return mailclient.Client{From: Balancer, Behind: ip}
}

// The site's master user, who logs in as "ann@example.org*master".
const (
	MasterUser     = "master"
	MasterPassword = "master-secret"
)

// Hostname is the servers' host name, also in the certificate.
const Hostname = "mail.example.org"

// QuickFailures removes Dovecot's delay after a failed login and the growing delays for further
// attempts from that address. Use it as [Options.DovecotConf].
const QuickFailures = `
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}`

// An Account is a mailbox of the site with its password in the site's own passdb.
type Account struct {
	Address  string
	Password string
	Hash     string // Dovecot's form of Password; "" means {SSHA512} of it
	Fields   string // extra fields of the site's passdb, such as "user=ann@example.org"
}

// DemoAccounts are the default mailboxes. The last one's domain is not managed in the demo.
func DemoAccounts() []Account {
	return []Account{
		{"ann@example.org", "ann-mailbox", "{BLF-CRYPT}$2y$05$sdKI10E9j1zhBB6veDm0LOH/wWjKZ5W1OBWee8YPqel/iRamgh6w.", ""},
		{"bob@example.org", "bob-mailbox", "{SHA512-CRYPT}$6$lAmgP6OzuzwHLd//$uoFkDAeZbf9hyGHqzrSuj/mUPH/.aCEfJASDwQqs15vgx.mKnaUxpLtK6ASfGqWzIERGTB29Pn3WK/SFmCTjN0", ""},
		{"carol@example.org", "carol-mailbox", "{BLF-CRYPT}$2y$05$3BsrKp3UUFSTJhiA6s2eQOlBwbR8HAPY1.3dF3qpcfvbEBIH6bJiG", ""},
		{"dave@example.org", "dave-mailbox", "{SHA512-CRYPT}$6$FclTTPXtwx.b0KMj$uM7nKxCGhHEKfkJ/MsyZgu4oNqDFoEfqzoiV./OMUGos/vWFqJkb1qhKB1h1uZ4Pkz8dCzFKFn1XKLG21XhGX1", ""},
		{"eve@example.net", "eve-mailbox", "{SHA512-CRYPT}$6$JI9FSJfHzdOLbJ0.$5o8cauIFvA/6oGyOyYbymIWUZqFKIJAudfCiW22EBjmnO7KJSpI7XD.sia7md5KMdlnKTf0O/Gm.o3DBshWTI/", ""},
	}
}

// Options select a variation of the site; the zero value has one daemon with the embedded store.
type Options struct {
	Ports    Ports     // zero selects a free port
	Accounts []Account // nil means DemoAccounts

	WithoutDrawbridge bool   // the site before Drawbridge: no daemon, no snippets
	Bin               string // directory of the three commands, as Build leaves it; copied into the stack's

	// Daemons is the number of drawbridged processes; 0 means one. Dovecot and Postfix ask the
	// first; each has its own sockets and state. More than one needs SharedRedis.
	Daemons     int
	SharedRedis bool // one redis-server of the stack's, instead of store.url = "embedded"

	// StoreOf is a running stack with SharedRedis, whose store and pepper the daemons use: both are machines of
	// one site. Give each its own "mail.node".
	StoreOf *Stack

	// Settings are added to each daemon's, by dotted name: {"login.unmanaged": "next"}. Without
	// "regions.database" there is no region database.
	Settings map[string]any

	DovecotConf string // appended to dovecot.conf
	MainCF      string // appended to main.cf, in place of earlier entries of these names

	// Outgoing has mail to these domains pass the smtpd of master.cf.drawbridge-outgoing. It comes
	// back to Dovecot, whosever they are.
	Outgoing []string

	// SASLServices makes Postfix name its listeners to Dovecot, submission587 and submission465;
	// the setting login.services must map them.
	SASLServices bool

	// SASLDoor points Postfix at the first daemon (setting sasl.listen), which relays logins to
	// Dovecot (sasl.next).
	SASLDoor bool

	// Lua has Dovecot 2.3 ask by the Lua script in place of checkpassword, as 2.4 does always.
	Lua bool

	// DoorAlone keeps Dovecot from asking Drawbridge again about logins that come through SASLDoor.
	DoorAlone bool

	// Verified adds the second passdb behind the site's own, in place of the check after
	// authentication.
	Verified bool

	// PolicyOnly leaves out Drawbridge's passdb: Dovecot asks by its auth-policy check alone.
	PolicyOnly bool
}

// A Stack is one site. Its services can be stopped, killed and started separately.
type Stack struct {
	Dir      string // absolute
	Ports    Ports
	Accounts []Account

	Dovecot *Service
	Postfix *Service
	Redis   *Service  // nil without SharedRedis
	Daemons []*Daemon // empty without Drawbridge

	opts     Options
	series   string // of Dovecot: "2.3" or "2.4"
	lock     *os.File
	reserved freeport.Reservation
	died     chan error
}

// New writes a stack to dir, which must be empty, missing or an earlier stack's, and starts
// nothing. It needs root, and locks dir until Stop.
func New(dir string, opts Options) (*Stack, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("trial stack: %w", err)
	}
	s := &Stack{Dir: dir, Accounts: opts.Accounts, opts: opts, died: make(chan error, 8)}
	if s.Accounts == nil {
		s.Accounts = DemoAccounts()
	}
	if opts.Daemons == 0 {
		s.opts.Daemons = 1
	}
	if opts.WithoutDrawbridge {
		s.opts.Daemons = 0
	}
	s.series, err = checkPrograms(s.opts)
	if err := errors.Join(s.opts.check(), err, CheckDir(dir)); err != nil {
		return nil, fmt.Errorf("trial stack: %w", err)
	}
	if err := s.lay(); err != nil {
		s.reserved.Free()
		s.unlock()
		return nil, fmt.Errorf("trial stack in %s: %w", dir, err)
	}
	return s, nil
}

// check validates the options and reports all faults.
func (o Options) check() error {
	var faults []error
	if o.Daemons < 0 {
		faults = append(faults, fmt.Errorf("option Daemons is %d: want 1 or more", o.Daemons))
	}
	if o.Daemons > 1 && !o.SharedRedis {
		faults = append(faults, fmt.Errorf("option Daemons is %d: set SharedRedis, an embedded store serves one", o.Daemons))
	}
	if !o.WithoutDrawbridge && o.Bin == "" {
		faults = append(faults, errors.New("no directory with the commands: set Bin"))
	}
	for _, a := range o.Accounts {
		local, domain, full := strings.Cut(a.Address, "@")
		if local == "" || full && domain == "" || strings.ContainsAny(a.Address, ": \t\r\n") {
			faults = append(faults, fmt.Errorf("account %q: want local@domain, or a bare name", a.Address))
		}
	}
	return errors.Join(faults...)
}

// lay locks the directory, chooses ports and writes all files.
func (s *Stack) lay() error {
	if err := s.takeDir(); err != nil {
		return err
	}
	if err := s.choosePorts(); err != nil {
		return err
	}
	if err := s.define(); err != nil {
		return err
	}
	return s.write()
}

// takeDir locks the directory for this process. It does not change one that contains other files.
func (s *Stack) takeDir() error {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil { //nolint:gosec // G301: the servers' users pass through
		return err
	}
	marker := filepath.Join(s.Dir, ".trialstack")
	if _, err := os.Lstat(marker); errors.Is(err, os.ErrNotExist) {
		entries, err := os.ReadDir(s.Dir)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			return errors.New("the directory is not empty and not an earlier trial's: name an empty one, or one that does not exist (make run TRIAL_DIR=…)")
		}
	}
	f, err := os.OpenFile(marker, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o644) //nolint:gosec // G302, G304: nothing secret, in the caller's directory
	if err != nil {
		return err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close() // nothing was written
		return errors.New("another trial stack is running in this directory: stop it, or name another directory and other ports (make run TRIAL_DIR=… PORT_OFFSET=1000)")
	}
	s.lock = f
	return makeDir(s.Dir, 0o755, 0, 0) // only once it is known to be ours
}

// unlock releases the directory.
func (s *Stack) unlock() {
	if s.lock != nil {
		_ = s.lock.Close() // nothing was written
		s.lock = nil
	}
}

// services returns all services in starting order.
func (s *Stack) services() []*Service {
	var list []*Service
	if s.Redis != nil {
		list = append(list, s.Redis)
	}
	for _, d := range s.Daemons {
		list = append(list, d.Service)
	}
	return append(list, s.Dovecot, s.Postfix)
}

// Start starts all services and returns when they are ready. On an error it stops those that it
// started.
func (s *Stack) Start(ctx context.Context) error {
	if s.lock == nil {
		return errors.New("start the trial stack: it was stopped; make another with New")
	}
	err := s.start(ctx)
	if err != nil {
		return errors.Join(fmt.Errorf("start the trial stack: %w", err), s.Stop())
	}
	return nil
}

func (s *Stack) start(ctx context.Context) error {
	for _, service := range s.services() {
		service.endLeftovers()
	}
	if err := s.checkPorts(); err != nil {
		return err
	}
	// Postfix creates its queue directory, in which drawbridged and Dovecot open sockets.
	if err := s.checkPostfix(ctx); err != nil {
		return err
	}
	for _, service := range s.services() {
		if err := service.Start(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends all services in reverse order and releases the directory, whose files stay. It takes a
// bounded number of seconds. The error names servers that had to be killed or ended with a fault. A
// second Stop does nothing.
func (s *Stack) Stop() error {
	var faults []error
	for _, service := range slices.Backward(s.services()) {
		faults = append(faults, service.Stop())
	}
	s.reserved.Free()
	s.unlock()
	return errors.Join(faults...)
}

// CPU is the processor time of all servers' processes, to a hundredth of a second. Orphans that ended
// are missing.
func (s *Stack) CPU() (sum time.Duration) {
	for _, service := range s.services() {
		sum += ProcessCPU(service.PID())
	}
	return sum
}

// Died receives an error for each server that ended without Stop or Kill.
func (s *Stack) Died() <-chan error { return s.died }

// IMAP is the address "127.0.0.1:port" of IMAP with STARTTLS.
func (s *Stack) IMAP() string { return loopback(s.Ports.IMAP) }

// IMAPS is the address of IMAP over TLS.
func (s *Stack) IMAPS() string { return loopback(s.Ports.IMAPS) }

// POP3 is the address of POP3 with STLS.
func (s *Stack) POP3() string { return loopback(s.Ports.POP3) }

// POP3S is the address of POP3 over TLS.
func (s *Stack) POP3S() string { return loopback(s.Ports.POP3S) }

// Sieve is the address of ManageSieve with STARTTLS.
func (s *Stack) Sieve() string { return loopback(s.Ports.Sieve) }

// SMTP is the address in place of port 25: mail from anywhere, no logins.
func (s *Stack) SMTP() string { return loopback(s.Ports.SMTP) }

// Submission is the address in place of port 587: STARTTLS, then a login.
func (s *Stack) Submission() string { return loopback(s.Ports.Submission) }

// SMTPS is the address in place of port 465: TLS, then a login.
func (s *Stack) SMTPS() string { return loopback(s.Ports.SMTPS) }

// BalancedIMAP is the IMAP address for clients behind the load balancer.
func (s *Stack) BalancedIMAP() string { return loopback(s.Ports.BalancedIMAP) }

// BalancedSubmission is the submission address for clients behind the load balancer.
func (s *Stack) BalancedSubmission() string { return loopback(s.Ports.BalancedSubmission) }

// DovecotConf is the path of dovecot.conf, for "doveadm -c" and "doveconf -c".
func (s *Stack) DovecotConf() string { return s.path("etc", "dovecot.conf") }

// PostfixDir is Postfix' configuration directory, for "postconf -c" and "sendmail -C".
func (s *Stack) PostfixDir() string { return s.path("etc", "postfix") }

// Certificate is the path of the self-signed certificate, for "curl --cacert".
func (s *Stack) Certificate() string { return s.path("tls", "cert.pem") }

// Roots returns a pool that contains the stack's certificate.
func (s *Stack) Roots() (*x509.CertPool, error) {
	text, err := os.ReadFile(s.Certificate())
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate", s.Certificate())
	}
	return pool, nil
}

// Inbox is [Stack.Mailbox] of an account's inbox.
func (s *Stack) Inbox(address string) ([]string, error) { return s.Mailbox(address, "") }

// Mailbox reads the messages of a folder, "" for the inbox, from the disk, in no order. Messages
// that are still being delivered are not among them.
func (s *Stack) Mailbox(address, folder string) ([]string, error) {
	local, domain, _ := strings.Cut(address, "@")
	if folder != "" {
		folder = "." + folder
	}
	for {
		messages, err := readMaildir(s.path("mail", domain, local, "Maildir", folder))
		if !errors.Is(err, fs.ErrNotExist) {
			return messages, err
		}
		// Dovecot renamed a file between its listing and its reading.
	}
}

func readMaildir(dir string) (messages []string, err error) {
	for _, sub := range []string{"new", "cur"} {
		files, err := filepath.Glob(filepath.Join(dir, sub, "*"))
		if err != nil {
			return nil, err
		}
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				return nil, err
			}
			messages = append(messages, string(text))
		}
	}
	return messages, nil
}

func (s *Stack) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

func loopback(port int) string {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(port)).String() //nolint:gosec // G115: ports were checked
}
