package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
	"github.com/drawbridge/drawbridge/internal/backup"
)

// The documents of one request of a restore. Accounts with many secure passwords are large.
const (
	restoreTogether = 2000
	restoreBytes    = 4 << 20
)

// minPassphrase is the length of the shortest passphrase, in bytes.
const minPassphrase = 12

func (c *cli) backup() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write an encrypted backup of the store",
		Long: "Write all domains, rules, accounts and keys to a new file, encrypted with age: for the --recipient public keys, or with\n" +
			"a passphrase, which is read from standard input. Each domain is saved as of one moment. Login records, the audit and\n" +
			"held messages are not part of it.\n\n" +
			"The pepper is not in the file: save state_dir/pepper apart from it, once. Without it no secure password of the backup works.",
		Example:           "  drawbridge backup --recipient age1... /var/backups/drawbridge-2026-11-28.age",
		Args:              takes("FILE"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	recipients := cmd.Flags().StringArray("recipient", nil, "public `key` of age that may decrypt it (repeatable)")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		to, err := c.recipients(cmd, *recipients)
		if err != nil {
			return err
		}
		// Beside the target, and in its place when it is complete.
		file, err := os.CreateTemp(filepath.Dir(args[0]), "."+filepath.Base(args[0])+".*")
		if err != nil {
			return fmt.Errorf("creating the backup: %w", err)
		}
		defer func() { _ = os.Remove(file.Name()) }()
		defer func() { _ = file.Close() }()
		result, err := c.writeBackup(cmd, file, to)
		if err != nil {
			return err
		}
		if err := errors.Join(file.Sync(), file.Close()); err != nil {
			return fmt.Errorf("writing the backup: %w", err)
		}
		if err := os.Link(file.Name(), args[0]); err != nil { // never over another file
			return fmt.Errorf("naming the backup: %w", err)
		}
		c.note(cmd, "%d documents are saved; the pepper of fingerprint %.8s is not: keep a copy of state_dir/pepper elsewhere", result.Documents, result.Pepper)
		return nil
	}
	return cmd
}

func (c *cli) recipients(cmd *cobra.Command, keys []string) ([]age.Recipient, error) {
	var to []age.Recipient
	for _, key := range keys {
		r, err := age.ParseX25519Recipient(key)
		if err != nil {
			return nil, usage("--recipient %s is no public key of age (age1...): %w", key, err)
		}
		to = append(to, r)
	}
	if len(to) > 0 {
		return to, nil
	}
	secret, err := readSecret(cmd, "Passphrase of the backup", true)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	if len(secret) < minPassphrase {
		return nil, usage("the passphrase is shorter than %d bytes: whoever has the file can try many", minPassphrase)
	}
	r, err := age.NewScryptRecipient(string(secret))
	return []age.Recipient{r}, err
}

// writeBackup writes what the daemon sends. The header comes first and the daemon reports last what
// it is of, so the store's status is read before.
func (c *cli) writeBackup(cmd *cobra.Command, w io.Writer, to []age.Recipient) (*api.StoreBackup, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	before, err := client.Do(cmd.Context(), adminclient.Request{Method: http.MethodPost, Path: adminclient.Path("v1", "store", "backup"), Query: url.Values{"dry_run": {"true"}}})
	if err != nil {
		return nil, err
	}
	var about api.StoreBackup
	if err := json.Unmarshal(before.Body, &about); err != nil {
		return nil, fmt.Errorf("reading the answer: %w", err)
	}
	file, err := backup.NewWriter(w, backup.Header{StoreID: about.StoreID, Pepper: about.Pepper, TakenAt: time.Now().UTC()}, to...)
	if err != nil {
		return nil, err
	}
	var fault error
	a, err := client.Stream(cmd.Context(), adminclient.Request{Method: http.MethodPost, Path: adminclient.Path("v1", "store", "backup")}, nil, func(item []byte) {
		var d api.StoreDocument
		if fault == nil {
			fault = json.Unmarshal(item, &d)
		}
		if fault == nil {
			fault = file.Add(d.Key, d.Document)
		}
	})
	if err != nil {
		return nil, err
	}
	var result api.StoreBackup
	if err := errors.Join(fault, file.Close(), json.Unmarshal(a.Body, &result)); err != nil {
		return nil, fmt.Errorf("writing the backup: %w", err)
	}
	if result.StoreID != about.StoreID || result.Pepper != about.Pepper {
		return nil, errors.New("the store was replaced while it was read: run the command again")
	}
	return &result, nil
}

