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
	Name               string    `json:"name" required:"true" maxLength:"254" doc:"The domain, in its xn-- form when internationalised. Cannot be changed." example:"example.org"`
	AliasDomains       []string  `json:"alias_domains" maxItems:"1000" doc:"Further names of the same domain: their addresses are this domain's."`
	Protocols          Protocols `json:"protocols" doc:"The switches of accounts that have none of their own."`
	MaxSecurePasswords int       `json:"max_secure_passwords" minimum:"1" maximum:"100" default:"10" doc:"Live secure passwords that an account may have. Lowering it revokes none."`
	Accounts           string    `json:"accounts" enum:"open,listed" default:"open" doc:"listed: every account has a record here, and settings or secrets for an address without one need create=true. open: any address of the domain may get them. Where mailbox passwords are kept here, accounts are always listed."`
	SenderCheck        string    `json:"sender_check" enum:"both,envelope,off" default:"both" doc:"Which sender addresses must belong to the login: MAIL FROM and header From, MAIL FROM, or none."`
	TraceHeader        bool      `json:"trace_header" doc:"Submitted mail names the client type and the device it came from."`
	Administrators     []string  `json:"administrators" maxItems:"100" doc:"Addresses of who administers the domain, whom no change may lock out unasked. Empty, it is the postmaster."`
	CreatedAt          time.Time `json:"created_at,omitzero" readOnly:"true"`
}

// NewDomain is a domain with the setting that only its creator chooses.
type NewDomain struct {
	Domain
	ThirdPartyAccess *ThirdPartyAccess `json:"third_party_access,omitempty" doc:"Whether third-party clients may come in. Left out, they are blocked."`
}

// Protocols are switches; one that is left out, or null, is inherited.
type Protocols struct {
	IMAP  *bool `json:"imap,omitempty"`
	POP3  *bool `json:"pop3,omitempty"`
	SMTP  *bool `json:"smtp,omitempty" doc:"Authenticated submission."`
	Sieve *bool `json:"sieve,omitempty" doc:"ManageSieve."`
}

// ThirdPartyAccess is the simple switch: a view of the managed policy.
type ThirdPartyAccess struct {
	Allow          bool     `json:"allow" required:"true"`
	Mode           string   `json:"mode" enum:"enforce,report" default:"enforce" doc:"With report, what would be refused is recorded, and nothing is refused."`
	SecureLoginIPs []string `json:"secure_login_ips" maxItems:"10000" doc:"Addresses, prefixes and a-b ranges that are exempt from the block. They rest while clients are allowed. Left out, the list stays as it is." example:"203.0.113.0/24"`
	Customised     bool     `json:"customised,omitempty" readOnly:"true" doc:"The policy was changed beyond what this view shows; PUT restores its managed form."`
}

// SecurePasswordPolicy enforces secure passwords for a scope.
type SecurePasswordPolicy struct {
	Enforced bool   `json:"enforced" required:"true"`
	Scope    *Scope `json:"scope,omitempty" doc:"Left out, it is everybody."`
}

// Scope says whom a rule concerns: all, or departments and members, minus exceptions.
type Scope struct {
	All         bool              `json:"all,omitempty"`
	Departments []ScopeDepartment `json:"departments,omitempty" maxItems:"10000"`
	Members     []string          `json:"members,omitempty" maxItems:"10000" doc:"Addresses of this domain."`
	Except      *Exceptions       `json:"except,omitempty"`
}

// Exceptions are taken out of a scope.
type Exceptions struct {
	Departments []ScopeDepartment `json:"departments,omitempty" maxItems:"10000"`
	Members     []string          `json:"members,omitempty" maxItems:"10000"`
}

// ScopeDepartment names a department, with or without those below it.
type ScopeDepartment struct {
	Path string `json:"path" required:"true" example:"sales"`
	Sub  bool   `json:"sub,omitempty" doc:"With all departments below it."`
}

