package access

import (
	"iter"
	mathbits "math/bits"
	"time"
)

// SecretState is the result of one keyed hash of the secret.
type SecretState uint8

// The states of a secret.
const (
	SecretOther         SecretState = iota // no secure password of the account
	SecretShaped                           // has the shape of a secure password, but the account never had it
	SecretLive                             // a live secure password of the account
	SecretRevoked                          // a secure password of the account that was revoked or has expired
	SecretEmpty                            // no secret at all
	SecretUnseen                           // not given; test and explain assume the mailbox password
	SecretAuthenticated                    // the mailbox password, verified when the open session began
)

// Secret is the result of the fast checks of a secret.
type Secret struct {
	State        SecretState
	CredentialID string // of a live or revoked secure password
	Label        string
	Bounds       Bounds // of a secure password
}

// Reveal selects the clients that see the reason of a refusal (setting login.reveal).
type Reveal uint8

// The settings of login.reveal.
const (
	RevealWeb      Reveal = iota // the site's own webmail, and clients whose secret was verified
	RevealVerified               // clients whose secret was verified
	RevealNever
)

// Site contains the settings that apply to every login.
type Site struct {
	NextPassdb bool // the site's next passdb verifies mailbox passwords
	Reveal     Reveal
}

// Account is the part of an account's record that decisions use.
type Account struct {
	Suspended   bool
	Departments []string
	Protocols   Switched
	Secure      SecureMode
	// HasSecure: the account has a secure password, or had one recently.
	HasSecure bool
	// PasswordSet is when the mailbox password kept here was set; zero if that is not known.
	PasswordSet time.Time
	// MustChange: the mailbox password kept here opens nothing until a new one is set.
	MustChange bool
}

// Query is the input of a decision, apart from the answers of [Asker].
type Query struct {
	Site    Site
	Login   *Login
	Address string // canonical; empty if the name is not a usable address
	// Unmanaged: no rules apply to the name; the next passdb decides.
	Unmanaged bool
	Rules     *Rules   // nil if the domain is not managed
	Account   *Account // nil without a record
	Client    ClientType
	Region    string // ISO 3166-1 alpha-2, "", RegionUnknown or RegionNoDatabase
	Secret    Secret
}

// Asker answers questions that are slow or need counters. A decision asks each at most once.
type Asker interface {
	// Throttled reports whether this account and address have reached the limit of wrong secrets.
	Throttled() bool
	// Mailbox verifies the secret as the mailbox password kept here. It takes the same time for
	// known and unknown accounts.
	Mailbox() bool
}

// Decide decides a login. With trace it also records each step in Decision.Trace and decides the
// same, so that an explanation agrees with the login. Without trace, and without a Note, it does
// not allocate.
func Decide(q *Query, ask Asker, trace bool) Decision {
	d := Decision{Account: q.Address, Client: q.Client, Region: ShownRegion(q.Region)}
	note := func(step, result, detail string) {
		if trace {
			d.Trace = append(d.Trace, Step{Step: step, Result: result, Detail: detail})
		}
	}
	if q.Login.NoLogin() {
		note("name", "pass", "a look-up, not a login")
		d.Outcome, d.Reason = Next, ReasonOK
		return d
	}
	if q.Address == "" && !q.Unmanaged {
		note("name", "refuse", "no usable address")
		d.Outcome, d.Reason = Deny, ReasonUnknownAccount
		return d
	}
	if q.Rules == nil {
		d.Reason = ReasonUnmanagedDomain
		if q.Unmanaged {
			note("name", "pass", "the domain is not managed: left to the next passdb")
			d.Outcome = Next
			return d
		}
		note("name", "refuse", "the domain is not managed")
		d.Outcome = Deny
		return d
	}
	if q.Login.Protocol == 0 {
		note("protocol", "refuse", "the service is mapped to no protocol: see the setting login.services")
		d.Outcome, d.Reason = Deny, ReasonProtocol
		return d
	}

	var none Account
	acc := q.Account
	known := acc != nil
	if !known {
		acc = &none
	}
	var room subjectRoom
	sub := q.Rules.scopes.subject(q.Address, acc.Departments, &room)

	// Every step runs before any answer, so that the time of the answer does not reveal the step
	// that refused.
	rule, place := q.Rules.judge(q, acc, sub, &d, trace)
	q.secret(acc, known, sub, ask, &d, trace)
	if rule != "" {
		d.Outcome, d.Reason = Deny, rule
	}
	if d.Outcome == Deny && q.reveals(&d) {
		d.Message = text(d.Reason, place)
	}
	return d
}

