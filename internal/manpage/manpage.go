// Package manpage writes manual pages in the man(7) language from what is documented already:
// package comments, the help of commands, and the manual of the settings. It has no text of its own,
// so that a page cannot differ from what the program says.
package manpage

import (
	"fmt"
	"go/doc/comment"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Head returns the beginning of a page: its title and its NAME section.
func Head(name string, section int, summary string, date time.Time, version string) string {
	return fmt.Sprintf(".TH %s %d %s \"Drawbridge %s\"\n.nh\n.ad l\n.SH NAME\n%s \\- %s\n",
		strings.ToUpper(escape(name)), section, date.UTC().Format(time.DateOnly), escape(version), escape(name), escape(summary))
}

// Comment converts a package comment. What precedes its first heading is the section DESCRIPTION.
func Comment(text string) string {
	var b strings.Builder
	heading(&b, "DESCRIPTION")
	for _, block := range new(comment.Parser).Parse(text).Content {
		switch block := block.(type) {
		case *comment.Heading:
			heading(&b, plain(block.Text))
		case *comment.Paragraph:
			paragraph(&b, plain(block.Text))
		case *comment.Code:
			verbatim(&b, block.Text)
		case *comment.List:
			for _, item := range block.Items {
				b.WriteString(".IP \\(bu 2\n")
				for _, c := range item.Content {
					if p, ok := c.(*comment.Paragraph); ok {
						b.WriteString(escape(plain(p.Text)) + "\n")
					}
				}
			}
		}
	}
	return b.String()
}

// Commands converts the help of all commands below root, and its flags, which all of them have in
// common.
func Commands(root *cobra.Command) string {
	var b strings.Builder
	heading(&b, "OPTIONS")
	flags(&b, root.PersistentFlags())
	heading(&b, "COMMANDS")
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		for _, child := range cmd.Commands() {
			switch {
			case !child.IsAvailableCommand() || child.Name() == "completion":
			case child.HasAvailableSubCommands():
				walk(child)
			default:
				command(&b, child)
			}
		}
	}
	walk(root)
	return b.String()
}

func command(b *strings.Builder, cmd *cobra.Command) {
	fmt.Fprintf(b, ".SS %s\n", escape(cmd.UseLine()))
	text := cmd.Long
	if text == "" {
		text = cmd.Short + "."
	}
	for part := range strings.SplitSeq(text, "\n\n") {
		if strings.HasPrefix(part, " ") || strings.Contains(part, "\n ") {
			verbatim(b, part)
		} else {
			paragraph(b, part)
		}
	}
	flags(b, cmd.LocalFlags())
	if cmd.Example != "" {
		verbatim(b, cmd.Example)
	}
}

func flags(b *strings.Builder, set *pflag.FlagSet) {
	set.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		term := "\\fB\\-\\-" + escape(f.Name) + "\\fR"
		if f.Shorthand != "" {
			term = "\\fB\\-" + escape(f.Shorthand) + "\\fR, " + term
		}
		if value != "" {
			term += " \\fI" + escape(value) + "\\fR"
		}
		fmt.Fprintf(b, ".TP\n%s\n%s\n", term, escape(usage))
	})
}

// Settings converts the manual that drawbridged -d prints: comments, tables and one line for each
// setting with its default.
func Settings(toml string) string {
	var b, doc strings.Builder
	table := ""
	heading(&b, "DESCRIPTION")
	for line := range strings.SplitSeq(toml, "\n") {
		switch {
		case strings.HasPrefix(line, "#"):
			doc.WriteString(strings.TrimPrefix(strings.TrimPrefix(line, "#"), " ") + "\n")
		case line == "":
			if doc.Len() > 0 { // of the file, not of a setting
				paragraph(&b, doc.String())
				doc.Reset()
				heading(&b, "SETTINGS")
			}
		case strings.HasPrefix(line, "["):
			table = strings.Trim(line, "[]") + "."
		case doc.Len() > 0:
			fmt.Fprintf(&b, ".TP\n\\fB%s%s\\fR\n%s\n", escape(table), escape(line), escape(strings.TrimSpace(doc.String())))
			doc.Reset()
		}
	}
	return b.String()
}

func heading(b *strings.Builder, text string) {
	fmt.Fprintf(b, ".SH %s\n", escape(strings.ToUpper(text)))
}

func paragraph(b *strings.Builder, text string) {
	fmt.Fprintf(b, ".PP\n%s\n", escape(strings.TrimSpace(text)))
}

func verbatim(b *strings.Builder, text string) {
	fmt.Fprintf(b, ".PP\n.RS 4\n.nf\n%s\n.fi\n.RE\n", escape(strings.TrimRight(text, "\n")))
}

func plain(texts []comment.Text) string {
	var b strings.Builder
	for _, t := range texts {
		switch t := t.(type) {
		case comment.Plain:
			b.WriteString(string(t))
		case comment.Italic:
			b.WriteString(string(t))
		case *comment.Link:
			b.WriteString(plain(t.Text))
		case *comment.DocLink:
			b.WriteString(plain(t.Text))
		}
	}
	return b.String()
}

// escape makes text of characters that mean something to troff: backslashes, hyphens, and points and
// quotes at the beginning of a line.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\t", "        ").Replace(text)
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		if strings.HasPrefix(line, ".") || strings.HasPrefix(line, "'") {
			lines[i] = `\&` + line
		}
	}
	return strings.Join(lines, "\n")
}
