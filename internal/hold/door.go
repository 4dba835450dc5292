package hold

import (
	"crypto/sha256"
	"fmt"
	"io"
	"iter"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/inject"
	"github.com/drawbridge/drawbridge/internal/mailflow"
)

const (
	// defaultExpires is how long a message waits for approval if the rule does not say.
	defaultExpires = 72 * time.Hour
	// copiedFor is how long it is remembered that a message was copied, for a content filter of the
	// site that returns it.
	copiedFor = time.Hour
	// maxCopied bounds the copies that are remembered.
	maxCopied = 100_000
	// maxApprovers bounds the approvers that a department contributes.
	maxApprovers = 100
)

// PassOf returns what is known about the message that is sent from an address and port now; nil for
// nothing.
func (k *Keeper) PassOf(ip netip.Addr, port uint16) *mailflow.Pass {
	p := k.Client.PassOf(ip, port)
	if p == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	e := k.entries[p.ID]
	if e == nil {
		return nil
	}
	return &mailflow.Pass{
		ID: p.ID, Login: e.item.Login, IP: e.item.IP, Trace: e.item.Trace, Rules: p.Rules, Notice: p.Notice, Sender: p.Sender, Recipients: p.Recipients,
		Spam: e.item.Spam, Apart: e.item.Kind == KindApart,
	}
}

// Pass is PassOf for the milter: it notes that the milter sees the message, which must come before
// the data.
func (k *Keeper) Pass(ip netip.Addr, port uint16) *mailflow.Pass {
	p := k.PassOf(ip, port)
	if p != nil {
		k.Sees(p.ID)
	}
	return p
}

// Keep makes durable what the effects of rules and groups want kept of a message, and returns the
// indices of the recipients for whom it is held, and of those to whom it is sent apart. An approver
// cannot approve their own message: if there is no other, it is not held.
func (k *Keeper) Keep(m *mailflow.Whole, judged []mailflow.Judged) (held, apart []int, err error) {
	approvers := map[string][]string{} // by domain and rule
	judged = slices.Clone(judged)
	for i := range judged {
		judged[i].Effects = slices.DeleteFunc(slices.Clone(judged[i].Effects), func(e mailflow.Effect) bool {
			if !e.Holds() {
				return false
			}
			list, alone := k.approvers(&e, judged[i].Sender)
			approvers[e.Domain+"/"+e.ID()] = list
			return alone
		})
	}
	var items, copies []*Item
	now := time.Now()
	parcels := mailflow.Parcels(judged)
	for _, p := range parcels {
		item := &Item{Envelope: inject.Envelope{Sender: m.Envelope.Sender, Params: m.Params}, Login: m.Envelope.Login, IP: m.Envelope.IP}
		if p.Monitor != "" {
			if k.copied(m, &p, now) {
				continue
			}
			item.Kind, item.State = KindCopy, Queued
			item.Envelope = inject.Envelope{Recipients: []inject.Recipient{{Address: p.Monitor, Params: []string{"NOTIFY=NEVER"}}}}
			for _, param := range m.Params {
				if word := strings.ToUpper(param); strings.HasPrefix(word, "BODY=") || word == "SMTPUTF8" {
					item.Envelope.Params = append(item.Envelope.Params, param)
				}
			}
			copies = append(copies, item)
			continue
		}
		for _, i := range p.Recipients {
			item.Envelope.Recipients = append(item.Envelope.Recipients, inject.Recipient(m.Recipients[i]))
		}
		item.Kind, item.State, item.Trace, item.Spam = KindHeld, Held, m.Trace, p.Spam
		if p.Apart {
			item.Kind, item.State = KindApart, Queued
			apart = append(apart, p.Recipients...)
		} else {
			held = append(held, p.Recipients...)
		}
		item.Held = about(m, &p, approvers[p.Effect.Domain+"/"+p.Effect.ID()], now)
		if item.Held.Account = ""; m.Envelope.Login != "" {
			item.Held.Account = judged[p.Recipients[0]].Sender
		}
		if pass := k.PassOf(m.Envelope.IP, m.Envelope.Port); pass != nil { // another rule held it before
			item.Login, item.IP, item.Rules, item.Trace = pass.Login, pass.IP, pass.Rules, pass.Trace
			item.Held.Account = judged[p.Recipients[0]].Sender
		}
		items = append(items, item)
	}
	if err := k.write(m, "", items); err != nil {
		return nil, nil, err
	}
	if err := k.write(m, copyField(m), copies); err != nil {
		return nil, nil, err
	}
	for i := range parcels {
		if parcels[i].Monitor != "" {
			k.rememberCopy(m, &parcels[i], now)
		}
	}
	return held, apart, nil
}

