package gate_test

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// The places that logins come from.
const (
	home    = "203.0.113.9"
	cafe    = "198.51.100.20"
	office  = "192.0.2.1"
	webmail = "127.0.0.1"
)

// site is a site with one Redis and one pepper, for any number of daemons.
type site struct {
	redis  *redistest.Server
	pepper *credential.Pepper
}

func newSite(t testing.TB) *site {
	t.Helper()
	pepper, err := credential.CreatePepper(filepath.Join(t.TempDir(), "pepper"))
	if err != nil {
		t.Fatal(err)
	}
	return &site{redis: redistest.Start(t), pepper: pepper}
}

// daemon is one daemon of the site, without its doors.
type daemon struct {
	*gate.Gate
	t     testing.TB
	site  *site
	redis *redisstore.Redis
	log   *lines
	stop  func() // ends the gate as a daemon does that is told to stop
}

// lines keeps what is logged.
type lines struct{ redistest.Lines }

// decisions returns the lines of decisions, without what the logger puts before them.
func (l *lines) decisions() (list []string) {
	for line := range strings.Lines(l.String()) {
		if text, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "[INFO]  "); ok {
			list = append(list, text)
		}
	}
	return list
}

// open makes a daemon whose store is not loaded yet.
func (s *site) open(t testing.TB, set func(*gate.Options)) *daemon {
	t.Helper()
	d := &daemon{t: t, site: s, log: &lines{}}
	st, redis := redistest.NewStore(t, s.redis.Options())
	d.redis = redis
	st.State.Delimiters = "+"
	o := gate.Options{
		Store: st, Journal: redis, Buckets: redis, Pepper: s.pepper, Hasher: credential.NewHasher(0),
		Log:          hclog.New(&hclog.LoggerOptions{Output: d.log, DisableTime: true}),
		MaxStaleness: time.Hour,
		Throttle:     throttle.Limits{PerAddress: 5, PerAccount: 3, Window: time.Hour},
	}
	if set != nil {
		set(&o)
	}
	d.Gate = gate.New(o)
	return d
}

// daemon makes one that runs until the test ends.
func (s *site) daemon(t testing.TB, set func(*gate.Options)) *daemon {
	t.Helper()
	d := s.open(t, set)
	redistest.Run(t, d.Store)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); d.Run(ctx) }()
	d.stop = func() { cancel(); <-done }
	t.Cleanup(d.stop)
	d.ready()
	return d
}

func (d *daemon) ready() {
	d.t.Helper()
	redistest.Eventually(d.t, "the store is loaded", func() bool { return d.Available(time.Now()) && d.Store.Trouble() == nil })
}

func next(o *gate.Options) { o.Site.NextPassdb = true }

// change makes one change of a domain's shard.
func (d *daemon) change(domain string, f func(*store.Change) error) {
	d.t.Helper()
	err := d.Store.Update(context.Background(), store.ShardOf(domain), store.Actor{Name: "test"}, false, f)
	if err != nil {
		d.t.Fatal(err)
	}
}

// domain puts example.org, which example.net is an alias of.
func (d *daemon) domain(set func(*store.Domain)) {
	d.t.Helper()
	doc := &store.Domain{Name: "example.org", AliasDomains: []string{"example.net"}}
	if set != nil {
		set(doc)
	}
	d.change(doc.Name, func(c *store.Change) error { c.PutDomain(doc); return nil })
}

func (d *daemon) policy(p access.Policy) {
	d.t.Helper()
	d.change("example.org", func(c *store.Change) error { c.PutPolicy("example.org", &store.Policy{Policy: p}); return nil })
}

// account puts or changes an account.
func (d *daemon) account(addr string, set func(*store.Account)) {
	d.t.Helper()
	d.change(address.Domain(addr), func(c *store.Change) error {
		doc := store.Account{Address: addr}
		if r, ok := d.Store.State.Account(addr); ok {
			doc = *r.Doc
		}
		if set != nil {
			set(&doc)
		}
		c.PutAccount(&doc)
		return nil
	})
}

// clients says what proves a client type.
func (d *daemon) clients(name access.ClientType, networks ...string) {
	d.t.Helper()
	d.evidence(name, access.Evidence{Networks: networks})
}

