// Package hold keeps messages on the node that accepted them: those that wait for approval, and
// copies and notices that are to be sent.
//
//	hold_dir/7c0e5a1b2f3d4e60.eml    the text as Postfix sent it, 0600
//	hold_dir/7c0e5a1b2f3d4e60.json   envelope, rule, expiry, and how far it is
//
// Both are on the disk before the client reads 250. The [Keeper] then writes a document to the
// store, from which every node lists held messages and where they are decided. The node with the
// text acts on the decision: it passes an approved message to its Postfix, and reports a rejection
// to the sender.
//
//	held ─ approved ─► queued ─► sending ─► accepted ─► done
//	  └─ rejected ───────────────────────────────────────▲
//
// A message is sent once although the daemon may be killed at any moment. "sending" is written
// before the data ends, "accepted" by our milter as it accepts the message from our own connection:
// what is still "sending" at the next start was not accepted, and is sent again. Between "accepted"
// and Postfix's reply, Postfix alone knows. A message that was there when the daemon was killed is
// "stuck": it is not sent again unless an administrator, who finds its queue id in the note and in
// Postfix's log, approves it again.
//
// What is sent apart begins as "queued". Its item stays for some hours after it was sent: if the
// daemon is killed between the disk and the 250, the client sends again, and these recipients have
// their message already. This needs a Message-ID; without, the message is sent again.
//
// # Diagnostics
//
// Messages that cannot be sent are logged and tried again, after at most 15 minutes. Copies and
// notices are given up after five days. If Postfix refuses a released message, or some of its
// recipients, for good, the sender gets a notice if they were authenticated; without such a sender
// the message is stuck. So it is with what is sent apart, and after five days as well.
package hold

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/store"
)

const (
	// maxSenders bounds the messages that are sent at the same time.
	maxSenders = 8
	// maxPause is the longest time between two attempts to send a message.
	maxPause = 15 * time.Minute
	// giveUp is how long copies and notices are tried, as Postfix tries to deliver.
	giveUp = 5 * 24 * time.Hour
	// sentFor is how long it is remembered that a message was sent apart.
	sentFor = 6 * time.Hour
	// maxSent bounds the messages that are remembered.
	maxSent = 100_000
	// sweepEvery is the time between two searches for those that can be forgotten.
	sweepEvery = time.Minute
)

// ErrNotSending reports that the message that a connection carries is not being sent.
var ErrNotSending = errors.New("the message is not being sent")

// Keeper holds, releases and sends the messages of one directory.
type Keeper struct {
	Dir    *Dir
	Client *inject.Client
	Store  *store.Store
	Node   string // name of this node in the store
	Quota  int64  // octets of held messages and copies; 0 for no bound
	Log    hclog.Logger
	// Link returns the address of a page on which an approver decides; nil for none.
	Link func(domain, id, approver string, expires time.Time) string

	mu      sync.Mutex
	entries map[string]*entry
	changed chan struct{} // holds one value when there may be something to do
	senders sync.WaitGroup
	copies  map[[sha256.Size]byte]time.Time // when a message was copied, by Message-ID, envelope and monitor
	apart   map[string]*Item                // that were sent apart, by digest
	swept   time.Time
}

// entry is a message in memory. While it is busy, only the goroutine that works on it changes the
// item, under the lock.
type entry struct {
	item     *Item
	busy     bool
	unsafe   bool // it is not on the disk yet
	stuck    bool // its document says so
	attempts int
	next     time.Time // of the next attempt
}

// Load reads the directory. It comes before everything else.
func (k *Keeper) Load() error {
	items, err := k.Dir.Items()
	if err != nil {
		return fmt.Errorf("reading held messages: %w", err)
	}
	k.entries, k.changed, k.apart = map[string]*entry{}, make(chan struct{}, 1), map[string]*Item{}
	for _, item := range items {
		switch {
		case item.State == Done && item.Kind == KindApart && !k.Dir.HasText(item.ID):
			k.apart[item.Digest] = item
			continue
		case item.State == Sending && item.ByMilter:
			item.State = Queued // it was not accepted
		case item.State == Sending, item.State == Accepted:
			item.State = Unconfirmed
		default:
			k.entries[item.ID] = &entry{item: item}
			continue
		}
		if err := k.Dir.Put(item); err != nil {
			return fmt.Errorf("resuming held messages: %w", err)
		}
		k.entries[item.ID] = &entry{item: item}
	}
	return nil
}

