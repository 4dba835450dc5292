package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	systemd "github.com/coreos/go-systemd/v22/daemon"
	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/approval"
	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/hold"
	"github.com/drawbridge/drawbridge/internal/listen"
	"github.com/drawbridge/drawbridge/internal/livesessions"
	"github.com/drawbridge/drawbridge/internal/loginapi"
	"github.com/drawbridge/drawbridge/internal/metrics"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/region"
	"github.com/drawbridge/drawbridge/internal/saslauth"
	"github.com/drawbridge/drawbridge/internal/secondfactor"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
	"github.com/drawbridge/drawbridge/internal/unusual"
	"github.com/drawbridge/drawbridge/internal/withdraw"
	"github.com/drawbridge/drawbridge/milter"
	"github.com/drawbridge/drawbridge/policyd"
)

// stopWithin bounds how long a stop waits for requests in flight.
const stopWithin = 5 * time.Second

// drainWithin bounds how long SMTP sessions may take to end before that.
const drainWithin = 2 * time.Second

// sockets are all listeners, bound before anything is served.
type sockets struct {
	login, sasl, policyd, milter, api, console []socket
}

type socket struct {
	spec listen.Spec
	*listen.Listener
}

// open binds the listeners. The owner of unix sockets is uid unless their text names one; 0 leaves
// the process's own user.
func open(cfg *config.Config, uid int, log hclog.Logger) (*sockets, error) {
	s := &sockets{}
	var faults []error
	kept := inherit(cfg, uid, log)
	each := func(name string, list *[]socket, specs []listen.Spec, o listen.Options) {
		for _, spec := range specs {
			o.Log, o.Owner, o.Kept = log.Named(name), uid, kept
			l, err := listen.Open(spec, o)
			switch {
			case errors.Is(err, fs.ErrNotExist) && (name == "policyd" || name == "milter" || name == "sasl"):
				faults = append(faults, fmt.Errorf("%s.listen: %w (without Postfix on this machine, write %s.listen = [])", name, err, name))
				continue
			case err != nil:
				faults = append(faults, fmt.Errorf("%s.listen: %w", name, err))
				continue
			}
			*list = append(*list, socket{spec, l})
		}
	}
	each("login", &s.login, cfg.Login.Listen, listen.Options{OwnersOnly: true, MaxConns: cfg.Login.MaxConnections})
	each("sasl", &s.sasl, cfg.SASL.Listen, listen.Options{OwnersOnly: true, MaxConns: cfg.SASL.MaxConnections})
	each("policyd", &s.policyd, cfg.Policyd.Listen, listen.Options{MaxConns: cfg.Policyd.MaxConnections})
	each("milter", &s.milter, cfg.Milter.Listen, listen.Options{MaxConns: cfg.Milter.MaxConnections})
	each("api", &s.api, cfg.API.Listen, listen.Options{MaxConns: cfg.API.MaxConnections})
	each("console", &s.console, cfg.Console.Listen, listen.Options{MaxConns: cfg.Console.MaxConnections})
	if len(faults) > 0 {
		s.close()
		return nil, errors.Join(faults...)
	}
	for _, l := range s.all() {
		keep(l, log)
	}
	return s, nil
}

func (s *sockets) all() []socket {
	return slices.Concat(s.login, s.sasl, s.policyd, s.milter, s.api, s.console)
}

// drain lets the SMTP sessions end that a milter's socket has: Postfix would refuse the rest of them for
// now. Others wait for the next run, if the service manager keeps the socket; else it does nothing.
func (s *sockets) drain() {
	for _, l := range s.milter {
		if !l.Pause() {
			return
		}
	}
	open := func() (n int) {
		for _, l := range s.milter {
			connections, _ := l.Connections()
			n += connections
		}
		return n
	}
	for end := time.Now().Add(drainWithin); open() > 0 && time.Now().Before(end); {
		time.Sleep(10 * time.Millisecond)
	}
}

func (s *sockets) close() {
	for _, l := range s.all() {
		_ = l.Close() // closed before, when all went well
	}
}

// parts are the parts that the services share.
type parts struct {
	cfg               *config.Config
	log               hclog.Logger
	version           string
	store             *store.Store
	redis             *redisstore.Redis
	pepper            *credential.Pepper
	hasher            *credential.Hasher
	gate              *gate.Gate
	metrics           *metrics.Metrics
	regions, networks *region.Source

	loginKey *loginKey
	watcher  *unusual.Watcher
	withdraw *withdraw.Site
	live     *livesessions.Sessions // nil if no doveadm is known
	links    *approval.Links
	keeper   *hold.Keeper // not nil if there is a milter
	factors  *secondfactor.Verifier
	notify   func(*notify.Notice)
}

