package mailflow

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// Settings are the documents that the rules of a domain are compiled from.
type Settings struct {
	Domain      string
	Names       []string // of the domain: its own and its alias domains
	Departments []string // the paths of all
	Rules       []Rule   // in the order in which they are listed
	Groups      []Group
}

// Rules are the compiled rules of a domain. They never change. The nil Rules have none.
type Rules struct {
	names  map[string]bool
	sets   [len(Kinds)][2]ruleSet // by kind and side
	groups map[string]*group
	needs  Needs
	tags   []string // of subjects, by warning rules
}

// The indices of the sides.
const (
	sent = iota
	received
)

var sides = [...]Direction{Sent, Received}

// ruleSet are the rules of one kind and side.
type ruleSet struct {
	rules  []*compiled
	scopes *access.ScopeSet
}

// compiled is a rule in the form in which it is evaluated.
type compiled struct {
	*Rule
	except domains
	trusts domains // the whitelist of a warning
	match  matcher
	body   bool // it uses the body
	files  bool // it may file messages as spam
}

// Compile compiles the rules of a domain. Expressions that cannot be compiled are faults of their
// rules when these are evaluated.
func Compile(s *Settings) *Rules {
	if len(s.Rules) == 0 && len(s.Groups) == 0 {
		return nil
	}
	r := &Rules{names: map[string]bool{s.Domain: true}}
	for _, name := range s.Names {
		r.names[name] = true
	}
	for k, kind := range Kinds {
		for side, direction := range sides {
			set := &r.sets[k][side]
			var scopes []*access.Scope
			for i := range s.Rules {
				rule := &s.Rules[i]
				if rule.Kind != kind || !rule.Enabled || !rule.applies(direction) {
					continue
				}
				set.rules = append(set.rules, &compiled{rule, newDomains(rule.ExceptDomains), newDomains(rule.Action.Whitelist), compileMatch(rule), rule.usesBody(), rule.files()})
				scopes = append(scopes, &rule.Scope)
				r.needs = r.needs.Or(rule.needs())
				if kind == KindWarning && slices.Contains(rule.Action.How, HowSubject) && !slices.Contains(r.tags, rule.tag()) {
					r.tags = append(r.tags, rule.tag())
				}
			}
			if len(scopes) > 0 {
				set.scopes = access.CompileScopes(scopes, s.Departments)
			}
		}
	}
	r.groups = compileGroups(s.Groups)
	for i := range s.Groups {
		r.needs.Recipients = true
		if len(s.Groups[i].Approvers) > 0 { // messages are held
			r.needs.Headers, r.needs.Body = true, true
		}
	}
	return r
}

// Needs returns the parts of messages that the rules use.
func (r *Rules) Needs() Needs {
	if r == nil {
		return Needs{}
	}
	return r.needs
}

// Forwarding reports whether a rule about automatic forwarding is in force in the domain.
func (r *Rules) Forwarding() bool {
	return r != nil && len(r.sets[slices.Index(Kinds[:], KindForwarding)][received].rules) > 0
}

// applies reports whether the rule has an effect on one side of messages: what is limited is what
// an account sends, and what is marked as external, or forwarded, is what it receives.
func (r *Rule) applies(side Direction) bool {
	switch r.Kind {
	case KindLimit:
		return side == Sent
	case KindForwarding, KindWarning:
		return side == Received
	case KindInternalOnly, KindFilter, KindAudit, KindMonitor:
	}
	return r.Direction.Has(side)
}

// needs returns the parts of messages that the rule uses.
func (r *Rule) needs() Needs {
	return Needs{Recipients: true, Headers: !r.Kind.Envelope(), Body: r.usesBody() || r.files()}
}

