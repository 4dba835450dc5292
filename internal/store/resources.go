// Package store keeps rules and credentials, in domain words.
//
// Everything is a document: a domain, a department, a policy, a blocked address, an account, a
// client type, a key. A change is a set of documents put and deleted together with its audit entry,
// numbered and chained to the change before it in its shard ([Entry]); a [Log] (Redis, see
// redisstore) takes it whole or not at all. [State] is what a daemon holds in memory, brought up to
// date by the changes of all daemons; [Store] ties both together.
package store

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/factor"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

// Defaults and bounds of resources.
const (
	DefaultMaxSecurePasswords = 10
	MaxSecurePasswords        = 100
	// RevokedKept is for how long a revoked secure password is recognised, so that a device that
	// still tries it is named and never counted as guessing.
	RevokedKept = 90 * 24 * time.Hour
	// maxRevoked bounds the revoked secure passwords kept of one account; the oldest go first.
	maxRevoked = 20
	// ManagedThirdParty is the id, and the mark in the field managed, of the policy behind the
	// simple switch for third-party clients (F1).
	ManagedThirdParty = "third-party-access"
	// ManagedThirdPartyName is the name of that policy when a domain is created; administrators may
	// change it as that of any other.
	ManagedThirdPartyName = "Third-party Client Access Policy"
)

// SenderCheck says where the sender addresses of a domain are checked: in the envelope, in the
// header too, or nowhere. The zero value checks both.
type SenderCheck = mailflow.SenderCheck

// DefaultSenderCheck is the sender check of a new domain that names none: envelope and header.
const DefaultSenderCheck = mailflow.CheckBoth

// Domain is a mail domain under management, the unit of delegation. Its name and its aliases are
// canonical: lower case, A-labels, no trailing dot.
type Domain struct {
	Name               string               `json:"name"`
	AliasDomains       []string             `json:"alias_domains"`
	Protocols          access.Switches      `json:"protocols"` // absent means on
	MaxSecurePasswords int                  `json:"max_secure_passwords"`
	Accounts           string               `json:"accounts,omitempty"` // AccountsListed; "" for open
	SenderCheck        SenderCheck          `json:"sender_check"`
	TraceHeader        bool                 `json:"trace_header"`
	Administrators     []string             `json:"administrators,omitempty"` // addresses; none means the postmaster
	SecurePasswords    SecurePasswordPolicy `json:"secure_password_policy"`
	Passwords          *PasswordPolicy      `json:"password_policy,omitempty"` // of mailbox passwords kept here; nil demands nothing
	SecondFactor       *SecondFactorPolicy  `json:"second_factor,omitempty"`   // nil requires none
	Records            *RecordPolicy        `json:"records,omitempty"`         // nil: as the site keeps them
	Inspection         *InspectionPolicy    `json:"inspection,omitempty"`      // nil: only when somebody asks for it
	MailboxPasswords   PasswordPlace        `json:"mailbox_passwords,omitempty"`
	CreatedAt          time.Time            `json:"created_at"`
}

// RecordPolicy says how long a domain's login and message records are kept, and identify connections.
// Zero is for as long as the site keeps records.
type RecordPolicy struct {
	Retention         time.Duration `json:"retention,omitempty"`
	PseudonymiseAfter time.Duration `json:"pseudonymise_after,omitempty"`
}

// InspectionPolicy says how often a domain is inspected, and for how many days something must be unused
// to be found.
type InspectionPolicy struct {
	Every time.Duration `json:"every"`
	Days  int           `json:"days"`
}

// PasswordPlace says who verifies the mailbox passwords of a domain.
type PasswordPlace string

// The places.
const (
	PasswordsOfSite PasswordPlace = ""       // as the setting login.next_passdb says
	PasswordsHere   PasswordPlace = "here"   // Drawbridge, and accounts without one cannot log in
	PasswordsNext   PasswordPlace = "next"   // the site's next passdb
	PasswordsStored PasswordPlace = "stored" // Drawbridge for accounts that have one here, else the next passdb
)