// serve runs all services until ctx ends and requests in flight are answered.
func serve(ctx context.Context, fail context.CancelCauseFunc, s *sockets, p *parts) error {
	ending := ctx
	ctx, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	defer context.AfterFunc(ending, func() {
		reportState(p.log, systemd.SdNotifyStopping)
		s.drain()
		end()
	})()
	a := newAdmin(p) // one for all: it serialises changes of domain names
	uses := p.redis.KeyUses()
	a.KeyUses = uses
	pages, closePages, err := newPages(p, a) //nolint:contextcheck // a page has its request's
	if err != nil {
		return err
	}
	defer closePages()
	go remind(ctx, p, a)
	go inspectDomains(ctx, p, a)
	go uses.Run(ctx)
	api, err := apiServer(p, a)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	start := func(what string, l socket, run func(net.Listener) error) {
		p.metrics.Listener(what, l.Listener.Addr().String(), l.Connections, l.LimitReached)
		running.Go(func() {
			if err := run(l.Listener); err != nil && ctx.Err() == nil {
				fail(fmt.Errorf("%s on %s: %w", what, l.spec, err))
			}
		})
	}
	for _, l := range s.login {
		var authorised func(string) bool
		if !l.spec.Unix() {
			authorised = p.loginKey.is
		}
		start("login", l, func(n net.Listener) error {
			return serveHTTP(ctx, n, httpServer(loginapi.Handler(timedLogins{p.gate, p.metrics.Took(metrics.LoginSeconds, "login")}, authorised), p.log))
		})
	}
	for _, l := range s.sasl {
		timed := timedLogins{p.gate, p.metrics.Took(metrics.LoginSeconds, "sasl")}
		start("sasl", l, func(n net.Listener) error {
			return (&saslauth.Server{Gate: timed, Log: p.log.Named("sasl"), Next: p.cfg.SASL.Next, MasterSeparator: p.cfg.SASL.MasterSeparator}).Serve(ctx, n)
		})
	}
	for _, l := range s.policyd {
		timed := timedPolicy{p.gate, p.metrics.Took(metrics.PolicySeconds, "submission"), p.metrics.Took(metrics.PolicySeconds, "recipient")}
		start("policyd", l, func(n net.Listener) error {
			return (&policyd.Server{Gate: timed, Log: p.log.Named("policyd")}).Serve(ctx, n)
		})
	}
	stage := func(name string) func(time.Duration) { return p.metrics.Took(metrics.MilterSeconds, name) }
	timed := timedMilter{p.gate, stage("begin"), stage("session"), stage("end")}
	mail := &milter.Server{Gate: timed, Rules: timed, Envelopes: p.gate, Keeper: p.keeper, Log: p.log.Named("milter"), MaxMemory: int64(p.cfg.Milter.MaxMemory) << 20}
	for _, l := range s.milter {
		start("milter", l, func(n net.Listener) error { return mail.Serve(ctx, n) })
	}
	for _, l := range s.api {
		start("api", l, func(n net.Listener) error { return serveHTTP(ctx, n, api()) })
	}
	for _, l := range s.console {
		start("console", l, func(n net.Listener) error { return serveHTTP(ctx, n, httpServer(pages(l.spec.TLS()), p.log)) })
	}
	p.log.Info("ready", "version", p.version)
	reportState(p.log, systemd.SdNotifyReady)
	running.Wait()
	return nil
}

func httpServer(h http.Handler, log hclog.Logger) *http.Server {
	return &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      60 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          log.Named("http").StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
}

// serveHTTP serves until ctx ends, then answers the requests in flight.
func serveHTTP(ctx context.Context, l net.Listener, s *http.Server) error {
	var stopped sync.WaitGroup
	stopped.Add(1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if s.Shutdown(limit) != nil {
			_ = s.Close()
		}
		stopped.Done()
	})
	err := s.Serve(l)
	if stop() {
		stopped.Done() // Serve failed by itself
	}
	stopped.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// loginKey is the key of the inet login listeners. Without one, every key is wrong.
type loginKey struct {
	hash atomic.Pointer[[sha256.Size]byte]
}

// load reads the key from a file; "" is no file.
func (k *loginKey) load(file string) error {
	hash, err := readLoginKey(file)
	if err == nil {
		k.hash.Store(hash)
	}
	return err
}

func readLoginKey(file string) (*[sha256.Size]byte, error) {
	if file == "" {
		return nil, nil
	}
	secret, err := config.ReadSecret(file)
	if err != nil {
		return nil, fmt.Errorf("login.key_file: %w", err)
	}
	hash := sha256.Sum256(secret)
	clear(secret)
	return &hash, nil
}

// is compares hashes, so that the time it takes shows neither content nor length of the key.
func (k *loginKey) is(bearer string) bool {
	want := k.hash.Load()
	got := sha256.Sum256([]byte(bearer))
	return want != nil && subtle.ConstantTimeCompare(got[:], want[:]) == 1
}
