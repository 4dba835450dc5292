package main

import (
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) factor() *cobra.Command {
	return group("factor", "Manage the second factors of an account",
		c.factorList(), c.factorAdd(), c.factorConfirm(), c.factorSend(), c.factorDelete(), c.factorReset())
}

func factorPath(account string, more ...string) string {
	return accountPath(account, append([]string{"second-factors"}, more...)...)
}

func (c *cli) factorList() *cobra.Command {
	cmd := c.onAccount("list", "List the second factors of an account, without their secrets")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := c.get(cmd, factorPath(args[0]), nil) // a list without pages
		if err != nil {
			return err
		}
		list := new(adminclient.List)
		if err := json.Unmarshal(a.Body, list); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		return c.printItems(cmd, list,
			col("ID", "id"), col("KIND", "kind"), col("LABEL", "label").shortened(), col("TO", "to"), col("PENDING", "pending"), col("LEFT", "left"), col("CREATED", "created_at").onlyWide())
	}
	return cmd
}

// factorPaths are the kinds of second factors that the command adds, and their paths.
var factorPaths = map[string]string{"totp": "totp", "mail": "mail", "sms": "sms", "recovery": "recovery-codes"}

func (c *cli) factorAdd() *cobra.Command {
	cmd := c.onAccount("add", "Add a second factor")
	cmd.Long = "Add a second factor: an authenticator app (totp), an address outside of the mailbox (mail) or a telephone (sms) that\n" +
		"one-time codes are sent to, or ten recovery codes. Secret and codes are shown once. An app is active after drawbridge\n" +
		"factor confirm. Passkeys are added on the user's page."
	cmd.Example = "  drawbridge factor add ann@example.org --kind totp --label \"My iPhone\"\n" +
		"  drawbridge factor add ann@example.org --kind mail --address ann@elsewhere.example"
	kind := choose(cmd, "kind", "kind of second factor", "totp", "mail", "sms", "recovery")
	s := &settings{cmd: cmd}
	s.text("label", "label", "`name` of the device")
	s.text("address", "address", "`address` that codes are sent to, with --kind mail")
	s.text("number", "number", "telephone `number` that codes are sent to, such as +491701234567, with --kind sms")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *kind == "" {
			return usage("--kind is missing: totp, mail, sms or recovery")
		}
		body := object{}
		if err := s.into(body, nil); err != nil {
			return err
		}
		if *kind == "recovery" {
			if len(body) > 0 {
				return usage("--kind recovery takes no further settings")
			}
			return c.write(cmd, w, http.MethodPost, factorPath(args[0], factorPaths[*kind]), nil)
		}
		return c.write(cmd, w, http.MethodPost, factorPath(args[0], factorPaths[*kind]), body)
	}
	return cmd
}

// onFactor is a command for one second factor.
func (c *cli) onFactor(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " ACCOUNT ID",
		Short:             short,
		Args:              takes("ACCOUNT", "ID"),
		ValidArgsFunction: arguments(c.completeAccount, c.completeIn("accounts", "second-factors", "id")),
	}
}

func (c *cli) factorConfirm() *cobra.Command {
	cmd := c.onFactor("confirm", "Confirm a new second factor with one of its codes")
	cmd.Use, cmd.Args = "confirm ACCOUNT ID CODE", takes("ACCOUNT", "ID", "CODE")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, factorPath(args[0], args[1], "confirm"), object{"code": args[2]})
	}
	return cmd
}

func (c *cli) factorSend() *cobra.Command {
	cmd := c.onFactor("send", "Send a one-time code to a second factor's address or telephone")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, factorPath(args[0], args[1], "send"), nil)
	}
	return cmd
}

func (c *cli) factorDelete() *cobra.Command {
	cmd := c.onFactor("delete", "Delete a second factor")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, factorPath(args[0], args[1]), nil)
	}
	return cmd
}

func (c *cli) factorReset() *cobra.Command {
	cmd := c.onAccount("reset", "Delete all second factors of an account")
	cmd.Long = "Delete all second factors of an account, for a user who has lost them."
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, factorPath(args[0]), nil)
	}
	return cmd
}
