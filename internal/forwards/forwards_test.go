package forwards

import "testing"

// Whoever a notification goes to, and however the script writes it, an address outside is found.
func TestNotificationsOutside(t *testing.T) {
	s := &Site{Managed: func(domain string) bool { return domain == "example.org" }}
	for method, outside := range map[string]bool{
		"mailto:ann@example.org":                                       false,
		"MailTo:ann@example.org?subject=new&body=a%26cc=x":             false,
		"mailto:ann%40example.org":                                     false,
		"mailto:ann+box@example.org,bob@example.org":                   false,
		"mailto:?to=ann@example.org":                                   false,
		"xmpp:eve@example.net":                                         false,
		"mailto:eve@example.net":                                       true,
		"mailto:eve%40example.net":                                     true,
		"mailto:ann@example.org,eve@example.net":                       true,
		"mailto:ann@example.org?CC=eve@example.net":                    true,
		"mailto:ann@example.org?subject=x&%62cc=eve%40example.net":     true,
		"mailto:ann@example.org?to=ann@example.org%2Ceve@example.net":  true,
		"mailto:ann@example.org?cc=ann@example.org&cc=eve@example.net": true,
		"mailto:ann@example.org?cc=%zz":                                true,
		"mailto:ann@example.org%":                                      true,
		"mailto:?resent-to=eve@example.net":                            true,
		"mailto:Ann%20%3Ceve@example.net%3E?subject=ann@example.org":   true,
		"mailto:ann@example.org?subject=x;cc=eve@example.net":          true,
	} {
		if got := s.notifiesOutside(method); got != outside {
			t.Errorf("%s: outside %t", method, got)
		}
	}
}