// usesBody reports whether the rule reads, keeps or changes bodies.
func (r *Rule) usesBody() bool {
	m := &r.Match
	switch {
	case len(m.Text)+len(m.Attachments.Names)+len(m.Attachments.Types) > 0, m.MinSize > 0:
		return true
	case r.Kind == KindAudit, r.Kind == KindMonitor: // the whole message is kept or copied
		return true
	}
	return slices.Contains(r.Action.How, HowBanner)
}

// files reports whether the rule may file messages as spam, which are sent apart if others get them
// as well.
func (r *Rule) files() bool { return r.Kind == KindFilter && r.Action.Do != DoDelete }

// Allowance is asked whether a limit permits a message to go to one more recipient. It reports
// whether it does, and if not, which bound is reached, in words.
type Allowance func(r *Rule) (ok bool, reached string)

// Applying are the rules that concern a message at a recipient: those of the domains of its sender,
// of the recipient, and of the mailbox that forwards it. They are nil for domains that are not
// managed.
type Applying struct{ Sender, Recipient, Redirected *Rules }

// None reports whether no rule concerns the message.
func (a *Applying) None() bool { return a.Sender == nil && a.Recipient == nil && a.Redirected == nil }

// Evaluate decides about a message at one of its recipients. Without an allowance limits are not
// evaluated, and without the content those rules that may use it.
func Evaluate(m *Message, to *Party, rules *Applying, allowance Allowance, trace bool) Verdict {
	e := evaluation{m: m, to: to, rules: rules, allowance: allowance, tracing: trace}
	for k, kind := range Kinds {
		if m.Released && kind != KindAudit && kind != KindMonitor && kind != KindWarning || m.SentApart && kind != KindWarning {
			continue // decided before it was held, or sent apart
		}
		for side := range sides {
			if e.kind(k, side); e.v.Refused && !trace {
				return e.v
			}
		}
		if kind == KindInternalOnly {
			if e.group(); e.v.Refused && !trace {
				return e.v
			}
		}
	}
	return e.v
}

// evaluation is the state of one evaluation.
type evaluation struct {
	m         *Message
	to        *Party
	rules     *Applying
	allowance Allowance
	tracing   bool
	probing   bool // for rules that use the body, which are not evaluated
	body      bool
	files     []*Rule
	v         Verdict
}

// WantsBody reports whether some rule or group may use the body of a message at a recipient, as far
// as the envelope shows. If none does, files are the rules that may file it as spam.
func WantsBody(m *Message, to *Party, rules *Applying) (wants bool, files []*Rule) {
	e := evaluation{m: m, to: to, rules: rules, probing: true}
	if r := rules.Recipient; r != nil && r.groups[to.Account] != nil {
		for _, in := range r.groups[to.Account].inner {
			e.body = e.body || len(in.Approvers) > 0
		}
	}
	for k := range Kinds {
		for side := range sides {
			if e.body {
				return true, nil
			}
			if Kinds[k].Matches() {
				e.kind(k, side)
			}
		}
	}
	return e.body, e.files
}

// kind evaluates the rules of one kind on one side.
func (e *evaluation) kind(k, side int) {
	rules, self := e.rules.Sender, &e.m.Sender
	if side == received {
		rules, self = e.rules.Recipient, e.to
	}
	switch {
	case Kinds[k] == KindForwarding:
		rules, self = e.rules.Redirected, &e.m.Redirected
	case Kinds[k] == KindInternalOnly && side == sent && (e.m.Expanded || e.m.Redirected.Account != ""):
		self = e.m.origin() // of what a colleague's mailbox forwards
	}
	if rules == nil || self.Account == "" {
		return
	}
	set := &rules.sets[k][side]
	if len(set.rules) == 0 {
		return
	}
	var room access.ScopeRoom
	w := set.scopes.Walk(self.Account, self.Departments, &room)
	for i, ok := w.Next(); ok; i, ok = w.Next() {
		if e.rule(set.rules[i], side); e.v.Refused && !e.tracing {
			return
		}
	}
}

