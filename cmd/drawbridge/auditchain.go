package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/auditchain"
)

func (c *cli) auditVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Verify that audit entries were neither removed nor changed",
		Long: "Verify the chain of hashes of the audit, or of a file that drawbridge audit export wrote, without a daemon. If entries\n" +
			"were removed, changed, reordered or cut off, the output names them and the exit status is 65.\n\n" +
			"Whoever can write to Redis can compute all hashes anew. Keep the anchor that this command prints on another machine.\n" +
			"With --anchor, the command verifies that nothing before the anchor was changed.",
		Example: "  drawbridge audit verify > /mnt/elsewhere/audit-2026-11-28\n" +
			"  drawbridge audit verify --anchor /mnt/elsewhere/audit-2026-11-28\n" +
			"  drawbridge audit verify audit.jsonl",
		Args: takes("[FILE]"),
	}
	anchorFile := cmd.Flags().String("anchor", "", "`file` with the output of an earlier verify, or the anchor alone")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		anchor := ""
		if *anchorFile != "" {
			text, err := os.ReadFile(*anchorFile)
			if err != nil {
				return usage("--anchor: %w", err)
			}
			if anchor = anchorIn(string(text)); anchor == "" {
				return usage("--anchor: %s contains no anchor", *anchorFile)
			}
		}
		var v api.AuditVerification
		answer := &adminclient.Answer{}
		if len(args) == 1 {
			checked, err := verifyExport(args[0], anchor)
			if err != nil {
				return err
			}
			v = *checked
			if answer.Body, err = json.Marshal(checked); err != nil {
				return fmt.Errorf("encoding the result: %w", err)
			}
		} else {
			q := url.Values{}
			if anchor != "" {
				q.Set("anchor", anchor)
			}
			var err error
			if answer, err = c.streamWith(cmd, adminclient.Request{Method: http.MethodGet, Path: adminclient.Path("v1", "audit", "verify"), Query: q}, nil); err != nil {
				return err
			}
			if err := json.Unmarshal(answer.Body, &v); err != nil {
				return fmt.Errorf("reading the answer: %w", err)
			}
		}
		if err := c.printAnswer(cmd, answer); err != nil {
			return err
		}
		if !v.OK {
			return invalid("the audit is broken at entry %s: %s", v.BrokenAt, v.Breaks[0].Reason)
		}
		return nil
	}
	return cmd
}

// anchorIn finds the anchor in the output of verify, as a table or as JSON.
func anchorIn(text string) string {
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\r\n\":", r) }) {
		if _, err := auditchain.ParseAnchors(strings.Trim(word, ",")); err == nil {
			return strings.Trim(word, ",")
		}
	}
	return ""
}

// streamWith sends a request whose answer is a stream of lines.
func (c *cli) streamWith(cmd *cobra.Command, r adminclient.Request, item func([]byte)) (*adminclient.Answer, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	return client.Stream(cmd.Context(), r, nil, item)
}

func (c *cli) auditExport() *cobra.Command {
	return &cobra.Command{
		Use:   "export FILE",
		Short: "Write the whole audit to a file that can be verified",
		Long: "Write all audit entries as JSON Lines to a new file, with the hashes that verify them. drawbridge audit verify FILE\n" +
			"verifies it without a daemon.",
		Example: "  drawbridge audit export audit.jsonl",
		Args:    takes("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return writeNew(args[0], func(out io.Writer) error {
				var failed error
				a, err := c.streamWith(cmd, adminclient.Request{Method: http.MethodGet, Path: adminclient.Path("v1", "audit", "export")}, func(item []byte) {
					if failed == nil {
						_, failed = fmt.Fprintf(out, "{\"item\":%s}\n", item)
					}
				})
				if err = errors.Join(failed, err); err != nil {
					return err
				}
				_, err = fmt.Fprintf(out, "{\"result\":%s}\n", a.Body)
				return err
			})
		},
	}
}

// writeNew writes a file beside its target, and gives it its name when it is complete. It replaces no
// file.
func writeNew(path string, write func(io.Writer) error) error {
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("creating the file: %w", err)
	}
	defer func() { _ = os.Remove(file.Name()) }()
	defer func() { _ = file.Close() }()
	out := bufio.NewWriterSize(file, 1<<20)
	if err := write(out); err != nil {
		return err
	}
	if err := errors.Join(out.Flush(), file.Sync(), file.Close()); err != nil {
		return fmt.Errorf("writing the file: %w", err)
	}
	if err := os.Link(file.Name(), path); err != nil {
		return fmt.Errorf("naming the file: %w", err)
	}
	return nil
}

// verifyExport verifies a file that auditExport wrote.
func verifyExport(path, anchor string) (*api.AuditVerification, error) {
	var anchors []auditchain.Anchor
	if anchor != "" {
		anchors, _ = auditchain.ParseAnchors(anchor) // was validated
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, usage("%w", err)
	}
	defer func() { _ = file.Close() }()
	var order []int
	chains := map[int]*auditchain.Verifier{}
	chain := func(shard int) *auditchain.Verifier {
		v := chains[shard]
		if v == nil {
			v = &auditchain.Verifier{Shard: shard, Anchors: anchors}
			chains[shard], order = v, append(order, shard)
		}
		return v
	}
	for _, a := range anchors {
		chain(a.Shard)
	}
	var end *api.AuditExport
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, adminclient.MaxBody)
	for n := 1; lines.Scan(); n++ {
		var line api.AuditExportLine
		if err := json.Unmarshal(lines.Bytes(), &line); err != nil || line.Item == nil && line.Result == nil {
			return nil, invalid("line %d of %s is not of an export of the audit", n, path)
		}
		if line.Result != nil {
			end = line.Result
			break
		}
		chain(line.Item.Shard).Add(line.Item.N, line.Item.Link, line.Item.Entry)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", path, err)
	}
	least := map[int]uint64{}
	if end != nil {
		heads, err := auditchain.ParseAnchors(end.Anchor)
		if err != nil && end.Anchor != "" {
			return nil, invalid("the last line of %s has no valid anchor", path)
		}
		for _, h := range heads {
			chain(h.Shard).Anchors = append(chain(h.Shard).Anchors, h)
			least[h.Shard] = h.N
		}
	}
	result := &api.AuditVerification{}
	var heads []auditchain.Head
	for _, shard := range order {
		h, entries, broken := chains[shard].End(least[shard])
		result.Entries += entries
		if entries > 0 {
			heads = append(heads, h)
		}
		if broken != nil {
			result.Breaks = append(result.Breaks, api.AuditBreak{ID: fmt.Sprintf("%d-%d", broken.Shard, broken.N), Reason: broken.Reason})
		}
	}
	result.Head, result.Anchor = auditchain.Digest(heads), auditchain.Text(heads)
	switch {
	case len(result.Breaks) > 0:
	case end == nil:
		result.Breaks = append(result.Breaks, api.AuditBreak{ID: "end", Reason: "the file was cut off: its last line is missing"})
	case end.Entries != result.Entries || end.Head != result.Head:
		result.Breaks = append(result.Breaks, api.AuditBreak{ID: "end", Reason: "the last line does not belong to these entries"})
	}
	if result.OK = len(result.Breaks) == 0; !result.OK {
		result.BrokenAt = result.Breaks[0].ID
	}
	return result, nil
}
