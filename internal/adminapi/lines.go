package adminapi

import (
	"context"
	"mime"
	"net/http"
	"strings"
	"time"
)

const (
	// linesType is one JSON document a line, as they come.
	linesType = "application/x-ndjson"
	// lineEvery is how often a line tells how far a long operation is.
	lineEvery = 250 * time.Millisecond
	// lineWithin bounds how long a caller may take to accept a line.
	lineWithin = 30 * time.Second
	// maxLong is how many long operations run at a time: each holds memory and a processor that logins want too.
	maxLong = 4
)

// progress tells how far a long operation is, as often as it likes.
type progress = func(far any) error

// long carries out what may take longer than the server's time limits. A
// caller that accepts lines is told how far it is, and at last the result or
// the problem; others get the result as from any operation. It ends when the
// caller goes away.
func (c *call) long(run func(context.Context, progress) (any, error)) (*answer, error) {
	select {
	case c.turns <- struct{}{}:
	default:
		return nil, refuse(http.StatusTooManyRequests, "busy", "%d requests of this kind are being answered, the most there may be: try again in a moment", maxLong)
	}
	rc := http.NewResponseController(c.w)
	_ = rc.SetWriteDeadline(time.Time{}) // until there is something to write
	if accepts(c.r, linesType) {
		return &answer{handler: func(_ http.ResponseWriter, r *http.Request) {
			defer func() { <-c.turns }()
			c.writeLines(r.Context(), run)
		}}, nil
	}
	defer func() { <-c.turns }()
	result, err := run(c.r.Context(), func(any) error { return nil })
	_ = rc.SetWriteDeadline(time.Now().Add(lineWithin))
	if err != nil {
		return nil, err
	}
	return &answer{body: result}, nil
}

func (c *call) writeLines(ctx context.Context, run func(context.Context, progress) (any, error)) {
	s := newStream(c)
	var last time.Time
	var gone error
	result, err := run(ctx, func(far any) error {
		now := time.Now()
		if now.Sub(last) < lineEvery {
			return nil
		}
		last = now
		gone = s.progress(far)
		return gone
	})
	if gone == nil && ctx.Err() == nil { // somebody is there to be told
		s.end(result, err)
	}
}

// accepts reports whether a request names a media type as one that it takes.
func accepts(r *http.Request, want string) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && kind == want {
			return true
		}
	}
	return false
}
