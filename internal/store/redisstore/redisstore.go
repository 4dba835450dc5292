// Package redisstore keeps the store in Redis. It is the only importer of go-redis.
//
// The keys of a shard share a hash tag ({s00} to {s31}, and {g} for the global shard), so that one
// script changes them together:
//
//	drawbridge:{s07}:head      hash    store, n, hash, schema: the shard's last change; count, digest: of its documents
//	drawbridge:{s07}:docs      hash    document key → {"r":revision,"b":body}; an account is packed (ADR 15)
//	drawbridge:{s07}:restoring:R  hash  documents of a repair, until they are complete; expires
//	drawbridge:{s07}:changes   stream  n-0 → p (the entry), h (the chain's hash)
//	drawbridge:{s07}:audit     stream  n-0 → a (the audit entry), l (its link, see internal/auditchain)
//	drawbridge:{s07}:logins:D  stream  login records of domain D
//	drawbridge:{s07}:oldlogins:D  stream  its pseudonymised login records, all older
//	drawbridge:{s07}:closed:D  hash    record id → how a login ended that the next passdb decided
//	drawbridge:{s07}:delivered:O  string  number of the last batch of login records of a daemon's run
//	drawbridge:{s07}:habits:D  hash    account → what is usual for it, packed (internal/habit)
//	drawbridge:{s07}:used:A    hash    secure password id → last use, of account A
//	drawbridge:{s07}:bucket:B  string  when a bucket of a sending limit is full again, by Redis' clock
//	drawbridge:{s07}:taken:I   string  what the call of this id took was taken
//	drawbridge:{g}:events      stream  wrong secrets and successes, for the counters of all daemons
//
// Diagnostics: every error wraps one of store's sentinels; a command that Redis refuses for want of
// memory or disk (OOM, MISCONF) counts as refused, and so as unavailable, since nothing was taken.
package redisstore

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // see digest
	"crypto/subtle"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/drawbridge/drawbridge/internal/auditchain"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Options say where Redis is.
type Options struct {
	Addrs   []string // a socket's path, or host:port; of a Cluster some nodes, or the Sentinels
	Cluster bool     // Addrs are nodes of a Cluster
	Master  string   // Addrs are Sentinels, which watch this master set
	// SentinelUsername and SentinelPassword are for the Sentinels; Access is for the servers.
	SentinelUsername string
	SentinelPassword string

	DB          int
	Access      Access
	MinReplicas int // replicas that must have a change before it is acknowledged
	// KeepChanges is the approximate length of each change stream; 10 000 when zero. A daemon that
	// lags further loads the shard again.
	KeepChanges int64
	// Retention and MaxRecords bound the login records of a domain.
	Retention  time.Duration
	MaxRecords int64
	// Took receives how long each write took: a "change", "records", "events" or "uses"; nil for none.
	Took func(operation string, d time.Duration)
}

// timed reports how long a write took, from when timed was called until the function that it returns is.
func (r *Redis) timed(operation string) func() {
	if r.opt.Took == nil {
		return func() {}
	}
	began := time.Now()
	return func() { r.opt.Took(operation, time.Since(began)) }
}

// Redis is a [store.Log] and a [store.Upkeep]. It also stores login records, last uses and the
// events of all daemons.
type Redis struct {
	client redis.UniversalClient
	opt    Options
	access atomic.Pointer[Access]
	links  auditLinks
}

// Access is how connections authenticate.
type Access struct {
	Username string
	Password string
	TLS      *tls.Config // nil for none
}

// Open prepares a client; it does not connect.
func Open(opt Options) *Redis {
	if opt.KeepChanges == 0 {
		opt.KeepChanges = 10_000
	}
	r := &Redis{opt: opt}
	r.access.Store(&opt.Access)
	r.client = r.dial(0)
	return r
}

// SetAccess changes how new connections authenticate. Open ones stay.
func (r *Redis) SetAccess(a Access) { r.access.Store(&a) }

// follower returns a client for blocking reads that are cut off when ctx ends: a context alone does
// not wake a read that waits for an answer. The function returned closes it.
func (r *Redis) follower(ctx context.Context) (redis.UniversalClient, func()) {
	c := r.dial(2 * store.Shards) // in a Cluster every shard's read may block on the same node
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	return c, func() {
		if stop() {
			_ = c.Close()
		}
	}
}

