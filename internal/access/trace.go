package access

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/address"
)

// This file describes decisions in words. It runs for explanations only and may be slow: it reads
// the policies as written, and queries the compiled rules for results.

// MatchedAnywhere is the value of [Step.Matched] for a policy without a place.
const MatchedAnywhere = "anywhere"

// traceBlocks records whether the domain's blocked addresses include the login's.
func (r *Rules) traceBlocks(l *Login, refused bool, d *Decision) {
	s := Step{Step: "ip_block", Result: "pass"}
	switch {
	case r.blocked.Empty():
		return
	case !refused:
		s.Detail = l.IP.String() + " is not blocked for the domain"
	case !l.IP.IsValid():
		s.Result, s.Detail = "refuse", "the address is not known, and the domain blocks addresses"
	default:
		s.Result, s.Matched = "refuse", address.EntryOf(r.blockList, l.IP)
		s.Detail = inList(l.IP, s.Matched) + ", which the domain blocks"
	}
	d.Trace = append(d.Trace, s)
}

// switchStep describes the effect of a protocol switch, and the level that sets it.
func switchStep(p Protocol, on bool, setBy string, bound bool) Step {
	s := Step{Step: "protocol", Result: "pass", Detail: p.title() + " enabled"}
	if !on {
		s.Detail = p.title() + " disabled"
	}
	if setBy == "default" {
		s.Detail += " (default)"
	} else {
		s.Detail += " (set by the " + setBy + ")"
	}
	switch {
	case on:
	case bound:
		s.Result = "refuse"
	default:
		s.Detail += "; the site's own clients are exempt"
	}
	return s
}

// title is the protocol's usual spelling.
func (p Protocol) title() string {
	switch p {
	case IMAP, POP3, SMTP:
		return strings.ToUpper(p.String())
	case Sieve:
		return "ManageSieve"
	case Web:
	}
	return p.String()
}

// tracePolicies records the result of each policy, in order, and the total. refused is the policy
// that refused, "" for none.
func (r *Rules) tracePolicies(q *Query, acc *Account, sub subject, refusedBy string, d *Decision) {
	if len(r.policies) == 0 {
		return
	}
	var black, outside, inside []string // names of enforced blacklists that match, whitelists that do not match, whitelists that match
	for i := range r.policies {
		p := &r.policies[i]
		s := r.policyStep(i, q, acc, sub)
		d.Trace = append(d.Trace, s)
		switch {
		case p.report || s.Result == "not_applicable":
		case p.deny && s.Result == "match":
			black = append(black, p.source.Name)
		case p.deny:
		case s.Result == "match":
			inside = append(inside, p.source.Name)
		default:
			outside = append(outside, p.source.Name)
		}
	}
	sum := Step{Step: "policies", Result: "pass", Policy: refusedBy}
	if refusedBy != "" {
		sum.Result = "refuse"
	}
	switch {
	case len(black) > 0:
		sum.Detail = "refused by " + strings.Join(black, ", ")
	case len(inside) > 0:
		sum.Detail = "permitted by " + strings.Join(inside, ", ")
	case len(outside) > 0:
		sum.Detail = "no applicable whitelist matches: " + strings.Join(outside, ", ")
	default:
		sum.Detail = "no policy refuses"
	}
	d.Trace = append(d.Trace, sum)
}

// policyStep describes whether a policy applies, whether its place matches, and why.
func (r *Rules) policyStep(i int, q *Query, acc *Account, sub subject) Step {
	p := &r.policies[i]
	s := Step{Step: "policy", Result: "not_applicable", Policy: p.id}
	var why []string
	if list := p.source.Clients; len(list) > 0 && !slices.Contains(list, q.Client) {
		why = append(why, "selects client type "+joined(list)+", not "+string(q.Client))
	}
	if list := p.source.Protocols; len(list) > 0 && !slices.Contains(list, q.Login.Protocol.String()) {
		why = append(why, "selects protocol "+joined(list)+", not "+q.Login.Protocol.String())
	}
	concerns := r.scopeWords(&p.source.Scope, q.Address, acc.Departments)
	if !sub.covered(uint32(i)) { //nolint:gosec // bounded far below 2^32
		why = append(why, concerns)
	}
	if p.deny && !p.namesPlace() && q.Login.MasterUser != "" {
		why = append(why, "names no place, and this is a master login")
	}
	if len(why) == 0 {
		match := p.place(q.Login, q.Region, true)
		s.Result = "no_match"
		if match {
			s.Result = "match"
		}
		var place string
		s.Matched, s.Excepted, place = p.source.placeWords(q.Login.IP, q.Region)
		why = []string{concerns, place, p.effect(match)}
	}
	s.Detail = p.source.Name + ": " + strings.Join(why, "; ")
	return s
}