// Judge evaluates the rules that do not depend on the secret, and returns the reason of the refusal
// and the policy; reason "" is no refusal. It replays recorded logins, whose secret is gone. The
// query needs Rules and an Address.
func Judge(q *Query) (reason Reason, policyID string) {
	acc := q.Account
	if acc == nil {
		acc = &Account{}
	}
	var room subjectRoom
	sub := q.Rules.scopes.subject(q.Address, acc.Departments, &room)
	var d Decision
	reason, _ = q.Rules.judge(q, acc, sub, &d, false)
	return reason, d.PolicyID
}

// judge runs the steps that do not depend on the secret. It returns the first refusal, or "", and
// whether that refusal depends on the address.
func (r *Rules) judge(q *Query, acc *Account, sub subject, d *Decision, trace bool) (reason Reason, place bool) {
	note := func(step, result, detail string) {
		if trace {
			d.Trace = append(d.Trace, Step{Step: step, Result: result, Detail: detail})
		}
	}
	refuse := func(r Reason) {
		if reason == "" {
			reason = r
		}
	}
	if acc.Suspended {
		note("account", "refuse", "suspended")
		refuse(ReasonSuspended)
	} else {
		note("account", "pass", "not suspended")
	}
	blocked := !r.blocked.Empty() && (!q.Login.IP.IsValid() || r.blocked.Contains(q.Login.IP))
	if blocked {
		refuse(ReasonIPBlocked)
	}
	if trace {
		r.traceBlocks(q.Login, blocked, d)
	}
	on, setBy := r.protocolOn(q.Login.Protocol, acc)
	bound := !q.Client.Own()
	if !on && bound {
		refuse(ReasonProtocol)
	}
	if trace {
		d.Trace = append(d.Trace, switchStep(q.Login.Protocol, on, setBy, bound))
	}
	id, named, refused := r.policiesRefuse(q, sub, d)
	if trace {
		r.tracePolicies(q, acc, sub, id, d)
	}
	if refused {
		if reason == "" {
			d.PolicyID, place = id, named
		}
		refuse(ReasonPolicy)
	}
	if reason == ReasonIPBlocked {
		place = true
	}
	return reason, place
}

// ProtocolOn returns whether a protocol is enabled for an account (nil without a record), and the
// level that sets it: account, domain or default.
func (r *Rules) ProtocolOn(p Protocol, acc *Account) (on bool, setBy string) {
	if acc == nil {
		acc = &Account{}
	}
	return r.protocolOn(p, acc)
}

func (r *Rules) protocolOn(p Protocol, acc *Account) (on bool, setBy string) {
	if on, ok := acc.Protocols.Switched(p); ok {
		return on, "account"
	}
	if on, ok := r.protocols.Switched(p); ok {
		return on, "domain"
	}
	return true, "default"
}

