package main

import (
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) store() *cobra.Command {
	status := &cobra.Command{
		Use:               "status",
		Short:             "Show how the daemon and its store get on",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return c.show(cmd, adminclient.Path("v1", "store"))
		},
	}
	adopt := &cobra.Command{
		Use:   "adopt",
		Short: "Believe a store that came back empty, older, or as another",
		Long: "Believe the store that answers now, although it is empty, older or another than the one known: what the known\n" +
			"one held and this one does not is lost. Restore a backup first if there is one.",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	w := writes(adopt)
	adopt.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.write(cmd, w, http.MethodPost, adminclient.Path("v1", "store", "adopt"), nil)
	}
	return group("store", "The store that the daemon keeps its rules in", status, adopt)
}
