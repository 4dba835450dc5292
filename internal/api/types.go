// Package api defines the JSON types of Drawbridge's API: what requests and responses contain. The
// daemon, the client and the command all use these types, so that a field exists once.
//
// The struct tags are validation rules and documentation: package rest makes the schemas of
// /openapi.json from them and validates bodies against those. A field is optional unless its tag
// says required. A readOnly field appears in responses and is ignored in requests.
package api

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
)

// Domain is a mail domain under management.
type Domain struct {
	Name               string              `json:"name" required:"true" maxLength:"254" doc:"The domain; internationalised names in their xn-- form. Cannot be changed." example:"example.org"`
	AliasDomains       []string            `json:"alias_domains" maxItems:"1000" doc:"Other names of the domain: their addresses are addresses of this domain."`
	Protocols          Protocols           `json:"protocols" doc:"The switches of accounts without switches of their own."`
	MaxSecurePasswords int                 `json:"max_secure_passwords" minimum:"1" maximum:"100" default:"10" doc:"Maximum number of secure passwords per account. Lowering it revokes none."`
	Accounts           string              `json:"accounts" enum:"open,listed" default:"open" doc:"listed: every account has a record here, and settings or secrets for an address without one need create=true. open: any address of the domain may get them. Where mailbox passwords are kept here, accounts are always listed."`
	SenderCheck        string              `json:"sender_check" enum:"both,envelope,off" default:"both" doc:"Which sender addresses must belong to the login: MAIL FROM and header From, MAIL FROM, or none."`
	TraceHeader        bool                `json:"trace_header" doc:"Add a header that names client type and device to submitted mail."`
	Administrators     []string            `json:"administrators" maxItems:"100" doc:"Addresses of the domain's administrators. A change that would lock all of them out must be confirmed. If empty: the postmaster."`
	PasswordPolicy     *PasswordPolicy     `json:"password_policy,omitempty" doc:"Of mailbox passwords that are kept here. Missing: none."`
	MailboxPasswords   string              `json:"mailbox_passwords" enum:"site,here,next,stored" default:"site" doc:"Who verifies mailbox passwords. site: as login.next_passdb says; here: Drawbridge; next: the next passdb; stored: Drawbridge for accounts whose mailbox password is set here, else the next passdb. A change to here or next needs confirm=true, and role admin."`
	SecondFactor       *SecondFactorPolicy `json:"second_factor,omitempty" doc:"For whom a second factor is required to log in to pages, and to the site's own clients that ask for one. Missing: nobody; who has one is asked for it."`
	Records            *RecordPolicy       `json:"records,omitempty" doc:"How long login and message records are kept. Missing: as records.retention of the site says, and not pseudonymised."`
	Inspection         *InspectionPolicy   `json:"inspection,omitempty" doc:"How often the domain is inspected by itself. Missing: never."`
	CreatedAt          time.Time           `json:"created_at,omitzero" readOnly:"true"`

	CutOff           *CutOff `json:"cut_off,omitempty" readOnly:"true" doc:"Of a dry run that changes protocol switches: whom it would keep out."`
	ExpiredPasswords int     `json:"expired_passwords,omitempty" readOnly:"true" doc:"Of a dry run that lowers max_age: the mailbox passwords that are older, and would be refused at once."`
}

// PasswordPolicy is what a domain demands of mailbox passwords that are kept here.
type PasswordPolicy struct {
	MinLength         int      `json:"min_length,omitempty" minimum:"0" maximum:"100" doc:"Characters of a new password."`
	MinStrength       int      `json:"min_strength,omitempty" minimum:"0" maximum:"4" doc:"Estimated strength of a new password: 1 very guessable, 2 somewhat guessable, 3 safely unguessable, 4 very unguessable; 0 is not checked."`
	ForbiddenKeywords []string `json:"forbidden_keywords,omitempty" maxItems:"1000" doc:"Words that a new password must not contain, in any case. With any policy, parts of the user's own addresses of four characters and more are forbidden, too."`
	History           int      `json:"history,omitempty" minimum:"0" maximum:"24" doc:"Number of latest passwords, the present one among them, that must not be used again; 0 for none."`
	MaxAge            string   `json:"max_age,omitempty" pattern:"^([1-9][0-9]{0,5}[dhms])?$" doc:"How long a password is valid after it was set, as days, hours, minutes or seconds; then logins with it are refused with password_expired. Empty: for ever." example:"180d"`
}

// RecordPolicy says how long a domain's records are kept, and identify connections.
type RecordPolicy struct {
	Retention         string `json:"retention,omitempty" pattern:"^([1-9][0-9]{0,5}[dhms])?$" doc:"Login and message records are deleted at this age, as days, hours, minutes or seconds; those older than records.retention of the site are deleted in any case." example:"30d"`
	PseudonymiseAfter string `json:"pseudonymise_after,omitempty" pattern:"^([1-9][0-9]{0,5}[dhms])?$" doc:"At this age, addresses and client ids are replaced by keyed hashes, and sessions removed, for good." example:"14d"`
}

// InspectionPolicy says how often a domain is inspected by itself. Its administrators get a mail, and the
// site's webhook a notice, about findings that the inspection before did not have.
type InspectionPolicy struct {
	Every string `json:"every,omitempty" pattern:"^([1-9][0-9]{0,5}[dhms])?$" doc:"Time between two inspections, as days, hours, minutes or seconds, at least a minute. Empty: never." example:"7d"`
	Days  int    `json:"days,omitempty" minimum:"0" maximum:"3650" doc:"Days without use after which access counts as unused; 90 if it is left out or 0."`
}

// NewDomain is a domain to be created. Unless it says otherwise, third-party clients are blocked in
// the new domain.
type NewDomain struct {
	Domain
	ThirdPartyAccess *ThirdPartyAccess `json:"third_party_access,omitempty" doc:"Whether third-party clients may log in. By default they are blocked."`
}

// Protocols are switches for IMAP, POP3, SMTP and ManageSieve; a missing one, or null, is inherited
// from the domain, where all are on.
type Protocols struct {
	IMAP  *bool `json:"imap,omitempty"`
	POP3  *bool `json:"pop3,omitempty"`
	SMTP  *bool `json:"smtp,omitempty" doc:"Authenticated submission."`
	Sieve *bool `json:"sieve,omitempty" doc:"ManageSieve."`
}

