package main

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) rawAPI() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "api METHOD PATH",
		Short: "Send a request to the HTTP API",
		Long: "Send a request to the HTTP API and print the answer unchanged. Read the body from a file (--data @file) or from\n" +
			"standard input (--data @-). Do not put secrets on the command line.",
		Example: "  drawbridge api GET '/v1/domains/example.org/logins?outcome=deny'\n" +
			"  drawbridge api PATCH /v1/domains/example.org --data '{\"trace_header\":true}'",
		Args: takes("METHOD", "PATH"),
		ValidArgsFunction: arguments(func(_ *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return startingWith(strings.ToUpper(typed), []string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete})
		}),
	}
	data := cmd.Flags().String("data", "", "the body: @`file`, @- for standard input, or JSON")
	w := writes(cmd).versioned(cmd).confirmed(cmd, "confirm the change")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		path, query, _ := strings.Cut(args[1], "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			return usage("PATH: %w", err)
		}
		for name, values := range w.query() {
			q[name] = values
		}
		body, err := readData(cmd, *data)
		if err != nil {
			return err
		}
		client, err := c.client()
		if err != nil {
			return err
		}
		defer client.Close()
		a, err := client.Do(cmd.Context(), adminclient.Request{Method: strings.ToUpper(args[0]), Path: path, Query: q, Header: w.header(""), Body: body, Accept: "*/*"})
		if err != nil || len(a.Body) == 0 {
			return err
		}
		if json.Valid(a.Body) {
			return printJSON(cmd.OutOrStdout(), a.Body)
		}
		return printText(cmd.OutOrStdout(), a.Body)
	}
	return cmd
}

// readData returns the body that --data gives.
func readData(cmd *cobra.Command, data string) ([]byte, error) {
	if name, ok := strings.CutPrefix(data, "@"); ok {
		return readFile(cmd, name)
	}
	return []byte(data), nil
}
