package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"text/template"

	"github.com/drawbridge/drawbridge/internal/trialstack"
)

// The command's exit status for what exists already.
const exists = 73

// rules are the demo domain's, as commands of drawbridge. On a stack that ran before they change nothing that is there.
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

// demonstrate makes the demo domain and says what to try.
func demonstrate(ctx context.Context, stack *trialstack.Stack) error {
	daemon := stack.Daemons[0]
	if err := drawbridge(ctx, daemon, "client-type", "show", "web"); err != nil {
		if err := drawbridge(ctx, daemon, "client-type", "set", "web", "--network", trialstack.Webmail); err != nil {
			return err
		}
	}
	for _, args := range rules() {
		if err := drawbridge(ctx, daemon, args...); err != nil {
			return err
		}
	}
	return printGuide(stack)
}

// drawbridge runs the command; that a thing exists already is no error.
func drawbridge(ctx context.Context, daemon *trialstack.Daemon, args ...string) error {
	out, err := daemon.Command(ctx, args...).CombinedOutput()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() == exists {
		return nil
	}
	if err != nil {
		return fmt.Errorf("drawbridge %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// guide is what people can type. Whoever is not root needs sudo for the API's socket, and for nothing else.
const guide = `
The trial stack runs. Its accounts: ann, bob, carol and dave @example.org, each with the mailbox password "NAME-mailbox";
eve@example.net, whose domain is not managed. Third-party clients may come from the office ({{.Office}}) only, and the webmail's
host is {{.Webmail}}. Your client's address is yours to choose: all of 127.0.0.0/8 is this machine.

In another terminal:

  alias db='{{.Sudo}}{{.Dir}}/bin/drawbridge --api unix:{{.API}}'

  # IMAP and POP3: refused from outside, let in from the office; POP3 is off for carol
  curl -sSk imaps://{{.IMAPS}}/ -u ann@example.org:ann-mailbox --interface {{.Outside}}
  curl -sSk imaps://{{.IMAPS}}/ -u ann@example.org:ann-mailbox --interface 127.0.1.7
  curl -sSk pop3s://{{.POP3S}}/ -u carol@example.org:carol-mailbox --interface 127.0.1.7

  # Mail: from ann to bob, with somebody else's address, and from outside
  swaks --server {{.Submission}} --tls --local-interface 127.0.1.7 -a PLAIN -au ann@example.org -ap ann-mailbox -f ann@example.org -t bob@example.org
  swaks --server {{.Submission}} --tls --local-interface 127.0.1.7 -a PLAIN -au ann@example.org -ap ann-mailbox -f dave@example.org -t bob@example.org
  swaks --server {{.SMTP}} --local-interface {{.Outside}} -f zoe@example.com -t bob@example.org

  # The rules
  db third-party allow example.org
  db secure-password create ann@example.org --label "My iPhone"
  db account set ann@example.org --pop3 off
  db logins example.org
  db audit example.org

ManageSieve is at {{.Sieve}}, the API at http://{{.HTTP}}/ too, the logs in {{.Dir}}/log. Ctrl-C ends it all.
`

func printGuide(s *trialstack.Stack) error {
	values := struct {
		*trialstack.Stack
		Sudo, API, HTTP, Office, Webmail, Outside string
	}{
		Stack: s, API: s.Daemons[0].APISocket, HTTP: s.Daemons[0].APIAddr,
		Office: trialstack.Office, Webmail: trialstack.Webmail, Outside: trialstack.Outside,
	}
	if os.Getenv("SUDO_UID") != "" {
		values.Sudo = "sudo "
	}
	t, err := template.New("guide").Parse(guide)
	if err != nil {
		return err
	}
	return t.Execute(os.Stdout, values)
}
