package mailflow

import (
	"slices"
	"strings"
)

// group is a group in its evaluated form.
type group struct {
	*Group
	members map[string]bool // of itself and of the groups among its members, all the way down
	senders addresses       // with the members of the groups among them
	inner   []*group        // the groups among its members, all the way down, and itself
}

// compileGroups compiles the groups of a domain, by their addresses and aliases. Groups may contain
// each other.
func compileGroups(list []Group) map[string]*group {
	if len(list) == 0 {
		return nil
	}
	byName := make(map[string]*group, len(list))
	for i := range list {
		g := &group{Group: &list[i]}
		byName[g.Address] = g
	}
	for i := range list {
		g := byName[list[i].Address]
		for _, alias := range g.Aliases {
			if _, taken := byName[alias]; !taken {
				byName[alias] = g
			}
		}
	}
	for i := range list {
		g := byName[list[i].Address]
		g.inner = g.within(byName, nil, map[*group]bool{})
		g.members = map[string]bool{}
		for _, in := range g.inner {
			for _, m := range in.Members {
				g.members[m] = true
			}
		}
	}
	for i := range list {
		g := byName[list[i].Address]
		g.senders = newAddresses(g.Senders)
		for _, s := range g.Senders {
			if of := byName[s]; of != nil {
				for m := range of.members {
					g.senders.exact[m] = true
				}
			}
		}
	}
	return byName
}

// within appends the group and the groups among its members to those that were met before.
func (g *group) within(byName map[string]*group, met []*group, seen map[*group]bool) []*group {
	if seen[g] {
		return met
	}
	seen[g] = true
	met = append(met, g)
	for _, m := range g.Members {
		if in := byName[m]; in != nil {
			met = in.within(byName, met, seen)
		}
	}
	return met
}

// Group returns the group of an address or alias of the domain.
func (r *Rules) Group(addr string) (*Group, bool) {
	if r == nil {
		return nil, false
	}
	g := r.groups[addr]
	if g == nil {
		return nil, false
	}
	return g.Group, true
}

// group decides whether the sender may write to the group that the recipient is, and to the groups
// among its members: they receive the message too.
func (e *evaluation) group() {
	r := e.rules.Recipient
	if r == nil || r.groups == nil {
		return
	}
	g := r.groups[e.to.Account]
	if g == nil {
		return
	}
	for _, in := range g.inner {
		allowed, why := in.allows(e.m, e.to.Domain)
		if allowed {
			e.groupStep(in, "pass", why)
			e.approval(in)
			continue
		}
		e.groupStep(in, "refuse", why)
		if e.v.Refused {
			continue
		}
		e.v.Refused, e.v.Reason, e.v.Rule = true, ReasonGroupClosed, in.Address
		e.v.Text = in.refusal(g)
		if !e.tracing {
			return
		}
	}
}

// approval adds the approvers of a group to the effects.
func (e *evaluation) approval(g *group) {
	if len(g.Approvers) == 0 || g.ExemptApprovers && e.m.Sender.Account != "" && slices.Contains(g.Approvers, e.m.Sender.Account) {
		return
	}
	e.v.Effects = append(e.v.Effects, Effect{Group: g.Group, Side: Received, Domain: e.to.Domain})
}

func (e *evaluation) groupStep(g *group, result, detail string) {
	if e.tracing {
		e.v.Trace = append(e.v.Trace, Step{Step: "group", Result: result, Rule: g.Address, Detail: detail})
	}
}

// allows reports whether the sender of a message may write to the group. Who the sender is depends
// on who authenticated, never on what the message says: permission to send as a member, or as the
// group, does not make a member.
func (g *group) allows(m *Message, domain string) (allowed bool, why string) {
	sender := m.Sender.Account
	switch g.WhoMaySend {
	case Inside:
		return m.internalTo(domain), "internal mail of the domain"
	case Members:
		return sender != "" && g.members[sender], "its members"
	case Listed:
		if m.Sender.Domain == domain && inDepartments(m.Sender.Departments, g.Departments) {
			return true, "a listed department"
		}
		if sender != "" {
			return g.senders.has(sender), "its listed senders"
		}
		// MAIL FROM proves nothing. It counts for addresses elsewhere, which nobody can prove; those
		// of managed domains have to authenticate.
		return m.From.Domain == "" && g.senders.has(m.From.Address), "its listed senders"
	case Anyone, "":
	}
	return true, "anyone"
}

// refusal is the text for a sender who wrote to the group outer.
func (g *group) refusal(outer *group) string {
	text := "The group " + shown(g.Address)
	if g != outer {
		text = "The group " + shown(outer.Address) + " contains the group " + shown(g.Address) + ", which"
	}
	switch g.WhoMaySend {
	case Members:
		return text + " only accepts mail from its members."
	case Listed:
		return text + " only accepts mail from listed senders."
	case Inside:
		return text + " only accepts mail from within its domain."
	case Anyone, "":
	}
	return text + " is closed."
}

// inDepartments reports whether some department is listed, or is below one that is.
func inDepartments(departments, listed []string) bool {
	for _, path := range departments {
		for _, l := range listed {
			if path == l || strings.HasPrefix(path, l+"/") {
				return true
			}
		}
	}
	return false
}
