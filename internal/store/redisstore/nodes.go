package redisstore

import (
	"context"
	"strconv"
	"time"

	"github.com/drawbridge/drawbridge/internal/store"
)

// nodesKey is a hash: the names of daemons that hold messages, and when each was last there, in
// Unix seconds.
var nodesKey = tag(store.Global) + "nodes"

// nodesKept is how long a node that does not come back is remembered.
const nodesKept = 90 * 24 * time.Hour

// NodeSeen records that a node is there. It forgets those that have long been away.
func (r *Redis) NodeSeen(ctx context.Context, node string, now time.Time) error {
	if err := r.client.HSet(ctx, nodesKey, node, now.Unix()).Err(); err != nil {
		return wrap(err)
	}
	nodes, err := r.Nodes(ctx)
	for name, seen := range nodes {
		if now.Sub(seen) > nodesKept {
			_ = r.client.HDel(ctx, nodesKey, name).Err() // or the next time
		}
	}
	return err
}

// Nodes returns when each node was last seen.
func (r *Redis) Nodes(ctx context.Context) (map[string]time.Time, error) {
	all, err := r.client.HGetAll(ctx, nodesKey).Result()
	if err != nil {
		return nil, wrap(err)
	}
	nodes := make(map[string]time.Time, len(all))
	for name, text := range all {
		if seconds, err := strconv.ParseInt(text, 10, 64); err == nil {
			nodes[name] = time.Unix(seconds, 0)
		}
	}
	return nodes, nil
}
