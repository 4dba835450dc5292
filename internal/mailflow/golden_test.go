package mailflow

import (
	"os"
	"strings"
	"testing"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// The dialogues in testdata/mailflow.txt are rules in words, and messages with what becomes of them.
func TestDialogues(t *testing.T) {
	text, err := os.ReadFile("testdata/mailflow.txt")
	if err != nil {
		t.Fatal(err)
	}
	var set Settings
	var m Message
	departments := map[string][]string{}
	party := func(addr string) Party {
		p := Party{Address: addr}
		if address.Domain(addr) == set.Domain {
			p.Account, p.Domain, p.Departments = addr, set.Domain, departments[addr]
		}
		return p
	}
	tried := 0
	for n, line := range strings.Split(string(text), "\n") {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		rest := words[1:]
		switch words[0] {
		case "domain":
			set, departments = Settings{Domain: rest[0]}, map[string][]string{}
		case "account":
			departments[rest[0]] = rest[1:]
			set.Departments = append(set.Departments, rest[1:]...)
		case "internal_only", "report_internal_only":
			r := Rule{ID: rest[0], Kind: KindInternalOnly, Enabled: true, Direction: Direction(rest[1])}
			if words[0] != string(KindInternalOnly) {
				r.Mode = access.Report
			}
			for _, w := range rest[2:] {
				switch except, isExcept := strings.CutPrefix(w, "except="); {
				case isExcept:
					r.ExceptDomains = append(r.ExceptDomains, except)
				case w == "all":
					r.Scope.All = true
				case strings.Contains(w, "@"):
					r.Scope.Members = append(r.Scope.Members, w)
				default:
					r.Scope.Departments = append(r.Scope.Departments, access.ScopeDepartment{Path: w, Sub: true})
				}
			}
			set.Rules = append(set.Rules, r)
		case "group":
			g := Group{Address: rest[0], WhoMaySend: WhoMaySend(rest[1])}
			for _, w := range rest[2:] {
				if sender, ok := strings.CutPrefix(w, "sender="); ok {
					g.Senders = append(g.Senders, sender)
				} else if d, ok := strings.CutPrefix(w, "department="); ok {
					g.Departments = append(g.Departments, d)
				} else {
					g.Members = append(g.Members, w)
				}
			}
			set.Groups = append(set.Groups, g)
		case "login":
			p := party(rest[0])
			m = Message{From: p, Sender: p, Internal: p.Account != ""}
		case "outside":
			m = Message{}
			if len(rest) > 0 {
				m.From = party(rest[0])
			}
		case "printer":
			m = Message{From: party(rest[0]), Internal: true}
			if m.From.Account != "" {
				m.Sender = m.From
			}
		case "to":
			tried++
			to := party(rest[0])
			rules := Compile(&set)
			a := Applying{}
			if m.Sender.Domain == set.Domain {
				a.Sender = rules
			}
			if to.Domain == set.Domain {
				a.Recipient = rules
			}
			v := Evaluate(&m, &to, &a, nil, false)
			got := "accepted"
			if v.Refused {
				got = string(v.Reason) + " by " + v.Rule + ": " + v.Text
			} else if len(v.Reported) > 0 {
				got = "accepted, reported by " + strings.Join(v.Reported, ",")
			}
			if want := strings.Join(rest[1:], " "); got != want {
				t.Errorf("line %d: %s\n got %s\nwant %s", n+1, rest[0], got, want)
			}
		default:
			t.Errorf("line %d: %s", n+1, line)
		}
	}
	if tried < 20 {
		t.Errorf("%d recipients", tried)
	}
}
