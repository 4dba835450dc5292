package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/api"
)

func (c *cli) status() *cobra.Command {
	return &cobra.Command{
		Use:               "status",
		Short:             "Show the status of daemon, store and region database",
		Long:              "Show the status of the daemon, its store and its region database. The exit status is 75 if the daemon cannot decide logins.",
		Args:              takes(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := c.client()
			if err != nil {
				return err
			}
			defer client.Close()
			var all status
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
			if err := c.printStatus(cmd, all); err != nil {
				return err
			}
			return notReady
		},
	}
}

// status is the answers of the daemon about itself, its store and its region database. Those that it
// did not give are missing.
type status struct {
	Ready   json.RawMessage `json:"ready"`
	Store   json.RawMessage `json:"store,omitempty"`
	Regions json.RawMessage `json:"regions,omitempty"`
}

func (c *cli) printStatus(cmd *cobra.Command, all status) error {
	if c.output == outputJSON {
		doc, err := json.Marshal(all)
		if err != nil {
			return fmt.Errorf("encoding the answers: %w", err)
		}
		return printJSON(cmd.OutOrStdout(), doc)
	}
	t := newTable(cmd.OutOrStdout())
	ready, store, regions := new(api.Health), new(api.StoreStatus), new(api.RegionStatus)
	if err := json.Unmarshal(all.Ready, ready); err != nil {
		return fmt.Errorf("reading the answer: %w", err)
	}
	healthRows(t.row, ready)
	for _, part := range []struct {
		doc  json.RawMessage
		into any
		show func()
	}{{all.Store, store, func() { storeRows(t.row, store) }}, {all.Regions, regions, func() { regionRows(t.row, regions) }}} {
		if part.doc == nil {
			continue
		}
		if err := json.Unmarshal(part.doc, part.into); err != nil {
			return fmt.Errorf("reading the answer: %w", err)
		}
		part.show()
	}
	return t.Flush()
}

// healthRows shows whether the daemon decides logins and takes changes.
func healthRows(row func(...string), h *api.Health) {
	row("status:", h.Status+map[string]string{
		"evicting":    ": Redis may delete rules when its memory is full",
		"degraded":    ": logins are decided, changes are refused",
		"damaged":     ": changes are refused until the store is repaired",
		"unavailable": ": logins are answered with a temporary failure",
	}[h.Status])
	if h.MilterNeeded {
		row("milter:", "needed by rules in force")
	}
	if h.HoldDirFull {
		row("held messages:", "nine tenths of mail.hold_quota are used")
	}
	if n := h.DistributedGuessing; n > 0 {
		row("guessing:", fmt.Sprintf("from many addresses, at %d domains: see drawbridge throttle", n))
	}
}

// storeRows shows the store and its replication to the daemon.
func storeRows(row func(...string), s *api.StoreStatus) {
	row("version:", cell("", s.Version))
	if s.Trouble != "" {
		row("trouble:", s.Trouble)
	}
	state := "not loaded"
	if s.Loaded {
		state = fmt.Sprintf("loaded, domains: %d, accounts with settings: %d, changes: %d", s.Domains, s.Accounts, s.Changes)
	}
	row("store:", state)
	for _, bad := range []struct {
		is   bool
		text string
	}{
		{s.Foreign, "not the known store: not used until drawbridge store adopt"},
		{s.Damaged, "damaged: see drawbridge store repair"},
		{s.Evicting, "may be deleted by Redis, whose maxmemory-policy is " + s.Policy},
	} {
		if bad.is {
			row("", bad.text)
		}
	}
	row("in sync at:", timeCell(s.SyncedAt))
	row("store ID:", cell("", s.StoreID))
	for _, m := range s.Masters {
		row("Redis master:", cell("", m.Address))
		file := "no append-only file"
		if m.AppendOnly {
			file = "append-only file: " + cell("", m.AppendFsync)
		}
		row("", fmt.Sprintf("%s, %s, replicas: %d", file, cell("", m.Policy), m.Replicas))
		if m.Fault != "" {
			row("", m.Fault)
		}
	}
	for _, sentinel := range s.Sentinels {
		row("Sentinel:", sentinel.Address)
		if sentinel.Fault != "" {
			row("", sentinel.Fault)
		}
	}
}

// regionRows shows the databases of regions and of networks.
func regionRows(row func(...string), r *api.RegionStatus) {
	database := func(what string, d *api.AddressDatabase) {
		if d.Kind == "none" {
			row(what+"s:", "no database")
		} else {
			row(what+"s:", fmt.Sprintf("%d days old, %d ranges of IPv4, %d of IPv6", d.AgeDays, d.V4, d.V6))
		}
		if d.Missing != "" {
			row("", "the database has no "+d.Missing+" addresses")
		}
		if d.Error != "" {
			row("", d.Error)
		}
		for _, path := range d.Paths {
			row(what+" file:", path)
		}
	}
	database("region", &r.AddressDatabase)
	if r.Networks != nil {
		database("network", r.Networks)
	}
	if len(r.Domains) > 0 {
		row("used by:", strings.Join(r.Domains, ", "))
	}
}