// add makes messages of one text durable. Messages that are here already, because a client repeats
// those whose acceptance did not reach it, are left out.
func (k *Keeper) add(text *Text, items ...*Item) error {
	now := time.Now().UTC()
	var fresh []*Item
	k.mu.Lock()
	if used := k.used(); k.Quota > 0 && items[0].Kind != KindNotice && used+int64(len(items))*text.size > k.Quota {
		k.mu.Unlock()
		return fmt.Errorf("mail.hold_quota: %d of %d octets are used, and the message needs %d", used, k.Quota, int64(len(items))*text.size)
	}
	for _, item := range items {
		item.Digest, item.Created = text.Digest(&item.Envelope)+item.reason(), now
		if item.ID == "" {
			item.ID = store.NewID()
		}
		if item.Kind == KindApart && item.Held.MessageID == "" {
			item.Digest += "/" + item.ID // it may be another message with the same text
		}
		if !k.has(item) {
			fresh = append(fresh, item)
			k.entries[item.ID] = &entry{item: item, unsafe: true}
		}
	}
	k.mu.Unlock()
	err := text.Commit(fresh...)
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, item := range fresh {
		if k.entries[item.ID].unsafe = false; err != nil {
			delete(k.entries, item.ID)
		}
	}
	k.wake()
	return err
}

// used returns how many octets the messages take. The lock is held.
func (k *Keeper) used() (n int64) {
	for _, e := range k.entries {
		n += e.item.Size
	}
	return n
}

// Usage returns how many octets the messages take, and how many they may take; 0 for no bound.
func (k *Keeper) Usage() (used, quota int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.used(), k.Quota
}

// reason distinguishes messages with the same text and envelope.
func (i *Item) reason() string {
	switch {
	case i.Held == nil:
		return "/" + string(i.Kind)
	case i.Kind == KindApart:
		return "/" + string(i.Kind) + "/" + i.Held.Domain + "/" + i.Held.Rule
	}
	return "/" + i.Held.Domain + "/" + i.Held.Rule
}

func (k *Keeper) has(item *Item) bool {
	if k.entries[item.ID] != nil || k.apart[item.Digest] != nil {
		return true
	}
	for _, e := range k.entries {
		if e.item.Digest == item.Digest && !e.unsafe { // an unsafe one may yet fail
			return true
		}
	}
	return false
}

func (k *Keeper) wake() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Sees records that our milter sees what is being sent. It is called before the data.
func (k *Keeper) Sees(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e := k.entries[id]; e != nil {
		e.item.ByMilter = true
	}
}

// Accept records that our milter accepts a message that is being sent, as Postfix's queueID. After
// an error the milter must not accept it.
func (k *Keeper) Accept(id, queueID string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[id]
	if e == nil || e.item.State != Sending {
		return ErrNotSending
	}
	return k.put(e, func(i *Item) { i.State, i.QueueID = Accepted, queueID })
}

// put changes an item, on the disk first. The lock is held.
func (k *Keeper) put(e *entry, change func(*Item)) error {
	next := *e.item
	change(&next)
	if err := k.Dir.Put(&next); err != nil {
		return fmt.Errorf("recording the state of a message: %w", err)
	}
	e.item = &next
	return nil
}

func (k *Keeper) set(e *entry, change func(*Item)) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.put(e, change)
}

// Run carries out decisions and sends queued messages, until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	defer k.senders.Wait()
	watcher := k.Store.State.Watch()
	defer watcher.Close()
	k.senders.Go(func() {
		for {
			e, err := watcher.Next(ctx)
			if err != nil {
				return
			}
			if e.Resync || len(e.Domains) > 0 {
				k.wake()
			}
		}
	})
	tick := time.NewTicker(time.Second) // for what is due: expiries and attempts
	defer tick.Stop()
	for {
		k.work(ctx, time.Now())
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.changed:
		}
	}
}

