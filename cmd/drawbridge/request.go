package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

// get reads the resource at path.
func (c *cli) get(cmd *cobra.Command, path string, query url.Values) (*adminclient.Answer, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Do(cmd.Context(), adminclient.Request{Method: http.MethodGet, Path: path, Query: query})
}

// printIfAny prints an answer, if there is one.
func (c *cli) printIfAny(cmd *cobra.Command, a *adminclient.Answer) error {
	if a == nil {
		return nil
	}
	return c.printAnswer(cmd, a)
}

// show prints the resource at path.
func (c *cli) show(cmd *cobra.Command, path string) error {
	a, err := c.get(cmd, path, nil)
	if err != nil {
		return err
	}
	return c.printAnswer(cmd, a)
}

// list prints up to limit items of the list at path; all when limit is 0.
func (c *cli) list(cmd *cobra.Command, path string, query url.Values, limit int, columns ...column) error {
	if limit < 0 {
		return usage("--limit %d: must be 0 (all) or more", limit)
	}
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	items, err := client.List(cmd.Context(), path, query, limit)
	if err != nil {
		return err
	}
	return c.printItems(cmd, items, columns...)
}

// limited adds --limit to a command that lists.
func limited(cmd *cobra.Command, otherwise int) *int {
	return cmd.Flags().Int("limit", otherwise, "maximum `number` of entries; 0 shows all")
}

// write makes one change and prints the answer.
func (c *cli) write(cmd *cobra.Command, w *writing, method, path string, body any) error {
	return c.writeWith(cmd, w, method, path, body, c.printAnswer)
}

// printer prints an answer.
type printer = func(*cobra.Command, *adminclient.Answer) error

// writeWith is write with its own way to print the answer.
func (c *cli) writeWith(cmd *cobra.Command, w *writing, method, path string, body any, show printer) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	a, err := c.send(cmd, client, w, method, path, w.header(""), body)
	if err != nil {
		return err
	}
	return c.printChangeWith(cmd, w, a, show)
}

// send makes one change.
func (c *cli) send(cmd *cobra.Command, client *adminclient.Client, w *writing, method, path string, header http.Header, body any) (*adminclient.Answer, error) {
	r := adminclient.Request{Method: method, Path: path, Query: w.query(), Header: header}
	if body != nil {
		var err error
		if r.Body, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("encoding the request: %w", err)
		}
	}
	return client.Do(cmd.Context(), r)
}

// wipeLine empties a terminal's line.
const wipeLine = "\r\x1b[K"

// stream sends a request that may take long. far receives each progress line and returns the text
// that a terminal shows for it; item receives each item and may be nil.
func (c *cli) stream(cmd *cobra.Command, path string, query url.Values, body any, far func(line []byte) string, item func([]byte)) (*adminclient.Answer, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	progress := func(line []byte) { far(line) }
	if out, ok := cmd.ErrOrStderr().(*os.File); ok && isTerminal(out) {
		progress = func(line []byte) { _, _ = io.WriteString(out, wipeLine+far(line)) }
		defer func() { _, _ = io.WriteString(out, wipeLine) }()
	}
	return client.Stream(cmd.Context(), adminclient.Request{Method: http.MethodPost, Path: path, Query: query, Body: text}, progress, item)
}

func (c *cli) printChange(cmd *cobra.Command, w *writing, a *adminclient.Answer) error {
	return c.printChangeWith(cmd, w, a, c.printAnswer)
}

func (c *cli) printChangeWith(cmd *cobra.Command, w *writing, a *adminclient.Answer, show printer) error {
	if w.dryRun {
		c.note(cmd, "dry run: nothing was changed")
	}
	if err := show(cmd, a); err != nil {
		return err
	}
	c.noteRevert(cmd, a)
	c.noteEnded(cmd, a)
	c.noteCutOff(cmd, a)
	return nil
}

// noteRevert says how to keep a change that is reverted otherwise.
func (c *cli) noteRevert(cmd *cobra.Command, a *adminclient.Answer) {
	parts := strings.Split(strings.Trim(a.Revert, "/"), "/") // v1/domains/DOMAIN/reverts/ID
	if len(parts) != 5 {
		return
	}
	c.note(cmd, "the change will be reverted unless you confirm it: drawbridge revert confirm %s %s", parts[2], parts[4])
}

// editTries bounds how often an edit is repeated because somebody else changed the resource
// meanwhile.
const editTries = 4

// edit reads the resource at path, computes the new body and writes it, unless somebody else wrote
// meanwhile; then it starts again. change receives nil for a resource that does not exist.
func (c *cli) edit(cmd *cobra.Command, w *writing, method, path string, change func(current object) (object, error), show printer) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	for try := 1; ; try++ {
		current, etag, err := fetch(cmd, client, path)
		if err != nil {
			return err
		}
		body, err := change(current)
		if err != nil {
			return err
		}
		header := w.header(etag)
		if current == nil && w.ifMatch == "" {
			header = absent()
		}
		a, err := c.send(cmd, client, w, method, path, header, body)
		if p := new(adminclient.Problem); errors.As(err, &p) && p.Status == http.StatusPreconditionFailed && w.ifMatch == "" && try < editTries {
			continue
		}
		if err != nil {
			return err
		}
		return c.printChangeWith(cmd, w, a, show)
	}
}

// fetch reads a resource before a change; nil when it does not exist.
func fetch(cmd *cobra.Command, client *adminclient.Client, path string) (object, string, error) {
	a, err := client.Do(cmd.Context(), adminclient.Request{Method: http.MethodGet, Path: path})
	if p := new(adminclient.Problem); errors.As(err, &p) && p.Status == http.StatusNotFound {
		return nil, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	var o object
	if err := json.Unmarshal(a.Body, &o); err != nil {
		return nil, "", fmt.Errorf("reading %s: %w", path, err)
	}
	return o, a.ETag, nil
}

// patch sends the settings that were named as a merge patch.
func (c *cli) patch(cmd *cobra.Command, w *writing, path string, s *settings) error {
	if !s.given() {
		return usage("no setting is given: see %s --help", cmd.CommandPath())
	}
	change := func(current object) (object, error) {
		body := object{}
		return body, s.into(body, current)
	}
	return c.change(cmd, w, http.MethodPatch, path, s, change)
}

// change writes the body that change computes, from the current resource if the settings need it.
func (c *cli) change(cmd *cobra.Command, w *writing, method, path string, s *settings, change func(current object) (object, error)) error {
	return c.changeWith(cmd, w, method, path, s, change, c.printAnswer)
}

// changeWith is change with its own way to print the answer.
func (c *cli) changeWith(cmd *cobra.Command, w *writing, method, path string, s *settings, change func(current object) (object, error), show printer) error {
	if s.edited() {
		return c.edit(cmd, w, method, path, change, show)
	}
	body, err := change(nil)
	if err != nil {
		return err
	}
	return c.writeWith(cmd, w, method, path, body, show)
}

// absent is the condition that there is no such resource yet.
func absent() http.Header { return http.Header{"If-None-Match": {"*"}} }

// create makes a resource with PUT, and refuses to replace an existing one.
func (c *cli) create(cmd *cobra.Command, w *writing, path string, body object) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	a, err := c.send(cmd, client, w, http.MethodPut, path, absent(), body)
	if p := new(adminclient.Problem); errors.As(err, &p) && p.Status == http.StatusPreconditionFailed {
		p.Detail = "it already exists: change it with " + cmd.Parent().CommandPath() + " set"
	}
	if err != nil {
		return err
	}
	return c.printChange(cmd, w, a)
}
