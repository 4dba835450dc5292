package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) securePasswordPolicy() *cobra.Command {
	return group("secure-password-policy", "Enforce secure passwords for third-party clients",
		c.showIn("Show for which accounts secure passwords are enforced", enforcementPath, c.printEnforcement), c.enforce(), c.pauseEnforcement(true), c.pauseEnforcement(false), c.enforcementProgress(), c.lift())
}

// printEnforcement prints the enforcement in the words of the commands that set it.
func (c *cli) printEnforcement(cmd *cobra.Command, a *adminclient.Answer) error {
	type policy struct {
		Enforced bool           `json:"enforced"`
		Scope    map[string]any `json:"scope"`
		State    string         `json:"state"`
		Grace    string         `json:"grace_until"`
	}
	return printView(c, cmd, a, func(row func(...string), p *policy) {
		enforced := "not enforced"
		if p.Enforced {
			enforced = "enforced"
		}
		switch p.State {
		case "report":
			enforced = "report only"
		case "paused":
			enforced = "paused"
		case "grace":
			enforced = "from " + p.Grace
		}
		row("secure passwords:", enforced)
		row("scope:", whomText(p.Scope))
	})
}

func enforcementPath(domain string) string { return domainPath(domain, "secure-password-policy") }

func (c *cli) enforce() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "enforce DOMAIN",
		Short: "Enforce secure passwords for third-party clients",
		Long: "Refuse the mailbox password in third-party clients of the accounts in the scope. The scope replaces the current\n" +
			"one. New logins with the mailbox password are refused at once, and open submission sessions at their next\n" +
			"command. Open IMAP, POP3 and ManageSieve sessions with a mailbox password are ended if the daemon's setting\n" +
			"sessions.doveadm names the Dovecots; otherwise they stay open until the client reconnects.",
		Example: "  drawbridge secure-password-policy enforce example.org --all --except-member scanner@example.org\n" +
			"  drawbridge secure-password-policy enforce example.org --all --grace 30d",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	whom := scoped(cmd)
	grace := cmd.Flags().String("grace", "", "enforce at this `time`: a time, a day, or a span from now (30d); until then only record which logins would be refused")
	report := cmd.Flags().Bool("report", false, "only record which logins would be refused")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body, err := whom.body()
		if err != nil {
			return err
		}
		set := object{"enforced": true, "scope": body}
		if *report {
			set["mode"] = "report"
		}
		if *grace != "" {
			at, err := future(*grace, time.Now())
			if err != nil {
				return usage("--grace: %w", err)
			}
			set["grace_until"] = at.UTC().Format(time.RFC3339)
		}
		return c.writeWith(cmd, w, http.MethodPut, enforcementPath(args[0]), set, c.printEnforcement)
	}
	return cmd
}

// pauseEnforcement pauses the enforcement of secure passwords, or resumes it.
func (c *cli) pauseEnforcement(pause bool) *cobra.Command {
	cmd := &cobra.Command{
		Use:               "pause DOMAIN",
		Short:             "Pause the enforcement of secure passwords",
		Long:              "Accept mailbox passwords again, and only record which logins would be refused, until drawbridge\nsecure-password-policy resume.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	if !pause {
		cmd.Use, cmd.Short = "resume DOMAIN", "Resume the enforcement of secure passwords"
		cmd.Long = "Enforce secure passwords again, or at the end of the grace period."
	}
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.edit(cmd, w, http.MethodPut, enforcementPath(args[0]), func(current object) (object, error) {
			if current["enforced"] != true {
				return nil, usage("secure passwords are not enforced in %s: see drawbridge secure-password-policy enforce", args[0])
			}
			current["paused"] = pause
			return current, nil
		}, c.printEnforcement)
	}
	return cmd
}

func (c *cli) enforcementProgress() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "progress DOMAIN",
		Short: "Show who still uses the mailbox password in third-party clients",
		Long: "Show the accounts whose logins of the last 30 days used the mailbox password in a third-party client, with the last\n" +
			"of these logins, and how many accounts of the scope have a secure password.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a, err := c.get(cmd, adminclient.Path("v1", "domains", args[0], "secure-password-policy", "progress"), nil)
		if err != nil {
			return err
		}
		if c.output == outputJSON {
			return c.printAnswer(cmd, a)
		}
		var p struct {
			State    string            `json:"state"`
			InScope  int               `json:"in_scope"`
			Ready    int               `json:"ready"`
			Accounts []json.RawMessage `json:"accounts"`
		}
		if err := json.Unmarshal(a.Body, &p); err != nil {
			return fmt.Errorf("reading the progress: %w", err)
		}
		c.note(cmd, "%s; accounts with settings: %d, of them with a secure password: %d; accounts that still use the mailbox password: %d", p.State, p.InScope, p.Ready, len(p.Accounts))
		return c.printItems(cmd, &adminclient.List{Items: p.Accounts}, col("ACCOUNT", "address").shortened(), col("SECURE PASSWORDS", "secure_passwords").onlyWide(), col("LOGINS", "logins"),
			col("LAST", "last_login.time"), col("FROM", "last_login.ip"), col("PROTOCOL", "last_login.protocol"), col("PROGRAM", "last_login.client_id").shortened())
	}
	return cmd
}

func (c *cli) lift() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "lift DOMAIN",
		Short:             "Accept mailbox passwords again",
		Long:              "Accept mailbox passwords in third-party clients again, except for accounts set to --secure-passwords required.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.edit(cmd, w, http.MethodPut, enforcementPath(args[0]), func(current object) (object, error) {
			body := object{"enforced": false}
			if scope, ok := current["scope"]; ok {
				body["scope"] = scope // for the next time
			}
			return body, nil
		}, c.printEnforcement)
	}
	return cmd
}
