// Package demo is what people see of a trial stack: a demo domain with departments, accounts and an
// office, and the guide that "make run" prints, whose every command works as it stands.
//
//	fresh, err := demo.SetUp(ctx, stack) // after stack.Start
//	err = demo.Guide(os.Stdout, stack, fresh)
//
// A stack that ran before keeps the rules that people left it with: SetUp adds what is missing and
// changes nothing that is there, and the guide then says that its comments are a new stack's.
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

// The command's exit status for what exists already.
const conflict = 73

// rules are the demo domain's, as commands of drawbridge; the domain itself comes first.
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

// SetUp makes the demo domain on a running stack. Fresh says that there was none.
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

// add runs the command; it is no error that a thing is there already.
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

// guide is what people can type. Whoever is not root needs sudo for the API's socket, and for
// nothing else.
const guide = `
The trial stack runs. Its accounts: ann, bob, carol and dave @example.org, each with the mailbox password "NAME-mailbox";
eve@example.net, whose domain is not managed. Third-party clients may come from the office ({{.Office}}) only, and the webmail's
host is {{.Webmail}}. Your client's address is yours to choose: all of 127.0.0.0/8 is this machine.
{{- if not .Fresh}}

The rules are as the last run left them; what is said here of refusals is a new stack's. To begin anew, end this and remove
{{.Dir}}.
{{- end}}

In another terminal:

  alias db='{{.Sudo}}{{.Dir}}/bin/drawbridge --api unix:{{.API}}'

  # IMAP and POP3: refused from outside, let in from the office; POP3 is off for carol
  curl -sSk imaps://{{.IMAPS}}/ -u ann@example.org:ann-mailbox --interface {{.Outside}}
  curl -sSk imaps://{{.IMAPS}}/ -u ann@example.org:ann-mailbox --interface 127.0.1.7
  curl -sSk pop3s://{{.POP3S}}/ -u carol@example.org:carol-mailbox --interface 127.0.1.7

  # Mail: from ann to bob; with somebody else's address, refused; and from another site
  swaks --server {{.Submission}} --tls --local-interface 127.0.1.7 -a PLAIN -au ann@example.org -ap ann-mailbox -f ann@example.org -t bob@example.org
  swaks --server {{.Submission}} --tls --local-interface 127.0.1.7 -a PLAIN -au ann@example.org -ap ann-mailbox -f dave@example.org -t bob@example.org
  swaks --server {{.SMTP}} --local-interface {{.Outside}} -f zoe@example.com -t bob@example.org

  # Rules, each at once: let in from everywhere; a device with its own secret; no POP3 for ann
  db third-party allow example.org
  db secure-password create ann@example.org --label "My iPhone"
  db account set ann@example.org --pop3 off

  # Nobody from abroad: a policy that only reports at first; whom it would have refused so far; one login, step by step; and
  # in force for ten minutes, unless you confirm it. Addresses such as 127.0.0.0/8 have no country, and are named
  db region lookup 193.0.6.139
  db policy create example.org --id abroad --name "Not from abroad" --type whitelist --region DE --all --except-member postmaster@example.org --mode report
  db policy preview example.org abroad
  db policy test example.org abroad --account ann@example.org --protocol imap --ip 193.0.6.139
  db policy set example.org abroad --add-ip 127.0.0.0/8 --mode enforce --revert-after 10m

  # Who logged in, or did not, and why; who changed what; are Dovecot and Postfix set up well
  db logins example.org
  db audit example.org
  db doctor --config {{.Config}} --dovecot-config {{.DovecotConf}} --postfix-config {{.PostfixDir}}

ManageSieve is at {{.Sieve}}, the API at http://{{.HTTP}}/ too (with a key: db key create), the logs are in {{.Dir}}/log.
Ctrl-C ends it all; rules and mail are kept for the next time.
`

// Guide writes what to try on the stack. Fresh is what SetUp said.
func Guide(w io.Writer, stack *trialstack.Stack, fresh bool) error {
	daemon := stack.Daemons[0]
	values := struct {
		*trialstack.Stack
		Fresh                                             bool
		Sudo, API, HTTP, Config, Office, Webmail, Outside string
	}{
		Stack: stack, Fresh: fresh, API: daemon.APISocket, HTTP: daemon.APIAddr, Config: daemon.Config,
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
