package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) tryLogin() *cobra.Command {
	cmd := c.onAccount("try-login", "Log in as a client would, and show the decision")
	cmd.Long = "Log in as a client would, and show the decision. It counts and is recorded like any login. The secret is\n" +
		"asked for on a terminal, else read as one line from standard input. The exit status is 0 whatever the outcome."
	cmd.Example = "  drawbridge try-login ann@example.org --protocol imap --ip 198.51.100.7"
	s := &settings{cmd: cmd}
	loginFacts(s)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		login := object{"account": args[0]}
		if err := s.into(login, nil); err != nil {
			return err
		}
		secret, err := readSecret(cmd, "Secret of "+args[0], false)
		if err != nil {
			return err
		}
		defer clear(secret)
		body, err := withSecret(login, "secret", secret)
		if err != nil {
			return err
		}
		defer clear(body)
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		a, err := client.Do(cmd.Context(), adminclient.Request{Method: http.MethodPost, Path: adminclient.Path("v1", "login"), Body: body})
		if err != nil {
			return err
		}
		return c.printAnswer(cmd, a)
	}
	return cmd
}

// loginFacts adds flags for the facts of a login besides account and secret.
func loginFacts(s *settings) {
	s.word("protocol", "protocol", "protocol of the client", "imap", "pop3", "smtp", "sieve", "web")
	s.text("service", "service", "Dovecot service `name`")
	s.text("ip", "ip", "client `address`")
	s.text("real-ip", "real_ip", "`address` of the TCP peer, if it differs from the client")
	s.text("local-ip", "local_ip", "server `address` that the client connected to")
	s.number("local-port", "local_port", "server `port` that the client connected to")
	s.text("server-name", "server_name", "server `name` that the client asked for by TLS")
	s.text("client-cert", "client_cert", "`identity` of a client certificate that the server verified")
	s.text("mechanism", "mechanism", "SASL `mechanism`")
	s.text("master-user", "master_user", "`name` of the master user who logs in as the account")
	s.onOff("tls", "tls", "whether the connection uses TLS")
}
