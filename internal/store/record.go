package store

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/factor"
)

// Record is an account as the state, the snapshot and Redis keep it: in one piece of memory without
// pointers, what decisions need first. It is read where it lies, so that a decision waits for main
// memory once instead of at each pointer of a document, and the garbage collector has nothing to
// follow. The zero Record is that of no account.
type Record struct{ packed string }

// The packed fields, in this order (contrib/adr/0015-compact-accounts.md). Texts and lists follow
// their length. Fields with a flag are there only if it is set, and have their zero value
// otherwise.
//
//	address, flags (two bytes, the lower first), revision
//	mode of secure passwords, departments, switches, aliases, send_as: each with a flag
//	time of creation, time when the mailbox password was set, its hash: each with a flag
//	secure passwords, batches, hashes of former mailbox passwords, second factors, display name:
//	each with a flag
//
// A secure password is its marks, id, label, hash, id of the pepper unless it is that of the one
// before, time of creation, time of revocation if it is revoked, and if it is bound its protocols
// and networks, each list as one text with spaces between, and the time of its expiry or zero.
//
// A time is a number of milliseconds since [epoch], or for a secure password since the account was
// created, zigzag encoded; its lowest bit says that nanoseconds follow.
const (
	flagSuspended = 1 << iota
	flagSecrets
	flagMode
	flagDepartments // a list that is not nil, as the next two
	flagSwitches
	flagAliases
	flagSendAs
	flagCreated
	flagMailboxSet
	flagMailboxHash
	flagBatches
	flagMustChange
	flagFormer
	flagFactors
	flagDisplay
	flagsEnd
)

const (
	markHexID      = 1 << iota // the id is 16 hex digits, kept as eight bytes
	markRevoked                //
	markSamePepper             // as that of the secure password before
	markBound                  // protocols, networks and expiry follow
	marksEnd
)

// packedFormat is the version of the packed form, in front of a record in Redis and in the
// snapshot. It cannot be the first byte of a JSON document.
const packedFormat = 2

// epoch is where packed times begin, so that those of today are short.
var epoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()

