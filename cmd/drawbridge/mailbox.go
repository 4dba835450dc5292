package main

import (
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) mailboxPassword() *cobra.Command {
	cmd := c.onAccount("set", "Set the mailbox password kept here")
	cmd.Long = "Set the mailbox password of an account, at sites that keep mailbox passwords here (login.next_passdb = false). The\n" +
		"password is asked for on a terminal, or read as one line from standard input; it is never on the command line. It\n" +
		"must meet the domain's rules for passwords (drawbridge domain set); a hash and a generated password need not."
	cmd.Example = "  pass show mail/ann | drawbridge mailbox-password set ann@example.org\n" +
		"  drawbridge mailbox-password set ann@example.org --hash-file ann.hash\n" +
		"  drawbridge mailbox-password set ann@example.org --generate --must-change"
	hashFile := cmd.Flags().String("hash-file", "", "`file` with a password hash in Dovecot's notation, such as {BLF-CRYPT}$2y$…; - for standard input")
	generate := cmd.Flags().Bool("generate", false, "generate the password and show it once")
	mustChange := cmd.Flags().Bool("must-change", false, "refuse logins with this password until another one is set")
	cmd.MarkFlagsMutuallyExclusive("generate", "hash-file")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		set := object{}
		if *mustChange {
			set["must_change"] = true
		}
		if *generate {
			set["generate"] = true
			return c.write(cmd, w, http.MethodPut, accountPath(args[0], "mailbox-password"), set)
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
		return c.printChange(cmd, w, a)
	}
	return group("mailbox-password", "Set mailbox passwords kept here", cmd, c.mailboxPasswordExpire())
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
