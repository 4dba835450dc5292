// Package daemon wires drawbridged: store, gate and the services that ask it.
//
// It starts from what others need: state directory, database of regions, sockets, secrets, the user
// of the settings, embedded store, store, pepper, gate, services. It stops in reverse: no new
// connections, requests in flight are answered, records are written, the store is closed; each step
// is bounded.
//
// Diagnostics: an error at the start is one line that says what to do. A store that cannot be
// reached is no error, unless there is no pepper yet: logins are then decided from the snapshot, or
// are temporary failures without one.
package daemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/embedded"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/habit"
	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/metrics"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
	"github.com/drawbridge/drawbridge/internal/store/snapshot"
	"github.com/drawbridge/drawbridge/internal/store/spool"
	"github.com/drawbridge/drawbridge/internal/throttle"
	"github.com/drawbridge/drawbridge/internal/unusual"
)

// maxSpool bounds the login records and counters that wait on the disk for Redis, in bytes; about
// 150 000 logins.
const maxSpool = 64 << 20

// firstStart is how long a daemon without a pepper waits for the store.
const firstStart = 15 * time.Second

// Check finds settings that this version cannot carry out, and databases of regions and networks
// that cannot be used. It opens nothing else: files that settings name may not exist yet.
func Check(cfg *config.Config) error {
	_, noUser := findUser(cfg.User)
	_, err := openRegions(cfg)
	_, noNetworks := openNetworks(cfg)
	return errors.Join(noUser, err, noNetworks)
}

