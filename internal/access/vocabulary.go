// Package access is the vocabulary and the decision engine for logins.
//
// This file is the design: who logs in ([Login]), with which kind of program ([ClientType]), under
// which rules ([Policy], [Scope], compiled into [Rules]), and the answer ([Decision]).
//
// The package is pure: no I/O, no clock, no context, no log. It gets slow answers through [Asker].
package access

import (
	"net/netip"
	"time"
)

// Outcome is the answer that an adapter carries out. The zero value is not an answer: adapters
// treat it as a temporary failure.
type Outcome uint8

// The outcomes of a decision.
const (
	Allow    Outcome = iota + 1 // admit
	Deny                        // refuse permanently
	Next                        // the rules permit the login; the site's next passdb verifies the secret
	TempFail                    // cannot decide now
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

// ParseOutcome is the inverse of [Outcome.String]; it returns the zero Outcome for other words.
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

// Reason is the stable code of the cause of a decision.
type Reason string

// The reason codes.
const (
	ReasonOK               Reason = "ok"
	ReasonPolicy           Reason = "policy"
	ReasonIPBlocked        Reason = "ip_blocked"
	ReasonProtocol         Reason = "protocol_disabled"
	ReasonSecureRequired   Reason = "secure_password_required"
	ReasonBadSecret        Reason = "bad_secret"
	ReasonRevokedSecret    Reason = "revoked_secret"         // a revoked or expired secure password of the account
	ReasonSecretScope      Reason = "secure_password_scope"  // a secure password outside of its protocols or networks
	ReasonSecondFactor     Reason = "second_factor_required" // the client asks, and none or a wrong one was given
	ReasonSuspended        Reason = "suspended"
	ReasonThrottled        Reason = "throttled"
	ReasonPasswordExpired  Reason = "password_expired"
	ReasonUnknownAccount   Reason = "unknown_account"
	ReasonUnmanagedDomain  Reason = "unmanaged_domain"
	ReasonStoreUnavailable Reason = "store_unavailable"
	ReasonSenderNotOwned   Reason = "sender_not_owned" // MAIL FROM of a message does not belong to the submitter
)

// Reasons are the reason codes that a login can end with.
var Reasons = [...]Reason{
	ReasonOK, ReasonPolicy, ReasonIPBlocked, ReasonProtocol, ReasonSecureRequired, ReasonBadSecret, ReasonRevokedSecret,
	ReasonSecretScope, ReasonSecondFactor, ReasonSuspended, ReasonThrottled, ReasonPasswordExpired, ReasonUnknownAccount,
	ReasonUnmanagedDomain, ReasonStoreUnavailable,
}

// Protocol is the protocol of a login. The zero value is a service without logins.
type Protocol uint8

// The protocols that people log in with.
const (
	IMAP Protocol = iota + 1
	POP3
	SMTP  // authenticated submission
	Sieve // ManageSieve
	Web   // Drawbridge's own pages, or a webmail that asks the API itself
)

// SwitchedProtocols are the protocols with a switch (F3).
var SwitchedProtocols = [...]Protocol{IMAP, POP3, SMTP, Sieve}

var protocolNames = [...]string{"", "imap", "pop3", "smtp", "sieve", "web"}

func (p Protocol) String() string {
	if int(p) < len(protocolNames) {
		return protocolNames[p]
	}
	return ""
}

// ParseProtocol returns the protocol with a name, or the zero value.
func ParseProtocol(name string) Protocol {
	for p := IMAP; p <= Web; p++ {
		if protocolNames[p] == name {
			return p
		}
	}
	return 0
}

// ProtocolOfService maps Dovecot's service names, and those of the setting login.services, to a
// protocol; zero for services without logins.
func ProtocolOfService(service string, further map[string]string) Protocol {
	switch service {
	case "imap", "pop3", "smtp", "sieve", "web":
		return ParseProtocol(service)
	case "submission":
		return SMTP
	}
	return ParseProtocol(further[service])
}

// Switches are protocol switches; absent protocols inherit.
type Switches map[string]bool

// Compile compiles the switches for decisions.
func (s Switches) Compile() Switched {
	var c Switched
	for name, on := range s {
		c.Switch(ParseProtocol(name), on)
	}
	return c
}

// Switched are compiled [Switches], a bit for each protocol. The zero value inherits all.
type Switched struct{ set, on uint8 }

// Switch enables or disables one protocol.
func (s *Switched) Switch(p Protocol, on bool) {
	s.set |= 1 << p
	s.on &^= 1 << p
	if on {
		s.on |= 1 << p
	}
}

// Switched returns whether a protocol is enabled, and false if it is inherited.
func (s Switched) Switched(p Protocol) (on, set bool) { return s.on>>p&1 != 0, s.set>>p&1 != 0 }

// ClientType is the kind of program that logs in.
type ClientType string

// The predefined client types.
const (
	ClientWeb          ClientType = "web"
	ClientConsole      ClientType = "console"
	ClientThirdParty   ClientType = "third-party"
	ClientCloudFetcher ClientType = "cloud-fetcher"
)

// KnownClientTypes are the predefined names; a site adds its own.
var KnownClientTypes = [...]ClientType{
	ClientWeb, ClientConsole, "native-desktop", "native-mobile", "outlook-addin",
	"chat-desktop", "chat-mobile", "social", ClientCloudFetcher, ClientThirdParty,
}

// Own reports whether the type is one of the site's own clients: all but third-party and
// cloud-fetcher. The empty type is not.
func (c ClientType) Own() bool {
	return c != "" && c != ClientThirdParty && c != ClientCloudFetcher
}

// The values of a region without a country code. The empty region is that of private and other
// special addresses.
const (
	// RegionUnknown is the region of a public address that the database does not contain. It
	// matches no policy's list.
	RegionUnknown = "unknown"
	// RegionNoDatabase is the region of a public address without a database. It matches no
	// whitelist and every blacklist with regions, so that a missing database weakens no rule.
	RegionNoDatabase = "no-database"
)

// ShownRegion returns a region as decisions, records and previews show it: "" without a database.
func ShownRegion(region string) string {
	if region == RegionNoDatabase {
		return ""
	}
	return region
}

// Lookup distinguishes logins from Dovecot's look-ups (AUTHORIZED=1).
type Lookup uint8

// The kinds of look-up.
const (
	LookupNone        Lookup = iota // a login with its secret
	LookupCredentials               // a mechanism that hides the secret, or LMTP and doveadm
	LookupUser                      // a userdb look-up
)

// SecureMode is an account's own setting of secure passwords (F7).
type SecureMode string

// The modes; the zero value means [SecureOptional].
const (
	SecureOptional SecureMode = "optional" // a secure password or the mailbox password
	SecureRequired SecureMode = "required" // third-party clients need a secure password
	SecureOff      SecureMode = "off"      // secure passwords are inactive
)

// Login is one login attempt, as an adapter received it.
type Login struct {
	Account    string // as typed
	Secret     []byte
	OTP        string // a second factor: a code, or the proof of a passkey
	Proven     bool   // a second factor that counts was proven at the site's own log-in
	Service    string
	Protocol   Protocol
	IP         netip.Addr // the user's address; invalid if unknown
	RealIP     netip.Addr // the TCP peer; differs from IP only behind a trusted proxy or webmail
	LocalIP    netip.Addr
	LocalPort  uint16
	ServerName string // TLS SNI
	TLS        bool
	ClientCert string // fingerprint or name of a certificate that the server verified
	Mechanism  string
	Session    string
	MasterUser string // an authenticated master who logs in as Account
	Lookup     Lookup
	ClientID   string // IMAP ID: a label without proof
	Relayed    bool   // by the SASL door or the pages to the mail server's own passdbs, under this Session
	Page       bool   // at Drawbridge's own pages, which are client type console without other evidence
	Reported   bool   // the mail server reports its end even if it is refused by [gate.Gate.Recheck]
	Time       time.Time
}

// NoLogin reports whether the request admits no client: a userdb look-up, or a passdb look-up of
// LMTP or doveadm, which has no mechanism. A client with a mechanism that hides the secret has one,
// so that the rules apply to it even if its service maps to no protocol.
func (l *Login) NoLogin() bool {
	return l.Lookup == LookupUser || l.Lookup == LookupCredentials && l.Protocol == 0 && l.Mechanism == ""
}

// AsksFactor reports whether the client takes part in second factors: the site's own pages, a webmail
// that asks for them, and whoever sends one. Mail programs do not.
func (l *Login) AsksFactor() bool { return l.Protocol == Web || l.OTP != "" }

// RelayedSession is the prefix of the session ids that the SASL door generates for logins with
// Relayed.
const RelayedSession = "sasl-"

// Decision is the answer to a login. Only Message is for the client; the other fields are for the
// operator.
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
	// Note adds details that the codes lack, such as the revoked device that still tries to log in.
	Note string `json:"note,omitempty"`
	// WouldRefuse lists the policies in report mode that match.
	WouldRefuse []string `json:"would_refuse,omitempty"`
	// SecondFactors are the kinds that the account has, with reason second_factor_required.
	SecondFactors []string `json:"second_factors,omitempty"`
	Trace         []Step   `json:"trace,omitempty"`

	// Guess: the secret is wrong and counts towards the throttle.
	Guess bool `json:"-"`
	// Verified: Drawbridge itself verified the secret, whatever the outcome.
	Verified bool `json:"-"`
}

