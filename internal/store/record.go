package store

import (
	"encoding/binary"
	"iter"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
)

// Record is an account as the state keeps it: in one piece of memory without pointers, what
// decisions need first. It is read where it lies, so that a decision waits for main memory once
// instead of at each pointer of a document, and the garbage collector has nothing to follow. The
// zero Record is that of no account.
type Record struct{ packed string }

// The packed fields, in this order. Texts and lists follow their length; a list that may be nil, its
// length plus one.
//
//	address, flags, mode of secure passwords, departments, switches
//	time when the mailbox password was set, if flagMailboxSet
//	hash of the mailbox password, secure passwords
//	revision, time of creation, aliases, send_as, batches

const (
	flagSuspended = 1 << iota
	flagSecrets
	flagAliases
	flagSendAs
	flagMailboxSet
)

// pack returns the record of an account's document. Its address is the document's key.
func pack(addr string, a *Account, rev uint64) Record {
	var flags byte
	if a.Suspended {
		flags |= flagSuspended
	}
	if len(a.Secrets) > 0 {
		flags |= flagSecrets
	}
	if len(a.Aliases) > 0 {
		flags |= flagAliases
	}
	if len(a.SendAs) > 0 {
		flags |= flagSendAs
	}
	if !a.MailboxSetAt.IsZero() {
		flags |= flagMailboxSet
	}
	b := append(appendText(make([]byte, 0, 512), addr), flags)
	b = appendText(b, string(a.Secure))
	b = appendTexts(b, a.Departments)
	b = appendLength(b, len(a.Protocols), a.Protocols == nil)
	for name, on := range a.Protocols {
		b = appendText(b, name)
		if on {
			b = append(b, 1)
		} else {
			b = append(b, 0)
		}
	}
	if flags&flagMailboxSet != 0 {
		b = appendTime(b, a.MailboxSetAt)
	}
	b = appendText(b, a.MailboxHash)
	b = binary.AppendUvarint(b, uint64(len(a.Secrets)))
	for i := range a.Secrets {
		p := &a.Secrets[i]
		b = appendText(appendText(b, p.ID), p.Label)
		b = append(b, p.Hash[:]...)
		b = appendTime(appendTime(appendText(b, p.PepperID), p.CreatedAt), p.RevokedAt)
	}
	b = appendTime(binary.AppendUvarint(b, rev), a.CreatedAt)
	b = appendTexts(appendTexts(b, a.Aliases), a.SendAs)
	b = binary.AppendUvarint(b, uint64(len(a.Batches)))
	for i := range a.Batches {
		m := &a.Batches[i]
		b = appendTexts(appendText(appendText(appendTime(b, m.At), m.By), m.Scope), m.Settings)
	}
	return Record{string(b)}
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
	b = appendLength(b, len(list), list == nil)
	for _, s := range list {
		b = appendText(b, s)
	}
	return b
}

// appendTime keeps the moment; the zone it becomes is UTC.
func appendTime(b []byte, t time.Time) []byte {
	b = binary.AppendVarint(b, t.Unix()-time.Time{}.Unix())
	return binary.AppendUvarint(b, uint64(t.Nanosecond())) //nolint:gosec // below a second
}

// reader reads packed fields. It panics on input that pack did not write.
type reader string

func (r *reader) byte() byte {
	b := (*r)[0]
	*r = (*r)[1:]
	return b
}

