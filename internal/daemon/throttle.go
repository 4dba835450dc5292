package daemon

import (
	"net/netip"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/notify"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/throttle"
)

// viewThrottle shows what the gate holds back as the API does.
func viewThrottle(held []throttle.Held, distributed []throttle.Distributed) api.Throttle {
	var v api.Throttle
	for i := range held {
		h := &held[i]
		t := api.Throttled{
			Account: h.Account, Address: sourceText(h.Source), Reason: "wrong_secrets_per_account", WrongSecrets: h.Wrong,
			Since: h.Since.UTC(), Last: h.Last.UTC(), Until: h.Until.UTC(), Tried: h.Tried,
		}
		if h.Account == "" {
			t.Reason = "wrong_secrets_per_address"
		}
		for _, s := range h.From {
			t.From = append(t.From, sourceText(s))
		}
		v.Items = append(v.Items, t)
	}
	for _, d := range distributed {
		v.Distributed = append(v.Distributed, viewDistributed(d))
	}
	return v
}

// sourceText is an address, an IPv6 network, or "" for none.
func sourceText(p netip.Prefix) string {
	switch {
	case !p.IsValid():
		return ""
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}

func viewDistributed(d throttle.Distributed) api.DistributedGuessing {
	return api.DistributedGuessing{Domain: d.Domain, Addresses: d.Sources, Accounts: d.Accounts, Since: d.Since.UTC()}
}

// guessingNotice returns what tells the site's webhook that distributed guessing begins. Every daemon
// notices by itself, and tells.
func guessingNotice(n *notify.Notifier) func(throttle.Distributed) {
	return func(d throttle.Distributed) {
		n.Notify(&notify.Notice{ID: store.NewID(), Event: "distributed_guessing", Time: time.Now().UTC(), Domain: d.Domain, Data: viewDistributed(d)})
	}
}
