package withdraw

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// within bounds one operation on Postfix' queue.
const within = 30 * time.Second

// maxQueue bounds the list of the queue in bytes: some million messages.
const maxQueue = 512 << 20

// ask carries out an operation on the queue and returns what it prints: by a command with further
// arguments, which reads the input, or by the socket of the package's drawbridge-queue.socket. Its
// dialogue is
//
//	delete              or header, list
//	3F2A11C
//	(end of input)
//	postsuper: 3F2A11C: removed
//	exit 0
func ask(ctx context.Context, command []string, operation string, arguments []string, input string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if path, ok := strings.CutPrefix(command[0], "unix:"); ok {
		return askSocket(ctx, path, operation+"\n"+input)
	}
	cmd := exec.CommandContext(ctx, command[0], slices.Concat(command[1:], arguments)...) //nolint:gosec // G204: the setting names it; no shell
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, fmt.Errorf("%w: %.200q", err, firstLine(exit.Stderr))
	}
	return out, err
}

func askSocket(ctx context.Context, path, request string) ([]byte, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("%w (is drawbridge-queue.socket enabled?)", err)
	}
	defer func() { _ = conn.Close() }() // all was said
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return nil, err
		}
	}
	if _, err := io.WriteString(conn, request); err != nil {
		return nil, err
	}
	if c, ok := conn.(*net.UnixConn); ok {
		if err := c.CloseWrite(); err != nil {
			return nil, err
		}
	}
	out, err := io.ReadAll(io.LimitReader(conn, maxQueue))
	if err != nil {
		return nil, err
	}
	// The last line is the status. Without it the answer is cut off.
	body, last := out[:0], bytes.TrimSuffix(out, []byte("\n"))
	if i := bytes.LastIndexByte(last, '\n'); i >= 0 {
		body, last = out[:i+1], last[i+1:]
	}
	if string(last) != "exit 0" {
		return nil, fmt.Errorf("%.80q: %.200q", last, firstLine(body))
	}
	return body, nil
}

func firstLine(text []byte) string {
	first, _, _ := strings.Cut(strings.TrimSpace(string(text)), "\n")
	return first
}
