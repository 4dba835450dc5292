// Package access is the vocabulary and the decision engine for logins.
//
// Reading this file is reading the design: who logs in ([Login]), with what kind of program
// ([ClientType]), under which rules ([Policy], [Scope], compiled into [Rules]), and what is
// answered ([Decision]).
//
// The package is pure: no I/O, no clock, no context, no log. What it lacks it asks for through
// [Asker].
package access

import (
	"net/netip"
	"time"
)

// Outcome is what an adapter has to carry out. The zero value is not an answer; an adapter that
// meets it says temporary failure.
type Outcome uint8

// The outcomes of a decision.
const (
	Allow    Outcome = iota + 1 // admit
	Deny                        // refuse, finally
	Next                        // the rules permit; the secret is for the site's next passdb
	TempFail                    // cannot tell now
)

func (o Outcome) String() string {
	switch o {
	case Allow:
		return "allow"
	case Deny:
		return "deny"
	case Next:
		return "next"
	case TempFail:
		return "tempfail"
	default:
		return ""
	}
}

// ParseOutcome is the inverse of [Outcome.String]; the zero Outcome for any other word.
func ParseOutcome(s string) Outcome {
	for o := Allow; o <= TempFail; o++ {
		if o.String() == s {
			return o
		}
	}
	return 0
}

// MarshalText implements [encoding.TextMarshaler].
func (o Outcome) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements [encoding.TextUnmarshaler]; unknown words become the zero Outcome.
func (o *Outcome) UnmarshalText(b []byte) error { *o = ParseOutcome(string(b)); return nil }

// Reason is the stable code of why a decision came out as it did.
type Reason string

// The reason codes.
const (
	ReasonOK               Reason = "ok"
	ReasonPolicy           Reason = "policy"
	ReasonIPBlocked        Reason = "ip_blocked"
	ReasonProtocol         Reason = "protocol_disabled"
	ReasonSecureRequired   Reason = "secure_password_required"
	ReasonBadSecret        Reason = "bad_secret"
	ReasonRevokedSecret    Reason = "revoked_secret" // a revoked or expired secure password of the account
	ReasonSuspended        Reason = "suspended"
	ReasonThrottled        Reason = "throttled"
	ReasonPasswordExpired  Reason = "password_expired"
	ReasonUnknownAccount   Reason = "unknown_account"
	ReasonUnmanagedDomain  Reason = "unmanaged_domain"
	ReasonStoreUnavailable Reason = "store_unavailable"
	ReasonSenderNotOwned   Reason = "sender_not_owned" // of a message: MAIL FROM is not the submitter's
)

// Protocol is what a client speaks. The zero value is a service that is no login.
type Protocol uint8

// The protocols that people log in with.
const (
	IMAP Protocol = iota + 1
	POP3
	SMTP  // authenticated submission
	Sieve // ManageSieve
	Web   // Drawbridge's own pages, or a webmail that asks the API itself
)

// SwitchedProtocols are those that have a switch (F3).
var SwitchedProtocols = [...]Protocol{IMAP, POP3, SMTP, Sieve}

var protocolNames = [...]string{"", "imap", "pop3", "smtp", "sieve", "web"}

func (p Protocol) String() string {
	if int(p) < len(protocolNames) {
		return protocolNames[p]
	}
	return ""
}

// ParseProtocol returns the protocol of a name, or the zero value.
func ParseProtocol(name string) Protocol {
	for p := IMAP; p <= Web; p++ {
		if protocolNames[p] == name {
			return p
		}
	}
	return 0
}

// ProtocolOfService maps Dovecot's service names, and the further names that the setting
// login.services gives, to a protocol; zero when it is no login.
func ProtocolOfService(service string, further map[string]string) Protocol {
	switch service {
	case "imap", "pop3", "smtp", "sieve", "web":
		return ParseProtocol(service)
	case "submission":
		return SMTP
	}
	return ParseProtocol(further[service])
}

// Switches are protocol switches; a protocol that is absent is inherited.
type Switches map[string]bool

// Compile makes the switches fit for decisions.
func (s Switches) Compile() Switched {
	var c Switched
	for name, on := range s {
		c.Switch(ParseProtocol(name), on)
	}
	return c
}

// Switched are compiled [Switches]: a bit for each protocol. The zero value inherits all.
type Switched struct{ set, on uint8 }

// Switch turns a protocol on or off, and no other.
func (s *Switched) Switch(p Protocol, on bool) {
	s.set |= 1 << p
	s.on &^= 1 << p
	if on {
		s.on |= 1 << p
	}
}

// Switched returns whether a protocol is on, and false when it is inherited.
func (s Switched) Switched(p Protocol) (on, set bool) { return s.on>>p&1 != 0, s.set>>p&1 != 0 }

// ClientType is what kind of program logs in.
type ClientType string

// The client types with a meaning of their own.
const (
	ClientWeb          ClientType = "web"
	ClientConsole      ClientType = "console"
	ClientThirdParty   ClientType = "third-party"
	ClientCloudFetcher ClientType = "cloud-fetcher"
)

// KnownClientTypes are the names that need no registration; a site adds its own.
var KnownClientTypes = [...]ClientType{
	ClientWeb, ClientConsole, "native-desktop", "native-mobile", "outlook-addin",
	"chat-desktop", "chat-mobile", "social", ClientCloudFetcher, ClientThirdParty,
}

// Own reports whether the type is one of the site's own clients: all but third-party and
// cloud-fetcher. The empty type proved nothing and is not.
func (c ClientType) Own() bool {
	return c != "" && c != ClientThirdParty && c != ClientCloudFetcher
}

