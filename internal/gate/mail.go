package gate

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/expiring"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/submission"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

const (
	// messageFor bounds how long a message may take from its first recipient to its end.
	messageFor = time.Hour
	// passedFor is how long it is remembered that a recipient was accepted, for the second pass of
	// a message that a content filter returns.
	passedFor = time.Hour
	// maxMessages bounds the messages that are being received, and the recipients remembered.
	maxMessages = 100_000
	// maxRecipients bounds the recipients of a message that are remembered, accepted or not.
	maxRecipients = 10_000
	// maxOpen bounds those of all messages that are being received.
	maxOpen = 1_000_000
	// maxListed bounds the domains and accounts that a record lists.
	maxListed = 50
	// identified is how long a received message waits for the milter to report its Message-ID.
	identified = 5 * time.Second
	// refusedFor is how long after its last recipient a message is recorded whose recipients were all
	// refused. Postfix asks no more about it, and keeps its connection.
	refusedFor = 5 * time.Second
)

const textTooMany = "The message has too many recipients, please send it to fewer."

const textUnavailable = "The message cannot be checked now, please try again later."

// mails is the gate's memory of messages.
type mails struct {
	needs  atomic.Pointer[needed]
	milter atomic.Int64 // open connections
	policy atomic.Bool  // policyd was asked about a recipient, once
	ends   atomic.Bool  // policyd was asked about the end of a message, once

	mu      sync.Mutex
	open    *expiring.Map[string, *transaction]  // by instance
	parties int                                  // recipients of those messages, at least
	queued  *expiring.Map[string, *transaction]  // by queue id: accepted, not yet recorded
	passed  *expiring.Map[fingerprint, passedAt] // recipients that were accepted, by MAIL FROM and recipient
	treated *expiring.Map[fingerprint, passedAt] // the same of whole messages, by Message-ID, too
}

func newMails() *mails {
	return &mails{
		open: expiring.New[string, *transaction](maxMessages), queued: expiring.New[string, *transaction](maxMessages),
		passed: expiring.New[fingerprint, passedAt](maxMessages), treated: expiring.New[fingerprint, passedAt](maxMessages),
	}
}

// needed is the requirements of the rules of a version of the state.
type needed struct {
	version uint64
	mailflow.Needs
}

// fingerprint stands for texts that outsiders choose, and that may be long.
type fingerprint [sha256.Size]byte

func fingerprintOf(texts ...string) fingerprint {
	return sha256.Sum256([]byte(strings.Join(texts, "\x00")))
}

type passedAt time.Time

// Expired implements [expiring.Value].
func (p passedAt) Expired(now time.Time) bool { return now.Sub(time.Time(p)) >= passedFor }

// transaction is a message that is being received.
type transaction struct {
	began    time.Time
	asked    time.Time // about the last recipient
	login    string    // as the client wrote it
	envelope mailflow.Envelope
	message  mailflow.Message
	to       []mailflow.Party
	accepted map[string]bool // the addresses in to, if there are many
	domains  []string        // of the recipients
	refused  []refusedRecipient
	reported []string
	warned   []string
	rule     string // the first that had an effect
	charges  []charge
	shared   bool // the charges were taken on all daemons
	later    bool // by [Gate.spendLater]
	other    int  // of the recipients in to that Postfix refused
}

type refusedRecipient struct {
	to     mailflow.Party
	reason mailflow.Reason
	rule   string
}

// Expired implements [expiring.Value].
func (t *transaction) Expired(now time.Time) bool { return now.Sub(t.began) >= messageFor }

// Needs returns the parts of messages that enforced rules use, and all while the rules are not
// loaded. Where domains are managed it includes the Message-ID, for the records (ADR 19).
func (g *Gate) Needs() mailflow.Needs {
	v := g.Store.State.Version()
	known := g.mails.needs.Load()
	fresh := known == nil || known.version != v
	if fresh {
		n := g.Store.State.MailNeeds()
		n.Headers = n.Headers || g.Store.State.AnyDomain(func(d *store.Domain) bool { return d.SenderCheck.Headers() || d.TraceHeader })
		n.MessageID = g.Store.State.AnyDomain(func(*store.Domain) bool { return true })
		known = &needed{v, n}
	}
	// Asked afterwards: another store is adopted by clearing this first, then the rules.
	if loaded, _ := g.Store.State.Ready(); !loaded {
		return mailflow.Needs{Recipients: true, Headers: true, Body: true, Unknown: true}
	}
	if fresh {
		g.mails.needs.Store(known)
	}
	return known.Needs
}

