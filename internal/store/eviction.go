package store

import (
	"context"
	"errors"
	"time"
)

// checkEviction is the time between two checks of the server's eviction policy.
const checkEviction = 5 * time.Second

// NoEviction is the maxmemory-policy with which Redis refuses writes when its memory is full. With
// any other it deletes documents.
const NoEviction = "noeviction"

// Eviction returns the maxmemory-policy of the server, "" while it is not known. alarm reports
// whether the server may delete documents and [Store.AcceptEviction] does not accept that.
func (s *Store) Eviction() (policy string, alarm bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	policy = s.servers.Policy
	return policy, policy != "" && policy != NoEviction && !s.AcceptEviction
}

// Servers returns the servers of the store at the last check; the zero value before the first
// check.
func (s *Store) Servers() Servers {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.servers
}

// watchEviction checks the server's eviction policy until ctx ends.
func (s *Store) watchEviction(ctx context.Context) {
	if s.Inspect == nil {
		return
	}
	tick := time.NewTicker(checkEviction)
	defer tick.Stop()
	unknown := "" // why the policy is not known, as it was logged
	for {
		servers, err := s.Inspect(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil:
			unknown = ""
			s.noteServers(servers)
		case err.Error() != unknown && (errors.Is(err, ErrRefused) || s.neverKnown()):
			unknown = err.Error()
			s.Logger.Warn("the maxmemory-policy of Redis is not known and will be checked again: if it is not noeviction, Redis may delete rules; the Redis user needs the command INFO", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (s *Store) neverKnown() bool {
	policy, _ := s.Eviction()
	return policy == ""
}

// noteServers remembers the servers and logs a change of their policy.
func (s *Store) noteServers(servers Servers) {
	policy := servers.Policy
	s.mu.Lock()
	before := s.servers.Policy
	s.servers = servers
	s.mu.Unlock()
	const evicts = "Redis deletes rules when its memory is full: set maxmemory-policy noeviction"
	switch {
	case policy == before:
	case policy == NoEviction:
		if before != "" {
			s.Logger.Info("Redis deletes no rules any more: maxmemory-policy is noeviction", "before", before)
		}
	case s.AcceptEviction:
		s.Logger.Warn(evicts, "maxmemory_policy", policy, "accepted", "store.accept_eviction")
	default:
		s.Logger.Error(evicts, "maxmemory_policy", policy)
	}
}
