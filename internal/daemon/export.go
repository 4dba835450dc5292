package daemon

import (
	"bytes"
	"cmp"
	"context"
	"os"

	"github.com/drawbridge/drawbridge/internal/recordtext"
	"github.com/drawbridge/drawbridge/internal/store"
	"github.com/drawbridge/drawbridge/internal/store/redisstore"
)

// exportLogins returns what writes login records in the formats of recordtext.
func exportLogins(redis *redisstore.Redis) func(context.Context, store.RecordQuery, string, func(string, int64), func([]byte) error) error {
	host, _ := os.Hostname()
	host = cmp.Or(host, "-")
	return func(ctx context.Context, q store.RecordQuery, format string, begin func(string, int64), write func([]byte) error) error {
		format = cmp.Or(format, recordtext.JSONL)
		return redis.ExportRecords(ctx, q, &redisstore.Export{
			Begin:  func(total int64) { begin(recordtext.Types[format], total) },
			Header: recordtext.Header(format),
			Append: func(part *bytes.Buffer, text string, r *store.LoginRecord) {
				recordtext.Append(part, format, host, text, r)
			},
			Decode: format != recordtext.JSONL,
			Write:  write,
		})
	}
}
