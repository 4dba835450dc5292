package access_test

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
)

// TestDialogues holds the dialogues of testdata against the engine; their language is explained in
// testdata/README.
func TestDialogues(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no dialogues: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := newScript()
			for i, line := range strings.Split(string(text), "\n") {
				if err := s.line(line, i+1); err != nil {
					t.Fatalf("%s:%d: %v", file, i+1, err)
				}
			}
			s.check()
			if s.logins == 0 {
				t.Fatalf("%s: no login", file)
			}
			for _, complaint := range s.complaints {
				t.Errorf("%s:%s", file, complaint)
			}
		})
	}
}

// script is a dialogue while it is read: the site as described so far, and the login whose answer
// comes next.
type script struct {
	domain    string
	site      access.Site
	unmanaged bool   // names of domains that are not managed are left to the next passdb
	bare      string // default domain
	set       access.Settings
	clients   map[access.ClientType][]access.Evidence
	accounts  map[string]*account

	logins     int
	at         int      // line of the login
	want, got  []string // its answer, as written and as given
	complaints []string
}

type account struct {
	access.Account
	secure map[string]access.Secret // by label
}

func newScript() *script {
	return &script{clients: map[access.ClientType][]access.Evidence{}, accounts: map[string]*account{}}
}

func (s *script) line(line string, number int) error {
	if strings.HasPrefix(line, " ") {
		s.want = append(s.want, strings.TrimSpace(line))
		return nil
	}
	s.check()
	w, err := words(line)
	if err != nil || len(w) == 0 {
		return err
	}
	verb, w := w[0], w[1:]
	if len(w) == 0 {
		return fmt.Errorf("%s: of what?", verb)
	}
	switch verb {
	case "site":
		return s.sayings(w, s.siteSaying)
	case "domain":
		return s.sayings(w, s.domainSaying)
	case "client":
		return s.client(w)
	case "policy":
		return s.policy(w)
	case "no":
		s.set.Policies = slices.DeleteFunc(s.set.Policies, func(p access.Policy) bool { return p.ID == w[0] })
		return nil
	case "account":
		return s.account(w)
	case "login", "explain":
		s.at, s.logins = number, s.logins+1
		return s.login(w, verb == "explain")
	}
	return fmt.Errorf("unknown verb %q", verb)
}

// words splits a line at spaces; "…" is one word, # begins a comment.
func words(line string) ([]string, error) {
	var w []string
	for line = strings.TrimSpace(line); line != "" && line[0] != '#'; line = strings.TrimSpace(line) {
		if line[0] == '"' {
			text, err := strconv.QuotedPrefix(line)
			if err != nil {
				return nil, fmt.Errorf("unclosed quote: %s", line)
			}
			line = line[len(text):]
			text, _ = strconv.Unquote(text)
			w = append(w, text)
			continue
		}
		word, rest, _ := strings.Cut(line, " ")
		w, line = append(w, word), rest
	}
	return w, nil
}

// sayings cuts a line into sayings of a keyword and its words.
func (s *script) sayings(w []string, saying func(string, []string) error) error {
	for len(w) > 0 {
		n := 1
		for n < len(w) && !keyword(w[n]) {
			n++
		}
		if err := saying(w[0], w[1:n]); err != nil {
			return err
		}
		w = w[n:]
	}
	return nil
}

func keyword(w string) bool {
	switch w {
	case "mailbox-passwords", "unmanaged", "reveal", "default-domain", // site
		"departments", "protocol", "enforces", "relaxes", "blocks", // domain
		"for", "at", "in", "outside", "clients", "protocols", "report", "disabled", // policy
		"networks", "cert", "names", "ports", "services", // client
		"suspended", "secure-passwords", "has", "had", "bound", // account
		"from", "via", "with", "region", "master", "lookup", "service", "throttled", "mechanism", "port", "name": // login
		return true
	}
	return false
}

func (s *script) siteSaying(key string, w []string) error {
	value := strings.Join(w, " ")
	switch key + " " + value {
	case "mailbox-passwords here":
		s.site.NextPassdb = false
	case "mailbox-passwords next":
		s.site.NextPassdb = true
	case "unmanaged deny":
		s.unmanaged = false
	case "unmanaged next":
		s.unmanaged = true
	case "reveal web":
		s.site.Reveal = access.RevealWeb
	case "reveal verified":
		s.site.Reveal = access.RevealVerified
	case "reveal never":
		s.site.Reveal = access.RevealNever
	default:
		if key != "default-domain" {
			return fmt.Errorf("unknown setting %s %s", key, value)
		}
		s.bare = value
	}
	return nil
}

func (s *script) domainSaying(key string, w []string) error {
	switch key {
	case "departments":
		s.set.Departments = w
	case "protocol":
		if s.set.Protocols == nil {
			s.set.Protocols = access.Switches{}
		}
		s.set.Protocols[w[0]] = w[1] == "on"
	case "enforces":
		s.set.Enforced, s.set.EnforceFor = true, scope(w)
	case "relaxes":
		s.set.Enforced = false
	case "blocks":
		s.set.Blocked = w
	default:
		s.domain = key
	}
	return nil
}