// mailView is what one request about a message looks up. It is used again by later requests.
type mailView struct {
	message  mailflow.Message
	to       mailflow.Party
	rules    mailflow.Applying
	sender   store.View
	accounts [2]access.Account // their lists of departments
}

// Recipient decides whether a message may go to one recipient, as far as its envelope shows. It
// counts the recipient until [Gate.MessageEnded] reports what became of the message.
func (g *Gate) Recipient(e *mailflow.Envelope) mailflow.Verdict {
	g.mails.policy.Store(true)
	return g.recipient(e, time.Now())
}

func (g *Gate) recipient(e *mailflow.Envelope, now time.Time) mailflow.Verdict {
	if loaded, _ := g.Store.State.Ready(); !loaded {
		return mailflow.Verdict{Refused: true, Temporary: true, Text: textUnavailable}
	}
	if g.pass(e).Covers(e.Sender, e.Recipient) {
		return mailflow.Verdict{} // the milter decides, when it sees the message
	}
	w, _ := g.mailRoom.Get().(*mailView)
	defer g.mailRoom.Put(w)
	g.lookUpMail(w, e, now)
	if v, ok := g.rerouted(e.Recipient); ok {
		g.logRefused(&w.message, e, &v)
		return v
	}
	if w.rules.None() && w.message.Sender.Account == "" {
		return mailflow.Verdict{}
	}
	switch again, full := g.acceptedBefore(e.Instance, w.to.Address, now); {
	case again:
		return mailflow.Verdict{} // several restriction lists may name the service
	case full:
		return mailflow.Verdict{Refused: true, Temporary: true, Text: textTooMany}
	}
	var charges []charge
	var warned []string
	v := mailflow.Evaluate(&w.message, &w.to, &w.rules, g.allowance(w, e, now, &charges, &warned), false)
	if v.Refused && g.secondPass(w, e, now) {
		v = mailflow.Verdict{}
	}
	g.mails.mu.Lock()
	defer g.mails.mu.Unlock()
	t, ok := g.mails.open.Get(e.Instance, now)
	if !ok {
		t = &transaction{began: now, message: w.message, login: e.Login}
		t.message.Sender.Departments, t.message.From.Departments = nil, nil // they are used again
		g.mails.open.Put(strings.Clone(e.Instance), t)
	}
	t.envelope, t.asked = *e, now
	to := w.to
	to.Departments = nil
	if domain := address.Domain(to.Address); !slices.Contains(t.domains, domain) && len(t.domains) < maxListed {
		t.domains = append(t.domains, domain)
	}
	t.reported = union(t.reported, v.Reported)
	t.warned = union(t.warned, warned)
	g.mails.parties++
	if v.Refused {
		g.limits.giveBack(charges, now)
		t.refused = append(t.refused, refusedRecipient{to, v.Reason, v.Rule})
		g.logRefused(&w.message, e, &v)
		return v
	}
	t.to, t.charges = append(t.to, to), append(t.charges, charges...)
	t.accept()
	return v
}

// rerouted refuses recipients of which Postfix may make an address with rules of its own, where the
// rest names this machine: team%example.org@host, example.org!team@host, "team@example.org"@host.
// No account has an address of these forms.
func (g *Gate) rerouted(text string) (v mailflow.Verdict, ok bool) {
	for range 4 {
		if text = unrouted(text); text == "" {
			return v, false
		}
		addr, err := address.Parse(text, g.DefaultDomain)
		if err != nil {
			continue
		}
		if _, view := g.Store.State.Recipient(addr); view.Mail != nil {
			return mailflow.Verdict{Refused: true, Reason: mailflow.ReasonFiltered, Text: "Write the recipient's address without a route."}, true
		}
	}
	return v, false
}