// Bounds of the times that a document may have: the years that RFC 3339 can write.
var (
	firstTime = time.Date(-1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	lastTime  = time.Date(10001, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
)

// pack returns the record of an account's document. Its address is the document's key.
func pack(addr string, a *Account, rev uint64) Record {
	return Record{string(appendRecord(make([]byte, 0, 512), addr, a, rev))}
}

func appendRecord(b []byte, addr string, a *Account, rev uint64) []byte {
	var flags uint16
	set := func(flag uint16, on bool) bool {
		if on {
			flags |= flag
		}
		return on
	}
	b = appendText(b, addr)
	at := len(b)
	b = binary.AppendUvarint(append(b, 0, 0), rev)
	set(flagSuspended, a.Suspended)
	set(flagMustChange, a.MustChange)
	if set(flagMode, a.Secure != "") {
		b = appendText(b, string(a.Secure))
	}
	if set(flagDepartments, a.Departments != nil) {
		b = appendTexts(b, a.Departments)
	}
	if set(flagSwitches, a.Protocols != nil) {
		b = binary.AppendUvarint(b, uint64(len(a.Protocols)))
		for _, name := range slices.Sorted(maps.Keys(a.Protocols)) {
			b = append(appendText(b, name), 0)
			if a.Protocols[name] {
				b[len(b)-1] = 1
			}
		}
	}
	if set(flagAliases, a.Aliases != nil) {
		b = appendTexts(b, a.Aliases)
	}
	if set(flagSendAs, len(a.SendAs) > 0) {
		b = appendTexts(b, a.SendAs)
	}
	base := epoch
	if set(flagCreated, !a.CreatedAt.IsZero()) {
		b, base = appendTimeSince(b, a.CreatedAt, epoch), a.CreatedAt.UnixMilli()
	}
	if set(flagMailboxSet, !a.MailboxSetAt.IsZero()) {
		b = appendTimeSince(b, a.MailboxSetAt, epoch)
	}
	if set(flagMailboxHash, a.MailboxHash != "") {
		b = appendText(b, a.MailboxHash)
	}
	if set(flagSecrets, len(a.Secrets) > 0) {
		b = binary.AppendUvarint(b, uint64(len(a.Secrets)))
		pepper := ""
		for i := range a.Secrets {
			b = appendSecret(b, &a.Secrets[i], base, pepper)
			pepper = a.Secrets[i].PepperID
		}
	}
	if set(flagBatches, len(a.Batches) > 0) {
		b = binary.AppendUvarint(b, uint64(len(a.Batches)))
		for i := range a.Batches {
			m := &a.Batches[i]
			b = appendText(appendText(appendTimeSince(b, m.At, epoch), m.By), m.Scope)
			b = appendLength(b, len(m.Settings), m.Settings == nil)
			for _, s := range m.Settings {
				b = appendText(b, s)
			}
		}
	}
	if set(flagFormer, len(a.FormerHashes) > 0) {
		b = appendTexts(b, a.FormerHashes)
	}
	if set(flagFactors, len(a.Factors) > 0) {
		b = binary.AppendUvarint(b, uint64(len(a.Factors)))
		for i := range a.Factors {
			f := &a.Factors[i]
			b = appendText(appendText(appendText(b, f.ID), string(f.Kind)), f.Label)
			b = appendTimeSince(appendTimeSince(b, f.CreatedAt, epoch), f.ConfirmedAt, epoch)
			b = appendText(b, string(f.Data))
		}
	}
	if set(flagDisplay, a.DisplayName != "") {
		b = appendText(b, a.DisplayName)
	}
	b[at], b[at+1] = byte(flags), byte(flags>>8)
	return b
}

func appendSecret(b []byte, p *SecurePassword, base int64, pepper string) []byte {
	at := len(b)
	b = append(b, 0)
	if id, ok := hexID(p.ID); ok {
		b[at] |= markHexID
		b = append(b, id[:]...)
	} else {
		b = appendText(b, p.ID)
	}
	b = append(appendText(b, p.Label), p.Hash[:]...)
	if p.PepperID == pepper {
		b[at] |= markSamePepper
	} else {
		b = appendText(b, p.PepperID)
	}
	b = appendTimeSince(b, p.CreatedAt, base)
	if !p.RevokedAt.IsZero() {
		b[at] |= markRevoked
		b = appendTimeSince(b, p.RevokedAt, base)
	}
	if len(p.Protocols)+len(p.Networks) > 0 || !p.ExpiresAt.IsZero() {
		b[at] |= markBound
		b = appendText(appendText(b, strings.Join(p.Protocols, " ")), strings.Join(p.Networks, " "))
		b = appendTimeSince(b, p.ExpiresAt, base)
	}
	return b
}

// hexID returns the bytes of an id of 16 lower-case hex digits, as [NewID] makes them.
func hexID(id string) (b [8]byte, ok bool) {
	if len(id) != 2*len(b) {
		return b, false
	}
	for i := range len(id) {
		c := id[i]
		switch {
		case '0' <= c && c <= '9':
			c -= '0'
		case 'a' <= c && c <= 'f':
			c -= 'a' - 10
		default:
			return b, false
		}
		b[i/2] = b[i/2]<<4 | c
	}
	return b, true
}

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func appendLength(b []byte, n int, isNil bool) []byte {
	if isNil {
		return append(b, 0)
	}
	return binary.AppendUvarint(b, uint64(n)+1) //nolint:gosec // a length
}

func appendTexts(b []byte, list []string) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

// appendTimeSince keeps the moment; the zone becomes UTC.
func appendTimeSince(b []byte, t time.Time, base int64) []byte {
	ms, nano := t.UnixMilli()-base, t.Nanosecond()%int(time.Millisecond)
	n := uint64(ms)<<1 ^ uint64(ms>>63) //nolint:gosec // zigzag
	if nano == 0 {
		return binary.AppendUvarint(b, n<<1)
	}
	return binary.AppendUvarint(binary.AppendUvarint(b, n<<1|1), uint64(nano)) //nolint:gosec // not negative
}

// reader reads packed fields. It panics on input that pack did not write.
type reader string

func (r *reader) byte() byte {
	b := (*r)[0]
	*r = (*r)[1:]
	return b
}

func (r *reader) number() uint64 {
	if b := (*r)[0]; b < 0x80 { // most numbers are small
		*r = (*r)[1:]
		return uint64(b)
	}
	return r.longNumber()
}

func (r *reader) longNumber() uint64 {
	var n uint64
	for shift := 0; ; shift += 7 {
		b := r.byte()
		n |= uint64(b&0x7f) << shift
		if b < 0x80 {
			return n
		}
	}
}

func (r *reader) take(n uint64) string {
	s := (*r)[:n]
	*r = (*r)[n:]
	return string(s)
}

func (r *reader) text() string { return r.take(r.number()) }

// length returns how long a list is that may be nil, and false for nil.
func (r *reader) length() (int, bool) {
	n := int(r.number()) //nolint:gosec // a length
	return max(n-1, 0), n > 0
}

// texts reads a list of n texts.
func (r *reader) texts(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = r.text()
	}
	return list
}

func (r *reader) flags() uint16 { return uint16(r.byte()) | uint16(r.byte())<<8 }

func (r *reader) timeSince(base int64) time.Time {
	n := r.number()
	nano := int64(0)
	if n&1 != 0 {
		nano = int64(r.number()) //nolint:gosec // compared
	}
	n >>= 1
	ms := base + (int64(n>>1) ^ -int64(n&1))
	if ms < firstTime || ms > lastTime || nano < 0 || nano >= int64(time.Millisecond) {
		panic("a time that no document has")
	}
	return time.UnixMilli(ms).Add(time.Duration(nano)).UTC()
}

// secret is a packed secure password.
type secret struct {
	device
	created time.Time
	revoked time.Time
	bounds  access.Bounds
}

// device is what a packed secure password begins with.
type device struct {
	marks  byte
	id     string // as it is packed
	label  string
	hash   string
	pepper string
}

// device reads what a secure password begins with that follows one with the pepper before.
func (r *reader) device(before string) device {
	s := device{marks: r.byte(), pepper: before}
	if s.marks&markHexID != 0 {
		s.id = r.take(8)
	} else {
		s.id = r.text()
	}
	s.label, s.hash = r.text(), r.take(uint64(len(credential.Hash{})))
	if s.marks&markSamePepper == 0 {
		s.pepper = r.text()
	}
	return s
}

// secret reads a secure password that follows one with the pepper before.
func (r *reader) secret(base int64, before string) secret {
	s := secret{device: r.device(before)}
	s.created = r.timeSince(base)
	if s.marks&markRevoked != 0 {
		s.revoked = r.timeSince(base)
	}
	if s.marks&markBound != 0 {
		s.bounds = r.bounds(base)
	}
	return s
}

func (r *reader) bounds(base int64) access.Bounds {
	b := access.Bounds{Protocols: r.text(), Networks: r.text()}
	b.Expires = r.timeSince(base)
	return b
}

// has reports whether the secure password has an id. It does not allocate.
func (s *device) has(id string) bool {
	if s.marks&markHexID == 0 {
		return s.id == id
	}
	b, ok := hexID(id)
	return ok && s.id == string(b[:])
}

// name returns the id.
func (s *device) name() string {
	if s.marks&markHexID == 0 {
		return s.id
	}
	return hex.EncodeToString([]byte(s.id))
}

// state does not take the expiry into account: decisions do.
func (s *device) state() access.SecretState {
	if s.marks&markRevoked == 0 {
		return access.SecretLive
	}
	return access.SecretRevoked
}

// Exists reports whether there is a record. The zero Record is none: the rules of the domain hold
// for the address all the same.
func (r Record) Exists() bool { return r.packed != "" }

// Address returns the canonical address, which shares memory with the record and does not allocate;
// "" of the zero Record.
func (r Record) Address() string {
	if !r.Exists() {
		return ""
	}
	addr, _ := textAt(r.packed, 0)
	return addr
}

// String returns the address alone, so that a record that is printed or logged shows no hash; "" of
// the zero Record.
func (r Record) String() string { return r.Address() }

// GoString returns the address alone, so that the verb %#v shows no hash either; "" of the zero
// Record.
func (r Record) GoString() string { return r.Address() }

// Facts writes the fields that decisions need into room and returns it; nil if there is no record.
// The list of departments in room is reused.
func (r Record) Facts(room *access.Account) *access.Account {
	if !r.Exists() {
		return nil
	}
	r.facts(room)
	return room
}

// facts does the same for a record that exists.
func (r Record) facts(room *access.Account) {
	f, flags := r.fields()
	room.Suspended, room.HasSecure, room.MustChange = flags&flagSuspended != 0, flags&flagSecrets != 0, flags&flagMustChange != 0
	room.Secure, room.Departments, room.Protocols = "", room.Departments[:0], access.Switched{}
	if flags&flagMode != 0 {
		room.Secure = access.SecureMode(f.text())
	}
	if flags&flagDepartments != 0 {
		for n := f.number(); n > 0; n-- {
			room.Departments = append(room.Departments, f.text())
		}
	}
	if flags&flagSwitches != 0 {
		for n := f.number(); n > 0; n-- {
			name := f.text()
			room.Protocols.Switch(access.ParseProtocol(name), f.byte() == 1)
		}
	}
	if room.PasswordSet = (time.Time{}); flags&flagMailboxSet != 0 {
		room.PasswordSet = r.MailboxSetAt()
	}
}

// fields returns the flags and the fields from the mode on, of a record that exists.
func (r Record) fields() (f reader, flags uint16) {
	f = reader(r.packed)
	f.text()
	flags = f.flags()
	f.number()
	return f, flags
}

// skipTexts reads a list of texts that is there if a flag is set, and reports whether f accepts
// one.
func (r *reader) anyText(is uint16, f func(string) bool) bool {
	if is == 0 {
		return false
	}
	for n := r.number(); n > 0; n-- {
		if t := r.text(); f != nil && f(t) {
			return true
		}
	}
	return false
}

// skipTo skips the fields before the aliases.
func (r *reader) skipToAliases(flags uint16) {
	if flags&flagMode != 0 {
		r.text()
	}
	r.anyText(flags&flagDepartments, nil)
	if flags&flagSwitches != 0 {
		for n := r.number(); n > 0; n-- {
			r.text()
			r.byte()
		}
	}
}

// mailbox returns when the mailbox password was set and its hash, the moment that the times of
// secure passwords count from, and the fields from these on.
func (r Record) mailbox() (set time.Time, hash string, base int64, rest reader, flags uint16) {
	f, flags := r.fields()
	f.skipToAliases(flags)
	f.anyText(flags&flagAliases, nil)
	f.anyText(flags&flagSendAs, nil)
	base = epoch
	if flags&flagCreated != 0 {
		base = f.timeSince(epoch).UnixMilli()
	}
	if flags&flagMailboxSet != 0 {
		set = f.timeSince(epoch)
	}
	if flags&flagMailboxHash != 0 {
		hash = f.text()
	}
	return set, hash, base, f, flags
}

// MailboxHash returns the hash of the mailbox password kept here, in Dovecot's {SCHEME} form; "" if
// there is none, or no record.
func (r Record) MailboxHash() string {
	if !r.Exists() {
		return ""
	}
	_, hash, _, _, _ := r.mailbox()
	return hash
}

// MailboxSetAt returns when the mailbox password was last set, to the millisecond. A rehash does
// not count. Zero if it is not known.
func (r Record) MailboxSetAt() time.Time {
	if !r.Exists() {
		return time.Time{}
	}
	set, _, _, _, _ := r.mailbox()
	return set
}

// secrets goes through the secure passwords as they are packed. They are passed by value: a pointer
// would cost memory.
func (r Record) secrets(yield func(secret) bool) {
	if !r.Exists() {
		return
	}
	_, _, base, f, flags := r.mailbox()
	if flags&flagSecrets == 0 {
		return
	}
	var p secret
	for n := f.number(); n > 0; n-- {
		p = f.secret(base, p.pepper)
		if !yield(p) {
			return
		}
	}
}

// Secrets goes through the live secure passwords and the revoked ones that are still recognised, in
// the order of the record, with their hashes.
func (r Record) Secrets() iter.Seq[SecurePassword] {
	return func(yield func(SecurePassword) bool) {
		r.secrets(func(p secret) bool { return yield(p.document()) })
	}
}

func (s *secret) document() SecurePassword {
	return SecurePassword{
		ID: s.name(), Label: s.label, Hash: credential.Hash([]byte(s.hash)), PepperID: s.pepper,
		CreatedAt: s.created, RevokedAt: s.revoked,
		Protocols: words(s.bounds.Protocols), Networks: words(s.bounds.Networks), ExpiresAt: s.bounds.Expires,
	}
}

// words returns a list that was packed as one text; nil for none.
func words(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, " ")
}

