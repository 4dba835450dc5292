package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"
)

func (c *cli) explain() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "explain [DOMAIN [RECORD]]",
		Short: "Explain step by step how a login is decided",
		Long: "Explain step by step how the current rules decide a recorded login, and whether the result differs from what\n" +
			"happened; or how they would decide a login described by flags. Nothing is recorded or counted. RECORD is an ID that\n" +
			"drawbridge logins --wide shows. A login described by flags uses the correct mailbox password, unless --credential\n" +
			"names a secure password.",
		Example: "  drawbridge explain example.org 019ab1c2d3e4f5a6b7c8d9e0f1a2\n" +
			"  drawbridge explain --account ann@example.org --protocol imap --ip 198.51.100.7",
		Args:              takes("[DOMAIN]", "[RECORD]"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := hypothetical(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) == 2 && s.given():
			return usage("RECORD already describes the login: leave out the flags")
		case len(args) == 2:
			return c.explainRecord(cmd, domainPath(args[0], "logins", args[1], "explain"))
		case !s.given():
			return usage("the login is missing: give DOMAIN and RECORD, an ID that drawbridge logins DOMAIN --wide shows; or --account, --protocol and --ip")
		}
		login := object{}
		if err := s.into(login, nil); err != nil {
			return err
		}
		account, _ := login["account"].(string)
		_, domain, _ := strings.Cut(account, "@")
		if len(args) == 1 {
			domain = args[0]
		}
		if domain == "" {
			return usage("the domain is missing: give DOMAIN, or --account with its domain")
		}
		return c.decide(cmd, policyPath(domain, "test"), object{"login": login})
	}
	return cmd
}

// hypothetical adds flags that describe a login.
func hypothetical(cmd *cobra.Command) *settings {
	s := &settings{cmd: cmd}
	s.text("account", "account", "`address` of the account")
	s.text("credential", "credential_id", "`id` of a secure password of the account")
	loginFacts(s)
	s.word("lookup", "lookup", "credentials: the mechanism hides the password from the server; user: only a lookup, no login", "none", "credentials", "user")
	return s
}

// decide asks how a login would be decided, and prints the decision.
func (c *cli) decide(cmd *cobra.Command, path string, body object) error {
	client, err := c.client()
	if err != nil {
		return err
	}
	defer client.Close()
	a, err := c.send(cmd, client, &writing{}, http.MethodPost, path, nil, body)
	if err != nil {
		return err
	}
	if c.output == outputJSON {
		return c.printAnswer(cmd, a)
	}
	return c.printDecision(cmd.OutOrStdout(), a.Body)
}

func (c *cli) explainRecord(cmd *cobra.Command, path string) error {
	a, err := c.get(cmd, path, nil)
	if err != nil {
		return err
	}
	if c.output == outputJSON {
		return c.printAnswer(cmd, a)
	}
	var e struct {
		Record   json.RawMessage `json:"record"` // printed with all its fields
		Decision json.RawMessage `json:"decision"`
		api.ExplainedLogin
	}
	if err := json.Unmarshal(a.Body, &e); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	t := newTable(cmd.OutOrStdout())
	if err := t.document("record", e.Record); err != nil {
		return err
	}
	differs := "no"
	if e.Differs {
		differs = e.WhyDiffers
	}
	t.row("differs", differs)
	t.row("")
	if err := t.Flush(); err != nil {
		return err
	}
	return c.printDecision(cmd.OutOrStdout(), e.Decision)
}

// printDecision prints a decision and, in a second table, the steps that led to it.
func (c *cli) printDecision(out io.Writer, doc []byte) error {
	var d struct {
		api.PolicyTested
		Trace []json.RawMessage `json:"trace"` // printed as rows
	}
	if err := json.Unmarshal(doc, &d); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	t := newTable(out)
	for _, r := range []struct {
		name  string
		value any
	}{
		{"verdict", d.Verdict},
		{"outcome", d.Outcome.String()},
		{"reason", string(d.Reason)},
		{"message", d.Message},
		{"account", d.Account},
		{"client", string(d.Client)},
		{"region", d.Region},
		{"policy_id", d.PolicyID},
		{"note", d.Note},
	} {
		t.row(label(r.name), cell(r.name, r.value))
	}
	for _, id := range d.WouldRefuse {
		t.row("would refuse", id)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return c.printBelow(out, d.Trace, col("STEP", "step"), col("RESULT", "result"), col("POLICY", "policy"), col("DETAIL", "detail").wrapped())
}
