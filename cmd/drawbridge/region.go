package main

import (
	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func regionPath(more ...string) string {
	return adminclient.Path(append([]string{"v1", "regions"}, more...)...)
}

func (c *cli) region() *cobra.Command {
	return group("region", "Show the regions of IP addresses", c.regionStatus(), c.regionLookup(), c.regionList())
}

func (c *cli) regionStatus() *cobra.Command {
	return &cobra.Command{
		Use:               "status",
		Short:             "Show the databases of regions and networks, and their age",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := c.get(cmd, regionPath(), nil)
			if err != nil {
				return err
			}
			return printView(c, cmd, a, regionRows)
		},
	}
}

func (c *cli) regionLookup() *cobra.Command {
	return &cobra.Command{
		Use:   "lookup IP",
		Short: "Show the region of an IP address",
		Long: "Show the region of an IP address. It is \"unknown\" for a public address that the database does not have, and empty\n" +
			"for private and other special addresses.",
		Example:           "  drawbridge region lookup 2001:db8::7",
		Args:              takes("IP"),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.show(cmd, regionPath(args[0])) },
	}
}

func (c *cli) regionList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the regions that policies can use", Args: takes(), ValidArgsFunction: cobra.NoFileCompletions}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.list(cmd, regionPath("codes"), nil, *limit, col("REGION", "region"), col("NAME", "name"))
	}
	return cmd
}

// completeRegion offers regions for a flag.
func (c *cli) completeRegion(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return startingWith(typed, c.names(cmd.Context(), regionPath("codes"), "region"))
}
