package redisstore_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/pseudonym"
	"github.com/drawbridge/drawbridge/internal/redistest"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// Old records are found, paged through, exported, looked up and deleted as if they had stayed where
// they were, and two daemons that pseudonymise at once neither lose nor repeat one.
func TestPseudonymise(t *testing.T) {
	const domain = "example.org"
	ctx := t.Context()
	_, log := redistest.NewStore(t, redistest.Start(t).Options())
	pepper, err := credential.CreatePepper(filepath.Join(t.TempDir(), "pepper"))
	if err != nil {
		t.Fatal(err)
	}
	h := pseudonym.Hash(pepper.Pseudonym)
	var ids []string
	add := func(batch uint64, n int) {
		t.Helper()
		b := store.Batch{Messages: []mailflow.Record{{ID: store.NewID(), Time: time.Now(), Domain: domain, IP: "203.0.113.9", Account: "ann@example.org"}}}
		for i := range n {
			now := time.Now()
			r := store.LoginRecord{
				ID: fmt.Sprintf("%012x%04x", now.UnixMilli(), len(ids)), Time: now, Domain: domain, Account: "ann@example.org", IP: fmt.Sprintf("203.0.113.%d", 9+i%2), Session: "x", ClientID: "phone", Protocol: "imap", Outcome: access.Allow,
			}
			b.Records, ids = append(b.Records, r), append(ids, r.ID)
		}
		if err := log.AppendRecords(ctx, store.BatchID{Origin: "test", N: batch}, &b); err != nil {
			t.Fatal(err)
		}
	}
	all := func(q store.RecordQuery) (found []store.LoginRecord) {
		t.Helper()
		q.Domain = domain
		for {
			page, next, err := log.Records(ctx, q)
			if err != nil {
				t.Fatal(err)
			}
			if found = append(found, page...); next == "" {
				return found
			}
			q.Cursor = next
		}
	}
	add(1, 1200)
	var daemons sync.WaitGroup
	for range 2 {
		daemons.Go(func() {
			if err := log.Pseudonymise(ctx, domain, time.Now().Add(time.Hour), h); err != nil {
				t.Error(err)
			}
		})
	}
	daemons.Wait()
	add(2, 10)

	found := all(store.RecordQuery{Limit: 7})
	order := make([]string, len(found))
	for i := range found {
		order[len(found)-1-i] = found[i].ID
	}
	if !slices.Equal(order, ids) {
		t.Fatalf("%d records are found of %d, or in another order", len(order), len(ids))
	}
	if r := found[len(found)-1]; !r.Pseudonymised || r.Session != "" || !strings.HasPrefix(r.IP, "ip-") || !strings.HasPrefix(r.ClientID, "client-") {
		t.Errorf("the oldest record is %+v", r)
	}
	if r := found[0]; r.Pseudonymised || r.IP != "203.0.113.10" {
		t.Errorf("the newest record is %+v", r)
	}
	network := netip.MustParsePrefix("203.0.113.0/24")
	for what, q := range map[string]struct {
		q    store.RecordQuery
		want int
	}{
		"address":               {store.RecordQuery{Limit: 1000, IP: "203.0.113.9", Hidden: store.Hidden{IP: h.Address(domain, "203.0.113.9")}}, 605},
		"pseudonym":             {store.RecordQuery{Limit: 1000, IP: h.Address(domain, "203.0.113.9")}, 600},
		"network":               {store.RecordQuery{Limit: 1000, Network: network, Hidden: store.Hidden{Network: h.Network(domain, network)}}, 1210},
		"network without a key": {store.RecordQuery{Limit: 1000, Network: network}, 10},
		"device":                {store.RecordQuery{Limit: 1000, Device: "phone", Hidden: store.Hidden{Device: h.Client(domain, "phone")}}, 1210},
	} {
		if n := len(all(q.q)); n != q.want {
			t.Errorf("%d records by %s, not %d", n, what, q.want)
		}
	}
	for _, id := range []string{ids[0], ids[1205]} {
		if r, err := log.Record(ctx, domain, id); err != nil || r.ID != id {
			t.Errorf("record %s: %+v %v", id, r, err)
		}
	}
	var exported []string
	err = log.ExportRecords(ctx, store.RecordQuery{Domain: domain}, &redisstore.Export{
		Begin: func(total int64) {
			if total != 1210 {
				t.Errorf("the export has %d records", total)
			}
		},
		Append: func(part *bytes.Buffer, text string, r *store.LoginRecord) {
			if r.Pseudonymised == strings.Contains(text, "203.0.113") {
				t.Errorf("exported %s", text)
			}
			part.WriteString(r.ID + " ")
		},
		Decode: true,
		Write: func(part []byte) error {
			exported = append(exported, strings.Fields(string(part))...)
			return nil
		},
	})
	if err != nil || !slices.Equal(exported, ids) {
		t.Errorf("%d records are exported: %v", len(exported), err)
	}
	messages, _, err := log.Messages(ctx, store.MessageQuery{Domain: domain, Limit: 10})
	if err != nil || len(messages) != 2 || messages[0].IP != "203.0.113.9" || messages[1].IP != h.Address(domain, "203.0.113.9") {
		t.Errorf("messages: %+v %v", messages, err)
	}

	left := func() int {
		items, _, err := log.Messages(ctx, store.MessageQuery{Domain: domain, Limit: 10})
		if err != nil {
			t.Error(err)
		}
		return len(items)
	}
	if err := log.Expire(ctx, domain, time.Now().Add(2*time.Hour), 3*time.Hour); err != nil || left() != 2 || len(all(store.RecordQuery{Limit: 1000})) != len(ids) {
		t.Errorf("records younger than the retention are deleted: %v", err)
	}
	if err := log.Expire(ctx, domain, time.Now().Add(2*time.Hour), time.Hour); err != nil || left() != 0 || len(all(store.RecordQuery{Limit: 1000})) != 0 {
		t.Errorf("records older than the domain's retention are left: %v", err)
	}
	if _, err := log.Record(ctx, domain, ids[0]); !errors.Is(err, store.ErrNoRecord) {
		t.Errorf("a deleted record: %v", err)
	}
	add(3, 2)
	if err := log.Pseudonymise(ctx, domain, time.Now().Add(time.Hour), h); err != nil {
		t.Fatal(err)
	}
	if err := log.Forget(ctx, domain, nil); err != nil || len(all(store.RecordQuery{Limit: 10})) != 0 {
		t.Errorf("a deleted domain keeps pseudonymised records: %v", err)
	}
}
