package livesessions

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/livesessions/doveadm"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// firstRetry and lastRetry are the shortest and longest pause before something that was not
	// done is tried again.
	firstRetry, lastRetry = 250 * time.Millisecond, 10 * time.Second
	// maxPause bounds the pause between passes, which is as long as a pass took.
	maxPause = 500 * time.Millisecond
	// recallDays is how far back a session's login is looked for in the records, and recallPages in
	// how many pages of a thousand.
	recallDays, recallPages = 30, 20
	// recallWithin bounds the time of reading records in one pass.
	recallWithin = 3 * time.Second
	// appearsWithin is how long after its login a session may appear at most: Dovecot gives an
	// authentication up after 150 seconds.
	appearsWithin = 3 * time.Minute
)

// node is one Dovecot and the work pending there.
type node struct {
	*Sessions
	number  int // among the nodes
	dovecot Dovecot
	wake    chan struct{}

	mu       sync.Mutex
	todo     scope
	asked    uint64        // number of requests
	done     uint64        // those that the last pass included
	finished chan struct{} // closed after each pass, and replaced
	failing  bool
	accounts map[string]bool      // that had sessions when it was last asked
	listed   time.Time            // when that was; zero if it did not answer
	last     []doveadm.Connection // that it had when it last answered, but for those that were ended
	answered time.Time            // when that was
	gone     []goneSession        // that were ended lately
}

// goneSession is a session that was ended.
type goneSession struct {
	doveadm.Connection
	at time.Time
}

func newNode(s *Sessions, number int, d Dovecot) *node {
	return &node{Sessions: s, number: number, dovecot: d, wake: make(chan struct{}, 1), finished: make(chan struct{})}
}

// request adds a scope to the sessions to evaluate.
func (n *node) request(c scope) (number uint64) {
	n.mu.Lock()
	n.todo.add(c)
	n.asked++
	number = n.asked
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
	return number
}

// wait waits until a pass has included a request; false when ctx ends before.
func (n *node) wait(ctx context.Context, number uint64) bool {
	for {
		n.mu.Lock()
		done, finished := n.done >= number, n.finished
		n.mu.Unlock()
		if done {
			return true
		}
		select {
		case <-ctx.Done():
			return false
		case <-finished:
		}
	}
}

// run makes passes until ctx ends.
func (n *node) run(ctx context.Context) {
	var again scope // what was not done, or may appear
	retry := time.NewTimer(0)
	retry.Stop()
	pause := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-retry.C:
		}
		n.mu.Lock()
		fresh, number := n.todo, n.asked
		n.todo = scope{}
		n.mu.Unlock()
		if !fresh.empty() {
			pause = firstRetry
		} else {
			pause = min(2*pause, lastRetry)
		}
		fresh.add(again)
		began := time.Now()
		again = n.pass(ctx, fresh)
		n.mu.Lock()
		n.done = number
		close(n.finished)
		n.finished = make(chan struct{})
		n.mu.Unlock()
		retry.Stop()
		if !again.empty() {
			retry.Reset(pause)
		}
		select { // further changes are judged together
		case <-ctx.Done():
			return
		case <-time.After(min(time.Since(began), maxPause)):
		}
	}
}

