// Package unusual marks logins that are unusual for their account, and notifies the account once.
//
// It works behind the decisions: a login does not wait for it. What is usual for an account (see
// [habit.Memory]) is in the store, so that all daemons know the same; a daemon reads it with a batch of
// records and writes it once the batch is stored. Two daemons that do so at the same moment may lose
// what one of them learned: the trait is then learned at the next login.
package unusual

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/habit"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Memories are where the store keeps what is usual, packed, by account.
type Memories interface {
	Habits(ctx context.Context, accounts []string) (map[string][]byte, error)
	PutHabits(ctx context.Context, packed map[string][]byte) error
}

// Watcher judges logins that succeeded. All fields are needed but Notify. A nil Watcher marks and
// stores nothing.
type Watcher struct {
	Memories Memories
	Log      hclog.Logger
	// Place says where an address is; nil if no database knows. Network names the network of an
	// address; nil for none.
	Place   func(netip.Addr) (habit.Place, bool)
	Network func(netip.Addr) string
	// Notify sends a notice; nil for none.
	Notify func(*notify.Notice)
}

// success is a login that succeeded: a record, or how one ended that the next passdb decided.
type success struct {
	login    *store.LoginRecord
	abnormal *access.Marks
	note     *string
}

// Examine marks the records and closings of logins that are unusual. The function that it returns
// stores what was learned and sends notices; it is called once the records are stored.
func (w *Watcher) Examine(ctx context.Context, records []store.LoginRecord, closings []store.Closing) (learned func(context.Context)) {
	if w == nil {
		return nil
	}
	var list []success
	for i := range records {
		if r := &records[i]; r.Outcome == access.Allow && judged(r) {
			list = append(list, success{r, &r.Abnormal, &r.Note})
		}
	}
	for i := range closings {
		if c := &closings[i]; c.Outcome == access.Allow && c.Login != nil && judged(c.Login) {
			list = append(list, success{c.Login, &c.Abnormal, &c.Note})
		}
	}
	if len(list) == 0 {
		return nil
	}
	accounts := make([]string, 0, len(list))
	memories := make(map[string]*habit.Memory, len(list))
	for _, s := range list {
		if _, ok := memories[s.login.Account]; !ok {
			memories[s.login.Account] = &habit.Memory{}
			accounts = append(accounts, s.login.Account)
		}
	}
	packed, err := w.Memories.Habits(ctx, accounts)
	if err != nil {
		w.Log.Debug("reading the usual logins of accounts", "error", err)
		return nil // the records will not be stored either, and are examined again
	}
	for account, b := range packed {
		if m, ok := habit.Parse(b); ok {
			*memories[account] = m
		}
	}
	var notices []*notify.Notice
	for _, s := range list {
		f := memories[s.login.Account].Judge(Login(s.login), w.Place)
		*s.abnormal = nil
		for _, k := range f.Kinds {
			*s.abnormal = append(*s.abnormal, string(k))
		}
		if f.Doubt != "" && !strings.Contains(*s.note, f.Doubt) {
			*s.note = strings.TrimPrefix(*s.note+"; "+f.Doubt, "; ")
		}
		if f.Fresh && len(f.Kinds) > 0 {
			notices = append(notices, w.notice(s.login, &f))
		}
	}
	return func(ctx context.Context) {
		fresh := make(map[string][]byte, len(memories))
		for account, m := range memories {
			fresh[account] = m.Pack()
		}
		if err := w.Memories.PutHabits(ctx, fresh); err != nil {
			w.Log.Debug("writing the usual logins of accounts", "error", err)
		}
		for _, n := range notices {
			w.Log.Info("abnormal login", "account", n.Account, "ip", n.Data.(*Event).Login.IP, "abnormal", n.Data.(*Event).Abnormal)
			if w.Notify != nil {
				w.Notify(n)
			}
		}
	}
}

// judged reports whether a login is one of the account's own: a master's is not, and neither is one
// without an address.
func judged(r *store.LoginRecord) bool { return r.Domain != "" && r.MasterUser == "" && r.IP != "" }

