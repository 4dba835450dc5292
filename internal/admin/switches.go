package admin

import (
	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/api"
)

func viewProtocols(s access.Switches) api.Protocols {
	of := func(p access.Protocol) *bool {
		if on, ok := s[p.String()]; ok {
			return &on
		}
		return nil
	}
	return api.Protocols{IMAP: of(access.IMAP), POP3: of(access.POP3), SMTP: of(access.SMTP), Sieve: of(access.Sieve)}
}

func switchesOf(p *api.Protocols) access.Switches {
	s := access.Switches{}
	for protocol, on := range map[access.Protocol]*bool{access.IMAP: p.IMAP, access.POP3: p.POP3, access.SMTP: p.SMTP, access.Sieve: p.Sieve} {
		if on != nil {
			s[protocol.String()] = *on
		}
	}
	return s
}

// presets are the combinations that one word sets (F3): the switches for imap, pop3 and smtp.
func presets(name string) (imap, pop3, smtp, ok bool) {
	switch name {
	case "imap-smtp":
		return true, false, true, true
	case "pop3-smtp":
		return false, true, true, true
	case "all":
		return true, true, true, true
	case "none":
		return false, false, false, true
	default:
		return false, false, false, false
	}
}

// presetOf returns the preset of switches, or "".
func presetOf(p *api.Protocols) string {
	if p.IMAP == nil || p.POP3 == nil || p.SMTP == nil {
		return ""
	}
	for _, name := range []string{"imap-smtp", "pop3-smtp", "all", "none"} {
		if imap, pop3, smtp, _ := presets(name); *p.IMAP == imap && *p.POP3 == pop3 && *p.SMTP == smtp {
			return name
		}
	}
	return ""
}

// applyPreset sets the switches of a preset, which explicit switches must not contradict.
func applyPreset(p *api.Protocols, name, pointer string, f *api.Faults) {
	imap, pop3, smtp, ok := presets(name)
	if !ok {
		return
	}
	for _, s := range []struct {
		on   **bool
		want bool
	}{{&p.IMAP, imap}, {&p.POP3, pop3}, {&p.SMTP, smtp}} {
		if *s.on != nil && **s.on != s.want {
			f.Add(pointer+"/preset", "conflict", "contradicts protocols: give one of them")
		}
		*s.on = &s.want
	}
}