// rule evaluates a rule whose scope includes the party of its side.
func (e *evaluation) rule(r *compiled, side int) {
	if !e.m.Time.IsZero() && (e.m.Time.Before(r.From) || !r.Until.IsZero() && !e.m.Time.Before(r.Until)) {
		e.step(r, "not_applicable", "outside of its period")
		return
	}
	if r.excepted(e.m, e.to, side) {
		e.step(r, "not_applicable", "the domain of the other party is excepted")
		return
	}
	if e.probing {
		inside := r.Kind == KindWarning && e.m.internalTo(e.to.Domain)
		if (r.body || r.files) && !inside && r.match.envelope(e.m, e.to) {
			if e.body = e.body || r.body; r.files && r.Mode != access.Report {
				e.files = append(e.files, r.Rule)
			}
		}
		return
	}
	switch r.Kind {
	case KindLimit:
		e.limit(r)
	case KindInternalOnly:
		e.internalOnly(r, side)
	case KindForwarding:
		e.forwarding(r)
	case KindFilter, KindAudit, KindMonitor, KindWarning:
		e.content(r, side)
	}
}

// excepted reports whether the other party is of an excepted domain.
func (r *compiled) excepted(m *Message, to *Party, side int) bool {
	if r.except.empty() || r.Kind == KindLimit {
		return false
	}
	other := to
	if side == received && r.Kind != KindForwarding {
		other = &m.From
		if m.Sender.Account != "" {
			other = &m.Sender
		}
	}
	return r.except.has(address.Domain(other.Address))
}

func (e *evaluation) limit(r *compiled) {
	if e.allowance == nil {
		e.step(r, "not_evaluated", "limits are counted for messages that are sent")
		return
	}
	ok, reached := e.allowance(r.Rule)
	if ok {
		e.step(r, "pass", "")
		return
	}
	e.refuse(r, ReasonLimit, reached, func() string { return LimitReached(r.Rule, reached).Text })
}

// LimitReached is the verdict on a message that a limit does not permit. reached is the bound, in
// words.
func LimitReached(r *Rule, reached string) Verdict {
	return Verdict{Refused: true, Temporary: true, Reason: ReasonLimit, Rule: r.ID, Text: "Sending limit reached (" + reached + "). Try again later."}
}

func (e *evaluation) internalOnly(r *compiled, side int) {
	if side == sent {
		if e.inside(e.rules.Sender) {
			e.step(r, "pass", "the recipient is in the sender's domain")
			return
		}
		e.refuse(r, ReasonInternalOnly, "the recipient is outside", func() string {
			return "Your account may only send mail within " + e.m.origin().Domain + "."
		})
		return
	}
	if e.m.internalTo(e.to.Domain) {
		e.step(r, "pass", "the message is from within the domain")
		return
	}
	e.refuse(r, ReasonInternalOnly, "the message is from outside", func() string {
		return "This recipient only accepts mail from within " + e.to.Domain + "."
	})
}

// inside reports whether the recipient is in the domain of the rules.
func (e *evaluation) inside(rules *Rules) bool {
	domain := e.to.Domain
	if domain == "" {
		domain = address.Domain(e.to.Address)
	}
	return rules.names[domain]
}

func (e *evaluation) forwarding(r *compiled) {
	switch {
	case r.Action.Allow == AllowInside && e.inside(e.rules.Redirected):
		e.step(r, "pass", "the target is in the mailbox's domain")
	default:
		e.refuse(r, ReasonForwarding, e.m.Redirected.Account+" forwards to "+e.to.Address, func() string {
			return "Automatic forwarding to this recipient is switched off for your account."
		})
	}
}