// Login returns a login record as a habit.
func Login(r *store.LoginRecord) *habit.Login {
	l := &habit.Login{
		Time: r.Time, IP: address.IPOf(r.IP), Region: r.Region, Device: cmp.Or(r.CredentialID, r.ClientID), Client: string(r.Client) + " " + r.Protocol,
	}
	l.Network, _, _ = strings.Cut(r.Network, " ") // organizations change their names
	if l.Region == access.RegionUnknown {
		l.Region = ""
	}
	return l
}

// Confirm learns that a recorded login was the user's.
func (w *Watcher) Confirm(ctx context.Context, r *store.LoginRecord) error {
	if w == nil {
		return nil
	}
	packed, err := w.Memories.Habits(ctx, []string{r.Account})
	if err != nil {
		return err
	}
	m, _ := habit.Parse(packed[r.Account])
	m.Confirm(Login(r))
	return w.Memories.PutHabits(ctx, map[string][]byte{r.Account: m.Pack()})
}

// Event is what the webhook receives of an abnormal login.
type Event struct {
	Abnormal []string           `json:"abnormal"`
	Doubt    string             `json:"doubt,omitempty"`
	Login    *store.LoginRecord `json:"login"`
	Previous *Previous          `json:"previous"` // null for none
}

// Previous is the login before.
type Previous struct {
	Time    time.Time `json:"time"`
	IP      string    `json:"ip"`
	Region  string    `json:"region,omitempty"`
	Network string    `json:"network,omitempty"`
}

var words = map[habit.Kind]string{
	habit.NewNetwork: "from a network that you have not used before", habit.NewRegion: "from another country",
	habit.NewDevice: "with another device or password", habit.NewClient: "with another kind of program",
	habit.UnusualHour: "at an unusual hour", habit.ImpossibleTravel: "soon after a login from far away",
}

// notice composes the notice to the user, with the login before.
func (w *Watcher) notice(r *store.LoginRecord, f *habit.Finding) *notify.Notice {
	rec := *r
	e := &Event{Doubt: f.Doubt, Login: &rec}
	var b strings.Builder
	fmt.Fprintf(&b, "Somebody logged in to %s:\n\n", r.Account)
	for _, k := range f.Kinds {
		e.Abnormal = append(e.Abnormal, string(k))
		fmt.Fprintf(&b, "  - %s\n", words[k])
	}
	place := func(ip, region, network string) string {
		if region == access.RegionUnknown {
			region = ""
		}
		if where := strings.Trim(region+", "+network, ", "); where != "" {
			return ip + " (" + where + ")"
		}
		return ip
	}
	fmt.Fprintf(&b, "\nTime:     %s\nAddress:  %s\nProtocol: %s, client type %s\n", stamp(r.Time), place(r.IP, r.Region, r.Network), r.Protocol, r.Client)
	if device := cmp.Or(r.Credential, r.ClientID); device != "" {
		fmt.Fprintf(&b, "Device:   %s\n", device)
	}
	if f.Doubt != "" {
		fmt.Fprintf(&b, "\nThis login came %s.\n", f.Doubt)
	}
	if p := f.Previous; !p.Time.IsZero() {
		e.Previous = &Previous{Time: p.Time, IP: address.IPText(p.IP), Region: p.Region}
		if w.Network != nil {
			e.Previous.Network = w.Network(p.IP)
		}
		fmt.Fprintf(&b, "\nThe login before was at %s from %s.\n", stamp(p.Time), place(e.Previous.IP, p.Region, e.Previous.Network))
	}
	if f.Last {
		b.WriteString("\nNo further messages about logins are sent today: the list of your logins has them.\n")
	}
	fmt.Fprintf(&b, "\nIf it was you, nothing needs to be done. If not, change your password and tell your administrator:\nlogin %s.\n", r.ID)
	rec.Abnormal = e.Abnormal
	return &notify.Notice{
		ID: store.NewID(), Event: "abnormal_login", Time: time.Now().UTC(), Domain: r.Domain, Account: r.Account, Data: e,
		Subject: "New login to " + r.Account, Text: b.String(),
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
