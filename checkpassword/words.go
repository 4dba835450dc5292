package checkpassword

// Outcome is the result of the daemon's decision.
type Outcome uint8

// The outcomes. The zero value is no answer and treated as TempFail.
const (
	NoAnswer Outcome = iota
	Allow
	Deny
	Next // the rules permit; the site's next passdb judges the password
	TempFail
)

// outcomeOf maps the daemon's word; any other is [NoAnswer].
func outcomeOf(word string) Outcome {
	switch word {
	case "allow":
		return Allow
	case "deny":
		return Deny
	case "next":
		return Next
	case "tempfail":
		return TempFail
	default:
		return NoAnswer
	}
}

// Fields selects the text for descriptor 4.
type Fields uint8

// The replies.
const (
	NoFields  Fields = iota
	AdmitUser        // user
	PassOn           // user, noauthenticate: Dovecot continues with its next passdb
	TellWhy          // user, nologin, reason
)

// Exit statuses.
const (
	exitOK      = 0
	exitRefused = 1
	exitMisuse  = 2
	exitFound   = 2 // look-ups
	exitUnknown = 3 // look-ups
	exitTemp    = 111
)

// Speech is a decision in the asker's words.
type Speech struct {
	Status int
	Fields Fields
	Run    bool // run REPLY instead of exiting
	Hold   bool // wait until the asker has lost patience, if the trouble is the daemon's or its store's
}

// Words is the table of all answers. withText says that there is a text which the outsider may
// read; it matters to a refusal alone.
//
// No refusal is ever spoken as noauthenticate with an invented name to carry its text: a permissive
// next passdb admits that. Nor as nologin to anybody but Dovecot's login processes: Postfix answers
// 235.
func Words(o Outcome, a Asker, withText bool) Speech {
	switch a {
	case Elsewhere:
		switch o {
		case Allow:
			return Speech{Run: true}
		case Deny, Next: // there is no next passdb
			return Speech{Status: exitRefused}
		case NoAnswer, TempFail:
			return Speech{Status: exitTemp}
		}
	case LoginProxy:
		switch o {
		case Allow:
			return Speech{Status: exitOK, Fields: AdmitUser}
		case Next:
			return Speech{Status: exitOK, Fields: PassOn}
		case Deny:
			if withText {
				return Speech{Status: exitOK, Fields: TellWhy}
			}
			return Speech{Status: exitRefused}
		case NoAnswer, TempFail:
			return Speech{Status: exitTemp}
		}
	case Dovecot, SASL:
		switch o {
		case Allow:
			return Speech{Status: exitOK, Fields: AdmitUser}
		case Next:
			return Speech{Status: exitOK, Fields: PassOn}
		case Deny:
			return Speech{Status: exitRefused}
		case NoAnswer, TempFail:
			return Speech{Status: exitTemp, Hold: a == SASL}
		}
	case DovecotLookup:
		switch o {
		case Allow:
			return Speech{Status: exitFound, Fields: AdmitUser}
		case Next:
			return Speech{Status: exitFound, Fields: PassOn}
		case Deny:
			return Speech{Status: exitUnknown}
		case NoAnswer, TempFail:
			return Speech{Status: exitTemp}
		}
	}
	return Speech{Status: exitTemp}
}