// Policy is an access policy: whom it concerns, from where, with what.
type Policy struct {
	ID        string    `json:"id,omitempty" maxLength:"64" doc:"Generated when it is left out. Cannot be changed." example:"office"`
	Name      string    `json:"name" maxLength:"100" doc:"What people read; no two policies of a domain have the same." example:"Only from the office"`
	Type      string    `json:"type" required:"true" enum:"whitelist,blacklist" doc:"A blacklist refuses at its place. Whitelists refuse wherever none of those that apply has its place. Deny wins; the order never matters."`
	Enabled   *bool     `json:"enabled,omitempty" default:"true"`
	Mode      string    `json:"mode" enum:"enforce,report" default:"enforce" doc:"With report, what would be refused is recorded, and nothing is refused."`
	Managed   string    `json:"managed,omitempty" readOnly:"true" doc:"The simple switch that maintains it."`
	Scope     *Scope    `json:"scope,omitempty" doc:"Needed."`
	IPs       []string  `json:"ips" maxItems:"10000" doc:"Addresses, prefixes and a-b ranges. A whitelist needs some, or regions; without either a blacklist is for anywhere." example:"203.0.113.0/24"`
	Regions   []string  `json:"regions" maxItems:"1000" doc:"Countries by their code of ISO 3166-1, or what else GET /v1/regions/codes lists. An address that the database does not know is in none." example:"DE"`
	ExceptIPs []string  `json:"except_ips" maxItems:"10000" doc:"Taken out of the place."`
	Clients   []string  `json:"clients" maxItems:"100" doc:"Client types; empty for any." example:"third-party"`
	Protocols []string  `json:"protocols" maxItems:"100" enum:"imap,pop3,smtp,sieve,web" doc:"Empty for any."`
	CreatedAt time.Time `json:"created_at,omitzero" readOnly:"true"`
	Warnings  []Warning `json:"warnings,omitempty" readOnly:"true" doc:"In the answer to a change: what may not be meant."`
	// Pending tells of a change that is not confirmed yet.
	Pending *PendingRevert `json:"pending,omitempty" readOnly:"true" doc:"The policy becomes what it was before, unless that is confirmed."`
}

// PendingRevert says when a change undoes itself.
type PendingRevert struct {
	ID string    `json:"id"`
	At time.Time `json:"at"`
}

// Revert is a change that undoes itself unless it is confirmed.
type Revert struct {
	ID        string    `json:"id"`
	At        time.Time `json:"at" doc:"When what was there before is put back."`
	CreatedAt time.Time `json:"created_at"`
	By        Actor     `json:"by" doc:"Who made the change."`
	Action    string    `json:"action" example:"policy.update"`
	Target    string    `json:"target"`
}

// Lockout is whom a change would lock out.
type Lockout struct {
	Active    int   `json:"active" doc:"Members who came in lately and still could."`
	LockedOut int   `json:"locked_out" doc:"Those of them who could not by any way that they used."`
	Who       []Who `json:"who"`
	More      int   `json:"more,omitempty" doc:"How many who does not list."`
}

// Who is one person whom a change would lock out.
type Who struct {
	Account   string            `json:"account"`
	As        []string          `json:"as" enum:"author,administrator,member" doc:"author: an administrator, at the address that the change is made from. administrator: all of them would be locked out. member: more of them than may be."`
	IP        string            `json:"ip" doc:"Of their last login, as client and protocol are."`
	Client    access.ClientType `json:"client"`
	Protocol  string            `json:"protocol"`
	LastLogin time.Time         `json:"last_login,omitzero"`
	PolicyID  string            `json:"policy_id,omitempty" doc:"That would refuse it."`
}

// Migration are the settings of former days that access policies have replaced.
type Migration struct {
	ThirdPartyAllowed *bool          `json:"third_party_allowed,omitempty" doc:"Whether third-party clients might log in. Left out, their switch stays as it is."`
	SecureLoginIPs    []string       `json:"secure_login_ips" maxItems:"10000" doc:"From where they might all the same: addresses, prefixes and a-b ranges. Left out, the list stays as it is." example:"203.0.113.0/24"`
	NativeClients     []NativeClient `json:"native_clients" maxItems:"1000" doc:"Which of the site's own clients might be used."`
}

// NativeClient is the former setting of one of the site's own clients.
type NativeClient struct {
	Client  string `json:"client" required:"true" maxLength:"40" doc:"Any client type but third-party and cloud-fetcher." example:"native-mobile"`
	Allowed bool   `json:"allowed" required:"true" doc:"true makes no policy: what no policy refuses is allowed."`
	Scope   *Scope `json:"scope,omitempty" doc:"For whom. Left out, it is everybody."`
}

