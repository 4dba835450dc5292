package main

import (
	"encoding/json"
	"net/http"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) mailboxPassword() *cobra.Command {
	cmd := c.onAccount("set", "Set the mailbox password kept here")
	cmd.Long = "Set the mailbox password of an account, at sites that keep mailbox passwords here (login.next_passdb = false). The\n" +
		"password is asked for on a terminal, or read as one line from standard input; it is never on the command line. It\n" +
		"must meet the domain's rules for passwords (drawbridge domain set); a hash and a generated password need not.\n" +
		"If the old password was stolen, the devices may be as well: --revoke all revokes their secure passwords."
	cmd.Example = "  pass show mail/ann | drawbridge mailbox-password set ann@example.org\n" +
		"  drawbridge mailbox-password set ann@example.org --hash-file ann.hash\n" +
		"  drawbridge mailbox-password set ann@example.org --generate --must-change"
	hashFile := cmd.Flags().String("hash-file", "", "`file` with a password hash in Dovecot's notation, such as {BLF-CRYPT}$2y$…; - for standard input")
	generate := cmd.Flags().Bool("generate", false, "generate the password and show it once")
	mustChange := cmd.Flags().Bool("must-change", false, "refuse logins with this password until another one is set")
	revoke := cmd.Flags().StringArray("revoke", nil, "revoke a secure password, by its `ID` (repeatable), or all, or none")
	cmd.MarkFlagsMutuallyExclusive("generate", "hash-file")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set := object{}
		if list := slices.DeleteFunc(slices.Clone(*revoke), func(id string) bool { return id == "none" }); len(list) > 0 {
			set["revoke"] = list
		}
		if *mustChange {
			set["must_change"] = true
		}
		if *generate {
			set["generate"] = true
			return c.writeWith(cmd, w, http.MethodPut, accountPath(args[0], "mailbox-password"), set, c.printMailboxPassword(len(*revoke) > 0))
		}
		field, secret, err := mailboxSecret(cmd, args[0], *hashFile)
		if err != nil {
			return err
		}
		defer clear(secret)
		body, err := withSecret(set, field, secret)
		if err != nil {
			return err
		}
		defer clear(body)
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		a, err := client.Do(cmd.Context(), adminclient.Request{
			Method: http.MethodPut, Path: accountPath(args[0], "mailbox-password"),
			Query: w.query(), Header: w.header(""), Body: body,
		})
		if err != nil {
			return err
		}
		return c.printChangeWith(cmd, w, a, c.printMailboxPassword(len(*revoke) > 0))
	}
	return group("mailbox-password", "Set mailbox passwords kept here", cmd, c.mailboxPasswordExpire())
}

// printMailboxPassword prints the answer, and asks about the devices unless the command line does.
func (c *cli) printMailboxPassword(decided bool) printer {
	return func(cmd *cobra.Command, a *adminclient.Answer) error {
		if err := c.printAnswer(cmd, a); err != nil {
			return err
		}
		var set api.MailboxPasswordSet
		if err := json.Unmarshal(a.Body, &set); err == nil && set.SecurePasswords > 0 && !decided {
			c.note(cmd, "the account's secure passwords keep working (%d): if the password was stolen, revoke them with drawbridge secure-password revoke %s --all --confirm", set.SecurePasswords, set.Address)
		}
		return nil
	}
}

func (c *cli) mailboxPasswordExpire() *cobra.Command {
	cmd := c.onAccount("expire", "Refuse the mailbox password until a new one is set")
	cmd.Long = "Refuse logins with the mailbox password kept here, with the reason password_expired, until a new one is set.\n" +
		"Secure passwords keep working. Open sessions of the mailbox password end."
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPut, accountPath(args[0], "mailbox-password"), object{"must_change": true})
	}
	return cmd
}

// mailboxSecret reads the new password or hash and returns the name of its field.
func mailboxSecret(cmd *cobra.Command, account, hashFile string) (field string, secret []byte, err error) {
	switch hashFile {
	case "":
		secret, err = readSecret(cmd, "Mailbox password of "+account, true)
		return "password", secret, err
	case "-":
		secret, err = secretLine(cmd.InOrStdin())
		return "hash", secret, err
	}
	f, err := os.Open(hashFile)
	if err != nil {
		return "", nil, usage("%w", err)
	}
	defer func() { _ = f.Close() }()
	secret, err = secretLine(f)
	return "hash", secret, err
}
