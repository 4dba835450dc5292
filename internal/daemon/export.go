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

// exportPart is the size of the parts that an export is written in, in bytes.
const exportPart = 256 << 10

// exportLogins returns what writes login records in the formats of recordtext.
func exportLogins(redis *redisstore.Redis) func(context.Context, store.RecordQuery, string, func(string, int64), func([]byte) error) error {
	host, _ := os.Hostname()
	host = cmp.Or(host, "-")
	return func(ctx context.Context, q store.RecordQuery, format string, begin func(string, int64), write func([]byte) error) error {
		format = cmp.Or(format, recordtext.JSONL)
		var b bytes.Buffer
		b.WriteString(recordtext.Header(format))
		err := redis.ExportRecords(ctx, q, format != recordtext.JSONL, func(total int64) { begin(recordtext.Types[format], total) },
			func(text []byte, r *store.LoginRecord) error {
				recordtext.Append(&b, format, host, text, r)
				if b.Len() < exportPart {
					return nil
				}
				defer b.Reset()
				return write(b.Bytes())
			})
		if err != nil {
			return err
		}
		return write(b.Bytes())
	}
}
