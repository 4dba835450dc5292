package redisstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/auditchain"
	"github.com/drawbridge/drawbridge/internal/store"
)

// auditLinks remembers the link of the last audit entry of each shard that this daemon wrote, so that
// most changes need not ask for it.
type auditLinks struct {
	mu sync.Mutex
	of [store.Shards]struct {
		n    uint64
		link string
	}
}

func (l *auditLinks) remember(s store.Shard, n uint64, link string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of[s].n, l.of[s].link = n, link
}

// auditLink returns the link that the audit entry after change n continues: that of the newest entry,
// "" if there is none or it is older than links. If the shard has moved on, the commit finds that out.
func (r *Redis) auditLink(ctx context.Context, s store.Shard, n uint64) (string, error) {
	r.links.mu.Lock()
	known := r.links.of[s]
	r.links.mu.Unlock()
	if known.n == n && n > 0 {
		return known.link, nil
	}
	last, err := r.client.XRevRangeN(ctx, tag(s)+"audit", "+", "-", 1).Result()
	if err != nil {
		return "", wrap(err)
	}
	if len(last) == 0 {
		return "", nil
	}
	link, _ := last[0].Values["l"].(string)
	return link, nil
}

// auditPage is how many audit entries are read at once.
const auditPage = 5000

// AuditEntries passes the audit entries of a shard to pass, oldest first, as they are stored. It
// returns the number of the last change that had been made when it began: there must be entries up to it.
func (r *Redis) AuditEntries(ctx context.Context, s store.Shard, pass func(n uint64, link string, entry []byte) error) (upTo uint64, err error) {
	h, _, err := r.head(ctx, s)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type page struct {
		list []redis.XMessage
		err  error
	}
	pages := make(chan page, 2) // Redis looks up the next entries while these are verified
	go func() {
		defer close(pages)
		for from := "-"; ; {
			list, err := r.client.XRangeN(ctx, tag(s)+"audit", from, "+", auditPage).Result()
			select {
			case pages <- page{list, err}:
			case <-ctx.Done():
				return
			}
			if err != nil || len(list) < auditPage {
				return
			}
			from = "(" + list[len(list)-1].ID
		}
	}()
	for p := range pages {
		if p.err != nil {
			return 0, wrap(p.err)
		}
		for _, m := range p.list {
			got, err := received(m)
			if err != nil {
				return 0, err
			}
			body, _ := m.Values["a"].(string)
			link, _ := m.Values["l"].(string)
			if err := pass(got.N, link, []byte(body)); err != nil {
				return 0, err
			}
		}
	}
	return h.N, wrap(ctx.Err())
}

// VerifyAudit verifies the chains of all shards, which must pass through the anchors that a text
// names; "" for none.
func (r *Redis) VerifyAudit(ctx context.Context, anchor string) (*store.AuditReport, error) {
	var anchors []auditchain.Anchor
	if anchor != "" {
		var err error
		if anchors, err = auditchain.ParseAnchors(anchor); err != nil {
			return nil, store.ErrBadAnchor
		}
	}
	report := &store.AuditReport{}
	for s := range store.Shard(store.Shards) {
		v := auditchain.Verifier{Shard: int(s), Anchors: anchors}
		upTo, err := r.AuditEntries(ctx, s, func(n uint64, link string, entry []byte) error {
			v.Add(n, link, entry)
			return nil
		})
		if err != nil {
			return nil, err
		}
		report.Add(v.End(upTo))
	}
	return report, nil
}

// AuditHeads returns the ends of the chains of the shards that have one, without verifying them.
func (r *Redis) AuditHeads(ctx context.Context) (heads []auditchain.Head, err error) {
	for s := range store.Shard(store.Shards) {
		last, err := r.client.XRevRangeN(ctx, tag(s)+"audit", "+", "-", 1).Result()
		if err != nil {
			return nil, wrap(err)
		}
		if len(last) == 0 {
			continue
		}
		got, err := received(last[0])
		if err != nil {
			return nil, err
		}
		link, _ := last[0].Values["l"].(string)
		heads = append(heads, auditchain.Head{Shard: int(s), N: got.N, Link: link})
	}
	return heads, nil
}

// AuditEntry returns an audit entry by its id, nil if there is none.
func (r *Redis) AuditEntry(ctx context.Context, id string) (*store.AuditEntry, error) {
	shard, n, _ := strings.Cut(id, "-")
	s, err1 := strconv.Atoi(shard)
	number, err2 := strconv.ParseUint(n, 10, 64)
	if err1 != nil || err2 != nil || s < 0 || s >= store.Shards {
		return nil, nil //nolint:nilerr // no id of ours: there is no such entry
	}
	at := strconv.FormatUint(number, 10) + "-0"
	found, err := r.client.XRange(ctx, tag(store.Shard(s))+"audit", at, at).Result()
	if err != nil || len(found) == 0 {
		return nil, wrap(err)
	}
	body, _ := found[0].Values["a"].(string)
	e := &store.AuditEntry{}
	if err := json.Unmarshal([]byte(body), e); err != nil {
		return nil, fmt.Errorf("audit entry %s: %w", id, err)
	}
	e.ID = id
	return e, nil
}
