package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/mailclient"
	"github.com/drawbridge/drawbridge/internal/trialstack"
)

const (
	german4        = "198.51.100.4"
	french4        = "203.0.113.4"
	nobodys        = "192.0.2.4" // in the database of no country
	europe4        = "192.0.2.200"
	asia4          = "192.0.2.230"
	german6        = "2001:db8:1::4"
	german4By6to4  = "2002:c633:6404::4" // german4 within
	german4Mapped  = "::ffff:198.51.100.4"
	german4ByNAT64 = "64:ff9b::c633:6404"
	french6        = "2001:db8:2::4"
)

// debian is where Debian's database of regions is.
func debian(t *testing.T) string {
	t.Helper()
	path, err := trialstack.Regions("../..")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// from logs ann in by webmail, which forwards her address, and returns the server's words.
func (s *site) from(ip string) string {
	s.t.Helper()
	return s.forwarded(ip, ann, s.passwords[ann])
}

// forwarded logs in by webmail, which forwards its user's address, and returns the server's words.
func (s *site) forwarded(ip, user, password string) string {
	s.t.Helper()
	c, err := mailclient.Client{From: webmail}.IMAP(s.ctx, s.IMAP())
	s.must(err)
	defer func() { _ = c.Close() }()
	_, err = c.ID("name", "webmail", "x-originating-ip", ip)
	s.must(err)
	r, err := c.Login(user, password)
	s.must(err)
	return r.Status
}

// Policies by region, IPv4 and IPv6, through real Dovecot; the database is replaced under way.
func TestRegions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	database := filepath.Join(dir, "geoip")
	made := time.Now().AddDate(0, 0, -200).UTC().Format(time.RFC1123)
	write := func(v4, v6 string) {
		t.Helper()
		for name, text := range map[string]string{database: v4, database + "6": v6} {
			if err := os.WriteFile(name+".new", []byte("# Generated: "+made+"\n"+text), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(name+".new", name); err != nil {
				t.Fatal(err)
			}
		}
	}
	const (
		v4 = "3221225984,3221226111,??\n3221226112,3221226207,EU\n3221226208,3221226239,AP\n3325256704,3325256959,DE\n3405803776,3405804031,FR\n"
		v6 = "2001:db8:1::,2001:db8:1:ffff:ffff:ffff:ffff:ffff,DE\n2001:db8:2::,2001:db8:2:ffff:ffff:ffff:ffff:ffff,FR\n"
	)
	write(v4, v6)
	s := start(t, trialstack.Options{Settings: map[string]any{
		"regions.database": database, "regions.nat64_prefixes": []string{"64:ff9b::/96"},
	}})
	s.domain(nil)
	const yes, told = "OK ", "Login from the current IP is not allowed."
	refused := func(s *site, what, ip string) {
		s.t.Helper()
		if r := s.from(ip); strings.HasPrefix(r, yes) || !strings.Contains(r, told) {
			s.t.Errorf("%s from %s: %q", what, ip, r)
		}
	}

	t.Run("a whitelist lets one country in", func(t *testing.T) {
		s := s.in(t)
		s.policy("home", "whitelist", everybody(), object{"regions": []string{"de"}})
		s.want("German", s.from(german4), yes)
		s.want("German", s.from(german6), yes)
		refused(s, "French", french4)
		refused(s, "French", french6)
		refused(s, "unknown", nobodys)
		s.want("German by 6to4", s.from(german4By6to4), yes)
		s.want("German, mapped", s.from(german4Mapped), yes)
		s.want("German by NAT64", s.from(german4ByNAT64), yes)
		refused(s, "European", europe4)
		for ip, region := range map[string]string{german4: "DE", french6: "FR", nobodys: "unknown", europe4: "EU"} {
			if r := s.record("account="+ann+"&ip="+ip, func(object) bool { return true }); r["region"] != region {
				t.Errorf("the record of %s is of region %v, want %s", ip, r["region"], region)
			}
		}
		if d := s.tested(policies+"/home/test", ann, "imap", french4); d["verdict"] != "no_match" || d["region"] != "FR" || d["outcome"] != "deny" {
			t.Errorf("the test does not say what happens: %v", d)
		}
		// The warning names the share: of these logins one came from an unknown country, one from
		// EU.
		count := func() int { return len(s.api("GET", "/v1/domains/example.org/logins", nil)["items"].([]any)) }
		warned := s.api("PATCH", policies+"/home", object{"regions": []string{"DE"}})["warnings"].([]any)[0].(object)
		if want := fmt.Sprintf("2 of the domain's %d most recent logins came from addresses without a country", count()); !strings.HasPrefix(warned["detail"].(string), want) {
			t.Errorf("the warning is %v, want %s", warned, want)
		}
		warned = s.api("PATCH", policies+"/home", object{"regions": []string{"DE", "EU"}})["warnings"].([]any)[0].(object)
		if want := fmt.Sprintf("1 of the domain's %d ", count()); !strings.HasPrefix(warned["detail"].(string), want) {
			t.Errorf("the warning is %v, want %s", warned, want)
		}
		s.want("European, which is named", s.from(europe4), yes)
		refused(s, "Asian", asia4)
		s.command("policy", "set", "example.org", "home", "--add-region", "AP")
		s.want("Asian, which is named", s.from(asia4), yes)
		if out := s.command("region", "lookup", asia4); !strings.Contains(out, "Asia/Pacific, country unknown") {
			t.Errorf("the name of AP is missing:\n%s", out)
		}
		s.refuse("from the office, which is in no country", s.imap(office, ann, s.passwords[ann]), yes)
		s.api("PATCH", policies+"/home", object{"ips": []string{"127.0.1.0/24"}})
		s.want("from the office, which is named", s.imap(office, ann, s.passwords[ann]), yes)
		s.api("DELETE", policies+"/home", nil)
	})
	t.Run("a blacklist keeps one out", func(t *testing.T) {
		s := s.in(t)
		s.policy("not-france", "blacklist", everybody(), object{"regions": []string{"FR"}, "except_ips": []string{"203.0.113.77"}})
		refused(s, "French", french4)
		refused(s, "French", french6)
		s.want("but one of them", s.from("203.0.113.77"), yes)
		for _, ip := range []string{german4, german6, nobodys} {
			s.want(ip, s.from(ip), yes)
		}
	})
	t.Run("the database is replaced", func(t *testing.T) {
		s := s.in(t)
		r := s.api("GET", "/v1/regions", nil)
		if r["kind"] != "csv" || r["age_days"] != 200.0 || r["ranges_v4"] != 5.0 || r["error"] != nil {
			t.Errorf("before: %v", r)
		}
		write(strings.ReplaceAll(v4, "FR", "DE"), v6)
		s.eventually("the French address is German", func() bool {
			return s.api("GET", "/v1/regions/"+french4, nil)["region"] == "DE"
		})
		s.want("no French address any more", s.from(french4), yes)
		refused(s, "still French", french6)

		write("half a li", v6)
		s.eventually("the broken file is reported", func() bool {
			e, _ := s.api("GET", "/v1/regions", nil)["error"].(string)
			return strings.Contains(e, database+":2:")
		})
		s.want("as before", s.from(french4), yes)
		refused(s, "as before", french6)
	})
}