// Migrated are the policies that former settings stand for, made now or earlier.
type Migrated struct {
	Policies []MigratedPolicy `json:"policies"`
	Created  int              `json:"created"`
	Changed  int              `json:"changed"`
}

// MigratedPolicy is one of them.
type MigratedPolicy struct {
	Policy
	Result string `json:"result" enum:"created,changed,kept" doc:"What became of it. Only the managed policy is ever changed; any other that is there is kept as it is."`
}

// PolicyTest is a login that nobody makes, and a policy to hold it against.
type PolicyTest struct {
	Policy *Policy            `json:"policy,omitempty" doc:"A draft, judged as if it were active beside all others, in place of the stored one of its id, or without an id of its name, if there is one."`
	Login  *HypotheticalLogin `json:"login" required:"true"`
}

// HypotheticalLogin is a login without its secret.
type HypotheticalLogin struct {
	LoginFacts
	CredentialID string `json:"credential_id" doc:"A secure password of the account, live or revoked; left out, it is the mailbox password, verified."`
}

// PolicyTested is the decision that a login would get.
type PolicyTested struct {
	access.Decision
	Verdict string `json:"verdict,omitempty" enum:"match,no_match,not_applicable,not_evaluated" doc:"What the policy itself says. not_applicable: it does not select the account, client type or protocol. not_evaluated: it is disabled."`
}

// PolicyPreview asks what one change of a domain's policies would have done.
type PolicyPreview struct {
	Policy *Policy `json:"policy,omitempty" doc:"A draft, judged as if it were enabled and enforced beside all others, in place of the stored one of its id, or without an id of its name, if there is one. This or remove is needed."`
	Remove string  `json:"remove,omitempty" maxLength:"64" doc:"The id of a stored policy: judged is its removal."`
	Days   int     `json:"days" minimum:"1" maximum:"3650" default:"30" doc:"How far back to look. Records end with their retention."`
}

// PolicyPreviewed is what a change of rules would have done to recorded logins. Its tags are those of the
// API, which answers it as it is.
type PolicyPreviewed struct {
	Since    time.Time `json:"since" doc:"From when on records were asked for."`
	Oldest   time.Time `json:"oldest,omitzero" doc:"Of the oldest record since then. Much later than since, there were no logins before it, or they are no longer on record."`
	Examined int       `json:"examined" doc:"Records looked at."`
	CameIn   int       `json:"came_in" doc:"Those that were admitted; also those that the next passdb decided and never told of."`
	Refused  Affected  `json:"refused" doc:"Logins that came in, and that the change would have refused. What the other rules refuse by themselves is not counted."`
	Admitted Affected  `json:"admitted" doc:"Logins that the rules as they are refuse, and that the change would let past them. Whether their secrets were right is not known of all."`
}

// Affected are the logins that a change concerns, and how they spread.
type Affected struct {
	LoginCount
	Accounts  Spread `json:"accounts"`
	Devices   Spread `json:"devices" doc:"By id of the secure password; mailbox for mailbox passwords, master for master users."`
	Addresses Spread `json:"addresses" doc:"Empty when it was unknown."`
	Regions   Spread `json:"regions" doc:"unknown for a public address that the database does not know; empty for one that has no region, and without a database."`
	Clients   Spread `json:"clients"`
	Protocols Spread `json:"protocols"`
}

// LoginCount is how many logins there were, and when.
type LoginCount struct {
	Logins int       `json:"logins"`
	First  time.Time `json:"first,omitzero"`
	Last   time.Time `json:"last,omitzero"`
}

// Spread is how logins spread over the values of one kind.
type Spread struct {
	Distinct int          `json:"distinct" doc:"Different values; those behind the first 100 000 met are not told apart, and not counted here."`
	Items    []SpreadItem `json:"items" doc:"Most logins first; at most 1000."`
	Others   int          `json:"others" doc:"Logins of values that are not listed."`
}

// SpreadItem are the logins of one value.
type SpreadItem struct {
	Value   string `json:"value"`
	Label   string `json:"label,omitempty" doc:"Of a secure password, as it was last used."`
	Account string `json:"account,omitempty" doc:"Whose secure password it is."`
	LoginCount
}