// Secret returns a secure password by its id, live or revoked; false when the account never had it,
// or no longer recognises it.
func (r Record) Secret(id string) (found SecurePassword, ok bool) {
	r.secrets(func(p secret) bool {
		if ok = p.has(id); ok {
			found = p.document()
		}
		return !ok
	})
	return found, ok
}

// SecretOf returns the state of a secure password of the account, as decisions need it. An unknown
// one counts as revoked.
func (r Record) SecretOf(id string) access.Secret {
	s := access.Secret{State: access.SecretRevoked, CredentialID: id}
	r.secrets(func(p secret) bool {
		found := p.has(id)
		if found {
			s.State, s.Label, s.Bounds = p.state(), p.label, p.bounds
		}
		return !found
	})
	return s
}

// Match returns the secure password with a hash made with a pepper; false if there is none. All
// secure passwords are compared, in constant time each. Only the one that matches is decoded.
func (r Record) Match(pepperID string, hash credential.Hash) (s access.Secret, ok bool) {
	if !r.Exists() {
		return s, false
	}
	p := r.packed
	created, at, flags := toSecrets(p)
	if flags&flagSecrets == 0 {
		return s, false
	}
	n, at := numberAt(p, at)
	pepper, found := "", 0
	for ; n > 0; n-- {
		begin, marks := at, p[at]
		at = skipText(p, skipID(p, at))
		same := sameHash(p[at:at+len(hash)], &hash)
		if at += len(hash); marks&markSamePepper == 0 {
			pepper, at = textAt(p, at)
		}
		if same && pepper == pepperID {
			found = begin
		}
		if at = skipTime(p, at); marks&markRevoked != 0 {
			at = skipTime(p, at)
		}
		if marks&markBound != 0 {
			at = skipTime(p, skipText(p, skipText(p, at)))
		}
	}
	if found == 0 { // no secure password is at the very beginning
		return s, false
	}
	d := device{marks: p[found]}
	at = skipID(p, found)
	if d.id = p[found+1 : at]; d.marks&markHexID == 0 {
		d.id, _ = textAt(p, found+1)
	}
	s.Label, at = textAt(p, at)
	s.State, s.CredentialID = d.state(), d.name()
	if d.marks&markBound != 0 {
		base := epoch
		if flags&flagCreated != 0 {
			f := reader(p[created:])
			base = f.timeSince(epoch).UnixMilli()
		}
		if at += len(hash); d.marks&markSamePepper == 0 {
			at = skipText(p, at)
		}
		if at = skipTime(p, at); d.marks&markRevoked != 0 {
			at = skipTime(p, at)
		}
		f := reader(p[at:])
		s.Bounds = f.bounds(base)
	}
	return s, true
}

