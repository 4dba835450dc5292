package store

import (
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"unsafe"

	"github.com/drawbridge/drawbridge/internal/address"
)

// accounts is the index of a domain's records: a hash table without pointers, and pages in which
// the records lie one behind the other, each behind its length
// (contrib/adr/0015-compact-accounts.md). The zero accounts is empty. A record that was returned
// stays as it is, whatever is put later.
type accounts struct {
	slots []uint64 // zero is free
	count int
	pages []recordPage
	free  []int // pages that are empty
	open  int   // the page that records are appended to, plus one

	changes uint64 // of the table, so that a larger one is not put in place of a later one

	order   *order // nil unless lists were made since an address came or went
	listed  bool   // since then
	version uint64 // of the set of addresses
}

// recordPage is a piece of memory for records. What was written to it never changes.
type recordPage struct {
	data []byte
	dead int // bytes of records that were replaced
}

// A slot is hashBits of the address' hash, then where the record lies: the page's number and the
// offset in it plus one. The slot's own place follows from the hash, so that the table grows
// without a look at the records.
const (
	offsetBits = 20
	pageBits   = 17
	hashBits   = 64 - offsetBits - pageBits

	pageSize  = 1 << offsetBits // bytes; a larger record has a page of its own
	firstPage = 512
)

// hashSeed keeps names that collide from being made up.
var hashSeed = maphash.MakeSeed()

func hashOf(addr string) uint64 { return maphash.String(hashSeed, addr) >> (64 - hashBits) }

func slotOf(hash uint64, page, offset int) uint64 {
	return hash<<(offsetBits+pageBits) | uint64(page)<<offsetBits | uint64(offset+1) //nolint:gosec // in bounds
}

// home returns where in a table of a size the search for a hash begins. It grows with the hash.
func home(hash uint64, size int) int {
	return int(hash * uint64(size) >> hashBits) //nolint:gosec // lengths
}

func (a *accounts) at(slot uint64) (page, offset int) {
	return int(slot >> offsetBits & (1<<pageBits - 1)), int(slot&(1<<offsetBits-1)) - 1
}

// record returns the record that a slot points to.
func (a *accounts) record(slot uint64) Record {
	p, offset := a.at(slot)
	packed, _ := textAt(string(text(a.pages[p].data[offset:])), 0)
	return Record{packed}
}

// text returns bytes that never change as a text, without a copy.
func text(b []byte) reader {
	return reader(unsafe.String(unsafe.SliceData(b), len(b))) //nolint:gosec // pages are only appended to
}

// find returns the place of an address, or the free one where it would be.
func (a *accounts) find(addr string, hash uint64) (at int, found bool) {
	for at = home(hash, len(a.slots)); ; at++ {
		if at == len(a.slots) {
			at = 0
		}
		slot := a.slots[at]
		if slot == 0 {
			return at, false
		}
		if slot>>(offsetBits+pageBits) == hash && a.record(slot).Address() == addr {
			return at, true
		}
	}
}

// get returns the record of an address, the zero Record if there is none.
func (a *accounts) get(addr string) Record {
	if a.count == 0 {
		return Record{}
	}
	if at, found := a.find(addr, hashOf(addr)); found {
		return a.record(a.slots[at])
	}
	return Record{}
}

// all goes through the records in no order.
func (a *accounts) all() iter.Seq[Record] {
	return func(yield func(Record) bool) {
		for _, slot := range a.slots {
			if slot != 0 && !yield(a.record(slot)) {
				return
			}
		}
	}
}

// table is a larger table for an index that has changed so many times.
type table struct {
	slots   []uint64
	changes uint64
}

// use puts a table in place, unless the index has changed since the table was made.
func (a *accounts) use(t table) {
	if t.changes == a.changes {
		a.slots = t.slots
	}
}

// room returns a table with room for n more records, nil if there is enough. It changes nothing.
func (a *accounts) room(n int) []uint64 {
	n += a.count
	if n*5 <= len(a.slots)*4 {
		return nil
	}
	size := n*4/3 + 4
	if len(a.slots) > 0 { // grows little by little
		size = max(size, len(a.slots)*3/2)
	}
	next := make([]uint64, size)
	for _, slot := range a.slots {
		if slot != 0 {
			insert(next, slot)
		}
	}
	return next
}

// insert puts a slot into the first free place.
func insert(slots []uint64, slot uint64) {
	at := home(slot>>(offsetBits+pageBits), len(slots))
	for slots[at] != 0 {
		if at++; at == len(slots) {
			at = 0
		}
	}
	slots[at] = slot
}

// grow makes room for n more records.
func (a *accounts) grow(n int) {
	if next := a.room(n); next != nil {
		a.slots = next
	}
}

