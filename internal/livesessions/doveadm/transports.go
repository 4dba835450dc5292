package doveadm

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"slices"
	"strings"
)

// exitNotFound is the exit code of a kick on 2.3 that hit nobody (EX_NOHOST).
const exitNotFound = 68

var errAnswer = errors.New("the answer is not doveadm's")

// words are a command's words for a command line. Nothing behind "--" is taken for an option.
func (c command) words() []string {
	words := slices.Concat([]string{c.name}, c.options)
	if len(c.masks) > 0 {
		words = append(append(words, "--"), c.masks...)
	}
	return words
}

// method is the command's name in the HTTP API: sieveList for "sieve list".
func (c command) method() string {
	first, second, _ := strings.Cut(c.name, " ")
	if second != "" {
		second = strings.ToUpper(second[:1]) + second[1:]
	}
	return first + second
}

// rowsOf reads the JSON objects that both the API and "doveadm -f json" print, and the list of the command
// "user", which is a single one.
func rowsOf(text []byte) ([]row, error) {
	var users struct {
		List row `json:"userList"`
	}
	if err := json.Unmarshal(text, &users); err == nil && users.List != nil {
		return []row{users.List}, nil
	}
	var objects []json.RawMessage
	if err := json.Unmarshal(text, &objects); err != nil {
		return nil, errAnswer
	}
	rows := make([]row, 0, len(objects))
	for _, o := range objects {
		dec := json.NewDecoder(bytes.NewReader(o))
		if t, err := dec.Token(); err != nil || t != json.Delim('{') {
			return nil, errAnswer
		}
		var r row
		for dec.More() {
			if _, err := dec.Token(); err != nil { // the name
				return nil, errAnswer
			}
			value, err := dec.Token()
			text, ok := value.(string)
			if err != nil || !ok {
				return nil, errAnswer
			}
			r = append(r, text)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// api is doveadm's HTTP API.
type api struct {
	url    string
	key    []byte
	client *http.Client
}

func (a *api) run(ctx context.Context, c command) ([]row, bool, error) {
	params := map[string]any{}
	for name, value := range c.params {
		params[name] = value
	}
	if len(c.masks) > 0 && len(c.params) == 0 {
		params["mask"] = c.masks
	}
	if c.user != "" {
		params["user"] = c.user
	}
	body, err := json.Marshal([]any{[]any{c.method(), params, "drawbridge"}})
	if err != nil {
		return nil, false, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return nil, false, err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "X-Dovecot-API "+base64.StdEncoding.EncodeToString(a.key))
	resp, err := a.client.Do(req)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, false, fmt.Errorf("status %d: sessions.key_file is not Dovecot's doveadm_api_key", resp.StatusCode)
	default:
		return nil, false, fmt.Errorf("status %d", resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, false, err
	}
	return apiAnswer(text)
}

// apiAnswer reads [["doveadmResponse",[…],"tag"]] or [["error",{…},"tag"]].
func apiAnswer(text []byte) ([]row, bool, error) {
	var answers [][]json.RawMessage
	if err := json.Unmarshal(text, &answers); err != nil || len(answers) != 1 || len(answers[0]) != 3 {
		return nil, false, errAnswer
	}
	var kind string
	if err := json.Unmarshal(answers[0][0], &kind); err != nil {
		return nil, false, errAnswer
	}
	switch kind {
	case "doveadmResponse":
		rows, err := rowsOf(answers[0][1])
		return rows, true, err
	case "error":
		var fault struct {
			Type string `json:"type"`
			Code int    `json:"exitCode"`
		}
		if err := json.Unmarshal(answers[0][1], &fault); err != nil {
			return nil, false, errAnswer
		}
		if fault.Code == exitNotFound {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("doveadm refuses: %.80q %d", fault.Type, fault.Code)
	}
	return nil, false, errAnswer
}

// program is the doveadm command with its first arguments.
type program []string

func (p program) run(ctx context.Context, c command) ([]row, bool, error) {
	format := []string{"-f", "json"}
	if c.name == "user" {
		format = nil // which it prints in lines all the same
	}
	cmd := exec.CommandContext(ctx, p[0], slices.Concat(p[1:], format, c.line())...) //nolint:gosec // G204: the setting names it; no shell
	var said bytes.Buffer
	cmd.Stderr = &said
	cmd.WaitDelay = Timeout
	text, err := cmd.Output()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit) && exit.ExitCode() == exitNotFound && c.name == "kick":
		return nil, false, nil
	case err != nil:
		first, _, _ := strings.Cut(said.String(), "\n")
		return nil, false, fmt.Errorf("%w: %.200q", err, first)
	}
	switch c.name {
	case "expunge":
		return nil, true, nil
	case "user":
		return []row{strings.FieldsFunc(string(text), func(r rune) bool { return r == '\n' })}, true, nil
	}
	if c.name == "kick" && !bytes.HasPrefix(bytes.TrimSpace(text), []byte("[")) {
		return nil, true, nil // 2.3 prints a sentence
	}
	rows, err := rowsOf(text)
	return rows, true, err
}

// socket is doveadm-server's own protocol, version 1.0, which both versions speak: a command is a
// line of fields, its answer one line of fields without rows, and a line "+" or "-CODE".
type socket struct {
	path     string
	password []byte
}

func (s *socket) run(ctx context.Context, c command) ([]row, bool, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "unix", s.path)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = conn.Close() }() // all was said
	if end, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(end); err != nil {
			return nil, false, err
		}
	}
	if _, err := io.WriteString(conn, "VERSION\tdoveadm-server\t1\t0\n"); err != nil {
		return nil, false, err
	}
	in := bufio.NewReader(io.LimitReader(conn, maxAnswer))
	welcome, err := in.ReadString('\n')
	if err == nil && welcome == "-\n" {
		if len(s.password) == 0 {
			return nil, false, errors.New("the socket wants a password: set its mode to 0600, or name the file with Dovecot's doveadm_password in sessions.key_file")
		}
		plain := append([]byte("\x00doveadm\x00"), s.password...)
		if _, err := io.WriteString(conn, "PLAIN\t"+base64.StdEncoding.EncodeToString(plain)+"\n"); err != nil {
			return nil, false, err
		}
		welcome, err = in.ReadString('\n')
	}
	switch {
	case errors.Is(err, io.EOF) || err == nil && welcome != "+\n":
		return nil, false, errors.New("doveadm-server refuses: sessions.key_file is not Dovecot's doveadm_password")
	case err != nil:
		return nil, false, err
	}
	// No flags, the user, then the command.
	line := "\t" + escapeField(c.user)
	for _, w := range c.words() {
		line += "\t" + escapeField(w)
	}
	if _, err := io.WriteString(conn, line+"\n"); err != nil {
		return nil, false, err
	}
	text, err := in.ReadString('\n')
	if err != nil {
		return nil, false, err
	}
	// No answer, but why not. An answer may begin with "-" as well: each of its fields ends with a tab.
	if strings.HasPrefix(text, "-") && !strings.HasSuffix(text, "\t\n") && c.user != "" {
		if text == "-NOUSER\n" || text == "-NOTFOUND\n" {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("doveadm refuses: %.80q", strings.TrimSpace(text))
	}
	status, err := in.ReadString('\n')
	if err != nil {
		return nil, false, err
	}
	switch status {
	case "+\n":
	case "-NOTFOUND\n", "-NOUSER\n":
		return nil, false, nil
	default:
		return nil, false, fmt.Errorf("doveadm refuses: %.80q", strings.TrimSpace(status))
	}
	if c.name == "user" {
		rows, err := rowsOf([]byte(text))
		return rows, true, err
	}
	fields := strings.Split(strings.TrimSuffix(text, "\n"), "\t")
	fields = fields[:len(fields)-1] // each ends with a tab
	for i, f := range fields {
		fields[i] = unescapeField(f)
	}
	if c.name != "who" {
		return []row{fields}, true, nil
	}
	rows, err := split(fields)
	return rows, true, err
}

