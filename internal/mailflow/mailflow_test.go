package mailflow

import "testing"

// ann is who authenticated in these tests: she owns one address and one alias.
func ann(check SenderCheck) *Submitter {
	return &Submitter{
		Account: "ann@example.org",
		Check:   check,
		Owns:    func(addr string) bool { return addr == "ann@example.org" || addr == "sales@example.net" },
	}
}

func TestEnvelope(t *testing.T) {
	for _, c := range []struct {
		from    string
		refused bool
	}{
		{"ann@example.org", false},
		{"Ann@EXAMPLE.org.", false},
		{"ann+lists@example.org", false},
		{"sales@example.net", false},
		{"sales+q4@example.net", false},
		{"", false}, // bounces and read receipts

		{"eve@example.org", true},
		{"ann@example.net", true},
		{"eve+ann@example.org", true},
		{"+ann@example.org", true},
		{"ann", true},
		{`"ann smith"@example.org`, true},
		{"ann@example.org@example.net", true},
		{"ann@[192.0.2.1]", true},
		{"änn@example.org", true},
		{"ann@example.org\x00", true},
	} {
		for _, check := range []SenderCheck{"", CheckBoth, CheckEnvelope} {
			if v := ann(check).Envelope(c.from); v.Refused != c.refused || c.refused != (v.Text != "") {
				t.Errorf("%q, check %q: %+v, want refused %v", c.from, check, v, c.refused)
			}
		}
		if v := ann(CheckOff).Envelope(c.from); v.Refused {
			t.Errorf("%q is refused though the check is off", c.from)
		}
	}
}

func TestHeaderFrom(t *testing.T) {
	for _, c := range []struct {
		mailboxes []string
		refused   bool
	}{
		{nil, false},
		{[]string{"ann@example.org"}, false},
		{[]string{"ann@example.org", "Sales@example.net"}, false},
		{[]string{"ann@example.org", "eve@example.org"}, true},
		{[]string{"eve@example.org", "ann@example.org"}, true},
		{[]string{`"ann@example.org"@example.net`}, true},
		{[]string{""}, true},
	} {
		for check, checked := range map[SenderCheck]bool{"": true, CheckBoth: true, CheckEnvelope: false, CheckOff: false} {
			if v := ann(check).HeaderFrom(c.mailboxes); v.Refused != (c.refused && checked) {
				t.Errorf("%q, check %q: %+v", c.mailboxes, check, v)
			}
		}
	}
}

func TestNoRuleConcernsTheSession(t *testing.T) {
	var s Submitter
	if s.WantsHeaderFrom() || s.Envelope("eve@example.net").Refused || s.HeaderFrom([]string{"eve@example.net"}).Refused {
		t.Error("the zero Submitter refuses")
	}
}