// SetLogger sends the messages of go-redis to a logger; it has one for all clients.
func SetLogger(log hclog.Logger) { redis.SetLogger(logger{log}) }

type logger struct{ hclog.Logger }

// Printf implements go-redis' logging. The store reports failed connections once; these lines come
// with every attempt.
func (l logger) Printf(_ context.Context, format string, v ...any) {
	l.Debug("redis client", "message", fmt.Sprintf(format, v...))
}

// Close ends all connections.
func (r *Redis) Close() error { return r.client.Close() }

func tag(s store.Shard) string {
	if s == store.Global {
		return "drawbridge:{g}:"
	}
	return fmt.Sprintf("drawbridge:{s%02d}:", int(s))
}

// wrap returns an error of Redis as one of the store's.
func wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case strings.HasPrefix(err.Error(), "CONFLICT"):
		return store.ErrConflict
	case strings.HasPrefix(err.Error(), "FOREIGN"):
		return store.ErrForeign
	case strings.HasPrefix(err.Error(), "SCHEMA"):
		return store.ErrNewerSchema
	case strings.HasPrefix(err.Error(), "WRONGTYPE"), strings.HasPrefix(err.Error(), "DAMAGED"):
		return fmt.Errorf("%w: %w: %w", store.ErrUnavailable, store.ErrDamaged, err)
	}
	if reply := redis.Error(nil); errors.As(err, &reply) {
		return fmt.Errorf("%w: %w", store.ErrRefused, err)
	}
	return fmt.Errorf("%w: %w", store.ErrUnavailable, err)
}

// create creates one shard; it does not change a shard of the same store.
var create = redis.NewScript(`
local id = redis.call('HGET', KEYS[1], 'store')
if id == ARGV[1] then return 'OK' end
if id or redis.call('EXISTS', KEYS[2]) == 1 then return redis.error_reply('FOREIGN another store') end
redis.call('HSET', KEYS[1], 'store', ARGV[1], 'n', '0', 'hash', '', 'schema', ARGV[2], 'count', '0', 'digest', ARGV[3])
return 'OK'`)

// Create implements [store.Upkeep]. The global shard's head goes first and says which store it is;
// "ready" goes last, so that a lost shard of a complete store is not created again.
func (r *Redis) Create(ctx context.Context, storeID string) error {
	run := func(s store.Shard) error {
		return wrap(create.Run(ctx, r.client, []string{tag(s) + "head", tag(s) + "docs"}, storeID, store.Schema, digest{}.String()).Err())
	}
	ready, err := r.client.HMGet(ctx, tag(store.Global)+"head", "store", "ready").Result()
	if err != nil {
		return wrap(err)
	}
	if id, ok := ready[0].(string); ok && id != "" {
		storeID = id
	}
	if ready[1] != nil {
		return nil
	}
	if err := run(store.Global); errors.Is(err, store.ErrForeign) {
		return r.Create(ctx, "") // another daemon was first: finish with its id
	} else if err != nil {
		return err
	}
	for s := range store.Global {
		if err := run(s); err != nil {
			return err
		}
	}
	return wrap(r.client.HSet(ctx, tag(store.Global)+"head", "ready", "1").Err())
}

// Heads implements [store.Log]. Each head is read together with the number of documents, so that a
// change in between is not mistaken for damage.
func (r *Redis) Heads(ctx context.Context) (heads [store.Shards]store.Head, damage error, err error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	var values [store.Shards][]any
	var counts [store.Shards]int64
	read := r.headsAtOnce
	if r.opt.Cluster {
		read = r.headsEach
	}
	if err := read(ctx, &values, &counts); err != nil {
		r.lookAgain(ctx)
		return heads, nil, wrap(err)
	}
	for i := range values {
		h, sum, err := parseHead(values[i])
		if err != nil {
			return heads, nil, fmt.Errorf("shard %d: %w", i, err)
		}
		heads[i] = h
		if n := uint64(counts[i]); sum != nil && n != sum.count { //nolint:gosec // a length
			damage = errors.Join(damage, fmt.Errorf("shard %d holds %d documents instead of %d: %w", i, n, sum.count, store.ErrDamaged))
		}
	}
	return heads, damage, nil
}

