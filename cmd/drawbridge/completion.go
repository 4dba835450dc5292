package main

import (
	"context"
	"encoding/json"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

// Limits of a completion: a person waits for it.
const (
	completionTime  = 2 * time.Second
	completionItems = 500
	// completionDomains is up to how many domains are searched for an account.
	completionDomains = 3
)

// completion offers values for the arguments of a command.
type completion = func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective)

// names offers a field of the items of a list. Without an answer it offers nothing.
func (c *cli) names(ctx context.Context, path, field string) []string {
	c.timeout = min(c.timeout, completionTime)
	client, err := c.client()
	if err != nil {
		return nil
	}
	defer client.Close()
	list, err := client.List(ctx, path, url.Values{}, completionItems)
	if err != nil {
		return nil
	}
	var out []string
	for _, raw := range list.Items {
		var o object
		if json.Unmarshal(raw, &o) != nil {
			continue
		}
		if name, ok := o[field].(string); ok && name == printable(name) {
			out = append(out, name)
		}
	}
	return out
}

// arguments completes each argument by its own function; behind the last, nothing.
func arguments(each ...completion) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) >= len(each) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return each[len(args)](cmd, args, typed)
	}
}

func startingWith(typed string, names []string) ([]cobra.Completion, cobra.ShellCompDirective) {
	var out []cobra.Completion
	for _, name := range names {
		if strings.HasPrefix(name, typed) {
			out = append(out, name)
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

func (c *cli) completeDomain(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	return startingWith(typed, c.names(cmd.Context(), adminclient.Path("v1", "domains"), "name"))
}

// completeAccount offers accounts while the domains are few, as no list is over all of them, and
// domains behind an @.
func (c *cli) completeAccount(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	domains := c.names(cmd.Context(), adminclient.Path("v1", "domains"), "name")
	local, _, found := strings.Cut(typed, "@")
	var out []string
	for _, domain := range domains {
		if found {
			out = append(out, local+"@"+domain)
		} else if len(domains) <= completionDomains {
			out = append(out, c.names(cmd.Context(), adminclient.Path("v1", "domains", domain, "accounts"), "address")...)
		}
	}
	return startingWith(typed, out)
}

// completeIn offers a field of a list that belongs to the first argument.
func (c *cli) completeIn(collection, list, field string) completion {
	return func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return startingWith(typed, c.names(cmd.Context(), adminclient.Path("v1", collection, args[0], list), field))
	}
}

// completeAll offers a field of a list that belongs to nothing.
func (c *cli) completeAll(list, field string) completion {
	return func(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return startingWith(typed, c.names(cmd.Context(), adminclient.Path("v1", list), field))
	}
}
