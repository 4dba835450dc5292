package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func (c *cli) status() *cobra.Command {
	return &cobra.Command{
		Use:               "status",
		Short:             "Show the status of the daemon, its store and its region database",
		Long:              "Show the status of the daemon, its store and its region database. The exit status is 75 if the daemon cannot decide logins.",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			defer client.Close()
			var all struct {
				Ready   json.RawMessage `json:"ready"`
				Store   json.RawMessage `json:"store,omitempty"`
				Regions json.RawMessage `json:"regions,omitempty"`
			}
			a, notReady := client.Do(cmd.Context(), adminclient.Request{Method: http.MethodGet, Path: "/readyz"})
			refused := new(adminclient.Problem)
			switch {
			case notReady == nil:
				all.Ready = a.Body
			case errors.As(notReady, &refused) && json.Valid(refused.Body):
				all.Ready = refused.Body
			default:
				return notReady
			}
			for _, part := range []struct {
				path, what string
				body       *json.RawMessage
			}{{"store", "store status", &all.Store}, {"regions", "region status", &all.Regions}} {
				a, err = client.Do(cmd.Context(), adminclient.Request{Method: http.MethodGet, Path: adminclient.Path("v1", part.path)})
				switch {
				case err == nil:
					*part.body = a.Body
				case notReady == nil && !errors.As(err, &refused):
					return err
				default:
					c.note(cmd, "%s is not available: %v", part.what, err)
				}
			}
			doc, err := json.Marshal(all)
			if err != nil {
				return fmt.Errorf("encoding the answers: %w", err)
			}
			if err := c.printAnswer(cmd, &adminclient.Answer{Body: doc}); err != nil {
				return err
			}
			return notReady
		},
	}
}
