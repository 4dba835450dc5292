package redisstore

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// keepEvents bounds the stream of events, about.
const keepEvents = 100_000

func loginsKey(domain string) string { return tag(store.ShardOf(domain)) + "logins:" + domain }
func messagesKey(domain string) string {
	return tag(store.ShardOf(domain)) + "messages:" + domain
}
func closedKey(domain string) string { return tag(store.ShardOf(domain)) + "closed:" + domain }
func usedKey(account string) string {
	return tag(store.ShardOf(address.Domain(account))) + "used:" + account
}

// keepDelivered is how long the number of an origin's last batch is remembered.
const keepDelivered = 30 * 24 * time.Hour

func deliveredKey(s store.Shard, origin string) string { return tag(s) + "delivered:" + origin }

// deliver writes records and closings of one shard unless a batch of this number was written. A key
// of the wrong type does not keep the others from being written. KEYS: delivered, then those of the
// records. ARGV: number, seconds to remember it, bound of a stream, then for each record "r", index
// of its key, JSON; for each closing "c", index, id, JSON.
var deliver = redis.NewScript(`
local n = tonumber(ARGV[1])
if n > 0 and n <= tonumber(redis.call('GET', KEYS[1]) or 0) then return 'OK' end
local i, fault = 4, nil
while i <= #ARGV do
  local key, result = KEYS[tonumber(ARGV[i + 1])], nil
  if ARGV[i] == 'r' then
    result = redis.pcall('XADD', key, 'MAXLEN', '~', ARGV[3], '*', 'r', ARGV[i + 2])
    i = i + 3
  else
    result = redis.pcall('HSET', key, ARGV[i + 2], ARGV[i + 3])
    i = i + 4
  end
  if type(result) == 'table' and result.err then
    if not string.find(result.err, 'WRONGTYPE', 1, true) then return result end
    fault = result
  end
end
if n > 0 then redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2]) end
return fault or 'OK'`)

// AppendRecords writes records, and how others ended, once for each BatchID. After
// [store.ErrDamaged] all are written that ever can be.
func (r *Redis) AppendRecords(ctx context.Context, id store.BatchID, b *store.Batch) error {
	defer r.timed("records")()
	type part struct {
		keys  []string
		index map[string]int
		args  []any
	}
	parts := map[store.Shard]*part{}
	add := func(domain, key, kind string, args ...any) {
		s := store.ShardOf(domain)
		p := parts[s]
		if p == nil {
			p = &part{keys: []string{deliveredKey(s, id.Origin)}, index: map[string]int{}, args: []any{id.N, int(keepDelivered.Seconds()), cmp.Or(r.opt.MaxRecords, math.MaxInt64)}}
			parts[s] = p
		}
		if p.index[key] == 0 {
			p.keys = append(p.keys, key)
			p.index[key] = len(p.keys)
		}
		p.args = append(append(p.args, kind, p.index[key]), args...)
	}
	for i := range b.Records {
		body, err := json.Marshal(&b.Records[i])
		if err != nil {
			return fmt.Errorf("encoding a login record: %w", err)
		}
		add(b.Records[i].Domain, loginsKey(b.Records[i].Domain), "r", body)
	}
	for i := range b.Messages {
		body, err := json.Marshal(&b.Messages[i])
		if err != nil {
			return fmt.Errorf("encoding a message record: %w", err)
		}
		add(b.Messages[i].Domain, messagesKey(b.Messages[i].Domain), "r", body)
	}
	for i := range b.Closings {
		c := b.Closings[i]
		c.Login = nil
		body, err := json.Marshal(&c)
		if err != nil {
			return fmt.Errorf("encoding a login record's end: %w", err)
		}
		add(b.Closings[i].Domain, closedKey(b.Closings[i].Domain), "c", b.Closings[i].ID, body)
	}
	var damage error
	for _, p := range parts {
		err := wrap(deliver.Run(ctx, r.client, p.keys, p.args...).Err())
		if errors.Is(err, store.ErrDamaged) {
			damage = err
		} else if err != nil {
			return err // those that were written are not written again
		}
	}
	return damage
}

