package redisstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Messages returns message records, newest first. next is the cursor of the next page, "" at the
// end.
func (r *Redis) Messages(ctx context.Context, q store.MessageQuery) (items []mailflow.Record, next string, err error) {
	limit := min(max(q.Limit, 1), 1000)
	upper, lower := "+", "-"
	if !q.Since.IsZero() {
		lower = strconv.FormatInt(q.Since.UnixMilli(), 10)
	}
	if q.Cursor != "" {
		if !isStreamID(q.Cursor) {
			return nil, "", store.ErrBadCursor
		}
		upper = "(" + q.Cursor
	}
	for read := 0; read < scanned; {
		page, err := r.client.XRevRangeN(ctx, messagesKey(q.Domain), upper, lower, 500).Result()
		if err != nil {
			return nil, "", wrap(err)
		}
		for _, m := range page {
			next = m.ID
			var rec mailflow.Record
			body, _ := m.Values["r"].(string)
			if err := json.Unmarshal([]byte(body), &rec); err != nil {
				return nil, "", fmt.Errorf("message record %s: %w", m.ID, err)
			}
			if rec.Domain = q.Domain; !messageMatches(&rec, &q) {
				continue
			}
			if items = append(items, rec); len(items) == limit {
				return items, next, nil
			}
		}
		if len(page) < 500 {
			return items, "", nil
		}
		read += len(page)
		upper = "(" + next
	}
	return items, next, nil
}

func messageMatches(m *mailflow.Record, q *store.MessageQuery) bool {
	is := func(value, want string) bool { return want == "" || value == want }
	return (q.Account == "" || m.Has(q.Account)) && is(m.CredentialID, q.Credential) && is(m.QueueID, q.QueueID) && is(m.MessageID, q.MessageID) &&
		is(string(m.Verdict), q.Verdict) && is(m.Rule, q.Rule) &&
		(q.Since.IsZero() || !m.Time.Before(q.Since)) && (q.Until.IsZero() || !m.Time.After(q.Until))
}
