package main

import (
	"net/http"

	"github.com/spf13/cobra"
)

func (c *cli) thirdParty() *cobra.Command {
	show := &cobra.Command{
		Use:               "show DOMAIN",
		Short:             "Show whether third-party clients may log in, and from where always",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.show(cmd, domainPath(args[0], "third-party-access"))
		},
	}
	return group("third-party", "Whether third-party clients may log in to a domain", show,
		c.thirdPartySwitch("allow", "Let third-party clients in, from anywhere", "The list of addresses is kept for the next block."),
		c.thirdPartySwitch("block", "Keep third-party clients out, except from the listed addresses", "The site's own webmail goes on."),
		c.thirdPartySwitch("report", "Only record what block would refuse", "Look for what it found: drawbridge logins DOMAIN."))
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
		Long: short + ". " + more + "\nThe addresses stay as they are unless a flag changes them. A policy that was changed beyond this switch\n" +
			"(customised in show) gets its plain form back.",
		Example:           "  drawbridge third-party " + position + " example.org --add-ip 203.0.113.0/24 --remove-ip 192.0.2.1-192.0.2.100",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := &settings{cmd: cmd}
	s.list("secure-login-ip", "secure_login_ips", "`address`, CIDR or a-b range that third-party clients may always come from")
	s.edits("add-ip", "remove-ip", "secure_login_ips", "an `address`, CIDR or a-b range, spelled as in the list")
	w := writes(cmd).versioned(cmd).undone(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path := domainPath(args[0], "third-party-access")
		change := func(current object) (object, error) {
			body := thirdPartyAccess(position) // a list that is left out stays as it is
			return body, s.into(body, current)
		}
		return c.change(cmd, w, http.MethodPut, path, s, change)
	}
	return cmd
}
