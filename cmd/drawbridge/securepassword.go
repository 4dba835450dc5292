package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"
)

func (c *cli) securePassword() *cobra.Command {
	return group("secure-password", "The secrets of an account's devices",
		c.securePasswordCreate(), c.securePasswordList(), c.securePasswordShow(), c.securePasswordRename(), c.securePasswordRevoke())
}

func (c *cli) securePasswordCreate() *cobra.Command {
	cmd := c.onAccount("create", "Make a secret for one device")
	cmd.Long = "Make a secret for one device. It is shown now and never again, alone on standard output."
	cmd.Example = "  drawbridge secure-password create ann@example.org --label \"My iPhone\""
	label := cmd.Flags().String("label", "", "`name` of the device")
	w := writes(cmd).creating(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *label == "" {
			return usage("--label is missing: name the device, such as --label \"My iPhone\"")
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		a, err := c.send(cmd, client, w, http.MethodPost, accountPath(args[0], "secure-passwords"), nil, object{"label": *label})
		if err != nil {
			return err
		}
		defer clear(a.Body)
		if c.output == outputJSON {
			return c.printAnswer(cmd, a)
		}
		return c.printSecurePassword(cmd, w, args[0], a.Body)
	}
	return cmd
}

func (c *cli) printSecurePassword(cmd *cobra.Command, w *writing, account string, doc []byte) error {
	var made api.CreatedSecurePassword
	if err := json.Unmarshal(doc, &made); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	defer clear(made.Secret)
	for _, warning := range made.Warnings {
		c.note(cmd, "warning: %s", warning.Detail)
	}
	if w.dryRun {
		c.note(cmd, "dry run: nothing was changed")
		return nil
	}
	if err := writeSecret(cmd.OutOrStdout(), made.Secret); err != nil {
		return err
	}
	c.note(cmd, "this secret is shown only now: give it to the device %q of %s (id %s)", made.Label, account, made.ID)
	return nil
}

func (c *cli) securePasswordList() *cobra.Command {
	cmd := c.onAccount("list", "List the secrets of an account's devices")
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, accountPath(args[0], "secure-passwords"), nil, *limit,
			col("ID", "id"),
			col("LABEL", "label"),
			col("CREATED", "created_at"),
			col("LAST USED", "last_used_at"),
			col("FROM", "last_used_ip"),
			col("PROTOCOL", "last_used_protocol"),
		)
	}
	return cmd
}

// onSecurePassword is a command about one device's secret.
func (c *cli) onSecurePassword(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " ACCOUNT ID",
		Short:             short,
		Args:              takes("ACCOUNT", "ID"),
		ValidArgsFunction: arguments(c.completeAccount, c.completeIn("accounts", "secure-passwords", "id")),
	}
}

func (c *cli) securePasswordShow() *cobra.Command {
	cmd := c.onSecurePassword("show", "Show one device's secret's label and last use")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.show(cmd, accountPath(args[0], "secure-passwords", args[1]))
	}
	return cmd
}

func (c *cli) securePasswordRename() *cobra.Command {
	cmd := c.onSecurePassword("rename", "Change a device's label")
	label := cmd.Flags().String("label", "", "`name` of the device")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *label == "" {
			return usage("--label is missing: name the device")
		}
		return c.write(cmd, w, http.MethodPatch, accountPath(args[0], "secure-passwords", args[1]), object{"label": *label})
	}
	return cmd
}

func (c *cli) securePasswordRevoke() *cobra.Command {
	cmd := c.onSecurePassword("revoke", "Shut a device out, at once")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, accountPath(args[0], "secure-passwords", args[1]), nil)
	}
	return cmd
}

// writeSecret writes a secret alone on a line.
func writeSecret(out io.Writer, s api.Secret) error {
	if len(s) == 0 {
		return errors.New("the answer holds no secret: is this Drawbridge's API?")
	}
	line := append(s[:len(s):len(s)], '\n')
	defer clear(line)
	_, err := out.Write(line)
	return err
}
