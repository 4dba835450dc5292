package redisstore

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/mailflow"
	"github.com/drawbridge/drawbridge/internal/pseudonym"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Streams cannot be altered: pseudonymised records are moved to a stream of their own, under the
// same ids. All of it is older than all of the other.
func oldLoginsKey(domain string) string { return tag(store.ShardOf(domain)) + "oldlogins:" + domain }

func oldMessagesKey(domain string) string {
	return tag(store.ShardOf(domain)) + "oldmessages:" + domain
}

// move moves records that are still there, each in its new form. KEYS: from, to. ARGV: id, JSON, ….
// Redis refuses the command before it begins, or a record is added before it is deleted.
var move = redis.NewScript(`
for i = 1, #ARGV, 2 do
  if #redis.call('XRANGE', KEYS[1], ARGV[i], ARGV[i]) > 0 then
    redis.call('XADD', KEYS[2], ARGV[i], 'r', ARGV[i + 1])
    redis.call('XDEL', KEYS[1], ARGV[i])
  end
end
return 'OK'`)

// Pseudonymise replaces addresses and client names in the records of a domain that were written
// before a time. Several daemons may do so at the same time.
func (r *Redis) Pseudonymise(ctx context.Context, domain string, before time.Time, h pseudonym.Hash) error {
	login := func(text []byte) ([]byte, error) {
		var rec store.LoginRecord
		if err := json.Unmarshal(text, &rec); err != nil {
			return nil, fmt.Errorf("login record: %w", err)
		}
		h.Login(domain, &rec)
		return json.Marshal(&rec)
	}
	message := func(text []byte) ([]byte, error) {
		var rec mailflow.Record
		if err := json.Unmarshal(text, &rec); err != nil {
			return nil, fmt.Errorf("message record: %w", err)
		}
		h.Message(domain, &rec)
		return json.Marshal(&rec)
	}
	if err := r.moveOld(ctx, loginsKey(domain), oldLoginsKey(domain), before, login); err != nil {
		return err
	}
	return r.moveOld(ctx, messagesKey(domain), oldMessagesKey(domain), before, message)
}

func (r *Redis) moveOld(ctx context.Context, from, to string, before time.Time, replace func([]byte) ([]byte, error)) error {
	const page = 500
	upper := "(" + strconv.FormatInt(before.UnixMilli(), 10)
	for {
		list, err := r.client.XRangeN(ctx, from, "-", upper, page).Result()
		if err != nil {
			return wrap(err)
		}
		args := make([]any, 0, 2*len(list))
		for _, m := range list {
			text, _ := m.Values["r"].(string)
			body, err := replace([]byte(text))
			if err != nil {
				return fmt.Errorf("pseudonymising %s: %w", m.ID, err)
			}
			args = append(args, m.ID, body)
		}
		if len(list) == 0 {
			return nil
		}
		if err := move.Run(ctx, r.client, []string{from, to}, args...).Err(); err != nil {
			return wrap(err)
		}
		if len(list) < page {
			return nil
		}
	}
}

// oldest reads the next entries behind a place of two streams of which one is older, at one moment:
// records may be moved from one to the other meanwhile.
func (r *Redis) oldest(ctx context.Context, older, newer, lower string, n int64) ([]redis.XMessage, error) {
	var lists [2]*redis.XMessageSliceCmd
	_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		lists[0], lists[1] = p.XRangeN(ctx, older, lower, "+", n), p.XRangeN(ctx, newer, lower, "+", n)
		return nil
	})
	if err != nil {
		return nil, wrap(err)
	}
	return append(lists[0].Val(), lists[1].Val()...), nil
}
