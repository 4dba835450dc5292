package redisstore

import (
	"context"
	"errors"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/store"
)

// inspectionKey is a hash of a domain's latest inspection: the report, and what it found, packed.
func inspectionKey(domain string) string {
	return tag(store.ShardOf(domain)) + "inspection:" + domain
}

const inspectionReport, inspectionFound = "report", "found"

// PutInspection stores the report of a domain's inspection, and what it found, in place of the one before.
func (r *Redis) PutInspection(ctx context.Context, domain string, report, found []byte) error {
	return wrap(r.client.HSet(ctx, inspectionKey(domain), inspectionReport, report, inspectionFound, found).Err())
}

// Inspection returns the report of a domain's latest inspection; nil for none.
func (r *Redis) Inspection(ctx context.Context, domain string) ([]byte, error) {
	return r.inspection(ctx, domain, inspectionReport)
}

// Inspected returns what a domain's latest inspection found, as it was stored; nil for none.
func (r *Redis) Inspected(ctx context.Context, domain string) ([]byte, error) {
	return r.inspection(ctx, domain, inspectionFound)
}

func (r *Redis) inspection(ctx context.Context, domain, field string) ([]byte, error) {
	value, err := r.client.HGet(ctx, inspectionKey(domain), field).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	return value, wrap(err)
}
