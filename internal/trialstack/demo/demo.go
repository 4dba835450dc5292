// Package demo creates the demo domain of "make run", with departments, accounts and an office, and
// prints its guide. Each command of the guide can be typed as it is; a test does so.
//
//	fresh, err := demo.SetUp(ctx, stack) // after stack.Start
//	err = demo.Guide(os.Stdout, stack, fresh)
//
// A stack that ran before keeps its rules: SetUp adds missing ones and changes none, and the guide
// says that its comments describe a new stack.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"text/template"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// The command's exit status if the object exists already.
const conflict = 73

// rules returns the commands that create the demo domain; the first creates the domain itself.
func rules() [][]string {
	return [][]string{
		{"domain", "create", "example.org", "--secure-login-ip", trialstack.Office},
		{"department", "create", "example.org", "sales/emea", "--name", "Sales EMEA"},
		{"department", "create", "example.org", "engineering", "--name", "Engineering"},
		{"account", "create", "ann@example.org", "--department", "sales/emea"},
		{"account", "create", "bob@example.org", "--department", "sales"},
		{"account", "create", "carol@example.org", "--department", "engineering", "--preset", "imap-smtp"},
		{"account", "create", "dave@example.org", "--department", "engineering"},
	}
}

// SetUp creates the demo domain on a running stack. Fresh reports that there was none.
func SetUp(ctx context.Context, stack *trialstack.Stack) (fresh bool, err error) {
	daemon := stack.Daemons[0]
	if _, err := add(ctx, daemon, "client-type", "show", "web"); err != nil {
		if _, err := add(ctx, daemon, "client-type", "set", "web", "--network", trialstack.Webmail); err != nil {
			return false, err
		}
	}
	for i, args := range rules() {
		added, err := add(ctx, daemon, args...)
		if err != nil {
			return false, err
		}
		if i == 0 {
			fresh = added
		}
	}
	return fresh, nil
}

// add runs a command that creates something; it is no error if that exists.
func add(ctx context.Context, daemon *trialstack.Daemon, args ...string) (added bool, err error) {
	out, err := daemon.Command(ctx, args...).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == conflict {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("drawbridge %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return true, nil
}

// guide lists commands to type. Only the API's socket needs root or sudo.
const guide = `
The trial stack is running. Its accounts are ann, bob, carol and dave @example.org, each with the mailbox password
"NAME-mailbox", and eve@example.net, whose domain is not managed. Third-party clients are allowed from the office
({{.Office}}) only. The webmail's address is {{.Webmail}}. Choose your client's address: all of 127.0.0.0/8 is this machine.
{{- if not .Fresh}}

The rules are those of the last run; the comments below describe a new stack. To start over, stop this one and remove
{{.Dir}}.
{{- end}}

In another terminal:

  alias db='{{.Sudo}}{{.Dir}}/bin/drawbridge --api unix:{{.API}}'

  # IMAP and POP3: refused from outside, accepted from the office; POP3 is off for carol
  curl -sSk imaps://{{.IMAPS}}/ -u ann@example.org:ann-mailbox --interface {{.Outside}}
  curl -sSk imaps://{{.IMAPS}}/ -u ann@example.org:ann-mailbox --interface 127.0.1.7
  curl -sSk pop3s://{{.POP3S}}/ -u carol@example.org:carol-mailbox --interface 127.0.1.7

  # Mail: from ann to bob; with another user's address (refused); from another site
  swaks --server {{.Submission}} --tls --local-interface 127.0.1.7 -a PLAIN -au ann@example.org -ap ann-mailbox -f ann@example.org -t bob@example.org
  swaks --server {{.Submission}} --tls --local-interface 127.0.1.7 -a PLAIN -au ann@example.org -ap ann-mailbox -f dave@example.org -t bob@example.org
  swaks --server {{.SMTP}} --local-interface {{.Outside}} -f zoe@example.com -t bob@example.org

  # Rules take effect at once: allow all addresses; a secure password for one device; no POP3 for ann
  db third-party allow example.org
  db secure-password create ann@example.org --label "My iPhone"
  db account set ann@example.org --pop3 off

  # A policy against logins from abroad: report only; preview it on recorded logins; test one login; enforce it for ten
  # minutes unless you confirm it. Addresses such as 127.0.0.0/8 have no country and are listed by network
  db region lookup 193.0.6.139
  db policy create example.org --id abroad --name "Not from abroad" --type whitelist --region DE --all --except-member postmaster@example.org --mode report
  db policy preview example.org abroad
  db policy test example.org abroad --account ann@example.org --protocol imap --ip 193.0.6.139
  db policy set example.org abroad --add-ip 127.0.0.0/8 --mode enforce --revert-after 10m

  # Login records with reasons; changes with their authors; checks of Dovecot's and Postfix' configuration
  db logins example.org
  db audit example.org
  db doctor --config {{.Config}} --dovecot-config {{.DovecotConf}} --postfix-config {{.PostfixDir}}

Pages: {{.Console}}/account for users, such as ann@example.org with the password ann-mailbox;
{{.Console}}/ for administrators, with a key: db key create console --role admin

ManageSieve listens on {{.Sieve}}, the API also on http://{{.HTTP}}/ (with a key: db key create). Logs are in {{.Dir}}/log.
Ctrl-C stops everything; rules and mail are kept for the next run.
`

// Guide writes the guide. Fresh is SetUp's result.
func Guide(w io.Writer, stack *trialstack.Stack, fresh bool) error {
	daemon := stack.Daemons[0]
	values := struct {
		*trialstack.Stack
		Fresh                                                      bool
		Sudo, API, HTTP, Config, Office, Webmail, Outside, Console string
	}{
		Stack: stack, Fresh: fresh, API: daemon.APISocket, HTTP: daemon.APIAddr, Config: daemon.Config, Console: daemon.PagesURL(),
		Office: trialstack.Office, Webmail: trialstack.Webmail, Outside: trialstack.Outside,
	}
	if os.Getenv("SUDO_UID") != "" {
		values.Sudo = "sudo "
	}
	t, err := template.New("guide").Parse(guide)
	if err != nil {
		return err
	}
	return t.Execute(w, values)
}