// scope reads "all", "sales/" (with those below), "sales" and "ann@example.org"; what stands behind
// "but" is excepted.
func scope(w []string) access.Scope {
	var sc access.Scope
	departments, members := &sc.Departments, &sc.Members
	for _, x := range w {
		switch {
		case x == "all":
			sc.All = true
		case x == "but":
			departments, members = &sc.Except.Departments, &sc.Except.Members
		case strings.Contains(x, "@"):
			*members = append(*members, x)
		default:
			path, sub := strings.CutSuffix(x, "/")
			*departments = append(*departments, access.ScopeDepartment{Path: path, Sub: sub})
		}
	}
	return sc
}

func (s *script) client(w []string) error {
	name := access.ClientType(w[0])
	var e access.Evidence
	err := s.sayings(w[1:], func(key string, w []string) error {
		switch key {
		case "networks":
			e.Networks = w
		case "cert":
			e.ClientCert = w[0]
		case "names":
			e.ServerNames = w
		case "services":
			e.Services = w
		case "ports":
			for _, p := range w {
				n, err := strconv.ParseUint(p, 10, 16)
				if err != nil {
					return err
				}
				e.LocalPorts = append(e.LocalPorts, uint16(n))
			}
		default:
			return fmt.Errorf("unknown evidence %q", key)
		}
		return nil
	})
	s.clients[name] = append(s.clients[name], e)
	return err
}

func (s *script) policy(w []string) error {
	p := access.Policy{ID: w[0], Name: w[0], Type: access.PolicyType(w[1]), Enabled: true, Mode: access.Enforce, Scope: access.Scope{All: true}}
	err := s.sayings(w[2:], func(key string, w []string) error {
		switch key {
		case "for":
			p.Scope = scope(w)
		case "at":
			p.IPs = w
		case "in":
			p.Regions = w
		case "outside":
			p.ExceptIPs = w
		case "clients":
			for _, c := range w {
				p.Clients = append(p.Clients, access.ClientType(c))
			}
		case "protocols":
			p.Protocols = w
		case "report":
			p.Mode = access.Report
		case "disabled":
			p.Enabled = false
		default:
			return fmt.Errorf("unknown part of a policy %q", key)
		}
		return nil
	})
	s.set.Policies = append(slices.DeleteFunc(s.set.Policies, func(old access.Policy) bool { return old.ID == p.ID }), p)
	return err
}

func (s *script) account(w []string) error {
	a := &account{secure: map[string]access.Secret{}}
	s.accounts[w[0]] = a
	return s.sayings(w[1:], func(key string, w []string) error {
		switch key {
		case "suspended":
			a.Suspended = true
		case "in":
			a.Departments = w
		case "protocol":
			a.Protocols.Switch(access.ParseProtocol(w[0]), w[1] == "on")
		case "secure-passwords":
			a.Secure = access.SecureMode(w[0])
		case "has", "had":
			state := access.SecretLive
			if key == "had" {
				state = access.SecretRevoked
			}
			for _, label := range w {
				a.HasSecure = true
				a.secure[label] = access.Secret{State: state, CredentialID: "id-" + label, Label: label}
			}
		case "bound":
			p := a.secure[w[0]]
			for _, limit := range w[1:] {
				switch {
				case access.ParseProtocol(limit) != 0:
					p.Bounds.Protocols = strings.TrimSpace(p.Bounds.Protocols + " " + limit)
				case limit == "expired":
					p.Bounds.Expires = time.Time{}.Add(-1)
				default:
					p.Bounds.Networks = strings.TrimSpace(p.Bounds.Networks + " " + limit)
				}
			}
			a.secure[w[0]] = p
		default:
			return fmt.Errorf("unknown part of an account %q", key)
		}
		return nil
	})
}

// answers are the asker's; each may be wanted once, and none after a "stop".
type answers struct {
	throttled, mailbox bool
	asked              []string
}

func (a *answers) Throttled() bool { a.asked = append(a.asked, "throttle"); return a.throttled }
func (a *answers) Mailbox() bool   { a.asked = append(a.asked, "mailbox"); return a.mailbox }

