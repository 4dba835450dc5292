package main

import (
	"net/http"
	"strings"

	"github.com/spf13/cobra"
)

func departmentPath(domain, path string) string {
	return domainPath(domain, append([]string{"departments"}, strings.Split(path, "/")...)...)
}

func (c *cli) department() *cobra.Command {
	return group("department", "Manage departments",
		c.departmentList(), c.departmentShow(), c.departmentCreate(), c.departmentSet(), c.departmentRename(), c.departmentDelete())
}

func (c *cli) departmentList() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "list DOMAIN",
		Short:             "List the departments of a domain",
		Args:              takes("DOMAIN"),
		ValidArgsFunction: arguments(c.completeDomain),
	}
	limit := limited(cmd, 0)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.list(cmd, domainPath(args[0], "departments"), nil, *limit, col("PATH", "path"), col("NAME", "name"))
	}
	return cmd
}

// onDepartment is a command about one department.
func (c *cli) onDepartment(verb, short string) *cobra.Command {
	return &cobra.Command{
		Use:               verb + " DOMAIN PATH",
		Short:             short,
		Args:              takes("DOMAIN", "PATH"),
		ValidArgsFunction: arguments(c.completeDomain, c.completeIn("domains", "departments", "path")),
	}
}

func (c *cli) departmentShow() *cobra.Command {
	cmd := c.onDepartment("show", "Show a department")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.show(cmd, departmentPath(args[0], args[1]))
	}
	return cmd
}

func (c *cli) departmentCreate() *cobra.Command {
	cmd := c.onDepartment("create", "Create a department and missing parents")
	cmd.Example = "  drawbridge department create example.org sales/emea --name \"Sales EMEA\""
	s := &settings{cmd: cmd}
	s.text("name", "name", "display `name` of the department")
	w := writes(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		body := object{}
		if err := s.into(body, nil); err != nil {
			return err
		}
		return c.create(cmd, w, departmentPath(args[0], args[1]), body)
	}
	return cmd
}

func (c *cli) departmentSet() *cobra.Command {
	cmd := c.onDepartment("set", "Change the name or the sending addresses of a department")
	s := &settings{cmd: cmd}
	s.text("name", "name", "display `name` of the department")
	s.list("send-as", "send_as", "`address` or *@domain that members may also send from")
	s.edits("add-send-as", "remove-send-as", "send_as", "an `address` or *@domain that members may also send from")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.patch(cmd, w, departmentPath(args[0], args[1]), s)
	}
	return cmd
}

func (c *cli) departmentRename() *cobra.Command {
	cmd := c.onDepartment("rename", "Rename or move a department, with all references to it")
	cmd.Use = "rename DOMAIN PATH NEW-PATH"
	cmd.Args = takes("DOMAIN", "PATH", "NEW-PATH")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodPatch, departmentPath(args[0], args[1]), object{"path": args[2]})
	}
	return cmd
}

func (c *cli) departmentDelete() *cobra.Command {
	cmd := c.onDepartment("delete", "Delete a department that is not in use")
	w := writes(cmd).versioned(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return c.write(cmd, w, http.MethodDelete, departmentPath(args[0], args[1]), nil)
	}
	return cmd
}
