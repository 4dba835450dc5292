// Package habit remembers the usual traits of an account's logins, and finds unusual ones: another
// network, region, device, kind of client or hour, or two places too quickly one after the other.
//
// A memory has a bounded number of traits, each a hash of 32 bits with the day it was last seen and on
// how many days. A trait is usual once the user has confirmed it, or once it was seen on three days.
// A trait that was not seen for 90 days is forgotten. All traits of an account's first login are
// usual.
//
// Only successful logins may be added: a refused one can be somebody else's.
//
// The package is pure: time is an argument. A packed memory takes about 10 bytes a trait.
package habit

import (
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"time"
)

// Kind is what is unusual about a login, as login records name it.
type Kind string

// The kinds. A region is judged where a database knows it.
const (
	NewNetwork       Kind = "new_network"
	NewRegion        Kind = "new_region"
	NewDevice        Kind = "new_device"
	NewClient        Kind = "new_client"
	UnusualHour      Kind = "unusual_hour"
	ImpossibleTravel Kind = "impossible_travel"
)

// Login is a login that succeeded.
type Login struct {
	Time time.Time
	IP   netip.Addr
	// Network is the number of the autonomous system, such as AS3320; "" if it is not known: then the
	// address has the network of [Network].
	Network string
	Region  string // "" if unknown
	Device  string // a credential, or what the client says about itself; "" if it says nothing
	Client  string // the client type and the protocol
}

// Previous is the login before, as notices name it.
type Previous struct {
	Time   time.Time
	IP     netip.Addr
	Region string
	Device string
}

// Finding is what is unusual about a login.
type Finding struct {
	Kinds []Kind
	// Fresh reports that some of it was not unusual before: users are notified once, and at most
	// maxNotices times a day.
	Fresh bool
	// Last reports that no further login is fresh today.
	Last bool
	// Doubt says how an impossible travel may be explained; "" if there is none.
	Doubt    string
	Previous Previous
}

const (
	// maxTraits bounds the traits of an account; unusual ones that were not seen for longest go first.
	maxTraits = 48
	// forgetAfter is the number of days after which a trait that was not seen is forgotten.
	forgetAfter = 90
	// usualAfter is the number of days on which a trait must be seen to be usual by itself.
	usualAfter = 3
	// maxNotices bounds the fresh findings of a day. Whoever has a password could otherwise bury the
	// notice of a login under others: clients choose what they say about themselves.
	maxNotices = 10
	// confirmed in place of the number of days.
	confirmed = 255
	// enoughHours is the number of logins after which hours are judged.
	enoughHours = 40
	// tooQuick is the time between two countries that needs an explanation. Neighbours are nearer, and
	// capitals further apart than their borders: therefore the doubt.
	tooQuick = time.Hour
	// tooFast is faster than anybody travels, in km/h; airliners fly at 900.
	tooFast = 1000
	// tooFar is a distance in km below which databases are wrong more often than people are fast.
	tooFar = 200
	// maxText bounds the texts of the previous login, in bytes.
	maxText = 64
)

// The kinds of traits.
const (
	traitNetwork = iota
	traitRegion
	traitDevice
	traitClient
)

var kindOf = [...]Kind{NewNetwork, NewRegion, NewDevice, NewClient}

type trait struct {
	kind byte
	days byte // on which it was seen, or confirmed
	seen uint16
	hash uint32
}

func (t *trait) usual() bool { return t.days >= usualAfter }

// before reports whether a trait is dropped before another: usual ones last, so that nobody pushes
// them out by many unusual ones.
func (t *trait) before(o *trait) bool {
	if t.usual() != o.usual() {
		return o.usual()
	}
	return t.seen < o.seen
}

// Memory is what is usual for one account. The zero Memory knows nothing.
type Memory struct {
	traits []trait
	hours  [24]byte // logins in each hour of the day, UTC, halved when one is full
	last   Previous
	// The day on which a finding was fresh last, and how many were.
	noticed uint16
	notices byte
}

// Network returns the part of an address that counts as one network: /24 of IPv4, /48 of IPv6.
func Network(ip netip.Addr) netip.Prefix {
	bits := 24
	if ip.Is6() {
		bits = 48
	}
	p, _ := ip.Prefix(bits) // the zero Prefix for an invalid address
	return p
}

// dayOf numbers days in UTC.
func dayOf(t time.Time) uint16 { return uint16(t.Unix() / 86400) } //nolint:gosec // until the year 2149

// traits returns those of a login, without days where it has none. near is that of the address's
// [Network], if another is known.
func traits(l *Login) (list [4]trait, near trait) {
	day := dayOf(l.Time)
	for i, text := range [...]string{traitNetwork: "", traitRegion: l.Region, traitDevice: l.Device, traitClient: l.Client} {
		if i == traitNetwork && l.IP.IsValid() {
			text = Network(l.IP).String()
			if l.Network != "" {
				near = traitOf(i, text, day)
				text = l.Network
			}
		}
		if text != "" {
			list[i] = traitOf(i, text, day)
		}
	}
	return list, near
}

func traitOf(kind int, text string, day uint16) trait {
	h := fnv.New32a()
	_, _ = h.Write([]byte(text))
	return trait{byte(kind), 1, day, h.Sum32()} //nolint:gosec // one of four
}

// knows reports whether a trait is usual.
func (m *Memory) knows(t trait) bool {
	for _, k := range m.traits {
		if k.kind == t.kind && k.hash == t.hash {
			return t.days > 0 && k.usual()
		}
	}
	return false
}