func (s *script) login(w []string, explain bool) error {
	l := &access.Login{Account: w[0], Service: w[1], Mechanism: "PLAIN", Protocol: access.ProtocolOfService(w[1], nil)}
	q := &access.Query{Site: s.site, Login: l, Secret: access.Secret{State: access.SecretOther}}
	if addr, err := address.Parse(w[0], s.bare); err == nil {
		q.Address, q.Unmanaged = addr, s.unmanaged
	}
	a := s.accounts[q.Address]
	ask := &answers{mailbox: true}
	err := s.sayings(w[2:], func(key string, w []string) (err error) {
		switch key {
		case "from":
			if l.IP, err = address.ParseIP(w[0]); !l.RealIP.IsValid() {
				l.RealIP = l.IP
			}
		case "via":
			l.RealIP, err = netip.ParseAddr(w[0])
		case "port":
			_, err = fmt.Sscan(w[0], &l.LocalPort)
		case "name":
			l.ServerName = w[0]
		case "cert":
			l.ClientCert = w[0]
		case "region":
			q.Region = w[0]
		case "master":
			l.MasterUser = w[0]
		case "mechanism":
			l.Mechanism = strings.Join(w, "")
		case "throttled":
			ask.throttled = true
		case "lookup":
			l.Lookup = map[string]access.Lookup{"user": access.LookupUser, "credentials": access.LookupCredentials}[w[0]]
			q.Secret.State = access.SecretEmpty
		case "with":
			err = s.secret(q, ask, a, w)
		default:
			err = fmt.Errorf("unknown part of a login %q", key)
		}
		return err
	})
	if err != nil {
		return err
	}
	if address.Domain(q.Address) == s.domain {
		q.Rules = access.Compile(&s.set)
		if a != nil {
			q.Account = &a.Account
		}
	}
	q.Client = access.CompileClients(s.clients).Classify(l)
	d := access.Decide(q, ask, false)
	if len(ask.asked) > 2 || len(ask.asked) == 2 && ask.asked[0] == ask.asked[1] || len(ask.asked) == 2 && ask.throttled {
		return fmt.Errorf("the engine asked for %v", ask.asked)
	}
	// A wrong secret takes one time, whatever it is and whether the account exists.
	shown := q.Secret.State != access.SecretEmpty && l.Lookup == access.LookupNone && l.MasterUser == ""
	wrong := slices.Contains([]access.Reason{access.ReasonBadSecret, access.ReasonRevokedSecret, access.ReasonUnknownAccount}, d.Reason)
	if q.Rules != nil && !q.Site.NextPassdb && shown && wrong && !ask.throttled && !slices.Contains(ask.asked, "mailbox") {
		return fmt.Errorf("refused as %s without verifying the secret", d.Reason)
	}
	traced := access.Decide(q, ask, true)
	s.got = []string{say(&d)}
	if explain {
		for _, step := range traced.Trace {
			s.got = append(s.got, strings.TrimRight(fmt.Sprintf("| %s: %s %s", step.Step, step.Result, step.Detail), " "))
		}
	}
	if len(traced.Trace) == 0 {
		return fmt.Errorf("no trace")
	}
	if traced.Trace = nil; !reflect.DeepEqual(traced, d) {
		return fmt.Errorf("explained as %s, decided as %s", say(&traced), say(&d))
	}
	return nil
}

func (s *script) secret(q *access.Query, ask *answers, a *account, w []string) error {
	switch what := strings.Join(w, " "); what {
	case "the mailbox password":
	case "a wrong password":
		ask.mailbox = false
	case "a secure password of nobody":
		q.Secret.State, ask.mailbox = access.SecretShaped, false
	case "nothing":
		q.Secret.State, ask.mailbox = access.SecretEmpty, false
	case "a secret unseen":
		q.Secret.State = access.SecretUnseen
	case "a session of the mailbox password":
		q.Secret.State = access.SecretAuthenticated
	default:
		if a == nil || a.secure[what].State == access.SecretOther {
			return fmt.Errorf("%s has no secure password %q", q.Address, what)
		}
		q.Secret, ask.mailbox = a.secure[what], false
	}
	return nil
}

// say writes a decision as the dialogues do.
func say(d *access.Decision) string {
	parts := []string{d.Outcome.String() + " " + string(d.Reason)}
	add := func(what, value string) {
		if value != "" {
			parts = append(parts, what+" "+value)
		}
	}
	if d.Client != access.ClientThirdParty {
		add("client", string(d.Client))
	}
	add("by", d.PolicyID)
	add("credential", d.CredentialID)
	if d.Message != "" {
		add("says", strconv.Quote(d.Message))
	}
	if d.Note != "" {
		add("notes", strconv.Quote(d.Note))
	}
	add("would refuse:", strings.Join(d.WouldRefuse, " "))
	for _, flag := range []struct {
		on   bool
		word string
	}{{d.Guess, "a guess"}, {d.Verified, "verified"}} {
		if flag.on {
			parts = append(parts, flag.word)
		}
	}
	return strings.Join(parts, "; ")
}

// check compares the last login's answer with the one that is written.
func (s *script) check() {
	if s.at != 0 && !slices.Equal(s.want, s.got) {
		s.complaints = append(s.complaints, fmt.Sprintf("%d: the answer is\n  %s\nand not\n  %s", s.at, strings.Join(s.got, "\n  "), strings.Join(s.want, "\n  ")))
	}
	s.at, s.want, s.got = 0, nil, nil
}