// Step is one step of how a decision was reached.
type Step struct {
	Step     string `json:"step"`               // name, account, ip_block, protocol, policy, policies (their total), secret, next_passdb
	Result   string `json:"result"`             // pass, refuse; of a policy match, no_match, not_applicable, not_evaluated
	Policy   string `json:"policy,omitempty"`   // the policy's id, for steps policy and policies
	Matched  string `json:"matched,omitempty"`  // the list entry, as written, or the region that includes the address, or [MatchedAnywhere]
	Excepted string `json:"excepted,omitempty"` // the entry of the policy's except_ips that includes the address
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
	textScope     = "This secure password is not accepted for this service or from this address."
	textFactor    = "A second factor is required to log in."
	textExpired   = "Your password has expired. Set a new one to log in again."
)

// Submission is one request of an open SMTP session after authentication: the mail server sends the
// account and the client, but not the mechanism or credential.
type Submission struct {
	Account string // SASL user name; empty without authentication
	IP      netip.Addr
	Port    uint16 // of the client: with IP it identifies the connection
	Sender  string // MAIL FROM without its angle brackets; empty for the null sender
	// Passed: another server of the site passed the login on (XCLIENT), so that it is older than the
	// connection.
	Passed bool
}

// Session is an open session of the mail server, as its login was recorded.
type Session struct {
	Account  string // canonical
	Protocol Protocol
	Service  string
	IP       netip.Addr
	Client   ClientType
	// Credential is the id of a secure password, or the word that stands for another secret.
	Credential string
	Hidden     bool      // the mechanism did not show the secret
	ID         string    // the mail server's; "" if the login had none
	Began      time.Time // when the login was decided
	Verified   time.Time // when the secret was verified; zero if the next passdb has not reported it
	// PasswordSet is when the mailbox password that the login showed was set.
	PasswordSet time.Time
}

// Ending is the result of a login that some passdb decided, as Dovecot's auth-policy reports it.
type Ending struct {
	Account  string // the name that the client sent
	IP       netip.Addr
	Service  string
	Session  string // empty from Postfix
	Success  bool
	Rejected bool   // the auth-policy server refused it
	Unjudged *Login // the login, if no passdb of Drawbridge judged it: only this report records it
}
