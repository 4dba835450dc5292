package redisstore

import (
	"context"
	"errors"
	"time"

	"github.com/redis/go-redis/v9"
)

// pageKey is where a value of the pages is kept: a session, or the permission of a one-time link.
func pageKey(key string) string { return "drawbridge:{g}:page:" + key }

// FindPage returns a value of the pages, nil if there is none.
func (r *Redis) FindPage(ctx context.Context, key string) ([]byte, error) {
	return pageValue(r.client.Get(ctx, pageKey(key)))
}

// TakePage returns and deletes a value of the pages, nil if there is none: of two callers, one gets
// it.
func (r *Redis) TakePage(ctx context.Context, key string) ([]byte, error) {
	return pageValue(r.client.GetDel(ctx, pageKey(key)))
}

// PutPage keeps a value of the pages for a time; a time of 0 deletes it.
func (r *Redis) PutPage(ctx context.Context, key string, value []byte, keep time.Duration) error {
	if keep <= 0 {
		return wrap(r.client.Del(ctx, pageKey(key)).Err())
	}
	return wrap(r.client.Set(ctx, pageKey(key), value, keep).Err())
}

// PutPageIf is [Redis.PutPage] if the key is there, or if it is not; it reports whether it was so.
func (r *Redis) PutPageIf(ctx context.Context, there bool, key string, value []byte, keep time.Duration) (bool, error) {
	if keep <= 0 {
		return there, r.PutPage(ctx, key, nil, 0)
	}
	put := r.client.SetNX
	if there {
		put = r.client.SetXX
	}
	done, err := put(ctx, pageKey(key), value, keep).Result()
	return done, wrap(err)
}

func pageValue(answer *redis.StringCmd) ([]byte, error) {
	value, err := answer.Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return value, wrap(err)
}