// headsAtOnce reads the heads of all shards, and the numbers of their documents, in one
// transaction.
func (r *Redis) headsAtOnce(ctx context.Context, values *[store.Shards][]any, counts *[store.Shards]int64) error {
	var cmds [store.Shards]*redis.SliceCmd
	var lengths [store.Shards]*redis.IntCmd
	_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for i := range cmds {
			cmds[i] = p.HMGet(ctx, tag(store.Shard(i))+"head", headFields...)
			lengths[i] = p.HLen(ctx, tag(store.Shard(i))+"docs")
		}
		return nil
	})
	for i := range cmds {
		values[i], counts[i] = cmds[i].Val(), lengths[i].Val()
	}
	return err
}

// readHead reads a head and the number of documents.
var readHead = redis.NewScript(`return {redis.call('HMGET', KEYS[1], unpack(ARGV)), redis.call('HLEN', KEYS[2])}`)

// headsEach reads them shard by shard: a transaction of a Cluster is of one hash tag.
func (r *Redis) headsEach(ctx context.Context, values *[store.Shards][]any, counts *[store.Shards]int64) error {
	fields := make([]any, len(headFields))
	for i, f := range headFields {
		fields[i] = f
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(8)
	for i := range values {
		group.Go(func() error {
			answer, err := readHead.Run(ctx, r.client, commitKeys(store.Shard(i))[:2], fields...).Slice()
			if err != nil {
				return err
			}
			var ok, counted bool
			if len(answer) == 2 {
				values[i], ok = answer[0].([]any)
				counts[i], counted = answer[1].(int64)
			}
			if !ok || !counted || len(values[i]) != len(headFields) {
				return fmt.Errorf("shard %d: an unexpected answer", i)
			}
			return nil
		})
	}
	return group.Wait()
}

var headFields = []string{"store", "n", "hash", "schema", "count", "digest"}

// checksum says which documents belong to a head.
type checksum struct {
	count  uint64
	digest digest
}

// digest is the exclusive or of the hashes of all documents. It does not depend on their order, so
// a change costs the hashes of the documents that it replaces and writes. A document occurs once,
// so nothing cancels out. It detects loss and accidents; whoever may write to Redis can forge it.
type digest [digestSize]byte

const digestSize = 16

func (d digest) String() string { return hex.EncodeToString(d[:]) }

// add adds a document, or removes it.
func (d *digest) add(key, value string) {
	room := make([]byte, 0, 1024)
	text := append(append(append(room, key...), '\n'), value...)
	sum := sha1.Sum(text) //nolint:gosec // the only hash that Redis' scripts have; no secret depends on it
	subtle.XORBytes(d[:], d[:], sum[:])
}

// parseHead returns the zero head of a missing one, and no checksum of one that was written before
// schema 3.
func parseHead(v []any) (store.Head, *checksum, error) {
	text := func(i int) string { s, _ := v[i].(string); return s }
	if text(0) == "" {
		return store.Head{}, nil, nil
	}
	n, err := strconv.ParseUint(text(1), 10, 64)
	if err != nil {
		return store.Head{}, nil, fmt.Errorf("%w: the head has no number", store.ErrForeign)
	}
	h := store.Head{StoreID: text(0), N: n, Hash: text(2)}
	schema, err := strconv.Atoi(text(3))
	switch {
	case err != nil || schema > store.Schema:
		return store.Head{}, nil, store.ErrNewerSchema
	case schema < checksumSchema:
		return h, nil, nil
	}
	sum := &checksum{}
	sum.count, err = strconv.ParseUint(text(4), 10, 64)
	if b, bad := hex.DecodeString(text(5)); err != nil || bad != nil || copy(sum.digest[:], b) != digestSize {
		return h, &checksum{count: math.MaxUint64}, nil //nolint:nilerr // matches no documents: damaged
	}
	return h, sum, nil
}

// checksumSchema is the first schema whose heads carry a checksum of their documents.
const checksumSchema = 3

// Load implements [store.Log]. A scan is no snapshot: it is repeated until the head stood still
// around it. A shard without a checksum gets one.
func (r *Redis) Load(ctx context.Context, s store.Shard, known store.Head, begin func() func(store.Doc) error) (store.Head, error) {
	damaged := false // found once: a scan across a failover or a moved slot misses documents or repeats some
	for {
		h, want, err := r.head(ctx, s)
		if err != nil {
			return h, err
		}
		if err := r.continues(ctx, s, known, h); err != nil {
			return h, err
		}
		put := func(store.Doc) error { return nil }
		if begin != nil {
			put = begin()
		}
		got, fault := r.scan(ctx, s, damaged || want == nil, put)
		if fault != nil && !errors.Is(fault, store.ErrDamaged) {
			return h, fault
		}
		after, _, err := r.head(ctx, s)
		if err != nil {
			return after, err
		}
		if after != h {
			continue
		}
		if want == nil && fault == nil {
			err := r.seal(ctx, s, h, h, got)
			if errors.Is(err, store.ErrConflict) {
				continue
			}
			return h, err
		}
		if fault == nil && got != *want {
			fault = fmt.Errorf("%w: %d documents of digest %s instead of %d of %s", store.ErrDamaged, got.count, got.digest, want.count, want.digest)
		}
		if fault != nil && !damaged {
			damaged = true
			continue
		}
		return h, fault
	}
}

// continues returns [store.ErrForeign] when the changes up to h are known not to include those up
// to known. Of a head that the stream no longer shows nothing is known.
func (r *Redis) continues(ctx context.Context, s store.Shard, known, h store.Head) error {
	switch {
	case known.N == 0 || h == known:
		return nil
	case h.N <= known.N || h.StoreID != known.StoreID:
		return fmt.Errorf("%w: shard %d is at change %d, known is %d", store.ErrForeign, s, h.N, known.N)
	}
	hash, err := r.hashAt(ctx, s, known.N)
	if err != nil {
		return err
	}
	if hash != "" && hash != known.Hash {
		return fmt.Errorf("%w: shard %d has another change %d than the one known", store.ErrForeign, s, known.N)
	}
	return nil
}

// hashAt returns the hash of a change, "" if the stream does not show it.
func (r *Redis) hashAt(ctx context.Context, s store.Shard, n uint64) (string, error) {
	id := strconv.FormatUint(n, 10) + "-0"
	found, err := r.client.XRange(ctx, tag(s)+"changes", id, id).Result()
	if err != nil || len(found) == 0 {
		return "", wrap(err)
	}
	hash, _ := found[0].Values["h"].(string)
	return hash, nil
}

// scan passes the documents of a shard to put. With [store.ErrDamaged] it passes those that are
// readable. A scan may return a document twice, which gives it another checksum. With once, the second
// is left out; of a million documents that takes a fifth of the time.
func (r *Redis) scan(ctx context.Context, s store.Shard, once bool, put func(store.Doc) error) (sum checksum, fault error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type part struct {
		list []string
		err  error
	}
	parts := make(chan part, 2) // Redis looks up the next documents while these are read
	go func() {
		defer close(parts)
		for cursor := uint64(0); ; {
			list, next, err := r.client.HScan(ctx, tag(s)+"docs", cursor, "", 1000).Result()
			select {
			case parts <- part{list, err}:
			case <-ctx.Done():
				return
			}
			if cursor = next; err != nil || cursor == 0 {
				return
			}
		}
	}()
	seen, seed := map[uint64]bool{}, maphash.MakeSeed()
	repeated := func(key string) bool {
		if !once {
			return false
		}
		// Two keys of one hash, once in millions of scans, are found as damage and not in the next scan.
		h := maphash.String(seed, key)
		before := seen[h]
		seen[h] = true
		return before
	}
	for p := range parts {
		if p.err != nil {
			return sum, wrap(p.err)
		}
		for i := 0; i+1 < len(p.list); i += 2 {
			key, value := p.list[i], p.list[i+1]
			if repeated(key) {
				continue
			}
			sum.count++
			sum.digest.add(key, value)
			d, err := store.ReadDoc(key, value)
			if err != nil {
				fault = fmt.Errorf("%w: document %q: %w", store.ErrDamaged, key, err)
			} else if err := put(d); err != nil {
				return sum, err
			}
		}
	}
	return sum, cmp.Or(fault, wrap(ctx.Err()))
}

func (r *Redis) head(ctx context.Context, s store.Shard) (store.Head, *checksum, error) {
	v, err := r.client.HMGet(ctx, tag(s)+"head", headFields...).Result()
	if err != nil {
		return store.Head{}, nil, wrap(err)
	}
	return parseHead(v)
}

// seal writes a checksum into the head if the shard is where it was read. ARGV: store, n, hash, new
// n, new hash, schema, count, digest, and an audit entry with its link if the number is new.
var seal = redis.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'store', 'n', 'hash', 'schema')
if h[1] ~= ARGV[1] then return redis.error_reply('FOREIGN another store') end
if tonumber(h[4]) > tonumber(ARGV[6]) then return redis.error_reply('SCHEMA newer') end
if h[2] ~= ARGV[2] or h[3] ~= ARGV[3] or redis.call('HLEN', KEYS[2]) ~= tonumber(ARGV[7]) then
  return redis.error_reply('CONFLICT the shard moved')
