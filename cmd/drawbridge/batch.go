package main

import (
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

func (c *cli) accountBatch() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "batch DOMAIN",
		Short: "Change a setting of many accounts at once",
		Long: "Change settings of all accounts in a scope, in one call. --set takes imap, pop3, smtp or sieve = on|off|default,\n" +
			"suspended = on|off, preset = " + strings.Join(presets, "|") + ", secure-passwords = " + strings.Join(securePasswords, "|") + ",\n" +
			"departments = paths separated by semicolons, which replace theirs; nothing empties them.",
		Example:           "  drawbridge account batch example.org --sub-department sales --except-member ann@example.org --set pop3=off --dry-run",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	whom := scoped(cmd)
	set := cmd.Flags().StringArray("set", nil, "`setting=value` (repeatable)")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		scope, err := whom.body()
		if err != nil {
			return err
		}
		if len(*set) == 0 {
			return usage("nothing to set: give --set, such as --set pop3=off")
		}
		body := object{}
		for _, s := range *set {
			name, value, _ := strings.Cut(s, "=")
			if err := putSwitch(body, name, value); err != nil {
				return usage("--set %s: %w", s, err)
			}
		}
		return c.write(cmd, w, http.MethodPost, domainPath(args[0], "accounts", "batch"), object{"select": scope, "set": body})
	}
	return cmd
}

// putSwitch adds an account's setting, given as two words, to a merge patch.
func putSwitch(body object, name, value string) error {
	allowed := []string{"on", "off", "default"}
	switch name {
	case "departments":
		body[name] = strings.FieldsFunc(value, func(r rune) bool { return r == ';' })
		return nil
	case "suspended":
		allowed = []string{"on", "off"}
	case "preset":
		allowed = presets
	case "secure-passwords", "secure_passwords":
		name, allowed = "secure_passwords", securePasswords
	default:
		if !slices.Contains(protocols[:], name) {
			return usage("no such setting: say %s, suspended, preset, secure-passwords or departments", strings.Join(protocols[:], ", "))
		}
	}
	if !slices.Contains(allowed, value) {
		return usage("say %s", strings.Join(allowed, " or "))
	}
	switch name {
	case "suspended":
		body[name] = value == "on"
	case "preset", "secure_passwords":
		body[name] = value
	default:
		switches, _ := body["protocols"].(object)
		if switches == nil {
			switches = object{}
			body["protocols"] = switches
		}
		switches[name] = switchValue(value)
	}
	return nil
}
