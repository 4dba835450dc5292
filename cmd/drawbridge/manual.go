package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/manpage"
)

// manual prints the part of drawbridge(1) that the commands document; packaging runs it.
func manual() *cobra.Command {
	return &cobra.Command{
		Use: "manual", Short: "Print options and commands in the language of manual pages",
		Hidden: true, Args: takes(), ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprint(cmd.OutOrStdout(), manpage.Commands(cmd.Root()))
			return err
		},
	}
}