// ThirdPartyAccess is the simple switch for third-party clients: a view of the managed policy.
// Customised says that the policy is more than the view.
type ThirdPartyAccess struct {
	Allow          bool     `json:"allow" required:"true"`
	Mode           string   `json:"mode" enum:"enforce,report" default:"enforce" doc:"In report mode, matching logins are recorded and not refused."`
	SecureLoginIPs []string `json:"secure_login_ips" maxItems:"10000" doc:"Addresses, prefixes and a-b ranges that are exempt from the block. Without effect while clients are allowed. If missing, the list is not changed." example:"203.0.113.0/24"`
	Customised     bool     `json:"customised,omitempty" readOnly:"true" doc:"The policy has changes that this view cannot show; PUT restores its managed form."`
}

// SessionsEnded counts open sessions that ended. A change that ends none has no such object in its
// answer.
type SessionsEnded struct {
	Ended       int `json:"ended"`
	Failed      int `json:"failed" doc:"Known to be open and not ended yet; the daemon keeps trying."`
	Unreachable int `json:"unreachable,omitempty" doc:"Dovecots that did not answer: their sessions end when they do."`
}

// Sessions lists the open sessions of a domain or an account, and names the Dovecots that did not
// answer: their sessions are missing.
type Sessions struct {
	Items       []Session `json:"items"`
	Unreachable int       `json:"unreachable,omitempty" doc:"Dovecots that did not answer: their sessions are missing."`
}

// Session is an open session of the mail server. Dovecot 2.3 cannot tell those of one account and
// address apart; then label names several devices.
type Session struct {
	ID           string            `json:"id" doc:"As long as the session is open."`
	Account      string            `json:"account"`
	Protocol     string            `json:"protocol" enum:"imap,pop3,smtp,sieve"`
	IP           string            `json:"ip"`
	Client       access.ClientType `json:"client" doc:"Empty if it is not known, or if the logins that the session may be of differ."`
	CredentialID string            `json:"credential_id,omitempty" doc:"Of the secure password; mailbox, or master. Missing if the session may be of several."`
	Label        string            `json:"label,omitempty" doc:"The device's label. Dovecot 2.3 cannot distinguish an account's sessions from one address: then the labels of all candidates."`
	Node         string            `json:"node,omitempty" doc:"The doveadm address of the Dovecot; not for keys of roles domain and self."`
	Since        time.Time         `json:"since,omitzero" doc:"When the login was decided."`
}

// CutOff is whom a change would keep out, by the logins of the last 30 days and the open sessions.
type CutOff struct {
	Since    time.Time       `json:"since"`
	Examined int             `json:"examined" doc:"Login records; at most the newest 20000."`
	Accounts []CutOffAccount `json:"accounts" doc:"With logins that would be refused, the last login first; at most 1000."`
	Others   int             `json:"others,omitempty" doc:"Such logins of further accounts."`
	Sessions int             `json:"sessions" doc:"Open sessions that would end."`
}

// CutOffAccount is an account that would be kept out.
type CutOffAccount struct {
	Address         string      `json:"address"`
	SecurePasswords int         `json:"secure_passwords" doc:"Live ones. Without any, the account cannot log in with third-party clients where they are required."`
	Logins          int         `json:"logins" doc:"Recorded logins that would be refused."`
	LastLogin       CutOffLogin `json:"last_login" doc:"The last of these."`
}

// CutOffLogin is a recorded login that would be refused.
type CutOffLogin struct {
	Time     time.Time         `json:"time"`
	IP       string            `json:"ip,omitempty"`
	Protocol string            `json:"protocol"`
	Client   access.ClientType `json:"client"`
	ClientID string            `json:"client_id,omitempty" doc:"Name and version that the program reports."`
}

// SecurePasswordPolicy enforces secure passwords for a scope.
type SecurePasswordPolicy struct {
	Enforced bool   `json:"enforced" required:"true"`
	Scope    *Scope `json:"scope,omitempty" doc:"If missing: everybody."`

	Mode       string    `json:"mode,omitempty" enum:"enforce,report" default:"enforce" doc:"In report mode, logins that it would refuse are recorded with would_refuse secure-password-policy, and not refused."`
	GraceUntil time.Time `json:"grace_until,omitzero" doc:"Enforce at this time, by itself; until then as in report mode."`
	Paused     bool      `json:"paused,omitempty" doc:"As in report mode, whatever grace_until says, until it is false again."`
	State      string    `json:"state,omitempty" readOnly:"true" enum:"off,report,paused,grace,enforced" doc:"At present."`

	CutOff   *CutOff         `json:"cut_off,omitempty" readOnly:"true" doc:"Of a dry run that enforces: whom it would keep out."`
	Accounts []CutOffAccount `json:"accounts,omitzero" readOnly:"true" doc:"Those of cut_off."`
	Sessions *int            `json:"sessions,omitempty" readOnly:"true" doc:"That of cut_off."`
}

// EnforcementProgress is who still uses the mailbox password in third-party clients.
type EnforcementProgress struct {
	State      string    `json:"state" enum:"off,report,paused,grace,enforced"`
	GraceUntil time.Time `json:"grace_until,omitzero"`
	InScope    int       `json:"in_scope" doc:"Accounts with a record in the scope."`
	Ready      int       `json:"ready" doc:"Those of them with a live secure password."`
	CutOff
}

// Scope selects accounts: all, or departments and members, minus exceptions.
type Scope struct {
	All         bool              `json:"all,omitempty"`
	Departments []ScopeDepartment `json:"departments,omitempty" maxItems:"10000"`
	Members     []string          `json:"members,omitempty" maxItems:"10000" doc:"Addresses of this domain. Another name of an account, such as an alias, becomes the account."`
	Except      *Exceptions       `json:"except,omitempty"`
}

// Exceptions are departments and members that are excluded from a scope, whatever else it names: an
// exception always wins.
type Exceptions struct {
	Departments []ScopeDepartment `json:"departments,omitempty" maxItems:"10000"`
	Members     []string          `json:"members,omitempty" maxItems:"10000"`
}

// ScopeDepartment selects the members of a department by its path, with or without those of its
// subdepartments at any depth.
type ScopeDepartment struct {
	Path string `json:"path" required:"true" example:"sales"`
	Sub  bool   `json:"sub,omitempty" doc:"With all its subdepartments."`
}