// Settable reports whether accounts of the domain can have a mailbox password here; next is the setting
// of the site.
func (p PasswordPlace) Settable(next bool) bool {
	switch p {
	case PasswordsHere, PasswordsStored:
		return true
	case PasswordsNext:
		return false
	case PasswordsOfSite:
	}
	return !next
}

// AccountsListed is the value of [Domain.Accounts] for a domain whose accounts all have records
// here: an address without one is taken for a mistake.
const AccountsListed = "listed"

// SecurePasswordPolicy enforces secure passwords at third-party clients for a scope (F5). The zero
// value enforces them for nobody.
type SecurePasswordPolicy struct {
	Enforced bool         `json:"enforced"`
	Scope    access.Scope `json:"scope"`
	// A campaign (F33): until it is in force, logins that it would refuse are only recorded.
	Report     bool      `json:"report,omitempty"`
	Paused     bool      `json:"paused,omitempty"`
	GraceUntil time.Time `json:"grace_until,omitzero"`
}

// EnforcementState is how far the enforcement of secure passwords is.
type EnforcementState string

// The states.
const (
	EnforceOff      EnforcementState = "off"
	EnforceReport   EnforcementState = "report"
	EnforcePaused   EnforcementState = "paused"
	EnforceGrace    EnforcementState = "grace"
	EnforceInEffect EnforcementState = "enforced"
)

// State returns how far the enforcement is at a time.
func (p *SecurePasswordPolicy) State(now time.Time) EnforcementState {
	switch {
	case !p.Enforced:
		return EnforceOff
	case p.Report:
		return EnforceReport
	case p.Paused:
		return EnforcePaused
	case now.Before(p.GraceUntil):
		return EnforceGrace
	}
	return EnforceInEffect
}

// PasswordPolicy is the requirements of a domain for mailbox passwords that are kept here (F16,
// F17). A nil or zero policy demands nothing.
type PasswordPolicy struct {
	MinLength         int      `json:"min_length,omitempty"`   // in characters
	MinStrength       int      `json:"min_strength,omitempty"` // zxcvbn's score, 1 to [credential.MaxStrength]
	ForbiddenKeywords []string `json:"forbidden_keywords,omitempty"`
	History           int      `json:"history,omitempty"` // latest passwords that must not be used again, the present one among them
	// MaxAge is how long a password is valid after it was set; 0 for ever.
	MaxAge time.Duration `json:"max_age,omitempty"`
}

// Rules returns the requirements for a new password, without its maximum age, which concerns
// logins; none for a nil policy.
func (p *PasswordPolicy) Rules() credential.Rules {
	if p == nil {
		return credential.Rules{}
	}
	return credential.Rules{MinLength: p.MinLength, MinStrength: p.MinStrength, Forbidden: p.ForbiddenKeywords, History: p.History}
}

// maxAge returns how long a password is valid; 0 for ever.
func (p *PasswordPolicy) maxAge() time.Duration {
	if p == nil {
		return 0
	}
	return p.MaxAge
}

// Department is a node of a domain's tree.
type Department struct {
	Path   string   `json:"path"` // "sales/emea"
	Name   string   `json:"name"`
	SendAs []string `json:"send_as,omitempty"` // as of an account, for its members and those of the departments below
}

// Policy is an access policy of a domain.
type Policy struct {
	access.Policy
	CreatedAt time.Time `json:"created_at"`
}

// MailRule is a rule for the messages of a domain.
type MailRule struct {
	mailflow.Rule
	CreatedAt time.Time `json:"created_at"`
}

// Group is a group of a domain, and who may write to it (M5).
type Group struct {
	mailflow.Group
	CreatedAt time.Time `json:"created_at"`
}