// PreviewProgress is how far a comparison is.
type PreviewProgress struct {
	Examined int       `json:"examined" doc:"Records looked at so far."`
	At       time.Time `json:"at" doc:"Time reached: from now backward."`
	Share    float64   `json:"share" doc:"Of the time asked for, 0 to 1."`
}

// PolicyPreviewLine is one line of a preview for whoever accepts application/x-ndjson: progress,
// and at last one of the others.
type PolicyPreviewLine struct {
	Progress *PreviewProgress `json:"progress,omitempty"`
	Result   *PolicyPreviewed `json:"result,omitempty"`
	Problem  *Problem         `json:"problem,omitempty"`
}

// IPBlock is an address or a range that is refused for a whole domain.
type IPBlock struct {
	ID        string    `json:"id,omitempty" readOnly:"true"`
	Network   string    `json:"network" required:"true" maxLength:"100" doc:"An address, a prefix or an a-b range." example:"198.51.100.0/24"`
	Note      string    `json:"note" maxLength:"200"`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"When it ends by itself; left out, never."`
	CreatedAt time.Time `json:"created_at,omitzero" readOnly:"true"`
}

// DomainDocument is all that is set for a domain. A section that is left out is left alone when the
// document is applied; an empty one empties the domain's.
type DomainDocument struct {
	Format               int                   `json:"format" minimum:"1" maximum:"1" default:"1" doc:"Of the document."`
	Revision             string                `json:"revision,omitempty" maxLength:"100" doc:"Of the sections when they were exported: with it, what somebody else changed since is not overwritten. Left out, the document holds whatever was changed."`
	Domain               *Domain               `json:"domain,omitempty" doc:"The settings; those that are left out become the default."`
	SecurePasswordPolicy *SecurePasswordPolicy `json:"secure_password_policy,omitempty"`
	Departments          []Department          `json:"departments,omitzero" maxItems:"100000"`
	Policies             []Policy              `json:"policies,omitzero" maxItems:"10000" doc:"Each with its id. The one of the simple switch is among them, as third-party-access."`
	IPBlocks             []IPBlock             `json:"ip_blocks,omitzero" maxItems:"10000" doc:"Told apart by their networks. Those that have ended count as absent."`
	Accounts             []AccountSettings     `json:"accounts,omitzero" maxItems:"100000" doc:"With a record of their own. Their secrets are not in the document, and stay."`
}

// Plan tells what a document changes.
type Plan struct {
	Revision  string     `json:"revision" doc:"Of the document's sections as they are in the domain now. Its ETag as well."`
	Applied   bool       `json:"applied"`
	Additions []PlanItem `json:"additions"`
	Changes   []PlanItem `json:"changes"`
	Removals  []PlanItem `json:"removals"`
	Warnings  []Warning  `json:"warnings,omitempty"`
	// Pending tells of a change that is not confirmed yet.
	Pending *PendingRevert `json:"pending,omitempty" doc:"The policies and blocked addresses become what they were before, unless that is confirmed."`
}

// PlanItem is one thing that a document changes.
type PlanItem struct {
	Kind    string                     `json:"kind" enum:"domain,department,policy,ip_block,account"`
	ID      string                     `json:"id" doc:"The policy's id, the department's path, the account's address, the domain's name, or the blocked network."`
	Changes map[string]json.RawMessage `json:"changes,omitempty" doc:"Of what is changed: field, and its value before and after."`
}

// Department is a node of a domain's tree.
type Department struct {
	Path string `json:"path" maxLength:"255" doc:"Names from the top down, separated by slashes. A PATCH of it renames the department with all that names it." example:"sales/emea"`
	Name string `json:"name" maxLength:"100" doc:"What people read; the last part of the path when left out."`

	SendAs []string `json:"send_as" maxItems:"1000" doc:"Sender addresses, and *@domain, that its members and those of the departments below may use in addition to their own."`
}

// Account is one address.
type Account struct {
	AccountSettings
	// What follows is told, never taken.
	MailboxPasswordSet  bool      `json:"mailbox_password_set" readOnly:"true" doc:"A mailbox password is kept here."`
	SecurePasswordCount int       `json:"secure_password_count" readOnly:"true" doc:"Live ones."`
	CreatedAt           time.Time `json:"created_at,omitzero" readOnly:"true"`

	Effective *EffectiveSummary `json:"effective,omitempty" readOnly:"true" doc:"What applies to the account, from its record, its domain and policies; in lists and GET."`
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

// AccountSettings is what an account may be told to be.
type AccountSettings struct {
	Address         string    `json:"address" maxLength:"320" doc:"local@domain, in lower case. Cannot be changed." example:"ann@example.org"`
	Suspended       bool      `json:"suspended"`
	Departments     []string  `json:"departments" maxItems:"100"`
	Aliases         []string  `json:"aliases" maxItems:"1000" doc:"Further addresses of the account. Their domains must be managed."`
	SendAs          []string  `json:"send_as" maxItems:"1000" doc:"Sender addresses, and *@domain, that the account may use in addition to its own. A domain's key grants addresses of its domain only." example:"[\"*@example.org\"]"`
	Protocols       Protocols `json:"protocols" doc:"A protocol that is not named follows the domain."`
	Preset          string    `json:"preset,omitempty" enum:"imap-smtp,pop3-smtp,all,none" doc:"Sets imap, pop3 and smtp at once: the pair named is on and the other protocol off; all or none of the three. It is not kept: it is answered when the switches are as it sets them."`
	SecurePasswords string    `json:"secure_passwords" enum:"optional,required,off" default:"optional" doc:"The account's own choice, which enforcement goes before. required: third-party clients need a secure password. off: secure passwords are inactive."`
}

// Setting is the value of one setting and what set it.
type Setting[T any] struct {
	Value T          `json:"value"`
	SetBy string     `json:"set_by" doc:"account, batch, domain, default, or the id of a policy."`
	Batch *BatchMark `json:"batch,omitempty" doc:"The batch, when one set it and nobody has since."`
}

// BatchMark is the batch that set something.
type BatchMark struct {
	At    time.Time `json:"at"`
	By    string    `json:"by" doc:"Who made it, as the audit names them." example:"root"`
	Scope string    `json:"scope" doc:"Whom it selected, in words; long lists are cut short." example:"sales with those below"`
}

// Effective is what holds for an account, record or not.
type Effective struct {
	Address            string             `json:"address"`
	Record             bool               `json:"record" doc:"The account has a record of its own."`
	Suspended          Setting[bool]      `json:"suspended"`
	Departments        Setting[[]string]  `json:"departments"`
	Protocols          EffectiveProtocols `json:"protocols"`
	SecurePasswords    Setting[string]    `json:"secure_passwords"`
	MaxSecurePasswords Setting[int]       `json:"max_secure_passwords"`
	ThirdPartyAccess   Setting[string]    `json:"third_party_access" doc:"allow, block, or report: blocked in report mode only."`
	SecureLoginIPs     Setting[[]string]  `json:"secure_login_ips" doc:"Addresses exempt from the block."`
	SenderCheck        Setting[string]    `json:"sender_check"`
	TraceHeader        Setting[bool]      `json:"trace_header"`
	Policies           []EffectivePolicy  `json:"policies" doc:"The enabled policies that concern the account, oldest first."`
}

// EffectivePolicy is a policy that concerns an account, and why it does.
type EffectivePolicy struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Type       string   `json:"type" enum:"whitelist,blacklist"`
	Mode       string   `json:"mode" enum:"enforce,report"`
	Clients    []string `json:"clients" doc:"Empty for any."`
	Protocols  []string `json:"protocols" doc:"Empty for any."`
	NamedBy    string   `json:"named_by" enum:"member,department,all" doc:"The closest part of its scope that names the account."`
	Department string   `json:"department,omitempty" doc:"Of the scope, when that names it."`
}

// EffectiveProtocols are the switches as they hold.
type EffectiveProtocols struct {
	IMAP  Setting[bool] `json:"imap"`
	POP3  Setting[bool] `json:"pop3"`
	SMTP  Setting[bool] `json:"smtp"`
	Sieve Setting[bool] `json:"sieve"`
}

// MailboxPassword sets the password that is kept here: exactly one of its fields.
type MailboxPassword struct {
	Password Secret `json:"password,omitempty" format:"password" writeOnly:"true"`
	Hash     Secret `json:"hash,omitempty" writeOnly:"true" doc:"In Dovecot's notation." example:"{BLF-CRYPT}$2y$…"`
}

// MailboxPasswordSet answers a change of the mailbox password.
type MailboxPasswordSet struct {
	Address string `json:"address"`
	Scheme  string `json:"scheme" doc:"Of the hash that is kept." example:"ARGON2ID"`
}

// Batch changes many accounts at once.
type Batch struct {
	Select *Scope    `json:"select" required:"true"`
	Set    *BatchSet `json:"set" required:"true" doc:"A merge patch: null means inherit."`
}

// BatchSet is what a batch can set.
type BatchSet struct {
	Suspended       bool      `json:"suspended"`
	Departments     []string  `json:"departments" maxItems:"100"`
	Protocols       Protocols `json:"protocols"`
	Preset          string    `json:"preset" enum:"imap-smtp,pop3-smtp,all,none"`
	SecurePasswords string    `json:"secure_passwords" enum:"optional,required,off"`
}

// BatchTotals count what a batch did, or would do, to the accounts in its scope.
type BatchTotals struct {
	Selected  int `json:"selected"`
	Earlier   int `json:"earlier,omitempty" doc:"Of the selected, those up to the cursor that it was resumed from."`
	Changed   int `json:"changed"`
	Unchanged int `json:"unchanged"`
	Skipped   int `json:"skipped" doc:"They left the scope while the batch ran."`
	Failed    int `json:"failed" doc:"Their record has faults, which do not keep the batch from the others."`
}

// BatchResult tells what a batch changed, or would change.
type BatchResult struct {
	BatchTotals
	Accounts []string       `json:"accounts" doc:"Those that changed."`
	Results  []BatchAccount `json:"results" doc:"Of each account in turn; 10 000 at most, a streamed answer has all."`
	More     int            `json:"more,omitempty" doc:"How many results were left off."`
}

// BatchAccount is what became of one account in a batch.
type BatchAccount struct {
	Address string            `json:"address"`
	Result  string            `json:"result" enum:"changed,unchanged,skipped,failed" doc:"skipped: it left the scope while the batch ran. failed: errors says why, and nothing of it changed."`
	Changes map[string][2]any `json:"changes,omitempty" doc:"Setting, and its value before and after; a null is inherited." example:"{\"protocols.pop3\":[null,false]}"`
	Errors  []Fault           `json:"errors,omitempty"`
}

// BatchProgress tells how far a batch is: what is done is durable.
type BatchProgress struct {
	Done     int    `json:"done"`
	Selected int    `json:"selected"`
	Cursor   string `json:"cursor" doc:"With resume, the same batch goes on from here."`
}

// BatchLine is one line of a batch's streamed answer: one of its fields. The last line is result or
// problem.
type BatchLine struct {
	Item     *BatchAccount  `json:"item,omitempty"`
	Progress *BatchProgress `json:"progress,omitempty" doc:"Behind the items of each chunk, once they are durable."`
	Result   *BatchTotals   `json:"result,omitempty"`
	Problem  *Problem       `json:"problem,omitempty"`
}

// ImportResult tells what an import changed, or would change.
type ImportResult struct {
	Lines       int      `json:"lines"`
	Created     int      `json:"created"`
	Changed     int      `json:"changed"`
	Unchanged   int      `json:"unchanged"`
	Departments []string `json:"departments" doc:"Those that were created."`
}

// SecurePassword is one device's secret, without the secret.
type SecurePassword struct {
	ID               string    `json:"id" readOnly:"true"`
	Label            string    `json:"label" required:"true" minLength:"1" maxLength:"64" doc:"The device." example:"My iPhone"`
	CreatedAt        time.Time `json:"created_at" readOnly:"true"`
	LastUsedAt       time.Time `json:"last_used_at,omitzero" readOnly:"true"`
	LastUsedIP       string    `json:"last_used_ip,omitempty" readOnly:"true"`
	LastUsedProtocol string    `json:"last_used_protocol,omitempty" readOnly:"true"`
}

// NewSecurePassword asks for a secure password. The secret is generated.
type NewSecurePassword struct {
	Label string `json:"label" required:"true" minLength:"1" maxLength:"64" doc:"The device." example:"My iPhone"`
}

// CreatedSecurePassword shows a secure password for the only time.
type CreatedSecurePassword struct {
	ID        string    `json:"id"`
	Label     string    `json:"label"`
	Secret    Secret    `json:"secret,omitempty" doc:"Appears in this answer only. A dry run makes none."`
	CreatedAt time.Time `json:"created_at"`
	Warnings  []Warning `json:"warnings" doc:"Why the new secret could not log in now."`
}

// Warning is something that the caller should know of a change that was made.
type Warning struct {
	Code   string `json:"code" doc:"postmaster_included; secrets_lost, suspensions_lifted; refused_and_allowed, changed_since; not_at_postfix, certificate_not_told, unmapped_service; suspended, secure_passwords_off, third_party_blocked, third_party_restricted, protocols_off, protocol_off"`
	Detail string `json:"detail"`
}

// ClientType is a kind of program and the evidence that proves it.
type ClientType struct {
	Type     string     `json:"type" maxLength:"40"`
	Evidence []Evidence `json:"evidence" required:"true" maxItems:"100" doc:"Any of them suffices."`
	Unproven bool       `json:"unproven" doc:"Some evidence has neither networks nor a client certificate: anybody can pass for this type."`
	Warnings []Warning  `json:"warnings,omitempty" readOnly:"true" doc:"In the answer to a change: evidence that a mail server does not carry."`
}

// Evidence proves a client type when all kinds that are given match.
type Evidence struct {
	Networks    []string `json:"networks" maxItems:"10000" doc:"Of the TCP peer: addresses, prefixes and a-b ranges."`
	ClientCert  string   `json:"client_cert" maxLength:"255" doc:"What the server tells of a certificate that it verified. Dovecot 2.3 tells valid and no more, Postfix nothing; who asks POST /v1/login may send a fingerprint."`
	ServerNames []string `json:"server_names" maxItems:"100" doc:"Narrows: what the client asked for (SNI)."`
	LocalPorts  []int    `json:"local_ports" maxItems:"100" minimum:"1" maximum:"65535" doc:"Narrows: where the client connected to."`
	Services    []string `json:"services" maxItems:"100" maxLength:"64" doc:"Narrows: Dovecot's service name. A listener of Postfix is smtp, or what its smtpd_sasl_service says."`
}

// Key opens the API.
type Key struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Domain    string    `json:"domain,omitempty" doc:"For role domain, and the account's for role self."`
	Account   string    `json:"account,omitempty"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"`
}