// Policy is an access policy: which logins of which accounts it allows or refuses.
type Policy struct {
	ID        string    `json:"id,omitempty" maxLength:"64" doc:"Generated if missing. Cannot be changed." example:"office"`
	Name      string    `json:"name" maxLength:"100" doc:"A name for people, unique in the domain." example:"Only from the office"`
	Type      string    `json:"type" required:"true" enum:"whitelist,blacklist" doc:"A blacklist refuses the logins that match. If whitelists apply to a login and none matches, it is refused. Refusal wins; order does not matter."`
	Enabled   *bool     `json:"enabled,omitempty" default:"true"`
	Mode      string    `json:"mode" enum:"enforce,report" default:"enforce" doc:"In report mode, matching logins are recorded and not refused."`
	Managed   string    `json:"managed,omitempty" readOnly:"true" doc:"The simple switch that manages it."`
	Scope     *Scope    `json:"scope,omitempty" doc:"Needed."`
	IPs       []string  `json:"ips" maxItems:"10000" doc:"Addresses, prefixes and a-b ranges. A whitelist needs ips or regions; a blacklist without either matches everywhere." example:"203.0.113.0/24"`
	Regions   []string  `json:"regions" maxItems:"1000" doc:"ISO 3166-1 country codes, or other codes that GET /v1/regions/codes lists. An address that the database does not know is in no region." example:"DE"`
	ExceptIPs []string  `json:"except_ips" maxItems:"10000" doc:"Addresses that do not match."`
	Clients   []string  `json:"clients" maxItems:"100" doc:"Client types; empty means any." example:"third-party"`
	Protocols []string  `json:"protocols" maxItems:"100" enum:"imap,pop3,smtp,sieve,web" doc:"Empty means any."`
	CreatedAt time.Time `json:"created_at,omitzero" readOnly:"true"`
	Warnings  []Warning `json:"warnings,omitempty" readOnly:"true" doc:"In the response to a change: possible mistakes."`
	// Pending is the pending revert of an unconfirmed change.
	Pending *PendingRevert `json:"pending,omitempty" readOnly:"true" doc:"The policy is reverted at this time unless the change is confirmed."`
}

// PendingRevert says when a change is reverted unless it is confirmed before, and by which id it is
// confirmed.
type PendingRevert struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// Revert is a change that is reverted unless it is confirmed.
type Revert struct {
	ID        string    `json:"id"`
	At        time.Time `json:"at" doc:"When the change is reverted."`
	CreatedAt time.Time `json:"created_at"`
	By        Actor     `json:"by" doc:"Who made the change."`
	Action    string    `json:"action" example:"policy.update"`
	Target    string    `json:"target"`
}

// Lockout lists the people whom a change would lock out: it is part of a 409 problem, which
// confirming overrides.
type Lockout struct {
	Active    int   `json:"active" doc:"Members who logged in recently and still could before the change."`
	LockedOut int   `json:"locked_out" doc:"Those of them whom the change would refuse in every way they used."`
	Who       []Who `json:"who"`
	More      int   `json:"more,omitempty" doc:"The number of people beyond those in who."`
}

// Who is one person whom a change would lock out.
type Who struct {
	Account   string            `json:"account"`
	As        []string          `json:"as" enum:"author,administrator,member" doc:"author: an administrator, at the address of the caller. administrator: all administrators would be locked out. member: more members than the limit would be."`
	IP        string            `json:"ip" doc:"Of the last login, like client and protocol."`
	Client    access.ClientType `json:"client"`
	Protocol  string            `json:"protocol"`
	LastLogin time.Time         `json:"last_login,omitzero"`
	PolicyID  string            `json:"policy_id,omitempty" doc:"The policy that would refuse it."`
}

// Migration is the settings of an earlier system, which access policies replace. Migrating the same
// settings again creates nothing.
type Migration struct {
	ThirdPartyAllowed *bool          `json:"third_party_allowed,omitempty" doc:"Whether third-party clients could log in. If missing, their switch is not changed."`
	SecureLoginIPs    []string       `json:"secure_login_ips" maxItems:"10000" doc:"Addresses, prefixes and a-b ranges from which they could log in anyway. If missing, the list is not changed." example:"203.0.113.0/24"`
	NativeClients     []NativeClient `json:"native_clients" maxItems:"1000" doc:"Which of the site's own clients could be used."`
}

// NativeClient is the earlier setting of one of the site's own clients.
type NativeClient struct {
	Client  string `json:"client" required:"true" maxLength:"40" doc:"Any client type but third-party and cloud-fetcher." example:"native-mobile"`
	Allowed bool   `json:"allowed" required:"true" doc:"true creates no policy: logins that no policy refuses are allowed."`
	Scope   *Scope `json:"scope,omitempty" doc:"For whom. If missing: everybody."`
}

// Migrated lists the policies that replace earlier settings, created now or before.
type Migrated struct {
	Policies []MigratedPolicy `json:"policies"`
	Created  int              `json:"created"`
	Changed  int              `json:"changed"`
}

// MigratedPolicy is one of them.
type MigratedPolicy struct {
	Policy
	Result string `json:"result" enum:"created,changed,kept" doc:"Only the managed policy is changed; other existing policies are kept."`
}

// PolicyTest is a hypothetical login, and a policy to evaluate it with beside those in force. It
// leaves no record and no count.
type PolicyTest struct {
	Policy *Policy            `json:"policy,omitempty" doc:"A draft, evaluated as if active with all other policies. It replaces the stored policy of its id or, without an id, of its name."`
	Login  *HypotheticalLogin `json:"login" required:"true"`
}

// HypotheticalLogin is a login without its secret: credential_id names a secure password of the
// account, live or revoked; without it, the mailbox password counts as verified.
type HypotheticalLogin struct {
	LoginFacts
	CredentialID string `json:"credential_id" doc:"A secure password of the account, live or revoked. If missing: the mailbox password, verified."`
}

// PolicyTested is the decision on a hypothetical login.
type PolicyTested struct {
	access.Decision
	Verdict string `json:"verdict,omitempty" enum:"match,no_match,not_applicable,not_evaluated" doc:"The result of the policy itself. not_applicable: it does not select the account, client type or protocol. not_evaluated: it is disabled."`
}

// PolicyPreview requests an evaluation of recorded logins with one policy changed, over some days.
// Nothing is changed by it.
type PolicyPreview struct {
	Policy *Policy `json:"policy,omitempty" doc:"A draft, evaluated as if enabled and enforced with all other policies. It replaces the stored policy of its id or, without an id, of its name. Required unless remove is given."`
	Remove string  `json:"remove,omitempty" maxLength:"64" doc:"The id of a stored policy whose removal is evaluated."`
	Days   int     `json:"days" minimum:"1" maximum:"3650" default:"30" doc:"How many days of records to evaluate. Older records are deleted after their retention."`
}

// PolicyPreviewed is the evaluation of recorded logins with a policy changed.
type PolicyPreviewed struct {
	Since    time.Time `json:"since" doc:"The start of the period."`
	Oldest   time.Time `json:"oldest,omitzero" doc:"The time of the oldest record in the period. If it is much later than since, earlier records do not exist."`
	Examined int       `json:"examined" doc:"Number of records evaluated."`
	CameIn   int       `json:"came_in" doc:"Records of admitted logins, including those whose result the next passdb never reported."`
	Refused  Affected  `json:"refused" doc:"Admitted logins that the change would have refused. Logins that other rules refuse are not counted."`
	Admitted Affected  `json:"admitted" doc:"Logins that the current rules refuse and the change would allow. Whether their secrets were right is not always known."`

	LastLogins LastLogins `json:"last_logins"`
}

