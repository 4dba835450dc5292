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
			a, err := c.get(cmd, adminclient.Path("v1", "store"), nil)
			if err != nil {
				return err
			}
			return printView(c, cmd, a, storeRows)
		},
	}
	adopt := &cobra.Command{
		Use:   "adopt",
		Short: "Accept a store that is empty, older, damaged or another one",
		Long: "Accept the store that answers now, although it is empty, older, damaged or not the known one. Documents that only the\n" +
			"known store has are lost. Run 'drawbridge store repair' or restore a backup first if you can.",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	w := writes(adopt)
	adopt.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.write(cmd, w, http.MethodPost, adminclient.Path("v1", "store", "adopt"), nil)
	}
	repair := &cobra.Command{
		Use:   "repair",
		Short: "Replace damaged parts of the store from the daemon's memory",
		Long: "Verify the store and replace damaged parts by the documents in the daemon's memory. Ask a daemon that has been\n" +
			"running since before the damage: one that started later has no documents and refuses.",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	wr := writes(repair)
	repair.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.write(cmd, wr, http.MethodPost, adminclient.Path("v1", "store", "repair"), nil)
	}
	return group("store", "Show and repair the store", status, repair, adopt)
}
