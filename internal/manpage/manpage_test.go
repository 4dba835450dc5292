package manpage_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/manpage"
)

func TestPage(t *testing.T) {
	root := &cobra.Command{Use: "drawbridge"}
	root.PersistentFlags().String("api", "", "`address` of the daemon")
	group := &cobra.Command{Use: "domain"}
	group.AddCommand(
		&cobra.Command{Use: "show DOMAIN", Short: "Show a domain", Example: "  drawbridge domain show example.org", Run: func(*cobra.Command, []string) {}},
		&cobra.Command{Use: "secret", Hidden: true, Run: func(*cobra.Command, []string) {}},
	)
	root.AddCommand(group)
	got := manpage.Head("x", 8, "do it", time.Unix(0, 0), "1.0") +
		manpage.Comment("Text with a \\ and -c.\n.dot first.\n\n\tcode -n\n\n# Exit status\n\n  - one\n") + manpage.Commands(root)
	const want = `.TH X 8 1970-01-01 "Drawbridge 1.0"
.nh
.ad l
.SH NAME
x \- do it
.SH DESCRIPTION
.PP
Text with a \e and \-c.
\&.dot first.
.PP
.RS 4
.nf
code \-n
.fi
.RE
.SH EXIT STATUS
.IP \(bu 2
one
.SH OPTIONS
.TP
\fB\-\-api\fR \fIaddress\fR
address of the daemon
.SH COMMANDS
.SS drawbridge domain show DOMAIN
.PP
Show a domain.
.PP
.RS 4
.nf
  drawbridge domain show example.org
.fi
.RE
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// Each setting is in the page with its default, under its full name.
func TestEverySetting(t *testing.T) {
	var toml bytes.Buffer
	if err := config.WriteDefaults(&toml); err != nil {
		t.Fatal(err)
	}
	page := manpage.Settings(toml.String())
	table, n := "", 0
	for line := range strings.SplitSeq(toml.String(), "\n") {
		switch {
		case strings.HasPrefix(line, "["):
			table = strings.Trim(line, "[]") + "."
		case line != "" && line[0] != '#':
			n++
			if !strings.Contains(strings.ReplaceAll(page, `\-`, "-"), ".TP\n\\fB"+table+line+"\\fR\n") {
				t.Errorf("%s%s is not in the page", table, line)
			}
		}
	}
	if got := strings.Count(page, ".TP\n"); got != n || n < 30 {
		t.Errorf("%d settings in the page, want %d", got, n)
	}
}