func (c *cli) restore() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Restore a backup into an empty store",
		Long: "Restore the documents of a backup into the store of a daemon that has no domains, as root on its machine. The file is\n" +
			"read and verified completely first. The daemon must have the pepper that the backup belongs to. Domains come last, so\n" +
			"logins are refused until all of their rules are back. If it is interrupted, run it again.\n\n" +
			"Passwords revoked before the backup stay revoked. Passwords revoked since then work again: revoke them once more.",
		Example:           "  drawbridge restore --identity key.txt /var/backups/drawbridge-2026-11-28.age",
		Args:              takes("FILE"),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
	}
	identity := cmd.Flags().String("identity", "", "`file` with the private key of age; without it, a passphrase is read from standard input")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		with, err := identities(cmd, *identity)
		if err != nil {
			return err
		}
		read := func(each func(h backup.Header, key, document string) error) (h backup.Header, n int, err error) {
			file, err := os.Open(args[0])
			if err != nil {
				return h, 0, usage("%w", err)
			}
			defer func() { _ = file.Close() }()
			if h, n, err = backup.Read(file, each, with...); errors.Is(err, backup.ErrDamaged) || errors.Is(err, backup.ErrLocked) {
				err = fmt.Errorf("%s: %w", args[0], err)
			}
			return h, n, err
		}
		if _, _, err := read(func(backup.Header, string, string) error { return nil }); err != nil {
			return err
		}
		parts := restoring{c: c, cmd: cmd, w: w}
		h, n, err := read(parts.add)
		if err == nil {
			err = parts.send(false)
		}
		if err == nil {
			parts.docs = parts.domains
			err = parts.send(true)
		}
		if err != nil {
			return err
		}
		if w.dryRun {
			c.note(cmd, "dry run: nothing was changed")
		}
		c.note(cmd, "%d documents of %s are restored: revoke again what was revoked since", n, h.TakenAt.Format(time.RFC3339))
		return nil
	}
	return cmd
}

func identities(cmd *cobra.Command, file string) ([]age.Identity, error) {
	if file != "" {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, usage("--identity: %w", err)
		}
		with, err := age.ParseIdentities(bytes.NewReader(text))
		if err != nil {
			return nil, usage("--identity %s: %w", file, err)
		}
		return with, nil
	}
	secret, err := readSecret(cmd, "Passphrase of the backup", false)
	if err != nil {
		return nil, err
	}
	defer clear(secret)
	with, err := age.NewScryptIdentity(string(secret))
	return []age.Identity{with}, err
}

// restoring sends documents in parts, and the domains last.
type restoring struct {
	c       *cli
	cmd     *cobra.Command
	w       *writing
	pepper  string
	docs    []api.StoreDocument
	bytes   int
	domains []api.StoreDocument
}

func (r *restoring) add(h backup.Header, key, document string) error {
	r.pepper = h.Pepper
	d := api.StoreDocument{Key: key, Document: document}
	if strings.HasPrefix(key, "domain/") {
		r.domains = append(r.domains, d)
		return nil
	}
	r.docs, r.bytes = append(r.docs, d), r.bytes+len(document)
	if len(r.docs) < restoreTogether && r.bytes < restoreBytes {
		return nil
	}
	return r.send(false)
}

func (r *restoring) send(domains bool) error {
	body, err := json.Marshal(api.StoreRestore{Pepper: r.pepper, Documents: append([]api.StoreDocument{}, r.docs...), Domains: domains})
	if err != nil {
		return err
	}
	r.docs, r.bytes = r.docs[:0], 0
	client, err := r.c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Do(r.cmd.Context(), adminclient.Request{Method: http.MethodPost, Path: adminclient.Path("v1", "store", "restore"), Query: r.w.query(), Body: body})
	return err
}