func (d *daemon) evidence(name access.ClientType, e access.Evidence) {
	d.t.Helper()
	err := d.Store.Update(context.Background(), store.Global, store.Actor{Name: "test"}, false, func(c *store.Change) error {
		c.PutClientType(&store.ClientType{Type: name, Evidence: []access.Evidence{e}})
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// device makes a secure password whose id and label are the device's name.
func (d *daemon) device(addr, name string) (secret string) {
	d.t.Helper()
	b, err := credential.Generate()
	if err != nil {
		d.t.Fatal(err)
	}
	d.account(addr, func(a *store.Account) {
		a.Secrets = append(slices.Clone(a.Secrets), store.SecurePassword{
			ID: name, Label: name, Hash: d.Pepper.Hash(addr, b), PepperID: d.Pepper.ID(), CreatedAt: time.Now(),
		})
	})
	return string(b)
}

func (d *daemon) revoke(addr, name string) {
	d.t.Helper()
	d.account(addr, func(a *store.Account) {
		if !a.Revoke(name, time.Now()) {
			d.t.Errorf("%s has no %s to revoke", addr, name)
		}
	})
}

// kept is a mailbox password as it is kept here: of a scheme that costs nothing, so that many can
// be tried.
func kept(password string) string {
	sum := sha256.Sum256([]byte(password))
	return "{SHA256}" + base64.StdEncoding.EncodeToString(sum[:])
}

// mailbox keeps "right" as the mailbox password of each account.
func (d *daemon) mailbox(addrs ...string) {
	d.t.Helper()
	for _, addr := range addrs {
		d.account(addr, func(a *store.Account) { a.MailboxHash = kept("right") })
	}
}

func (d *daemon) suspend(addr string) {
	d.t.Helper()
	d.account(addr, func(a *store.Account) { a.Suspended = true })
}

func ip(s string) netip.Addr {
	if s == "" {
		return netip.Addr{}
	}
	return netip.MustParseAddr(s)
}

func imap(account, secret, from string) *access.Login {
	return &access.Login{Account: account, Secret: []byte(secret), Service: "imap", IP: ip(from), RealIP: ip(from), Mechanism: "PLAIN"}
}

// smtp is a login as Postfix asks for it: without ports and session.
func smtp(account, secret, from string) *access.Login {
	l := imap(account, secret, from)
	l.Service = "smtp"
	return l
}

func (d *daemon) login(l *access.Login) access.Decision {
	return d.Login(context.Background(), l)
}

// want logs in and compares how it ends: "allow ok".
func (d *daemon) want(l *access.Login, ends string) access.Decision {
	d.t.Helper()
	got := d.login(l)
	if s := end(got); s != ends {
		d.t.Errorf("login of %s with %q from %v: %s, want %s", l.Account, l.Secret, l.IP, s, ends)
	}
	return got
}

func end(d access.Decision) string { return d.Outcome.String() + " " + string(d.Reason) }

// mail is one request of a submission session: the port names the connection.
func mail(account, from string, port uint16) access.Submission {
	return access.Submission{Account: account, IP: ip(from), Port: port}
}

// wantMail asks for a submission session and compares the answer.
func (d *daemon) wantMail(s access.Submission, ends string) access.Decision {
	d.t.Helper()
	got := d.Submission(s)
	if s2 := end(got); s2 != ends {
		d.t.Errorf("submission of %s from %v port %d: %s, want %s", s.Account, s.IP, s.Port, s2, ends)
	}
	return got
}

// records returns the login records of example.org, oldest first, without those written twice
// because an answer of Redis was lost.
func (d *daemon) records() []store.LoginRecord {
	items, _, err := d.redis.Records(context.Background(), store.RecordQuery{Domain: "example.org", Limit: 1000})
	if err != nil {
		return nil // Redis is away
	}
	slices.Reverse(items)
	seen := map[string]bool{}
	return slices.DeleteFunc(items, func(r store.LoginRecord) bool {
		was := seen[r.ID]
		seen[r.ID] = true
		return was
	})
}

// wantRecords waits until there are records of these ends, oldest first, and no others.
func (d *daemon) wantRecords(ends ...string) []store.LoginRecord {
	d.t.Helper()
	var got []store.LoginRecord
	defer func() {
		if d.t.Failed() {
			d.t.Logf("records: %+v", got)
		}
	}()
	redistest.Eventually(d.t, strings.Join(ends, ", ")+" on record", func() bool {
		got = d.records()
		return slices.EqualFunc(got, ends, func(r store.LoginRecord, want string) bool {
			return r.Outcome.String()+" "+string(r.Reason) == want
		})
	})
	return got
}