end
if ARGV[9] then redis.call('XADD', KEYS[4], ARGV[4] .. '-0', 'a', ARGV[9], 'l', ARGV[10]) end
redis.call('HSET', KEYS[1], 'n', ARGV[4], 'hash', ARGV[5], 'schema', ARGV[6], 'count', ARGV[7], 'digest', ARGV[8])
return 'OK'`)

func (r *Redis) seal(ctx context.Context, s store.Shard, h, next store.Head, sum checksum) error {
	args := []any{h.StoreID, h.N, h.Hash, next.N, next.Hash, store.Schema, sum.count, sum.digest.String()}
	if next.N > h.N {
		audit, err := json.Marshal(store.AuditEntry{
			Time: time.Now().UTC(), Actor: store.Actor{Name: "daemon"}, Action: "store.accept", Target: fmt.Sprintf("shard %d", s),
		})
		if err != nil {
			return fmt.Errorf("encoding an audit entry: %w", err)
		}
		before, err := r.auditLink(ctx, s, h.N)
		if err != nil {
			return err
		}
		args = append(args, audit, auditchain.Link(before, next.N, audit))
	}
	return wrap(seal.Run(ctx, r.client, commitKeys(s), args...).Err())
}

// Accept implements [store.Upkeep]. The head moves on, so that every other daemon loads the shard.
func (r *Redis) Accept(ctx context.Context, s store.Shard) error {
	h, want, err := r.head(ctx, s)
	if err != nil {
		return err
	}
	got, err := r.scan(ctx, s, true, func(store.Doc) error { return nil })
	if err != nil {
		return err
	}
	if want == nil || got == *want {
		return nil
	}
	return r.seal(ctx, s, h, h.Chain(fmt.Appendf(nil, "accepted: %d documents of digest %s", got.count, got.digest)), got)
}

// restore replaces the documents of a shard whose head is where it was, or missing, by those of the
// last key, of which Redis may hold millions: moving them takes no time, and an old hash is freed
// beside. ARGV: store, n, hash, schema, count, digest.
var restore = redis.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'store', 'n', 'hash')
if h[1] and h[1] ~= ARGV[1] then return redis.error_reply('FOREIGN another store') end
if h[1] and (h[2] ~= ARGV[2] or h[3] ~= ARGV[3]) then return redis.error_reply('CONFLICT the head moved') end
local last = redis.call('XREVRANGE', KEYS[3], '+', '-', 'COUNT', 1)[1]
if last and tonumber(string.match(last[1], '%d+')) > tonumber(ARGV[2]) then return redis.error_reply('CONFLICT the stream is ahead') end
if redis.call('HLEN', KEYS[5]) ~= tonumber(ARGV[5]) then return redis.error_reply('CONFLICT the new documents are not complete') end
redis.call('UNLINK', KEYS[2])
if redis.call('EXISTS', KEYS[5]) == 1 then
  redis.call('RENAME', KEYS[5], KEYS[2])
  redis.call('PERSIST', KEYS[2])
end
redis.call('HSET', KEYS[1], 'store', ARGV[1], 'n', ARGV[2], 'hash', ARGV[3], 'schema', ARGV[4], 'count', ARGV[5], 'digest', ARGV[6])
return 'OK'`)

