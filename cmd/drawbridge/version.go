package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "devel"

func (c *cli) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:               "version",
		Short:             "Show the version of this command",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if c.output == outputJSON {
				doc, err := json.Marshal(map[string]string{"version": version, "go": runtime.Version()})
				if err != nil {
					return fmt.Errorf("encoding the answer: %w", err)
				}
				return printJSON(cmd.OutOrStdout(), doc)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "drawbridge %s (%s)\n", version, runtime.Version())
			return err
		},
	}
}