// LastLogins are the last logins of the accounts in a period, by the current rules and with a change.
type LastLogins struct {
	Accounts int         `json:"accounts" doc:"Accounts with a login in the period, 100 000 at most."`
	Changed  int         `json:"changed" doc:"Those whose last login the change decides otherwise."`
	Items    []LastLogin `json:"items" doc:"Changed ones first, then by account; at most 1000."`
}

// LastLogin is the last login of an account, by the current rules and with a change.
type LastLogin struct {
	Account  string            `json:"account"`
	Time     time.Time         `json:"time" doc:"Of the last admitted login; of the last one that a rule refused if none was admitted."`
	IP       string            `json:"ip,omitempty"`
	Region   string            `json:"region,omitempty"`
	Protocol string            `json:"protocol"`
	Client   access.ClientType `json:"client"`
	ClientID string            `json:"client_id,omitempty"`
	Before   string            `json:"before" doc:"allow, or the reason of the refusal by the current rules."`
	After    string            `json:"after" doc:"allow, or the reason of the refusal with the change."`
}

// Affected counts the logins that a change affects, by several properties.
type Affected struct {
	LoginCount
	Accounts  Spread `json:"accounts"`
	Devices   Spread `json:"devices" doc:"By the id of the secure password; mailbox for mailbox passwords, master for master users."`
	Addresses Spread `json:"addresses" doc:"Empty if unknown."`
	Regions   Spread `json:"regions" doc:"unknown for a public address that the database does not know; empty for an address without a region, or without a database."`
	Clients   Spread `json:"clients"`
	Protocols Spread `json:"protocols"`
}

// LoginCount is a number of logins and their period.
type LoginCount struct {
	Logins int       `json:"logins"`
	First  time.Time `json:"first,omitzero"`
	Last   time.Time `json:"last,omitzero"`
}

// Spread counts logins by the values of one property.
type Spread struct {
	Distinct int          `json:"distinct" doc:"Number of different values, 100 000 at most."`
	Items    []SpreadItem `json:"items" doc:"By descending number of logins; at most 1000."`
	Others   int          `json:"others" doc:"Logins with values that are not listed."`
}

// SpreadItem counts the logins with one value.
type SpreadItem struct {
	Value   string `json:"value"`
	Label   string `json:"label,omitempty" doc:"The label of a secure password at its last use."`
	Account string `json:"account,omitempty" doc:"The account of the secure password."`
	LoginCount
}

// PreviewProgress is the progress of a preview.
type PreviewProgress struct {
	Examined int       `json:"examined" doc:"Records evaluated so far."`
	At       time.Time `json:"at" doc:"Time of the record reached, from now backward."`
	Share    float64   `json:"share" doc:"Completed share of the period, 0 to 1."`
}

// PolicyPreviewLine is one line of a preview for whoever accepts application/x-ndjson: progress,
// and at last one of the others.
type PolicyPreviewLine struct {
	Progress *PreviewProgress `json:"progress,omitempty"`
	Result   *PolicyPreviewed `json:"result,omitempty"`
	Problem  *Problem         `json:"problem,omitempty"`
}

// IPBlock blocks an address, a prefix or a range for all logins to a domain, until it expires or is
// deleted.
type IPBlock struct {
	ID        string    `json:"id,omitempty" readOnly:"true"`
	Network   string    `json:"network" required:"true" maxLength:"100" doc:"An address, a prefix or an a-b range." example:"198.51.100.0/24"`
	Note      string    `json:"note" maxLength:"200"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"When it expires; if missing, never."`
	CreatedAt time.Time `json:"created_at,omitzero" readOnly:"true"`
}

// DomainDocument is the settings of a domain. Applying a document does not change missing sections;
// an empty section deletes the domain's.
type DomainDocument struct {
	Format               int                   `json:"format" minimum:"1" maximum:"1" default:"1" doc:"Of the document."`
	Revision             string                `json:"revision,omitempty" maxLength:"100" doc:"The revision of the export. Later changes by others are then not overwritten. If missing, the document replaces them."`
	Domain               *Domain               `json:"domain,omitempty" doc:"The settings; missing ones are set to their default."`
	SecurePasswordPolicy *SecurePasswordPolicy `json:"secure_password_policy,omitempty"`
	Departments          []Department          `json:"departments,omitzero" maxItems:"100000"`
	Policies             []Policy              `json:"policies,omitzero" maxItems:"10000" doc:"Each with its id; the policy of the simple switch is third-party-access."`
	IPBlocks             []IPBlock             `json:"ip_blocks,omitzero" maxItems:"10000" doc:"Identified by their networks. Expired ones are ignored."`
	MailRules            []MailRule            `json:"mail_rules,omitzero" maxItems:"10000" doc:"Each with its id."`
	Groups               []Group               `json:"groups,omitzero" maxItems:"10000" doc:"Identified by their addresses."`
	Accounts             []AccountSettings     `json:"accounts,omitzero" maxItems:"100000" doc:"Accounts with a record. Their secrets are not in the document and are kept."`
}

// Plan lists what a document changes.
type Plan struct {
	Revision  string     `json:"revision" doc:"The present revision of the document's sections in the domain; also the ETag."`
	Applied   bool       `json:"applied"`
	Additions []PlanItem `json:"additions"`
	Changes   []PlanItem `json:"changes"`
	Removals  []PlanItem `json:"removals"`
	Warnings  []Warning  `json:"warnings,omitempty"`
	// Pending is the pending revert of an unconfirmed change.
	Pending *PendingRevert `json:"pending,omitempty" doc:"The policies and blocked addresses are reverted at this time unless the change is confirmed."`
}

// PlanItem is one thing that a document changes.
type PlanItem struct {
	Kind    string                     `json:"kind" enum:"domain,department,policy,ip_block,mail_rule,group,account"`
	ID      string                     `json:"id" doc:"The policy's or mail rule's id, the department's path, the account's or group's address, the domain's name, or the blocked network."`
	Changes map[string]json.RawMessage `json:"changes,omitempty" doc:"For changes: the field, and its value before and after."`
}

// Department is a node in the tree of a domain's departments, named by its path, such as
// "sales/emea". Accounts belong to any number.
type Department struct {
	Path string `json:"path" maxLength:"255" doc:"Names from the top down, separated by slashes. PATCH renames the department and updates all references." example:"sales/emea"`
	Name string `json:"name" maxLength:"100" doc:"A name for people; by default the last part of the path."`

	SendAs []string `json:"send_as" maxItems:"1000" doc:"Sender addresses, and *@domain, that its members and those of the departments below may use in addition to their own."`
}

