package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mmdbtest"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// With databases of networks and of places, records and texts name the network of a login, another
// address of the same network is usual, and travel is judged by distance. The database of networks is
// replaced under way.
func TestNetworks(t *testing.T) {
	t.Parallel()
	const (
		home, near, far = "198.51.100.4", "192.0.2.4", "203.0.113.4" // near is across the border, in the same network
		telecom, cable  = "AS64496 Example Telecom", "AS64497 Example Cable"
	)
	built := time.Now().AddDate(0, 0, -20)
	var numbers, cities mmdbtest.Tree
	numbers.Add("198.51.100.0/24", mmdbtest.Network(64496, "Example Telecom"))
	numbers.Add("192.0.2.0/24", mmdbtest.Network(64496, "Example Telecom"))
	numbers.Add("203.0.113.0/24", mmdbtest.Network(64497, "Example Cable"))
	cities.Add("198.51.100.0/24", mmdbtest.City("DE", 49.0, 8.4, 20))
	cities.Add("192.0.2.0/24", mmdbtest.City("FR", 48.6, 7.7, 20))
	cities.Add("203.0.113.0/24", mmdbtest.City("BR", -23.5, -46.6, 100))
	networks := filepath.Join(t.TempDir(), "asn.mmdb")
	write := func(m *mmdbtest.Tree) {
		t.Helper()
		if err := os.WriteFile(networks+".new", m.Bytes(built), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(networks+".new", networks); err != nil {
			t.Fatal(err)
		}
	}
	write(&numbers)
	s := start(t, trialstack.Options{Settings: map[string]any{
		"regions.database": cities.Write(t, built), "regions.networks": networks, "notify.abnormal_logins": "mail",
	}})
	s.domain(nil)
	login := func(ip, network, abnormal string) object {
		s.t.Helper()
		s.want("ann from "+ip, s.from(ip), "OK ")
		r := s.record("account="+ann+"&ip="+ip, func(r object) bool { return r["outcome"] == "allow" })
		if r["network"] != network || fmt.Sprint(r["abnormal"]) != abnormal {
			t.Errorf("from %s: %v %v, want %s %s", ip, r["network"], r["abnormal"], network, abnormal)
		}
		return r
	}
	login(home, telecom, "[]")
	login(near, telecom, "[new_region]")
	r := login(far, cable, "[new_network new_region impossible_travel]")
	note := fmt.Sprint(r["note"])
	for _, want := range []string{"from BR ", " minutes after FR", " km away (at least ", "as exact as the database says", " km/h", "VPN"} {
		if !strings.Contains(note, want) {
			t.Errorf("the note lacks %q: %s", want, note)
		}
	}
	const subject = "New login to " + ann
	var text string
	s.eventually("the message about "+far, func() bool {
		messages, err := s.Inbox(ann)
		s.must(err)
		for _, m := range messages {
			if strings.Contains(m, subject) && strings.Contains(m, far) {
				text = strings.ReplaceAll(m, "=\n", "") // quoted-printable
			}
		}
		return text != ""
	})
	for _, want := range []string{far + " (BR, " + cable + ")", near + " (FR, " + telecom + ")", "soon after a login from far away"} {
		if !strings.Contains(text, want) {
			t.Errorf("the message lacks %q:\n%s", want, text)
		}
	}
	if out := s.command("logins", "example.org", "--wide"); !strings.Contains(out, cable) {
		t.Errorf("the command does not name the network:\n%s", out)
	}

	var moved mmdbtest.Tree
	moved.Add("203.0.113.0/24", mmdbtest.Network(64511, "Example Moved"))
	write(&moved)
	s.logged(s.Daemons[0].Service, "the database of networks was read")
	s.want("ann from "+far, s.from(far), "OK ")
	s.record("account="+ann+"&ip="+far, func(r object) bool { return r["network"] == "AS64511 Example Moved" })
}