// list asks for the open sessions, and notes whether the Dovecot can be reached.
func (n *node) list(ctx context.Context) ([]doveadm.Connection, error) {
	began := time.Now()
	list, err := n.dovecot.Who(ctx)
	accounts := map[string]bool{}
	for i := range list {
		if p, ok := n.place(&list[i]); ok {
			accounts[p.account] = true
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case ctx.Err() != nil:
	case err != nil && !n.failing:
		n.failing = true
		n.Log.Warn("open sessions cannot be ended: trying again", "error", err)
	case err == nil && n.failing:
		n.failing = false
		n.Log.Info("open sessions can be ended again", "doveadm", n.dovecot)
	}
	n.accounts, n.listed = accounts, began
	if err != nil {
		n.listed = time.Time{}
	} else {
		n.last, n.answered = list, began
		n.gone = slices.DeleteFunc(n.gone, func(g goneSession) bool { return began.Sub(g.at) > 2*pollEvery })
	}
	return list, err
}

// mayHave reports whether an account that a scope covers may have an open session.
func (n *node) mayHave(c *scope, now time.Time) bool {
	n.mu.Lock()
	accounts, listed := n.accounts, n.listed
	n.mu.Unlock()
	if now.Sub(listed) > 2*pollEvery {
		return true
	}
	for account := range accounts {
		if c.covers(account) {
			return true
		}
	}
	return false
}

func (n *node) unreachable() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.failing
}

// pass judges the open sessions that a scope covers, ends the refused ones, and returns the scope
// of what is to be looked at again.
func (n *node) pass(ctx context.Context, c scope) (again scope) {
	began := time.Now()
	list, err := n.list(ctx)
	if err != nil {
		return c
	}
	open := n.identify(ctx, list, &c)
	var ended, left []string
	for _, group := range n.refused(open) {
		ok, err := n.end(ctx, group)
		account := group[0].account
		if err != nil || !ok {
			n.Log.Warn("a session has not ended: trying again", "account", account, "ip", group[0].IP, "error", err)
			left = append(left, accountsOf(group)...)
			again.add(scope{accounts: map[string]bool{account: true}})
			continue
		}
		n.Log.Info("ended sessions that the rules refuse", "account", account, "ip", group[0].IP, "sessions", len(group), "doveadm", n.dovecot)
		ended = append(ended, accountsOf(group)...)
	}
	n.report(n, ended, left)
	n.without(open, &c, began)
	for _, s := range n.logins.arriving(&c, time.Now()) {
		if n.denies(s) {
			again.add(scope{accounts: map[string]bool{s.Account: true}})
		}
	}
	return again
}

// without notes which refused logins have no session here, so that later sessions from their
// addresses are not taken for theirs. With one Dovecot they are forgotten anyway.
func (n *node) without(open []session, c *scope, listed time.Time) {
	if len(n.nodes) < 2 {
		return
	}
	has := make(map[origin]bool, len(open))
	for i := range open {
		has[open[i].origin] = true
	}
	for _, s := range n.logins.known(c) {
		if o := (origin{s.Account, s.IP}); !has[o] && listed.Sub(s.Began) > appearsWithin && n.denies(s) {
			n.logins.end(n.number, o, listed)
		}
	}
}

func accountsOf(group []session) []string {
	list := make([]string, len(group))
	for i := range group {
		list[i] = group[i].account
	}
	return list
}

func (n *node) denies(s *access.Session) bool {
	return n.Judge.Judge(s, nil, nil).Outcome == access.Deny
}

// session is an open session and the logins that it may be of.
type session struct {
	doveadm.Connection
	place
	logins []*access.Session
	exact  bool // it is of the one login
}

// identify finds the logins of the connections that a scope covers.
func (n *node) identify(ctx context.Context, list []doveadm.Connection, c *scope) []session {
	var open []session
	missing := map[string]bool{} // accounts
	named := slices.ContainsFunc(list, func(c doveadm.Connection) bool { return len(c.Fields) > 0 })
	for i := range list {
		p, ok := n.place(&list[i])
		if !ok || !c.covers(p.account) {
			continue
		}
		s := session{Connection: list[i], place: p}
		n.find(&s, named)
		if len(s.logins) == 0 || len(s.Fields) > 0 && !s.exact {
			missing[p.account] = true
		}
		open = append(open, s)
	}
	if len(missing) == 0 {
		return open
	}
	if ctx.Err() == nil {
		n.recall(ctx, missing)
	}
	for i := range open {
		s := &open[i]
		if missing[s.account] {
			n.find(s, named)
		}
		if s.exact || !n.managed(s.account) {
			continue
		}
		if login := n.unknown(s); s.exact || len(s.logins) == 0 {
			s.logins = []*access.Session{login}
		}
	}
	return open
}

