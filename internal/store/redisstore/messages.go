package redisstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Messages returns message records, newest first. next is the cursor of the next page, "" at the
// end.
func (r *Redis) Messages(ctx context.Context, q store.MessageQuery) (items []mailflow.Record, next string, err error) {
	decode := func(page []redis.XMessage) ([]mailflow.Record, error) {
		batch := make([]mailflow.Record, len(page))
		for i, m := range page {
			body, _ := m.Values["r"].(string)
			if err := json.Unmarshal([]byte(body), &batch[i]); err != nil {
				return nil, fmt.Errorf("message record %s: %w", m.ID, err)
			}
			batch[i].Domain = q.Domain
		}
		return batch, nil
	}
	return search(ctx, r, []string{messagesKey(q.Domain), oldMessagesKey(q.Domain)}, window{q.Since, q.Cursor, q.Limit}, decode, func(m *mailflow.Record) bool { return messageMatches(m, &q) })
}

func messageMatches(m *mailflow.Record, q *store.MessageQuery) bool {
	is := func(value, want string) bool { return want == "" || value == want }
	return (q.Account == "" || m.Has(q.Account)) && (q.Credential == "" || m.MayBeOf(q.Credential)) && is(m.QueueID, q.QueueID) && is(m.MessageID, q.MessageID) &&
		is(string(m.Verdict), q.Verdict) && is(m.Rule, q.Rule) &&
		(q.Since.IsZero() || !m.Time.Before(q.Since)) && (q.Until.IsZero() || !m.Time.After(q.Until))
}
