package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) throttle() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "throttle",
		Short: "Show and end blocks after too many wrong passwords",
		Long: "Show the accounts and addresses whose logins with mailbox passwords are refused after too many different wrong\n" +
			"passwords, until when, and the domains at which many addresses guess. Secure passwords are never throttled. A row with\n" +
			"an account and an address counts only the wrong passwords from that address, because the account recently logged in\n" +
			"from there.",
		Example: "  drawbridge throttle\n" +
			"  drawbridge throttle unblock ann@example.org\n" +
			"  drawbridge throttle unblock 203.0.113.9",
		Args: takes(),
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := c.list(cmd, adminclient.Path("v1", "throttle"), nil, 0,
			col("ACCOUNT", "account").shortened(), col("ADDRESS", "address"), col("WRONG", "wrong_secrets"), col("SINCE", "since").onlyWide(), col("UNTIL", "until"),
			col("LAST", "last").onlyWide(), col("FROM", "from").shortened(), col("TRIED", "tried").shortened(), col("REASON", "reason").onlyWide()); err != nil {
			return err
		}
		return c.noteDistributed(cmd)
	}
	cmd.AddCommand(c.throttleUnblock())
	return cmd
}

// noteDistributed names the domains at which many addresses guess.
func (c *cli) noteDistributed(cmd *cobra.Command) error {
	a, err := c.get(cmd, adminclient.Path("v1", "throttle"), nil)
	if err != nil {
		return err
	}
	var list api.Throttle
	if err := json.Unmarshal(a.Body, &list); err != nil {
		return fmt.Errorf("reading the list: %w", err)
	}
	for _, d := range list.Distributed {
		c.note(cmd, "distributed guessing at %s since %s: about %d addresses tried about %d accounts",
			d.Domain, d.Since.Local().Format(time.DateTime), d.Addresses, d.Accounts)
	}
	return nil
}

func (c *cli) throttleUnblock() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "unblock ACCOUNT|ADDRESS",
		Short: "Forget the wrong passwords of an account or an address",
		Long: "Forget the wrong passwords that were counted for an account or an address, on all nodes. An IPv6 address stands for\n" +
			"its network of 64 bits. Further wrong passwords are counted anew.",
		Example: "  drawbridge throttle unblock ann@example.org",
		Args:    takes("ACCOUNT|ADDRESS"),
	}
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, adminclient.Path("v1", "throttle", args[0]), nil)
	}
	return cmd
}
