package main

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/adminclient"
)

func clientTypePath(name string) string { return adminclient.Path("v1", "client-types", name) }

func (c *cli) clientType() *cobra.Command {
	return group("client-type", "Manage how the site's own programs are recognised",
		c.clientTypeList(), c.clientTypeShow(), c.clientTypeSet(), c.clientTypeDelete())
}

func (c *cli) clientTypeList() *cobra.Command {
	cmd := &cobra.Command{Use: "list", Short: "List the client types with evidence", Args: takes(), ValidArgsFunction: cobra.NoFileCompletions}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return c.list(cmd, adminclient.Path("v1", "client-types"), nil, *limit,
			col("TYPE", "type"), col("UNPROVEN", "unproven"), col("EVIDENCE", "evidence").shortened())
	}
	return cmd
}

// onClientType is a command about one client type.
func (c *cli) onClientType(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " TYPE",
		Short:             short,
		Args:              takes("TYPE"),
		ValidArgsFunction: arguments(c.completeAll("client-types", "type")),
	}
}

// completeClient offers client types for a flag: those that need no evidence to be named, and the
// site's.
func (c *cli) completeClient(cmd *cobra.Command, _ []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
	types := append(c.names(cmd.Context(), adminclient.Path("v1", "client-types"), "type"),
		"web", "console", "native-desktop", "native-mobile", "outlook-addin", "chat-desktop", "chat-mobile", "social", "cloud-fetcher", "third-party")
	slices.Sort(types)
	return startingWith(typed, slices.Compact(types))
}

func (c *cli) clientTypeShow() *cobra.Command {
	cmd := c.onClientType("show", "Show the evidence for a client type")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.show(cmd, clientTypePath(args[0])) }
	return cmd
}

func (c *cli) clientTypeSet() *cobra.Command {
	cmd := c.onClientType("set", "Set the evidence for a client type")
	cmd.Long = "Set the evidence by which a client type is recognised. A login has the type if all given flags match. The evidence\n" +
		"replaces the current one; --add adds a further evidence, any of which suffices. Server names, ports and services\n" +
		"only narrow a network or a certificate: without one, anybody can claim the type, and --unproven is needed."
	cmd.Example = "  drawbridge client-type set web --network 192.0.2.10 --service imap --service sieve\n" +
		"  drawbridge client-type set native-mobile --add --client-cert valid\n" +
		"  drawbridge client-type set cloud-fetcher --network-file fetchers.txt"
	s := &settings{cmd: cmd}
	f := cmd.Flags()
	networks := f.StringArray("network", nil, "client `address`, CIDR or a-b range (repeatable)")
	cert := f.String("client-cert", "", "`identity` of a client certificate that the mail server verified; Dovecot 2.3 reports valid")
	file := f.String("network-file", "", "`file` with further networks, one a line, comments after #; - for standard input")
	_ = cmd.MarkFlagFilename("network-file") // the flag is there
	names := f.StringArray("server-name", nil, "only if the client connects to this server `name` by TLS (repeatable)")
	ports := f.IntSlice("local-port", nil, "only on this server `port` (repeatable)")
	services := f.StringArray("service", nil, "only for this Dovecot `service` (repeatable)")
	unproven := f.Bool("unproven", false, "accept evidence that anybody can claim")
	more := f.Bool("add", false, "add to the current evidence instead of replacing it")
	w := writes(cmd).versioned(cmd)
	s.add("network", func(e, _ object) error { e["networks"] = *networks; return single("network", *networks) })
	s.add("client-cert", func(e, _ object) error { e["client_cert"] = *cert; return nil })
	s.add("server-name", func(e, _ object) error { e["server_names"] = *names; return nil })
	s.add("local-port", func(e, _ object) error { e["local_ports"] = *ports; return nil })
	s.add("service", func(e, _ object) error { e["services"] = *services; return nil })
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		evidence := object{}
		if err := s.into(evidence, nil); err != nil {
			return err
		}
		listed := networkFile{name: *file, first: len(*networks)}
		if *file != "" {
			if err := listed.read(cmd); err != nil {
				return err
			}
			evidence["networks"] = slices.Concat(*networks, listed.networks)
		}
		if len(evidence) == 0 {
			return usage("the evidence is missing: give --network, --network-file or --client-cert")
		}
		if !*more {
			return listed.explain(0, c.write(cmd, w, http.MethodPut, clientTypePath(args[0]), object{"evidence": []object{evidence}, "unproven": *unproven}))
		}
		before := 0
		err := c.edit(cmd, w, http.MethodPut, clientTypePath(args[0]), func(current object) (object, error) {
			list, _ := current["evidence"].([]any)
			before = len(list)
			return object{"evidence": append(list, evidence), "unproven": *unproven || current["unproven"] == true}, nil
		}, c.printAnswer)
		return listed.explain(before, err)
	}
	return cmd
}

// networkFile is a list of networks in a file.
type networkFile struct {
	name     string
	first    int // how many networks are named before those of the file
	networks []string
	lines    []int // line number of each, from 1
}

func (n *networkFile) read(cmd *cobra.Command) error {
	text, err := readFile(cmd, n.name)
	if err != nil {
		return err
	}
	number := 0
	for line := range strings.Lines(strings.TrimPrefix(string(text), "\ufeff")) {
		number++
		network, _, _ := strings.Cut(line, "#")
		if network = strings.TrimSpace(network); network != "" {
			n.networks, n.lines = append(n.networks, network), append(n.lines, number)
		}
	}
	if len(n.networks) == 0 {
		return usage("--network-file %s: has no network", n.name)
	}
	return nil
}

// explain says of the faults of an evidence's networks where in the file they are.
func (n *networkFile) explain(evidence int, err error) error {
	problem := new(adminclient.Problem)
	if !errors.As(err, &problem) {
		return err
	}
	for i := range problem.Errors {
		f := &problem.Errors[i]
		index, found := strings.CutPrefix(f.Pointer, fmt.Sprintf("/evidence/%d/networks/", evidence))
		if at, err := strconv.Atoi(index); found && err == nil && at >= n.first && at-n.first < len(n.lines) {
			f.Line = n.lines[at-n.first]
			f.Detail = fmt.Sprintf("%s, line %d: %s", n.name, f.Line, f.Detail)
		}
	}
	return err
}

func (c *cli) clientTypeDelete() *cobra.Command {
	cmd := c.onClientType("delete", "Delete a client type's evidence")
	w := writes(cmd).versioned(cmd).confirmed(cmd, "delete it even if policies use the type")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, clientTypePath(args[0]), nil)
	}
	return cmd
}