// Run is the daemon: it serves until ctx ends or a part fails for good. The API reports version.
func Run(ctx context.Context, cfg *config.Config, reload Reload, log hclog.Logger, version string) error {
	user, err := findUser(cfg.User)
	if err != nil {
		return err
	}
	if err := prepareState(cfg.StateDir, user); err != nil {
		return err
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)

	regions, err := openRegions(cfg)
	if err != nil {
		return err
	}
	networks, err := openNetworks(cfg)
	if err != nil {
		return err
	}
	sockets, err := open(cfg, user.uid, log) //nolint:contextcheck // binding takes no time worth a context
	if err != nil {
		return err
	}
	defer sockets.close()

	key := &loginKey{}
	if err := key.load(cfg.Login.KeyFile); err != nil {
		return err
	}
	opt, err := redisOptions(cfg)
	if err != nil {
		return err
	}
	// From here on nothing runs as root: not redis-server, no service.
	if err := user.become(); err != nil {
		return err
	}
	user.warnOfFiles(cfg, log)
	if cfg.Store.Embedded() {
		server, err := embedded.Start(ctx, embedded.Options{
			Dir: filepath.Join(cfg.StateDir, "redis"), Program: cfg.Store.Program, Log: log.Named("redis"),
		})
		if err != nil {
			return err
		}
		defer stopEmbedded(server, log) //nolint:contextcheck // ctx has ended when it stops
		go func() {
			select {
			case <-server.Done():
				fail(server.Err())
			case <-ctx.Done():
			}
		}()
		opt.Addrs = []string{strings.TrimPrefix(server.URL(), "unix://")}
	}
	meters := metrics.New()
	opt.Took = meters.TookEach(metrics.StoreSeconds)
	redisstore.SetLogger(log.Named("redis"))
	redis := redisstore.Open(opt)
	defer func() { _ = redis.Close() }()
	if !cfg.Store.Embedded() && !cfg.Store.AcceptEviction {
		if err := refuseEviction(ctx, redis); err != nil {
			return err
		}
	}

	st := &store.Store{
		Log: redis, Upkeep: redis, State: store.NewState(), Logger: log.Named("store"),
		Marker:  marker(filepath.Join(cfg.StateDir, "store-id")),
		Inspect: redis.Servers, PutBack: opt.Cluster || opt.Master != "", AcceptEviction: cfg.Store.AcceptEviction,
	}
	st.State.Delimiters = cfg.Login.Subaddress
	if !cfg.Store.Embedded() { // which is on the same disk, and is never away
		files, err := snapshot.Open(filepath.Join(cfg.StateDir, "snapshot"))
		if err != nil {
			return fmt.Errorf("state_dir: opening the snapshot: %w", err)
		}
		defer func() { _ = files.Close() }()
		st.Snapshot = files
	}
	waiting, err := spool.Open(filepath.Join(cfg.StateDir, "spool"), maxSpool)
	if err != nil {
		return fmt.Errorf("state_dir: opening the spool: %w", err)
	}
	// Some parts still run when ctx has ended. They stop in this order: services, the gate's
	// records, the store's reader.
	storeCtx, stopStore := context.WithCancel(context.WithoutCancel(ctx))
	var storeDone sync.WaitGroup
	storeDone.Go(func() { st.Run(storeCtx) })
	defer storeDone.Wait()
	defer stopStore()

	pepper, err := findPepper(ctx, filepath.Join(cfg.StateDir, "pepper"), st)
	if err != nil {
		return err
	}
	hasher := credential.NewHasher(credential.DefaultMemory)
	hasher.Took = meters.TookEach(metrics.HashSeconds)
	exempt, _ := address.ParseNetworks(cfg.Throttle.Exempt) // validated when the settings were read
	internal, _ := address.ParseNetworks(cfg.Mail.InternalNetworks)
	client := &inject.Client{Addr: cfg.Notify.SMTP}
	notifier, err := notices(cfg, client, log.Named("notices"))
	if err != nil {
		return err
	}
	go notifier.Run(ctx)
	watcher := abnormalLogins(cfg, redis, notifier, regions, networks, log)
	g := gate.New(gate.Options{
		Store: st, Journal: redis, Buckets: redis, Spool: waiting, Pepper: pepper, Hasher: hasher, Log: log,
		Site:          access.Site{NextPassdb: cfg.Login.NextPassdb, Reveal: reveal(cfg.Login.Reveal)},
		DefaultDomain: cfg.Login.DefaultDomain, Services: cfg.Login.Services, Unmanaged: unmanaged(cfg),
		MaxStaleness: cfg.Store.MaxStaleness, Region: regions.Lookup, Network: networks.Network, Decided: meters.Decision, MessageDecided: meters.Message, Examine: watcher.Examine,
		Throttle: throttle.Limits{
			PerAddress: cfg.Throttle.WrongSecretsPerAddress, PerAccount: cfg.Throttle.WrongSecretsPerAccount, Window: cfg.Throttle.Window,
			Distributed: cfg.Throttle.DistributedAddresses, KnownOnly: cfg.Throttle.Distributed == config.KnownOnly,
		},
		Exempt: exempt, Internal: internal, Node: nodeName(cfg), GuessingBegan: guessingNotice(notifier),
	})
	watchGate(meters, g)
	watchFiles(meters, regions, networks, cfg.StateDir)
	live, err := liveSessions(cfg, st, redis, g, log)
	if err != nil {
		return err
	}
	if live != nil {
		g.Sessions = live
	}
	links := approvalLinks(cfg, pepper)
	keeper, err := openKeeper(cfg, st, client, links, log)
	if err != nil {
		return err
	}
	if keeper != nil {
		keeperCtx, stopKeeper := context.WithCancel(context.WithoutCancel(ctx))
		var keeperDone sync.WaitGroup
		keeperDone.Go(func() {
			keeper.Run(keeperCtx)
			_ = keeper.Dir.Close()
		})
		defer keeperDone.Wait()
		defer stopKeeper()
		g.Pass, g.ForwardingRefused = keeper.PassOf, keeper.ForwardingRefused
		go reportNode(ctx, redis, keeper.Node)
	}
	factors, err := secondFactors(cfg, st, redis, pepper, client)
	if err != nil {
		return err
	}
	g.Factor = factors.Verify
	gateCtx, stopGate := context.WithCancel(context.WithoutCancel(ctx))
	var gateDone sync.WaitGroup
	gateDone.Go(func() { g.Run(gateCtx) })
	defer gateDone.Wait()
	defer stopGate()
	go func() { // a store with another pepper stops the daemon, whenever it is found
		if err := agreePepper(ctx, pepper, filepath.Join(cfg.StateDir, "pepper"), st); err != nil {
			fail(err)
		}
	}()
	go expireRecords(ctx, st, redis, pepper, log)
	go anchorAudit(ctx, redis, log.Named("audit"))
	regionsChanged := g.RegionsChanged
	if live != nil {
		regionsChanged = func() {
			g.RegionsChanged()
			live.JudgeAll()
		}
		go live.Run(ctx)
		go countSessions(ctx, meters, live)
	}
	go regions.Run(ctx, log.Named("regions"), regionsChanged)
	go networks.Run(ctx, log.Named("regions"), func() {})
	go feedWatchdog(ctx, log, func() { g.Explain(&access.Login{Account: "watchdog@invalid"}, "", nil) })
	go missRegions(ctx, regions, st, log)

	go (&reloader{
		Reload: reload, running: cfg, log: log, sockets: sockets, redis: redis, loginKey: key, regions: regions, networks: networks,
		regionsChanged: func() {
			regionsChanged()
			warnOfRegions(regions, st, log)
		},
	}).run(ctx)
	err = serve(ctx, fail, sockets, &parts{
		cfg: cfg, log: log, version: version, store: st, redis: redis, pepper: pepper, hasher: hasher, gate: g, metrics: meters, regions: regions, networks: networks,
		loginKey: key, watcher: watcher, withdraw: withdrawSite(cfg), live: live, links: links, keeper: keeper, factors: factors, notify: notifier.Notify,
	})
	if cause := context.Cause(ctx); err == nil && cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause
	}
	return err
}

