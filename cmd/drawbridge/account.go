package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func accountPath(address string, more ...string) string {
	return adminclient.Path(append([]string{"v1", "accounts", address}, more...)...)
}

func (c *cli) account() *cobra.Command {
	return group("account", "The accounts of a domain",
		c.accountList(), c.accountShow(), c.accountEffective(), c.accountCreate(), c.accountSet(), c.accountDelete(),
		c.accountBatch(), c.accountImport())
}

// onAccount is a command about one account.
func (c *cli) onAccount(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " ACCOUNT",
		Short:             short,
		Args:              takes("ACCOUNT"),
		ValidArgsFunction: arguments(c.completeAccount),
	}
}

// The words of settings that more than one command has.
var (
	presets         = []string{"imap-smtp", "pop3-smtp", "all", "none"}
	securePasswords = []string{"optional", "required", "off"}
)

func accountSettings(cmd *cobra.Command) *settings {
	s := &settings{cmd: cmd}
	s.onOff("suspended", "suspended", "refuse every login")
	s.protocols("what the domain says")
	s.word("preset", "preset", "set imap, pop3 and smtp at once", presets...)
	s.word("secure-passwords", "secure_passwords", "the account's own choice: may third-party clients use the mailbox password", securePasswords...)
	s.list("department", "departments", "`path` of a department it belongs to")
	s.list("alias", "aliases", "further `address` of the account")
	s.list("send-as", "send_as", "`address` or *@domain that the account may also send from")
	return s
}

func (c *cli) accountList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list DOMAIN",
		Short: "List the accounts of a domain that have settings of their own",
		Long: "List the accounts of a domain that have settings of their own. A dash stands for what follows the domain.\n" +
			"Accounts without a record are governed by the domain's rules all the same.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, domainPath(args[0], "accounts"), nil, *limit,
			col("ADDRESS", "address"),
			col("SUSPENDED", "suspended"),
			col("IMAP", "protocols.imap"),
			col("POP3", "protocols.pop3"),
			col("SMTP", "protocols.smtp"),
			col("SIEVE", "protocols.sieve"),
			col("SECURE PASSWORDS", "secure_passwords"),
			col("COUNT", "secure_password_count"),
			col("DEPARTMENTS", "departments"),
		)
	}
	return cmd
}

func (c *cli) accountShow() *cobra.Command {
	cmd := c.onAccount("show", "Show an account's own settings")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.show(cmd, accountPath(args[0])) }
	return cmd
}

func (c *cli) accountEffective() *cobra.Command {
	cmd := c.onAccount("effective", "Show what holds for an account, and what set it")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := c.get(cmd, accountPath(args[0], "effective"), nil)
		if err != nil {
			return err
		}
		if c.output == outputJSON {
			return c.printAnswer(cmd, a)
		}
		return printEffective(cmd.OutOrStdout(), a.Body)
	}
	return cmd
}

// printEffective puts the value of a setting and what set it on one line, and lists the policies
// that concern the account.
func printEffective(out io.Writer, doc []byte) error {
	t := newTable(out)
	t.row("SETTING", "VALUE", "SET BY")
	var row []string // to be written when all that belongs to it was read
	next := func(cells ...string) {
		if row != nil {
			t.row(row...)
		}
		row = cells
	}
	err := flatten(decoder(doc), "", func(name, text string) {
		setting, part := name, ""
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			setting, part = name[:i], name[i+1:]
		}
		switch {
		case strings.HasPrefix(name, "policies"):
		case part == "value":
			next(setting, text, "")
		case part == "set_by":
			row[2] = text
		case strings.HasSuffix(setting, ".batch"):
			row[2] += map[string]string{"at": " of ", "by": " by ", "scope": ": "}[part] + text
		default:
			next(name, text, "-")
		}
	})
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	next()
	if err := t.Flush(); err != nil {
		return err
	}
	var rest struct {
		Policies []json.RawMessage `json:"policies"`
	}
	if err := json.Unmarshal(doc, &rest); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if len(rest.Policies) == 0 {
		return nil
	}
	return printBelow(out, rest.Policies, col("POLICY", "id"), col("NAME", "name"), col("TYPE", "type"), col("MODE", "mode"),
		col("CLIENTS", "clients"), col("PROTOCOLS", "protocols"), col("NAMED BY", "named_by"), col("DEPARTMENT", "department"))
}

func (c *cli) accountCreate() *cobra.Command {
	cmd := c.onAccount("create", "Give an account settings of its own")
	cmd.Example = "  drawbridge account create ann@example.org --department sales/emea --preset imap-smtp"
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	s := accountSettings(cmd)
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := object{}
		if err := s.into(body, nil); err != nil {
			return err
		}
		return c.create(cmd, w, accountPath(args[0]), body)
	}
	return cmd
}

func (c *cli) accountSet() *cobra.Command {
	cmd := c.onAccount("set", "Change an account's own settings")
	cmd.Long = "Change an account's own settings: those that are named, and no others. An account without any gets them."
	cmd.Example = "  drawbridge account set ann@example.org --pop3 off --imap default --add-department sales/emea"
	s := accountSettings(cmd)
	s.edits("add-department", "remove-department", "departments", "`path` of a department it belongs to")
	s.edits("add-alias", "remove-alias", "aliases", "further `address` of the account")
	s.edits("add-send-as", "remove-send-as", "send_as", "`address` or *@domain that the account may also send from")
	w := writes(cmd).versioned(cmd).creating(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.patch(cmd, w, accountPath(args[0]), s) }
	return cmd
}

func (c *cli) accountDelete() *cobra.Command {
	cmd := c.onAccount("delete", "Delete an account's settings and secrets")
	cmd.Use += " --confirm"
	cmd.Long = "Delete an account's settings, its secure passwords, and the mailbox password kept here. Without --confirm the\n" +
		"command only shows what would be deleted. Afterwards the domain's rules apply to the address. A suspended account\n" +
		"cannot be deleted, because that would lift the suspension: run account set --suspended off first."
	w := writes(cmd).versioned(cmd).confirmed(cmd, "delete the account and everything listed")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, accountPath(args[0]), nil)
	}
	return cmd
}