// unrouted returns the address within the local part of another one; "" for none.
func unrouted(text string) string {
	at := strings.LastIndexByte(text, '@')
	if at < 0 {
		at = len(text)
	}
	if !strings.ContainsAny(text[:at], "@!%") {
		return ""
	}
	local := strings.Trim(text[:at], `"`)
	if strings.Contains(local, "@") {
		return local
	}
	if domain, rest, ok := strings.Cut(local, "!"); ok {
		return rest + "@" + domain
	}
	i := strings.LastIndexByte(local, '%')
	return local[:i] + "@" + local[i+1:]
}

// accept notes the last address of to.
func (t *transaction) accept() {
	const many = 32
	switch n := len(t.to); {
	case n < many:
	case n == many:
		t.accepted = make(map[string]bool, 2*many)
		for i := range t.to {
			t.accepted[t.to[i].Address] = true
		}
	default:
		t.accepted[t.to[n-1].Address] = true
	}
}

// has reports whether an address is in to.
func (t *transaction) has(addr string) bool {
	if t.accepted != nil {
		return t.accepted[addr]
	}
	return slices.ContainsFunc(t.to, func(p mailflow.Party) bool { return p.Address == addr })
}

// acceptedBefore reports whether a recipient of the message was accepted already, and whether no
// more are remembered.
func (g *Gate) acceptedBefore(instance, recipient string, now time.Time) (again, full bool) {
	g.mails.mu.Lock()
	defer g.mails.mu.Unlock()
	t, ok := g.mails.open.Get(instance, now)
	return ok && t.has(recipient), g.mails.parties >= maxOpen || ok && len(t.to)+len(t.refused) >= maxRecipients
}

// pass returns the [mailflow.Pass] of a message that this daemon sends itself; nil for others.
func (g *Gate) pass(e *mailflow.Envelope) *mailflow.Pass {
	if g.Pass == nil || e.Login != "" {
		return nil
	}
	return g.Pass(e.IP, e.Port)
}

// lookUpMail collects the facts that the rules need about a message and one of its recipients.
func (g *Gate) lookUpMail(w *mailView, e *mailflow.Envelope, now time.Time) {
	rooms := w.accounts
	*w = mailView{accounts: rooms}
	m := &w.message
	m.Time, m.Size = now, e.Size
	st := g.Store.State
	if e.Login != "" {
		m.Sender, w.sender = g.party(e.Login, st.View, &w.accounts[0])
		m.Internal = m.Sender.Account != ""
		m.From = mailflow.Party{Address: m.Sender.Address, Account: m.Sender.Account, Domain: m.Sender.Domain}
		if e.Sender != e.Login {
			m.From, _ = g.party(e.Sender, st.View, nil)
		}
	} else {
		var from store.View
		m.From, from = g.party(e.Sender, st.View, nil)
		m.Internal = g.Internal.Contains(e.IP)
		if m.Internal && from.Known {
			m.Sender, w.sender = g.party(e.Sender, st.View, &w.accounts[0])
		}
	}
	var recipient store.View
	w.to, recipient = g.party(e.Recipient, st.Recipient, &w.accounts[1])
	w.rules = mailflow.Applying{Sender: w.sender.Mail, Recipient: recipient.Mail}
	if e.Redirected != "" && e.Login == "" && g.ownClient(e.IP) {
		var by store.View
		m.Redirected, by = g.party(e.Redirected, st.View, new(access.Account))
		w.rules.Redirected = by.Mail
	}
}

// party looks up whom an address belongs to. Departments need room; nil leaves them out.
func (g *Gate) party(text string, view func(string) (string, store.View), room *access.Account) (mailflow.Party, store.View) {
	addr, err := address.Parse(text, g.DefaultDomain)
	if err != nil {
		return mailflow.Party{Address: text}, store.View{}
	}
	account, v := view(addr)
	if !v.Known {
		return mailflow.Party{Address: addr}, v
	}
	p := mailflow.Party{Address: addr, Account: account, Domain: v.Domain}
	if room != nil {
		if f := v.Account.Facts(room); f != nil {
			p.Departments = f.Departments
		}
	}
	return p, v
}

