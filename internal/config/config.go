// Package config reads Drawbridge's settings: a TOML file in which every setting has a default, so
// an empty file works.
//
//	state_dir = "/var/lib/drawbridge"
//	[store]
//	url = "embedded"
//	[login]
//	listen = ["unix:/run/drawbridge/login.sock?mode=0660&group=dovecot"]
//
// One table, settings, contains the settings, their documentation and their checks; WriteDefaults
// prints the manual from it. Durations are strings such as "90d", "24h" or "15m"; a day has 24
// hours. Secrets are never settings: a setting names a file, and ReadSecret reads it.
//
// # Diagnostics
//
// All faults of a file are reported at once, one line each, with the line number and the remedy:
//
//	/etc/drawbridge/drawbridge.toml:7: login.unmanaged: "allow" is not one of "deny", "next"
//	/etc/drawbridge/drawbridge.toml:9: login.unmanged: there is no such setting: did you mean login.unmanaged?
//
// Broken TOML is an exception: it is reported alone, because the rest of the file is unreliable.
//
// It does not read the environment, does not open sockets or databases, and does not watch the
// file.
package config

import (
	"net/netip"
	"time"

	"github.com/drawbridge/drawbridge/internal/listen"
)

// Config is every setting. Its fields are documented by the settings they hold (WriteDefaults
// prints the manual). The zero Config is not valid; start from Default.
type Config struct {
	StateDir string
	User     string // "" for the one that started the daemon
	Store    Store
	Login    Login
	SASL     SASL
	Policyd  Service
	Milter   Milter
	API      Service
	Console  Console
	Regions  Regions
	Sessions Sessions
	Mail     Mail
	Notify   Notify
	Log      Log
	Records  Records
	Throttle Throttle
	Guard    Guard
}

// Store is the table [store]. Target says what its addresses mean.
type Store struct {
	URL          StoreURL
	Program      string // of the embedded store's server; "" means whichever is installed
	Master       string
	Username     string
	PasswordFile string

	SentinelUsername     string
	SentinelPasswordFile string

	DB           int
	TLSCAFile    string
	TLSCertFile  string
	TLSKeyFile   string
	MinReplicas  int
	MaxStaleness time.Duration
	// AcceptEviction: a Redis that may delete documents under memory pressure is used all the same.
	AcceptEviction bool
}

// StoreURL is store.url: one server when written as a string, a Cluster's nodes or the Sentinels
// when written as a list.
type StoreURL struct {
	Addresses []string
	List      bool
}

// Login is the table [login].
type Login struct {
	Listen         []listen.Spec
	MaxConnections int // of each listener
	KeyFile        string
	NextPassdb     bool
	Unmanaged      string // Deny or Next
	// UnmanagedDomains are the domains to which Unmanaged = Next applies; "*" means all.
	UnmanagedDomains []string
	DefaultDomain    string
	Subaddress       string            // delimiters; "" for none
	Reveal           string            // RevealWeb, RevealVerified or RevealNever
	Services         map[string]string // further service name → imap, pop3, smtp or sieve
}

// SASL is the table [sasl].
type SASL struct {
	Listen         []listen.Spec
	MaxConnections int    // of each listener
	Next           string // path of a unix socket; "" for none

	MasterSeparator string // between account and master; "" for none
}

// The values of login.unmanaged.
const (
	Deny = "deny"
	Next = "next"
)

// The values of login.reveal.
const (
	RevealWeb      = "web"
	RevealVerified = "verified"
	RevealNever    = "never"
	ReportOnly     = "report"
	KnownOnly      = "known"
	ToUsers        = "mail"
	NotCompared    = "off"
)

// Service is a table of a service with listeners only; without a listener it is switched off.
type Service struct {
	Listen         []listen.Spec
	MaxConnections int // of each listener
}

// Console is the table [console].
type Console struct {
	Listen         []listen.Spec
	MaxConnections int      // of each listener
	PublicURL      string   // "" for none
	TrustedProxies []string // addresses, prefixes and ranges

	IMAP, POP3, SMTP string // host and port that users' mail programs connect to; "" for none

	ProfileCertificate, ProfileKey string // files; "" for none

	OIDCIssuer           string // "" for none
	OIDCClientID         string
	OIDCClientSecretFile string
	OIDCName             string
	OIDCClaim            string
	OIDCDomains          []string
	OIDCFactors          []string // claim=value

	HandoverOrigin  string // "" for none
	HandoverKeyFile string
}

// Milter is the table [milter].
type Milter struct {
	Listen         []listen.Spec
	MaxConnections int // of each listener
	MaxMemory      int // in MiB
}

// Regions is the table [regions].
type Regions struct {
	Database      string   // NoRegions, or as region.Open takes it
	Networks      string   // as region.OpenNetworks takes it
	NAT64Prefixes []string // checked: IPv6, 32, 40, 48, 56, 64 or 96 bits
}

