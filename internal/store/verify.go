package store

import (
	"context"
	"errors"
	"time"
)

// Shards are verified one at a time. The pause after each, unless [Store.VerifyPause] sets it, is at
// least verifyPause, and verifyShare times as long as it took, so that a large store costs Redis and
// the daemon little.
const (
	verifyPause = 200 * time.Millisecond
	verifyShare = 200
	verifyLimit = 30 * time.Second // of one shard
)

// verify reads the documents of the store again and again until ctx ends. It finds documents that
// were altered beside Drawbridge, which their number, checked every second, does not show.
func (s *Store) verify(ctx context.Context) {
	for i := Shard(0); ; i = (i + 1) % Shard(Shards) {
		begin := time.Now()
		s.verifyShard(ctx, i)
		for j, err := range s.alterations() {
			if err != nil && Shard(j) != i {
				s.verifyShard(ctx, Shard(j)) // it may have been repaired
			}
		}
		pause := s.VerifyPause
		if pause == 0 {
			pause = max(verifyPause, verifyShare*time.Since(begin))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

func (s *Store) verifyShard(ctx context.Context, i Shard) {
	if loaded, _ := s.State.Ready(); !loaded || s.Trouble() != nil {
		return // reported, or found at the next load
	}
	repairs := s.repaired()
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	_, err := s.Log.Load(ctx, i, Head{}, nil)
	if err != nil && !errors.Is(err, ErrDamaged) {
		return // says nothing about the documents
	}
	s.mu.Lock()
	if err != nil && repairs != s.repairs { // found before a repair
		s.mu.Unlock()
		return
	}
	before := s.altered[i]
	s.altered[i] = err
	s.mu.Unlock()
	switch {
	case before == nil && err != nil:
		s.Logger.Error("store: documents were altered, changes are refused", "shard", i, "error", err)
	case before != nil && err == nil:
		s.Logger.Info("store: altered documents are repaired", "shard", i)
	}
}

func (s *Store) alterations() [Shards]error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.altered
}

// alteration returns why some shard is known to hold altered documents, wrapping [ErrDamaged].
func (s *Store) alteration() error {
	for _, err := range s.alterations() {
		if err != nil {
			return err
		}
	}
	return nil
}
