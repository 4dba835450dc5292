package adminclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

// pageSize is how many items are asked for at a time, when more than that are wanted.
const pageSize = 500

// List is a list of the API, its pages put together.
type List struct {
	Items []json.RawMessage `json:"items"`
	Next  string            `json:"next,omitempty"` // cursor of the next page, if a limit applied
}

// List asks for the first limit items of a list, or for all of them when limit is 0, following the
// cursors from page to page.
func (c *Client) List(ctx context.Context, path string, query url.Values, limit int) (*List, error) {
	list := &List{Items: []json.RawMessage{}}
	query = maps.Clone(query)
	if query == nil {
		query = url.Values{}
	}
	for {
		size := pageSize
		if limit > 0 {
			size = min(size, limit-len(list.Items))
		}
		query.Set("limit", strconv.Itoa(size))
		a, err := c.Do(ctx, Request{Method: http.MethodGet, Path: path, Query: query})
		if err != nil {
			return nil, err
		}
		var page List
		if err := json.Unmarshal(a.Body, &page); err != nil {
			return nil, fmt.Errorf("reading the list %s: %w", path, err)
		}
		list.Items = append(list.Items, page.Items...)
		list.Next = page.Next
		if limit > 0 && len(list.Items) >= limit {
			list.Items = list.Items[:limit] // the daemon may return short lists whole
			return list, nil
		}
		if page.Next == "" {
			return list, nil
		}
		if page.Next == query.Get("cursor") {
			return nil, errors.New("reading the list " + path + ": its pages form a loop")
		}
		query.Set("cursor", page.Next)
	}
}
