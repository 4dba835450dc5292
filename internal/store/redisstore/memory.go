package redisstore

import (
	"context"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/store"
)

// memoryKey is the key of values that all daemons share for a short time. They lie beside the
// documents of a domain's shard and are not part of a backup.
func memoryKey(domain, name string) string {
	s := store.Global
	if domain != "" {
		s = store.ShardOf(domain)
	}
	return tag(s) + "memory:" + domain + ":" + name
}

var count = redis.NewScript(`
if ARGV[1] == '0' then return tonumber(redis.call('GET', KEYS[1]) or 0) end
local n = redis.call('INCRBY', KEYS[1], ARGV[1])
if redis.call('PTTL', KEYS[1]) < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return n`)

// Count adds to a counter of a domain, "" for the site, and returns its value. The counter is
// forgotten a window after its first use. To add 0 only reads it.
func (r *Redis) Count(ctx context.Context, domain, name string, by int, window time.Duration) (int, error) {
	n, err := count.Run(ctx, r.client, []string{memoryKey(domain, name)}, by, window.Milliseconds()).Int()
	return n, wrap(err)
}

var advance = redis.NewScript(`
local last = redis.call('GET', KEYS[1])
if last and tonumber(ARGV[1]) <= tonumber(last) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// Advance remembers a number for a time, if it is larger than the one that is remembered, and
// reports whether it was: of several daemons with the same number, one.
func (r *Redis) Advance(ctx context.Context, domain, name string, to int64, keep time.Duration) (bool, error) {
	n, err := advance.Run(ctx, r.client, []string{memoryKey(domain, name)}, to, keep.Milliseconds()).Int()
	return n == 1, wrap(err)
}

var lease = redis.NewScript(`
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1`)

// Lease gives something to a holder for a time, or prolongs that, and reports whether the holder has
// it: of several daemons, one. [Redis.TakeKept] gives it back.
func (r *Redis) Lease(ctx context.Context, domain, name, holder string, keep time.Duration) (bool, error) {
	n, err := lease.Run(ctx, r.client, []string{memoryKey(domain, name)}, holder, keep.Milliseconds()).Int()
	return n == 1, wrap(err)
}

// Keep remembers a value for a time.
func (r *Redis) Keep(ctx context.Context, domain, name string, value []byte, keep time.Duration) error {
	return wrap(r.client.Set(ctx, memoryKey(domain, name), value, keep).Err())
}

var takeKept = redis.NewScript(`
local v = redis.call('GET', KEYS[1])
if not v or ARGV[1] ~= '' and v ~= ARGV[1] then return false end
redis.call('DEL', KEYS[1])
return v`)

// TakeKept returns and forgets a value; nil if there is none, or if it is not the one that is wanted.
func (r *Redis) TakeKept(ctx context.Context, domain, name string, want []byte) ([]byte, error) {
	v, err := takeKept.Run(ctx, r.client, []string{memoryKey(domain, name)}, want).Text()
	if err == redis.Nil { //nolint:errorlint // as go-redis returns it
		return nil, nil
	}
	if err != nil {
		return nil, wrap(err)
	}
	return []byte(v), nil
}