// Suspension is a credential of an account that reached a sending limit: a suspended secure
// password is refused everywhere, a suspended mailbox password in submissions.
type Suspension struct {
	ID         string    `json:"id"`
	Account    string    `json:"account"`
	Credential string    `json:"credential"` // a secure password's id, or CredentialMailbox
	Label      string    `json:"label,omitempty"`
	Rule       string    `json:"rule"`
	Note       string    `json:"note"` // the bound that was reached
	At         time.Time `json:"at"`
}

// Revert restores what a change of a domain's policies and blocked addresses replaced, unless it is
// confirmed in time (F24).
type Revert struct {
	ID        string    `json:"id"`
	At        time.Time `json:"at"` // when it is due
	CreatedAt time.Time `json:"created_at"`
	By        Actor     `json:"by"`     // who made the change
	Action    string    `json:"action"` // of the change, as the audit has it
	Target    string    `json:"target"`
	Rev       uint64    `json:"rev"` // of the change; documents of another revision were changed again and are left alone
	// The documents before the change, by id; nil for one that did not exist.
	Policies map[string]*Policy `json:"policies,omitempty"`
	Blocks   map[string]*Block  `json:"blocks,omitempty"`
}

// Block is an address or a range that is refused for a whole domain (F15).
type Block struct {
	ID        string    `json:"id"`
	Network   string    `json:"network"` // address, prefix or a-b range
	Note      string    `json:"note,omitempty"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero for never
	CreatedAt time.Time `json:"created_at"`
}

// Expired reports whether the block has ended by a time: at ExpiresAt it has, and one without
// ExpiresAt never does.
func (b *Block) Expired(now time.Time) bool { return !b.ExpiresAt.IsZero() && !now.Before(b.ExpiresAt) }

// Account is the record of one address: its settings and secrets. An address needs none to be
// governed by the rules of its domain.
type Account struct {
	Address     string            `json:"address"`
	DisplayName string            `json:"display_name,omitempty"` // of the person, for rules about imposters
	Suspended   bool              `json:"suspended"`
	Departments []string          `json:"departments"`
	Aliases     []string          `json:"aliases"`           // further addresses of the account (M1)
	SendAs      []string          `json:"send_as,omitempty"` // addresses and "*@domain" that it may send from (M12)
	Protocols   access.Switches   `json:"protocols"`
	Secure      access.SecureMode `json:"secure_passwords"`
	CreatedAt   time.Time         `json:"created_at"`
	// Batches are those whose settings are still in effect, oldest first.
	Batches []BatchMark `json:"batches,omitempty"`

	// MailboxHash is the mailbox password kept here, in Dovecot's {SCHEME} form.
	MailboxHash string `json:"mailbox_hash,omitempty"`
	// MailboxSetAt is when the mailbox password was last set: a login before that time used another
	// one. A rehash of the same password does not change it. Zero if it is not known.
	MailboxSetAt time.Time `json:"mailbox_set_at,omitzero"`
	// MustChange: the mailbox password opens nothing until a new one is set.
	MustChange bool `json:"must_change_password,omitempty"`
	// FormerHashes are of former mailbox passwords, latest first, up to the domain's history.
	FormerHashes []string `json:"former_hashes,omitempty"`
	// Secrets are the live secure passwords and the revoked ones still recognised.
	Secrets []SecurePassword `json:"secrets,omitempty"`
	// Factors are the second factors, oldest first.
	Factors []Factor `json:"factors,omitempty"`
}

// Factor is a second factor of an account (contrib/adr/0017-second-factors.md).
type Factor struct {
	ID        string      `json:"id"`
	Kind      factor.Kind `json:"kind"`
	Label     string      `json:"label,omitempty"`
	CreatedAt time.Time   `json:"created_at"`
	// ConfirmedAt is when its owner proved to have it; zero for a pending one, which opens nothing.
	ConfirmedAt time.Time `json:"confirmed_at,omitzero"`
	// Data is the secret of a time-based code, the registration or public key of a passkey, and the
	// address or number that codes are sent to, each sealed with the pepper; of recovery codes
	// their keyed hashes.
	Data []byte `json:"data,omitempty"`
}

// Confirmed reports whether the factor counts.
func (f *Factor) Confirmed() bool { return !f.ConfirmedAt.IsZero() }

// HasFactor reports whether the account has a second factor other than recovery codes that counts.
func (a *Account) HasFactor() bool {
	return slices.ContainsFunc(a.Factors, func(f Factor) bool { return f.Confirmed() && f.Kind != factor.Recovery })
}

// FactorSince returns when the first of those that HasFactor counts was confirmed; zero for none.
func (a *Account) FactorSince() (first time.Time) {
	for i := range a.Factors {
		f := &a.Factors[i]
		if f.Confirmed() && f.Kind != factor.Recovery && (first.IsZero() || f.ConfirmedAt.Before(first)) {
			first = f.ConfirmedAt
		}
	}
	return first
}

// SecondFactorPolicy says for which accounts of a domain a second factor is required (F18).
type SecondFactorPolicy struct {
	Required bool         `json:"required"`
	Scope    access.Scope `json:"scope"`
}

// RenameDepartments renames the departments that the domain's own settings name, in copies of their
// lists. moved returns the new path of a department, and whether it has one.
func (d *Domain) RenameDepartments(moved func(path string) (string, bool)) (renamed bool) {
	renamed = d.SecurePasswords.Scope.RenameDepartments(moved)
	if d.SecondFactor != nil {
		required := *d.SecondFactor
		renamed = required.Scope.RenameDepartments(moved) || renamed
		d.SecondFactor = &required
	}
	return renamed
}

// KeepSecrets gives the account the secrets of its present record (passwords, hashes, must-change
// mark), which no document of the API contains.
func (a *Account) KeepSecrets(of *Account) {
	a.Secrets, a.MailboxHash, a.MailboxSetAt = of.Secrets, of.MailboxHash, of.MailboxSetAt
	a.FormerHashes, a.MustChange = of.FormerHashes, of.MustChange
	a.Factors = of.Factors
}

// BatchMark remembers in an account which batch changed it, when and by whom, as long as one of its
// settings is in effect.
type BatchMark struct {
	At       time.Time `json:"at"`
	By       string    `json:"by"`       // the actor's name
	Scope    string    `json:"scope"`    // in words, of bounded length: a record is no place for thousands of members
	Settings []string  `json:"settings"` // those that still are as it set them: "suspended", "protocols.pop3", ...
}

// SetByBatch returns the batch that set a setting of the account; nil for none.
func (a *Account) SetByBatch(setting string) *BatchMark {
	for i := range a.Batches {
		if slices.Contains(a.Batches[i].Settings, setting) {
			return &a.Batches[i]
		}
	}
	return nil
}

// SecurePassword is one device's secret, of which only the keyed hash is kept.
type SecurePassword struct {
	ID        string          `json:"id"`
	Label     string          `json:"label"`
	Hash      credential.Hash `json:"hash"`
	PepperID  string          `json:"pepper_id"`
	CreatedAt time.Time       `json:"created_at"`
	RevokedAt time.Time       `json:"revoked_at,omitzero"`
	// Where and until when it is accepted, see [access.Bounds]; nothing means everywhere and for
	// ever.
	Protocols []string  `json:"protocols,omitempty"`
	Networks  []string  `json:"networks,omitempty"` // without spaces inside
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// Live reports whether the secure password has not been revoked and not expired.
func (p *SecurePassword) Live(now time.Time) bool {
	return p.RevokedAt.IsZero() && (p.ExpiresAt.IsZero() || now.Before(p.ExpiresAt))
}

// end returns when the secure password was revoked or expired; false for a live one.
func (p *SecurePassword) end(now time.Time) (time.Time, bool) {
	if p.Live(now) {
		return time.Time{}, false
	}
	return earlier(p.RevokedAt, p.ExpiresAt), true
}

// Live returns the live secure passwords, oldest first.
func (a *Account) Live(now time.Time) []SecurePassword {
	var live []SecurePassword
	for _, p := range a.Secrets {
		if p.Live(now) {
			live = append(live, p)
		}
	}
	return live
}

// Revoke marks a secure password as revoked and forgets those that ended too long ago. It reports
// whether a live one of that id was there. The receiver's Secrets are copied, never changed in
// place.
func (a *Account) Revoke(id string, now time.Time) bool {
	found := false
	var kept []SecurePassword
	revoked := 0
	for _, p := range slices.Backward(a.Secrets) {
		if p.ID == id && p.Live(now) {
			p.RevokedAt, found = now, true
		}
		if at, ended := p.end(now); ended {
			revoked++
			if revoked > maxRevoked || now.Sub(at) > RevokedKept {
				continue
			}
		}
		kept = append(kept, p)
	}
	slices.Reverse(kept)
	a.Secrets = kept
	return found
}

// ClientType is a kind of program and the evidence that proves it.
type ClientType struct {
	Type     access.ClientType `json:"type"`
	Evidence []access.Evidence `json:"evidence"`
	// Unproven: the administrator insists although nothing in the evidence proves.
	Unproven bool `json:"unproven"`
}

// Role is the set of operations that a key may call.
type Role string

// The roles of keys.
const (
	RoleAdmin  Role = "admin"
	RoleDomain Role = "domain" // its domain, nothing else
	RoleRead   Role = "read"
	RoleLogin  Role = "login" // POST /v1/login only
	RoleSelf   Role = "self"  // one account: its secure passwords, its own switch, its records
)

// Key opens the API. Only the SHA-256 of its 160 random bits is kept.
type Key struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      Role      `json:"role"`
	Domain    string    `json:"domain,omitempty"`
	Account   string    `json:"account,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Hash      string    `json:"hash"`
}