// sameHash compares a packed hash in constant time.
func sameHash(packed string, hash *credential.Hash) bool {
	b, diff := []byte(packed), uint64(0)
	for i := 0; i < len(hash); i += 8 {
		diff |= binary.LittleEndian.Uint64(b[i:]) ^ binary.LittleEndian.Uint64(hash[i:])
	}
	return diff == 0
}

// toSecrets returns where the creation is packed, if the record has one, and the secure passwords.
func toSecrets(p string) (created, at int, flags uint16) {
	at = skipText(p, 0)
	flags = uint16(p[at]) | uint16(p[at+1])<<8
	at = skipNumber(p, at+2)
	if flags&flagMode != 0 {
		at = skipText(p, at)
	}
	if flags&flagDepartments != 0 {
		at = skipTexts(p, at)
	}
	if flags&flagSwitches != 0 {
		var n uint64
		for n, at = numberAt(p, at); n > 0; n-- {
			at = skipText(p, at) + 1
		}
	}
	if flags&flagAliases != 0 {
		at = skipTexts(p, at)
	}
	if flags&flagSendAs != 0 {
		at = skipTexts(p, at)
	}
	if created = at; flags&flagCreated != 0 {
		at = skipTime(p, at)
	}
	if flags&flagMailboxSet != 0 {
		at = skipTime(p, at)
	}
	if flags&flagMailboxHash != 0 {
		at = skipText(p, at)
	}
	return created, at, flags
}