// Judge returns what is unusual about a login, and learns it. locate says where an address is, if a
// database knows; nil if none does.
func (m *Memory) Judge(l *Login, locate func(netip.Addr) (Place, bool)) Finding {
	f := Finding{Previous: m.last}
	first := m.last.Time.IsZero()
	list, near := traits(l)
	for _, t := range list {
		if t.days == 0 {
			continue
		}
		// A site that begins to use a database of networks knows its accounts' networks by addresses.
		usual := t.kind == traitNetwork && m.knows(near)
		known, fresh := m.learn(t, first || usual)
		if !known && !usual {
			f.Kinds = append(f.Kinds, kindOf[t.kind])
			f.Fresh = f.Fresh || fresh
		}
	}
	if m.unusualHour(l.Time) {
		f.Kinds, f.Fresh = append(f.Kinds, UnusualHour), true
	}
	if how := m.travel(l, locate); how != "" && !first {
		f.Kinds, f.Fresh, f.Doubt = append(f.Kinds, ImpossibleTravel), true, how
	}
	m.ration(&f, dayOf(l.Time))
	if m.hours[l.Time.UTC().Hour()]++; m.hours[l.Time.UTC().Hour()] == 255 {
		for i := range m.hours {
			m.hours[i] /= 2
		}
	}
	if !l.Time.Before(m.last.Time) {
		m.last = Previous{l.Time, l.IP, bounded(l.Region), bounded(l.Device)}
	}
	return f
}

// ration bounds the fresh findings of a day.
func (m *Memory) ration(f *Finding, day uint16) {
	if !f.Fresh {
		return
	}
	if m.noticed != day {
		m.noticed, m.notices = day, 0
	}
	if f.Fresh = m.notices < maxNotices; f.Fresh {
		m.notices++
		f.Last = m.notices == maxNotices
	}
}

func bounded(s string) string { return s[:min(len(s), maxText)] }

// learn notes a trait. It reports whether it was usual, and if not, whether it was never seen.
func (m *Memory) learn(t trait, first bool) (usual, fresh bool) {
	if first {
		t.days = confirmed
	}
	oldest := 0
	for i := range m.traits {
		k := &m.traits[i]
		if k.kind != t.kind || k.hash != t.hash {
			if k.before(&m.traits[oldest]) {
				oldest = i
			}
			continue
		}
		if t.seen > k.seen && t.seen-k.seen > forgetAfter {
			*k = t
			return first, true
		}
		usual = k.usual()
		if t.seen > k.seen {
			if k.seen = t.seen; k.days < usualAfter {
				k.days++
			}
		}
		return usual, false
	}
	if len(m.traits) < maxTraits {
		m.traits = append(m.traits, t)
	} else {
		m.traits[oldest] = t
	}
	return first, true
}

// unusualHour reports whether the account has logged in often, and never near this hour.
func (m *Memory) unusualHour(at time.Time) bool {
	total := 0
	for _, n := range m.hours {
		total += int(n)
	}
	h := at.UTC().Hour()
	return total >= enoughHours && m.hours[h] == 0 && m.hours[(h+1)%24] == 0 && m.hours[(h+23)%24] == 0
}

// Confirm learns that a login was the user's: its traits are usual from now on.
func (m *Memory) Confirm(l *Login) {
	list, _ := traits(l)
	for _, t := range list {
		if t.days == 0 {
			continue
		}
		m.learn(t, false)
		for i := range m.traits {
			if k := &m.traits[i]; k.kind == t.kind && k.hash == t.hash {
				k.days = confirmed
			}
		}
	}
	m.hours[l.Time.UTC().Hour()] = max(1, m.hours[l.Time.UTC().Hour()])
}

// format is the first byte of a packed memory. That of format 1 does not count notices.
const format = 2

// Pack encodes a memory.
func (m *Memory) Pack() []byte {
	b := make([]byte, 0, 64+8*len(m.traits))
	b = append(b, format)
	b = append(b, m.hours[:]...)
	b = append(binary.LittleEndian.AppendUint16(b, m.noticed), m.notices)
	b = binary.AppendVarint(b, m.last.Time.Unix())
	for _, text := range []string{string(m.last.IP.AsSlice()), m.last.Region, m.last.Device} {
		b = append(append(b, byte(len(text))), text...) //nolint:gosec // at most maxText
	}
	for _, t := range m.traits {
		b = append(b, t.kind, t.days)
		b = binary.LittleEndian.AppendUint16(b, t.seen)
		b = binary.LittleEndian.AppendUint32(b, t.hash)
	}
	return b
}

// Parse decodes a memory. One that cannot be read is like none: it is learned anew.
func Parse(b []byte) (m Memory, ok bool) {
	if len(b) < 1+24+3+1 || b[0] != format && b[0] != 1 {
		return Memory{}, false
	}
	copy(m.hours[:], b[1:])
	counted := b[0] == format
	if b = b[25:]; counted {
		m.noticed, m.notices = binary.LittleEndian.Uint16(b), b[2]
		b = b[3:]
	}
	at, n := binary.Varint(b)
	if n <= 0 {
		return Memory{}, false
	}
	b = b[n:]
	var texts [3]string
	for i := range texts {
		if len(b) == 0 || len(b) <= int(b[0]) || b[0] > maxText {
			return Memory{}, false
		}
		texts[i], b = string(b[1:1+b[0]]), b[1+b[0]:]
	}
	ip, _ := netip.AddrFromSlice([]byte(texts[0]))
	m.last = Previous{time.Unix(at, 0).UTC(), ip, texts[1], texts[2]}
	if len(b)%8 != 0 || len(b)/8 > maxTraits {
		return Memory{}, false
	}
	for ; len(b) > 0; b = b[8:] {
		t := trait{b[0], b[1], binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])}
		if int(t.kind) >= len(kindOf) || t.days == 0 {
			return Memory{}, false
		}
		m.traits = append(m.traits, t)
	}
	return m, true
}
