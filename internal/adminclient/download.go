package adminclient

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"time"
)

// Download copies the answer to a request to w, whatever its type and length. read is called with every
// part, and about how many records there are in all, 0 if that is not known. [Options.Timeout] limits the
// wait for each part.
func (c *Client) Download(ctx context.Context, r Request, w io.Writer, read func(part []byte, records int64)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silence := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	defer silence.Stop()
	r.Accept = "*/*"
	resp, err := c.open(ctx, &r)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		_, err := c.whole(&r, resp)
		return err
	}
	records, _ := strconv.ParseInt(resp.Header.Get("Records"), 10, 64) // 0 without
	room := make([]byte, 256<<10)
	for {
		n, err := resp.Body.Read(room)
		silence.Reset(c.timeout)
		if n > 0 {
			read(room[:n], records)
			if _, err := w.Write(room[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return nil
		case err != nil:
			return c.unreachable(r.Method, err)
		}
	}
}
