//go:build faults || soak

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"time"
)

// overUnix returns a client of a unix socket that keeps its connections.
func overUnix(socket string) *http.Client {
	return &http.Client{Timeout: 15 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

// ask sends a request. The status is 0 when no answer came.
func ask(c *http.Client, method, path string, body any) (status int, answer object) {
	var b bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&b).Encode(body); err != nil {
			return 0, nil
		}
	}
	req, err := http.NewRequest(method, "http://drawbridge"+path, &b)
	if err != nil {
		return 0, nil
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, nil
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, nil // an answer that was cut off acknowledges nothing
	}
	_ = json.Unmarshal(text, &answer) // some have no body
	return resp.StatusCode, answer
}