// Account is the record of one address. The rules of the domain hold for addresses without a
// record, too.
type Account struct {
	AccountSettings
	MailboxPasswordSet  bool      `json:"mailbox_password_set" readOnly:"true" doc:"A mailbox password is stored here."`
	MustChangePassword  bool      `json:"must_change_password,omitempty" readOnly:"true" doc:"Logins with the mailbox password are refused until a new one is set."`
	SecurePasswordCount int       `json:"secure_password_count" readOnly:"true" doc:"Live ones."`
	CreatedAt           time.Time `json:"created_at,omitzero" readOnly:"true"`

	Effective *EffectiveSummary `json:"effective,omitempty" readOnly:"true" doc:"What applies to the account, from its record, its domain and policies; in lists and GET."`

	CutOff   *CutOff   `json:"cut_off,omitempty" readOnly:"true" doc:"Of a dry run that changes switches, suspension or secure_passwords: what it would keep out."`
	Warnings []Warning `json:"warnings,omitempty" readOnly:"true" doc:"In the response to a change: possible mistakes."`
}

// EffectiveSummary is what applies to an account; [Effective] also says what set it.
type EffectiveSummary struct {
	IMAP             bool   `json:"imap"`
	POP3             bool   `json:"pop3"`
	SMTP             bool   `json:"smtp"`
	Sieve            bool   `json:"sieve"`
	SecurePasswords  string `json:"secure_passwords" enum:"optional,required,off"`
	ThirdPartyAccess string `json:"third_party_access" enum:"allow,block,report"`
}

// AccountSettings are the settings of an account.
type AccountSettings struct {
	Address         string    `json:"address" maxLength:"320" doc:"local@domain, in lower case. Cannot be changed." example:"ann@example.org"`
	DisplayName     string    `json:"display_name,omitempty" maxLength:"100" doc:"The person's name, as it stands before the address in mail. Warnings of level advanced recognise it before addresses elsewhere." example:"Ann Smith"`
	Suspended       bool      `json:"suspended"`
	Departments     []string  `json:"departments" maxItems:"100"`
	Aliases         []string  `json:"aliases" maxItems:"1000" doc:"Other addresses of the account. Their domains must be managed. An address that has a record stays an account of its own."`
	SendAs          []string  `json:"send_as" maxItems:"1000" doc:"Sender addresses, and *@domain, that the account may use in addition to its own. A domain's key grants addresses of its domain only." example:"[\"*@example.org\"]"`
	Protocols       Protocols `json:"protocols" doc:"Missing protocols follow the domain."`
	Preset          string    `json:"preset,omitempty" enum:"imap-smtp,pop3-smtp,all,none" doc:"Sets imap, pop3 and smtp at once: the pair named is on and the other protocol off; all or none of the three. It is not stored; responses show it if the switches correspond."`
	SecurePasswords string    `json:"secure_passwords" enum:"optional,required,off" default:"optional" doc:"The choice of the account; enforcement by the domain has precedence. required: third-party clients need a secure password. off: secure passwords are inactive."`
}

// Setting is the value of a setting and its origin.
type Setting[T any] struct {
	Value T          `json:"value"`
	SetBy string     `json:"set_by" doc:"account, batch, domain, default, or the id of a policy."`
	Batch *BatchMark `json:"batch,omitempty" doc:"The batch that set it, unless it was changed since."`
}

// BatchMark describes the batch that set a setting.
type BatchMark struct {
	At    time.Time `json:"at"`
	By    string    `json:"by" doc:"Who ran it, as in the audit." example:"root"`
	Scope string    `json:"scope" doc:"The accounts it selected, in words; long lists are abbreviated." example:"sales with those below"`
}

// Effective is the effective settings of an account, with or without a record.
type Effective struct {
	Address            string             `json:"address"`
	Record             bool               `json:"record" doc:"The account has a record of its own."`
	Suspended          Setting[bool]      `json:"suspended"`
	Departments        Setting[[]string]  `json:"departments"`
	Protocols          EffectiveProtocols `json:"protocols"`
	SecurePasswords    Setting[string]    `json:"secure_passwords"`
	MaxSecurePasswords Setting[int]       `json:"max_secure_passwords"`
	ThirdPartyAccess   Setting[string]    `json:"third_party_access" doc:"allow, block, or report (blocked in report mode only)."`
	SecureLoginIPs     Setting[[]string]  `json:"secure_login_ips" doc:"Addresses exempt from the block."`
	SenderCheck        Setting[string]    `json:"sender_check"`
	TraceHeader        Setting[bool]      `json:"trace_header"`
	Policies           []EffectivePolicy  `json:"policies" doc:"The enabled policies that apply to the account, oldest first."`
}

// EffectivePolicy is a policy that applies to an account, and why.
type EffectivePolicy struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Type       string   `json:"type" enum:"whitelist,blacklist"`
	Mode       string   `json:"mode" enum:"enforce,report"`
	Clients    []string `json:"clients" doc:"Empty means any."`
	Protocols  []string `json:"protocols" doc:"Empty means any."`
	NamedBy    string   `json:"named_by" enum:"member,department,all" doc:"The most specific part of its scope that selects the account."`
	Department string   `json:"department,omitempty" doc:"The department in the scope, if it selects the account."`
}

// EffectiveProtocols are the effective switches.
type EffectiveProtocols struct {
	IMAP  Setting[bool] `json:"imap"`
	POP3  Setting[bool] `json:"pop3"`
	SMTP  Setting[bool] `json:"smtp"`
	Sieve Setting[bool] `json:"sieve"`
}

// MailboxPassword sets the mailbox password that is stored here: password, hash or generate, or
// only must_change to expire the present one.
type MailboxPassword struct {
	Password   Secret `json:"password,omitempty" format:"password" writeOnly:"true" doc:"Must meet the domain's password_policy."`
	Hash       Secret `json:"hash,omitempty" writeOnly:"true" doc:"In Dovecot's notation. Not compared with the domain's password_policy." example:"{BLF-CRYPT}$2y$…"`
	Generate   bool   `json:"generate,omitempty" writeOnly:"true" doc:"Generate a password; only the response shows it."`
	MustChange bool   `json:"must_change,omitempty" writeOnly:"true" doc:"Refuse logins with this password, with password_expired, until another one is set."`
	// Revoke names the devices that may have been stolen with the password.
	Revoke []string `json:"revoke,omitempty" maxItems:"100" writeOnly:"true" doc:"Ids of secure passwords to revoke at the same time, or [\"all\"]. Missing: none."`
}