// These read or skip the packed field at an index, and return the next one's. They are for what
// every login does: a [reader], which lies in memory, takes twice as long.

func numberAt(p string, at int) (n uint64, next int) {
	if b := p[at]; b < 0x80 {
		return uint64(b), at + 1
	}
	r := reader(p[at:])
	n = r.longNumber()
	return n, len(p) - len(r)
}

func textAt(p string, at int) (text string, next int) {
	n, at := numberAt(p, at)
	next = at + int(n) //nolint:gosec // a length
	return p[at:next], next
}

// skipID skips the marks and the id of a secure password.
func skipID(p string, at int) int {
	if p[at]&markHexID != 0 {
		return at + 9
	}
	return skipText(p, at+1)
}

func skipNumber(p string, at int) int {
	for p[at] >= 0x80 {
		at++
	}
	return at + 1
}

func skipText(p string, at int) int {
	n, at := numberAt(p, at)
	return at + int(n) //nolint:gosec // a length
}

func skipTexts(p string, at int) int {
	n, at := numberAt(p, at)
	for ; n > 0; n-- {
		at = skipText(p, at)
	}
	return at
}

func skipTime(p string, at int) int {
	next := skipNumber(p, at)
	if p[at]&1 != 0 {
		next = skipNumber(p, next)
	}
	return next
}

