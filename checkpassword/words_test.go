package checkpassword

import "testing"

func TestWords(t *testing.T) {
	admit := Speech{Status: 0, Fields: AdmitUser}
	passOn := Speech{Status: 0, Fields: PassOn}
	refuse := Speech{Status: 1}
	temporary := Speech{Status: 111}
	held := Speech{Status: 111, Hold: true}

	table := map[Asker]map[Outcome]Speech{
		Elsewhere:     {Allow: {Run: true}, Next: refuse, Deny: refuse, TempFail: temporary, NoAnswer: temporary},
		LoginProxy:    {Allow: admit, Next: passOn, Deny: refuse, TempFail: temporary, NoAnswer: temporary},
		Dovecot:       {Allow: admit, Next: passOn, Deny: refuse, TempFail: temporary, NoAnswer: temporary},
		SASL:          {Allow: admit, Next: passOn, Deny: refuse, TempFail: held, NoAnswer: held},
		DovecotLookup: {Allow: {Status: 2, Fields: AdmitUser}, Next: {Status: 2, Fields: PassOn}, Deny: {Status: 3}, TempFail: temporary, NoAnswer: temporary},
	}
	for asker, row := range table {
		for outcome, want := range row {
			for _, withText := range []bool{false, true} {
				want := want
				if withText && asker == LoginProxy && outcome == Deny {
					want = Speech{Status: 0, Fields: TellWhy}
				}
				if got := Words(outcome, asker, withText); got != want {
					t.Errorf("outcome %d, asker %d, with text %v: %+v, want %+v", outcome, asker, withText, got, want)
				}
			}
		}
	}
}

// TestWordsFailClosed walks over values that the table does not have.
func TestWordsFailClosed(t *testing.T) {
	for o := range Outcome(10) {
		for a := range Asker(10) {
			s := Words(o, a, true)
			known := a <= DovecotLookup && (o == Allow || o == Next)
			if (s.Run || s.Fields == AdmitUser || s.Fields == PassOn) && !known {
				t.Errorf("outcome %d, asker %d: %+v admits", o, a, s)
			}
			if s.Fields == NoFields && s.Status == 0 && !s.Run {
				t.Errorf("outcome %d, asker %d: exit 0 without a word", o, a)
			}
			if s.Fields == TellWhy && (a != LoginProxy || o != Deny) {
				t.Errorf("outcome %d, asker %d: %+v, which Postfix takes for a success", o, a, s)
			}
		}
	}
}