// find looks for the logins that a session may be of.
func (n *node) find(s *session, named bool) {
	for _, f := range s.Fields {
		if login := n.logins.byID(f); login != nil && login.Account == s.account {
			s.logins, s.exact = []*access.Session{login}, true
			return
		}
	}
	s.logins = n.logins.at(n.number, s.place, time.Now())
	if named && len(s.Fields) == 0 {
		// Where the sessions of logins decided here have names, one without is of another.
		s.logins = slices.DeleteFunc(s.logins, func(l *access.Session) bool {
			return l.Credential != store.CredentialUnverified
		})
	}
}

// unknown is the login of a session that there is no record of. It proves least, except for a
// secure password that Dovecot names.
func (n *node) unknown(s *session) *access.Session {
	login := &access.Session{
		Account: s.account, Protocol: s.protocol, Service: s.Service, IP: s.IP, Credential: store.CredentialUnverified,
	}
	if r, ok := n.State.Account(s.account); ok {
		for i := range r.Doc.Secrets {
			if p := &r.Doc.Secrets[i]; slices.Contains(s.Fields, p.ID) {
				login.Credential, login.Client, s.exact = p.ID, access.ClientThirdParty, true
			}
		}
	}
	return login
}

// recall reads the logins of some accounts from the records.
func (n *node) recall(ctx context.Context, accounts map[string]bool) {
	ctx, cancel := context.WithTimeout(ctx, recallWithin)
	defer cancel()
	since := time.Now().AddDate(0, 0, -recallDays)
	domains := map[string]bool{}
	for account := range accounts {
		c := scope{accounts: map[string]bool{account: true}}
		domain, ok := n.domainOf(account)
		if !ok {
			continue
		}
		q := store.RecordQuery{Domain: domain, Account: account, Since: since, Limit: 1000}
		if len(accounts) > 100 { // one reading for all
			if q.Account = ""; domains[domain] {
				continue
			}
			domains[domain] = true
			c = scope{accounts: accounts}
		}
		for range recallPages {
			records, next, err := n.Records(ctx, q)
			if err != nil {
				n.Log.Warn("reading how open sessions logged in", "domain", domain, "error", err)
				break
			}
			for i := range records {
				if c.covers(records[i].Account) {
					n.remember(&records[i])
				}
			}
			if q.Cursor = next; next == "" {
				break
			}
		}
	}
}

// remember takes a login from its record, if it opened a session.
func (n *node) remember(rec *store.LoginRecord) {
	if rec.Outcome != access.Allow && rec.Outcome != access.Next {
		return
	}
	s := sessionOf(rec)
	if r, ok := n.State.Account(s.Account); ok && s.Credential == store.CredentialMailbox && !s.Began.Before(r.Doc.MailboxSetAt) {
		s.PasswordSet = r.Doc.MailboxSetAt
	}
	n.logins.recall(s)
}

// refused groups the sessions that are to be ended by what one kick ends.
func (n *node) refused(open []session) [][]session {
	var groups [][]session
	byOrigin := map[origin]int{}
	for i := range open {
		s := &open[i]
		if !slices.ContainsFunc(s.logins, n.denies) {
			continue
		}
		if s.exact {
			groups = append(groups, []session{*s})
			continue
		}
		if _, ok := byOrigin[s.origin]; !ok {
			byOrigin[s.origin] = len(groups)
			groups = append(groups, nil)
		}
	}
	for i := range open { // a kick of an account from an address ends them all
		if at, ok := byOrigin[open[i].origin]; ok && (!open[i].exact || !slices.ContainsFunc(open[i].logins, n.denies)) {
			groups[at] = append(groups[at], open[i])
		}
	}
	return groups
}

