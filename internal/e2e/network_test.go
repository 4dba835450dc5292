package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mmdbtest"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// With databases of networks and of places, records and texts name the network of a login, another
// address of the same network is usual, and travel is judged by distance. The database of networks is
// replaced under way, and by a reload; its state is shown, measured and examined.
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

	// It is shown, measured and examined as the database of regions is.
	d := s.Daemons[0]
	status := func() object {
		n, _ := s.api("GET", "/v1/regions", nil)["networks"].(object)
		return n
	}
	if n := status(); n["kind"] != "mmdb" || n["age_days"] != 20.0 || fmt.Sprint(n["paths"]) != "["+networks+"]" || n["ranges_v4"] != 3.0 || n["error"] != nil {
		t.Errorf("the database of networks: %v", n)
	}
	key := s.api("POST", "/v1/keys", object{"name": "ours", "role": "domain", "domain": "example.org"})["key"].(string)
	if n, _ := s.with(key).api("GET", "/v1/regions", nil)["networks"].(object); n["age_days"] != 20.0 || fmt.Sprint(n["paths"]) != "[]" {
		t.Errorf("as the domain's key sees it: %v", n)
	}
	if out := s.command("region", "status"); !strings.Contains(out, "networks:") || !strings.Contains(out, networks) {
		t.Errorf("the command shows\n%s", out)
	}
	if age := s.metric("drawbridge_network_database_age_seconds"); age < 20*86400 || age > 21*86400 {
		t.Errorf("it is %v seconds old", age)
	}
	examined := func(want string) {
		t.Helper()
		out, _ := d.Command(s.ctx, "doctor", "--dovecot-config", s.DovecotConf(), "--postfix-config", s.PostfixDir(), "--config", d.Config).CombinedOutput() // its status counts all findings
		if !strings.Contains(string(out), want) {
			t.Errorf("the doctor does not say %q:\n%s", want, out)
		}
	}
	examined("the database of networks is 20 days old")

	var moved mmdbtest.Tree
	moved.Add("203.0.113.0/24", mmdbtest.Network(64511, "Example Moved"))
	write(&moved)
	s.logged(s.Daemons[0].Service, "the database of networks was read")
	s.want("ann from "+far, s.from(far), "OK ")
	s.record("account="+ann+"&ip="+far, func(r object) bool { return r["network"] == "AS64511 Example Moved" })

	// A broken file is reported, and what was read before stays in use.
	s.must(os.WriteFile(networks+".new", []byte("half a file"), 0o600))
	s.must(os.Rename(networks+".new", networks))
	s.eventually("the broken file is reported", func() bool {
		e, _ := status()["error"].(string)
		return strings.Contains(e, networks)
	})
	if out := s.command("region", "status"); !strings.Contains(out, networks+": ") {
		t.Errorf("the command does not report it:\n%s", out)
	}
	examined("the last good data stays in use: " + networks)
	s.want("ann from "+near, s.from(near), "OK ")
	s.record("account="+ann+"&ip="+near, func(r object) bool { return r["network"] == "" || r["network"] == nil }) // moved has no more

	// A reload reads another one, keeps it if the next is missing, and goes on without one.
	settings, err := os.ReadFile(d.Config)
	s.must(err)
	reload := func(path, logged string) {
		t.Helper()
		log, err := trialstack.Follow(d.LogPath)
		s.must(err)
		s.must(os.WriteFile(d.Config, []byte(strings.Replace(string(settings), networks, path, 1)), 0o600))
		s.must(syscall.Kill(d.PID(), syscall.SIGHUP))
		_, err = log.Wait(s.ctx, regexp.MustCompile(logged))
		s.must(err)
	}
	write(&numbers)
	other := networks + ".other.mmdb"
	s.must(os.Rename(networks, other))
	reload(other, "were read again")
	if n := status(); fmt.Sprint(n["paths"]) != "["+other+"]" || n["error"] != nil {
		t.Errorf("after a reload: %v", n)
	}
	s.want("ann from "+near, s.from(near), "OK ")
	s.record("account="+ann+"&ip="+near, func(r object) bool { return r["network"] == telecom })
	reload("/nowhere/asn.mmdb", "reload: nothing was applied.*regions.networks")
	if n := status(); fmt.Sprint(n["paths"]) != "["+other+"]" {
		t.Errorf("after a refused reload: %v", n)
	}
	reload("", "were read again")
	if n := status(); n != nil {
		t.Errorf("without one: %v", n)
	}
	if age := s.metric("drawbridge_network_database_age_seconds"); age != 0 {
		t.Errorf("none is %v seconds old", age)
	}
}