// secondPass reports whether the recipient was accepted before, and the message comes from a
// content filter of the site: then it was judged as what it is, and is not judged as
// unauthenticated mail.
func (g *Gate) secondPass(w *mailView, e *mailflow.Envelope, now time.Time) bool {
	if e.Login != "" || !g.ownClient(e.IP) {
		return false
	}
	g.mails.mu.Lock()
	defer g.mails.mu.Unlock()
	_, ok := g.mails.passed.Get(fingerprintOf(e.Sender, w.to.Address), now)
	return ok
}

func union(list, more []string) []string {
	for _, s := range more {
		if !slices.Contains(list, s) {
			list = append(list, s)
		}
	}
	return list
}

func (g *Gate) logRefused(m *mailflow.Message, e *mailflow.Envelope, v *mailflow.Verdict) {
	g.Log.Info("recipient refused: user=" + quoted(m.Sender.Account) + " ip=" + quoted(address.IPText(e.IP)) + " sender=" + quoted(bounded(e.Sender)) +
		" recipient=" + quoted(bounded(e.Recipient)) + " reason=" + quoted(string(v.Reason)) + " rule=" + quoted(v.Rule))
}

// MessageEnded reports the end of a message whose recipients were asked about. A message that was
// not accepted counts towards no limit. One that was is refused all the same if it reaches a limit
// together with those of other daemons; the verdict on other messages is the zero one.
func (g *Gate) MessageEnded(e *mailflow.Envelope, accepted bool) (v mailflow.Verdict) {
	now := time.Now()
	if accepted {
		g.mails.ends.Store(true)
	}
	g.mails.mu.Lock()
	t, ok := g.mails.open.Get(e.Instance, now)
	g.mails.open.Delete(e.Instance)
	g.mails.mu.Unlock()
	if !ok {
		return v
	}
	received := false
	if e.Data && !g.mails.ends.Load() {
		accepted, received = true, true // nobody asks about the ends of messages here: this one may have been received
	}
	if !accepted {
		g.abandoned(t, now)
		return v
	}
	t.envelope.QueueID = e.QueueID
	if e.Size > 0 {
		t.message.Size = e.Size
	}
	if refusedLater := len(t.to) - e.Recipients; e.Recipients > 0 && refusedLater > 0 {
		// By other restrictions of Postfix; it is not known which.
		t.other = refusedLater
		g.limits.uncount(t, refusedLater, now)
	}
	if short := g.share(t, received, now); short != nil {
		v = mailflow.LimitReached(short.rule, short.reached(short.rule))
		g.logRefused(&t.message, &t.envelope, &v)
		for _, to := range t.to {
			t.refused = append(t.refused, refusedRecipient{to, v.Reason, v.Rule})
		}
		t.to, t.other = nil, 0
		g.recordMessage(t, now)
		return v
	}
	g.mails.mu.Lock()
	for i := range t.to {
		g.mails.passed.Put(fingerprintOf(t.envelope.Sender, t.to[i].Address), passedAt(now))
	}
	waits := g.mails.milter.Load() > 0 && e.QueueID != ""
	if waits {
		t.began = now
		g.mails.queued.Put(strings.Clone(e.QueueID), t)
	}
	g.mails.mu.Unlock()
	if !waits {
		g.recordMessage(t, now)
	}
	return v
}

