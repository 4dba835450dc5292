package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) sessions() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sessions DOMAIN",
		Short: "List and end open IMAP, POP3 and ManageSieve sessions",
		Long: "List the open sessions of a domain. The daemon's setting sessions.doveadm names the Dovecot servers that report them.\n" +
			"Dovecot 2.3 cannot distinguish the sessions of one account from one address: DEVICE then lists every possible device.\n" +
			"Submission sessions of Postfix are not listed.",
		Example: "  drawbridge sessions example.org --account ann@example.org\n" +
			"  drawbridge sessions end example.org --account ann@example.org",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	account := cmd.Flags().String("account", "", "only sessions of this `address`")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		list, err := c.openSessions(cmd, args[0], *account)
		if err != nil {
			return err
		}
		return c.printItems(cmd, list,
			col("ID", "id"), col("ACCOUNT", "account").shortened(), col("PROTOCOL", "protocol"), col("ADDRESS", "ip"), col("CLIENT", "client").onlyWide(),
			col("DEVICE", "label").shortened(), col("SINCE", "since"), col("DOVECOT", "node").onlyWide())
	}
	cmd.AddCommand(c.sessionsEnd())
	return cmd
}

// openSessions reads the open sessions of a domain, or of one account unless that is "".
func (c *cli) openSessions(cmd *cobra.Command, domain, account string) (*adminclient.List, error) {
	path := domainPath(domain, "sessions")
	if account != "" {
		path = adminclient.Path("v1", "accounts", account, "sessions")
	}
	a, err := c.get(cmd, path, nil)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items       []json.RawMessage `json:"items"`
		Unreachable int               `json:"unreachable"`
	}
	if err := json.Unmarshal(a.Body, &list); err != nil {
		return nil, fmt.Errorf("reading the sessions: %w", err)
	}
	if list.Unreachable > 0 {
		c.note(cmd, "%d of the Dovecots did not answer: their sessions are missing", list.Unreachable)
	}
	return &adminclient.List{Items: list.Items}, nil
}

func (c *cli) sessionsEnd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "end DOMAIN [ID...]",
		Short: "End open sessions",
		Long: "End the sessions with these IDs, which drawbridge sessions lists, or with --account all sessions of an account. The\n" +
			"client may log in again: to keep it out, revoke its secure password or change the rules.",
		Example:           "  drawbridge sessions end example.org --account ann@example.org",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	account := cmd.Flags().String("account", "", "all sessions of this `address`")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ids := args[1:]
		switch {
		case *account == "" && len(ids) == 0:
			return usage("give IDs that drawbridge sessions %s lists, or --account", args[0])
		case *account != "" && len(ids) > 0:
			return usage("give IDs or --account, not both")
		case *account != "":
			list, err := c.openSessions(cmd, args[0], *account)
			if err != nil {
				return err
			}
			for _, raw := range list.Items {
				var s struct{ ID string }
				if err := json.Unmarshal(raw, &s); err != nil {
					return fmt.Errorf("reading a session: %w", err)
				}
				ids = append(ids, s.ID)
			}
			if len(ids) == 0 {
				c.note(cmd, "the account has no open sessions")
			}
		}
		for _, id := range ids {
			err := c.write(cmd, w, http.MethodDelete, adminclient.Path("v1", "sessions", id), nil)
			var p *adminclient.Problem
			if *account != "" && errors.As(err, &p) && p.Status == http.StatusNotFound {
				continue // ended with another, or by itself
			}
			if err != nil {
				return err
			}
		}
		return nil
	}
	return cmd
}

// noteEnded reports the open sessions that a change ended.
func (c *cli) noteEnded(cmd *cobra.Command, a *adminclient.Answer) {
	var ended, failed, unreachable int
	if n, _ := fmt.Sscanf(a.Sessions, "ended=%d, failed=%d, unreachable=%d", &ended, &failed, &unreachable); n != 3 {
		return
	}
	if ended > 0 {
		c.note(cmd, "open sessions ended: %d", ended)
	}
	if failed > 0 || unreachable > 0 {
		c.note(cmd, "open sessions not ended yet: %d known, on Dovecots that did not answer: %d; the daemon keeps trying", failed, unreachable)
	}
}

// noteCutOff reports whom a dry run says that a change would keep out.
func (c *cli) noteCutOff(cmd *cobra.Command, a *adminclient.Answer) {
	var answer struct {
		CutOff *api.CutOff `json:"cut_off"`
	}
	if err := json.Unmarshal(a.Body, &answer); err != nil || answer.CutOff == nil {
		return
	}
	cut := answer.CutOff
	without := 0
	for i := range cut.Accounts {
		if cut.Accounts[i].SecurePasswords == 0 {
			without++
		}
	}
	c.note(cmd, "by the %d logins since %s it would keep out %d accounts, %d of them without a secure password, and end %d open sessions",
		cut.Examined, cut.Since.Format(time.DateOnly), len(cut.Accounts), without, cut.Sessions)
	for i := range cut.Accounts {
		x := &cut.Accounts[i]
		c.note(cmd, "  %s: %d logins, last %s from %s by %s (%s); secure passwords: %d",
			x.Address, x.Logins, x.LastLogin.Time.Format(time.RFC3339), x.LastLogin.IP, x.LastLogin.Protocol, x.LastLogin.Client, x.SecurePasswords)
	}
	if cut.Others > 0 {
		c.note(cmd, "  and %d logins of further accounts", cut.Others)
	}
}
