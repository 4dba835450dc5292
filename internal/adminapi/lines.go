package adminapi

import (
	"bufio"
	"context"
	"encoding/json"
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
	// lineWithin bounds how long a caller may take to accept a line, or the answer that comes
	// without lines.
	lineWithin = time.Minute
	// maxLong is how many long operations run at a time, maxLongEach how many of them for one
	// domain's keys.
	maxLong, maxLongEach = 4, 2
)

// progress tells how far a long operation is, as often as it likes.
type progress = func(far any) error

// long carries out what may take longer than the server's time limits. A caller that accepts lines
// is told how far it is, and at last the result or the problem; others get the result as from any
// operation. It ends when the caller goes away.
func (c *call) long(run func(context.Context, progress) (any, error)) (*answer, error) {
	giveBack, err := c.lasting.take(c.id)
	if err != nil {
		return nil, err
	}
	if accepts(c.r, linesType) {
		return &answer{handler: func(_ http.ResponseWriter, r *http.Request) {
			defer giveBack()
			c.writeLines(r.Context(), run)
		}}, nil
	}
	defer giveBack()
	result, err := run(c.r.Context(), func(any) error { return nil })
	hold(c.w)
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

// hold keeps the connection open for another while: the server closes one on which nothing was
// answered in time.
func hold(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(lineWithin)) // a recorder has none
}

// stream is an answer in lines of JSON, each an object with one member: item and progress while the
// work goes on, then result or problem. Items are sent together with the line of another kind that
// follows them.
type stream struct {
	c   *call
	buf *bufio.Writer
	enc *json.Encoder
}

// newStream begins the answer, with 200: what goes wrong from here on is a problem line.
func newStream(c *call) *stream {
	hold(c.w)
	h := c.w.Header()
	h.Set("Content-Type", linesType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if c.dryRun {
		h.Set("Dry-Run", "true")
	}
	s := &stream{c: c, buf: bufio.NewWriterSize(c.w, 64<<10)}
	s.enc = json.NewEncoder(s.buf)
	s.enc.SetEscapeHTML(false)
	return s
}

// item adds a line about one of many. Its error is that the client is gone.
func (s *stream) item(v any) error { return s.enc.Encode(map[string]any{"item": v}) }

// progress sends a line about how far the work is. Its error is that the client is gone.
func (s *stream) progress(v any) error { return s.send("progress", v) }

// end sends the last line. Nobody is left to tell when the client is gone.
func (s *stream) end(result any, err error) {
	if err != nil {
		_ = s.send("problem", s.c.problem(err))
		return
	}
	_ = s.send("result", result)
}

func (s *stream) send(kind string, v any) error {
	hold(s.c.w)
	if err := s.enc.Encode(map[string]any{kind: v}); err != nil {
		return err
	}
	if err := s.buf.Flush(); err != nil {
		return err
	}
	if err := http.NewResponseController(s.c.w).Flush(); err != nil {
		return err
	}
	return s.c.r.Context().Err()
}
