package adminapi

import (
	"cmp"
	"slices"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/loginapi"
	"github.com/drawbridge/drawbridge/internal/rest"
	"github.com/drawbridge/drawbridge/internal/store"
)

// What a policy says of a login, by itself.
const (
	verdictNotApplicable = "not_applicable"
	verdictNotEvaluated  = "not_evaluated"
)

// testPolicy judges a draft, if there is one, as if it were active beside all other policies, and
// without one explains the login.
func testPolicy(c *call) (*answer, error) { return c.tryPolicy("", nil) }

// testStoredPolicy judges a policy by its status, or a draft in its place.
func testStoredPolicy(c *call) (*answer, error) {
	p, ok := c.Store.State.Policy(c.domain, c.r.PathValue("id"))
	if !ok {
		return nil, api.NotFound("policy")
	}
	return c.tryPolicy(p.Doc.ID, p.Doc)
}

func (c *call) tryPolicy(id string, stored *store.Policy) (*answer, error) {
	var f api.Faults
	if login := c.body.Get("login"); login != nil && login.Kind == rest.Object {
		for _, name := range []string{"secret", "secret_b64"} {
			if login.Get(name) != nil {
				f.Add("/login/"+name, "unknown_field", "a test takes no secret: name a secure password by credential_id, or leave both out for a mailbox password that was verified")
			}
		}
	}
	in := rest.Decode[api.PolicyTest](c.schemas, c.body, &f)
	login, credential := c.hypothetical(in.Login, &f)
	var p *store.Policy
	if in.Policy != nil {
		p = c.draftPolicy(in.Policy, id, &f)
		id = p.ID
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	var rules *access.Rules
	if p != nil {
		rules = c.Store.State.Rules(c.domain, c.now, func(set *access.Settings) { set.PutPolicy(&p.Policy) })
	}
	d := c.Explain(login, credential, rules)
	tested := api.PolicyTested{Decision: d}
	drafted := ""
	if p != nil {
		drafted = id
	}
	tested.Trace = append(tested.Trace, c.disabledSteps(drafted)...)
	switch {
	case id == "":
	case p == nil && !stored.Enabled:
		tested.Verdict = verdictNotEvaluated
	default:
		tested.Verdict = verdict(d.Trace, id)
	}
	return &answer{body: tested}, nil
}

// disabledSteps tells of the policies that a decision knows nothing of, but for one that a draft
// stands in for.
func (c *call) disabledSteps(drafted string) []access.Step {
	var steps []access.Step
	for _, p := range c.Store.State.Policies(c.domain) {
		if !p.Doc.Enabled && p.Doc.ID != drafted {
			steps = append(steps, access.Step{Step: "policy", Result: verdictNotEvaluated, Policy: p.Doc.ID, Detail: p.Doc.Name + ": is disabled"})
		}
	}
	return steps
}

// draftPolicy reads a draft, which stands at /policy, as if it were enabled. It may take the place
// of the stored policy whose id it bears: the one in the URL, "" for none. Without any, that is the
// one of its name, as no two have the same.
func (c *call) draftPolicy(in *api.Policy, id string, f *api.Faults) *store.Policy {
	switch {
	case id == "" && in.ID != "":
		id = in.ID
		checkPolicyID(id, func(code, format string, args ...any) { f.Add("/policy/id", code, format, args...) })
	case id == "":
		id = cmp.Or(c.policyOf(in.Name), draft)
	case in.ID != "" && in.ID != id:
		f.Add("/policy/id", "conflict", "is not the one in the URL: leave it out")
	}
	if in.Name == "" {
		in.Name = draftName
	}
	cur, _ := c.Store.State.Policy(c.domain, id)
	p := c.readPolicy(in, id, cur.Doc, "/policy", f)
	p.Enabled = true
	return p
}

// verdict returns what the trace says of one policy. A login that the policies were not asked about
// concerns none.
func verdict(trace []access.Step, id string) string {
	i := slices.IndexFunc(trace, func(s access.Step) bool { return s.Step == "policy" && s.Policy == id })
	if i < 0 {
		return verdictNotApplicable
	}
	return trace[i].Result
}

// hypothetical reads a login that nobody makes, at an account of the call's domain.
func (c *call) hypothetical(in *api.HypotheticalLogin, f *api.Faults) (l *access.Login, credential string) {
	if in == nil { // told already
		return nil, ""
	}
	r := loginapi.Request{
		Account: in.Account, Service: in.Service, Protocol: in.Protocol, IP: in.IP, RealIP: in.RealIP, LocalIP: in.LocalIP,
		LocalPort:  uint16(in.LocalPort), //nolint:gosec // the schema bounds it
		ServerName: in.ServerName, TLS: in.TLS, ClientCert: in.ClientCert, Mechanism: in.Mechanism, Session: in.Session,
		MasterUser: in.MasterUser, Lookup: in.Lookup, ClientID: in.ClientID,
	}
	l, bad := r.Login()
	for _, fault := range bad {
		f.Add("/login"+fault.Pointer, fault.Code, "%s", fault.Detail)
	}
	addr, err := address.Parse(in.Account, c.domain)
	if addr = c.Store.State.Canonical(addr); err != nil {
		f.Add("/login/account", "invalid_address", "%v", err)
		return l, ""
	}
	if address.Domain(addr) != c.domain {
		f.Add("/login/account", "outside_domain", "is no address of this domain")
		return l, ""
	}
	l.Account = addr
	if in.CredentialID != "" {
		a, ok := c.Store.State.Account(addr)
		if !ok || !slices.ContainsFunc(a.Doc.Secrets, func(p store.SecurePassword) bool { return p.ID == in.CredentialID }) {
			f.Add("/login/credential_id", "unknown_credential", "the account has no such secure password, and had none lately: list them")
		}
	}
	return l, in.CredentialID
}