// effect describes the effect of a policy that applies.
func (p *policy) effect(match bool) string {
	kind, does, verb := "the whitelist ", "permits", "permit"
	if p.deny {
		kind, does, verb = "the blacklist ", "refuses", "refuse"
	}
	switch {
	case p.report && match:
		return kind + "would " + verb + " (report mode)"
	case p.report:
		return kind + "would not " + verb + " (report mode)"
	case match:
		return kind + does
	default:
		return kind + "does not " + verb
	}
}

// placeWords describes an address relative to the policy's place: the entry or region that includes
// it, or the entry that excepts it.
func (p *Policy) placeWords(ip netip.Addr, region string) (matched, excepted, text string) {
	switch {
	case !ip.IsValid() && p.Type == Blacklist:
		return "", "", "the address is not known: it matches every blacklist that names a place"
	case !ip.IsValid():
		return "", "", "the address is not known: it matches no whitelist"
	}
	if excepted = address.EntryOf(p.ExceptIPs, ip); excepted != "" {
		return "", excepted, inList(ip, excepted) + ", which is excepted"
	}
	if len(p.IPs)+len(p.Regions) == 0 {
		return MatchedAnywhere, "", "it applies anywhere"
	}
	if matched = address.EntryOf(p.IPs, ip); matched != "" {
		return matched, "", inList(ip, matched)
	}
	listed := slices.Contains(p.Regions, region)
	switch {
	case len(p.Regions) == 0:
		return "", "", ip.String() + " is not in its addresses"
	case region == "":
		return "", "", ip.String() + " is not in its place and has no region"
	case region == RegionNoDatabase && p.Type == Blacklist:
		return "", "", ip.String() + " may be in its regions: there is no region database"
	case region == RegionNoDatabase:
		return "", "", ip.String() + " is not in its place: there is no region database"
	case region == RegionUnknown:
		return "", "", ip.String() + " is not in its place: its region is unknown"
	case listed:
		return region, "", ip.String() + " is in region " + region
	default:
		return "", "", ip.String() + " is not in its place: its region is " + region
	}
}

func inList(ip netip.Addr, entry string) string {
	if entry == ip.String() {
		return ip.String() + " is listed"
	}
	return ip.String() + " is in " + entry
}

// scopeWords describes why a scope includes an account, or why not. Departments that the domain
// does not have are ignored.
func (r *Rules) scopeWords(s *Scope, account string, departments []string) string {
	departments = slices.DeleteFunc(slices.Clone(departments), func(path string) bool {
		_, ok := r.scopes.departments[path]
		return !ok
	})
	if slices.Contains(s.Except.Members, account) {
		return "excepts " + account
	}
	if by := departmentWords(s.Except.Departments, departments); by != "" {
		return "excepts " + by
	}
	if s.All {
		return "applies to all members"
	}
	if slices.Contains(s.Members, account) {
		return "applies to " + account
	}
	if by := departmentWords(s.Departments, departments); by != "" {
		return "applies to " + by
	}
	if len(departments) == 0 {
		return "does not apply to " + account
	}
	return "does not apply to " + account + " or department " + strings.Join(departments, ", ")
}

// departmentWords describes the entry of a scope that includes one of an account's departments; ""
// for none.
func departmentWords(list []ScopeDepartment, in []string) string {
	for _, d := range list {
		for _, path := range in {
			switch {
			case path == d.Path:
				return "department " + path
			case d.Has(path):
				return "department " + path + " as one below " + d.Path
			}
		}
	}
	return ""
}

func joined[T ~string](list []T) string {
	texts := make([]string, len(list))
	for i, x := range list {
		texts[i] = string(x)
	}
	return strings.Join(texts, ", ")
}