// NewKey asks for a key.
type NewKey struct {
	Name      string    `json:"name" required:"true" minLength:"1" maxLength:"64" doc:"Names the key in the audit."`
	Role      string    `json:"role" required:"true" enum:"admin,domain,read,login,self"`
	Domain    string    `json:"domain,omitempty" doc:"For role domain only."`
	Account   string    `json:"account,omitempty" doc:"For role self only."`
	ExpiresAt time.Time `json:"expires_at,omitzero" doc:"Left out, it does not expire; a key that expires makes none that lasts longer."`
}

// CreatedKey shows a key for the only time.
type CreatedKey struct {
	Key
	Secret Secret `json:"key,omitempty" doc:"Appears in this answer only. A dry run makes none."`
}

// LoginRecord is one decision on a login. The log of logins stores the same JSON.
type LoginRecord = access.LoginRecord

// Actor is who made a change.
type Actor struct {
	Name string `json:"name"`          // of the key, "root" or "daemon"
	Key  string `json:"key,omitempty"` // id of the key
	UID  string `json:"uid,omitempty"` // of the peer on the unix socket
}

// ExplainedLogin is a recorded login, decided again.
type ExplainedLogin struct {
	Record     LoginRecord     `json:"record"`
	Decision   access.Decision `json:"decision" doc:"By the rules as they are now, with what the record tells: client type and address, which secure password, or that the secret was wrong."`
	Differs    bool            `json:"differs" doc:"Outcome, reason or deciding policy are not those of the record."`
	WhyDiffers string          `json:"why_differs,omitempty"`
}

