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
	return group("ip-block", "Addresses that a domain refuses, whoever comes from there", c.ipBlockList(), c.ipBlockAdd(), c.ipBlockDelete())
}

func (c *cli) ipBlockList() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the addresses that a domain refuses",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, ipBlockPath(args[0]), nil, *limit,
			col("ID", "id"), col("NETWORK", "network"), col("EXPIRES", "expires_at"), col("NOTE", "note"), col("CREATED", "created_at"))
	}
	return cmd
}

func (c *cli) ipBlockAdd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "add DOMAIN NETWORK",
		Short: "Refuse an address, a CIDR or an a-b range for a whole domain",
		Long: "Refuse an address, a CIDR or an a-b range for a whole domain: every account, every client, webmail's users as well.\n" +
			"Submission sessions that are open from there end at their next command.",
		Example:           "  drawbridge ip-block add example.org 198.51.100.0/24 --note \"guesses since Monday\" --expires 7d",
		Args:              takes("DOMAIN", "NETWORK"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := &settings{cmd: cmd}
	s.text("note", "note", "what people should know of it")
	expires := cmd.Flags().String("expires", "", "`when` it ends by itself: a time, a day, or after how long (24h, 7d)")
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
		Short:             "Let an address in again",
		Long:              "Let an address in again. ID is that of drawbridge ip-block list, or the network as it stands there.",
		Example:           "  drawbridge ip-block delete example.org 198.51.100.0/24",
		Args:              takes("DOMAIN", "ID"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "ip-blocks", "id")),
	}
	w := writes(cmd).versioned(cmd).undone(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		id, err := c.ipBlockID(cmd, args[0], args[1])
		if err != nil {
			return err
		}
		return c.write(cmd, w, http.MethodDelete, ipBlockPath(args[0], id), nil)
	}
	return cmd
}

// ipBlockID returns the id of the block that is called so: by its id, or by its network.
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
			return "", fmt.Errorf("reading a blocked address: %w", err)
		}
		if block.Network == name {
			return block.ID, nil
		}
	}
	return "", usage("%s is not in the list that drawbridge ip-block list %s shows: take an ID or a network from there", name, domain)
}