// Message decides about a whole message at all its recipients, with its content as far as the rules
// need it. Recipients that policyd was not asked about are judged by their envelope, too. The
// message is recorded.
func (g *Gate) Message(e *mailflow.Envelope, recipients []string, content *mailflow.Content) mailflow.Judgement {
	now := time.Now()
	g.mails.mu.Lock()
	t, known := g.mails.queued.Get(e.QueueID, now)
	if known {
		g.mails.queued.Delete(e.QueueID)
	}
	g.mails.mu.Unlock()
	if !known {
		t = &transaction{began: now, login: e.Login}
	}
	j := mailflow.Judgement{
		Recipients: make([]mailflow.Judged, 0, len(recipients)), From: content.From(), Again: len(recipients) > 0,
		Relayed: e.Login == "" && g.ownClient(e.IP),
	}
	size := t.message.Size
	w, _ := g.mailRoom.Get().(*mailView)
	defer g.mailRoom.Put(w)
	concerned := known
	pass := g.pass(e)
	if pass != nil && !pass.Notice { // the rules apply to whoever sent it first
		e.Login, e.IP = pass.Login, pass.IP
	}
	for _, recipient := range recipients {
		e.Recipient = recipient
		g.lookUpMail(w, e, now)
		released := pass.Covers(e.Sender, recipient)
		if released && pass.Notice {
			j.Recipients, j.Again = append(j.Recipients, mailflow.Judged{Given: recipient, To: w.to}), false
			continue
		}
		w.message.Released, w.message.SentApart = released, released && pass.Apart
		w.message.Content = content
		w.message.Size = max(size, e.Size)
		var v mailflow.Verdict
		var charges []charge
		var warned []string
		if known {
			v = mailflow.Evaluate(&w.message, &w.to, &w.rules, nil, false)
		} else {
			v = mailflow.Evaluate(&w.message, &w.to, &w.rules, g.allowance(w, e, now, &charges, &warned), false)
		}
		if refusal, ok := g.rerouted(recipient); ok && !released {
			v = refusal
		}
		again := g.secondPass
		if v.Reason == mailflow.ReasonFiltered {
			again = func(_ *mailView, e *mailflow.Envelope, now time.Time) bool {
				return g.ownClient(e.IP) && g.treatedBefore(e, now)
			}
		}
		if v.Refused && v.Reason != mailflow.ReasonForwarding && again(w, e, now) {
			v = mailflow.Verdict{}
		}
		if released {
			v.Effects = slices.DeleteFunc(v.Effects, func(e mailflow.Effect) bool { return pass.Has(&e) })
		}
		to := w.to
		to.Departments = nil
		j.Again = j.Again && j.Relayed && pass == nil && g.treatedBefore(e, now)
		for i := range v.Effects {
			if effect := &v.Effects[i]; effect.Rule != nil && effect.Rule.Kind == mailflow.KindWarning {
				effect.Level = w.rules.Recipient.Level(effect.Rule, content, g.known, func(name string) bool { return g.Store.State.Named(to.Domain, name) })
			}
		}
		for _, leaves := range []*mailflow.Rules{w.rules.Sender, w.rules.Redirected} {
			if to.Domain == "" || leaves == w.rules.Sender && e.Login != "" {
				j.Untag = union(j.Untag, leaves.Tags())
			}
		}
		j.Recipients = append(j.Recipients, mailflow.Judged{Given: recipient, To: to, Sender: w.message.Sender.Account, Forwards: to.Account != "" && w.rules.Recipient.Forwarding(), Spam: released && pass.Spam, Verdict: v})
		if !known {
			concerned = concerned || !w.rules.None() || w.message.Sender.Account != ""
			t.message, t.charges = w.message, append(t.charges, charges...)
			if domain := address.Domain(to.Address); !slices.Contains(t.domains, domain) && len(t.domains) < maxListed {
				t.domains = append(t.domains, domain)
			}
			if !v.Refused {
				t.to = append(t.to, to)
			}
		}
		t.message.Redirected, t.message.Internal = w.message.Redirected, w.message.Internal
		t.reported, t.warned = union(t.reported, v.Reported), union(t.warned, warned)
		if v.Refused {
			t.refused = append(t.refused, refusedRecipient{to, v.Reason, v.Rule})
			g.logRefused(&w.message, e, &v)
			if v.Reason == mailflow.ReasonForwarding {
				g.notifyOwner(&w.message.Redirected, recipient, now)
			}
		}
		for _, effect := range v.Effects {
			if t.rule == "" && effect.Rule != nil {
				t.rule = effect.Rule.ID
			}
		}
	}
	t.message.Sender.Departments = nil
	t.message.Content = nil
	if size := t.envelope.Size; e.Size == 0 {
		e.Size = size
	}
	t.envelope = *e
	if len(t.refused) > 0 && slices.ContainsFunc(j.Recipients, func(j mailflow.Judged) bool { return j.Refused }) {
		g.takeBack(t, now) // the milter refuses the message as a whole
		t.to = nil
	} else if !known {
		if short := g.share(t, false, now); short != nil {
			g.refuseAll(&j, t, mailflow.LimitReached(short.rule, short.reached(short.rule)))
		}
	}
	if concerned {
		g.recordMessage(t, now)
	}
	return j
}