// content evaluates a rule of a kind that does something with messages that match.
func (e *evaluation) content(r *compiled, side int) {
	if r.Kind == KindWarning && e.m.internalTo(e.to.Domain) {
		e.step(r, "not_applicable", "the message is from within the domain")
		return
	}
	if e.m.Content == nil {
		e.step(r, "not_evaluated", "the message was not received yet")
		return
	}
	if r.Kind == KindWarning && r.trusted(e.m) {
		e.step(r, "not_applicable", "the sender's domain is on the whitelist")
		return
	}
	matched, err := r.match.message(e.m, e.to)
	switch {
	case err != nil && r.OnFault == FaultIgnore:
		e.step(r, "no_match", "it cannot be evaluated: "+err.Error())
	case err != nil:
		e.step(r, "refuse", "it cannot be evaluated: "+err.Error())
		if r.Mode != access.Report && !e.v.Refused {
			e.v.Refused, e.v.Temporary, e.v.Reason, e.v.Rule, e.v.Cause = true, true, ReasonFiltered, r.ID, err
			e.v.Text = "The message cannot be checked now."
		}
	case !matched:
		e.step(r, "no_match", "")
	case r.Mode == access.Report:
		e.step(r, "report", "it would "+string(r.Kind))
		e.v.Reported = append(e.v.Reported, r.ID)
	default:
		e.step(r, "match", "")
		domain := e.m.Sender.Domain
		if side == received {
			domain = e.to.Domain
		}
		e.v.Effects = append(e.v.Effects, Effect{Rule: r.Rule, Side: sides[side], Domain: domain})
	}
}

// trusted reports whether the envelope sender and all that the From fields name are of domains on
// the rule's whitelist.
func (r *compiled) trusted(m *Message) bool {
	if r.trusts.empty() || !r.trusts.has(address.Domain(m.From.Address)) {
		return false
	}
	for _, f := range m.Content.Header {
		if !strings.EqualFold(strings.TrimRight(f.Name, " \t"), "From") {
			continue
		}
		_, addr := displayed(f.Value)
		if domain, err := address.ParseDomain(addr[strings.LastIndexByte(addr, '@')+1:]); err != nil || !r.trusts.has(domain) {
			return false
		}
	}
	return true
}

// refuse refuses the recipient, or reports that the rule would.
func (e *evaluation) refuse(r *compiled, reason Reason, detail string, text func() string) {
	if r.Mode == access.Report {
		e.step(r, "report", detail)
		e.v.Reported = append(e.v.Reported, r.ID)
		return
	}
	e.step(r, "refuse", detail)
	if e.v.Refused {
		return
	}
	e.v.Refused, e.v.Reason, e.v.Rule, e.v.Text = true, reason, r.ID, text()
	e.v.Temporary = reason == ReasonLimit
}

func (e *evaluation) step(r *compiled, result, detail string) {
	if e.tracing {
		e.v.Trace = append(e.v.Trace, Step{Step: string(r.Kind), Result: result, Rule: r.ID, Detail: detail})
	}
}

// domains is a set of domains, and of all domains below others.
type domains struct {
	exact map[string]bool
	below []string // ".example.net"
}

func newDomains(list []string) domains {
	var d domains
	for _, entry := range list {
		if rest, ok := strings.CutPrefix(entry, "*"); ok {
			d.below = append(d.below, rest)
			continue
		}
		if d.exact == nil {
			d.exact = make(map[string]bool, len(list))
		}
		d.exact[entry] = true
	}
	return d
}

func (d *domains) empty() bool { return d.exact == nil && d.below == nil }

func (d *domains) has(domain string) bool {
	if domain == "" {
		return false
	}
	if d.exact[domain] {
		return true
	}
	for _, suffix := range d.below {
		if strings.HasSuffix(domain, suffix) {
			return true
		}
	}
	return false
}

// maxExpires is how long a message can be held: a year, as its approver may be away for months, but
// not for ever.
const maxExpires = 365 * 24 * time.Hour

// CheckExpires reads the duration of an audit rule, from a second to a year.
func CheckExpires(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, errors.New("is not a duration such as 72h")
	case d < time.Second || d > maxExpires:
		return 0, errors.New("must be from 1s to 8760h")
	}
	return d, nil
}