// write keeps the message under a field of ours.
func (k *Keeper) write(m *mailflow.Whole, field string, items []*Item) error {
	if len(items) == 0 {
		return nil
	}
	ours := *m // without fields that pretend to be ours
	ours.Header = slices.DeleteFunc(slices.Clone(m.Header), func(f mailflow.Field) bool {
		return len(f.Name) >= len(mailflow.FieldPrefix) && strings.EqualFold(f.Name[:len(mailflow.FieldPrefix)], mailflow.FieldPrefix)
	})
	m = &ours
	text := k.Dir.NewText()
	defer text.Discard()
	if field == "" {
		field = k.received(m)
		if m.Trace != "" { // for a Postfix without our milter
			field = mailflow.FieldTrace + ": " + line(m.Trace) + "\r\n" + field
		}
	}
	_, _ = io.WriteString(text, field)
	text.sum = sha256.New() // without the field, which has the time in it
	for _, part := range [][]byte{m.Head(0), m.Body} {
		_, _ = text.Write(part)
	}
	return k.add(text, items...)
}

// received is the trace of the first reception, which Postfix does not show to milters.
func (k *Keeper) received(m *mailflow.Whole) string {
	with := "ESMTP"
	if m.Envelope.Login != "" {
		with = "ESMTPA"
	}
	name := ""
	if m.Client != "" {
		name = line(m.Client) + " "
	}
	return fmt.Sprintf("Received: from %s[%s] by %s (Drawbridge)\r\n\twith %s id %s; %s\r\n",
		name, m.Envelope.IP, line(k.Node), with, line(m.Envelope.QueueID), time.Now().Format(time.RFC1123Z))
}

// copyField names the envelope of a copied message, which its header does not show: blind copies.
func copyField(m *mailflow.Whole) string {
	var b strings.Builder
	fmt.Fprintf(&b, "X-Drawbridge-Copy: from=<%s>", line(m.Envelope.Sender))
	for i, r := range m.Recipients {
		if i == 100 {
			fmt.Fprintf(&b, ",\r\n\tand %d more", len(m.Recipients)-i)
			break
		}
		fmt.Fprintf(&b, ",\r\n\tto=<%s>", line(r.Address))
	}
	return b.String() + "\r\n"
}

// about is what approvers decide about.
func about(m *mailflow.Whole, p *mailflow.Parcel, approvers []string, now time.Time) *About {
	a := &About{
		Domain: p.Effect.Domain, Rule: p.Effect.ID(), From: m.Envelope.Sender, Subject: line(m.Subject),
		MessageID: line(m.Envelope.MessageID), Approvers: approvers, Expires: now.Add(defaultExpires).UTC(),
	}
	if r := p.Effect.Rule; r != nil {
		a.All, a.Release = r.Action.Need == mailflow.NeedAll, r.Action.Then == mailflow.ThenRelease
		if d, err := time.ParseDuration(r.Action.Expires); err == nil && d > 0 {
			a.Expires = now.Add(d).UTC()
		}
	}
	return a
}

// approvers returns who decides, without the sender of the message, and whether the sender is the
// only one. Where nobody is left of departments, administrators decide.
func (k *Keeper) approvers(e *mailflow.Effect, sender string) (list []string, alone bool) {
	var names []string
	if e.Rule != nil {
		names = e.Rule.Action.Approvers
	} else {
		names = e.Group.Approvers
	}
	add := func(address string) {
		switch {
		case address == sender:
			alone = true
		case !slices.Contains(list, address):
			list = append(list, address)
		}
	}
	for _, name := range names {
		path, isDepartment := strings.CutPrefix(name, mailflow.DepartmentPrefix)
		if !isDepartment {
			add(k.Store.State.Canonical(name))
			continue
		}
		for _, a := range k.Store.State.Accounts(e.Domain, "", 0) {
			if len(list) < maxApprovers && a.Doc.InDepartment(path) && !a.Doc.Suspended {
				add(a.Doc.Address)
			}
		}
	}
	return list, alone && len(list) == 0
}

// copied reports whether a message that a program of this site returns was copied to a monitor
// before.
func (k *Keeper) copied(m *mailflow.Whole, p *mailflow.Parcel, now time.Time) bool {
	if m.Envelope.MessageID == "" || !m.Relayed {
		return false
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for key := range copyKeys(m, p) {
		if at, known := k.copies[key]; !known || now.Sub(at) > copiedFor {
			return false
		}
	}
	return true
}

// rememberCopy remembers that a message was copied to a monitor.
func (k *Keeper) rememberCopy(m *mailflow.Whole, p *mailflow.Parcel, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.copies == nil {
		k.copies = map[[sha256.Size]byte]time.Time{}
	}
	if len(k.copies) >= maxCopied {
		for key, at := range k.copies {
			if now.Sub(at) > copiedFor {
				delete(k.copies, key)
			}
		}
	}
	for key := range copyKeys(m, p) {
		if len(k.copies) < maxCopied {
			k.copies[key] = now
		}
	}
}

// copyKeys names the copies that a parcel stands for, one for each recipient, in keys of a fixed
// size: outsiders choose Message-IDs, and those may be long.
func copyKeys(m *mailflow.Whole, p *mailflow.Parcel) iter.Seq[[sha256.Size]byte] {
	return func(yield func([sha256.Size]byte) bool) {
		for _, i := range p.Recipients {
			text := strings.Join([]string{m.Envelope.MessageID, m.Envelope.Sender, m.Recipients[i].Address, p.Monitor}, "\x00")
			if !yield(sha256.Sum256([]byte(text))) {
				return
			}
		}
	}
}
