package adminapi

import (
	"bufio"
	"encoding/json"
	"net/http"
	"time"
)

// hold keeps the connection open for another while: the server closes one on
// which nothing was answered in time.
func hold(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(2 * lineWithin)) // a recorder has none
}

// stream is an answer in lines of JSON, each an object with one member: item
// and progress while the work goes on, then result or problem. Items are sent
// together with the line of another kind that follows them.
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
