package redisstore

import (
	"context"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

func habitsKey(domain string) string { return tag(store.ShardOf(domain)) + "habits:" + domain }

// byDomain groups accounts by the key of their domain's habits.
func byDomain(accounts []string) map[string][]string {
	keys := map[string][]string{}
	for _, a := range accounts {
		key := habitsKey(address.Domain(a))
		keys[key] = append(keys[key], a)
	}
	return keys
}

// Habits returns what is usual for accounts, packed. Accounts of which nothing is known yet are
// left out.
func (r *Redis) Habits(ctx context.Context, accounts []string) (map[string][]byte, error) {
	keys := byDomain(accounts)
	cmds := make(map[string]*redis.SliceCmd, len(keys))
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for key, of := range keys {
			cmds[key] = p.HMGet(ctx, key, of...)
		}
		return nil
	})
	if err != nil {
		return nil, wrap(err)
	}
	packed := make(map[string][]byte, len(accounts))
	for key, of := range keys {
		for i, v := range cmds[key].Val() {
			if text, ok := v.(string); ok && i < len(of) {
				packed[of[i]] = []byte(text)
			}
		}
	}
	return packed, nil
}

// PutHabits stores what is usual for accounts, packed.
func (r *Redis) PutHabits(ctx context.Context, packed map[string][]byte) error {
	accounts := make([]string, 0, len(packed))
	for a := range packed {
		accounts = append(accounts, a)
	}
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for key, of := range byDomain(accounts) {
			values := make([]any, 0, 2*len(of))
			for _, a := range of {
				values = append(values, a, packed[a])
			}
			p.HSet(ctx, key, values...)
		}
		return nil
	})
	return wrap(err)
}
