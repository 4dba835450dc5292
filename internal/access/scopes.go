package access

import (
	"cmp"
	"math"
	"slices"
)

// scopes finds the scopes, of many numbered ones, that include an account, in time proportional to
// their number.
type scopes struct {
	everyone    reach            // scopes of all members
	departments map[string]reach // by path: scopes with this department, or with an ancestor and its subdepartments
	members     map[string]reach // by account: scopes that list it
}

// reach is a sparse bit set of scopes that include or except something: 64 scopes a word, in order,
// without empty words.
type reach []reachWord

type reachWord struct {
	word    uint32 // bit 0 is scope 64 × word
	in, out uint64
}

// set adds a scope. Scopes are added in order.
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

// only returns the intersection with a set of scopes.
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

// at returns one word of the set.
func (r reach) at(word uint32) (in, out uint64) {
	i, found := slices.BinarySearchFunc(r, word, func(x reachWord, word uint32) int { return cmp.Compare(x.word, word) })
	if !found {
		return 0, 0
	}
	return r[i].in, r[i].out
}

// union returns the union of several sets.
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

// audience collects scopes in the order of their numbers. The zero value is empty.
type audience struct {
	everyone reach
	members  map[string]reach
	exactly  map[string]reach // by department, without subdepartments
	below    map[string]reach // by department, with subdepartments
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

// scopes compiles the collection for a department tree given by all its paths. Departments outside
// the tree include no account.
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

// subject is an account as the scopes see it, looked up once a decision: the sets for all members,
// for the account and for its departments.
type subject []reach

// subjectRoom is stack space for the subject of an account in up to 14 departments.
type subjectRoom [16]reach

// subject looks an account up, into the caller's space, so that it stays on the caller's stack.
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

// covered reports whether a scope includes the subject. Exceptions win.
func (s subject) covered(number uint32) bool {
	var in, out uint64
	for _, r := range s {
		i, o := r.at(number >> 6)
		in, out = in|i, out|o
	}
	return in&^out>>(number&63)&1 != 0
}

// walk iterates over the scopes of a subject, word by word; it contains the rest of each set.
type walk []reach

// walk starts at the first scope; everyone is the set for all members, or a subset of it.
func (s subject) walk(everyone reach, room *subjectRoom) walk {
	w := append(room[:0], s...)
	w[0] = everyone
	return walk(w)
}

// next returns the number of the first remaining word, or a number beyond all.
func (w walk) next() int {
	next := uint32(math.MaxUint32)
	for _, r := range w {
		if len(r) > 0 {
			next = min(next, r[0].word)
		}
	}
	return int(next)
}

// take returns the scopes of a word that include the subject, and advances. Words must be taken in
// order.
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

// Covers compiles a scope, for a department tree given by its paths, into a function that reports
// whether the scope includes an account, as decisions do.
func (s *Scope) Covers(tree []string) func(account string, departments []string) bool {
	var said audience
	said.add(0, s)
	scopes := said.scopes(tree)
	return func(account string, departments []string) bool {
		return scopes.subject(account, departments, new(subjectRoom)).covered(0)
	}
}
