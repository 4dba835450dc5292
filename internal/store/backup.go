package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/address"
)

var (
	// ErrInUse means that a backup is restored into a store that has domains.
	ErrInUse = errors.New("the store has domains: a backup is restored into an empty store only")
	// ErrNoBackup means that documents are none that a backup of this version has.
	ErrNoBackup = errors.New("the backup cannot be used")
)

// Backup passes all documents to yield but held messages, which are on the disk of a daemon, and the
// pepper's fingerprint. Those of a shard are of one moment. Claims of domain names come last, so that
// no domain is without its claim.
func (s *Store) Backup(yield func(key string, body []byte) error) error {
	for i := range Shard(Shards) { // Global is the last
		c := s.State.content(i)
		for j, d := range c.docs {
			if kind, _, _ := strings.Cut(d.Key, "/"); kind == kindHeld || kind == kindPepper {
				continue
			}
			if err := yieldJSON(yield, d.Key, c.bodies[j]); err != nil {
				return err
			}
		}
		for _, list := range c.accounts {
			for _, r := range list {
				if err := yieldJSON(yield, kindAccount+"/"+r.Address(), r.Account()); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func yieldJSON(yield func(string, []byte) error, key string, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encoding %s: %w", key, err)
	}
	return yield(key, body)
}

// RestoreDocs puts documents of a backup into a store that has no domains. Domains come last, with
// final: until then the accounts and rules of none are in effect, and logins are those of an
// unmanaged domain. It may be called again with the same documents.
func (s *Store) RestoreDocs(ctx context.Context, by Actor, docs []Doc, final bool) error {
	shards := map[Shard][]Doc{}
	for _, d := range docs {
		shard, err := shardOfKey(d.Key)
		if err != nil {
			return err
		}
		if isDomain := strings.HasPrefix(d.Key, kindDomain+"/"); isDomain != final {
			return fmt.Errorf("%w: %s is not where it belongs", ErrNoBackup, d.Key)
		}
		shards[shard] = append(shards[shard], d)
	}
	if domains, _ := s.State.Counts(); domains > 0 {
		return ErrInUse
	}
	for shard, list := range shards {
		if _, err := NewState().prepare(list, nil, time.Now()); err != nil {
			return fmt.Errorf("%w: %w", ErrNoBackup, err)
		}
		err := s.Update(ctx, shard, by, false, func(c *Change) error {
			c.Audit.Action = "store.restore"
			for _, d := range list {
				c.puts = append(c.puts, Doc{Key: d.Key, Body: d.Body})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// shardOfKey returns the shard of a document that a backup may have.
func shardOfKey(key string) (Shard, error) {
	kind, rest, _ := strings.Cut(key, "/")
	if _, known := kinds[kind]; !known || rest == "" || kind == kindPepper || kind == kindHeld {
		return 0, fmt.Errorf("%w: it has a document %q", ErrNoBackup, key)
	}
	switch kind {
	case kindClient, kindKey, kindName:
		return Global, nil
	case kindAccount:
		return ShardOf(address.Domain(rest)), nil
	}
	domain, _, _ := strings.Cut(rest, "/")
	return ShardOf(domain), nil
}