// policiesRefuse evaluates all policies. Deny wins; one matching whitelist of several suffices. The
// order matters only for the policy that a refusal names: the first that refuses.
func (r *Rules) policiesRefuse(q *Query, sub subject, d *Decision) (id string, place, refused bool) {
	near := r.near.Contains(q.Login.IP)
	var skip bits
	if !near && q.Login.IP.IsValid() {
		skip = r.listOnly
	}
	var white *policy // first enforced whitelist that applies and does not match
	var inside bool   // an enforced whitelist matches
	var reported bool // a whitelist in report mode does not match
	for p := range r.applying(q, sub, skip) {
		if p.deny && !p.namesPlace() && q.Login.MasterUser != "" {
			continue
		}
		match := p.place(q.Login, q.Region, near)
		switch {
		case p.deny && match && p.report:
			d.WouldRefuse = append(d.WouldRefuse, p.id)
		case p.deny && match:
			if !refused {
				id, place, refused = p.id, p.namesPlace(), true
			}
		case p.deny:
		case p.report:
			reported = reported || !match
		case match:
			inside = true
		case white == nil:
			white = p
		}
	}
	if white != nil && !inside && !refused {
		id, place, refused = white.id, true, true
	}
	if reported && !inside {
		r.reportWhitelists(q, sub, d)
	}
	return id, place, refused
}

// reportWhitelists records the whitelists in report mode that would refuse if enforced. It is apart
// from the main loop because few domains have any.
func (r *Rules) reportWhitelists(q *Query, sub subject, d *Decision) {
	for p := range r.applying(q, sub, nil) {
		if p.report && !p.deny && !p.place(q.Login, q.Region, true) {
			d.WouldRefuse = append(d.WouldRefuse, p.id)
		}
	}
}

// applying yields, in order, the policies that select the login and whose scope includes the
// subject, without those to skip.
func (r *Rules) applying(q *Query, sub subject, skip bits) iter.Seq[*policy] {
	return func(yield func(*policy) bool) {
		var room subjectRoom
		sel := r.selected(q.Client)
		walk := sub.walk(sel.everyone, &room)
		for w := walk.next(); w < len(sel.policies); w = walk.next() {
			for word := walk.take(w) & sel.policies[w] & r.byProtocol[q.Login.Protocol].word(w) &^ skip.word(w); word != 0; word &= word - 1 {
				if !yield(&r.policies[w<<6+mathbits.TrailingZeros64(word)]) {
					return
				}
			}
		}
	}
}

// selected returns the policies that select a client type.
func (r *Rules) selected(c ClientType) *selection {
	if sel, ok := r.byClient[c]; ok {
		return sel
	}
	return &r.anyClient
}

// SecureRequired reports whether third-party clients of an account need a secure password, and the
// level that requires it: domain, account, or "".
func (r *Rules) SecureRequired(addr string, acc *Account) (required bool, setBy string) {
	var none Account
	if acc == nil {
		acc = &none
	}
	sub := r.scopes.subject(addr, acc.Departments, new(subjectRoom))
	return r.secureRequired(acc, sub)
}

// Applying returns the ids of the policies whose scope includes an account, in compiled order; nil
// if a record is missing.
func (r *Rules) Applying(addr string, acc *Account) []string {
	if acc == nil {
		acc = &Account{}
	}
	sub := r.scopes.subject(addr, acc.Departments, new(subjectRoom))
	var ids []string
	for i := range r.policies {
		if sub.covered(uint32(i)) { // bounded far below 2^32
			ids = append(ids, r.policies[i].id)
		}
	}
	return ids
}

func (r *Rules) secureRequired(acc *Account, sub subject) (required bool, setBy string) {
	if r.enforced && sub.covered(r.enforcement()) {
		return true, "domain"
	}
	if acc.Secure == SecureRequired {
		return true, "account"
	}
	return false, ""
}

