package access

import mathbits "math/bits"

// ScopeSet finds, of many scopes, those that include an account. It never changes.
type ScopeSet struct{ scopes scopes }

// CompileScopes compiles scopes, for a department tree given by its paths.
func CompileScopes(list []*Scope, tree []string) *ScopeSet {
	var all audience
	for i, s := range list {
		all.add(uint32(i), s)
	}
	return &ScopeSet{all.scopes(tree)}
}

// ScopeRoom is space for a walk over the scopes of an account in up to 14 departments, so that it
// stays on the caller's stack.
type ScopeRoom struct{ room subjectRoom }

// ScopeWalk iterates over the scopes of a set that include an account.
type ScopeWalk struct {
	rest walk
	word int
	bits uint64
}

// Walk begins with the first scope that includes the account.
func (s *ScopeSet) Walk(account string, departments []string, room *ScopeRoom) ScopeWalk {
	return ScopeWalk{rest: walk(s.scopes.subject(account, departments, &room.room))}
}

// Next returns the index of the next scope; false at the end.
func (w *ScopeWalk) Next() (index int, found bool) {
	for w.bits == 0 {
		word := w.rest.next()
		if word > maxWord {
			return 0, false
		}
		w.word, w.bits = word, w.rest.take(word)
	}
	index = w.word<<6 + mathbits.TrailingZeros64(w.bits)
	w.bits &= w.bits - 1
	return index, true
}

// maxWord is the last word that a number of 32 bits can be in.
const maxWord = 1<<26 - 1
