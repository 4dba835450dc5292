package admin

import (
	"cmp"
	"context"
	"errors"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Trouble returns why changes are refused, by this daemon or by Redis; nil if they are not refused.
func Trouble(st *store.Store) error {
	if err := st.Trouble(); err != nil {
		return err
	}
	return st.Refusing()
}

// VersionText returns the version of the daemon, "unknown" if it has none.
func (a *Admin) VersionText() string { return cmp.Or(a.Version, "unknown") }

func (a *Admin) storeStatus() api.StoreStatus {
	var s api.StoreStatus
	s.Loaded, s.SyncedAt = a.Store.State.Ready()
	s.SyncedAt = s.SyncedAt.UTC()
	heads := a.Store.State.Heads()
	s.StoreID = heads[store.Global].StoreID
	for _, h := range heads {
		s.Changes += h.N
	}
	if err := Trouble(a.Store); err != nil {
		s.Trouble, s.Foreign, s.Damaged = err.Error(), errors.Is(err, store.ErrForeign), a.Store.Damage() != nil
	}
	s.Policy, s.Evicting = a.Store.Eviction()
	servers := a.Store.Servers()
	s.Mode, s.Masters = servers.Mode, make([]api.Master, 0, len(servers.Masters))
	for _, m := range servers.Masters {
		s.Masters = append(s.Masters, api.Master(m))
	}
	s.Sentinels = make([]api.Sentinel, 0, len(servers.Sentinels))
	for _, n := range servers.Sentinels {
		s.Sentinels = append(s.Sentinels, api.Sentinel(n))
	}
	s.Domains, s.Accounts = a.Store.State.Counts()
	s.Version = a.VersionText()
	return s
}

// StoreStatus returns the status of the store and of its replication to this daemon.
func (r *Request) StoreStatus() (*api.StoreStatus, error) {
	if err := r.Caller.May(ForRead); err != nil {
		return nil, err
	}
	s := r.storeStatus()
	return &s, nil
}

// AdoptStore accepts the present store in place of the known one.
func (r *Request) AdoptStore(ctx context.Context) (*api.StoreStatus, error) {
	if err := r.Caller.May(ForAdmin); err != nil {
		return nil, err
	}
	status := r.storeStatus()
	if r.DryRun {
		if !errors.Is(r.Store.Trouble(), store.ErrForeign) && r.Store.Damage() == nil {
			return nil, store.ErrNothingToAdopt
		}
		return &status, nil
	}
	before := status.StoreID
	id, err := r.Store.Adopt(context.WithoutCancel(ctx))
	if err != nil {
		return nil, err
	}
	// The audit in the store may be lost with the old store.
	by := r.Caller.Actor
	r.Log.Warn("store adopted", "by", by.Name, "key", by.Key, "uid", by.UID, "before", before, "now", id)
	status = r.storeStatus()
	status.StoreID = id
	return &status, nil
}

// RepairStore replaces damaged parts of the store by the documents in this daemon's memory.
func (r *Request) RepairStore(ctx context.Context) (*api.StoreRepair, error) {
	if err := r.Caller.May(ForAdmin); err != nil {
		return nil, err
	}
	n, err := r.Store.Repair(context.WithoutCancel(ctx), r.DryRun)
	if n > 0 && !r.DryRun {
		by := r.Caller.Actor
		r.Log.Warn("store repaired from memory", "by", by.Name, "key", by.Key, "uid", by.UID, "shards", n)
	}
	if err != nil {
		return nil, err
	}
	return &api.StoreRepair{Shards: n}, nil
}
