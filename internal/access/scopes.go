package access

import (
	"cmp"
	"math"
	"slices"
)

// scopes tell which of many numbered scopes concern an account, at a cost that grows with those
// that do.
type scopes struct {
	everyone    reach            // the scopes of all members
	departments map[string]reach // by each path of the tree: those that name it or, with what is below, one above
	members     map[string]reach // by the accounts that some scope names
}

// reach are the scopes that say something of whoever it belongs to: 64 in a word, in order, without
// the words in which none does.
type reach []reachWord

type reachWord struct {
	word    uint32 // of the scopes numbered from 64 × word on
	in, out uint64
}

// set notes what a scope says. Scopes come in their order.
func (r *reach) set(number uint32, out bool) {
	w, bit := number>>6, uint64(1)<<(number&63)
	if n := len(*r); n == 0 || (*r)[n-1].word != w {
		*r = append(*r, reachWord{word: w})
	}
	last := &(*r)[len(*r)-1]
	if out {
		last.out |= bit
	} else {
		last.in |= bit
	}
}

// only returns what is said by some of the scopes.
func (r reach) only(some bits) reach {
	var only reach
	for _, x := range r {
		mask := some.word(int(x.word))
		if x.in, x.out = x.in&mask, x.out&mask; x.in|x.out != 0 {
			only = append(only, x)
		}
	}
	return only
}

// at returns what the scopes of a word say.
func (r reach) at(word uint32) (in, out uint64) {
	i, found := slices.BinarySearchFunc(r, word, func(x reachWord, word uint32) int { return cmp.Compare(x.word, word) })
	if !found {
		return 0, 0
	}
	return r[i].in, r[i].out
}

// union returns what several reaches say together.
func union(list []reach) reach {
	if len(list) == 1 {
		return list[0]
	}
	all := slices.Concat(list...)
	slices.SortFunc(all, func(a, b reachWord) int { return cmp.Compare(a.word, b.word) })
	u := all[:0]
	for _, x := range all {
		if n := len(u); n > 0 && u[n-1].word == x.word {
			u[n-1].in |= x.in
			u[n-1].out |= x.out
		} else {
			u = append(u, x)
		}
	}
	return u
}

// audience gathers scopes, in the order of their numbers. The zero value has none.
type audience struct {
	everyone reach
	members  map[string]reach
	exactly  map[string]reach // by the departments that are named
	below    map[string]reach // by those that are named with what is below
}

func (a *audience) add(number uint32, s *Scope) {
	if a.members == nil {
		a.members, a.exactly, a.below = map[string]reach{}, map[string]reach{}, map[string]reach{}
	}
	if s.All {
		a.everyone.set(number, false)
	}
	name := func(departments []ScopeDepartment, members []string, out bool) {
		for _, d := range departments {
			say(a.exactly, d.Path, number, out)
			if d.Sub {
				say(a.below, d.Path, number, out)
			}
		}
		for _, m := range members {
			say(a.members, m, number, out)
		}
	}
	name(s.Departments, s.Members, false)
	name(s.Except.Departments, s.Except.Members, true)
}

func say(of map[string]reach, name string, number uint32, out bool) {
	r := of[name]
	r.set(number, out)
	of[name] = r
}

// scopes returns what was gathered, for a tree of departments given by all its paths. Departments
// that are not in the tree concern nobody.
func (a *audience) scopes(tree []string) scopes {
	s := scopes{everyone: a.everyone, members: a.members, departments: make(map[string]reach, len(tree))}
	for _, path := range tree {
		var list []reach
		if r := a.exactly[path]; r != nil {
			list = append(list, r)
		}
		for i := range len(path) {
			if path[i] != '/' {
				continue
			}
			if r := a.below[path[:i]]; r != nil {
				list = append(list, r)
			}
		}
		s.departments[path] = union(list)
	}
	return s
}

// subject is an account as the scopes see it, looked up once per decision: what is said of all, of
// the account by name, and of its departments.
type subject []reach

// subjectRoom holds the subject of an account in up to 14 departments without an allocation.
type subjectRoom [16]reach

// subject looks an account up. It is put into the caller's room, so that it can stay on its stack.
func (s *scopes) subject(account string, departments []string, room *subjectRoom) subject {
	sub := append(room[:0], s.everyone)
	if len(s.members) > 0 {
		if r := s.members[account]; r != nil {
			sub = append(sub, r)
		}
	}
	for _, path := range departments {
		if r := s.departments[path]; r != nil {
			sub = append(sub, r)
		}
	}
	return sub
}

// covered reports whether a scope concerns the subject. Exceptions win.
func (s subject) covered(number uint32) bool {
	var in, out uint64
	for _, r := range s {
		i, o := r.at(number >> 6)
		in, out = in|i, out|o
	}
	return in&^out>>(number&63)&1 != 0
}

// walk goes through the scopes that say something of a subject, word by word: what is left of each
// of its reaches.
type walk []reach

// walk begins at the first scope. In place of what is said of all it takes a part of that.
func (s subject) walk(everyone reach, room *subjectRoom) walk {
	w := append(room[:0], s...)
	w[0] = everyone
	return walk(w)
}

// next returns the first word that is left, a number beyond all when none is.
func (w walk) next() int {
	next := uint32(math.MaxUint32)
	for _, r := range w {
		if len(r) > 0 {
			next = min(next, r[0].word)
		}
	}
	return int(next)
}

// take returns the scopes of a word that concern the subject, and goes on behind it. Words must be
// taken in order.
func (w walk) take(word int) uint64 {
	var in, out uint64
	for i, r := range w {
		if len(r) > 0 && int(r[0].word) == word {
			in, out = in|r[0].in, out|r[0].out
			w[i] = r[1:]
		}
	}
	return in &^ out
}

// Covers compiles a scope, for a domain whose departments have the paths of a tree, into what tells
// whether it concerns an account, as decisions see it.
func (s *Scope) Covers(tree []string) func(account string, departments []string) bool {
	var said audience
	said.add(0, s)
	scopes := said.scopes(tree)
	return func(account string, departments []string) bool {
		return scopes.subject(account, departments, new(subjectRoom)).covered(0)
	}
}
