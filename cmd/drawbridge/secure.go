package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) accountSecure() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "secure ADDRESS",
		Short: "Secure an account that somebody else has used",
		Long: "Block the intruder's address, revoke all secure passwords, set a new mailbox password, switch all protocols off or end\n" +
			"open sessions, as the flags say. --all revokes, switches off and ends sessions. The command prints the remaining\n" +
			"tasks: passwords, second factors, switches, keys, sessions and forwards to outside.",
		Example: "  drawbridge account secure ann@example.org --all --block-ip 203.0.113.9\n" +
			"  drawbridge account secure ann@example.org --revoke --end-sessions",
		Args:              takes("ADDRESS"),
		ValidArgsFunction: arguments(c.completeAccount),
	}
	var in api.Secure
	all := false
	f := cmd.Flags()
	f.StringVar(&in.BlockIP, "block-ip", "", "block this `address` or range for the domain")
	f.BoolVar(&in.RevokeSecurePasswords, "revoke", false, "revoke all secure passwords")
	f.BoolVar(&in.ResetMailboxPassword, "reset-password", false, "set a generated mailbox password and print it")
	f.BoolVar(&in.SwitchOff, "switch-off", false, "switch IMAP, POP3, SMTP and ManageSieve off")
	f.BoolVar(&in.EndSessions, "end-sessions", false, "end all open sessions")
	f.BoolVar(&all, "all", false, "--revoke, --switch-off and --end-sessions")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all {
			in.RevokeSecurePasswords, in.SwitchOff, in.EndSessions = true, true, true
		}
		if in == (api.Secure{}) {
			return usage("name what to do: --all, --block-ip, --revoke, --reset-password, --switch-off or --end-sessions")
		}
		return c.writeWith(cmd, w, http.MethodPost, adminclient.Path("v1", "accounts", args[0], "secure"), in, c.printSecured)
	}
	return cmd
}

// printSecured prints what was done, and what remains.
func (c *cli) printSecured(cmd *cobra.Command, a *adminclient.Answer) error {
	if c.output == outputJSON {
		return c.printAnswer(cmd, a)
	}
	var left struct {
		Remains []api.Remaining `json:"remains"`
	}
	var done map[string]json.RawMessage
	if err := errors.Join(json.Unmarshal(a.Body, &left), json.Unmarshal(a.Body, &done)); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	delete(done, "remains")
	text, err := json.Marshal(done)
	if err != nil {
		return err
	}
	shown := *a
	shown.Body = text
	if err := c.printAnswer(cmd, &shown); err != nil {
		return err
	}
	t := newTable(cmd.OutOrStdout())
	for i := range left.Remains {
		if i == 0 {
			t.row("what remains:")
		}
		t.row("  "+left.Remains[i].Kind, left.Remains[i].Detail)
	}
	return t.Flush()
}
