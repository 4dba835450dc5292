package admin

import (
	"context"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// Messages returns one page of message records, newest first.
func (l *Logins) Messages(ctx context.Context, q store.MessageQuery) (*api.List[api.MessageRecord], error) {
	d := l.domain
	q.Domain = d.name
	if q.Limit == 0 {
		q.Limit = defaultLimit
	}
	var f api.Faults
	q.Account = d.readRecordFilters(q.Account, q.Since, q.Until, &f)
	if err := f.Err(); err != nil {
		return nil, err
	}
	var err error
	if q.Account, err = d.recordsOf(q.Account); err != nil {
		return nil, err
	}
	records, next, err := d.ReadMessages(ctx, q)
	if err != nil {
		return nil, err
	}
	return &api.List[api.MessageRecord]{Items: list(records), Next: next}, nil
}
