package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

// get asks for the resource at path.
func (c *cli) get(cmd *cobra.Command, path string, query url.Values) (*adminclient.Answer, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Do(cmd.Context(), adminclient.Request{Method: http.MethodGet, Path: path, Query: query})
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
		return usage("--limit %d: give a number from 1, or 0 for all", limit)
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
	return cmd.Flags().Int("limit", otherwise, "how many to show at most; 0 shows all")
}

// write makes one change and prints the answer.
func (c *cli) write(cmd *cobra.Command, w *writing, method, path string, body any) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	a, err := c.send(cmd, client, w, method, path, w.header(""), body)
	if err != nil {
		return err
	}
	return c.printChange(cmd, w, a)
}

// send makes one change.
func (c *cli) send(cmd *cobra.Command, client *adminclient.Client, w *writing, method, path string, header http.Header, body any) (*adminclient.Answer, error) {
	r := adminclient.Request{Method: method, Path: path, Query: w.query(), Header: header}
	if body != nil {
		var err error
		if r.Body, err = json.Marshal(body); err != nil {
			return nil, fmt.Errorf("putting the request together: %w", err)
		}
	}
	return client.Do(cmd.Context(), r)
}

// wipeLine empties a terminal's line.
const wipeLine = "\r\x1b[K"

// stream asks for what may take long. It gives far what the daemon tells of how far it is, and on a
// terminal shows what that makes of it. Item may be nil.
func (c *cli) stream(cmd *cobra.Command, path string, query url.Values, body any, far func(line []byte) string, item func([]byte)) (*adminclient.Answer, error) {
	text, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("putting the request together: %w", err)
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
	if w.dryRun {
		c.note(cmd, "dry run: nothing was changed")
	}
	return c.printAnswer(cmd, a)
}

// editTries bounds how often a change is worked out anew because somebody else changed the resource
// in between.
const editTries = 4

// edit reads the resource at path, works out from it what to write, and writes that unless somebody
// else wrote meanwhile; then it begins anew. A resource that is not there is nil to change.
func (c *cli) edit(cmd *cobra.Command, w *writing, method, path string, change func(current object) (object, error)) error {
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
		return c.printChange(cmd, w, a)
	}
}

// fetch reads a resource to change it; nil when it is not there.
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
		return usage("nothing to set: name a setting, see %s --help", cmd.CommandPath())
	}
	change := func(current object) (object, error) {
		body := object{}
		return body, s.into(body, current)
	}
	return c.change(cmd, w, http.MethodPatch, path, s, change)
}

// change writes what change works out, from the resource as it is if the settings need that.
func (c *cli) change(cmd *cobra.Command, w *writing, method, path string, s *settings, change func(current object) (object, error)) error {
	if s.edited() {
		return c.edit(cmd, w, method, path, change)
	}
	body, err := change(nil)
	if err != nil {
		return err
	}
	return c.write(cmd, w, method, path, body)
}

// absent is the condition that there is no such resource yet.
func absent() http.Header { return http.Header{"If-None-Match": {"*"}} }

// create makes what PUT would silently replace if it were there.
func (c *cli) create(cmd *cobra.Command, w *writing, path string, body object) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	a, err := c.send(cmd, client, w, http.MethodPut, path, absent(), body)
	if p := new(adminclient.Problem); errors.As(err, &p) && p.Status == http.StatusPreconditionFailed {
		p.Detail = "it exists already: change it with " + cmd.Parent().CommandPath() + " set"
	}
	if err != nil {
		return err
	}
	return c.printChange(cmd, w, a)
}