const (
	// restorePortion is how many documents are sent at a time: Redis serves others in between.
	restorePortion = 2000
	// restoreWithin is how long documents that were sent wait for the next portion before Redis
	// removes them: nobody else would, if this daemon dies.
	restoreWithin = 10 * time.Minute
)

// Restore implements [store.Upkeep]. The documents are sent in portions to a key of their own, which
// takes the place of the shard's at the end.
func (r *Redis) Restore(ctx context.Context, s store.Shard, h store.Head, docs []store.Doc) (err error) {
	fresh := tag(s) + "restoring:" + rand.Text()
	defer func() {
		if err != nil {
			_ = r.client.Unlink(context.WithoutCancel(ctx), fresh).Err() // or it expires
		}
	}()
	var sum digest
	for portion := range slices.Chunk(docs, restorePortion) {
		values := make([]any, 0, 2*len(portion))
		for _, d := range portion {
			v, err := d.Stored()
			if err != nil {
				return fmt.Errorf("encoding %s: %w", d.Key, err)
			}
			sum.add(d.Key, string(v))
			values = append(values, d.Key, v)
		}
		_, err := r.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
			p.HSet(ctx, fresh, values...)
			p.Expire(ctx, fresh, restoreWithin)
			return nil
		})
		if err != nil {
			return wrap(err)
		}
	}
	return wrap(restore.Run(ctx, r.client, append(commitKeys(s), fresh), h.StoreID, h.N, h.Hash, store.Schema, len(docs), sum.String()).Err())
}