// end ends the sessions of a group, and reports whether there were any.
func (n *node) end(ctx context.Context, group []session) (ended bool, err error) {
	first := &group[0]
	if len(group) == 1 && first.exact {
		for _, id := range first.Fields { // one of them is the session's
			if ended, err = n.dovecot.KickSession(ctx, id); ended || err != nil {
				break
			}
		}
		if ended {
			n.logins.forgetOne(first.logins[0])
			n.ended(group)
		}
		return ended, err
	}
	began := time.Now()
	users := map[string]bool{} // an account may have several names
	for i := range group {
		if user := group[i].User; !users[user] {
			users[user] = true
			ok, err := n.dovecot.KickUser(ctx, user, first.IP)
			if err != nil {
				return ended, fmt.Errorf("%s: %w", n.dovecot, err)
			}
			ended = ended || ok
		}
	}
	if ended {
		n.logins.end(n.number, first.origin, began)
		n.ended(group)
	}
	return ended, nil
}

// ended notes that sessions were ended.
func (n *node) ended(group []session) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	for i := range group {
		c := group[i].Connection
		same := func(o doveadm.Connection) bool {
			return o.User == c.User && o.Service == c.Service && o.IP == c.IP && slices.Equal(o.Fields, c.Fields)
		}
		if at := slices.IndexFunc(n.last, same); at >= 0 {
			n.last = slices.Delete(slices.Clone(n.last), at, at+1)
		}
		n.gone = append(n.gone, goneSession{c, now})
	}
}

// left returns how many refused sessions a Dovecot that does not answer may still have: those that it
// had when it last answered, and logins since then whose sessions were seen nowhere.
func (n *node) left(ctx context.Context, c *scope) (count int) {
	n.mu.Lock()
	last, answered := n.last, n.answered
	n.mu.Unlock()
	for _, group := range n.refused(n.identify(ctx, last, c)) {
		count += len(group)
	}
	var seen sightings
	for _, o := range n.nodes {
		o.had(&seen)
	}
	logins := slices.DeleteFunc(n.logins.known(c), func(s *access.Session) bool {
		return s.Began.Before(answered) && !arriving(s, answered)
	})
	slices.SortFunc(logins, func(a, b *access.Session) int { return b.Began.Compare(a.Began) })
	for _, s := range logins {
		if n.denies(s) && !seen.take(s) {
			count++
		}
	}
	return count
}

// had adds the sessions that a Dovecot had when it last answered, and those that ended there lately.
func (n *node) had(known *sightings) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for i := range n.last {
		if p, ok := n.place(&n.last[i]); ok {
			known.add(p, n.last[i].Fields, n.answered)
		}
	}
	for i := range n.gone {
		if p, ok := n.place(&n.gone[i].Connection); ok {
			known.add(p, n.gone[i].Fields, n.gone[i].at)
		}
	}
}

// sightings are sessions that Dovecots listed, by their names, or by when they were seen last at a place.
type sightings struct {
	names map[string]bool
	seen  map[place][]time.Time
}

func (k *sightings) add(p place, names []string, at time.Time) {
	if k.names == nil {
		k.names, k.seen = map[string]bool{}, map[place][]time.Time{}
	}
	for _, name := range names {
		k.names[name] = true
	}
	if len(names) == 0 {
		k.seen[p] = append(k.seen[p], at)
	}
}

// take reports whether a login's session was seen, and uses the sighting up. Logins are taken from the
// latest to the oldest.
func (k *sightings) take(s *access.Session) bool {
	if k.names[s.ID] {
		return true
	}
	p := placeOf(s)
	first := -1
	for i, at := range k.seen[p] {
		if at.After(s.Began) && (first < 0 || at.Before(k.seen[p][first])) {
			first = i
		}
	}
	if first >= 0 {
		k.seen[p] = slices.Delete(k.seen[p], first, first+1)
	}
	return first >= 0
}
