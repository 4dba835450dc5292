package gate

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/store"
)

// maxLabel bounds in bytes what outsiders can put into a record.
const maxLabel = 256

func newRecord(l *access.Login, d *access.Decision) *store.LoginRecord {
	account := d.Account
	if account == "" {
		account = l.Account
	}
	rec := &store.LoginRecord{
		ID:           recordID(l.Time),
		Time:         l.Time.UTC().Truncate(time.Millisecond),
		Account:      bounded(account),
		IP:           address.IPText(l.IP),
		Region:       d.Region,
		Protocol:     l.Protocol.String(),
		Service:      bounded(l.Service),
		Mechanism:    bounded(l.Mechanism),
		TLS:          l.TLS,
		Client:       d.Client,
		ClientID:     bounded(l.ClientID),
		Session:      bounded(l.Session),
		MasterUser:   bounded(l.MasterUser),
		SecretHidden: l.Lookup == access.LookupCredentials,
		CredentialID: d.CredentialID,
		Outcome:      d.Outcome,
		Reason:       d.Reason,
		PolicyID:     d.PolicyID,
		WouldRefuse:  d.WouldRefuse,
		Note:         d.Note,
	}
	if l.RealIP.IsValid() && l.RealIP != l.IP {
		rec.RealIP = address.IPText(l.RealIP)
	}
	return rec
}

// newRecord also names the network.
func (g *Gate) newRecord(l *access.Login, d *access.Decision) *store.LoginRecord {
	rec := newRecord(l, d)
	if g.Network != nil {
		rec.Network = bounded(g.Network(l.IP))
	}
	return rec
}

// recordID begins with its time, so that ids compare by age.
func recordID(t time.Time) string {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(t.UnixMilli()))
	return hex.EncodeToString(at[2:]) + store.NewID()
}

func bounded(s string) string {
	if len(s) > maxLabel {
		s = s[:maxLabel]
	}
	return strings.ToValidUTF8(s, string(utf8.RuneError))
}

// line returns the log line of a decision, in ASCII. Text from outsiders is quoted so that their
// spaces and equals signs cannot imitate a field in any log watcher's expression.
func line(what string, rec *store.LoginRecord) string {
	var b strings.Builder
	b.Grow(160)
	b.WriteString(what + " " + rec.Outcome.String() + ":")
	field := func(name, value string) { b.WriteString(" " + name + "=" + quoted(value)) }
	field("user", rec.Account)
	field("ip", rec.IP)
	proto := rec.Protocol
	if proto == "" {
		proto = rec.Service
	}
	field("proto", proto)
	field("client", string(rec.Client))
	field("reason", string(rec.Reason))
	// Further fields follow: log watchers match all fields up to here as one pattern.
	if rec.RealIP != "" {
		field("real_ip", rec.RealIP)
	}
	if rec.PolicyID != "" {
		field("policy", rec.PolicyID)
	}
	if len(rec.WouldRefuse) > 0 {
		field("would_refuse", strings.Join(rec.WouldRefuse, ","))
	}
	if rec.CredentialID != "" {
		field("credential", rec.CredentialID)
	}
	if rec.MasterUser != "" {
		field("master", rec.MasterUser)
	}
	if rec.Session != "" {
		field("session", rec.Session)
	}
	return b.String()
}

func quoted(s string) string {
	if s == "" {
		return "-"
	}
	plain := func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("@._+-:/,", c) >= 0
	}
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) && s != "-" { // the mark of an empty value
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		if plain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		}
	}
	b.WriteByte('"')
	return b.String()
}
