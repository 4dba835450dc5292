package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) securePassword() *cobra.Command {
	return group("secure-password", "Manage the secure passwords of an account's devices",
		c.securePasswordCreate(), c.securePasswordList(), c.securePasswordShow(), c.securePasswordSet(), c.securePasswordRename(), c.securePasswordRevoke())
}

func (c *cli) securePasswordCreate() *cobra.Command {
	cmd := c.onAccount("create", "Create a secure password for one device")
	cmd.Long = "Create a secure password for one device. It is printed once, alone on standard output, and cannot be shown again. It\n" +
		"may be bound to protocols, to networks and to a time, or to sending only."
	cmd.Example = "  drawbridge secure-password create ann@example.org --label \"My iPhone\"\n" +
		"  drawbridge secure-password create ann@example.org --label Scanner --send-only --network 192.0.2.0/28"
	label := cmd.Flags().String("label", "", "`name` of the device")
	s := &settings{cmd: cmd}
	s.bounds()
	w := writes(cmd).creating(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *label == "" {
			return usage("--label is missing: name the device, such as --label \"My iPhone\"")
		}
		body := object{"label": *label}
		if err := s.into(body, nil); err != nil {
			return err
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		a, err := c.send(cmd, client, w, http.MethodPost, accountPath(args[0], "secure-passwords"), nil, body)
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

// bounds adds the flags that limit where and until when a secure password is accepted.
func (s *settings) bounds() {
	s.list("protocol", "protocols", "accept it over this `protocol` only: imap, pop3, smtp or sieve")
	sending := s.cmd.Flags().Bool("send-only", false, "accept it for sending only, as --protocol smtp")
	s.add("send-only", func(body, _ object) error {
		if *sending {
			body.put("protocols", []string{"smtp"})
		}
		return nil
	})
	s.cmd.MarkFlagsMutuallyExclusive("protocol", "send-only")
	s.list("network", "networks", "accept it from this `network` only: an address, a CIDR or an a-b range")
	expires := s.cmd.Flags().String("expires", "", "`time` at which it expires: a time, a day, or a span from now (24h, 90d); \"\" for never")
	s.add("expires", func(body, _ object) error {
		if *expires == "" {
			body.put("expires_at", nil)
			return nil
		}
		when, err := future(*expires, time.Now())
		if err != nil {
			return usage("--expires: %w", err)
		}
		body.put("expires_at", when.UTC().Format(time.RFC3339))
		return nil
	})
}

func (c *cli) securePasswordSet() *cobra.Command {
	cmd := c.onSecurePassword("set", "Change the label or the bounds of a secure password")
	cmd.Long = "Change the label of a secure password, or the protocols, networks and time that it is bound to. Settings that are not\n" +
		"named stay as they are. Open sessions that the new bounds exclude end."
	cmd.Example = "  drawbridge secure-password set ann@example.org 5b0c --send-only --expires 90d"
	s := &settings{cmd: cmd}
	s.text("label", "label", "`name` of the device")
	s.bounds()
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.patch(cmd, w, accountPath(args[0], "secure-passwords", args[1]), s)
	}
	return cmd
}

func (c *cli) printSecurePassword(cmd *cobra.Command, w *writing, account string, doc []byte) error {
	var made api.CreatedSecurePassword
	if err := json.Unmarshal(doc, &made); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	defer clear(made.Secret)
	c.noteWarnings(cmd, doc)
	if w.dryRun {
		c.note(cmd, "dry run: nothing was changed")
		return nil
	}
	if err := writeSecret(cmd.OutOrStdout(), made.Secret); err != nil {
		return err
	}
	c.note(cmd, "the secret is shown only now: enter it on the device %q of %s (id %s)", made.Label, account, made.ID)
	return nil
}

func (c *cli) securePasswordList() *cobra.Command {
	cmd := c.onAccount("list", "List the secure passwords of an account, without the secrets")
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, accountPath(args[0], "secure-passwords"), nil, *limit,
			col("ID", "id"),
			col("LABEL", "label").shortened(),
			col("LAST USED", "last_used_at"),
			col("FROM", "last_used_ip"),
			col("EXPIRES", "expires_at"),
			col("ONLY OVER", "protocols").onlyWide(),
			col("ONLY FROM", "networks").onlyWide(),
			col("PROTOCOL", "last_used_protocol").onlyWide(),
			col("CREATED", "created_at").onlyWide(),
		)
	}
	return cmd
}

