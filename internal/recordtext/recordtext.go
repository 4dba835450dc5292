// Package recordtext writes login records as CSV, JSON Lines and syslog messages (RFC 5424).
//
// It is pure: it writes to a buffer of the caller's.
package recordtext

import (
	"bytes"
	"encoding/csv"
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

var columns = []string{
	"id", "time", "account", "ip", "real_ip", "region", "protocol", "service", "mechanism", "tls", "client", "client_id", "session", "master_user",
	"credential_id", "credential", "outcome", "reason", "policy_id", "would_refuse", "abnormal", "note", "closed_at",
}

// Header is the first line of a format, "" for none.
func Header(format string) string {
	if format == CSV {
		return strings.Join(columns, ",") + "\r\n"
	}
	return ""
}

// Append writes one record at the end of b. host names this daemon in syslog messages.
func Append(b *bytes.Buffer, format, host string, text []byte, r *access.LoginRecord) {
	switch format {
	case CSV:
		w := csv.NewWriter(b)
		w.UseCRLF = true
		list := values(r)
		for i, v := range list {
			list[i] = cell(v)
		}
		_ = w.Write(list) // to memory
		w.Flush()
	case Syslog:
		syslog(b, host, r)
	default:
		b.Write(text)
		b.WriteByte('\n')
	}
}

func values(r *access.LoginRecord) []string {
	return []string{
		r.ID, stamp(r.Time), r.Account, r.IP, r.RealIP, r.Region, r.Protocol, r.Service, r.Mechanism, strconv.FormatBool(r.TLS), string(r.Client), r.ClientID,
		r.Session, r.MasterUser, r.CredentialID, r.Credential, r.Outcome.String(), string(r.Reason), r.PolicyID, strings.Join(r.WouldRefuse, " "),
		strings.Join(r.Abnormal, " "), r.Note, stamp(r.ClosedAt),
	}
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

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02T15:04:05.000Z")
}

// syslog writes a message of facility authpriv: severity notice for refusals, info for others. 32473 is
// the enterprise number of examples (RFC 5612).
func syslog(b *bytes.Buffer, host string, r *access.LoginRecord) {
	const authpriv = 10 * 8
	severity := 6
	if r.Outcome == access.Deny || r.Outcome == access.TempFail {
		severity = 5
	}
	b.WriteString("<" + strconv.Itoa(authpriv+severity) + ">1 " + stamp(r.Time) + " " + host + " drawbridged - login [login@32473")
	v := values(r)
	for i, name := range columns {
		if name == "time" || v[i] == "" {
			continue
		}
		b.WriteString(" " + name + `="`)
		for _, c := range v[i] {
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
		b.WriteByte('"')
	}
	b.WriteString("] login " + r.Outcome.String() + ": " + string(r.Reason) + "\n")
}