// MailboxPasswordSet is the response to a change of the mailbox password; the password is in it
// only if it was generated.
type MailboxPasswordSet struct {
	Address    string `json:"address"`
	Scheme     string `json:"scheme" doc:"The scheme of the stored hash." example:"ARGON2ID"`
	Password   Secret `json:"password,omitempty" doc:"A generated password, shown once."`
	MustChange bool   `json:"must_change,omitempty"`

	Revoked         []string `json:"revoked" doc:"Labels of the secure passwords that were revoked."`
	SecurePasswords int      `json:"secure_passwords" doc:"Live ones that keep working."`
}

// Batch changes many accounts at once.
type Batch struct {
	Select *Scope    `json:"select" required:"true"`
	Set    *BatchSet `json:"set" required:"true" doc:"A merge patch: null means inherit."`
}

// BatchSet are the settings that a batch can change.
type BatchSet struct {
	Suspended       bool      `json:"suspended"`
	Departments     []string  `json:"departments" maxItems:"100"`
	Protocols       Protocols `json:"protocols"`
	Preset          string    `json:"preset" enum:"imap-smtp,pop3-smtp,all,none"`
	SecurePasswords string    `json:"secure_passwords" enum:"optional,required,off"`
}

// BatchTotals count the accounts of a batch by result.
type BatchTotals struct {
	Selected  int `json:"selected"`
	Earlier   int `json:"earlier,omitempty" doc:"Selected accounts before the cursor that the batch was resumed from."`
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
	Skipped   int `json:"skipped" doc:"Accounts that left the scope while the batch ran."`
	Failed    int `json:"failed" doc:"Accounts whose record is invalid; the batch continues with the others."`
}

// BatchResult is the result of a batch.
type BatchResult struct {
	BatchTotals
	Accounts []string       `json:"accounts" doc:"Those that changed."`
	Results  []BatchAccount `json:"results" doc:"One per account; 10 000 at most, a streamed response has all."`
	More     int            `json:"more,omitempty" doc:"The number of results beyond those listed."`
}

// BatchAccount is the result of a batch for one account.
type BatchAccount struct {
	Address string            `json:"address"`
	Result  string            `json:"result" enum:"changed,unchanged,skipped,failed" doc:"skipped: it left the scope while the batch ran. failed: it was not changed; errors says why."`
	Changes map[string][2]any `json:"changes,omitempty" doc:"The setting, and its value before and after; null means inherited." example:"{\"protocols.pop3\":[null,false]}"`
	Errors  []Fault           `json:"errors,omitempty"`
}

// BatchProgress is the progress of a batch: accounts counted as done are durable, and stay so if
// the request is cut off.
type BatchProgress struct {
	Done     int    `json:"done"`
	Selected int    `json:"selected"`
	Cursor   string `json:"cursor" doc:"With resume, the same batch continues from here."`
}

// BatchLine is one line of a batch's streamed answer: one of its fields. The last line is result or
// problem.
type BatchLine struct {
	Item     *BatchAccount  `json:"item,omitempty"`
	Progress *BatchProgress `json:"progress,omitempty" doc:"After the items of each chunk, once they are durable."`
	Result   *BatchTotals   `json:"result,omitempty"`
	Problem  *Problem       `json:"problem,omitempty"`
}

// ImportResult is the result of an import.
type ImportResult struct {
	Lines       int      `json:"lines"`
	Created     int      `json:"created"`
	Changed     int      `json:"changed"`
	Unchanged   int      `json:"unchanged"`
	Departments []string `json:"departments" doc:"The departments that were created."`
}

// SecurePassword describes the secret of one device, its last use included, without the secret, of
// which only a keyed hash is stored.
type SecurePassword struct {
	ID    string `json:"id" readOnly:"true"`
	Label string `json:"label" required:"true" minLength:"1" maxLength:"64" doc:"The device." example:"My iPhone"`
	SecretBounds
	CreatedAt        time.Time `json:"created_at" readOnly:"true"`
	LastUsedAt       time.Time `json:"last_used_at,omitzero" readOnly:"true"`
	LastUsedIP       string    `json:"last_used_ip,omitempty" readOnly:"true"`
	LastUsedProtocol string    `json:"last_used_protocol,omitempty" readOnly:"true"`
}

// SecretBounds limit where and until when a secure password is accepted. Elsewhere it is refused
// with secure_password_scope, and after its expiry with revoked_secret.
type SecretBounds struct {
	Protocols []string  `json:"protocols,omitempty" maxItems:"4" enum:"imap,pop3,smtp,sieve" doc:"Protocols that it is for; empty means any. smtp alone: for sending only."`
	Networks  []string  `json:"networks,omitempty" maxItems:"100" doc:"Addresses, prefixes and a-b ranges that it is accepted from; empty means any." example:"203.0.113.0/24"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"When it expires; if missing, never."`
}

// NewSecurePassword requests a secure password for one device. The secret is generated here; one
// that is sent is a fault.
type NewSecurePassword struct {
	Label string `json:"label" required:"true" minLength:"1" maxLength:"64" doc:"The device." example:"My iPhone"`
	SecretBounds
}

// CreatedSecurePassword is a new secure password with its secret, which no other response has:
// whoever loses it makes another.
type CreatedSecurePassword struct {
	ID     string `json:"id"`
	Label  string `json:"label"`
	Secret Secret `json:"secret,omitempty" doc:"Only in this response. A dry run creates none."`
	SecretBounds
	CreatedAt time.Time `json:"created_at"`
	Warnings  []Warning `json:"warnings" doc:"Why the new secret cannot log in now."`
}

// Warning reports a possible mistake in a change that was made all the same. Code is stable; the
// detail is for people.
type Warning struct {
	Code   string `json:"code" doc:"unknown_address; postmaster_included; secrets_lost, suspensions_lifted; refused_and_allowed, changed_since; not_at_postfix, certificate_not_reported, unmapped_service; other_queue, uncertain_messages, unknown_credential; suspended, secure_passwords_off, third_party_blocked, third_party_restricted, protocols_off, protocol_off"`
	Detail string `json:"detail"`
}

// ClientType is a kind of client and the evidence that proves it: any one evidence suffices;
// without evidence nothing proves it.
type ClientType struct {
	Type     string     `json:"type" maxLength:"40"`
	Evidence []Evidence `json:"evidence" required:"true" maxItems:"100" doc:"Any one of them suffices."`
	Unproven bool       `json:"unproven" doc:"Some evidence has neither networks nor a client certificate, so that any client can claim this type."`
	Warnings []Warning  `json:"warnings,omitempty" readOnly:"true" doc:"In the response to a change: evidence that a mail server does not report."`
}

