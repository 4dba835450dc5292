package redisstore

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/store"
)

// keyUsesKey is a hash of the ids of API keys and when each was last used, in seconds since 1970. The
// field began is when that was recorded first.
func keyUsesKey() string { return tag(store.Global) + "keyuses" }

const keyUsesBegan = "began"

// useEvery is how often uses of keys are written: their times are that exact.
const useEvery = time.Minute

// KeyUses collects when API keys are used, and writes it to Redis from time to time. It is safe for
// concurrent use.
type KeyUses struct {
	redis *Redis
	mu    sync.Mutex
	used  map[string]time.Time // not written yet
}

// KeyUses returns what collects uses of keys for this store.
func (r *Redis) KeyUses() *KeyUses { return &KeyUses{redis: r, used: map[string]time.Time{}} }

// Used notes that a key was used. It does not wait for Redis.
func (u *KeyUses) Used(id string, now time.Time) {
	u.mu.Lock()
	u.used[id] = now
	u.mu.Unlock()
}

// Run writes uses until ctx ends, and once more then. Uses that cannot be written are tried again.
func (u *KeyUses) Run(ctx context.Context) {
	tick := time.NewTicker(useEvery)
	defer tick.Stop()
	for u.Write(ctx); ; u.Write(ctx) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			defer cancel()
			u.Write(last)
			return
		}
	}
}

var latest = redis.NewScript(`
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
for i = 3, #ARGV, 2 do
  local last = redis.call('HGET', KEYS[1], ARGV[i])
  if not last or tonumber(last) < tonumber(ARGV[i + 1]) then redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1]) end
end
return 1`)

// Write writes the uses that were noted, now.
func (u *KeyUses) Write(ctx context.Context) {
	u.mu.Lock()
	used := u.used
	u.used = map[string]time.Time{}
	u.mu.Unlock()
	args := []any{keyUsesBegan, time.Now().Unix()}
	for id, at := range used {
		args = append(args, id, at.Unix())
	}
	if err := latest.Run(ctx, u.redis.client, []string{keyUsesKey()}, args...).Err(); err == nil {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, at := range used {
		if u.used[id].Before(at) {
			u.used[id] = at
		}
	}
}

// List returns when each key was last used, those not written yet included, and since when that is
// recorded.
func (u *KeyUses) List(ctx context.Context) (uses map[string]time.Time, began time.Time, err error) {
	fields, err := u.redis.client.HGetAll(ctx, keyUsesKey()).Result()
	if err != nil {
		return nil, time.Time{}, wrap(err)
	}
	uses = make(map[string]time.Time, len(fields))
	for id, text := range fields {
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			uses[id] = time.Unix(n, 0).UTC()
		}
	}
	began = uses[keyUsesBegan]
	delete(uses, keyUsesBegan)
	u.mu.Lock()
	defer u.mu.Unlock()
	for id, at := range u.used {
		if at = at.UTC().Truncate(time.Second); uses[id].Before(at) {
			uses[id] = at
		}
	}
	return uses, began, nil
}

// Forget forgets keys that were deleted.
func (u *KeyUses) Forget(ctx context.Context, ids ...string) error {
	u.mu.Lock()
	for _, id := range ids {
		delete(u.used, id)
	}
	u.mu.Unlock()
	return wrap(u.redis.client.HDel(ctx, keyUsesKey(), ids...).Err())
}