// Aliases returns the account's aliases, canonical when they were added. Most accounts have none,
// and these cost no memory.
func (r Record) Aliases() []string {
	if !r.Exists() {
		return nil
	}
	f, flags := r.fields()
	if flags&flagAliases == 0 {
		return nil
	}
	f.skipToAliases(flags)
	return f.texts(int(f.number())) //nolint:gosec // a length
}

// anyDepartment reports whether f accepts a department of the account.
func (r Record) anyDepartment(f func(path string) bool) bool {
	if !r.Exists() {
		return false
	}
	rest, flags := r.fields()
	if flags&flagMode != 0 {
		rest.text()
	}
	return rest.anyText(flags&flagDepartments, f)
}

// mayUse reports whether match accepts an alias or a send_as entry of the account.
func (r Record) mayUse(match func(entry string) bool) bool {
	if !r.Exists() {
		return false
	}
	f, flags := r.fields()
	if flags&(flagAliases|flagSendAs) == 0 {
		return false
	}
	f.skipToAliases(flags)
	return f.anyText(flags&flagAliases, match) || f.anyText(flags&flagSendAs, match)
}

// FactorKinds returns the kinds of the second factors that count, each once; nil for none. Recovery
// codes alone are none.
func (r Record) FactorKinds() []string {
	if !r.Exists() {
		return nil
	}
	if _, flags := r.fields(); flags&flagFactors == 0 {
		return nil
	}
	a := r.Account()
	if !a.HasFactor() {
		return nil
	}
	var kinds []string
	for i := range a.Factors {
		if kind := string(a.Factors[i].Kind); a.Factors[i].Confirmed() && !slices.Contains(kinds, kind) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// DisplayName returns the name of the person; "" if it is not set.
func (r Record) DisplayName() string {
	if !r.Exists() {
		return ""
	}
	if _, flags := r.fields(); flags&flagDisplay == 0 {
		return ""
	}
	return r.Account().DisplayName
}

// Account unpacks the whole document with its secrets. It is the caller's own, to be changed and
// put; nil of the zero Record.
func (r Record) Account() *Account { return r.revised().Doc }

// revised returns the whole document with its revision.
func (r Record) revised() Revised[Account] {
	if !r.Exists() {
		return Revised[Account]{}
	}
	f := reader(r.packed)
	a := &Account{Address: f.text()}
	flags, rev := f.flags(), f.number()
	a.Suspended, a.MustChange = flags&flagSuspended != 0, flags&flagMustChange != 0
	if flags&flagMode != 0 {
		a.Secure = access.SecureMode(f.text())
	}
	if flags&flagDepartments != 0 {
		a.Departments = f.texts(int(f.number())) //nolint:gosec // a length
	}
	if flags&flagSwitches != 0 {
		n := f.number()
		a.Protocols = make(access.Switches, n)
		for ; n > 0; n-- {
			name := f.text()
			a.Protocols[name] = f.byte() == 1
		}
	}
	if flags&flagAliases != 0 {
		a.Aliases = f.texts(int(f.number())) //nolint:gosec // a length
	}
	if flags&flagSendAs != 0 {
		a.SendAs = f.texts(int(f.number())) //nolint:gosec // a length
	}
	base := epoch
	if flags&flagCreated != 0 {
		a.CreatedAt = f.timeSince(epoch)
		base = a.CreatedAt.UnixMilli()
	}
	if flags&flagMailboxSet != 0 {
		a.MailboxSetAt = f.timeSince(epoch)
	}
	if flags&flagMailboxHash != 0 {
		a.MailboxHash = f.text()
	}
	if flags&flagSecrets != 0 {
		a.Secrets = make([]SecurePassword, f.number())
		var p secret
		for i := range a.Secrets {
			p = f.secret(base, p.pepper)
			a.Secrets[i] = p.document()
		}
	}
	if flags&flagBatches != 0 {
		a.Batches = make([]BatchMark, f.number())
		for i := range a.Batches {
			a.Batches[i] = f.batch()
		}
	}
	if flags&flagFormer != 0 {
		a.FormerHashes = f.texts(int(f.number())) //nolint:gosec // a length
	}
	if flags&flagFactors != 0 {
		a.Factors = make([]Factor, f.number())
		for i := range a.Factors {
			a.Factors[i] = f.factor()
		}
	}
	if flags&flagDisplay != 0 {
		a.DisplayName = f.text()
	}
	return Revised[Account]{a, rev}
}

func (r *reader) factor() Factor {
	f := Factor{ID: r.text(), Kind: factor.Kind(r.text()), Label: r.text()}
	f.CreatedAt, f.ConfirmedAt = r.timeSince(epoch), r.timeSince(epoch)
	if data := r.text(); data != "" {
		f.Data = []byte(data)
	}
	return f
}

func (r *reader) batch() BatchMark {
	m := BatchMark{At: r.timeSince(epoch), By: r.text(), Scope: r.text()}
	if n, ok := r.length(); ok {
		m.Settings = r.texts(n)
	}
	return m
}

// check reads a record that was not packed by this process. After it, no reader of the record
// panics or allocates more than the record is long.
func (r Record) check() (err error) {
	defer func() {
		if v := recover(); v != nil { // reader relies on valid input
			err = fmt.Errorf("%w: it cannot be read: %v", errPacked, v)
		}
	}()
	_, _, base, f, flags := r.mailbox()
	if flags >= flagsEnd {
		return fmt.Errorf("%w: it has flags %#x", errPacked, flags)
	}
	if flags&flagSecrets != 0 {
		n := f.number()
		if n == 0 {
			return fmt.Errorf("%w: it has an empty list", errPacked)
		}
		var p secret
		for ; n > 0; n-- {
			if p = f.secret(base, p.pepper); p.marks >= marksEnd {
				return fmt.Errorf("%w: a secure password has marks %#x", errPacked, p.marks)
			}
		}
	}
	if flags&flagBatches != 0 {
		for n := f.number(); n > 0; n-- {
			f.timeSince(epoch)
			f.text()
			f.text()
			for n, _ := f.length(); n > 0; n-- {
				f.text()
			}
		}
	}
	f.anyText(flags&flagFormer, nil)
	if flags&flagFactors != 0 {
		n := f.number()
		if n == 0 {
			return fmt.Errorf("%w: it has an empty list", errPacked)
		}
		for ; n > 0; n-- {
			f.factor()
		}
	}
	if flags&flagDisplay != 0 {
		f.text()
	}
	if f != "" {
		return fmt.Errorf("%w: it has %d bytes too many", errPacked, len(f))
	}
	return nil
}

// errPacked: bytes are not a packed account of this version.
var errPacked = errors.New("an account cannot be used")