// Evidence proves a client type if all its fields match. Only networks and client certificates are
// proof; the others narrow it.
type Evidence struct {
	Networks    []string `json:"networks" maxItems:"10000" doc:"Addresses, prefixes and a-b ranges of the TCP peer."`
	ClientCert  string   `json:"client_cert" maxLength:"255" doc:"What the server reports about a certificate that it verified. Dovecot 2.3 reports only valid, Postfix nothing; callers of POST /v1/login may send a fingerprint."`
	ServerNames []string `json:"server_names" maxItems:"100" doc:"Narrows: the server name that the client requested (SNI)."`
	LocalPorts  []int    `json:"local_ports" maxItems:"100" minimum:"1" maximum:"65535" doc:"Narrows: the port that the client connected to."`
	Services    []string `json:"services" maxItems:"100" maxLength:"64" doc:"Narrows: Dovecot's service name. For Postfix it is smtp, or the smtpd_sasl_service of the listener."`
}

// Key describes an API key with its role and reach, without the key itself, of which only a hash is
// stored.
type Key struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Domain    string    `json:"domain,omitempty" doc:"For role domain, and the account's for role self."`
	Account   string    `json:"account,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`

	LastUsedAt time.Time `json:"last_used_at,omitzero" doc:"To the minute; missing if the key was not used since uses are recorded."`
}

// NewKey requests an API key. A key makes only weaker keys, within its own domain; the secret is
// generated.
type NewKey struct {
	Name      string    `json:"name" required:"true" minLength:"1" maxLength:"64" doc:"Names the key in the audit."`
	Role      string    `json:"role" required:"true" enum:"admin,domain,read,login,self"`
	Domain    string    `json:"domain,omitempty" doc:"For role domain only."`
	Account   string    `json:"account,omitempty" doc:"For role self only."`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"If missing, the key does not expire. A key that expires cannot create one that expires later."`
}

// CreatedKey is a new key with its secret, which no other response has: only its hash is stored.
type CreatedKey struct {
	Key
	Secret Secret `json:"key,omitempty" doc:"Only in this response. A dry run creates none."`
}

// Decision is the answer to a login: outcome, reason and, in tests, the trace.
type Decision = access.Decision

// Outcomes returns the outcomes of a [Decision] as JSON has them.
func Outcomes() []string {
	return []string{access.Allow.String(), access.Deny.String(), access.Next.String(), access.TempFail.String()}
}

// Reasons returns the reason codes that the record of a login can have.
func Reasons() []string {
	codes := make([]string, len(access.Reasons))
	for i, r := range access.Reasons {
		codes[i] = string(r)
	}
	return codes
}

// LoginRecord is one decision on a login. The log of logins stores the same JSON.
type LoginRecord = access.LoginRecord

// Actor is who made a change: an API key by its name and id, root or the daemon's user on the unix
// socket by number, or the daemon itself.
type Actor struct {
	Name string `json:"name"`          // of the key, "root" or "daemon"
	Key  string `json:"key,omitempty"` // id of the key
	UID  string `json:"uid,omitempty"` // of the peer on the unix socket
}

// ExplainedLogin is a recorded login, evaluated again by the present rules with each step, and what
// has changed since it was recorded.
type ExplainedLogin struct {
	Record     LoginRecord     `json:"record"`
	Decision   access.Decision `json:"decision" doc:"The decision by the current rules, with client type, address and secure password of the record, or a wrong secret."`
	Differs    bool            `json:"differs" doc:"Outcome, reason or policy differ from the record."`
	WhyDiffers string          `json:"why_differs,omitempty"`
}

// AuditEntry is one recorded change: when, by whom, of what, and which fields changed. Secrets are
// named in it, never shown.
type AuditEntry struct {
	ID      string                     `json:"id"`
	Time    time.Time                  `json:"time"`
	Actor   Actor                      `json:"actor"`
	Action  string                     `json:"action" example:"account.update"`
	Domain  string                     `json:"domain,omitempty"`
	Target  string                     `json:"target"`
	Note    string                     `json:"note,omitempty"`
	Changes map[string]json.RawMessage `json:"changes,omitempty" doc:"The field, and its value before and after. Secrets and hashes are never shown."`
}

// StoreDocument is one document of the store, in a backup.
type StoreDocument struct {
	Key      string `json:"key" required:"true" maxLength:"600" example:"domain/example.org"`
	Document string `json:"document" required:"true" maxLength:"2097152" doc:"JSON, hashes of secrets included."`
}

// StoreBackup is the result of a backup.
type StoreBackup struct {
	StoreID   string    `json:"store_id"`
	Pepper    string    `json:"pepper" doc:"Fingerprint of the pepper that the hashes were made with. The pepper itself is not in a backup."`
	TakenAt   time.Time `json:"taken_at"`
	Documents int       `json:"documents"`
}

// StoreBackupLine is one line of a backup's streamed answer: one of its fields. The last line is
// result or problem.
type StoreBackupLine struct {
	Item    *StoreDocument `json:"item,omitempty"`
	Result  *StoreBackup   `json:"result,omitempty"`
	Problem *Problem       `json:"problem,omitempty"`
}

// StoreRestore is a part of a backup.
type StoreRestore struct {
	Pepper    string          `json:"pepper" maxLength:"100" doc:"Fingerprint of the backup's pepper, which must be that of the daemon."`
	Documents []StoreDocument `json:"documents" required:"true" maxItems:"50000"`
	Domains   bool            `json:"domains" doc:"This is the last part: it has the domains, and the others have none, so that no domain is in effect before its rules and accounts are there."`
}

// StoreRestored is the result of restoring a part of a backup.
type StoreRestored struct {
	Documents int `json:"documents"`
}

// StoreRepair is the result of a repair.
type StoreRepair struct {
	Shards int `json:"shards" doc:"Parts of the store that were replaced, or would be."`
}

// StoreStatus is the status of the store and of its replication to this daemon: servers, lag,
// damage, and what is refused meanwhile.
type StoreStatus struct {
	StoreID   string     `json:"store_id" doc:"Empty while nothing is loaded."`
	Loaded    bool       `json:"loaded"`
	SyncedAt  time.Time  `json:"synced_at,omitzero" doc:"When this daemon was last in sync with the store."`
	Trouble   string     `json:"trouble,omitempty" doc:"Why changes are refused at present."`
	Foreign   bool       `json:"foreign" doc:"The store is empty, older than or other than the known one: it is not used until it is adopted."`
	Damaged   bool       `json:"damaged" doc:"Documents are missing, altered or added: changes are refused until the store is repaired or adopted."`
	Mode      string     `json:"mode,omitempty" enum:"single,sentinel,cluster" doc:"How Redis is run; missing while it was not reached."`
	Masters   []Master   `json:"masters" doc:"The servers that take changes, as of a few seconds ago."`
	Sentinels []Sentinel `json:"sentinels" doc:"The Sentinels of store.url, as of a few seconds ago; empty without."`
	Policy    string     `json:"maxmemory_policy,omitempty" doc:"The maxmemory-policy of the Redis server; missing while it is not known."`
	Evicting  bool       `json:"evicting" doc:"The server may delete rules, and store.accept_eviction does not accept that."`
	Changes   uint64     `json:"changes" doc:"Total changes of the store that this daemon knows."`
	Domains   int        `json:"domains"`
	Accounts  int        `json:"accounts" doc:"Accounts with a record."`
	Version   string     `json:"version" doc:"The version of the daemon."`
}

// Master is a Redis server that takes changes.
type Master struct {
	Address       string `json:"address" doc:"Empty if the server does not report it."`
	Replicas      int    `json:"replicas" doc:"Replicas that are connected."`
	Policy        string `json:"maxmemory_policy,omitempty" doc:"Its maxmemory-policy; missing while it is not known."`
	AppendOnly    bool   `json:"append_only" doc:"It writes an append-only file."`
	AppendFsync   string `json:"appendfsync,omitempty" doc:"How often it writes that file to the disk: always, everysec or no; missing if the server does not report it."`
	NeedsReplicas bool   `json:"needs_replicas" doc:"It refuses changes while fewer replicas than min-replicas-to-write are connected."`
	Fault         string `json:"fault,omitempty" doc:"Why it cannot be used, for example that it does not answer."`
}

// Sentinel is a server that decides which Redis server is the master.
type Sentinel struct {
	Address string `json:"address"`
	Fault   string `json:"fault,omitempty" doc:"Why a failover is not possible by it: it does not answer, or too few Sentinels are there."`
}

// AddressDatabase describes a database of addresses: its kind, age and ranges, and why newer files are not
// in use, if so.
type AddressDatabase struct {
	Kind     string    `json:"kind" enum:"csv,mmdb,none"`
	Paths    []string  `json:"paths" doc:"The files that were read."`
	Date     time.Time `json:"date,omitzero" doc:"The date of the data, or of the files."`
	AgeDays  int       `json:"age_days" doc:"Full days since date."`
	V4       int       `json:"ranges_v4"`
	V6       int       `json:"ranges_v6"`
	Missing  string    `json:"missing,omitempty" enum:"IPv4,IPv6" doc:"The address family of which the database has no addresses: they are unknown."`
	LoadedAt time.Time `json:"loaded_at,omitzero"`
	Error    string    `json:"error,omitempty" doc:"Why the present files could not be loaded; the previous data stays in use."`
}

// RegionStatus describes the region database, and that of networks.
type RegionStatus struct {
	AddressDatabase
	Networks *AddressDatabase `json:"networks,omitempty" doc:"The database of networks (regions.networks), if there is one."`
	Domains  []string         `json:"domains" doc:"With policies in force that name regions. While kind is none, their blacklists refuse every public address, and their whitelists admit none."`
}

// Region is a region that policies can select: a country of ISO 3166-1, or EU, AP or ZZ, which
// databases also answer.
type Region struct {
	Region string `json:"region" example:"DE"`
	Name   string `json:"name" doc:"The English name; empty for codes that only the database knows." example:"Germany"`
}

// AddressRegion is the region of an address as decisions see it; empty for private and other
// addresses that have none.
type AddressRegion struct {
	IP string `json:"ip"`
	Region
}

// Health is the response of /livez and /readyz. readyz answers 200 with status degraded as long as
// decisions are possible.
type Health struct {
	Status string `json:"status" enum:"ok,evicting,degraded,damaged,unavailable" doc:"evicting: Redis may delete rules, because its maxmemory-policy is not noeviction. degraded: logins are decided, changes are refused. damaged: the same, until the store is repaired; with 503 logins are not decided either."`
	// DistributedGuessing names no domain: the answer needs no key.
	DistributedGuessing int `json:"distributed_guessing,omitzero" doc:"Number of domains at which many addresses guess; drawbridge throttle lists them. Logins are not affected."`
	// MilterNeeded is for "drawbridge doctor".
	HoldDirFull  bool `json:"hold_dir_full,omitzero" doc:"More than nine tenths of mail.hold_quota are used: soon messages that have to be held are refused for now."`
	MilterNeeded bool `json:"milter_needed,omitzero" doc:"Rules in force read headers or bodies of messages, which only the milter sees."`
}

// List is one page of a list. Next is the cursor of the next page, "" at the end; items is empty,
// never null.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"The cursor of the next page; missing on the last page."`
}

