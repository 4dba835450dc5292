package main

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) thirdParty() *cobra.Command {
	return group("third-party", "Allow or block third-party clients",
		c.showIn("Show whether third-party clients may log in", thirdPartyPath, c.printThirdParty),
		c.thirdPartySwitch("allow", "Allow third-party clients from anywhere", "The secure login IPs are kept for the next block."),
		c.thirdPartySwitch("block", "Block third-party clients, except from the secure login IPs", "The site's own webmail is not affected."),
		c.thirdPartySwitch("report", "Only record which logins block would refuse", "To see them, run drawbridge logins DOMAIN --wide."))
}

func thirdPartyPath(domain string) string { return domainPath(domain, "third-party-access") }

// printThirdParty prints the switch in the words of the commands that set it.
func (c *cli) printThirdParty(cmd *cobra.Command, a *adminclient.Answer) error {
	return printView(c, cmd, a, func(row func(...string), switched *api.ThirdPartyAccess) {
		clients := "blocked, except from the secure login IPs"
		switch {
		case switched.Allow:
			clients = "allowed"
		case switched.Mode == "report":
			clients = "report only (allowed, but the logins that block would refuse are recorded)"
		}
		row("third-party clients:", clients)
		row("secure login IPs:", cell("", strings.Join(switched.SecureLoginIPs, ", ")))
		if switched.Customised {
			row("customised:", "yes, with policy set: see drawbridge policy show DOMAIN third-party-access")
		}
	})
}

// thirdPartyAccess is the body for a position of the switch.
func thirdPartyAccess(position string) object {
	if position == "allow" {
		return object{"allow": true}
	}
	mode := map[string]string{"block": "enforce", "report": "report"}[position]
	return object{"allow": false, "mode": mode}
}

func (c *cli) thirdPartySwitch(position, short, more string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   position + " DOMAIN",
		Short: short,
		Long: short + ". " + more + "\nThe secure login IPs stay as they are unless a flag changes them. If the policy behind this switch was\n" +
			"changed with policy set (show says customised), it is reset.",
		Example:           "  drawbridge third-party " + position + " example.org --add-ip 203.0.113.0/24 --remove-ip 192.0.2.1-192.0.2.100",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := &settings{cmd: cmd}
	s.list("secure-login-ip", "secure_login_ips", "`address`, CIDR or a-b range from which third-party clients are always allowed")
	s.edits("add-ip", "remove-ip", "secure_login_ips", "an `address`, CIDR or a-b range")
	w := writes(cmd).versioned(cmd).revertible(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		change := func(current object) (object, error) {
			body := thirdPartyAccess(position) // an absent list does not change
			return body, s.into(body, current)
		}
		return c.changeWith(cmd, w, http.MethodPut, thirdPartyPath(args[0]), s, change, c.printThirdParty)
	}
	return cmd
}
