package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// maxSecret bounds a secret that is read, in bytes.
const maxSecret = 4096

// readSecret reads one line from standard input: a secret, without the line's end. On a terminal it
// asks for it, without showing what is typed, and once more if twice says so. The caller wipes it.
func readSecret(cmd *cobra.Command, prompt string, twice bool) (secret []byte, err error) {
	terminal, ok := cmd.InOrStdin().(*os.File)
	if !ok || !isTerminal(terminal) {
		return secretLine(cmd.InOrStdin())
	}
	show, err := hideTyping(terminal)
	if err != nil {
		return nil, err
	}
	defer show()
	if secret, err = ask(cmd, terminal, prompt); err != nil || !twice {
		return secret, err
	}
	again, err := ask(cmd, terminal, "Repeat")
	defer clear(again)
	if err == nil && !bytes.Equal(secret, again) {
		err = usage("the two passwords differ: nothing was changed")
	}
	if err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// hideTyping switches off the terminal's echo until the caller calls the returned function.
func hideTyping(terminal *os.File) (show func(), err error) {
	fd := int(terminal.Fd())
	shown, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("reading the terminal's mode: %w", err)
	}
	hidden := *shown
	hidden.Lflag = hidden.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &hidden); err != nil {
		return nil, fmt.Errorf("hiding the input: %w", err)
	}
	return func() { _ = unix.IoctlSetTermios(fd, unix.TCSETS, shown) }, nil // nothing better is left to do
}

// ask reads a line from a terminal.
func ask(cmd *cobra.Command, terminal *os.File, prompt string) ([]byte, error) {
	_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "%s: ", printable(prompt))
	defer func() { _, _ = fmt.Fprintln(cmd.ErrOrStderr()) }()
	type line struct {
		secret []byte
		err    error
	}
	read := make(chan line, 1)
	go func() { // a read cannot be called off; Ctrl-C must still give the terminal back
		secret, err := secretLine(terminal)
		read <- line{secret, err}
	}()
	select {
	case l := <-read:
		return l.secret, l.err
	case <-cmd.Context().Done():
		return nil, context.Canceled
	}
}

// secretLine reads a single line, byte by byte so as to take nothing of the next.
func secretLine(in io.Reader) ([]byte, error) {
	secret := make([]byte, 0, maxSecret) // never grows: no copy is left behind
	var b [1]byte
	for {
		n, err := in.Read(b[:])
		if n == 1 && b[0] == '\n' || errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			clear(secret)
			return nil, fmt.Errorf("reading the secret: %w", err)
		}
		if n == 1 && len(secret) == maxSecret {
			clear(secret)
			return nil, usage("the secret is longer than %d bytes", maxSecret)
		}
		secret = append(secret, b[:n]...)
	}
	secret = bytes.TrimSuffix(secret, []byte("\r"))
	switch {
	case len(secret) == 0:
		return nil, usage("the secret is missing: give it as one line on standard input")
	case !utf8.Valid(secret):
		clear(secret)
		return nil, usage("the secret is not UTF-8")
	}
	return secret, nil
}

// withSecret is the JSON of an object with a secret as a further field. The caller wipes it.
func withSecret(o object, field string, secret []byte) ([]byte, error) {
	doc, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	out := make([]byte, 0, len(doc)+len(field)+6*len(secret)+8) // never grows: no copy is left behind
	out = append(out, doc[:len(doc)-1]...)
	if len(o) > 0 {
		out = append(out, ',')
	}
	out = fmt.Appendf(out, `"%s":"`, field)
	for _, c := range secret {
		switch {
		case c == '"' || c == '\\':
			out = append(out, '\\', c)
		case c < ' ':
			out = fmt.Appendf(out, `\u%04x`, c)
		default:
			out = append(out, c)
		}
	}
	return append(out, '"', '}'), nil
}