// Login is the request of POST /v1/login, for documentation only.
type Login struct {
	LoginFacts
	Secret    string `json:"secret" format:"password" writeOnly:"true"`
	SecretB64 string `json:"secret_b64" writeOnly:"true" doc:"The secret in base64, if it is not UTF-8."`
	OTP       string `json:"otp" writeOnly:"true" doc:"A second factor: a time-based code, a recovery code, a code that was sent, or the otp of a passkey assertion. Logins with protocol web or with otp need one if the account has one or its domain requires it; otherwise they are refused with second_factor_required."`
}

// LoginFacts is a login without its secret.
type LoginFacts struct {
	Account    string    `json:"account" required:"true" doc:"As typed."`
	Service    string    `json:"service" doc:"Dovecot's service name. Required unless protocol is given."`
	Protocol   string    `json:"protocol" enum:"imap,pop3,smtp,sieve,web"`
	IP         string    `json:"ip" doc:"The user's address."`
	RealIP     string    `json:"real_ip" doc:"The TCP peer, if it differs."`
	LocalIP    string    `json:"local_ip"`
	LocalPort  int       `json:"local_port" minimum:"0" maximum:"65535"`
	ServerName string    `json:"server_name"`
	TLS        bool      `json:"tls"`
	ClientCert string    `json:"client_cert"`
	Mechanism  string    `json:"mechanism"`
	Session    string    `json:"session"`
	MasterUser string    `json:"master_user"`
	Lookup     string    `json:"lookup" enum:"none,credentials,user"`
	ClientID   string    `json:"client_id"`
	Time       time.Time `json:"time,omitzero" doc:"Ignored: the time of a login is now."`
}

// Secret is a secret in a request or response. Formatting it prints a placeholder, so that it
// reaches no log by mistake.
type Secret []byte

// Format implements [fmt.Formatter] for every verb, also %x and %#v: the placeholder is printed,
// never the secret.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return s, nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Secret) UnmarshalText(b []byte) error {
	*s = append(Secret{}, b...)
	return nil
}