// put puts a record or replaces that of its address.
func (a *accounts) put(r Record) {
	a.changes++
	a.grow(1)
	addr := r.Address()
	hash := hashOf(addr)
	at, found := a.find(addr, hash)
	old := a.slots[at]
	p, offset := a.append(r)
	a.slots[at] = slotOf(hash, p, offset)
	if found {
		a.bury(old)
	} else {
		a.count++
		a.disorder()
	}
}

// remove removes the record of an address.
func (a *accounts) remove(addr string) {
	if a.count == 0 {
		return
	}
	at, found := a.find(addr, hashOf(addr))
	if !found {
		return
	}
	a.changes++
	old := a.slots[at]
	for next := at; ; { // close the gap, so that searches do not end at it
		if next++; next == len(a.slots) {
			next = 0
		}
		slot := a.slots[next]
		if slot == 0 {
			break
		}
		// The slot may move into the gap if the search for it begins there or before.
		if from := home(slot>>(offsetBits+pageBits), len(a.slots)); (next-from+len(a.slots))%len(a.slots) >= (next-at+len(a.slots))%len(a.slots) {
			a.slots[at], at = slot, next
		}
	}
	a.slots[at] = 0
	a.count--
	a.disorder()
	a.bury(old)
}

// append writes a record behind the others.
func (a *accounts) append(r Record) (number, offset int) {
	need := len(r.packed) + 10 // the length before it
	if a.open == 0 || cap(a.pages[a.open-1].data)-len(a.pages[a.open-1].data) < need {
		size := firstPage
		if a.open > 0 {
			size = min(2*cap(a.pages[a.open-1].data), pageSize)
		}
		a.open = 1 + a.newPage(make([]byte, 0, max(size, need)))
	}
	p := &a.pages[a.open-1]
	offset = len(p.data)
	p.data = appendText(p.data, r.packed)
	return a.open - 1, offset
}

func (a *accounts) newPage(data []byte) (number int) {
	if n := len(a.free); n > 0 {
		number, a.free = a.free[n-1], a.free[:n-1]
		a.pages[number] = recordPage{data: data}
		return number
	}
	if len(a.pages) == 1<<pageBits {
		panic("more accounts in a domain than 128 GiB hold")
	}
	a.pages = append(a.pages, recordPage{data: data})
	return len(a.pages) - 1
}

// bury notes that what a slot points to is not used any more. A page of which a third is unused is
// given up: its other records move.
func (a *accounts) bury(slot uint64) {
	number, offset := a.at(slot)
	p := &a.pages[number]
	r := text(p.data[offset:])
	rest := len(r)
	r.text()
	p.dead += rest - len(r)
	if number == a.open-1 && p.dead < len(p.data) || 3*p.dead < len(p.data) {
		return
	}
	if number == a.open-1 {
		a.open = 0
	}
	for offset := 0; p.dead < len(p.data) && offset < len(p.data); {
		rest := text(p.data[offset:])
		length := len(rest)
		moved := Record{rest.text()}
		length -= len(rest)
		hash := hashOf(moved.Address())
		if at, found := a.find(moved.Address(), hash); found && a.slots[at] == slotOf(hash, number, offset) {
			to, place := a.append(moved)
			a.slots[at] = slotOf(hash, to, place)
			p = &a.pages[number] // append may have moved the list
		}
		offset += length
	}
	a.pages[number] = recordPage{}
	a.free = append(a.free, number)
}

// errTwice: a page has an account that is there already.
var errTwice = errors.New("it has an account twice")

// addPage adds records that were written in a row, each behind its length. Their addresses are of
// the domain; each is passed to added. The page is the index's from now on; after an error the
// index cannot be used.
func (a *accounts) addPage(domain string, data []byte, added func(Record)) error {
	a.changes++
	a.disorder()
	number := a.newPage(data)
	all := text(data)
	for rest := all; rest != ""; {
		offset := len(all) - len(rest)
		if offset >= pageSize-1 {
			return fmt.Errorf("%w: its page is too long", errPacked)
		}
		r := Record{rest.text()}
		if err := r.check(); err != nil {
			return err
		}
		addr := r.Address()
		if address.Domain(addr) != domain {
			return fmt.Errorf("%w: %q is not of %s", errPacked, addr, domain)
		}
		a.grow(1)
		hash := hashOf(addr)
		at, found := a.find(addr, hash)
		if found {
			return fmt.Errorf("%w: %w: %s", errPacked, errTwice, addr)
		}
		a.slots[at] = slotOf(hash, number, offset)
		a.count++
		added(r)
	}
	return nil
}