// types refuses keys of the wrong type before anything is written: a failing script is not undone.
const types = `
for i, kind in ipairs({'hash', 'stream', 'stream'}) do
  local found = redis.call('TYPE', KEYS[i + 1]).ok
  if found ~= kind and found ~= 'none' then return redis.error_reply('WRONGTYPE ' .. KEYS[i + 1] .. ' is a ' .. found) end
end`

// commit applies one change if the head is still where the writer saw it, and updates the checksum.
// ARGV: store, n, hash, new hash, schema, payload, audit, keep, number of puts, digest of the puts,
// link of the audit entry, key, value ..., keys to delete ...
var commit = redis.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'store', 'n', 'hash', 'schema', 'count', 'digest')
if h[1] ~= ARGV[1] then return redis.error_reply('FOREIGN another store') end
if tonumber(h[4]) > tonumber(ARGV[5]) then return redis.error_reply('SCHEMA newer') end
if h[2] ~= ARGV[2] or h[3] ~= ARGV[3] then return redis.error_reply('CONFLICT the head moved') end
local found, audit = redis.pcall('HLEN', KEYS[2]), redis.pcall('XLEN', KEYS[4])
if type(found) == 'table' or type(audit) == 'table' then
` + types + `
end
if not h[5] or not h[6] or #h[6] ~= 32 or found ~= tonumber(h[5]) then
  return redis.error_reply('DAMAGED ' .. KEYS[2] .. ' holds ' .. found .. ' documents instead of ' .. tostring(h[5]))
end
local n = string.format('%d', tonumber(ARGV[2]) + 1)
local added = redis.pcall('XADD', KEYS[3], 'MAXLEN', '~', ARGV[8], n .. '-0', 'p', ARGV[6], 'h', ARGV[4])
if type(added) == 'table' then -- nothing is written yet
` + types + `
  return added
end
redis.call('XADD', KEYS[4], n .. '-0', 'a', ARGV[7], 'l', ARGV[11])
local sub, number, xor = string.sub, tonumber, bit.bxor
local a, b, c, d = 0, 0, 0, 0
local function mix(hex)
  a = xor(a, number(sub(hex, 1, 8), 16))
  b = xor(b, number(sub(hex, 9, 16), 16))
  c = xor(c, number(sub(hex, 17, 24), 16))
  d = xor(d, number(sub(hex, 25, 32), 16))