// AuditEntry is one change on record.
type AuditEntry struct {
	ID      string                     `json:"id"`
	Time    time.Time                  `json:"time"`
	Actor   Actor                      `json:"actor"`
	Action  string                     `json:"action" example:"account.update"`
	Domain  string                     `json:"domain,omitempty"`
	Target  string                     `json:"target"`
	Note    string                     `json:"note,omitempty"`
	Changes map[string]json.RawMessage `json:"changes,omitempty" doc:"Field, and its value before and after. Of secrets and hashes only that they changed."`
}

// StoreStatus says how the daemon and its store get on.
type StoreStatus struct {
	StoreID  string    `json:"store_id" doc:"Empty while nothing is loaded."`
	Loaded   bool      `json:"loaded"`
	SyncedAt time.Time `json:"synced_at,omitzero" doc:"When the store was last seen to agree with what this daemon holds."`
	Trouble  string    `json:"trouble,omitempty" doc:"Why changes are refused now."`
	Foreign  bool      `json:"foreign" doc:"The store is empty, older or another than the one known: it is not believed until it is adopted."`
	Changes  uint64    `json:"changes" doc:"Made to the store in all, as far as this daemon knows."`
	Domains  int       `json:"domains"`
	Accounts int       `json:"accounts" doc:"With a record of their own."`
	Version  string    `json:"version" doc:"Of the daemon."`
}

