package adminapi

import (
	"net/http"

	"github.com/drawbridge/drawbridge/internal/admin"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/rest"
)

// maxResults is the number of results in a response without lines.
const maxResults = 10_000

func batchAccounts(c *call) (*answer, error) {
	var f api.Faults
	b, err := c.domain.Batch(decode[api.Batch](c, &f), namedSettings(c.body.Get("set")), c.query.Get("resume"), &f)
	if err != nil {
		return nil, err
	}
	if rest.AcceptsLines(c.r) {
		return &answer{handler: func(http.ResponseWriter, *http.Request) { streamBatch(c, b, c.stream()) }}, nil
	}
	result := api.BatchResult{Results: []api.BatchAccount{}}
	err = b.Run(c.ctx, func(results []api.BatchAccount) error {
		rest.Extend(c.w)
		room := min(len(results), maxResults-len(result.Results))
		result.Results = append(result.Results, results[:room]...)
		result.More += len(results) - room
		return nil
	})
	if err != nil {
		return nil, err
	}
	result.BatchTotals, result.Accounts = b.Totals(), b.Changed()
	return &answer{body: result}, nil
}

// namedSettings are the settings that the set of a batch names, including those that are null.
func namedSettings(set *rest.Node) []string {
	if set == nil {
		return nil
	}
	var named []string
	for _, f := range set.Fields {
		named = append(named, f.Name)
		inner := f.Value.Fields
		if f.Name == "protocols" && f.Value.Kind == rest.Null { // all of them
			inner = []rest.Field{{Name: "imap"}, {Name: "pop3"}, {Name: "smtp"}, {Name: "sieve"}}
		}
		for _, i := range inner {
			named = append(named, f.Name+"."+i.Name)
		}
	}
	return named
}

// streamBatch runs a batch and sends its results and progress. If the client goes away it stops
// after a chunk: the cursor that was sent last, or before that chunk, resumes it.
func streamBatch(c *call, b *admin.Batch, s *rest.Stream) {
	gone := false
	err := b.Run(c.ctx, func(results []api.BatchAccount) error {
		for i := range results {
			if err := s.Item(&results[i]); err != nil {
				gone = true
				return err
			}
		}
		err := s.Progress(b.Progress())
		gone = err != nil
		return err
	})
	if gone {
		p := b.Progress()
		c.Log.Warn("a batch stopped: its client is gone", "domain", c.domain.Name(), "done", p.Done, "selected", p.Selected, "error", err)
		return
	}
	s.End(b.Totals(), err)
}
