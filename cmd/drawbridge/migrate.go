package main

import (
	"net/http"
	"slices"

	"github.com/spf13/cobra"
)

func (c *cli) policyMigrate() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate DOMAIN",
		Short: "Create policies from the settings of another product",
		Long: "Create policies from former settings: whether third-party clients were allowed, the addresses from which they were\n" +
			"always allowed, and which of the site's own clients were not, for all accounts or those in the scope. --settings\n" +
			"reads all of it from a JSON file. Running it again creates nothing twice; --dry-run shows the result for each policy.",
		Example: "  drawbridge policy migrate example.org --third-party block --secure-login-ip 203.0.113.0/24 --no-client native-mobile --dry-run\n" +
			"  drawbridge policy migrate example.org --no-client native-desktop --sub-department interns\n" +
			"  drawbridge policy migrate example.org --settings former.json",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	s := &settings{cmd: cmd}
	third := choose(cmd, "third-party", "whether third-party clients were allowed", "allow", "block")
	s.add("third-party", func(body, _ object) error { body["third_party_allowed"] = *third == "allow"; return nil })
	s.list("secure-login-ip", "secure_login_ips", "`address`, CIDR or a-b range from which third-party clients were always allowed")
	refused := cmd.Flags().StringArray("no-client", nil, "`type` of the site's own client that was not allowed (repeatable)")
	whom := scoped(cmd)
	_ = cmd.RegisterFlagCompletionFunc("no-client", c.completeClient) // the flag is there
	s.fields = append(s.fields, setting{flags: append(scopeFlags[:], "no-client"), apply: func(body, _ object) error {
		if len(*refused) == 0 {
			return usage("the scope needs --no-client")
		}
		scope := object{"all": true}
		if slices.ContainsFunc(scopeFlags[:], cmd.Flags().Changed) {
			var err error
			if scope, err = whom.body(); err != nil {
				return err
			}
		}
		var list []object
		for _, client := range *refused {
			list = append(list, object{"client": client, "allowed": false, "scope": scope})
		}
		body["native_clients"] = list
		return nil
	}})
	file := cmd.Flags().String("settings", "", "`file` with all settings in JSON; - for standard input")
	_ = cmd.MarkFlagFilename("settings", "json") // the flag is there
	w := writes(cmd).guarded(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		var body any
		switch {
		case *file != "" && s.given():
			return usage("--settings %s: leave out the other flags", *file)
		case *file != "":
			doc, err := readJSON(cmd, "settings", *file)
			if err != nil {
				return err
			}
			body = doc
		case !s.given():
			return usage("nothing to migrate: give --third-party, --no-client or --settings")
		default:
			o := object{}
			if err := s.into(o, nil); err != nil {
				return err
			}
			body = o
		}
		return c.write(cmd, w, http.MethodPost, policyPath(args[0], "migrate"), body)
	}
	return cmd
}