// Actor is the author of a change.
type Actor struct {
	Name string `json:"name"`          // of the key, "root", "daemon"
	Key  string `json:"key,omitempty"` // id of the key
	UID  string `json:"uid,omitempty"` // of the peer on the unix socket
}

// AuditEntry is one change of the store, or one event of a credential, on record.
type AuditEntry struct {
	ID      string                     `json:"id"` // "shard:number", set when read
	Time    time.Time                  `json:"time"`
	Actor   Actor                      `json:"actor"`
	Action  string                     `json:"action"` // "account.update", "secure_password.revoke", ...
	Domain  string                     `json:"domain,omitempty"`
	Target  string                     `json:"target"`
	Note    string                     `json:"note,omitempty"`
	Changes map[string]json.RawMessage `json:"changes,omitempty"` // field → [before, after]; never secrets or hashes
}

// LoginRecord is one decision on a login (F13).
type LoginRecord = access.LoginRecord

// Closing is how a login ended that the next passdb decided.
type Closing struct {
	Domain  string         `json:"-"`
	ID      string         `json:"-"`
	Outcome access.Outcome `json:"outcome"`
	Reason  access.Reason  `json:"reason"`
	Time    time.Time      `json:"time"`
	// Abnormal is what is unusual about the login, and Note why that is in doubt.
	Abnormal access.Marks `json:"abnormal,omitempty"`
	Note     string       `json:"note,omitempty"`
	// Login is the record, until it is closed.
	Login *LoginRecord `json:"login,omitempty"`
}

// LastUse is when, where and how a secure password was last used.
type LastUse struct {
	Time     time.Time `json:"time"`
	IP       string    `json:"ip"`
	Protocol string    `json:"protocol"`
}

// Claim reserves a domain name for a domain, which is about to have it.
type Claim struct {
	Domain string    `json:"domain"`
	Time   time.Time `json:"time,omitzero"` // when it was made
}

// UnmarshalJSON also reads the form that had no time: the domain alone.
func (c *Claim) UnmarshalJSON(b []byte) error {
	*c = Claim{}
	if len(b) > 0 && b[0] == '"' {
		return json.Unmarshal(b, &c.Domain)
	}
	type plain Claim
	return json.Unmarshal(b, (*plain)(c))
}
