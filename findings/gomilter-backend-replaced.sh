#!/bin/sh
# github.com/emersion/go-milter v0.5.0 replaces the handler of a connection after a rejected recipient.
#
# A milter's handler keeps what it learned of an SMTP session: the client at CONNECT, the sender at
# MAIL. Rejecting one of several recipients is ordinary, and the MTA goes on with the next. The server
# of this library then calls NewMilter again, and the new handler handles the rest of the message
# without having seen CONNECT and MAIL. A handler that decides by them decides without them.
#
# Seen: two handlers for one message; the second has neither client nor sender at the second
# recipient. What helps: a response of your own whose Continue method returns true.
# Needs Go and the module; writes to a temporary directory only. Exit status 0: as described.
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
go mod init finding >/dev/null 2>&1
go get github.com/emersion/go-milter@v0.5.0 >/dev/null 2>&1
cat >main.go <<'EOF'
package main

import (
	"fmt"
	"net"
	"os"

	milter "github.com/emersion/go-milter"
)

var handlers int

type handler struct {
	milter.NoOpMilter
	number         int
	client, sender string
}

func (h *handler) Connect(host, family string, port uint16, addr net.IP, m *milter.Modifier) (milter.Response, error) {
	h.client = addr.String()
	return milter.RespContinue, nil
}

func (h *handler) MailFrom(from string, m *milter.Modifier) (milter.Response, error) {
	h.sender = from
	return milter.RespContinue, nil
}

func (h *handler) RcptTo(to string, m *milter.Modifier) (milter.Response, error) {
	fmt.Printf("recipient %s: handler %d, client %q, sender %q\n", to, h.number, h.client, h.sender)
	if to == "left@example.org" {
		return milter.RespReject, nil
	}
	return milter.RespContinue, nil
}

func main() {
	l, err := net.Listen("unix", "socket")
	check(err)
	server := milter.Server{NewMilter: func() milter.Milter {
		handlers++
		return &handler{number: handlers}
	}}
	go func() { _ = server.Serve(l) }()
	s, err := milter.NewClientWithOptions("unix", "socket", milter.ClientOptions{}).Session()
	check(err)
	say(s.Conn("client.example.com", milter.FamilyInet, 50412, "203.0.113.9"))
	say(s.Helo("client.example.com"))
	say(s.Mail("ann@example.org", nil))
	say(s.Rcpt("left@example.org", nil))
	say(s.Rcpt("bob@example.org", nil))
	check(s.Close())
}

func say(_ *milter.Action, err error) { check(err) }

func check(err error) {
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
}
EOF
go mod tidy >/dev/null 2>&1
go run . | tee seen
cat >want <<'EOF'
recipient left@example.org: handler 1, client "203.0.113.9", sender "ann@example.org"
recipient bob@example.org: handler 2, client "", sender ""
EOF
diff want seen
