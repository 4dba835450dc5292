package main

import (
	"context"
	"fmt"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/gate"
	"github.com/drawbridge/drawbridge/internal/history"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// recordedLogins is how many records a preview is measured over.
const recordedLogins = 200_000

// benchPreview measures a preview over a real Redis, with the rules of the measured size: half of
// the logins were closed after they were recorded.
func benchPreview(ctx context.Context) error {
	g, end, err := newGate(ctx)
	if err != nil {
		return err
	}
	defer end()
	now := time.Now()
	if err := fillRecords(ctx, g.Journal, now); err != nil {
		return err
	}
	_, view := g.Store.State.View("@example.org")
	would := g.Store.State.Rules("example.org", now, func(set *access.Settings) {
		set.PutPolicy(&access.Policy{
			ID: "draft", Name: "draft", Type: access.Whitelist, Enabled: true, Mode: access.Enforce,
			Scope: access.Scope{All: true}, IPs: []string{"198.51.100.0/25"},
		})
	})
	h := &history.History{State: g.Store.State, Records: g.Journal.(*redisstore.Redis).Records}
	var rates []float64
	for range rounds {
		begin := time.Now()
		e, err := h.Compare(ctx, "example.org", now.Add(-time.Hour), now, history.Change{Are: view.Rules, Others: view.Rules, Would: would}, func(api.PreviewProgress) error { return nil })
		if err != nil {
			return err
		}
		if e.Examined != recordedLogins || e.Refused.Logins == 0 {
			return fmt.Errorf("examined %d of %d, %d refused", e.Examined, recordedLogins, e.Refused.Logins)
		}
		rates = append(rates, float64(e.Examined)/time.Since(begin).Seconds())
	}
	line(fmt.Sprintf("preview of a policy over %d recorded logins", recordedLogins),
		fmt.Sprintf("%.0f a second, %.1f million a minute", median(rates), median(rates)*60/1e6), "≥ 1 million a minute")
	return nil
}

// fillRecords records logins of all accounts from many addresses.
func fillRecords(ctx context.Context, j gate.Journal, now time.Time) error {
	const batch = 1000
	for done := 0; done < recordedLogins; done += batch {
		records := make([]store.LoginRecord, batch)
		var closings []store.Closing
		for i := range records {
			n := done + i
			r := &records[i]
			*r = store.LoginRecord{
				ID: fmt.Sprintf("%012x%016x", now.UnixMilli(), n), Time: now, Domain: "example.org", Account: account(n % accounts),
				IP: fmt.Sprintf("198.51.%d.%d", 100+n%2, n/2%256), Protocol: "imap", Service: "imap", Mechanism: "PLAIN", TLS: true,
				Client: access.ClientThirdParty, ClientID: "name=bench version=1", Session: fmt.Sprintf("session%d", n),
				CredentialID: fmt.Sprintf("%016x", n%accounts), Credential: "phone", Outcome: access.Allow, Reason: access.ReasonOK,
			}
			if n%2 == 0 {
				r.Outcome = access.Next
				closings = append(closings, store.Closing{Domain: r.Domain, ID: r.ID, Outcome: access.Allow, Reason: access.ReasonOK, Time: now})
			}
		}
		if err := j.AppendRecords(ctx, store.BatchID{}, &store.Batch{Records: records, Closings: closings}); err != nil {
			return err
		}
	}
	return nil
}