// refuseEviction returns an error if the store's server may delete documents. A server that is away
// or refuses to answer is no error: the running store checks again, and raises an alarm.
func refuseEviction(ctx context.Context, redis *redisstore.Redis) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	servers, err := redis.Servers(ctx)
	if err != nil || servers.Policy == store.NoEviction {
		return nil
	}
	return fmt.Errorf("store.url: the Redis server deletes rules when its memory is full (maxmemory-policy %s): "+
		"set maxmemory-policy noeviction there, or accept it with store.accept_eviction = true", servers.Policy)
}

// unmanaged returns which domains that are not managed are left to the next passdb.
func unmanaged(cfg *config.Config) gate.Unmanaged {
	var u gate.Unmanaged
	if cfg.Login.Unmanaged != config.Next {
		return u
	}
	u.Domains = make(map[string]bool, len(cfg.Login.UnmanagedDomains))
	for _, domain := range cfg.Login.UnmanagedDomains {
		u.Domains[domain] = true
	}
	u.All = u.Domains["*"]
	return u
}

func reveal(word string) access.Reveal {
	switch word {
	case config.RevealVerified:
		return access.RevealVerified
	case config.RevealNever:
		return access.RevealNever
	default:
		return access.RevealWeb
	}
}

// prepareState creates the state directory, or refuses one of another user. The user that the
// daemon changes to becomes its owner.
func prepareState(dir string, user daemonUser) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil { //nolint:gosec // the user must pass through it
		return fmt.Errorf("state_dir: %w: create it, owned by the user that drawbridged runs as", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("state_dir: %w: create it, owned by the user that drawbridged runs as", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("state_dir: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("state_dir: %s can be written by others: chmod go-w %s", dir, dir)
	}
	want := os.Geteuid()
	if user.changes() {
		want = user.uid
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(owner.Uid) == want:
		return nil
	case owner.Uid == 0 && user.changes():
		if err := user.own(dir); err != nil {
			return fmt.Errorf("state_dir: making it %s's: %w", user.name, err)
		}
		return nil
	}
	return fmt.Errorf("state_dir: %s belongs to uid %d, and drawbridged runs as uid %d: chown it, or name another directory", dir, owner.Uid, want)
}

func redisOptions(cfg *config.Config) (redisstore.Options, error) {
	opt := redisstore.Options{
		MinReplicas: cfg.Store.MinReplicas,
		Retention:   cfg.Records.Retention, MaxRecords: int64(cfg.Records.MaxPerDomain),
	}
	target, err := cfg.Store.Target()
	if err != nil || target.Embedded {
		return opt, err
	}
	opt.Addrs, opt.Cluster, opt.Master, opt.DB = target.Addresses, target.Cluster, target.Master, cfg.Store.DB
	opt.SentinelUsername = cfg.Store.SentinelUsername
	if cfg.Store.SentinelPasswordFile != "" {
		secret, err := config.ReadSecret(cfg.Store.SentinelPasswordFile)
		if err != nil {
			return opt, fmt.Errorf("store.sentinel_password_file: %w", err)
		}
		opt.SentinelPassword = string(secret)
	}
	opt.Access, err = redisAccess(&cfg.Store, target.TLS)
	return opt, err
}

// redisAccess reads the files that say how connections to Redis authenticate.
func redisAccess(c *config.Store, withTLS bool) (redisstore.Access, error) {
	a := redisstore.Access{Username: c.Username}
	if c.PasswordFile != "" {
		secret, err := config.ReadSecret(c.PasswordFile)
		if err != nil {
			return a, fmt.Errorf("store.password_file: %w", err)
		}
		a.Password = string(secret)
	}
	var err error
	if withTLS {
		a.TLS, err = redisTLS(c)
	}
	return a, err
}

func redisTLS(c *config.Store) (*tls.Config, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.TLSCAFile != "" {
		pem, err := os.ReadFile(c.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("store.tls_ca_file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("store.tls_ca_file: %s holds no certificate in PEM form", c.TLSCAFile)
		}
	}
	if c.TLSCertFile != "" {
		pair, err := tls.LoadX509KeyPair(c.TLSCertFile, c.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("store.tls_cert_file: %w", err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, nil
}

// marker is the file that remembers which store this daemon belongs to.
type marker string

// StoreID implements [store.Marker].
func (m marker) StoreID() (string, error) {
	b, err := os.ReadFile(string(m))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading the id of the known store: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// SetStoreID implements [store.Marker].
func (m marker) SetStoreID(id string) error {
	if now, err := m.StoreID(); err == nil && now == id {
		return nil
	}
	if err := writeSynced(string(m), id+"\n"); err != nil {
		return fmt.Errorf("recording the id of the known store: %w", err)
	}
	return nil
}

func writeSynced(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// findPepper reads the pepper, or creates one when the store has none yet. It never creates one for
// a store in use: its secure passwords could not be verified any more.
func findPepper(ctx context.Context, path string, st *store.Store) (*credential.Pepper, error) {
	pepper, err := credential.LoadPepper(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return pepper, err
	}
	if !loaded(ctx, st, firstStart) {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("%s is missing, and whether one is in use cannot be determined: %w", path, orUnavailable(st.Trouble()))
	}
	if st.State.Pepper() != "" {
		return nil, errMissing(path)
	}
	return credential.CreatePepper(path)
}

func errMissing(path string) error {
	return fmt.Errorf("%s is missing, and the store's secure passwords were hashed with one: put it back from a backup or from another node", path)
}

func orUnavailable(err error) error {
	if err == nil {
		return store.ErrUnavailable
	}
	return err
}

// loaded waits for the store's first load.
func loaded(ctx context.Context, st *store.Store, most time.Duration) bool {
	limit := time.NewTimer(most)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if ok, _ := st.State.Ready(); ok {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-limit.C:
			return false
		case <-tick.C:
		}
	}
}

// agreePepper notes the pepper's fingerprint in a new store, and compares it in one that has
// another daemon's, now and again whenever a store is adopted.
func agreePepper(ctx context.Context, pepper *credential.Pepper, path string, st *store.Store) error {
	for ctx.Err() == nil {
		if !loaded(ctx, st, time.Minute) {
			continue
		}
		switch st.State.Pepper() {
		case pepper.Fingerprint():
		case "":
			err := st.Update(ctx, store.Global, store.Actor{Name: "daemon"}, false, func(c *store.Change) error {
				if st.State.Pepper() == "" {
					c.Audit.Action, c.Audit.Target = "pepper.note", pepper.ID()
					c.PutPepper(pepper.Fingerprint())
				}
				return nil
			})
			if err == nil {
				continue
			}
		default:
			return fmt.Errorf("%s is not the pepper that the store's secure passwords were hashed with: put the right one in its place, from a backup or from another node", path)
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
	return nil
}

// openRegions loads the region database. A daemon does not start without one that is named: rules
// by region would mean something else.
func openRegions(cfg *config.Config) (*region.Source, error) {
	if cfg.Regions.Database == config.NoRegions {
		return &region.Source{}, nil
	}
	nat64, err := nat64Prefixes(cfg)
	if err != nil {
		return nil, err
	}
	regions, err := region.Open(cfg.Regions.Database, nat64...)
	if err != nil {
		return nil, fmt.Errorf("regions.database: %w: repair it, name another, or write \"none\"", err)
	}
	return regions, nil
}

func nat64Prefixes(cfg *config.Config) (list []netip.Prefix, err error) {
	for _, text := range cfg.Regions.NAT64Prefixes {
		n, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("regions.nat64_prefixes: %w", err)
		}
		list = append(list, n)
	}
	return list, nil
}

// openNetworks opens the database of networks, none unless the settings name one.
func openNetworks(cfg *config.Config) (*region.Source, error) {
	nat64, err := nat64Prefixes(cfg)
	if err != nil {
		return nil, err
	}
	networks, err := region.OpenNetworks(cfg.Regions.Networks, nat64...)
	if err != nil {
		return nil, fmt.Errorf("regions.networks: %w: repair it, name another, or leave it empty", err)
	}
	return networks, nil
}

// abnormalLogins returns what compares logins with the usual ones; nil if they are not compared.
func abnormalLogins(cfg *config.Config, redis *redisstore.Redis, notifier *notify.Notifier, regions, networks *region.Source, log hclog.Logger) *unusual.Watcher {
	place := func(ip netip.Addr) (habit.Place, bool) {
		p, ok := regions.Place(ip)
		return habit.Place{Latitude: p.Latitude, Longitude: p.Longitude, Radius: float64(p.Radius)}, ok
	}
	w := &unusual.Watcher{Memories: redis, Log: log, Notify: notifier.Notify, Place: place, Network: networks.Network}
	switch cfg.Notify.AbnormalLogins {
	case config.NotCompared:
		return nil
	case config.ReportOnly:
		w.Notify = func(n *notify.Notice) {
			n.Subject = "" // the webhook alone
			notifier.Notify(n)
		}
	}
	return w
}

// missRegions calls warnOfRegions once the store is loaded.
func missRegions(ctx context.Context, regions *region.Source, st *store.Store, log hclog.Logger) {
	for !loaded(ctx, st, time.Minute) {
		if ctx.Err() != nil {
			return
		}
	}
	warnOfRegions(regions, st, log)
}

// warnOfRegions logs which domains have policies with regions when there is no region database.
func warnOfRegions(regions *region.Source, st *store.Store, log hclog.Logger) {
	if domains := st.State.NamingRegions(); len(domains) > 0 && regions.Database() == nil {
		log.Error("policies name regions, and there is no region database: until regions.database names one, their blacklists refuse every public address and their whitelists admit none", "domains", domains)
	}
}

// expireRecords deletes and pseudonymises old records, every hour and when a domain's settings change.
func expireRecords(ctx context.Context, st *store.Store, redis *redisstore.Redis, pepper *credential.Pepper, log hclog.Logger) {
	changes := st.State.Watch()
	defer changes.Close()
	for next := time.Now().Add(time.Hour); ; {
		wait, cancel := context.WithDeadline(ctx, next)
		e, err := changes.Next(wait)
		cancel()
		if ctx.Err() != nil {
			return
		}
		var domains []string
		if err == nil {
			domains = e.Domains
		} else {
			for _, d := range st.State.Domains("", 0) {
				domains = append(domains, d.Doc.Name)
			}
			next = time.Now().Add(time.Hour)
		}
		for _, name := range domains {
			d, ok := st.State.Domain(name)
			if !ok || err == nil && d.Doc.Records == nil {
				continue
			}
			if fault := expire(ctx, redis, d.Doc, pepper); fault != nil && ctx.Err() == nil {
				log.Warn("deleting old login records", "domain", name, "error", fault)
			}
		}
	}
}

func expire(ctx context.Context, redis *redisstore.Redis, d *store.Domain, pepper *credential.Pepper) error {
	now, keep := time.Now(), store.RecordPolicy{}
	if d.Records != nil {
		keep = *d.Records
	}
	if err := redis.Expire(ctx, d.Name, now, keep.Retention); err != nil || keep.PseudonymiseAfter == 0 {
		return err
	}
	return redis.Pseudonymise(ctx, d.Name, now.Add(-keep.PseudonymiseAfter), pepper.Pseudonym)
}

// anchorAudit logs the ends of the audit's chains every hour if they have changed: a log that is kept
// elsewhere then proves what the audit was.
func anchorAudit(ctx context.Context, redis *redisstore.Redis, log hclog.Logger) {
	last := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Hour):
		}
		heads, err := redis.AuditHeads(ctx)
		if err != nil {
			log.Debug("reading the ends of the audit", "error", err)
			continue
		}
		if anchor := (&store.AuditReport{Heads: heads}).Anchor(); anchor != last {
			last = anchor
			log.Info("audit", "anchor", anchor)
		}
	}
}

func stopEmbedded(s *embedded.Server, log hclog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		log.Error("stopping the embedded store", "error", err)
	}
}
