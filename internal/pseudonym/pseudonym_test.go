package pseudonym_test

import (
	"encoding/json"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/credential"
	"github.com/drawbridge/drawbridge/internal/pseudonym"
)

func hash(t *testing.T) pseudonym.Hash {
	t.Helper()
	p, err := credential.CreatePepper(filepath.Join(t.TempDir(), "pepper"))
	if err != nil {
		t.Fatal(err)
	}
	return p.Pseudonym
}

// Equal addresses stay equal and networks comparable, within a domain only.
func TestAddressesStayComparable(t *testing.T) {
	h := hash(t)
	one, other, far := h.Address("example.org", "203.0.113.9"), h.Address("example.org", "203.0.113.10"), h.Address("example.org", "198.51.100.9")
	if one != h.Address("example.org", "203.0.113.9") || one == other || one == far {
		t.Errorf("%s, %s and %s", one, other, far)
	}
	network := h.Network("example.org", netip.MustParsePrefix("203.0.113.0/24"))
	if network == "" || !strings.HasPrefix(one, network) || !strings.HasPrefix(other, network) || strings.HasPrefix(far, network) {
		t.Errorf("the network is %s, the addresses are %s, %s and %s", network, one, other, far)
	}
	if single := h.Network("example.org", netip.MustParsePrefix("203.0.113.9/32")); single != one {
		t.Errorf("the network of one address is %s, not %s", single, one)
	}
	if wide := h.Network("example.org", netip.MustParsePrefix("203.0.0.0/16")); wide != "" {
		t.Errorf("a /16 has the pseudonym %s", wide)
	}
	if six := h.Network("example.org", netip.MustParsePrefix("2001:db8:1::/48")); six == "" || !strings.HasPrefix(h.Address("example.org", "2001:db8:1:2::3"), six) {
		t.Errorf("a /48 has the pseudonym %q", six)
	}
	if h.Address("example.com", "203.0.113.9") == one {
		t.Error("two domains can compare their addresses")
	}
	if hash(t).Address("example.org", "203.0.113.9") == one {
		t.Error("another key gives the same pseudonym")
	}
	if h.Address("example.org", "") != "" || h.Client("example.org", "") != "" {
		t.Error("what was empty is not")
	}
}

// Nothing of the record names the address or the client afterwards.
func TestLoginNamesNoConnection(t *testing.T) {
	r := access.LoginRecord{
		ID: "1", Account: "ann@example.org", IP: "203.0.113.9", RealIP: "127.0.0.1", ClientID: "Ann's phone", Session: "AAECAw",
		Region: "DE", CredentialID: "0123", Note: "came from 203.0.113.9",
	}
	hash(t).Login("example.org", &r)
	text, err := json.Marshal(&r)
	if err != nil {
		t.Fatal(err)
	}
	for _, gone := range []string{"203.0.113", "127.0.0.1", "phone", "AAECAw"} {
		if strings.Contains(string(text), gone) {
			t.Errorf("%s is still in %s", gone, text)
		}
	}
	if !r.Pseudonymised || r.Region != "DE" || r.CredentialID != "0123" || r.Account != "ann@example.org" {
		t.Errorf("%+v", r)
	}
}
