package adminclient

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"time"
)

const linesType = "application/x-ndjson"

// Stream sends a request whose answer may take long. It passes each progress report and item, as
// JSON valid during the call, to progress and item; either may be nil. The answer's body is the
// result. [Options.Timeout] limits the wait for each line, not the total.
func (c *Client) Stream(ctx context.Context, r Request, progress, item func([]byte)) (*Answer, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	defer silence.Stop()

	r.Accept = linesType + ", application/problem+json"
	resp, err := c.open(ctx, &r)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode/100 != 2 {
		return c.whole(&r, resp)
	}
	if kind, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || kind != linesType {
		return nil, fmt.Errorf("answer to %s %s is not a stream of lines: is %s Drawbridge's API, and as new as this command?", r.Method, r.Path, c.api)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, MaxBody)
	for lines.Scan() {
		silence.Reset(c.timeout)
		var line struct{ Progress, Item, Result, Problem json.RawMessage }
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil {
			return nil, fmt.Errorf("reading a line of the answer to %s %s: %w", r.Method, r.Path, err)
		}
		switch {
		case line.Result != nil:
			return &Answer{Status: resp.StatusCode, Body: line.Result}, nil
		case line.Problem != nil:
			p := &Problem{Body: line.Problem}
			if err := json.Unmarshal(line.Problem, p); err != nil {
				return nil, fmt.Errorf("reading the problem with %s %s: %w", r.Method, r.Path, err)
			}
			return nil, p
		case line.Progress != nil && progress != nil:
			progress(line.Progress)
		case line.Item != nil && item != nil:
			item(line.Item)
		}
	}
	if errors.Is(lines.Err(), bufio.ErrTooLong) {
		return nil, fmt.Errorf("a line of the answer to %s %s is longer than %d MiB", r.Method, r.Path, MaxBody>>20)
	}
	return nil, c.unreachable(r.Method, cmp.Or(lines.Err(), io.ErrUnexpectedEOF))
}
