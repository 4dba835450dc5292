package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) held() *cobra.Command {
	return group("held", "Approve or reject messages that wait for approval", c.heldList(), c.heldShow(), c.heldApprove(), c.heldReject())
}

func heldPath(id string, more ...string) string {
	return adminclient.Path(append([]string{"v1", "held", id}, more...)...)
}

func (c *cli) heldList() *cobra.Command {
	return &cobra.Command{
		Use:   "list DOMAIN",
		Short: "List the messages that rules of a domain hold, oldest first",
		Long: "List the messages that audit rules and groups of a domain hold. STATE is held, approved or rejected until the node\n" +
			"has carried the decision out, or stuck: then show gives the reason, and another decision is needed.",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
		RunE: func(cmd *cobra.Command, args []string) error {
			return c.list(cmd, domainPath(args[0], "held"), nil, 0,
				col("ID", "id"), col("FROM", "from").shortened(), col("RECIPIENTS", "recipients").shortened(), col("SUBJECT", "subject").shortened(),
				col("EXPIRES", "expires_at"), col("STATE", "state"), col("RULE", "rule").onlyWide(), col("SIZE", "size").onlyWide(),
				col("NODE", "node").onlyWide(), col("AWAY", "node_away").onlyWide())
		},
	}
}

func (c *cli) heldShow() *cobra.Command {
	return &cobra.Command{
		Use:   "show ID",
		Short: "Show a held message, without its text",
		Args:  takes("ID"),
		RunE:  func(cmd *cobra.Command, args []string) error { return c.show(cmd, heldPath(args[0])) },
	}
}

func (c *cli) heldApprove() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "approve ID",
		Short: "Release a held message to its recipients",
		Long:  "Release a held message, whatever its approvers have decided so far. The node that has the message sends it.",
		Args:  takes("ID"),
	}
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, heldPath(args[0], "approve"), nil)
	}
	return cmd
}

func (c *cli) heldReject() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "reject ID",
		Short:   "Delete a held message and notify its sender",
		Long:    "Delete a held message. An authenticated sender is notified by mail; any other address may be forged.",
		Example: "  drawbridge held reject 7c0e5a1b2f3d4e60 --text 'Ask the legal department first.'",
		Args:    takes("ID"),
	}
	text := cmd.Flags().String("text", "", "`text` for the sender")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPost, heldPath(args[0], "reject"), api.Rejection{Text: *text})
	}
	return cmd
}
