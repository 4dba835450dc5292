package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/api"

	"github.com/spf13/cobra"
)

func ipBlockPath(domain string, more ...string) string {
	return domainPath(domain, append([]string{"ip-blocks"}, more...)...)
}

func (c *cli) ipBlock() *cobra.Command {
	return group("ip-block", "Block IP addresses", c.ipBlockList(), c.ipBlockAdd(), c.ipBlockDelete())
}

func (c *cli) ipBlockList() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the blocked IP addresses of a domain",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, ipBlockPath(args[0]), nil, *limit,
			col("ID", "id"), col("NETWORK", "network"), col("EXPIRES", "expires_at"), col("NOTE", "note").shortened(), col("CREATED", "created_at").onlyWide())
	}
	return cmd
}

func (c *cli) ipBlockAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add DOMAIN NETWORK",
		Short: "Block an IP address or range",
		Long: "Block logins from an IP address, a CIDR or an a-b range, for all accounts and clients of the domain, including\n" +
			"webmail users. Open submission sessions from there end at their next command.",
		Example:           "  drawbridge ip-block add example.org 198.51.100.0/24 --note \"guesses since Monday\" --expires 7d",
		Args:              takes("DOMAIN", "NETWORK"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := &settings{cmd: cmd}
	s.text("note", "note", "`text` that the list shows")
	expires := cmd.Flags().String("expires", "", "`time` at which the block ends: a time, a day, or an age from now (24h, 7d)")
	s.add("expires", func(body, _ object) error {
		when, err := future(*expires, time.Now())
		if err != nil {
			return usage("--expires: %w", err)
		}
		body["expires_at"] = when.UTC().Format(time.RFC3339)
		return nil
	})
	w := writes(cmd).guarded(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := object{"network": args[1]}
		if err := s.into(body, nil); err != nil {
			return err
		}
		return c.write(cmd, w, http.MethodPost, ipBlockPath(args[0]), body)
	}
	return cmd
}

func (c *cli) ipBlockDelete() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "delete DOMAIN ID",
		Short:             "Unblock an IP address or range",
		Long:              "Unblock an IP address or range. ID is an ID or a network from drawbridge ip-block list.",
		Example:           "  drawbridge ip-block delete example.org 198.51.100.0/24",
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "ip-blocks", "id")),
	}
	w := writes(cmd).versioned(cmd).revertible(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := c.ipBlockID(cmd, args[0], args[1])
		if err != nil {
			return err
		}
		return c.write(cmd, w, http.MethodDelete, ipBlockPath(args[0], id), nil)
	}
	return cmd
}

// ipBlockID returns the id of a block, given that id or the network.
func (c *cli) ipBlockID(cmd *cobra.Command, domain, name string) (string, error) {
	if !strings.ContainsAny(name, ".:") {
		return name, nil
	}
	client, err := c.client()
	if err != nil {
		return "", err
	}
	defer client.Close()
	list, err := client.List(cmd.Context(), ipBlockPath(domain), nil, 0)
	if err != nil {
		return "", err
	}
	for _, raw := range list.Items {
		var block api.IPBlock
		if err := json.Unmarshal(raw, &block); err != nil {
			return "", fmt.Errorf("reading a blocked IP address: %w", err)
		}
		if block.Network == name {
			return block.ID, nil
		}
	}
	return "", usage("%s is not blocked: give an ID or a network that drawbridge ip-block list %s shows", name, domain)
}
