package redisstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/store"
)

// exportPageSize is how many records are read at once.
const exportPageSize = 2000

// openOutcome marks a record whose end is stored apart.
const openOutcome = `"outcome":"next"`

// Export is what an export of login records does with them.
type Export struct {
	Begin  func(total int64) // receives the approximate number of records, before filters
	Header string            // is written first
	// Append writes a record at the end of a part. It is called for several parts at once, and keeps
	// neither of text, the JSON of the record, and r, which is nil unless Decode or the query wants
	// records decoded.
	Append func(part *bytes.Buffer, text string, r *store.LoginRecord)
	Decode bool
	Write  func(part []byte) error // is given the parts in order
}

// exportWorkers bounds the parts of an export that are written at once, so that logins have the
// other processors.
const exportWorkers = 4

// ExportRecords writes login records, oldest first, in parts of a page of the stream each.
func (r *Redis) ExportRecords(ctx context.Context, q store.RecordQuery, e *Export) error {
	var total int64
	for _, key := range []string{oldLoginsKey(q.Domain), loginsKey(q.Domain)} {
		n, err := r.client.XLen(ctx, key).Result()
		if err != nil {
			return wrap(err)
		}
		total += n
	}
	e.Begin(total)
	if err := e.Write([]byte(e.Header)); err != nil {
		return err
	}
	type part struct {
		text *bytes.Buffer
		err  error
	}
	parts := make(chan chan part, min(exportWorkers, max(1, runtime.GOMAXPROCS(0)/2)))
	buffers := sync.Pool{New: func() any { return new(bytes.Buffer) }}
	ctx, cancel := context.WithCancel(ctx)
	var writers sync.WaitGroup
	defer writers.Wait()
	defer cancel()
	decode := e.Decode || q.Filtered()
	writers.Go(func() {
		defer close(parts)
		lower := "-"
		if !q.Since.IsZero() {
			lower = strconv.FormatInt(q.Since.UnixMilli(), 10)
		}
		for more := true; more; {
			page, err := r.oldest(ctx, oldLoginsKey(q.Domain), loginsKey(q.Domain), lower, exportPageSize)
			if more = err == nil && len(page) >= exportPageSize; more {
				lower = "(" + page[len(page)-1].ID
			}
			done := make(chan part, 1)
			select {
			case parts <- done:
			case <-ctx.Done():
				return
			}
			if err != nil {
				done <- part{err: err}
				return
			}
			writers.Go(func() {
				p := part{text: buffers.Get().(*bytes.Buffer)} //nolint:forcetypeassert // of New
				p.text.Reset()
				p.err = r.exportPage(ctx, &q, page, decode, func(text string, rec *store.LoginRecord) { e.Append(p.text, text, rec) })
				done <- p
			})
		}
	})
	for done := range parts {
		p := <-done
		if p.err != nil {
			return p.err
		}
		if err := e.Write(p.text.Bytes()); err != nil {
			return err
		}
		buffers.Put(p.text)
	}
	return wrap(ctx.Err())
}

// exportPage passes the records of a page that match.
func (r *Redis) exportPage(ctx context.Context, q *store.RecordQuery, page []redis.XMessage, decode bool, pass func(text string, rec *store.LoginRecord)) error {
	var open []redis.XMessage
	for _, m := range page {
		if text, _ := m.Values["r"].(string); strings.Contains(text, openOutcome) {
			open = append(open, m)
		}
	}
	ended, err := r.closed(ctx, q.Domain, open)
	if err != nil {
		return err
	}
	var one store.LoginRecord
	for _, m := range page {
		text, _ := m.Values["r"].(string)
		var rec *store.LoginRecord
		switch {
		case len(open) > 0 && open[0].ID == m.ID:
			rec = &ended[0]
			open, ended = open[1:], ended[1:]
			whole, err := json.Marshal(rec)
			if err != nil {
				return fmt.Errorf("encoding a login record: %w", err)
			}
			text = string(whole)
		case decode:
			rec = &one
			if err := decodeRecord(m, rec); err != nil {
				return err
			}
		}
		if rec == nil || matches(rec, q) {
			pass(text, rec)
		}
	}
	return nil
}