// RegionStatus says what the regions of addresses are told from.
type RegionStatus struct {
	Kind     string    `json:"kind" enum:"csv,mmdb,none"`
	Paths    []string  `json:"paths" doc:"The files that were read."`
	Date     time.Time `json:"date,omitzero" doc:"Of the data: as the files say, else of the files."`
	AgeDays  int       `json:"age_days" doc:"Full days since then."`
	V4       int       `json:"ranges_v4"`
	V6       int       `json:"ranges_v6"`
	LoadedAt time.Time `json:"loaded_at,omitzero"`
	Error    string    `json:"error,omitempty" doc:"Why the files as they are now were not taken: what was read before stays in force."`
	Domains  []string  `json:"domains" doc:"With policies in force that name regions. While kind is none, their blacklists refuse every public address, and their whitelists let none in."`
}

// Region is a region that policies can name.
type Region struct {
	Region string `json:"region" example:"DE"`
	Name   string `json:"name" doc:"In English; empty for what only the database knows." example:"Germany"`
}

// AddressRegion is the region of an address.
type AddressRegion struct {
	IP string `json:"ip"`
	Region
}

// Health answers /livez and /readyz.
type Health struct {
	Status string `json:"status" enum:"ok,degraded,unavailable" doc:"degraded: decisions go on, changes are refused."`
}