// work starts the steps that are possible now.
func (k *Keeper) work(ctx context.Context, now time.Time) {
	loaded, _ := k.Store.State.Ready()
	k.mu.Lock()
	defer k.mu.Unlock()
	if now.Sub(k.swept) > sweepEvery {
		k.swept = now
		k.sweep(now)
	}
	busy := 0
	for _, e := range k.entries {
		if e.busy {
			busy++
		}
	}
	for _, e := range k.entries {
		if busy >= maxSenders {
			return
		}
		if e.busy || e.unsafe || now.Before(e.next) || e.item.Held != nil && !loaded {
			continue
		}
		step := k.step(e, now)
		if step == nil {
			continue
		}
		busy++
		e.busy = true
		k.senders.Go(func() {
			err := step(ctx, e)
			k.mu.Lock()
			e.busy = false
			if err == nil {
				e.attempts, e.next = 0, time.Time{}
			} else if ctx.Err() == nil {
				pause := min(time.Second<<min(e.attempts, 10), maxPause)
				e.attempts++
				e.next = time.Now().Add(pause)
				k.Log.Warn("a message could not be processed, trying again", "id", e.item.ID, "state", string(e.item.State), "error", err, "next", pause)
			}
			k.mu.Unlock()
			k.wake()
		})
	}
}

// step returns the next step for a message; nil for none.
func (k *Keeper) step(e *entry, now time.Time) func(context.Context, *entry) error {
	item := e.item
	if item.Held == nil {
		switch {
		case item.State == Queued && now.Sub(item.Created) < giveUp:
			return k.send
		case item.State == Queued:
			k.Log.Error("a message could not be delivered and is deleted", "id", item.ID, "kind", string(item.Kind), "recipients", len(item.Envelope.Recipients))
		}
		return k.remove
	}
	doc, indexed := k.Store.State.Held(item.Held.Domain, item.ID)
	switch item.State {
	case Held:
		switch {
		case !indexed:
			return k.index
		case doc.Doc.State == store.HeldApproved:
			return k.release
		case doc.Doc.State == store.HeldRejected:
			return k.reject
		case !now.Before(item.Held.Expires) && doc.Doc.State == store.HeldWaiting:
			return k.expire
		}
		return nil
	case Queued:
		if item.Kind == KindApart && !indexed && now.Sub(item.Created) >= giveUp {
			return k.abandon
		}
		return k.send
	case Unconfirmed:
		switch {
		case !e.stuck && (!indexed || doc.Doc.State != store.HeldStuck):
			return k.reportStuck
		case doc.Doc.State == store.HeldApproved:
			return k.release
		case doc.Doc.State == store.HeldRejected:
			return k.remove
		}
		return nil
	case Done:
		return k.remove
	case Sending, Accepted: // after an error while it was written
		return k.resolve
	}
	return nil
}

// resolve deals with a message whose last attempt ended without a result.
func (k *Keeper) resolve(_ context.Context, e *entry) error {
	return k.set(e, func(i *Item) {
		if i.State == Sending && i.ByMilter {
			i.State = Queued
		} else {
			i.State = Unconfirmed
		}
	})
}

// release queues an approved message.
func (k *Keeper) release(_ context.Context, e *entry) error {
	return k.set(e, func(i *Item) {
		i.State = Queued
		if !slices.Contains(i.Rules, i.Held.Rule) {
			i.Rules = append(slices.Clone(i.Rules), i.Held.Rule)
		}
	})
}

// remove deletes a message, and its document before its files.
func (k *Keeper) remove(ctx context.Context, e *entry) error {
	item := e.item
	if item.Held != nil {
		if item.State != Done {
			if err := k.set(e, func(i *Item) { i.State = Done }); err != nil {
				return err
			}
		}
		_, indexed := k.Store.State.Held(item.Held.Domain, item.ID)
		if item.Kind == KindHeld || e.stuck || indexed {
			if err := k.unindex(ctx, item); err != nil {
				return err
			}
		}
	}
	if item.Kind == KindApart && item.Held.MessageID != "" {
		if err := k.Dir.RemoveText(item.ID); err != nil {
			return err
		}
		k.mu.Lock()
		defer k.mu.Unlock()
		delete(k.entries, item.ID)
		k.apart[item.Digest] = e.item
		return nil
	}
	if err := k.Dir.Remove(item.ID); err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.entries, item.ID)
	return nil
}

