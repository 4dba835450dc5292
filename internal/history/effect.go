package history

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Bounds of an [Effect].
const (
	// maxListed is the number of values listed for each kind, those with the most logins.
	maxListed = 1000
	// maxValues is the number of distinct values counted for each kind: about 15 MB.
	maxValues = 100_000
	// progressEvery is the number of records between two progress reports.
	progressEvery = 1000
)

// Change is a change of a domain's rules by one policy.
type Change struct {
	Are   *access.Rules // the rules as they are
	Would *access.Rules // the rules as they would be
	// Others are the rules for comparison: those without the policy if it is new, changed or only
	// previewed, and the present ones if it is removed. Logins from before the policy count.
	Others *access.Rules
}

// Compare evaluates the records of a domain from since until now, newest first, under a change of
// its rules. It reports progress at short intervals; an error of progress ends it.
func (h *History) Compare(ctx context.Context, domain string, since, now time.Time, change Change, progress func(api.PreviewProgress) error) (*api.PolicyPreviewed, error) {
	e := &api.PolicyPreviewed{Since: since}
	var refused, admitted tally
	var last lasts
	var stop error
	var l Login
	err := h.each(ctx, domain, since, func(rec *store.LoginRecord) bool {
		if e.Examined++; e.Oldest.IsZero() || rec.Time.Before(e.Oldest) {
			e.Oldest = rec.Time
		}
		in := cameIn(rec)
		if in {
			e.CameIn++
		}
		if (in || ruled(rec)) && h.Recall(rec, &l) {
			passes := func(rules *access.Rules) bool { reason, _ := l.judge(rules); return reason == "" }
			switch after := passes(change.Would); {
			case in && !after && passes(change.Others):
				refused.add(rec, &l)
			case after && !passes(change.Are):
				admitted.add(rec, &l)
			}
			if rec.MasterUser == "" {
				last.add(rec, &l, in, change)
			}
		}
		if e.Examined%progressEvery == 0 {
			share := float64(now.Sub(rec.Time)) / float64(now.Sub(since))
			stop = progress(api.PreviewProgress{Examined: e.Examined, At: rec.Time, Share: min(max(share, 0), 1)})
		}
		return stop == nil
	})
	if err := cmp.Or(stop, err); err != nil {
		return nil, err
	}
	e.Refused, e.Admitted, e.LastLogins = refused.affected(), admitted.affected(), last.view()
	return e, nil
}

// lasts are the last logins of accounts, as far as a limit of accounts.
type lasts struct {
	at       map[string]int // in items
	items    []api.LastLogin
	admitted []bool
}

// add adds an older login than those before it. A refused one counts for an account of which no
// login was admitted: it may be somebody else's attempt.
func (v *lasts) add(rec *store.LoginRecord, l *Login, in bool, change Change) {
	i, known := v.at[l.Address]
	switch {
	case known && (v.admitted[i] || !in), !known && len(v.items) == maxValues:
		return
	case !known:
		if v.at == nil {
			v.at = map[string]int{}
		}
		i = len(v.items)
		v.at[strings.Clone(l.Address)] = i
		v.items, v.admitted = append(v.items, api.LastLogin{}), append(v.admitted, false)
	}
	judged := func(rules *access.Rules) string {
		reason, _ := l.judge(rules)
		return cmp.Or(string(reason), access.Allow.String())
	}
	v.admitted[i] = in
	v.items[i] = api.LastLogin{ // copies: the record's texts are parts of the whole text that it was read from
		Account: strings.Clone(l.Address), Time: rec.Time, IP: strings.Clone(rec.IP), Region: strings.Clone(l.Region), Protocol: strings.Clone(rec.Protocol),
		Client: access.ClientType(strings.Clone(string(rec.Client))), ClientID: strings.Clone(rec.ClientID),
		Before: judged(change.Are), After: judged(change.Would),
	}
}

func (v *lasts) view() api.LastLogins {
	out := api.LastLogins{Accounts: len(v.items)}
	order := func(l *api.LastLogin) int {
		if l.Before == l.After {
			return 1
		}
		return 0
	}
	for i := range v.items {
		out.Changed += 1 - order(&v.items[i])
	}
	slices.SortFunc(v.items, func(a, b api.LastLogin) int {
		return cmp.Or(order(&a)-order(&b), cmp.Compare(a.Account, b.Account))
	})
	out.Items = append([]api.LastLogin{}, v.items[:min(len(v.items), maxListed)]...)
	return out
}

// tally counts the logins that a change affects.
type tally struct {
	api.LoginCount
	accounts, devices, addresses, regions, clients, protocols values
}

func (t *tally) add(rec *store.LoginRecord, l *Login) {
	count(&t.LoginCount, rec.Time)
	t.accounts.add(api.SpreadItem{Value: l.Address}, rec.Time)
	t.devices.add(device(rec, l), rec.Time)
	t.addresses.add(api.SpreadItem{Value: rec.IP}, rec.Time)
	t.regions.add(api.SpreadItem{Value: access.ShownRegion(l.Region)}, rec.Time)
	t.clients.add(api.SpreadItem{Value: string(rec.Client)}, rec.Time)
	t.protocols.add(api.SpreadItem{Value: rec.Protocol}, rec.Time)
}

func (t *tally) affected() api.Affected {
	return api.Affected{
		LoginCount: t.LoginCount, Accounts: t.accounts.spread(), Devices: t.devices.spread(), Addresses: t.addresses.spread(),
		Regions: t.regions.spread(), Clients: t.clients.spread(), Protocols: t.protocols.spread(),
	}
}

// device identifies the secret of a login.
func device(rec *store.LoginRecord, l *Login) api.SpreadItem {
	switch {
	case rec.CredentialID != "":
		return api.SpreadItem{Value: rec.CredentialID, Label: rec.Credential, Account: l.Address}
	case rec.MasterUser != "":
		return api.SpreadItem{Value: "master"}
	default:
		return api.SpreadItem{Value: store.CredentialMailbox}
	}
}

// values counts logins by the values of one kind, up to a limit.
type values struct {
	at    map[string]int // in parts
	parts []api.SpreadItem
	rest  int // logins of values that came too late to be listed
}

func (v *values) add(p api.SpreadItem, at time.Time) {
	i, known := v.at[p.Value]
	switch {
	case known:
	case len(v.parts) == maxValues:
		v.rest++
		return
	default:
		if v.at == nil {
			v.at = map[string]int{}
		}
		i = len(v.parts)
		p.Value, p.Label, p.Account = strings.Clone(p.Value), strings.Clone(p.Label), strings.Clone(p.Account) // of a record's whole text
		v.at[p.Value] = i
		v.parts = append(v.parts, p)
	}
	count(&v.parts[i].LoginCount, at)
}

func (v *values) spread() api.Spread {
	s := api.Spread{Distinct: len(v.parts), Items: v.parts, Others: v.rest}
	slices.SortFunc(s.Items, func(a, b api.SpreadItem) int {
		return cmp.Or(cmp.Compare(b.Logins, a.Logins), cmp.Compare(a.Value, b.Value))
	})
	for _, p := range s.Items[min(len(s.Items), maxListed):] {
		s.Others += p.Logins
	}
	s.Items = append([]api.SpreadItem{}, s.Items[:min(len(s.Items), maxListed)]...) // [] when there are none, and the rest can go
	return s
}

// count adds a login.
func count(c *api.LoginCount, at time.Time) {
	c.Logins++
	if c.First.IsZero() || at.Before(c.First) {
		c.First = at
	}
	if at.After(c.Last) {
		c.Last = at
	}
}
