package redisstore

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/store"
)

// keepTaken is how long a repeated call is recognised.
const keepTaken = 15 * time.Minute

// take takes from buckets by the generic cell rate algorithm: of each it knows when it will be full
// again, by the server's clock, in microseconds. It returns the number of the first bucket that has
// not enough, and takes nothing then; else 0, and what is missing from each bucket now. KEYS: the
// call's id, buckets. ARGV: 1 to take in any case, seconds to remember the call, age of the call in
// microseconds, then for each bucket amount, size, microseconds to refill, and what must be there
// besides the amount.
var take = redis.NewScript(`
if redis.call('EXISTS', KEYS[1]) == 1 then return {0} end
local t = redis.call('TIME')
local now, full = t[1] * 1000000 + t[2], {}
for i = 2, #KEYS do
  local n, size, per, besides = tonumber(ARGV[4 * i - 4]), tonumber(ARGV[4 * i - 3]), tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
  local at = tonumber(redis.call('GET', KEYS[i]) or 0)
  at = math.min(math.max(at, now - ARGV[3]), now + 2 * per) + n * per / size
  if n > 0 and ARGV[1] == '0' and at + besides * per / size - now > per + 1 then return {i - 1} end
  full[i] = math.min(at, now + 2 * per)
end
local used = {0}
for i = 2, #KEYS do
  used[i] = math.ceil(math.max(full[i] - now, 0) * ARGV[4 * i - 3] / ARGV[4 * i - 2])
  if full[i] > now then
    redis.call('SET', KEYS[i], string.format('%.0f', full[i]), 'PX', math.ceil((full[i] - now) / 1000))
  else
    redis.call('DEL', KEYS[i])
  end
end
redis.call('SET', KEYS[1], 1, 'EX', ARGV[2])
return used`)

// Take takes from all buckets of a domain. If one has not enough, short is its index and nothing is
// taken; else short is -1. Repeated with the same id it takes nothing more.
func (r *Redis) Take(ctx context.Context, domain, id string, takes []store.Take) (short int, err error) {
	short, _, err = r.take(ctx, &store.Spend{ID: id, Domain: domain, Takes: takes}, false, 0)
	return short, err
}

// Spend takes from buckets that need not have enough, or gives back. It returns what is missing from
// each now; nothing for a call that is repeated.
func (r *Redis) Spend(ctx context.Context, s *store.Spend) (used []int, err error) {
	// Clocks of daemons and of Redis are not compared, but a wait of more than a minute is a wait.
	age := time.Since(s.Time)
	if s.Time.IsZero() || age < time.Minute {
		age = 0
	}
	_, used, err = r.take(ctx, s, true, age)
	return used, err
}

func (r *Redis) take(ctx context.Context, s *store.Spend, force bool, age time.Duration) (short int, used []int, err error) {
	prefix := tag(store.ShardOf(s.Domain))
	keys := []string{prefix + "taken:" + s.ID}
	args := []any{force, int(keepTaken.Seconds()), age.Microseconds()}
	for _, t := range s.Takes {
		if t.Rate <= 0 || t.Per <= 0 {
			return -1, nil, fmt.Errorf("taking from the bucket %s: it has no size", t.Key)
		}
		keys = append(keys, prefix+"bucket:"+t.Key)
		args = append(args, t.N, t.Rate, t.Per.Microseconds(), t.Besides)
	}
	list, err := take.Run(ctx, r.client, keys, args...).Int64Slice()
	if err != nil {
		return -1, nil, wrap(err)
	}
	for _, n := range list[1:] {
		used = append(used, int(n))
	}
	return int(list[0]) - 1, used, nil
}