// sweep forgets what was sent apart long ago, or beyond the bound. The lock is held.
func (k *Keeper) sweep(now time.Time) {
	for digest, item := range k.apart {
		if now.Sub(item.Created) < sentFor && len(k.apart) <= maxSent {
			continue
		}
		if err := k.Dir.Forget(item.ID); err != nil && !errors.Is(err, fs.ErrNotExist) {
			k.Log.Warn("forgetting a message that was sent", "id", item.ID, "error", err)
		}
		delete(k.apart, digest)
	}
}

// abandon ends the attempts to send a message apart as if Postfix had refused it for good.
func (k *Keeper) abandon(_ context.Context, e *entry) error {
	res := &inject.Result{Refused: map[string]*inject.Reply{}}
	for _, r := range e.item.Envelope.Recipients {
		res.Refused[r.Address] = &inject.Reply{Code: 554, Text: "5.4.7 The message could not be delivered in time."}
	}
	return k.sent(e, res)
}

// send passes a message to Postfix.
func (k *Keeper) send(ctx context.Context, e *entry) error {
	if err := k.set(e, func(i *Item) { i.ByMilter, i.QueueID = false, "" }); err != nil {
		return err
	}
	item := e.item
	text, err := k.Dir.Text(item.ID)
	if err != nil {
		return err
	}
	defer func() { _ = text.Close() }()
	res, err := k.Client.Send(ctx, &inject.Message{
		Envelope: item.Envelope, Body: text,
		Pass:      inject.Pass{ID: item.ID, Rules: item.Rules, Notice: item.Held == nil},
		BeforeEnd: func() error { return k.set(e, func(i *Item) { i.State = Sending }) },
	})
	var reply *inject.Reply
	switch {
	case err == nil:
		return k.sent(e, res)
	case errors.As(err, &reply) && reply.Permanent():
		res := &inject.Result{Refused: map[string]*inject.Reply{}}
		for _, r := range item.Envelope.Recipients {
			res.Refused[r.Address] = reply
		}
		return k.sent(e, res)
	}
	// Only a reply says that the message was not accepted.
	fate := k.set(e, func(i *Item) {
		switch {
		case reply != nil, i.State == Queued, i.State == Sending && i.ByMilter:
			i.State = Queued
		default:
			i.State = Unconfirmed
		}
	})
	return errors.Join(err, fate)
}

// sent records what Postfix answered. Recipients that it does not take now are tried again.
func (k *Keeper) sent(e *entry, res *inject.Result) error {
	item := e.item
	if len(res.Accepted) > 0 {
		k.Log.Info("message sent", "id", item.ID, "kind", string(item.Kind), "recipients", len(res.Accepted), "reply", res.Reply)
	}
	var left []inject.Recipient
	for _, r := range item.Envelope.Recipients {
		if res.Deferred[r.Address] != nil {
			left = append(left, r)
		}
	}
	for address, reply := range res.Refused {
		k.Log.Warn("Postfix refuses a message", "id", item.ID, "kind", string(item.Kind), "recipient", address, "reply", reply.Error())
	}
	if item.Held != nil && len(res.Refused) > 0 {
		if item.Held.Account == "" {
			return k.set(e, func(i *Item) {
				i.State = Unconfirmed
				i.Envelope.Recipients = slices.DeleteFunc(slices.Clone(i.Envelope.Recipients), func(r inject.Recipient) bool {
					return slices.Contains(res.Accepted, r.Address)
				})
				i.Trouble = refusals(res.Refused)
			})
		}
		if err := k.notify(undelivered(item, res.Refused)); err != nil {
			return err
		}
	}
	if len(left) == 0 {
		return k.set(e, func(i *Item) { i.State, i.Trouble = Done, "" })
	}
	if err := k.set(e, func(i *Item) { i.State, i.Envelope.Recipients = Queued, left }); err != nil {
		return err
	}
	return fmt.Errorf("recipients are deferred: %s", refusals(res.Deferred))
}
