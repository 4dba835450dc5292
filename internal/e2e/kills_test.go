//go:build faults

package e2e

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

const (
	// killedChanges is how many changes must be acknowledged between kills.
	killedChanges = 10_000
	// leastKills is how many kills there must be at least.
	leastKills = 30
	// writersAtOnce change a domain each, so that changes of many shards are in flight.
	writersAtOnce = 24
)

// writer changes one domain, and knows what was acknowledged.
type writer struct {
	domain       string
	api, login   *http.Client
	departments  []string
	live         map[string]string // id of a secure password → its account
	revoked      map[string]string // secret → its account
	acknowledged *atomic.Int64
	unanswered   *atomic.Int64
	refused      *atomic.Int64
	wrong        func(string) // reports what must not happen
}

// change makes a change and reports whether it was acknowledged.
func (w *writer) change(method, path string, body any) (object, bool) {
	status, answer := ask(w.api, method, path, body)
	switch {
	case status == 0:
		w.unanswered.Add(1)
		time.Sleep(50 * time.Millisecond) // so that who is starting gets the processor
	case status < 300:
		w.acknowledged.Add(1)
		return answer, true
	case status == 503:
		w.refused.Add(1)
		time.Sleep(50 * time.Millisecond) // a refused change is answered at once
	default:
		w.wrong(fmt.Sprintf("%s %s: %d %v", method, path, status, answer))
	}
	return nil, false
}

// logsIn returns how a login with a secure password ends; "" if nobody answers.
func (w *writer) logsIn(account, secret string) string {
	status, answer := ask(w.login, "POST", "/v1/login", object{"account": account, "secret": secret, "protocol": "imap", "ip": outside})
	if status != 200 {
		return ""
	}
	return fmt.Sprint(answer["outcome"], " ", answer["reason"])
}

// run makes a department, a secure password, and revokes every other one, until it is told to stop.
func (w *writer) run(stop func() bool) {
	for n := 0; !stop(); n++ {
		path := fmt.Sprintf("d%d", n)
		if _, ok := w.change("PUT", "/v1/domains/"+w.domain+"/departments/"+path, object{"name": path}); ok {
			w.departments = append(w.departments, path)
		}
		account := fmt.Sprintf("user%d@%s", n, w.domain)
		made, ok := w.change("POST", "/v1/accounts/"+account+"/secure-passwords", object{"label": "phone"})
		if !ok {
			continue
		}
		id, secret := made["id"].(string), made["secret"].(string)
		if got := w.logsIn(account, secret); got != "" && got != "allow ok" && !strings.HasPrefix(got, "tempfail ") {
			w.wrong("a secure password that was just made: " + got)
		}
		if n%2 == 0 {
			w.live[id] = account
			continue
		}
		if _, ok := w.change("DELETE", "/v1/accounts/"+account+"/secure-passwords/"+id, nil); ok {
			w.revoked[secret] = account
			if got := w.logsIn(account, secret); strings.HasPrefix(got, "allow ") || strings.HasPrefix(got, "next ") {
				w.wrong("a secure password that was just revoked: " + got)
			}
		}
	}
}

// check compares the store with what was acknowledged, and returns what is lost and what works
// although it was revoked.
func (w *writer) check() (lost, admitted int) {
	found := map[string]bool{}
	for next := ""; ; {
		status, a := ask(w.api, "GET", "/v1/domains/"+w.domain+"/departments?limit=1000&cursor="+next, nil)
		if status != 200 {
			w.wrong(fmt.Sprintf("listing the departments: %d %v", status, a))
			return len(w.departments), 0
		}
		for _, item := range a["items"].([]any) {
			found[item.(object)["path"].(string)] = true
		}
		if next, _ = a["next"].(string); next == "" {
			break
		}
	}
	for _, path := range w.departments {
		if !found[path] {
			lost++
		}
	}
	for id, account := range w.live {
		_, a := ask(w.api, "GET", "/v1/accounts/"+account+"/secure-passwords", nil)
		if !strings.Contains(toJSON(a), `"`+id+`"`) {
			lost++
		}
	}
	for secret, account := range w.revoked {
		if got := w.logsIn(account, secret); got != "deny bad_secret" && got != "deny revoked_secret" {
			admitted++
			w.wrong("a revoked secure password, afterwards: " + got)
		}
	}
	return lost, admitted
}

// The daemon, the Redis, or both are killed with kill -9 at random moments while changes are in
// flight on many connections and logins go on: nothing acknowledged is lost. With the second passdb no
// known login is answered "wrong password".
func TestFaultsKills(t *testing.T) {
	m := startMatrix(t, trialstack.Options{SharedRedis: true, Verified: true, MainCF: "smtpd_milters =\n"})
	m.ctx = t.Context() // longer than other tests
	d := m.Daemons[0]
	var acknowledged, unanswered, refused atomic.Int64
	writers := make([]*writer, writersAtOnce)
	for i := range writers {
		name := fmt.Sprintf("kill%02d.example", i)
		m.api("POST", "/v1/domains", object{"name": name, "third_party_access": object{"allow": true}})
		writers[i] = &writer{
			domain: name, api: overUnix(d.APISocket), login: overUnix(d.LoginSocket), live: map[string]string{}, revoked: map[string]string{},
			acknowledged: &acknowledged, unanswered: &unanswered, refused: &refused, wrong: func(what string) { m.others.Add(1); m.note(what) },
		}
	}
	var stop atomic.Bool
	var changing sync.WaitGroup
	for _, w := range writers {
		changing.Go(func() { w.run(stop.Load) })
	}
	kills, slowest := map[string]int{}, time.Duration(0)
	for total := 0; acknowledged.Load() < killedChanges || total < leastKills; total++ {
		what := []string{"daemon", "Redis", "both"}[total%3]
		kills[what]++
		time.Sleep(time.Duration(100+rand.IntN(1200)) * time.Millisecond)
		if what != "Redis" {
			m.must(d.Kill())
		}
		if what != "daemon" {
			m.must(m.Redis.Kill())
		}
		down := time.Now()
		before := acknowledged.Load()
		start := []func(){
			func() {
				if what != "daemon" {
					m.must(m.Redis.Restart(m.ctx))
				}
			},
			func() {
				if what != "Redis" {
					m.must(d.Start(m.ctx)) // before Redis: from its snapshot
				}
			},
		}
		first := rand.IntN(2)
		start[first]()
		start[1-first]()
		m.eventually("changes are acknowledged again", func() bool { return acknowledged.Load() > before })
		slowest = max(slowest, time.Since(down))
		t.Logf("kill %d: %s, %d changes acknowledged, %d logins", total+1, what, acknowledged.Load(), m.logins.Load())
	}
	stop.Store(true)
	changing.Wait()
	m.stop.Store(true)
	m.wg.Wait()
	lost, revoked := 0, 0
	for _, w := range writers {
		l, a := w.check()
		lost, revoked = lost+l, revoked+len(w.revoked)
		m.admitted.Add(int64(a))
	}
	m.acknowledged.Store(acknowledged.Load())
	m.unavailable.Store(refused.Load())
	m.row("kill -9 of the daemon, Redis, both", slowest, lost)
	fmt.Printf("| kills %v, %d changes unanswered, %d secure passwords revoked and tried again\n", kills, unanswered.Load(), revoked)
}
