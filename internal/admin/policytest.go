package admin

import (
	"cmp"
	"slices"

	"github.com/drawbridge/drawbridge/internal/access"
	"github.com/drawbridge/drawbridge/internal/address"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Stand-ins for the id and the name that a draft policy does not have.
const (
	DraftID   = "draft"
	draftName = "(draft)"
)

// The result of a policy for a login, beside those of the trace.
const (
	verdictNotApplicable = "not_applicable"
	verdictNotEvaluated  = "not_evaluated"
)

// TestPolicy evaluates a hypothetical login, beside all other policies: with id "" and a draft of
// in, if there is one; with the id of a stored policy, its result, or that of a draft in its place.
// login is in.Login, decoded, and nil if it is missing.
func (d *Domain) TestPolicy(id string, in *api.PolicyTest, login *access.Login, f *api.Faults) (*api.PolicyTested, error) {
	var stored *store.Policy
	if id != "" {
		p, ok := d.Store.State.Policy(d.name, id)
		if !ok {
			return nil, api.NotFound("policy")
		}
		stored = p.Doc
	}
	if login != nil {
		d.checkHypothetical(in.Login, login, f)
	}
	var p *store.Policy
	if in.Policy != nil {
		p = d.readDraft(in.Policy, id, f)
		id = p.ID
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	var rules *access.Rules
	drafted := ""
	if p != nil {
		drafted = id
		rules = d.Store.State.Rules(d.name, d.Time, func(set *access.Settings) { set.PutPolicy(&p.Policy) })
	}
	tested := &api.PolicyTested{Decision: d.Explain(login, in.Login.CredentialID, rules)}
	trace := tested.Trace
	tested.Trace = append(tested.Trace, d.disabledSteps(drafted)...)
	switch {
	case id == "":
	case p == nil && !stored.Enabled:
		tested.Verdict = verdictNotEvaluated
	default:
		tested.Verdict = verdict(trace, id)
	}
	return tested, nil
}

// disabledSteps are trace steps for the disabled policies, which decisions ignore, except the one
// that a draft replaces.
func (d *Domain) disabledSteps(drafted string) []access.Step {
	var steps []access.Step
	for _, p := range d.Store.State.Policies(d.name) {
		if !p.Doc.Enabled && p.Doc.ID != drafted {
			steps = append(steps, access.Step{Step: "policy", Result: verdictNotEvaluated, Policy: p.Doc.ID, Detail: p.Doc.Name + ": is disabled"})
		}
	}
	return steps
}

// readDraft validates a draft at /policy, as if it were enabled. It replaces the stored policy of
// id, or else of its own id, or else of its name.
func (d *Domain) readDraft(in *api.Policy, id string, f *api.Faults) *store.Policy {
	switch {
	case id == "" && in.ID != "":
		id = in.ID
		CheckPolicyID(id, func(code, format string, args ...any) { f.Add("/policy/id", code, format, args...) })
	case id == "":
		id = cmp.Or(d.policyOf(in.Name), DraftID)
	case in.ID != "" && in.ID != id:
		f.Add("/policy/id", "conflict", "is not the one in the URL: leave it out")
	}
	if in.Name == "" {
		in.Name = draftName
	}
	cur, _ := d.Store.State.Policy(d.name, id)
	p := d.ReadPolicy(in, id, cur.Doc, "/policy", f)
	p.Enabled = true
	return p
}

// verdict returns the result of a policy in a trace. A policy that is not in the trace does not
// apply to the login.
func verdict(trace []access.Step, id string) string {
	i := slices.IndexFunc(trace, func(s access.Step) bool { return s.Step == "policy" && s.Policy == id })
	if i < 0 {
		return verdictNotApplicable
	}
	return trace[i].Result
}

// checkHypothetical validates the account and the credential of a hypothetical login, and makes its
// account canonical.
func (d *Domain) checkHypothetical(in *api.HypotheticalLogin, l *access.Login, f *api.Faults) {
	addr, err := address.Parse(in.Account, d.name)
	if addr = d.Store.State.Canonical(addr); err != nil {
		f.Add("/login/account", "invalid_address", "%v", err)
		return
	}
	if address.Domain(addr) != d.name {
		f.Add("/login/account", "outside_domain", "is not an address of this domain")
		return
	}
	l.Account = addr
	if in.CredentialID == "" {
		return
	}
	a, ok := d.Store.State.Account(addr)
	if !ok || !slices.ContainsFunc(a.Doc.Secrets, func(p store.SecurePassword) bool { return p.ID == in.CredentialID }) {
		f.Add("/login/credential_id", "unknown_credential", "is no secure password that the account has, or had recently: list them")
	}
}