end
-- Many documents by one command cost a fraction of a command for each. Each key occurs once in a
-- portion, so that the document that it replaces is read.
local function write(command, first, last, step)
  local changed = 0
  while first <= last do
    local keys, seen, after = {}, {}, first
    while after <= last and #keys < 500 and not seen[ARGV[after]] do
      keys[#keys + 1], seen[ARGV[after]] = ARGV[after], true
      after = after + step
    end
    for k, was in ipairs(redis.call('HMGET', KEYS[2], unpack(keys))) do
      if was then mix(redis.sha1hex(keys[k] .. '\n' .. was)) end
    end
    changed = changed + redis.call(command, KEYS[2], unpack(ARGV, first, after - 1))
    first = after
  end
  return changed
end
mix(h[6])
mix(ARGV[10])
local dels = 12 + 2 * tonumber(ARGV[9])
local count = found + write('HSET', 12, dels - 1, 2) - write('HDEL', dels, #ARGV, 1)
local hex = bit.tohex
redis.call('HSET', KEYS[1], 'n', n, 'hash', ARGV[4], 'schema', ARGV[5], 'count', count, 'digest', hex(a) .. hex(b) .. hex(c) .. hex(d))
return 'OK'`)

// Commit implements [store.Log].
func (r *Redis) Commit(ctx context.Context, s store.Shard, h store.Head, payload []byte, e *store.Entry, audit []byte) error {
	defer r.timed("change")()
	before, err := r.auditLink(ctx, s, h.N)
	if err != nil {
		return err
	}
	link := auditchain.Link(before, h.N+1, audit)
	next := h.Chain(payload)
	args := make([]any, 0, 11+2*len(e.Puts)+len(e.Dels))
	args = append(args, h.StoreID, h.N, h.Hash, next.Hash, store.Schema, payload, audit, r.opt.KeepChanges, len(e.Puts), "", link)
	var sum digest
	for _, d := range e.Puts {
		d.Rev = e.N
		v, err := d.Stored()
		if err != nil {
			return fmt.Errorf("encoding %s: %w", d.Key, err)
		}
		sum.add(d.Key, string(v))
		args = append(args, d.Key, v)
	}
	args[9] = sum.String()
	for _, k := range e.Dels {
		args = append(args, k)
	}
	if r.opt.MinReplicas > 0 {
		err = r.commitConfirmed(ctx, s, next, args)
	} else {
		err = r.decide(ctx, s, next, commit.Run(ctx, r.client, commitKeys(s), args...).Err())
	}
	if err == nil {
		r.links.remember(s, next.N, link)
	}
	return err
}

// decide returns the result of a commit. When the answer was lost, or the client sent the change
// twice, the chain shows whether Redis has the change.
func (r *Redis) decide(ctx context.Context, s store.Shard, next store.Head, err error) error {
	fault := wrap(err)
	if fault == nil || !errors.Is(fault, store.ErrConflict) && (!errors.Is(fault, store.ErrUnavailable) || errors.Is(fault, store.ErrRefused)) {
		return fault
	}
	if hash, err := r.hashAt(ctx, s, next.N); err == nil && hash == next.Hash {
		return nil
	}
	return fault
}

// commitConfirmed commits a change and waits for replicas. WAIT counts the writes of its own
// connection, so that both need one connection to the master of the shard; a Cluster's redirections
// are followed here.
func (r *Redis) commitConfirmed(ctx context.Context, s store.Shard, next store.Head, args []any) error {
	keys, address := commitKeys(s), "" // the address that ASK named
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 200*time.Millisecond) {
		conn, err := r.master(ctx, keys[0], address)
		if err != nil {
			return wrap(err)
		}
		if address != "" {
			err = conn.Do(ctx, "ASKING").Err() // for the next command only
			if err == nil {
				err = commit.Eval(ctx, conn, keys, args...).Err()
			}
		} else {
			err = commit.Run(ctx, conn, keys, args...).Err()
		}
		if err == nil {
			defer func() { _ = conn.Close() }()
			n, err := conn.Wait(ctx, r.opt.MinReplicas, time.Second).Result()
			if err != nil || n < int64(r.opt.MinReplicas) {
				return fmt.Errorf("%w: %d of %d", store.ErrUnconfirmed, n, r.opt.MinReplicas)
			}
			return nil
		}
		_ = conn.Close()
		if !r.opt.Cluster || !redirected(err) {
			if errors.Is(wrap(err), store.ErrConflict) {
				return wrap(err)
			}
			if err = r.decide(ctx, s, next, err); err == nil {
				err = fmt.Errorf("%w: the connection to the master was lost", store.ErrUnconfirmed)
			}
			return err
		}
		_, address, _ = strings.Cut(strings.TrimPrefix(err.Error(), "ASK "), " ")
		if !strings.HasPrefix(err.Error(), "ASK ") {
			address = ""
			r.lookAgain(ctx)
		}
		select {
		case <-ctx.Done():
			return wrap(err)
		case <-time.After(pause):
		}
	}
}

// redirected reports whether a node of a Cluster did not run a command because of where it, or the
// keys, are.
func redirected(err error) bool {
	for _, prefix := range []string{"MOVED ", "ASK ", "TRYAGAIN ", "READONLY "} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	return false
}

// master returns a connection to the master of a key, or to the one at an address of a Cluster.
func (r *Redis) master(ctx context.Context, key, address string) (*redis.Conn, error) {
	cluster, ok := r.client.(*redis.ClusterClient)
	if !ok {
		return r.client.(*redis.Client).Conn(), nil
	}
	client, err := cluster.MasterForKey(ctx, key)
	if address != "" {
		err = r.masters(ctx, func(c *redis.Client) error {
			if c.Options().Addr == address {
				client = c
			}
			return nil
		})
	}
	if err != nil {
		return nil, err
	}
	return client.Conn(), nil
}

func commitKeys(s store.Shard) []string {
	return []string{tag(s) + "head", tag(s) + "docs", tag(s) + "changes", tag(s) + "audit"}
}

// probe writes the head's schema as it is: Redis accepts or refuses that as it does a change.
var probe = redis.NewScript(`
local h = redis.call('HMGET', KEYS[1], 'store', 'schema')
if h[1] ~= ARGV[1] then return redis.error_reply('FOREIGN another store') end
` + types + `
redis.call('HSET', KEYS[1], 'schema', h[2])
return 'OK'`)

// Probe implements [store.Upkeep]. It takes 3 s at most.
func (r *Redis) Probe(ctx context.Context, s store.Shard, storeID string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	return wrap(probe.Run(ctx, r.client, commitKeys(s), storeID).Err())
}

// Follow implements [store.Log]. A Cluster reads one hash tag at a time, so that each shard has a
// reader there; elsewhere one reads all. Reads name the entry to continue from, never "$", which
// misses what is written while a slot moves.
func (r *Redis) Follow(ctx context.Context, after [store.Shards]uint64, deliver func(store.Shard, []store.Received) error) error {
	client, done := r.follower(ctx)
	defer done()
	all := make([]store.Shard, store.Shards)
	for i := range all {
		all[i] = store.Shard(i)
	}
	if !r.opt.Cluster {
		return follow(ctx, client, all, &after, deliver)
	}
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = client.Close() })() // the first that fails ends all
	for i := range all {
		group.Go(func() error { return follow(ctx, client, all[i:i+1], &after, deliver) })
	}
	return group.Wait()
}

// follow reads the streams of some shards.
func follow(ctx context.Context, client redis.UniversalClient, of []store.Shard, after *[store.Shards]uint64, deliver func(store.Shard, []store.Received) error) error {
	shards := make(map[string]store.Shard, len(of))
	keys := make([]string, len(of))
	for i, s := range of {
		keys[i] = tag(s) + "changes"
		shards[keys[i]] = s
	}
	for ctx.Err() == nil {
		args := &redis.XReadArgs{Streams: append(make([]string, 0, 2*len(keys)), keys...), Count: 1000, Block: 2 * time.Second}
		for _, s := range of {
			args.Streams = append(args.Streams, strconv.FormatUint(after[s], 10)+"-0")
		}
		streams, err := client.XRead(ctx, args).Result()
		if errors.Is(err, redis.Nil) {
			continue
		}
		if err != nil {
			return wrap(err)
		}
		for _, st := range streams {
			shard := shards[st.Stream]
			list := make([]store.Received, len(st.Messages))
			for i, m := range st.Messages {
				if list[i], err = received(m); err != nil {
					return err
				}
				after[shard] = list[i].N
			}
			if err := deliver(shard, list); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func received(m redis.XMessage) (store.Received, error) {
	id, _, _ := strings.Cut(m.ID, "-")
	n, err := strconv.ParseUint(id, 10, 64)
	if err != nil {
		return store.Received{}, fmt.Errorf("%w: entry %q", store.ErrGap, m.ID)
	}
	payload, _ := m.Values["p"].(string)
	hash, _ := m.Values["h"].(string)
	return store.Received{N: n, Payload: []byte(payload), Hash: hash}, nil
}