// List is one page of a list.
type List[T any] struct {
	Items []T    `json:"items"`
	Next  string `json:"next,omitempty" doc:"The cursor of the next page; missing on the last."`
}

// Login is the request of POST /v1/login, here for the documentation only.
type Login struct {
	LoginFacts
	Secret    string `json:"secret" format:"password" writeOnly:"true"`
	SecretB64 string `json:"secret_b64" writeOnly:"true" doc:"Instead of secret, when it is not UTF-8."`
}

// LoginFacts is a login but for its secret.
type LoginFacts struct {
	Account    string    `json:"account" required:"true" doc:"As typed."`
	Service    string    `json:"service" doc:"Dovecot's service name. It or protocol is needed."`
	Protocol   string    `json:"protocol" enum:"imap,pop3,smtp,sieve,web"`
	IP         string    `json:"ip" doc:"The user's address."`
	RealIP     string    `json:"real_ip" doc:"The TCP peer, when it differs."`
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
	Time       time.Time `json:"time,omitzero" doc:"Ignored: a login happens now."`
}

// Secret is a secret on its way in or out. Whoever prints one gets a placeholder.
type Secret []byte

// Format implements [fmt.Formatter] for every verb.
func (Secret) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("[secret]")) }

// MarshalText implements [encoding.TextMarshaler].
func (s Secret) MarshalText() ([]byte, error) { return s, nil }

// UnmarshalText implements [encoding.TextUnmarshaler].
func (s *Secret) UnmarshalText(b []byte) error {
	*s = append(Secret{}, b...)
	return nil
}