// WantsBody reports whether some rule may use the body of a message, or file the message as spam for
// some of its recipients only, who get it apart.
func (g *Gate) WantsBody(e *mailflow.Envelope, recipients []string) bool {
	if g.pass(e) != nil {
		return true
	}
	w, _ := g.mailRoom.Get().(*mailView)
	defer g.mailRoom.Put(w)
	now, at := time.Now(), *e
	relayed := e.Login == "" && g.ownClient(e.IP)
	var filed []*mailflow.Rule
	for i, recipient := range recipients {
		at.Recipient = recipient
		g.lookUpMail(w, &at, now)
		wants, files := mailflow.WantsBody(&w.message, &w.to, &w.rules)
		if wants {
			return true
		}
		files = slices.DeleteFunc(files, func(r *mailflow.Rule) bool { return r.Action.Do == mailflow.DoReturn && !relayed })
		if i == 0 {
			filed = files
		} else if !slices.Equal(filed, files) {
			return true
		}
	}
	return false
}

// refuseAll refuses a message at all its recipients.
func (g *Gate) refuseAll(j *mailflow.Judgement, t *transaction, v mailflow.Verdict) {
	for i := range j.Recipients {
		j.Recipients[i].Verdict = v
		t.refused = append(t.refused, refusedRecipient{j.Recipients[i].To, v.Reason, v.Rule})
	}
	t.to = nil
	g.logRefused(&t.message, &t.envelope, &v)
}

// thisMachine is what programs of this machine connect from, unless they choose another address.
var thisMachine = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// ownClient reports whether a client that did not authenticate is the site's own: a content filter
// or another program on this machine (127.0.0.1 or ::1), or within the internal networks.
func (g *Gate) ownClient(ip netip.Addr) bool {
	ip = ip.Unmap()
	return ip == thisMachine || ip == netip.IPv6Loopback() || g.Internal.Contains(ip)
}

// known reports whether an address has an account.
func (g *Gate) known(addr string) bool {
	_, v := g.Store.State.Recipient(addr)
	return v.Account.Exists()
}

// treatedBefore reports whether the message, at the recipient of e, was judged here before.
func (g *Gate) treatedBefore(e *mailflow.Envelope, now time.Time) bool {
	if e.MessageID == "" {
		return false
	}
	g.mails.mu.Lock()
	defer g.mails.mu.Unlock()
	_, ok := g.mails.treated.Get(fingerprintOf(e.MessageID, e.Sender, e.Recipient), now)
	return ok
}

// Treated notes that the milter accepts a message for its recipients: if a content filter hands it
// in again, it is not treated twice.
func (g *Gate) Treated(e *mailflow.Envelope, recipients []string) {
	if e.MessageID == "" {
		return
	}
	now := time.Now()
	g.mails.mu.Lock()
	defer g.mails.mu.Unlock()
	for _, recipient := range recipients {
		g.mails.treated.Put(fingerprintOf(e.MessageID, e.Sender, recipient), passedAt(now))
	}
}

// NotReceived reports that the milter refused a message before [Gate.Message] was asked.
func (g *Gate) NotReceived(queueID string, reason mailflow.Reason) {
	now := time.Now()
	g.mails.mu.Lock()
	t, ok := g.mails.queued.Get(queueID, now)
	g.mails.queued.Delete(queueID)
	g.mails.mu.Unlock()
	if !ok {
		return
	}
	g.takeBack(t, now)
	for _, to := range t.to {
		t.refused = append(t.refused, refusedRecipient{to: to, reason: reason})
	}
	t.to = nil
	g.recordMessage(t, now)
}

// Identified reports the Message-ID of a message about which [Gate.Message] is not asked.
func (g *Gate) Identified(queueID, messageID string) {
	now := time.Now()
	g.mails.mu.Lock()
	t, ok := g.mails.queued.Get(queueID, now)
	g.mails.queued.Delete(queueID)
	g.mails.mu.Unlock()
	if ok {
		t.envelope.MessageID = messageID
		g.recordMessage(t, now)
	}
}

