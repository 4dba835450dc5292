package main

import (
	"encoding/json"
	"errors"
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
	return group("account", "Manage accounts",
		c.accountList(), c.accountShow(), c.accountEffective(), c.accountCreate(), c.accountSet(), c.accountDelete(),
		c.accountBatch(), c.accountImport(), c.accountSecure(), c.accountForwards())
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
	s.text("display-name", "display_name", "the person's `name`; warnings recognise it in mail from other addresses")
	s.onOff("suspended", "suspended", "refuse every login of the account")
	s.protocols("as set for the domain")
	s.word("preset", "preset", "set IMAP, POP3 and SMTP at once", presets...)
	s.word("secure-passwords", "secure_passwords", "required: third-party clients need a secure password; off: secure passwords are refused", securePasswords...)
	s.list("department", "departments", "`path` of a department that the account is in")
	s.list("alias", "aliases", "further `address` of the account")
	s.list("send-as", "send_as", "`address` or *@domain that the account may also send from")
	return s
}

func (c *cli) accountList() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "list DOMAIN",
		Short: "List the accounts of a domain",
		Long: "List the accounts of a domain that have settings, with the values in effect: the account's own, the domain's, or\n" +
			"what a policy enforces. account effective shows where each value comes from. Accounts without settings follow the\n" +
			"domain and are not listed.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, domainPath(args[0], "accounts"), nil, *limit,
			col("ADDRESS", "address").shortened(),
			col("SUSPENDED", "suspended"),
			col("IMAP", "effective.imap"),
			col("POP3", "effective.pop3"),
			col("SMTP", "effective.smtp"),
			col("SIEVE", "effective.sieve"),
			col("SECURE PASSWORDS", "effective.secure_passwords"),
			column{heading: "THIRD-PARTY", field: "effective.third_party_access", text: clientsWord}.onlyWide(),
			col("COUNT", "secure_password_count").onlyWide(),
			col("DEPARTMENTS", "departments").onlyWide(),
		)
	}
	return cmd
}

func (c *cli) accountShow() *cobra.Command {
	cmd := c.onAccount("show", "Show an account's settings and the values in effect")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.showAccount(cmd, accountPath(args[0])) }
	return cmd
}

func (c *cli) accountEffective() *cobra.Command {
	cmd := c.onAccount("effective", "Show the settings in effect for an account, and their origin")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := c.get(cmd, accountPath(args[0], "effective"), nil)
		if err != nil {
			return err
		}
		if c.output == outputJSON {
			return c.printAnswer(cmd, a)
		}
		return c.printEffective(cmd.OutOrStdout(), a.Body)
	}
	return cmd
}

// showAccount prints an account. Settings that follow the domain show the value in effect.
func (c *cli) showAccount(cmd *cobra.Command, path string) error {
	a, err := c.get(cmd, path, nil)
	if err != nil || c.output == outputJSON {
		return errors.Join(err, c.printIfAny(cmd, a))
	}
	var doc struct {
		Protocols       map[string]bool `json:"protocols"`
		SecurePasswords string          `json:"secure_passwords"`
		Effective       map[string]any  `json:"effective"`
	}
	if err := json.Unmarshal(a.Body, &doc); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	t := newTable(cmd.OutOrStdout())
	err = flatten(decoder(a.Body), "", func(name, text string) {
		inEffect := strings.HasPrefix(name, "effective.") || strings.HasPrefix(name, "protocols") || name == "secure_passwords"
		if !inEffect || doc.Effective == nil {
			t.row(label(name), text)
		}
	})
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if doc.Effective != nil {
		for _, name := range protocols {
			from := "from the domain"
			if _, own := doc.Protocols[name]; own {
				from = "set for the account"
			}
			t.row(name, cell("", doc.Effective[name])+" ("+from+")")
		}
		secure := cell("", doc.Effective["secure_passwords"])
		if secure != doc.SecurePasswords {
			secure += " (enforced by the domain; the account's setting is " + doc.SecurePasswords + ")"
		}
		t.row("secure passwords", secure)
		t.row("third-party clients", clientsWord(doc.Effective["third_party_access"]))
	}
	if a.ETag != "" {
		t.row("version", strings.Trim(a.ETag, `"`))
	}
	return t.Flush()
}

// clientsWord says in the words of drawbridge third-party whether third-party clients may log in.
func clientsWord(value any) string {
	switch value {
	case "allow":
		return "allowed"
	case "block":
		return "blocked"
	case "report":
		return "report only"
	default:
		return cell("", value)
	}
}

// printEffective prints the value of each setting with what set it, and the policies that apply to
// the account.
func (c *cli) printEffective(out io.Writer, doc []byte) error {
	t := newTable(out)
	columns := []column{col("SETTING", ""), col("VALUE", "").shortened(), col("SET BY", "").wrapped()}
	rows := [][]string{headings(columns)}
	next := func(cells ...string) { rows = append(rows, cells) }
	err := flatten(decoder(doc), "", func(name, text string) {
		setting, part := name, ""
		if i := strings.LastIndexByte(name, '.'); i >= 0 {
			setting, part = name[:i], name[i+1:]
		}
		switch {
		case strings.HasPrefix(name, "policies"):
		case part == "value":
			if setting == "third_party_access" {
				text = clientsWord(text)
			}
			next(label(setting), text, "")
		case part == "set_by":
			rows[len(rows)-1][2] = text
		case strings.HasSuffix(setting, ".batch"):
			rows[len(rows)-1][2] += map[string]string{"at": " of ", "by": " by ", "scope": ": "}[part] + text
		default:
			next(label(name), text, "-")
		}
	})
	if err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	if err := c.printTable(t, rows, columns); err != nil {
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
	return c.printBelow(out, rest.Policies, col("POLICY", "id"), col("NAME", "name").shortened(), col("TYPE", "type"), col("MODE", "mode"),
		col("APPLIES BY", "named_by"), col("CLIENTS", "clients").onlyWide(), col("PROTOCOLS", "protocols").onlyWide(), col("DEPARTMENT", "department").onlyWide())
}

func (c *cli) accountCreate() *cobra.Command {
	cmd := c.onAccount("create", "Create an account")
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
	cmd := c.onAccount("set", "Change an account's settings")
	cmd.Long = "Change the settings of an account that are given; the others stay as they are. An account without settings is\n" +
		"created, with a warning if there is no recent login to it; --create suppresses the warning. Where the domain's\n" +
		"accounts are listed, or mailbox passwords are kept here, --create is required."
	cmd.Example = "  drawbridge account set ann@example.org --pop3 off --imap default --add-department sales/emea"
	s := accountSettings(cmd)
	s.edits("add-department", "remove-department", "departments", "a department, by its `path`")
	s.edits("add-alias", "remove-alias", "aliases", "a further `address` of the account")
	s.edits("add-send-as", "remove-send-as", "send_as", "an `address` or *@domain that the account may also send from")
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
