package history

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Bounds of an [Effect].
const (
	// maxListed is how many values of a kind are listed, those with most logins.
	maxListed = 1000
	// maxValues is how many values of a kind are told apart: some 15 MB of them.
	maxValues = 100_000
	// progressEvery is how many records are examined between two reports.
	progressEvery = 1000
)

// Effect is what a change of rules would have done to recorded logins. Its tags are those of the
// API, which answers it as it is.
type Effect struct {
	Since    time.Time `json:"since" doc:"From when on records were asked for."`
	Oldest   time.Time `json:"oldest,omitzero" doc:"Of the oldest record since then. Much later than since, there were no logins before it, or they are no longer on record."`
	Examined int       `json:"examined" doc:"Records looked at."`
	CameIn   int       `json:"came_in" doc:"Those that were admitted; also those that the next passdb decided and never told of."`
	Refused  Affected  `json:"refused" doc:"Logins that came in, and that the change would have refused. What the other rules refuse by themselves is not counted."`
	Admitted Affected  `json:"admitted" doc:"Logins that the rules as they are refuse, and that the change would let past them. Whether their secrets were right is not known of all."`
}

// Affected are the logins that a change concerns, and how they spread.
type Affected struct {
	Count
	Accounts  Spread `json:"accounts"`
	Devices   Spread `json:"devices" doc:"By id of the secure password; mailbox for mailbox passwords, master for master users."`
	Addresses Spread `json:"addresses" doc:"Empty when it was unknown."`
	Regions   Spread `json:"regions" doc:"unknown for a public address that the database does not know; empty for one that has no region, and without a database."`
	Clients   Spread `json:"clients"`
	Protocols Spread `json:"protocols"`
}

// Count is how many logins there were, and when.
type Count struct {
	Logins int       `json:"logins"`
	First  time.Time `json:"first,omitzero"`
	Last   time.Time `json:"last,omitzero"`
}

func (c *Count) add(at time.Time) {
	c.Logins++
	if c.First.IsZero() || at.Before(c.First) {
		c.First = at
	}
	if at.After(c.Last) {
		c.Last = at
	}
}

// Spread is how logins spread over the values of one kind.
type Spread struct {
	Distinct int    `json:"distinct" doc:"Different values; those behind the first 100 000 met are not told apart, and not counted here."`
	Items    []Part `json:"items" doc:"Most logins first; at most 1000."`
	Others   int    `json:"others" doc:"Logins of values that are not listed."`
}

// Part are the logins of one value.
type Part struct {
	Value   string `json:"value"`
	Label   string `json:"label,omitempty" doc:"Of a secure password, as it was last used."`
	Account string `json:"account,omitempty" doc:"Whose secure password it is."`
	Count
}

// Progress is how far a comparison is.
type Progress struct {
	Examined int       `json:"examined" doc:"Records looked at so far."`
	At       time.Time `json:"at" doc:"Time reached: from now backward."`
	Share    float64   `json:"share" doc:"Of the time asked for, 0 to 1."`
}

// Change is a change of a domain's rules by one policy.
type Change struct {
	Are   *access.Rules // the rules as they are
	Would *access.Rules // the rules as they would be
	// Others are the rules that the policy's doing is told from: those without it when it is made,
	// changed or only asked about, and those as they are when it is removed. A login that came in
	// before the policy was there counts.
	Others *access.Rules
}

// Compare holds the records of a domain from since until now, newest first, against a change of its
// rules. It tells how far it is at short intervals; an error of progress ends it.
func (h *History) Compare(ctx context.Context, domain string, since, now time.Time, change Change, progress func(Progress) error) (*Effect, error) {
	e := &Effect{Since: since}
	var refused, admitted tally
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
		}
		if e.Examined%progressEvery == 0 {
			share := float64(now.Sub(rec.Time)) / float64(now.Sub(since))
			stop = progress(Progress{e.Examined, rec.Time, min(max(share, 0), 1)})
		}
		return stop == nil
	})
	if err := cmp.Or(stop, err); err != nil {
		return nil, err
	}
	e.Refused, e.Admitted = refused.affected(), admitted.affected()
	return e, nil
}

// tally counts the logins that a change concerns.
type tally struct {
	Count
	accounts, devices, addresses, regions, clients, protocols values
}

func (t *tally) add(rec *store.LoginRecord, l *Login) {
	t.Count.add(rec.Time)
	t.accounts.add(Part{Value: l.Address}, rec.Time)
	t.devices.add(device(rec, l), rec.Time)
	t.addresses.add(Part{Value: rec.IP}, rec.Time)
	t.regions.add(Part{Value: access.ShownRegion(l.Region)}, rec.Time)
	t.clients.add(Part{Value: string(rec.Client)}, rec.Time)
	t.protocols.add(Part{Value: rec.Protocol}, rec.Time)
}

func (t *tally) affected() Affected {
	return Affected{
		Count: t.Count, Accounts: t.accounts.spread(), Devices: t.devices.spread(), Addresses: t.addresses.spread(),
		Regions: t.regions.spread(), Clients: t.clients.spread(), Protocols: t.protocols.spread(),
	}
}

// device names the secret that a login was made with.
func device(rec *store.LoginRecord, l *Login) Part {
	switch {
	case rec.CredentialID != "":
		return Part{Value: rec.CredentialID, Label: rec.Credential, Account: l.Address}
	case rec.MasterUser != "":
		return Part{Value: "master"}
	default:
		return Part{Value: store.CredentialMailbox}
	}
}

// values counts logins by the values of one kind, a bounded number of them.
type values struct {
	at    map[string]int // in parts
	parts []Part
	rest  int // logins of values that came too late to be told apart
}

func (v *values) add(p Part, at time.Time) {
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
		v.at[p.Value] = i
		v.parts = append(v.parts, p)
	}
	v.parts[i].add(at)
}

func (v *values) spread() Spread {
	s := Spread{Distinct: len(v.parts), Items: v.parts, Others: v.rest}
	slices.SortFunc(s.Items, func(a, b Part) int {
		return cmp.Or(cmp.Compare(b.Logins, a.Logins), cmp.Compare(a.Value, b.Value))
	})
	for _, p := range s.Items[min(len(s.Items), maxListed):] {
		s.Others += p.Logins
	}
	s.Items = append([]Part{}, s.Items[:min(len(s.Items), maxListed)]...) // [] when there are none, and the rest can go
	return s
}