// What stands for a region in a query where there is none to name. The empty region is that of
// addresses that have none, such as private ones.
const (
	// RegionUnknown is that of a public address that the database does not know. It is in no
	// policy's list: it matches nothing.
	RegionUnknown = "unknown"
	// RegionNoDatabase is that of a public address while there is no database. It might be any: it
	// is in no whitelist, and in every blacklist that names regions, so that a database that is
	// missing weakens no rule.
	RegionNoDatabase = "untold"
)

// ShownRegion returns a region as decisions, records and previews show it: without a database there
// is none to show.
func ShownRegion(region string) string {
	if region == RegionNoDatabase {
		return ""
	}
	return region
}

// Lookup tells a login apart from Dovecot's look-ups (AUTHORIZED=1).
type Lookup uint8

// The kinds of look-up.
const (
	LookupNone        Lookup = iota // a login: the secret is here
	LookupCredentials               // a mechanism that hides the secret, or LMTP and doveadm
	LookupUser                      // a userdb look-up
)

// SecureMode is an account's own choice about secure passwords (F7).
type SecureMode string

// The modes; the zero value means [SecureOptional].
const (
	SecureOptional SecureMode = "optional" // a secure password or the mailbox password
	SecureRequired SecureMode = "required" // third-party clients need a secure password
	SecureOff      SecureMode = "off"      // secure passwords are inactive
)

// Login is one attempt to come in, as the door saw it.
type Login struct {
	Account    string // as typed
	Secret     []byte
	Service    string
	Protocol   Protocol
	IP         netip.Addr // the user's address; invalid when unknown
	RealIP     netip.Addr // the TCP peer; differs from IP only behind a trusted proxy or webmail
	LocalIP    netip.Addr
	LocalPort  uint16
	ServerName string // TLS SNI
	TLS        bool
	ClientCert string // fingerprint or name of a certificate that the server verified
	Mechanism  string
	Session    string
	MasterUser string // set when a master, already authenticated, logs in as Account
	Lookup     Lookup
	ClientID   string // IMAP ID: a label, proof of nothing
	Relayed    bool   // by the SASL door to the mail server's own passdbs, under this Session
	Time       time.Time
}

// NoLogin reports whether nobody comes in by this: a userdb look-up, or a passdb look-up of LMTP or
// doveadm, which names no mechanism. A client that logs in by a mechanism that hides the secret
// names one, so that a service that is mapped to no protocol does not let it past the rules.
func (l *Login) NoLogin() bool {
	return l.Lookup == LookupUser || l.Lookup == LookupCredentials && l.Protocol == 0 && l.Mechanism == ""
}

// RelayedSession begins the session ids that the SASL door makes, for logins with Relayed.
const RelayedSession = "sasl-"

// Decision is the answer to a login. Message is all that the outsider may be told; everything else
// is for the operator.
type Decision struct {
	Outcome      Outcome    `json:"outcome"`
	Reason       Reason     `json:"reason"`
	Message      string     `json:"message"`
	Account      string     `json:"account"`
	User         string     `json:"user,omitempty"` // the name that the mail server continues with; set with allow and next
	Client       ClientType `json:"client"`
	Region       string     `json:"region"`
	PolicyID     string     `json:"policy_id"`
	CredentialID string     `json:"credential_id"`
	// Note says in words what the codes do not, such as which revoked device is still trying.
	Note string `json:"note,omitempty"`
	// WouldRefuse lists the policies in report mode that would have refused.
	WouldRefuse []string `json:"would_refuse,omitempty"`
	Trace       []Step   `json:"trace,omitempty"`

	// Guess: a wrong secret that counts towards the throttle.
	Guess bool `json:"-"`
	// Verified: Drawbridge itself verified the secret, whatever the outcome.
	Verified bool `json:"-"`
}

// Step is one step of how a decision was reached.
type Step struct {
	Step     string `json:"step"`               // name, account, ip_block, protocol, policy, policies (what they come to), secret, next_passdb
	Result   string `json:"result"`             // pass, refuse; of a policy match, no_match, not_applicable, not_evaluated
	Policy   string `json:"policy,omitempty"`   // the policy's id, for steps policy and policies
	Matched  string `json:"matched,omitempty"`  // which entry of a list holds the address, as it is written there, which region, or [MatchedAnywhere]
	Excepted string `json:"excepted,omitempty"` // which entry of the policy's except_ips holds the address
	Detail   string `json:"detail,omitempty"`   // why, in words
}

// Texts that clients may see (F10).
const (
	textPlace     = "The administrator has enabled IP login restrictions. Login from the current IP is not allowed."
	textClient    = "The administrator does not allow this type of client."
	textProtocol  = "This service is switched off for your account."
	textSecure    = "Use a secure password for this client; your mailbox password is not accepted here."
	textSuspended = "This account is suspended."
	textThrottled = "Too many failed logins. Try again later."
)

// Submission is one request of an open SMTP session, after authentication: the mail server names
// the account and the client, and nothing of how they authenticated.
type Submission struct {
	Account string // SASL user name; empty when the session did not authenticate
	IP      netip.Addr
	Port    uint16 // of the client: with IP it names the connection
	Sender  string // MAIL FROM without its angle brackets; empty for the null sender
}

// Ending is how a login ended that some passdb decided, as Dovecot's auth-policy report tells.
type Ending struct {
	Account  string // as Dovecot was asked for
	IP       netip.Addr
	Service  string
	Session  string // empty from Postfix
	Success  bool
	Rejected bool // an auth policy server refused it: no passdb was asked
}