// followMessages records the messages that no milter reports on, until ctx ends.
func (g *Gate) followMessages(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			g.sweepMails(now) //nolint:contextcheck // what was taken is given back after ctx has ended, too
		}
	}
}

// sweepMails records the messages that no milter reported on, and those that were refused.
func (g *Gate) sweepMails(now time.Time) {
	g.mails.mu.Lock()
	due := g.mails.queued.Take(func(t *transaction) bool { return now.Sub(t.began) >= identified })
	g.mails.parties = 0
	lost := g.mails.open.Take(func(t *transaction) bool {
		g.mails.parties += len(t.to) + len(t.refused)
		return t.Expired(now) || len(t.to) == 0 && now.Sub(t.asked) >= refusedFor
	})
	g.mails.passed.Sweep(now)
	g.mails.treated.Sweep(now)
	g.mails.mu.Unlock()
	for _, t := range due {
		g.recordMessage(t, now)
	}
	for _, t := range lost {
		g.abandoned(t, now)
	}
}

// abandoned takes back what a message counts towards limits that was not received, and records it if
// recipients were refused.
func (g *Gate) abandoned(t *transaction, now time.Time) {
	g.takeBack(t, now)
	if len(t.refused) > 0 {
		t.to = nil
		g.recordMessage(t, now)
	}
}

// recordMessage records a message, for the domain of its sender and for those of its recipients.
func (g *Gate) recordMessage(t *transaction, now time.Time) {
	e, m := &t.envelope, &t.message
	base := mailflow.Record{
		Time: now.UTC().Truncate(time.Millisecond), QueueID: bounded(e.QueueID), MessageID: bounded(e.MessageID), Sender: bounded(e.Sender),
		Size: m.Size, RecipientDomains: t.domains, Verdict: mailflow.Accepted, WouldRefuse: t.reported, Warned: t.warned, Rule: t.rule, Node: g.Node,
	}
	if g.MessageDecided != nil {
		verdict, reason := mailflow.Accepted, mailflow.Reason("")
		if len(t.refused) > 0 {
			verdict, reason = mailflow.Refused, t.refused[0].reason
			if len(t.to) > 0 {
				verdict = mailflow.Partly
			}
		}
		g.MessageDecided(string(verdict), string(reason))
	}
	done := map[string]bool{}
	if domain := m.Sender.Domain; domain != "" {
		done[domain] = true
		r := base
		r.Domain, r.Direction, r.Account, r.Internal = domain, mailflow.Sent, m.Sender.Account, true
		g.describeClient(&r, t, now)
		g.completeRecord(&r, t, func(mailflow.Party) bool { return true })
	}
	for _, list := range [][]mailflow.Party{t.to, refusedParties(t.refused)} {
		for i := range list {
			domain := list[i].Domain
			if domain == "" || done[domain] {
				continue
			}
			done[domain] = true
			r := base
			r.Domain, r.Direction, r.Internal = domain, mailflow.Received, m.Sender.Domain == "" && m.Internal
			r.RecipientDomains = []string{domain}
			r.WouldRefuse, r.Warned = g.ownRules(domain, t.reported), nil
			if m.Sender.Domain == "" {
				r.IP = address.IPText(e.IP)
			}
			g.completeRecord(&r, t, func(p mailflow.Party) bool { return p.Domain == domain })
		}
	}
	if m.Redirected.Domain != "" && !done[m.Redirected.Domain] {
		r := base
		r.Domain, r.Direction = m.Redirected.Domain, mailflow.Received
		r.Accounts = []string{m.Redirected.Account}
		g.completeRecord(&r, t, func(mailflow.Party) bool { return true })
	}
}

func refusedParties(list []refusedRecipient) []mailflow.Party {
	parties := make([]mailflow.Party, len(list))
	for i := range list {
		parties[i] = list[i].to
	}
	return parties
}

// ownRules returns those of the rules that a domain has.
func (g *Gate) ownRules(domain string, rules []string) (own []string) {
	for _, id := range rules {
		if _, ok := g.Store.State.MailRule(domain, id); ok {
			own = append(own, id)
		}
	}
	return own
}

