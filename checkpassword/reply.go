package checkpassword

import "unicode/utf8"

// maxReason bounds the text of a refusal: POP3 has 512 bytes for a whole response line (RFC 1939,
// section 3).
const maxReason = 400

// Reply returns the text for descriptor 4: fields that each end with a TAB, without LF or NUL, less
// than 4096 bytes (one atomic write to a pipe) when the account is at most 512. No fields, no
// bytes.
func Reply(f Fields, account, reason string) []byte {
	if f == NoFields {
		return nil
	}
	b := appendEscaped([]byte("user="), account)
	switch f {
	case NoFields, AdmitUser:
	case PassOn:
		b = append(b, "\tnoauthenticate=y"...)
	case TellWhy:
		b = append(b, "\tnologin=y\treason="...)
		b = appendEscaped(b, oneLine(clip(reason, maxReason)))
	}
	return append(b, '\t')
}

// appendEscaped appends s as Dovecot's str_append_tabescaped does.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		switch c := s[i]; c {
		case 0:
			b = append(b, '\001', '0')
		case '\001':
			b = append(b, '\001', '1')
		case '\t':
			b = append(b, '\001', 't')
		case '\r':
			b = append(b, '\001', 'r')
		case '\n':
			b = append(b, '\001', 'n')
		default:
			b = append(b, c)
		}
	}
	return b
}

// oneLine makes every control character a space: Dovecot would unescape a line break and send it to
// the client within its own response line.
func oneLine(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			r = ' '
		}
		b = utf8.AppendRune(b, r)
	}
	return string(b)
}
