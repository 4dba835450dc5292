package adminapi

import (
	"context"
	"net/http"

	"github.com/drawbridge/drawbridge/internal/rest"
)

// maxLong is the number of long operations at the same time, maxLongEach that of one tenant.
const maxLong, maxLongEach = 4, 2

// long runs an operation that may exceed the server's time limits. A client that accepts lines gets
// progress, then the result or the problem; others get the result alone. The operation ends when
// the client is gone.
func (c *call) long(run func(context.Context, rest.Progress) (any, error)) (*answer, error) {
	done, err := c.lasting.Take(c.caller.Tenant())
	if err != nil {
		return nil, err
	}
	if rest.AcceptsLines(c.r) {
		return &answer{handler: func(http.ResponseWriter, *http.Request) {
			defer done()
			c.stream().Run(run)
		}}, nil
	}
	defer done()
	result, err := run(c.r.Context(), func(any) error { return nil })
	rest.Extend(c.w)
	if err != nil {
		return nil, err
	}
	return &answer{body: result}, nil
}

// stream starts a response in lines.
func (c *call) stream() *rest.Stream {
	if c.dryRun {
		c.w.Header().Set("Dry-Run", "true")
	}
	return rest.NewStream(c.w, c.r, func(err error) any { return c.problem(err) })
}

// streamed sends what run passes to each, a line for each item, then its result or problem, to a
// client that accepts lines; others get the result alone.
func streamed[T, V any](c *call, run func(each func(*T) error) (*V, error)) (*answer, error) {
	if !rest.AcceptsLines(c.r) {
		return reported(run(func(*T) error { return nil }))
	}
	done, err := c.lasting.Take(c.caller.Tenant())
	if err != nil {
		return nil, err
	}
	return &answer{handler: func(http.ResponseWriter, *http.Request) {
		defer done()
		lines, count := c.stream(), 0
		result, err := run(func(item *T) error {
			if count++; count%1000 == 0 {
				rest.Extend(c.w)
			}
			return lines.Item(item)
		})
		lines.End(result, err)
	}}, nil
}
