package admin

import (
	"cmp"
	"encoding/base64"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/store"
)

// defaultLimit is the number of items on a page that does not ask for another.
const defaultLimit = 100

// Page selects a part of a list. The zero value is the first 100 items; an unknown cursor is
// [store.ErrBadCursor].
type Page struct {
	// Limit is the number of items; 100 when zero.
	Limit int
	// Cursor is the Next of the previous page; "" for the first.
	Cursor string
}

func (p Page) limit() int { return cmp.Or(p.Limit, defaultLimit) }

// after returns the name after which the page begins.
func (p Page) after() (string, error) {
	name, err := base64.RawURLEncoding.DecodeString(p.Cursor)
	if err != nil {
		return "", store.ErrBadCursor
	}
	return string(name), nil
}

// cursorOf hides a name in a cursor, so that nobody depends on its form.
func cursorOf(name string) string { return base64.RawURLEncoding.EncodeToString([]byte(name)) }

// PageOf returns one page of documents, which the caller has sorted by the name that the function
// returns, each as its view.
func PageOf[D, V any](p Page, docs []store.Revised[D], name func(*D) string, view func(*D) V) (*api.List[V], error) {
	after, err := p.after()
	if err != nil {
		return nil, err
	}
	page := &api.List[V]{Items: []V{}}
	last := ""
	for _, d := range docs {
		switch is := name(d.Doc); {
		case is <= after:
		case len(page.Items) == p.limit():
			page.Next = cursorOf(last)
			return page, nil
		default:
			page.Items, last = append(page.Items, view(d.Doc)), is
		}
	}
	return page, nil
}

// firstPage returns the first items of a list that begins after the cursor.
func firstPage[T any](p Page, items []T, name func(T) string) *api.List[T] {
	limit := p.limit()
	if len(items) <= limit {
		return &api.List[T]{Items: items}
	}
	items = items[:limit]
	return &api.List[T]{Items: items, Next: cursorOf(name(items[limit-1]))}
}

// ByAge returns a name for [PageOf] that sorts by creation time, and by id among documents of one
// time, in a list that is oldest first.
func ByAge(created time.Time, id string) string {
	return created.UTC().Format("20060102150405.000000000") + id
}