// onSecurePassword is a command for one secure password.
func (c *cli) onSecurePassword(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " ACCOUNT ID",
		Short:             short,
		Args:              takes("ACCOUNT", "ID"),
		ValidArgsFunction: arguments(c.completeAccount, c.completeIn("accounts", "secure-passwords", "id")),
	}
}

func (c *cli) securePasswordShow() *cobra.Command {
	cmd := c.onSecurePassword("show", "Show the label and last use of a secure password")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.show(cmd, accountPath(args[0], "secure-passwords", args[1]))
	}
	return cmd
}

func (c *cli) securePasswordRename() *cobra.Command {
	cmd := c.onSecurePassword("rename", "Change the label of a secure password")
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
	cmd := c.onSecurePassword("revoke", "Revoke a secure password at once")
	cmd.Use = "revoke ACCOUNT [ID|LABEL]"
	cmd.Long = "Revoke a secure password, by its ID or its label, or with --all every secure password of the account. New logins\n" +
		"with it are refused at once."
	cmd.Example = "  drawbridge secure-password revoke ann@example.org \"My iPhone\"\n" +
		"  drawbridge secure-password revoke ann@example.org --all --confirm"
	cmd.Args = takes("ACCOUNT", "[ID|LABEL]")
	all := cmd.Flags().Bool("all", false, "revoke all secure passwords of the account; needs --confirm")
	w := writes(cmd).versioned(cmd).confirmed(cmd, "revoke all secure passwords, with --all")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case *all == (len(args) == 2):
			return usage("give the ID or label of one secure password, or --all: %s", cmd.UseLine())
		case *all && w.ifMatch != "":
			return usage("--if-version: give it without --all")
		}
		passwords, err := c.securePasswords(cmd, args[0])
		if err != nil {
			return err
		}
		if !*all {
			id, err := chosen(passwords, args[1])
			if err != nil {
				return err
			}
			return c.write(cmd, w, http.MethodDelete, accountPath(args[0], "secure-passwords", id), nil)
		}
		return c.revokeAll(cmd, w, args[0], passwords)
	}
	return cmd
}

// device is a secure password in a list.
type device struct {
	ID    string `json:"id"`
	Label string `json:"label"`
}

// securePasswords lists the live secure passwords of an account.
func (c *cli) securePasswords(cmd *cobra.Command, account string) ([]device, error) {
	client, err := c.client()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	list, err := client.List(cmd.Context(), accountPath(account, "secure-passwords"), nil, 0)
	if err != nil {
		return nil, err
	}
	devices := make([]device, len(list.Items))
	for i, raw := range list.Items {
		if err := json.Unmarshal(raw, &devices[i]); err != nil {
			return nil, fmt.Errorf("reading a secure password: %w", err)
		}
	}
	return devices, nil
}

// chosen returns the id of the secure password that has this id, or alone has this label.
func chosen(devices []device, name string) (string, error) {
	var ids []string
	for _, d := range devices {
		switch name {
		case d.ID:
			return d.ID, nil
		case d.Label:
			ids = append(ids, d.ID)
		}
	}
	switch len(ids) {
	case 0:
		return name, nil // the daemon answers that there is none
	case 1:
		return ids[0], nil
	default:
		return "", usage("%d secure passwords have the label %q: give the ID of one: %s", len(ids), name, strings.Join(ids, ", "))
	}
}

// revokeAll revokes secure passwords one by one, after --confirm.
func (c *cli) revokeAll(cmd *cobra.Command, w *writing, account string, devices []device) error {
	if len(devices) == 0 {
		c.note(cmd, "%s has no secure passwords", account)
		return nil
	}
	labels := make([]string, len(devices))
	for i, d := range devices {
		labels[i] = d.Label
	}
	if !w.confirm && !w.dryRun {
		return &adminclient.Problem{Problem: *api.Refuse(http.StatusConflict, "confirm_required",
			"this would revoke all secure passwords of %s (%s); to go ahead, repeat with --confirm", account, strings.Join(labels, ", "))}
	}
	each := writing{dryRun: w.dryRun}
	for _, d := range devices {
		if err := c.write(cmd, &each, http.MethodDelete, accountPath(account, "secure-passwords", d.ID), nil); err != nil {
			return err
		}
	}
	if !w.dryRun {
		c.note(cmd, "revoked: %s", strings.Join(labels, ", "))
	}
	return nil
}

// writeSecret writes a secret alone on a line.
func writeSecret(out io.Writer, s api.Secret) error {
	if len(s) == 0 {
		return errors.New("the answer has no secret: is this Drawbridge's API?")
	}
	line := append(s[:len(s):len(s)], '\n')
	defer clear(line)
	_, err := out.Write(line)
	return err
}
