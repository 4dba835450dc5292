package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

const (
	followEvery = time.Second
	// followBack is how much later than its time a record may arrive: daemons write records behind
	// their decisions.
	followBack = 10 * time.Second
)

// follow shows the last records, and new ones until the context ends.
func (c *cli) follow(cmd *cobra.Command, path string, q url.Values, limit int) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var seen seen
	var lines aligned
	columns := c.shownColumns(loginColumns[:])
	lines.add(headings(columns))
	for {
		list, err := client.List(cmd.Context(), path, q, limit)
		switch {
		case cmd.Context().Err() != nil:
			return nil // Ctrl-C is the way to end it
		case err != nil:
			return err
		}
		fresh, err := seen.fresh(list.Items)
		if err != nil {
			return err
		}
		if err := c.printRecords(cmd.OutOrStdout(), &lines, columns, fresh); err != nil {
			return err
		}
		if since := seen.since(); !since.IsZero() {
			q.Set("since", since.UTC().Format(time.RFC3339))
			limit = 0
		}
		select {
		case <-tick.C:
		case <-cmd.Context().Done():
			return nil
		}
	}
}

func (c *cli) printRecords(out io.Writer, lines *aligned, columns []column, records []json.RawMessage) error {
	for _, raw := range records {
		if c.output == outputJSON {
			if _, err := fmt.Fprintf(out, "%s\n", printableJSON(raw)); err != nil {
				return err
			}
			continue
		}
		cells, err := c.cells(raw, columns)
		if err != nil {
			return err
		}
		lines.add(cells)
	}
	if c.output == outputJSON {
		return nil
	}
	return lines.writeTo(out)
}

// seen are the records that were shown and may be answered again.
type seen struct {
	times  map[string]time.Time // by id
	newest time.Time
}

// fresh returns the records of a list, newest first, that were not seen yet, oldest first.
func (s *seen) fresh(records []json.RawMessage) ([]json.RawMessage, error) {
	if s.times == nil {
		s.times = map[string]time.Time{}
	}
	var list []json.RawMessage
	for _, raw := range slices.Backward(records) {
		var r struct {
			ID   string    `json:"id"`
			Time time.Time `json:"time"`
		}
		if err := json.Unmarshal(raw, &r); err != nil {
			return nil, fmt.Errorf("reading a record: %w", err)
		}
		if _, ok := s.times[r.ID]; ok {
			continue
		}
		s.times[r.ID] = r.Time
		if r.Time.After(s.newest) {
			s.newest = r.Time
		}
		list = append(list, raw)
	}
	return list, nil
}

// since returns the whole second from which on records have to be asked for again, and forgets
// those before it. It is zero while none was seen.
func (s *seen) since() time.Time {
	if s.newest.IsZero() {
		return time.Time{}
	}
	since := s.newest.Add(-followBack).Truncate(time.Second)
	for id, when := range s.times {
		if when.Before(since) {
			delete(s.times, id)
		}
	}
	return since
}

// aligned pads cells to columns that only grow, as later lines are not known yet.
type aligned struct {
	rows   [][]string // to be written
	widths []int
}

// add adds a row. All rows have equally many cells.
func (a *aligned) add(cells []string) {
	if a.widths == nil {
		a.widths = make([]int, len(cells))
	}
	for i := range cells {
		cells[i] = printable(cells[i])
		a.widths[i] = max(a.widths[i], utf8.RuneCountInString(cells[i]))
	}
	a.rows = append(a.rows, cells)
}

// writeTo writes the rows that were added since the last time.
func (a *aligned) writeTo(out io.Writer) error {
	var b strings.Builder
	for _, cells := range a.rows {
		last := len(cells) - 1
		for i, cell := range cells[:last] {
			fmt.Fprintf(&b, "%-*s", a.widths[i]+2, cell)
		}
		fmt.Fprintln(&b, cells[last])
	}
	a.rows = nil
	_, err := io.WriteString(out, b.String())
	return err
}
