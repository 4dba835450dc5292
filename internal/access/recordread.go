package access

import (
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// ReadRecord replaces a record by the one that a JSON text has, as json.Unmarshal does into an empty
// record, but in a fraction of its time for texts as [json.Marshal] writes them. The record's texts are
// parts of the JSON and keep its memory.
func ReadRecord(text string, r *LoginRecord) error {
	*r = LoginRecord{}
	if p := (recordReader{text}); p.record(r) {
		return nil
	}
	*r = LoginRecord{}
	return json.Unmarshal([]byte(text), r)
}

// recordReader reads JSON without blanks, escapes and null. Its methods report false at anything else.
type recordReader struct{ rest string }

func (p *recordReader) record(r *LoginRecord) bool {
	if !p.skip("{") {
		return false
	}
	for {
		key, ok := p.text()
		if !ok || !p.skip(":") || !p.field(key, r) {
			return false
		}
		if !p.skip(",") {
			return p.rest == "}"
		}
	}
}

func (p *recordReader) field(key string, r *LoginRecord) (ok bool) {
	var v string
	switch key {
	case "id":
		r.ID, ok = p.text()
	case "time":
		v, ok = p.text()
		return ok && r.Time.UnmarshalText([]byte(v)) == nil
	case "account":
		r.Account, ok = p.text()
	case "ip":
		r.IP, ok = p.text()
	case "real_ip":
		r.RealIP, ok = p.text()
	case "region":
		r.Region, ok = p.text()
	case "network":
		r.Network, ok = p.text()
	case "protocol":
		r.Protocol, ok = p.text()
	case "service":
		r.Service, ok = p.text()
	case "mechanism":
		r.Mechanism, ok = p.text()
	case "tls":
		r.TLS, ok = p.flag()
	case "client":
		v, ok = p.text()
		r.Client = ClientType(v)
	case "client_id":
		r.ClientID, ok = p.text()
	case "session":
		r.Session, ok = p.text()
	case "master_user":
		r.MasterUser, ok = p.text()
	case "secret_hidden":
		r.SecretHidden, ok = p.flag()
	case "credential_id":
		r.CredentialID, ok = p.text()
	case "credential":
		r.Credential, ok = p.text()
	case "outcome":
		v, ok = p.text()
		r.Outcome = ParseOutcome(v)
	case "reason":
		v, ok = p.text()
		r.Reason = Reason(v)
	case "policy_id":
		r.PolicyID, ok = p.text()
	case "would_refuse":
		r.WouldRefuse, ok = p.texts()
	case "note":
		r.Note, ok = p.text()
	case "abnormal":
		r.Abnormal, ok = p.texts()
	case "pseudonymised":
		r.Pseudonymised, ok = p.flag()
	case "closed_at":
		v, ok = p.text()
		return ok && r.ClosedAt.UnmarshalText([]byte(v)) == nil
	}
	return ok
}

func (p *recordReader) skip(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	p.rest = rest
	return ok
}

func (p *recordReader) flag() (value, ok bool) {
	if p.skip("true") {
		return true, true
	}
	return false, p.skip("false")
}

func (p *recordReader) text() (string, bool) {
	if !p.skip(`"`) {
		return "", false
	}
	ascii := true
	for i := range len(p.rest) {
		switch c := p.rest[i]; {
		case c == '"':
			v := p.rest[:i]
			p.rest = p.rest[i+1:]
			return v, ascii || utf8.ValidString(v)
		case c == '\\', c < ' ':
			return "", false
		case c >= utf8.RuneSelf:
			ascii = false
		}
	}
	return "", false
}

func (p *recordReader) texts() ([]string, bool) {
	if !p.skip("[") {
		return nil, false
	}
	list := []string{}
	for !p.skip("]") {
		if len(list) > 0 && !p.skip(",") {
			return nil, false
		}
		v, ok := p.text()
		if !ok {
			return nil, false
		}
		list = append(list, v)
	}
	return list, true
}