// secret runs the steps that depend on the secret: it sets the outcome, the reason and the
// credential.
func (q *Query) secret(acc *Account, known bool, sub subject, ask Asker, d *Decision, trace bool) {
	set := func(o Outcome, r Reason, detail, by string) {
		d.Outcome, d.Reason = o, r
		if trace {
			result := "pass"
			if o == Deny {
				result = "refuse"
			}
			d.Trace = append(d.Trace, Step{Step: "secret", Result: result, Detail: detail + by})
		}
	}
	// refuseKnown refuses a secret that is or was a secure password, after the time of any other
	// wrong secret: a faster answer would reveal that it was valid once.
	refuseKnown := func(r Reason, detail string) {
		if !q.Site.NextPassdb && !ask.Throttled() {
			ask.Mailbox()
		}
		set(Deny, r, detail, "")
	}
	third := !q.Client.Own()
	required, by := q.Rules.secureRequired(acc, sub)
	required = required && third

	switch {
	case !known && !q.Site.NextPassdb:
		if q.guessable() {
			// Compute the slow hash all the same: unknown and wrong secrets take the same time.
			if ask.Throttled() {
				set(Deny, ReasonThrottled, "too many wrong secrets", "")
				return
			}
			ask.Mailbox()
			d.Guess = true
		}
		set(Deny, ReasonUnknownAccount, "no such account", "")
		return
	case q.Login.MasterUser != "":
		// The master is already authenticated; this secret is the master's.
		d.Verified = true
		if q.Site.NextPassdb {
			set(Next, ReasonOK, "master login: the next passdb knows the account", "")
			return
		}
		set(Allow, ReasonOK, "master login: the secret is not checked", "")
		return
	case q.Login.Lookup == LookupCredentials:
		q.Rules.foresee(third, sub, d)
		switch {
		case required:
			set(Deny, ReasonSecureRequired, "this mechanism does not show the secret, and a secure password is required by the ", by)
		case !q.Site.NextPassdb:
			d.Note = "the mechanism does not show the secret: offer PLAIN and LOGIN only"
			set(Deny, ReasonSecureRequired, d.Note, "")
		case ask.Throttled():
			set(Deny, ReasonThrottled, "too many wrong secrets", "")
		default:
			set(Next, ReasonOK, "the next passdb verifies a mechanism that does not show the secret", "")
		}
		return
	}

	switch q.Secret.State {
	case SecretLive:
		d.CredentialID = q.Secret.CredentialID
		if q.Secret.Bounds.Expired(q.Login.Time) {
			d.Note = "expired secure password '" + q.Secret.Label + "' still in use"
			refuseKnown(ReasonRevokedSecret, d.Note)
			return
		}
		outside := q.Secret.Bounds.outside(q.Login)
		switch {
		case !third:
			d.Note = "secure password '" + q.Secret.Label + "' used with one of the site's own clients"
			refuseKnown(ReasonBadSecret, "a secure password opens third-party clients only")
		case acc.Secure == SecureOff && !required:
			d.Note = "secure password '" + q.Secret.Label + "' is inactive: the account has switched secure passwords off"
			refuseKnown(ReasonBadSecret, d.Note)
		case outside != "":
			d.Verified = true
			d.Note = "secure password '" + q.Secret.Label + "' used outside of its bounds: " + outside
			set(Deny, ReasonSecretScope, d.Note, "")
		default:
			d.Verified = true
			set(Allow, ReasonOK, "a live secure password: ", q.Secret.Label)
		}
		return
	case SecretRevoked:
		d.CredentialID = q.Secret.CredentialID
		d.Note = "revoked secure password '" + q.Secret.Label + "' still in use"
		refuseKnown(ReasonRevokedSecret, d.Note)
		return
	case SecretShaped:
		// Where mailbox passwords are kept here, compute the slow hash as for any other secret: its
		// absence would reveal the accounts with secure passwords.
		if q.Site.NextPassdb && (acc.HasSecure || required) {
			set(Deny, ReasonBadSecret, "looks like a secure password, but is not one of this account's", "")
			return
		}
	case SecretEmpty:
		set(Deny, ReasonBadSecret, "no secret", "")
		return
	case SecretAuthenticated:
		d.Verified = true
	case SecretUnseen:
		d.Verified = !q.Site.NextPassdb
	case SecretOther:
	}
	given := q.guessable()
	q.Rules.foresee(third, sub, d)

	if required && q.Site.NextPassdb {
		set(Deny, ReasonSecureRequired, "a secure password is required by the ", by)
		return
	}
	if given && ask.Throttled() {
		set(Deny, ReasonThrottled, "too many wrong secrets", "")
		return
	}
	if q.Site.NextPassdb {
		set(Next, ReasonOK, "the mailbox password belongs to the next passdb", "")
		return
	}
	if given && !ask.Mailbox() {
		d.Guess = true
		set(Deny, ReasonBadSecret, "not the mailbox password", "")
		return
	}
	d.Verified = true
	if required {
		set(Deny, ReasonSecureRequired, "a secure password is required by the ", by)
		return
	}
	if why := q.Rules.passwordExpired(acc, q.Login.Time); why != "" {
		set(Deny, ReasonPasswordExpired, why, "")
		return
	}
	assumed := ""
	if q.Secret.State == SecretUnseen {
		assumed = ", assumed to be correct"
	}
	set(Allow, ReasonOK, "the mailbox password", assumed)
}

