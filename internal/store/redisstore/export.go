package redisstore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/store"
)

// exportPage is how many records are read at once.
const exportPage = 2000

// openOutcome marks a record whose end is stored apart.
var openOutcome = []byte(`"outcome":"next"`)

// ExportRecords passes login records to pass, oldest first: the JSON as it is stored, which is complete
// unless a login ended later, and then the record, too. With whole, every record is decoded. total is
// about how many records there are, before filters.
func (r *Redis) ExportRecords(ctx context.Context, q store.RecordQuery, whole bool, begin func(total int64), pass func(text []byte, rec *store.LoginRecord) error) error {
	var total int64
	for _, key := range []string{oldLoginsKey(q.Domain), loginsKey(q.Domain)} {
		n, err := r.client.XLen(ctx, key).Result()
		if err != nil {
			return wrap(err)
		}
		total += n
	}
	begin(total)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	lower := "-"
	if !q.Since.IsZero() {
		lower = strconv.FormatInt(q.Since.UnixMilli(), 10)
	}
	filtered := q.Filtered()
	type batch struct {
		texts   [][]byte
		records []*store.LoginRecord // nil where the text is the record
		err     error
	}
	pages, batches := make(chan []redis.XMessage, 1), make(chan batch, 1)
	failed := make(chan error, 1)
	go func() { // reads
		defer close(pages)
		for {
			list, err := r.oldest(ctx, oldLoginsKey(q.Domain), loginsKey(q.Domain), lower, exportPage)
			if err != nil {
				failed <- err
				return
			}
			select {
			case pages <- list:
			case <-ctx.Done():
				return
			}
			if len(list) < exportPage {
				return
			}
			lower = "(" + list[len(list)-1].ID
		}
	}()
	go func() { // decodes what has to be
		defer close(batches)
		for list := range pages {
			var b batch
			b.texts, b.records, b.err = r.exported(ctx, &q, list, whole || filtered)
			select {
			case batches <- b:
			case <-ctx.Done():
				return
			}
		}
	}()
	for b := range batches {
		if b.err != nil {
			return b.err
		}
		for i := range b.texts {
			if err := pass(b.texts[i], b.records[i]); err != nil {
				return err
			}
		}
	}
	select {
	case err := <-failed:
		return err
	default:
		return wrap(ctx.Err())
	}
}

// exported returns the texts of a page's records that match, with the records that were decoded.
func (r *Redis) exported(ctx context.Context, q *store.RecordQuery, list []redis.XMessage, decode bool) (texts [][]byte, records []*store.LoginRecord, err error) {
	var open []redis.XMessage
	at := make([]int, len(list)) // in open
	bodies := make([][]byte, len(list))
	for i, m := range list {
		text, _ := m.Values["r"].(string)
		bodies[i], at[i] = []byte(text), -1
		if bytes.Contains(bodies[i], openOutcome) {
			at[i] = len(open)
			open = append(open, m)
		}
	}
	ended, err := r.closed(ctx, q.Domain, open)
	if err != nil {
		return nil, nil, err
	}
	for i := range list {
		var rec *store.LoginRecord
		switch {
		case at[i] >= 0:
			rec = &ended[at[i]]
			if bodies[i], err = json.Marshal(rec); err != nil {
				return nil, nil, fmt.Errorf("encoding a login record: %w", err)
			}
		case decode:
			rec = &store.LoginRecord{}
			if err := decodeRecord(list[i], rec); err != nil {
				return nil, nil, err
			}
		}
		if rec != nil && !matches(rec, q) {
			continue
		}
		texts, records = append(texts, bodies[i]), append(records, rec)
	}
	return texts, records, nil
}
