package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) key() *cobra.Command {
	return group("key", "Manage API keys", c.keyCreate(), c.keyList(), c.keyDelete())
}

func (c *cli) keyCreate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Create an API key",
		Long: "Create an API key. It is printed once, alone on standard output, and cannot be shown again; --save writes it to a\n" +
			"new file that only its owner may read, ready for --key-file. A key can only create keys that are allowed less.",
		Example: "  drawbridge key create helpdesk --role domain --domain example.org --save /root/helpdesk.key\n" +
			"  drawbridge key create probe --role login --expires 365d",
		Args:              takes("NAME"),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	s := &settings{cmd: cmd}
	s.word("role", "role", "admin: everything; read: everything, read-only; domain: one domain; login: decide logins; self: one account's secure passwords and records", "admin", "domain", "read", "login", "self")
	s.text("domain", "domain", "`domain` of a key with role domain")
	s.text("account", "account", "`account` of a key with role self")
	expires := cmd.Flags().String("expires", "", "`time` at which the key expires: a time (2027-01-31T09:30:00Z), a day (2027-01-31), or an age from now (24h, 90d)")
	save := cmd.Flags().String("save", "", "write the key to this new `file` instead of printing it")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := object{"name": args[0]}
		if err := s.into(body, nil); err != nil {
			return err
		}
		if body["role"] == nil {
			return usage("--role is missing: give admin, domain, read, login or self")
		}
		if *expires != "" {
			when, err := future(*expires, time.Now())
			if err != nil {
				return usage("--expires: %w", err)
			}
			body["expires_at"] = when.UTC().Format(time.RFC3339)
		}
		return c.makeKey(cmd, w, body, *save)
	}
	return cmd
}

// makeKey creates the file first, so that no key is created that cannot be saved.
func (c *cli) makeKey(cmd *cobra.Command, w *writing, body object, save string) (err error) {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	var file *os.File
	if save != "" && !w.dryRun {
		if file, err = os.OpenFile(save, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return usage("--save: %w", err)
		}
		defer func() {
			err = errors.Join(err, file.Close())
			if err != nil {
				_ = os.Remove(save) // it holds no whole key
			}
		}()
	}
	a, err := c.send(cmd, client, w, http.MethodPost, adminclient.Path("v1", "keys"), nil, body)
	if err != nil {
		return err
	}
	defer clear(a.Body)
	var made api.CreatedKey
	if err := json.Unmarshal(a.Body, &made); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	defer clear(made.Secret)
	switch {
	case w.dryRun || file == nil && c.output == outputJSON:
		return c.printChange(cmd, w, a)
	case file != nil:
		if err := writeSecret(file, made.Secret); err != nil {
			return fmt.Errorf("saving the key %s (delete it): %w", made.ID, err)
		}
		c.note(cmd, "the key %q (id %s) is saved in %s; it cannot be shown again", made.Name, made.ID, save)
		return nil
	default:
		if err := writeSecret(cmd.OutOrStdout(), made.Secret); err != nil {
			return err
		}
		c.note(cmd, "the key %q (id %s) is shown only now", made.Name, made.ID)
		return nil
	}
}

func (c *cli) keyList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the API keys", Args: takes(), ValidArgsFunction: cobra.NoFileCompletions}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.list(cmd, adminclient.Path("v1", "keys"), nil, *limit,
			col("ID", "id"),
			col("NAME", "name").shortened(),
			col("ROLE", "role"),
			col("DOMAIN", "domain"),
			col("EXPIRES", "expires_at"),
			col("LAST USED", "last_used_at").onlyWide(),
			col("ACCOUNT", "account").onlyWide(),
			col("CREATED", "created_at").onlyWide(),
		)
	}
	return cmd
}

func (c *cli) keyDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "delete ID",
		Short:             "Delete an API key, which stops working at once",
		Args:              takes("ID"),
		ValidArgsFunction: arguments(c.completeAll("keys", "id")),
	}
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, adminclient.Path("v1", "keys", args[0]), nil)
	}
	return cmd
}