// describeClient adds which client and credential sent the message.
func (g *Gate) describeClient(r *mailflow.Record, t *transaction, now time.Time) {
	r.IP = address.IPText(t.envelope.IP)
	if t.login == "" {
		return
	}
	s, _ := g.room.Get().(*session)
	defer g.release(s)
	if g.session(s, &access.Submission{Account: t.login, IP: t.envelope.IP, Port: t.envelope.Port}, now) != 0 {
		return
	}
	if s.bound.State() != submission.Bound {
		r.Client = string(s.client(unknownMethod().Service))
		return
	}
	var clients, ids, labels []string
	for _, m := range s.bound.Methods() {
		clients = union(clients, []string{string(s.client(m.Service))})
		ids = union(ids, []string{m.Credential})
		if p, ok := s.view.Account.Secret(m.Credential); ok {
			labels = union(labels, []string{p.Label})
		}
	}
	r.Client, r.CredentialID, r.Credential = strings.Join(clients, ","), strings.Join(ids, ","), strings.Join(labels, ", ")
}

// completeRecord adds the results of the recipients that a domain may see, and writes the record.
func (g *Gate) completeRecord(r *mailflow.Record, t *transaction, of func(mailflow.Party) bool) {
	for _, p := range t.to {
		if of(p) {
			r.Recipients++
		}
		if p.Domain == r.Domain && p.Account != "" && len(r.Accounts) < maxListed {
			r.Accounts = append(r.Accounts, p.Account)
		}
	}
	for _, x := range t.refused {
		if !of(x.to) {
			continue
		}
		r.RefusedFor++
		if x.to.Domain == r.Domain && x.to.Account != "" && len(r.Accounts) < maxListed && !slices.Contains(r.Accounts, x.to.Account) {
			r.Accounts = append(r.Accounts, x.to.Account)
		}
		if r.Reason == "" {
			r.Reason, r.Rule = x.reason, x.rule
		}
	}
	if r.Direction == mailflow.Sent {
		r.Recipients -= t.other
	}
	switch {
	case r.RefusedFor > 0 && r.Recipients > 0:
		r.Verdict = mailflow.Partly
	case r.RefusedFor > 0:
		r.Verdict = mailflow.Refused
	}
	if r.Rule == "" {
		r.Rule = t.rule
	}
	if r.Direction == mailflow.Received && r.Rule != "" && len(g.ownRules(r.Domain, []string{r.Rule})) == 0 {
		if _, ok := g.Store.State.Group(r.Domain, r.Rule); !ok {
			r.Rule = "" // of another domain
		}
	}
	if t.message.Redirected.Domain == r.Domain {
		r.Redirect = t.message.Redirected.Account
	}
	r.ID = recordID(r.Time)
	g.writes.message(r)
}

// ExplainMail decides about a message at a recipient, with a trace, by the given rules of one
// domain in place of those in force. Nothing is counted or recorded.
func (g *Gate) ExplainMail(e *mailflow.Envelope, content *mailflow.Content, domain string, rules *mailflow.Rules) mailflow.Verdict {
	var w mailView
	g.lookUpMail(&w, e, time.Now())
	w.message.Content = content
	if w.message.Sender.Domain == domain {
		w.rules.Sender = rules
	}
	if w.to.Domain == domain {
		w.rules.Recipient = rules
	}
	if w.message.Redirected.Domain == domain {
		w.rules.Redirected = rules
	}
	return mailflow.Evaluate(&w.message, &w.to, &w.rules, nil, true)
}

// PreviewLimit returns a function that counts recorded messages, oldest first, and reports whether
// a limit permits them.
func (g *Gate) PreviewLimit(r *mailflow.Rule) func(*mailflow.Record) bool {
	meter := throttle.NewMeter()
	return func(rec *mailflow.Record) bool {
		subject := rec.Account
		switch r.Action.Per {
		case mailflow.PerDomain:
			subject = "*"
		case mailflow.PerCredential:
			subject += "/" + rec.CredentialID
		}
		for _, b := range bounds(&r.Action) {
			n := rec.Recipients
			if b.message {
				n = 1
			}
			if b.rate.None() {
				continue
			}
			if ok, _ := meter.Take(b.name+subject, b.rate, n, rec.Time); !ok {
				return false
			}
		}
		return true
	}
}
