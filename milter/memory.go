package milter

import (
	"cmp"
	"sync/atomic"
	"time"
)

const (
	// defaultMemory bounds the messages that are collected at the same time, in octets.
	defaultMemory = 256 << 20
	// overhead is what a collected field, recipient or chunk takes beyond its octets.
	overhead = 128
	// lackEvery is the time between two reports that memory lacks.
	lackEvery = time.Minute
)

// memory is what the messages that all connections collect take.
type memory struct {
	used atomic.Int64 // octets
	next atomic.Int64 // when a lack is reported again, in Unix nanoseconds
}

func (s *Server) maxMemory() int64 { return cmp.Or(s.MaxMemory, defaultMemory) }

// longest is the size of the longest message that is collected. While it is judged it is in memory
// twice: as it was received, and as one text.
func (s *Server) longest() int64 { return min(maxWhole, s.maxMemory()/2) }

// take reports whether there is room for n more octets, and takes it.
func (s *Server) take(n int64) bool {
	if s.memory.used.Add(n) <= s.maxMemory() {
		return true
	}
	s.memory.used.Add(-n)
	return false
}

func (s *Server) give(n int64) { s.memory.used.Add(-n) }

// reportLack logs, once a minute, that messages are refused for lack of memory.
func (s *Server) reportLack(now time.Time) {
	next := s.memory.next.Load()
	if now.UnixNano() >= next && s.memory.next.CompareAndSwap(next, now.Add(lackEvery).UnixNano()) {
		s.Log.Warn("messages are refused temporarily: milter.max_memory is reached", "used", s.memory.used.Load(), "of", s.maxMemory())
	}
}
