// Package recordtext writes login records as CSV, JSON Lines and syslog messages (RFC 5424).
//
// It is pure: it writes to a buffer of the caller's.
package recordtext

import (
	"bytes"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/drawbridge/drawbridge/internal/access"
)

// The formats.
const (
	CSV    = "csv"
	JSONL  = "jsonl"
	Syslog = "syslog"
)

// Types are the media types of the formats.
var Types = map[string]string{CSV: "text/csv; charset=utf-8; header=present", JSONL: "application/x-ndjson", Syslog: "text/plain; charset=utf-8"}

var columns = [...]string{
	"id", "time", "account", "ip", "real_ip", "region", "protocol", "service", "mechanism", "tls", "client", "client_id", "session", "master_user",
	"credential_id", "credential", "outcome", "reason", "policy_id", "would_refuse", "abnormal", "note", "closed_at", "network",
}

// Header is the first line of a format, "" for none.
func Header(format string) string {
	if format == CSV {
		return strings.Join(columns[:], ",") + "\r\n"
	}
	return ""
}

// Append writes one record at the end of b. host names this daemon in syslog messages.
func Append(b *bytes.Buffer, format, host, text string, r *access.LoginRecord) {
	switch format {
	case CSV:
		row(b, r)
	case Syslog:
		syslog(b, host, r)
	default:
		b.WriteString(text)
		b.WriteByte('\n')
	}
}

// values are the texts of the columns. Those of times are parts of room.
func values(r *access.LoginRecord, room *[64]byte) [len(columns)]string {
	b := stamp(room[:0], r.Time)
	n := len(b)
	b = stamp(b, r.ClosedAt)
	stamps := string(b)
	return [...]string{
		r.ID, stamps[:n], r.Account, r.IP, r.RealIP, r.Region, r.Protocol, r.Service, r.Mechanism, strconv.FormatBool(r.TLS), string(r.Client), r.ClientID,
		r.Session, r.MasterUser, r.CredentialID, r.Credential, r.Outcome.String(), string(r.Reason), r.PolicyID, strings.Join(r.WouldRefuse, " "),
		strings.Join(r.Abnormal, " "), r.Note, stamps[n:], r.Network,
	}
}

// row writes a line as encoding/csv does, which allocates for each.
func row(b *bytes.Buffer, r *access.LoginRecord) {
	var room [64]byte
	for i, v := range values(r, &room) {
		if i > 0 {
			b.WriteByte(',')
		}
		if plain(v) {
			b.WriteString(v)
			continue
		}
		if v = cell(v); !quoted(v) {
			b.WriteString(v)
			continue
		}
		b.WriteByte('"')
		for i := range len(v) {
			switch c := v[i]; c {
			case '"':
				b.WriteString(`""`)
			case '\r':
			case '\n':
				b.WriteString("\r\n")
			default:
				b.WriteByte(c)
			}
		}
		b.WriteByte('"')
	}
	b.WriteString("\r\n")
}

// plain reports whether a value is its own cell: most are.
func plain(v string) bool {
	for i := range len(v) {
		switch c := v[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		case i > 0 && (c == '-' || c == '.' || c == ':' || c == '@' || c == '_' || c == '/' || c == ' '):
		default:
			return false
		}
	}
	return true
}

// quoted reports whether a cell is written in quotes.
func quoted(v string) bool {
	return v == `\.` || strings.ContainsAny(v, ",\"\r\n") || strings.IndexFunc(v, unicode.IsSpace) == 0
}

// cell puts an apostrophe before what a spreadsheet would take for a formula: at the beginning of a
// value, and behind what separates cells in the spreadsheets of other languages.
func cell(v string) string {
	begins, last := true, 0
	var b strings.Builder
	for i, c := range v {
		separates := strings.ContainsRune(";|\t\r\n", c)
		if begins && strings.ContainsRune("=+-@＝＋－＠", c) || i == 0 && separates {
			b.WriteString(v[last:i] + "'")
			last = i
		}
		begins = separates || begins && (c == ' ' || c == '"')
	}
	if b.Len() == 0 {
		return v
	}
	return b.String() + v[last:]
}

func stamp(b []byte, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	return t.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
}

// syslog writes a message of facility authpriv: severity notice for refusals, info for others. 32473 is
// the enterprise number of examples (RFC 5612).
func syslog(b *bytes.Buffer, host string, r *access.LoginRecord) {
	const authpriv = 10 * 8
	severity := 6
	if r.Outcome == access.Deny || r.Outcome == access.TempFail {
		severity = 5
	}
	var room [64]byte
	v := values(r, &room)
	b.WriteByte('<')
	b.WriteString(strconv.Itoa(authpriv + severity))
	b.WriteString(">1 ")
	b.WriteString(v[1])
	b.WriteByte(' ')
	b.WriteString(host)
	b.WriteString(" drawbridged - login [login@32473")
	for i, name := range columns {
		if name == "time" || v[i] == "" {
			continue
		}
		b.WriteByte(' ')
		b.WriteString(name)
		b.WriteString(`="`)
		param(b, v[i])
		b.WriteByte('"')
	}
	b.WriteString("] login ")
	b.WriteString(r.Outcome.String())
	b.WriteString(": ")
	b.WriteString(string(r.Reason))
	b.WriteByte('\n')
}

func param(b *bytes.Buffer, v string) {
	if plain(v) {
		b.WriteString(v)
		return
	}
	for _, c := range v {
		switch {
		case c == '"', c == '\\', c == ']':
			b.WriteByte('\\')
			b.WriteRune(c)
		case unicode.IsControl(c), c == '\u2028', c == '\u2029':
			b.WriteByte(' ')
		default:
			b.WriteRune(c)
		}
	}
}