// RefuseFactor refuses a login that the rules admit, for the lack of a second factor; kinds are those
// that the account has.
func (q *Query) RefuseFactor(d *Decision, kinds []string, note string) {
	d.Outcome, d.Reason, d.Note, d.SecondFactors = Deny, ReasonSecondFactor, note, kinds
	if q.reveals(d) {
		d.Message = text(d.Reason, false)
	}
}

// passwordExpired returns why a mailbox password kept here must be changed, "" if it need not.
func (r *Rules) passwordExpired(acc *Account, now time.Time) string {
	switch {
	case acc.MustChange:
		return "the mailbox password must be changed"
	case r.maxAge > 0 && !acc.PasswordSet.IsZero() && now.Sub(acc.PasswordSet) >= r.maxAge:
		return "the mailbox password is older than the domain allows"
	}
	return ""
}

// EnforcementID is the id in [Decision.WouldRefuse] of secure passwords that are not enforced yet.
const EnforcementID = "secure-password-policy"

// foresee records a login that the enforcement of secure passwords would refuse.
func (r *Rules) foresee(third bool, sub subject, d *Decision) {
	if r.later && third && sub.covered(r.enforcement()) {
		d.WouldRefuse = append(d.WouldRefuse, EnforcementID)
	}
}

// guessable reports whether the login carries a secret that may be a guess at the mailbox password.
func (q *Query) guessable() bool {
	if q.Login.MasterUser != "" || q.Login.Lookup != LookupNone {
		return false
	}
	switch q.Secret.State {
	case SecretOther, SecretShaped:
		return true
	case SecretLive, SecretRevoked, SecretEmpty, SecretUnseen, SecretAuthenticated:
	}
	return false
}

// reveals reports whether the client may see the reason.
func (q *Query) reveals(d *Decision) bool {
	switch q.Site.Reveal {
	case RevealWeb:
		// Drawbridge's pages are open to everybody: they do not say which accounts are suspended.
		return d.Verified || q.Client == ClientWeb || q.Client == ClientConsole && d.Reason != ReasonSuspended
	case RevealVerified:
		return d.Verified
	case RevealNever:
	}
	return false
}

// text is the table of texts for clients (F10). A wrong secret and an unknown account have none.
func text(r Reason, place bool) string {
	switch r {
	case ReasonPolicy:
		if place {
			return textPlace
		}
		return textClient
	case ReasonIPBlocked:
		return textPlace
	case ReasonProtocol:
		return textProtocol
	case ReasonSecureRequired:
		return textSecure
	case ReasonSuspended:
		return textSuspended
	case ReasonThrottled:
		return textThrottled
	case ReasonPasswordExpired:
		return textExpired
	case ReasonSecretScope:
		return textScope
	case ReasonSecondFactor:
		return textFactor
	case ReasonOK, ReasonBadSecret, ReasonRevokedSecret, ReasonUnknownAccount, ReasonUnmanagedDomain, ReasonStoreUnavailable, ReasonSenderNotOwned:
	}
	return ""
}
