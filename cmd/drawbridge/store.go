package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) store() *cobra.Command {
	status := &cobra.Command{
		Use:               "status",
		Short:             "Show store and replication status",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.show(cmd, adminclient.Path("v1", "store"))
		},
	}
	adopt := &cobra.Command{
		Use:   "adopt",
		Short: "Accept a store that came back empty, older or different",
		Long: "Accept the store that answers now, although it is empty, older or another one than before. Changes that only the\n" +
			"former store had are lost. If there is a backup, restore it first.",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	w := writes(adopt)
	adopt.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.write(cmd, w, http.MethodPost, adminclient.Path("v1", "store", "adopt"), nil)
	}
	return group("store", "Show and repair the store", status, adopt)
}