// split finds the rows in the fields of "who -1": 4 of each connection on 2.3, and on 2.4 at least
// 5, as many as the site's passdbs have names for sessions. It takes the smallest number that makes
// every third field of a row a process and every fourth an address.
func split(fields []string) ([]row, error) {
	for width := 4; width <= len(fields); width++ {
		if len(fields)%width != 0 {
			continue
		}
		var rows []row
		for part := range slices.Chunk(fields, width) {
			if _, err := connection(part); err != nil || !digits(part[2]) || part[1] == "" {
				break
			}
			rows = append(rows, part)
		}
		if len(rows)*width == len(fields) {
			return rows, nil
		}
	}
	if len(fields) > 0 {
		return nil, errAnswer
	}
	return nil, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// Fields are escaped as Dovecot's str_tabescape does.
var (
	tabEscaper   = strings.NewReplacer("\x00", "\x010", "\x01", "\x011", "\t", "\x01t", "\r", "\x01r", "\n", "\x01n")
	tabUnescaper = strings.NewReplacer("\x010", "\x00", "\x011", "\x01", "\x01t", "\t", "\x01r", "\r", "\x01n", "\n")
)

func escapeField(s string) string   { return tabEscaper.Replace(s) }
func unescapeField(s string) string { return tabUnescaper.Replace(s) }