func (r *reader) number() uint64 {
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

// length returns how long a list is, and false for nil.
func (r *reader) length() (int, bool) {
	n := int(r.number()) //nolint:gosec // a length
	return max(n-1, 0), n > 0
}

func (r *reader) texts() []string {
	n, ok := r.length()
	if !ok {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.text()
	}
	return list
}

func (r *reader) time() time.Time {
	n := r.number() // zigzag, as encoding/binary has it
	sec := int64(n>>1) ^ -int64(n&1)
	nsec := int64(r.number()) //nolint:gosec // below a second
	return time.Unix(sec+time.Time{}.Unix(), nsec).UTC()
}

func (r *reader) secret() SecurePassword {
	return SecurePassword{
		ID: r.text(), Label: r.text(), Hash: credential.Hash([]byte(r.take(uint64(len(credential.Hash{}))))),
		PepperID: r.text(), CreatedAt: r.time(), RevokedAt: r.time(),
	}
}

// Exists reports whether there is a record.
func (r Record) Exists() bool { return r.packed != "" }

// Address returns the canonical address.
func (r Record) Address() string {
	if !r.Exists() {
		return ""
	}
	f := reader(r.packed)
	return f.text()
}

// String returns the address alone: hashes must not be printed.
func (r Record) String() string { return r.Address() }

// GoString returns the address.
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

// facts does the same and returns the fields behind them.
func (r Record) facts(room *access.Account) (rest reader) {
	f := reader(r.packed)
	f.text()
	flags := f.byte()
	room.Suspended, room.HasSecure = flags&flagSuspended != 0, flags&flagSecrets != 0
	room.Secure = access.SecureMode(f.text())
	room.Departments = room.Departments[:0]
	n, _ := f.length()
	for range n {
		room.Departments = append(room.Departments, f.text())
	}
	room.Protocols = access.Switched{}
	n, _ = f.length()
	for range n {
		name := f.text()
		room.Protocols.Switch(access.ParseProtocol(name), f.byte() == 1)
	}
	return f
}

// mailbox returns when the mailbox password was set, and what is packed from its hash on.
func (r Record) mailbox() (set time.Time, rest reader) {
	f := reader(r.packed)
	f.text()
	flags := f.byte()
	f.text()
	for n, _ := f.length(); n > 0; n-- {
		f.text()
	}
	for n, _ := f.length(); n > 0; n-- {
		f.text()
		f.byte()
	}
	if flags&flagMailboxSet != 0 {
		set = f.time()
	}
	return set, f
}

// MailboxHash returns the mailbox password kept here, in Dovecot's {SCHEME} form.
func (r Record) MailboxHash() string {
	if !r.Exists() {
		return ""
	}
	_, f := r.mailbox()
	return f.text()
}

// MailboxSetAt returns when the mailbox password was last set; zero if it is not known.
func (r Record) MailboxSetAt() time.Time {
	if !r.Exists() {
		return time.Time{}
	}
	set, _ := r.mailbox()
	return set
}

// Secrets goes through the live secure passwords and the revoked ones still recognised.
func (r Record) Secrets() iter.Seq[SecurePassword] {
	return func(yield func(SecurePassword) bool) {
		if !r.Exists() {
			return
		}
		_, f := r.mailbox()
		f.text()
		for n := f.number(); n > 0; n-- {
			if !yield(f.secret()) {
				return
			}
		}
	}
}

// Secret returns a secure password by its id; false when the account has it no more.
func (r Record) Secret(id string) (SecurePassword, bool) {
	for p := range r.Secrets() {
		if p.ID == id {
			return p, true
		}
	}
	return SecurePassword{}, false
}

// SecretOf returns the state of a secure password of the account, as decisions need it. An unknown
// one counts as revoked.
func (r Record) SecretOf(id string) access.Secret {
	s := access.Secret{State: access.SecretRevoked, CredentialID: id}
	if p, ok := r.Secret(id); ok {
		s.Label = p.Label
		if p.Live() {
			s.State = access.SecretLive
		}
	}
	return s
}

// Aliases returns the account's aliases. Most accounts have none, and these cost nothing.
func (r Record) Aliases() []string {
	if !r.Exists() {
		return nil
	}
	f := reader(r.packed)
	f.text()
	if f.byte()&flagAliases == 0 {
		return nil
	}
	return r.Account().Aliases
}

// anyDepartment reports whether f accepts a department of the account.
func (r Record) anyDepartment(f func(path string) bool) bool {
	if !r.Exists() {
		return false
	}
	rest := reader(r.packed)
	rest.text()
	rest.byte()
	rest.text()
	for n, _ := rest.length(); n > 0; n-- {
		if f(rest.text()) {
			return true
		}
	}
	return false
}

// mayUse reports whether match accepts an alias or a send_as entry of the account.
func (r Record) mayUse(match func(entry string) bool) bool {
	if !r.Exists() {
		return false
	}
	f := reader(r.packed)
	f.text()
	if f.byte()&(flagAliases|flagSendAs) == 0 {
		return false
	}
	_, f = r.mailbox()
	f.text()
	for n := f.number(); n > 0; n-- {
		f.secret()
	}
	f.number()
	f.time()
	for range 2 { // aliases, send_as
		for n, _ := f.length(); n > 0; n-- {
			if match(f.text()) {
				return true
			}
		}
	}
	return false
}

// Account returns the whole document, the caller's own; nil of no record.
func (r Record) Account() *Account { return r.revised().Doc }

// revised returns the whole document with its revision.
func (r Record) revised() Revised[Account] {
	if !r.Exists() {
		return Revised[Account]{}
	}
	f := reader(r.packed)
	address, flags := f.text(), f.byte()
	a := &Account{Address: address, Suspended: flags&flagSuspended != 0, Secure: access.SecureMode(f.text()), Departments: f.texts()}
	if n, ok := f.length(); ok {
		a.Protocols = make(access.Switches, n)
		for range n {
			name := f.text()
			a.Protocols[name] = f.byte() == 1
		}
	}
	if flags&flagMailboxSet != 0 {
		a.MailboxSetAt = f.time()
	}
	a.MailboxHash = f.text()
	if n := f.number(); n > 0 {
		a.Secrets = make([]SecurePassword, n)
		for i := range a.Secrets {
			a.Secrets[i] = f.secret()
		}
	}
	rev := f.number()
	a.CreatedAt, a.Aliases, a.SendAs = f.time(), f.texts(), f.texts()
	if n := f.number(); n > 0 {
		a.Batches = make([]BatchMark, n)
		for i := range a.Batches {
			a.Batches[i] = BatchMark{At: f.time(), By: f.text(), Scope: f.text(), Settings: f.texts()}
		}
	}
	return Revised[Account]{a, rev}
}
