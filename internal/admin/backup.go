package admin

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Backup passes the documents of the store to yield, hashes of secrets included; as a dry run it
// reports only what they are of.
func (r *Request) Backup(yield func(*api.StoreDocument) error) (*api.StoreBackup, error) {
	if err := r.Caller.May(ForAdmin); err != nil {
		return nil, err
	}
	result := &api.StoreBackup{StoreID: r.Store.State.Head(store.Global).StoreID, Pepper: r.Store.State.Pepper(), TakenAt: r.Time.UTC()}
	if r.DryRun {
		return result, nil
	}
	by := r.Caller.Actor
	r.Log.Info("backup of the store", "by", by.Name, "key", by.Key, "uid", by.UID)
	return result, r.Store.Backup(func(key string, body []byte) error {
		result.Documents++
		return yield(&api.StoreDocument{Key: key, Document: string(body)})
	})
}

// Restore puts documents of a backup into a store without domains. Only the site's own user may: a
// backup holds keys of every role.
func (r *Request) Restore(ctx context.Context, in *api.StoreRestore, f *api.Faults) (*api.StoreRestored, error) {
	if err := r.Caller.May(ForAdmin); err != nil {
		return nil, err
	}
	if !r.Caller.Local {
		return nil, api.Conflict("local_only", "only root and the daemon's user may restore a backup, through the daemon's own socket: it holds API keys")
	}
	if own := r.Store.State.Pepper(); in != nil && in.Pepper != "" && in.Pepper != own {
		return nil, api.Conflict("wrong_pepper", "the secure passwords of the backup were made with the pepper of fingerprint %.8s, and this daemon has %.8s: "+
			"put the pepper that was saved beside the backup in place of state_dir/pepper and begin with an empty store", in.Pepper, own)
	}
	var docs []store.Doc
	if in != nil {
		for i, d := range in.Documents {
			if !json.Valid([]byte(d.Document)) {
				f.Add(api.At(api.At("/documents", i), "document"), "malformed", "is not a JSON document")
			}
			docs = append(docs, store.Doc{Key: d.Key, Body: json.RawMessage(d.Document)})
		}
	}
	if err := f.Err(); err != nil {
		return nil, err
	}
	if !r.DryRun {
		err := r.Store.RestoreDocs(ctx, r.Caller.Actor, docs, in.Domains)
		switch {
		case errors.Is(err, store.ErrInUse):
			return nil, api.Conflict("store_in_use", "%v", err)
		case errors.Is(err, store.ErrNoBackup):
			return nil, api.Refuse(422, "invalid", "%v", err)
		case err != nil:
			return nil, err
		}
	}
	return &api.StoreRestored{Documents: len(docs)}, nil
}
