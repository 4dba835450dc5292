package main

import (
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/drawbridge/drawbridge/internal/api"
)

// faultText is a fault of the API in the words of the command line: the flag with the value that it
// was given, or the field in words; then what is wrong.
func faultText(cmd *cobra.Command, f api.Fault) string {
	detail := f.Detail
	switch {
	case cmd.Name() == "api": // a user of the API's paths reads its names
		return f.String()
	case f.Line > 0: // its detail says where
		return detail
	case f.Parameter != "":
		what := strings.TrimPrefix(detail, "parameter "+f.Parameter+": ")
		if flag := cmd.Flag(strings.ReplaceAll(f.Parameter, "_", "-")); flag != nil {
			return given(flag, -1) + ": " + what
		}
		return strings.ReplaceAll(f.Parameter, "_", " ") + ": " + what
	case f.Pointer == "":
		return detail
	}
	parts := strings.Split(strings.TrimPrefix(f.Pointer, "/"), "/")
	if flag, i := flagOf(cmd, parts); flag != nil {
		return given(flag, i) + ": " + detail
	}
	if args := cmd.Flags().Args(); len(args) > 0 && (parts[0] == "name" && strings.HasSuffix(cmd.CommandPath(), "domain create") || parts[0] == "network") {
		return args[len(args)-1] + ": " + detail
	}
	return fieldWords(parts) + ": " + detail
}

// flagOf finds the flag that set a field, and which of its values; -1 for its only one.
func flagOf(cmd *cobra.Command, parts []string) (*pflag.Flag, int) {
	index := -1
	var names []string
	for _, p := range parts {
		if n, err := strconv.Atoi(p); err == nil {
			index = n
			continue
		}
		names = append(names, strings.ReplaceAll(p, "_", "-"))
	}
	except := ""
	if len(names) == 2 && names[0] == "password-policy" {
		names = []string{strings.NewReplacer("password-forbidden-keywords", "password-keyword").Replace("password-" + names[1])}
	}
	for len(names) > 1 {
		switch names[0] {
		case "scope", "select", "login", "set", "protocols", "third-party-access", "policy":
		case "except":
			except = "except-"
		default:
			if index < 0 || len(names) > 2 && names[0] != "evidence" {
				return nil, 0
			}
		}
		if names[0] == "departments" || names[0] == "native-clients" { // path, client
			names = names[:1]
			break
		}
		names = names[1:]
	}
	name := except + names[0]
	candidates := []string{name, strings.TrimSuffix(name, "s"), strings.TrimSuffix(name, "es"), strings.TrimSuffix(name, "-id"), strings.TrimSuffix(name, "-at")}
	if name == "native-clients" {
		candidates = []string{"no-client"}
	}
	for _, candidate := range candidates {
		flag := cmd.Flag(candidate)
		if flag == nil {
			continue
		}
		if values, ok := flag.Value.(pflag.SliceValue); ok && index >= len(values.GetSlice()) && strings.HasSuffix(candidate, "department") {
			// The scope lists the departments before those that include their sub-departments.
			index -= len(values.GetSlice())
			flag = cmd.Flag(except + "sub-department")
		}
		if flag != nil && (flag.Changed || index < 0) {
			return flag, index
		}
		if add := cmd.Flag("add-" + candidate); add != nil && add.Changed {
			if values, ok := add.Value.(pflag.SliceValue); ok && len(values.GetSlice()) == 1 {
				return add, 0
			}
			return add, -1
		}
	}
	return nil, 0
}

// given is a flag as it was given, with its value of an index; -1 for its only value.
func given(flag *pflag.Flag, index int) string {
	values, list := flag.Value.(pflag.SliceValue)
	switch {
	case list && index >= 0 && index < len(values.GetSlice()):
		return "--" + flag.Name + " " + values.GetSlice()[index]
	case list || !flag.Changed || flag.Value.Type() == "bool":
		return "--" + flag.Name
	default:
		return "--" + flag.Name + " " + flag.Value.String()
	}
}

// fieldWords names a field of a document: "policies, entry 2, ips, entry 1".
func fieldWords(parts []string) string {
	words := make([]string, len(parts))
	for i, p := range parts {
		words[i] = label(strings.NewReplacer("~1", "/", "~0", "~").Replace(p))
		if n, err := strconv.Atoi(p); err == nil {
			words[i] = "entry " + strconv.Itoa(n+1)
		}
	}
	return strings.Join(words, ", ")
}
