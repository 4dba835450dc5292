package admin

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/admin/guard"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// inspectDays is how long something must be unused to be found, in days.
	inspectDays = 90
	// oldPassword is the age of a mailbox password that is found.
	oldPassword = 365 * 24 * time.Hour
	// maxReclaimed bounds the findings that are closed in one transaction.
	maxReclaimed = 1000
)

// Inspect looks for gaps in a domain, or at one account unless that is "". What was not used within
// days counts as unused, if it was there for that long. Forwards of one account are always looked up,
// those of a domain if forwards is true, which takes long.
func (d *Domain) Inspect(ctx context.Context, account string, days int, forwards bool, p Page) (*api.Inspection, error) {
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	var f api.Faults
	account = d.readRecordFilters(account, time.Time{}, time.Time{}, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	x, err := d.inspect(ctx, account, days, forwards)
	if err != nil {
		return nil, err
	}
	all := x.view()
	list := slices.DeleteFunc(x.found, func(f api.Finding) bool { return f.ID <= after })
	page := firstPage(p, list, func(f api.Finding) string { return f.ID })
	all.Items, all.Next = page.Items, page.Next
	return all, nil
}

// InspectAll is [Domain.Inspect] of a whole domain, forwards included, with all findings.
func (d *Domain) InspectAll(ctx context.Context, days int) (*api.Inspection, error) {
	x, err := d.inspect(ctx, "", days, true)
	if err != nil {
		return nil, err
	}
	return x.view(), nil
}

func (x *inspection) view() *api.Inspection {
	return &api.Inspection{Items: x.found, Domain: x.name, Since: x.since, Accounts: x.accounts, Records: x.use.Records}
}

// InspectionReport returns what the latest inspection on the domain's schedule found.
func (d *Domain) InspectionReport(ctx context.Context) (*api.InspectionReport, error) {
	if err := d.Caller.May(ForRead | ForDomain); err != nil {
		return nil, err
	}
	cur, ok := d.Store.State.Domain(d.name)
	if !ok {
		return nil, api.NotFound("domain")
	}
	var r *api.InspectionReport
	if d.LastInspection != nil {
		var err error
		if r, err = d.LastInspection(ctx, d.name); err != nil {
			return nil, err
		}
	}
	if r == nil || r.Time.Before(cur.Doc.CreatedAt.Truncate(time.Second)) { // of an earlier domain of this name
		return nil, api.Conflict("no_report", "the domain was not inspected on a schedule yet: set inspection.every, and wait for the report")
	}
	if d.Caller.Role == store.RoleDomain {
		r.Node = ""
	}
	return r, nil
}

// minInspectionEvery is the shortest time between two inspections of a domain on its schedule.
const minInspectionEvery = time.Minute

func viewInspectionPolicy(p *store.InspectionPolicy) *api.InspectionPolicy {
	if p == nil {
		return nil
	}
	return &api.InspectionPolicy{Every: viewAge(p.Every), Days: p.Days}
}

// readInspectionPolicy validates how often a domain is inspected; nil for never.
func readInspectionPolicy(in *api.InspectionPolicy, f *api.Faults) *store.InspectionPolicy {
	if in == nil || in.Every == "" {
		return nil
	}
	every, err := readAge(in.Every)
	switch {
	case err != nil:
		f.Add("/inspection/every", "invalid_duration", "%v", err)
	case every < minInspectionEvery:
		f.Add("/inspection/every", "out_of_range", "must be a minute (60s) or more")
	}
	return &store.InspectionPolicy{Every: every, Days: cmp.Or(in.Days, inspectDays)}
}

// maxRest bounds the pause after a portion of an inspection, which is four times as long as the portion took:
// logins go on, and 100 000 accounts with as many records take less than 10 s.
const maxRest = 30 * time.Millisecond

// rest pauses after a portion of an inspection that began at a time, unless that is zero, and returns when
// the next one begins.
func rest(ctx context.Context, began time.Time) (time.Time, error) {
	if !began.IsZero() {
		select {
		case <-ctx.Done():
		case <-time.After(min(4*time.Since(began), maxRest)):
		}
	}
	return time.Now(), ctx.Err()
}

// inspection is one look at a domain.
type inspection struct {
	*Domain
	since    time.Time
	use      *history.Use
	accounts int
	inUse    map[string]bool // departments of the accounts
	found    []api.Finding
}

func (d *Domain) inspect(ctx context.Context, account string, days int, forwards bool) (*inspection, error) {
	x := &inspection{Domain: d, since: d.Time.AddDate(0, 0, -days).UTC().Truncate(time.Second), inUse: map[string]bool{}, found: []api.Finding{}}
	read := x.since
	if days == 0 {
		read = time.Time{}
	}
	var err error
	h, begin := d.history(), time.Time{}
	h.Records = func(ctx context.Context, q store.RecordQuery) ([]store.LoginRecord, string, error) {
		if begin, err = rest(ctx, begin); err != nil {
			return nil, "", err
		}
		return d.Journal.Records(ctx, q)
	}
	if x.use, err = h.Use(ctx, d.name, account, read); err != nil {
		return nil, err
	}
	if account != "" {
		if a, ok := d.Store.State.Account(account); ok {
			x.account(a.Doc)
		}
	} else if err := x.whole(ctx); err != nil {
		return nil, err
	}
	switch {
	case d.FindForwards == nil:
	case account != "":
		x.forwards(d.FindForwards.Of(ctx, account))
	case forwards:
		if err := d.FindForwards.Each(ctx, d.name, x.mailboxes(), x.forwards); err != nil {
			return nil, err
		}
	}
	if err := x.keys(ctx, account); err != nil {
		return nil, err
	}
	slices.SortFunc(x.found, func(a, b api.Finding) int { return strings.Compare(a.ID, b.ID) })
	return x, nil
}

// whole looks at all accounts and at the rules.
func (x *inspection) whole(ctx context.Context) error {
	begin := time.Now()
	for accounts := range slices.Chunk(x.Store.State.Accounts(x.name, "", 0), portion) {
		for _, a := range accounts {
			x.account(a.Doc)
		}
		var err error
		if begin, err = rest(ctx, begin); err != nil {
			return err
		}
	}
	if err := x.policies(ctx); err != nil {
		return err
	}
	x.exceptions()
	return nil
}

func (x *inspection) add(kind, account, what, detail string, proposal *api.Proposal) {
	id := strings.TrimSuffix(kind+":"+account+":"+what, ":")
	x.found = append(x.found, api.Finding{ID: id, Kind: kind, Account: account, Detail: detail, Proposal: proposal})
}

// account looks at one account.
func (x *inspection) account(a *store.Account) {
	x.accounts++
	for _, path := range a.Departments {
		x.inUse[path] = true
	}
	_, v := x.Store.State.View(a.Address)
	if !v.Known {
		return
	}
	facts := v.Account.Facts(new(access.Account))
	used := x.use.Protocol[a.Address]
	if !a.CreatedAt.After(x.since) && !a.Suspended {
		for _, p := range access.SwitchedProtocols {
			if on, _ := v.Rules.ProtocolOn(p, facts); !on || !used[p].IsZero() {
				continue
			}
			kind, detail := "unused_protocol", strings.ToUpper(p.String())+" is on and was not used since "+x.since.Format(time.DateOnly)
			if p == access.SMTP {
				kind, detail = "unused_sending", "may send, and has not since "+x.since.Format(time.DateOnly)
			}
			x.add(kind, a.Address, p.String(), detail, &api.Proposal{SwitchOff: []string{p.String()}})
		}
	}
	live := a.Live(x.Time)
	for i := range live {
		if p := &live[i]; !p.CreatedAt.After(x.since) && x.use.Devices[p.ID].IsZero() {
			x.add("unused_secure_password", a.Address, p.ID, fmt.Sprintf("the secure password %q was not used since %s", p.Label, x.since.Format(time.DateOnly)), &api.Proposal{Revoke: p.ID})
		}
	}
	required, _ := v.Rules.SecureRequired(a.Address, facts)
	switch {
	case len(live) == 0 && required && !a.Suspended:
		x.add("no_secure_password", a.Address, "", "secure passwords are required, and it has none: third-party clients cannot log in", nil)
	case len(live) == 0 && !a.Suspended && !used[access.IMAP].IsZero():
		x.add("no_secure_password", a.Address, "", "logs in with its mailbox password only", nil)
	case len(live) > 0 && a.Suspended:
		x.add("suspended_with_access", a.Address, "", fmt.Sprintf("is suspended and keeps %d secure passwords, which work again when the suspension is lifted", len(live)), nil)
	}
	if !a.Suspended && !a.HasFactor() && v.Rules.FactorRequired(a.Address, facts) {
		x.add("no_second_factor", a.Address, "", "a second factor is required, and it has none: it adds one at its next log-in to the pages", nil)
	}
	if a.MailboxHash != "" && !a.MailboxSetAt.IsZero() && x.Time.Sub(a.MailboxSetAt) > oldPassword {
		x.add("old_mailbox_password", a.Address, "", "the mailbox password was set "+a.MailboxSetAt.Format(time.DateOnly), nil)
	}
}

// mailboxes returns the accounts that have a record, and those that have logged in.
func (x *inspection) mailboxes() []string {
	var list []string
	for _, a := range x.Store.State.Accounts(x.name, "", 0) {
		list = append(list, a.Doc.Address)
	}
	for account := range x.use.Protocol {
		if address.Domain(account) == x.name {
			list = append(list, account)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// forwards looks at what sends an account's mail out of the site.
func (x *inspection) forwards(f *api.Forwards) {
	outside(f, func(kind, what, detail string) { x.add(kind, f.Account, what, detail, nil) })
}

// outside passes what sends an account's mail out of the site to add, and what could not be looked up:
// the list may be incomplete. What is named by neither lines nor reasons, which change while the forward
// or the problem is the same.
func outside(f *api.Forwards, add func(kind, what, detail string)) {
	seen := map[string]bool{}
	once := func(kind, what, detail string) {
		if id := kind + ":" + what; !seen[id] {
			seen[id] = true
			add(kind, what, detail)
		}
	}
	for i := range f.Items {
		item := &f.Items[i]
		if !item.Outside || !item.Active {
			continue
		}
		from, to := item.Name, item.Target
		if item.Source == "sieve" {
			from = fmt.Sprintf("the Sieve script %q, line %d,", item.Name, item.Line)
		}
		if item.Computed {
			to += ", which it makes when it runs"
		}
		once("forward_outside", item.Name+":"+item.Target, from+" sends its mail on to "+to)
	}
	for _, script := range f.Scripts {
		if script.Active && script.Problem != "" {
			once("forwards_unknown", "script:"+script.Name, fmt.Sprintf("the Sieve script %q could not be read whole: %s", script.Name, script.Problem))
		}
	}
	for i, problem := range f.Problems {
		once("forwards_unknown", f.Unread[i], problem)
	}
}

// policies looks for policies without effect.
func (x *inspection) policies(ctx context.Context) error {
	list := x.Store.State.Policies(x.name)
	inUse := slices.Collect(maps.Keys(x.inUse))
	members := func(s *access.Scope) bool { // whether the scope may include anybody
		return s.All || len(s.Members) > 0 || slices.ContainsFunc(inUse, func(path string) bool {
			return slices.ContainsFunc(s.Departments, func(d access.ScopeDepartment) bool { return d.Has(path) })
		})
	}
	for i := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := list[i].Doc
		if !p.Enabled || p.Managed != "" {
			continue
		}
		disable := &api.Proposal{Disable: p.ID}
		if !members(&p.Scope) {
			x.add("policy_without_effect", "", p.ID, fmt.Sprintf("the policy %q applies to nobody: its departments are empty", p.Name), disable)
			continue
		}
		if j := slices.IndexFunc(list, func(o store.Revised[store.Policy]) bool { return o.Doc.ID != p.ID && shadows(o.Doc, p) }); j >= 0 {
			if twin := shadows(p, list[j].Doc); !twin || list[j].Doc.ID < p.ID { // of two alike, one stays
				x.add("policy_shadowed", "", p.ID, fmt.Sprintf("every login that the policy %q refuses is refused by %q as well", p.Name, list[j].Doc.Name), disable)
			}
			continue
		}
		if x.use.Policies[p.ID].IsZero() && !p.CreatedAt.After(x.since) {
			x.add("policy_unused", "", p.ID, fmt.Sprintf("the policy %q has refused no login since %s", p.Name, x.since.Format(time.DateOnly)), nil)
		}
	}
	return nil
}

// shadows reports whether a blacklist refuses everything that another refuses: its selection is as wide
// or wider in every respect. It compares what is written, not what follows from departments.
func shadows(wide, narrow *store.Policy) bool {
	wider := func(w, n []string) bool { // empty means all
		return len(w) == 0 || len(n) > 0 && !slices.ContainsFunc(n, func(x string) bool { return !slices.Contains(w, x) })
	}
	everyone := wide.Scope.All && len(wide.Scope.Except.Departments)+len(wide.Scope.Except.Members) == 0
	sameScope := everyone || Same(wide.Scope, narrow.Scope)
	anywhere := len(wide.IPs)+len(wide.Regions) == 0
	place := anywhere || len(narrow.IPs)+len(narrow.Regions) > 0 &&
		!slices.ContainsFunc(narrow.IPs, func(ip string) bool { return !slices.Contains(wide.IPs, ip) }) &&
		!slices.ContainsFunc(narrow.Regions, func(r string) bool { return !slices.Contains(wide.Regions, r) })
	return wide.Enabled && narrow.Enabled && wide.Type == access.Blacklist && narrow.Type == access.Blacklist &&
		(wide.Mode == access.Enforce || narrow.Mode == access.Report) && sameScope && place &&
		!slices.ContainsFunc(wide.ExceptIPs, func(ip string) bool { return !slices.Contains(narrow.ExceptIPs, ip) }) &&
		wider(texts(wide.Clients), texts(narrow.Clients)) && wider(wide.Protocols, narrow.Protocols)
}

// exceptions lists the exceptions that no date ends.
func (x *inspection) exceptions() {
	name := func(what, id string, s *access.Scope, ips []string) {
		var who []string
		who = append(who, s.Except.Members...)
		for _, d := range s.Except.Departments {
			who = append(who, "department "+d.Path)
		}
		if who = append(who, ips...); len(who) > 0 {
			x.add("exception_without_end", "", id, what+" does not apply to "+strings.Join(who, ", "), nil)
		}
	}
	if dom, ok := x.Store.State.Domain(x.name); ok {
		if dom.Doc.SecurePasswords.Enforced {
			name("the enforcement of secure passwords", "secure-password-policy", &dom.Doc.SecurePasswords.Scope, nil)
		}
		if second := dom.Doc.SecondFactor; second != nil && second.Required {
			name("the requirement of a second factor", "second-factor", &second.Scope, nil)
		}
	}
	for _, p := range x.Store.State.Policies(x.name) {
		if p.Doc.Enabled {
			name(fmt.Sprintf("the policy %q", p.Doc.Name), p.Doc.ID, &p.Doc.Scope, p.Doc.ExceptIPs)
		}
	}
}

// keys looks at the API keys of the domain, or of one account: those that never expire, and those that
// are not used. A key counts as unused only if its uses were recorded for that long.
func (x *inspection) keys(ctx context.Context, account string) error {
	var uses map[string]time.Time
	began := x.Time
	if x.KeyUses != nil {
		var err error
		if uses, began, err = x.KeyUses.List(ctx); err != nil {
			return err
		}
	}
	for _, k := range x.Store.State.Keys() {
		k := k.Doc
		of := k.Domain == x.name || k.Account != "" && address.Domain(k.Account) == x.name
		if !of || account != "" && k.Account != account || !k.ExpiresAt.IsZero() && !x.Time.Before(k.ExpiresAt) {
			continue
		}
		if k.ExpiresAt.IsZero() {
			x.add("key_without_end", k.Account, k.ID, fmt.Sprintf("the key %q of role %s does not expire", k.Name, k.Role), nil)
		}
		if last := uses[k.ID]; !last.After(x.since) && !k.CreatedAt.After(x.since) && !began.After(x.since) {
			detail := fmt.Sprintf("the key %q of role %s was not used since %s", k.Name, k.Role, x.since.Format(time.DateOnly))
			var proposal *api.Proposal
			if x.mayRevoke(k) {
				proposal = &api.Proposal{ExpireKey: k.ID}
			}
			x.add("unused_key", k.Account, k.ID, detail, proposal)
		}
	}
	return nil
}

// Reclaim carries out the proposals of findings in one transaction, or undoes an earlier reclaim.
func (d *Domain) Reclaim(ctx context.Context, in *api.Reclaim, f *api.Faults) (*api.Reclaimed, error) {
	if err := d.Caller.May(ForDomain); err != nil {
		return nil, err
	}
	if in.Undo != "" {
		return d.undoReclaim(ctx, in.Undo)
	}
	if len(in.Findings)+len(in.Kinds) == 0 {
		f.Add("/findings", "required", "is needed, or kinds, or undo")
	}
	account := d.readRecordFilters(in.Account, time.Time{}, time.Time{}, f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	days := inspectDays
	if in.Days != nil {
		days = *in.Days
	}
	x, err := d.inspect(ctx, account, days, false)
	if err != nil {
		return nil, err
	}
	res := &api.Reclaimed{Items: []api.Finding{}}
	for _, found := range x.found {
		if found.Proposal != nil && (slices.Contains(in.Findings, found.ID) || slices.Contains(in.Kinds, found.Kind)) {
			res.Items = append(res.Items, found)
		}
	}
	if n := len(res.Items) - maxReclaimed; n > 0 {
		res.Items, res.Remaining = res.Items[:maxReclaimed], n
	}
	if len(res.Items) == 0 {
		return res, nil
	}
	var expired map[string][2]time.Time
	err = d.changeRules(ctx, func(ch *store.Change, rules *guard.Edit) error {
		Describe(ch, "inspection.reclaim", d.name, "")
		rules.Policies = map[string]*store.Policy{}
		expired = map[string][2]time.Time{}
		edits := reclaimEdits{d: d, ch: ch, accounts: map[string]*store.Account{}, rules: rules, keys: expired}
		for i := range res.Items {
			edits.apply(&res.Items[i])
		}
		res.ID = fmt.Sprintf("%d-%d", store.ShardOf(d.name), ch.Rev)
		return edits.put()
	})
	if err != nil || d.DryRun {
		res.ID = ""
		return res, err
	}
	return res, d.expireKeys(ctx, expired)
}

// expireKeys ends keys, or gives them back the end that they had, unless they were changed meanwhile.
// Keys are in another part of the store than their domain: this is a transaction of its own.
func (d *Domain) expireKeys(ctx context.Context, keys map[string][2]time.Time) error {
	if len(keys) == 0 {
		return nil
	}
	return d.change(ctx, ForDomain, store.Global, func(ch *store.Change) error {
		Describe(ch, "key.update", d.name, d.name)
		for _, k := range d.Store.State.Keys() {
			end, ok := keys[k.Doc.ID]
			if !ok || !d.mayRevoke(k.Doc) || !k.Doc.ExpiresAt.Equal(end[0]) {
				continue
			}
			next := *k.Doc
			next.ExpiresAt = end[1]
			ch.DiffOf(next.ID, k.Doc, &next)
			ch.PutKey(&next)
		}
		return nil
	})
}

// reclaimEdits collects the documents of one reclaim.
type reclaimEdits struct {
	d        *Domain
	ch       *store.Change
	accounts map[string]*store.Account
	rules    *guard.Edit
	keys     map[string][2]time.Time // the ends that they have and get
}

// account returns the account's document to be changed; nil if it is gone.
func (e *reclaimEdits) account(addr string) *store.Account {
	a, ok := e.accounts[addr]
	if !ok {
		if cur, exists := e.d.Store.State.Account(addr); exists {
			next := *cur.Doc
			next.Protocols, next.Secrets = maps.Clone(next.Protocols), slices.Clone(next.Secrets)
			if next.Protocols == nil {
				next.Protocols = access.Switches{}
			}
			a = &next
		}
		e.accounts[addr] = a
	}
	return a
}

func (e *reclaimEdits) apply(found *api.Finding) {
	p := found.Proposal
	if p.ExpireKey != "" {
		for _, k := range e.d.Store.State.Keys() {
			if k.Doc.ID == p.ExpireKey {
				e.keys[k.Doc.ID] = [2]time.Time{k.Doc.ExpiresAt, e.ch.Now}
			}
		}
		return
	}
	if p.Disable != "" {
		if cur, ok := e.d.Store.State.Policy(e.d.name, p.Disable); ok && cur.Doc.Enabled {
			next := *cur.Doc
			next.Enabled = false
			e.rules.Policies[p.Disable] = &next
		}
		return
	}
	a := e.account(found.Account)
	if a == nil {
		return
	}
	for _, protocol := range p.SwitchOff {
		a.Protocols[protocol] = false
	}
	if p.Revoke != "" {
		a.Revoke(p.Revoke, e.ch.Now)
	}
}

// put writes the documents, and what they were into the audit, for an undo.
func (e *reclaimEdits) put() error {
	for _, addr := range slices.Sorted(maps.Keys(e.accounts)) {
		next := e.accounts[addr]
		if next == nil {
			continue
		}
		cur, _ := e.d.Store.State.Account(addr)
		fields := map[string][2]any{}
		if !maps.Equal(cur.Doc.Protocols, next.Protocols) {
			fields["protocols"] = [2]any{cur.Doc.Protocols, next.Protocols}
		}
		var revoked []string
		for _, p := range next.Secrets {
			if !p.RevokedAt.IsZero() && slices.ContainsFunc(cur.Doc.Live(e.ch.Now), func(o store.SecurePassword) bool { return o.ID == p.ID }) {
				revoked = append(revoked, p.ID)
			}
		}
		if revoked != nil {
			fields["revoked"] = [2]any{[]string{}, revoked}
		}
		if len(fields) > 0 {
			e.ch.NoteOf(addr, fields)
			e.ch.PutAccount(next)
		}
	}
	if len(e.keys) > 0 && len(e.accounts)+len(e.rules.Policies) == 0 {
		e.ch.AuditOnly()
	}
	for id, end := range e.keys {
		e.ch.NoteOf("key/"+id, map[string][2]any{"expires_at": {end[0], end[1]}})
	}
	return e.d.putPolicies(e.ch, e.rules)
}

// putPolicies switches policies on or off, unless that locks people out.
func (d *Domain) putPolicies(ch *store.Change, rules *guard.Edit) error {
	if len(rules.Policies) == 0 {
		return nil
	}
	for id, p := range rules.Policies {
		sum, err := policyContent(p)
		if err != nil {
			return err
		}
		ch.NoteOf("policy/"+id, map[string][2]any{"enabled": {!p.Enabled, p.Enabled}, "content": {sum, sum}})
	}
	_, err := d.ApplyRules(ch, rules)
	return err
}

// policyContent returns a hash of what a policy does while it is enabled.
func policyContent(p *store.Policy) (string, error) {
	enabled := normalPolicy(p)
	enabled.Enabled = true
	text, err := json.Marshal(enabled)
	if err != nil {
		return "", fmt.Errorf("encoding the policy: %w", err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16]), nil
}

// undoReclaim reverts what an earlier reclaim changed, as far as it is still as the reclaim left it.
func (d *Domain) undoReclaim(ctx context.Context, id string) (*api.Reclaimed, error) {
	entry, err := d.AuditEntry(ctx, id)
	if err != nil {
		return nil, err
	}
	if entry == nil || entry.Domain != d.name || entry.Action != "inspection.reclaim" {
		return nil, api.Missing("no reclaim of this id is known")
	}
	res := &api.Reclaimed{Items: []api.Finding{}}
	u := undo{d: d, entry: entry}
	err = d.changeRules(ctx, func(ch *store.Change, rules *guard.Edit) error {
		res.Reverted, res.Kept = 0, nil
		Describe(ch, "inspection.undo", d.name, id)
		rules.Policies = map[string]*store.Policy{}
		u.ch, u.rules, u.keys = ch, rules, map[string][2]time.Time{}
		for _, resource := range slices.Sorted(maps.Keys(entry.Changes)) {
			reverted, err := u.revert(resource)
			if err != nil {
				return err
			}
			if reverted {
				res.Reverted++
			} else {
				res.Kept = append(res.Kept, resource)
			}
		}
		if n := len(u.keys); n > 0 && n == res.Reverted {
			ch.AuditOnly()
		}
		return d.putPolicies(ch, rules)
	})
	if err != nil || d.DryRun {
		return res, err
	}
	return res, d.expireKeys(ctx, u.keys)
}

// undo reverts one reclaim.
type undo struct {
	d     *Domain
	entry *store.AuditEntry // of the reclaim
	ch    *store.Change
	rules *guard.Edit
	keys  map[string][2]time.Time // the ends that they have and get
}

// revert reverts the change of one account, policy or key. It reports false if somebody has changed the
// same since.
func (u *undo) revert(resource string) (bool, error) {
	var fields struct {
		Content   [2]string
		ExpiresAt [2]time.Time `json:"expires_at"`
		Protocols []access.Switches
		Revoked   [][]string
	}
	if err := json.Unmarshal(u.entry.Changes[resource], &fields); err != nil {
		return false, fmt.Errorf("reading the reclaim: %w", err)
	}
	state := u.d.Store.State
	if id, ok := strings.CutPrefix(resource, "key/"); ok {
		return slices.ContainsFunc(state.Keys(), func(k store.Revised[store.Key]) bool {
			same := k.Doc.ID == id && k.Doc.ExpiresAt.Equal(fields.ExpiresAt[1]) && u.d.mayRevoke(k.Doc)
			if same {
				u.keys[id] = [2]time.Time{fields.ExpiresAt[1], fields.ExpiresAt[0]}
			}
			return same
		}), nil
	}
	if id, ok := strings.CutPrefix(resource, "policy/"); ok {
		cur, exists := state.Policy(u.d.name, id)
		if !exists || cur.Doc.Enabled {
			return false, nil
		}
		if sum, err := policyContent(cur.Doc); err != nil || sum != fields.Content[1] {
			return false, err
		}
		next := *cur.Doc
		next.Enabled = true
		u.rules.Policies[id] = &next
		return true, nil
	}
	cur, exists := state.Account(resource)
	if !exists || len(fields.Protocols) == 2 && !maps.Equal(cur.Doc.Protocols, fields.Protocols[1]) {
		return false, nil
	}
	next := *cur.Doc
	next.Secrets = slices.Clone(next.Secrets)
	noted := map[string][2]any{}
	if len(fields.Protocols) == 2 {
		noted["protocols"] = [2]any{next.Protocols, fields.Protocols[0]}
		next.Protocols = fields.Protocols[0]
	}
	if len(fields.Revoked) == 2 {
		left := len(fields.Revoked[1])
		for i := range next.Secrets {
			p := &next.Secrets[i]
			if slices.Contains(fields.Revoked[1], p.ID) && p.RevokedAt.Equal(u.entry.Time) {
				p.RevokedAt = time.Time{}
				left--
			}
		}
		if left > 0 { // one is no longer recognised, or was revoked otherwise
			return false, nil
		}
		noted["revoked"] = [2]any{fields.Revoked[1], []string{}}
	}
	u.ch.NoteOf(resource, noted)
	u.ch.PutAccount(&next)
	return true, nil
}