// Expire forgets a domain's records that are older than the retention: the site's, or that of the
// domain if it is shorter; 0 for none of its own.
func (r *Redis) Expire(ctx context.Context, domain string, now time.Time, retention time.Duration) error {
	keep, trim := r.opt.Retention, r.client.XTrimMinIDApprox
	if retention > 0 && (keep == 0 || retention < keep) {
		keep = retention
		trim = func(ctx context.Context, key, oldest string, _ int64) *redis.IntCmd {
			return r.client.XTrimMinID(ctx, key, oldest)
		}
	}
	for _, key := range []string{oldLoginsKey(domain), oldMessagesKey(domain), loginsKey(domain), messagesKey(domain)} {
		if keep <= 0 {
			break
		}
		if err := trim(ctx, key, strconv.FormatInt(now.Add(-keep).UnixMilli(), 10), 0).Err(); err != nil {
			return wrap(err)
		}
	}
	if r.opt.MaxRecords > 0 {
		for _, key := range []string{oldLoginsKey(domain), oldMessagesKey(domain)} {
			if err := r.client.XTrimMaxLenApprox(ctx, key, r.opt.MaxRecords, 0).Err(); err != nil {
				return wrap(err)
			}
		}
	}
	first, err := r.oldest(ctx, oldLoginsKey(domain), loginsKey(domain), "-", 1)
	if err != nil {
		return err
	}
	if len(first) == 0 {
		return wrap(r.client.Del(ctx, closedKey(domain)).Err())
	}
	var oldest store.LoginRecord
	if err := decodeRecord(first[0], &oldest); err != nil {
		return err
	}
	for cursor := uint64(0); ; {
		list, next, err := r.client.HScan(ctx, closedKey(domain), cursor, "", 1000).Result()
		if err != nil {
			return wrap(err)
		}
		var gone []string
		for i := 0; i+1 < len(list); i += 2 {
			// Records' ids begin with their time, so that they compare by age.
			if list[i] < oldest.ID {
				gone = append(gone, list[i])
			}
		}
		if len(gone) > 0 {
			if err := r.client.HDel(ctx, closedKey(domain), gone...).Err(); err != nil {
				return wrap(err)
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// Forget removes what is stored of deleted accounts of one domain beside the documents: their last
// uses and usual logins. With the domain, it removes the domain's records and report as well; "" keeps them.
func (r *Redis) Forget(ctx context.Context, domain string, accounts []string) error {
	var keys []string
	if domain != "" {
		keys = []string{loginsKey(domain), oldLoginsKey(domain), closedKey(domain), messagesKey(domain), oldMessagesKey(domain), habitsKey(domain), inspectionKey(domain)}
	}
	for _, a := range accounts {
		keys = append(keys, usedKey(a))
	}
	for batch := range slices.Chunk(keys, 500) {
		if err := r.client.Unlink(ctx, batch...).Err(); err != nil {
			return wrap(err)
		}
	}
	if domain != "" {
		return nil // all of its usual logins are gone
	}
	for key, of := range byDomain(accounts) {
		for batch := range slices.Chunk(of, 500) {
			if err := r.client.HDel(ctx, key, batch...).Err(); err != nil {
				return wrap(err)
			}
		}
	}
	return nil
}

func decodeRecord(m redis.XMessage, rec *store.LoginRecord) error {
	body, _ := m.Values["r"].(string)
	if err := access.ReadRecord(body, rec); err != nil {
		return fmt.Errorf("login record %s: %w", m.ID, err)
	}
	return nil
}

// scanned bounds the records that one query reads through; a filter that matches little then
// answers an early page with a cursor to continue from.
const scanned = 50_000

// Records returns login records, newest first. next is the cursor of the next page, "" at the end.
func (r *Redis) Records(ctx context.Context, q store.RecordQuery) (items []store.LoginRecord, next string, err error) {
	decode := func(page []redis.XMessage) ([]store.LoginRecord, error) { return r.closed(ctx, q.Domain, page) }
	return search(ctx, r, []string{loginsKey(q.Domain), oldLoginsKey(q.Domain)}, window{q.Since, q.Cursor, q.Limit}, decode, func(rec *store.LoginRecord) bool { return matches(rec, &q) })
}

// window selects a part of a stream: records since a time, older than the cursor, 1 to 1000 of them.
type window struct {
	since  time.Time
	cursor string
	limit  int
}

// search returns the records that match of streams, of which the first is the newest, newest first,
// and the cursor of the next page, "" at the end. It reads through a bounded number, see [scanned]. Decode returns a record for each
// entry.
func search[T any](ctx context.Context, r *Redis, keys []string, p window, decode func([]redis.XMessage) ([]T, error), match func(*T) bool) (items []T, next string, err error) {
	limit := min(max(p.limit, 1), 1000)
	// The stream is ordered by the time at which records were written, which may be later than that
	// of the login or message: only the lower end can be cut off here.
	upper, lower := "+", "-"
	if !p.since.IsZero() {
		lower = strconv.FormatInt(p.since.UnixMilli(), 10)
	}
	if p.cursor != "" {
		if !isStreamID(p.cursor) {
			return nil, "", store.ErrBadCursor
		}
		upper = "(" + p.cursor
	}
	for read := 0; read < scanned; {
		entries, err := r.client.XRevRangeN(ctx, keys[0], upper, lower, 500).Result()
		if err != nil {
			return nil, "", wrap(err)
		}
		batch, err := decode(entries)
		if err != nil {
			return nil, "", err
		}
		for i := range batch {
			next = entries[i].ID
			if !match(&batch[i]) {
				continue
			}
			if items = append(items, batch[i]); len(items) == limit {
				return items, next, nil
			}
		}
		read += len(entries)
		if len(entries) > 0 {
			upper = "(" + next
		}
		if len(entries) < 500 {
			if keys = keys[1:]; len(keys) == 0 {
				return items, "", nil
			}
		}
	}
	return items, next, nil
}

// lateRecord is how far the clock of Redis may be behind that of a daemon.
const lateRecord = time.Minute

// Record returns one login record of a domain, or [store.ErrNoRecord]. A record's id begins with its time, and it is written later
// than that, unless a daemon's clock is ahead of Redis's.
func (r *Redis) Record(ctx context.Context, domain, id string) (*store.LoginRecord, error) {
	ms, err := strconv.ParseInt(id[:min(len(id), 12)], 16, 64)
	if _, bad := hex.DecodeString(id); err != nil || bad != nil {
		return nil, store.ErrNoRecord
	}
	at, before := strconv.FormatInt(ms, 10), strconv.FormatInt(max(0, ms-lateRecord.Milliseconds()), 10)
	for _, key := range []string{loginsKey(domain), oldLoginsKey(domain)} {
		for _, part := range [][2]string{{at, "+"}, {before, "(" + at}} {
			rec, err := r.find(ctx, domain, key, id, part[0], part[1])
			if !errors.Is(err, store.ErrNoRecord) {
				return rec, err
			}
		}
	}
	return nil, store.ErrNoRecord
}

// find looks for a record between two places of a stream, in as many records as one query reads
// through.
func (r *Redis) find(ctx context.Context, domain, key, id, lower, upper string) (*store.LoginRecord, error) {
	mark := `"id":"` + id + `"`
	for read := 0; read < scanned; {
		page, err := r.client.XRangeN(ctx, key, lower, upper, 500).Result()
		if err != nil {
			return nil, wrap(err)
		}
		for i := range page {
			if body, _ := page[i].Values["r"].(string); !strings.Contains(body, mark) {
				continue // most, and decoding is slow
			}
			found, err := r.closed(ctx, domain, page[i:i+1])
			if err != nil {
				return nil, err
			}
			if found[0].ID == id {
				return &found[0], nil
			}
		}
		if len(page) < 500 {
			break
		}
		read += len(page)
		lower = "(" + page[len(page)-1].ID
	}
	return nil, store.ErrNoRecord
}

// closed decodes records and puts in how those ended that were open.
func (r *Redis) closed(ctx context.Context, domain string, page []redis.XMessage) ([]store.LoginRecord, error) {
	batch := make([]store.LoginRecord, len(page))
	var open []string
	for i := range page {
		if err := decodeRecord(page[i], &batch[i]); err != nil {
			return nil, err
		}
		if batch[i].Outcome.String() == "next" {
			open = append(open, batch[i].ID)
		}
	}
	if len(open) == 0 {
		return batch, nil
	}
	values, err := r.client.HMGet(ctx, closedKey(domain), open...).Result()
	if err != nil {
		return nil, wrap(err)
	}
	ends := make(map[string]store.Closing, len(open))
	for i, v := range values {
		body, ok := v.(string)
		if !ok {
			continue
		}
		var c store.Closing
		if err := json.Unmarshal([]byte(body), &c); err != nil {
			return nil, fmt.Errorf("end of login record %s: %w", open[i], err)
		}
		ends[open[i]] = c
	}
	for i := range batch {
		if c, ok := ends[batch[i].ID]; ok {
			batch[i].Outcome, batch[i].Reason, batch[i].ClosedAt, batch[i].Abnormal = c.Outcome, c.Reason, c.Time, c.Abnormal
			if c.Note != "" {
				batch[i].Note = strings.TrimPrefix(batch[i].Note+"; "+c.Note, "; ")
			}
		}
	}
	return batch, nil
}

func matches(rec *store.LoginRecord, q *store.RecordQuery) bool {
	return (q.Account == "" || rec.Account == q.Account) &&
		(q.IP == "" || rec.IP == q.IP || rec.Pseudonymised && rec.IP == q.Hidden.IP) &&
		(q.Outcome == "" || rec.Outcome.String() == q.Outcome) &&
		(q.Reason == "" || string(rec.Reason) == q.Reason) &&
		(q.Policy == "" || rec.PolicyID == q.Policy || slices.Contains(rec.WouldRefuse, q.Policy)) &&
		(q.Client == "" || string(rec.Client) == q.Client) &&
		(q.Region == "" || rec.Region == q.Region) &&
		(q.Device == "" || rec.CredentialID == q.Device || rec.Credential == q.Device || rec.ClientID == q.Device || rec.Pseudonymised && rec.ClientID == q.Hidden.Device) &&
		(!q.Abnormal || len(rec.Abnormal) > 0) &&
		(!q.Network.IsValid() || q.Network.Contains(address.IPOf(rec.IP)) ||
			rec.Pseudonymised && q.Hidden.Network != "" && strings.HasPrefix(rec.IP, q.Hidden.Network)) &&
		(q.Since.IsZero() || !rec.Time.Before(q.Since)) &&
		(q.Until.IsZero() || !rec.Time.After(q.Until))
}

// Touch writes last uses of an account's secure passwords, by their ids.
func (r *Redis) Touch(ctx context.Context, account string, uses map[string]store.LastUse) error {
	defer r.timed("uses")()
	values := make([]any, 0, 2*len(uses))
	for id, u := range uses {
		body, err := json.Marshal(u)
		if err != nil {
			return fmt.Errorf("encoding a last use: %w", err)
		}
		values = append(values, id, body)
	}
	return wrap(r.client.HSet(ctx, usedKey(account), values...).Err())
}

// LastUses returns the last uses of an account's secure passwords, by their ids.
func (r *Redis) LastUses(ctx context.Context, account string) (map[string]store.LastUse, error) {
	m, err := r.client.HGetAll(ctx, usedKey(account)).Result()
	if err != nil {
		return nil, wrap(err)
	}
	uses := make(map[string]store.LastUse, len(m))
	for id, body := range m {
		var u store.LastUse
		if err := json.Unmarshal([]byte(body), &u); err != nil {
			return nil, fmt.Errorf("last use of %s: %w", id, err)
		}
		uses[id] = u
	}
	return uses, nil
}

// AppendEvents writes events. Each is written with its age: clocks of daemons are not compared.
func (r *Redis) AppendEvents(ctx context.Context, events []store.Event) error {
	defer r.timed("events")()
	now := time.Now()
	_, err := r.client.Pipelined(ctx, func(p redis.Pipeliner) error {
		for _, e := range events {
			values := []any{"o", e.Origin, "t", e.Time.UnixMilli(), "d", max(0, now.Sub(e.Time).Milliseconds()), "e", string(e.Kind)}
			if e.Token != 0 {
				values = append(values, "k", strconv.FormatUint(e.Token, 16))
			}
			for _, f := range [...][2]string{{"a", e.Account}, {"i", e.IP}, {"p", e.Protocol}, {"s", e.Service}, {"c", e.Credential}} {
				if f[1] != "" {
					values = append(values, f[0], f[1])
				}
			}
			p.XAdd(ctx, &redis.XAddArgs{Stream: tag(store.Global) + "events", MaxLen: keepEvents, Approx: true, Values: values})
		}
		return nil
	})
	return wrap(err)
}

// clock returns the clock of the server that has a key, in seconds.
var clock = redis.NewScript(`return redis.call('TIME')[1]`)

// FollowEvents delivers the events behind a place, or when that is empty those of the last time,
// oldest first, until ctx ends or Redis fails. How old an event is, is read from Redis' clock; once
// all older ones are read, an event is of now. So no daemon's clock matters, nor that it is set.
func (r *Redis) FollowEvents(ctx context.Context, after string, last time.Duration, deliver func(store.Event)) error {
	stream := tag(store.Global) + "events"
	client, done := r.follower(ctx)
	defer done()
	seconds, err := clock.Run(ctx, client, []string{stream}).Int64()
	if err != nil {
		return wrap(err)
	}
	server, started := time.Unix(seconds, 0), time.Now()
	if after == "" {
		after = strconv.FormatInt(server.Add(-last).UnixMilli(), 10) + "-0"
	}
	for live := false; ctx.Err() == nil; {
		const most = 5000
		got, err := client.XRead(ctx, &redis.XReadArgs{Streams: []string{stream, after}, Count: most, Block: 2 * time.Second}).Result()
		if errors.Is(err, redis.Nil) {
			live = true
			continue
		}
		if err != nil {
			return wrap(err)
		}
		now := time.Now()
		for _, m := range got[0].Messages {
			after = m.ID
			text := func(k string) string { s, _ := m.Values[k].(string); return s }
			if text("t") == "" {
				continue // not an event of ours
			}
			at := now
			id, _, _ := strings.Cut(m.ID, "-")
			if ms, err := strconv.ParseInt(id, 10, 64); !live && err == nil {
				at = started.Add(min(0, time.UnixMilli(ms).Sub(server)))
			}
			age, _ := strconv.ParseInt(text("d"), 10, 64) // absent from events of older daemons
			token, _ := strconv.ParseUint(text("k"), 16, 64)
			deliver(store.Event{
				Place: m.ID, Origin: text("o"), Time: at.Add(-time.Duration(max(0, age)) * time.Millisecond), Kind: store.EventKind(text("e")), Token: token,
				Account: text("a"), IP: text("i"), Protocol: text("p"), Service: text("s"), Credential: text("c"),
			})
		}
		live = live || len(got[0].Messages) < most
	}
	return ctx.Err()
}

func isStreamID(s string) bool {
	ms, seq, ok := strings.Cut(s, "-")
	if !ok {
		return false
	}
	_, err1 := strconv.ParseUint(ms, 10, 64)
	_, err2 := strconv.ParseUint(seq, 10, 64)
	return err1 == nil && err2 == nil
}

// Audit returns audit entries, newest first, and the cursor of the next page. A domain's entries stand in its shard and among the global
// ones; all shards' are merged by time.
func (r *Redis) Audit(ctx context.Context, q store.AuditQuery) (items []store.AuditEntry, next string, err error) {
	limit := min(max(q.Limit, 1), 1000)
	shards := []store.Shard{store.Global}
	if q.Domain != "" {
		shards = append(shards, store.ShardOf(q.Domain))
	} else {
		for s := range store.Global {
			shards = append(shards, s)
		}
	}
	// The cursor is the number of the oldest entry shown, for each shard.
	upper := map[store.Shard]uint64{}
	if q.Cursor != "" {
		for part := range strings.SplitSeq(q.Cursor, ".") {
			s, n, _ := strings.Cut(part, "-")
			shard, err1 := strconv.Atoi(s)
			number, err2 := strconv.ParseUint(n, 10, 64)
			if err1 != nil || err2 != nil || shard < 0 || shard >= store.Shards {
				return nil, "", store.ErrBadCursor
			}
			upper[store.Shard(shard)] = number
		}
	}
	type numbered struct {
		shard store.Shard
		n     uint64
		e     store.AuditEntry
	}
	var all []numbered
	for _, s := range shards {
		from := "+"
		if n, ok := upper[s]; ok {
			from = "(" + strconv.FormatUint(n, 10) + "-0"
		}
		found, past := 0, false
		for found < limit+1 && !past {
			page, err := r.client.XRevRangeN(ctx, tag(s)+"audit", from, "-", 500).Result()
			if err != nil {
				return nil, "", wrap(err)
			}
			for _, m := range page {
				got, err := received(m)
				if err != nil {
					return nil, "", err
				}
				body, _ := m.Values["a"].(string)
				var e store.AuditEntry
				if err := json.Unmarshal([]byte(body), &e); err != nil {
					return nil, "", fmt.Errorf("audit entry %d of shard %d: %w", got.N, s, err)
				}
				e.ID = fmt.Sprintf("%d-%d", s, got.N)
				from = "(" + m.ID
				past = e.Time.Before(q.Since.Add(-lateRecord)) // a shard's entries are in order, but for the daemons' clocks
				if (q.Domain == "" || e.Domain == q.Domain) && !e.Time.Before(q.Since) {
					all = append(all, numbered{s, got.N, e})
					found++
				}
			}
			if len(page) < 500 {
				break
			}
		}
	}
	slices.SortStableFunc(all, func(a, b numbered) int {
		if c := b.e.Time.Compare(a.e.Time); c != 0 {
			return c
		}
		if c := cmp.Compare(a.shard, b.shard); c != 0 {
			return c
		}
		return cmp.Compare(b.n, a.n)
	})
	for i, x := range all {
		if i == limit {
			var parts []string
			for _, s := range shards {
				if n, ok := upper[s]; ok {
					parts = append(parts, fmt.Sprintf("%d-%d", s, n))
				}
			}
			return items, strings.Join(parts, "."), nil
		}
		upper[x.shard] = x.n
		items = append(items, x.e)
	}
	return items, "", nil
}
