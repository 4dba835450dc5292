package rest

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
	// LinesType is the media type of a response of one JSON document per line (NDJSON), which
	// clients ask for by Accept.
	LinesType = "application/x-ndjson"
	// lineEvery is the interval between two lines of progress.
	lineEvery = 250 * time.Millisecond
	// lineWithin is how long a client may take to accept a line, or the response without lines.
	lineWithin = time.Minute
)

// Progress reports how far a long operation is, as often as it likes. Its error is that the client
// is gone.
type Progress = func(far any) error

// AcceptsLines reports whether a request accepts [LinesType] by its Accept header, so that the
// response may be streamed with progress.
func AcceptsLines(r *http.Request) bool {
	for part := range strings.SplitSeq(strings.Join(r.Header.Values("Accept"), ","), ",") {
		if kind, _, err := mime.ParseMediaType(part); err == nil && kind == LinesType {
			return true
		}
	}
	return false
}

// Extend postpones the server's write deadline: a response that took long would miss it.
func Extend(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(lineWithin)) // a recorder has none
}

// Stream is a response in lines of JSON, each an object with one member: item and progress while
// the operation runs, then result or problem. Items are sent with the next line of another kind.
type Stream struct {
	w       http.ResponseWriter
	ctx     context.Context
	problem func(error) any
	buf     *bufio.Writer
	enc     *json.Encoder
}

// NewStream starts the response with status 200: problem turns later errors into a last line
// of the answer.
func NewStream(w http.ResponseWriter, r *http.Request, problem func(error) any) *Stream {
	Extend(w)
	h := w.Header()
	h.Set("Content-Type", LinesType)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	s := &Stream{w: w, ctx: r.Context(), problem: problem, buf: bufio.NewWriterSize(w, 64<<10)}
	s.enc = json.NewEncoder(s.buf)
	s.enc.SetEscapeHTML(false)
	return s
}

// Run runs an operation and sends its progress, then its result or problem, until the client is
// gone.
func (s *Stream) Run(run func(context.Context, Progress) (any, error)) {
	var last time.Time
	var gone error
	result, err := run(s.ctx, func(far any) error {
		now := time.Now()
		if now.Sub(last) < lineEvery {
			return nil
		}
		last = now
		gone = s.Progress(far)
		return gone
	})
	if gone == nil && s.ctx.Err() == nil {
		s.End(result, err)
	}
}

// Item adds a line about one of many. Its error is that the client is gone.
func (s *Stream) Item(v any) error { return s.enc.Encode(map[string]any{"item": v}) }

// Progress sends a line of progress. Its error is that the client is gone.
func (s *Stream) Progress(v any) error { return s.send("progress", v) }

// End sends the last line: the result, or the problem if err is not nil.
func (s *Stream) End(result any, err error) {
	if err != nil {
		_ = s.send("problem", s.problem(err)) // if the client is gone, nobody reads it
		return
	}
	_ = s.send("result", result)
}

func (s *Stream) send(kind string, v any) error {
	Extend(s.w)
	if err := s.enc.Encode(map[string]any{kind: v}); err != nil {
		return err
	}
	if err := s.buf.Flush(); err != nil {
		return err
	}
	if err := http.NewResponseController(s.w).Flush(); err != nil {
		return err
	}
	return s.ctx.Err()
}