// Sessions is the table [sessions].
type Sessions struct {
	Doveadm  OneOrMore // as doveadm.Parse takes them
	KeyFile  string
	SieveDir string // with %u, %n and %d; "" if it is not known
}

// Mail is the table [mail].
type Mail struct {
	InternalNetworks []string // addresses, prefixes and ranges

	HoldDir   string // "" for the directory held in StateDir
	HoldQuota int    // in MiB
	Node      string // "" for the host's name

	Postqueue []string // the command that lists Postfix' queue
	Postsuper []string // the command that deletes from it
	Postcat   []string // the command that prints queued messages

	AliasMaps []string // as Postfix names them
	Postmap   []string // the command that looks up in them
}

// Notify is the table [notify].
type Notify struct {
	SMTP    string // host and port
	LinkURL string // "" for no links

	WebhookURL        string // "" for none
	WebhookKeyFile    string
	AbnormalLogins    string // ToUsers, ReportOnly or NotCompared
	SMSWebhookURL     string // "" for none
	SMSWebhookKeyFile string
}

// OneOrMore is a list that may be written as a string.
type OneOrMore []string

// NoRegions is the value of regions.database that wants none.
const NoRegions = "none"

// Log is the table [log].
type Log struct {
	Level string // as hclog.LevelFromString takes it
	JSON  bool
}

// Records is the table [records].
type Records struct {
	Retention    time.Duration
	MaxPerDomain int
}

// Throttle is the table [throttle].
type Throttle struct {
	WrongSecretsPerAddress int
	WrongSecretsPerAccount int
	Window                 time.Duration
	Exempt                 []string // addresses, prefixes and ranges
	DistributedAddresses   int      // 0: distributed guessing is not reported
	Distributed            string   // ReportOnly or KnownOnly
}

// Guard is the table [guard].
type Guard struct {
	LockedOutPercent int
	ActiveWithin     time.Duration
}

const day = 24 * time.Hour

// Default returns the settings of an empty file.
func Default() *Config {
	return &Config{
		StateDir: "/var/lib/drawbridge",
		Store: Store{
			URL:          StoreURL{Addresses: []string{embedded}},
			MaxStaleness: day,
		},
		Login: Login{
			Listen:         []listen.Spec{{Path: "/run/drawbridge/login.sock", Mode: 0o660, Group: "dovecot"}},
			MaxConnections: listen.DefaultMaxConns,
			NextPassdb:     true,
			Unmanaged:      Deny,
			Subaddress:     "+",

			UnmanagedDomains: []string{},
			Reveal:           RevealWeb,
			Services:         map[string]string{},
		},
		SASL:    SASL{Listen: []listen.Spec{}, MaxConnections: 8192},
		Policyd: Service{Listen: []listen.Spec{{Path: "/var/spool/postfix/private/drawbridge", Mode: 0o660, Group: "postfix"}}, MaxConnections: listen.DefaultMaxConns},
		Milter:  Milter{Listen: []listen.Spec{{Path: "/var/spool/postfix/private/drawbridge-milter", Mode: 0o660, Group: "postfix"}}, MaxConnections: listen.DefaultMaxConns, MaxMemory: 256},
		API:     Service{Listen: []listen.Spec{{Path: "/run/drawbridge/api.sock"}, {Addr: loopback(8480)}}, MaxConnections: listen.DefaultMaxConns},
		Console: Console{Listen: []listen.Spec{{Addr: loopback(8482)}}, MaxConnections: listen.DefaultMaxConns, TrustedProxies: []string{}, OIDCName: "OpenID", OIDCClaim: "email", OIDCDomains: []string{}, OIDCFactors: []string{}},
		Regions: Regions{NAT64Prefixes: []string{"64:ff9b::/96"}},
		Notify:  Notify{SMTP: "127.0.0.1:25", AbnormalLogins: ToUsers},
		Log:     Log{Level: "info"},
		Records: Records{Retention: 90 * day, MaxPerDomain: 1_000_000},
		Throttle: Throttle{
			WrongSecretsPerAddress: 20,
			WrongSecretsPerAccount: 10,
			Window:                 15 * time.Minute, Exempt: []string{},
			DistributedAddresses: 100, Distributed: ReportOnly,
		},
		Mail:  Mail{InternalNetworks: []string{}, HoldQuota: 10 << 10, Postqueue: []string{"/usr/sbin/postqueue"}, Postsuper: []string{"/usr/sbin/postsuper"}, Postcat: []string{"/usr/sbin/postcat"}, AliasMaps: []string{}, Postmap: []string{"/usr/sbin/postmap"}},
		Guard: Guard{LockedOutPercent: 50, ActiveWithin: 7 * day},
	}
}

func loopback(port uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}
