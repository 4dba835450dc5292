// Manpages writes the manual pages of the packages into a directory:
//
//	go run ./contrib/packaging/manpages -drawbridge bin/drawbridge -o build/man
//
// It runs at the top of the source tree. The date of the pages is SOURCE_DATE_EPOCH.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/parser"
	"go/token"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/manpage"
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("manpages: ")
	command := flag.String("drawbridge", "bin/drawbridge", "`path` of the command drawbridge")
	version := flag.String("version", "devel", "the `version` that the pages are of")
	dir := flag.String("o", "", "write the pages into this `directory`")
	flag.Parse()
	if err := write(*dir, *version, *command); err != nil {
		log.Fatal(err)
	}
}

func write(dir, version, command string) error {
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
	}
	commands, err := exec.Command(command, "manual").Output()
	if err != nil {
		return fmt.Errorf("%s manual: %w", command, err)
	}
	var settings bytes.Buffer
	if err := config.WriteDefaults(&settings); err != nil {
		return err
	}
	for _, page := range []struct {
		name    string
		section int
		summary string
		source  string // whose package comment it begins with
		rest    string
	}{
		{"drawbridge", 1, "manage the login and mail rules of a running drawbridged", "cmd/drawbridge/main.go", string(commands)},
		{"drawbridged", 8, "decide logins for Dovecot, submissions and messages for Postfix", "cmd/drawbridged/main.go", ""},
		{"drawbridge-checkpassword", 8, "ask drawbridged about a login, as a passdb of Dovecot 2.3", "checkpassword/doc.go", ""},
		{"drawbridge.toml", 5, "settings of drawbridged", "", manpage.Settings(settings.String())},
	} {
		text := manpage.Head(page.name, page.section, page.summary, time.Unix(seconds, 0), version)
		if page.source != "" {
			file, err := parser.ParseFile(token.NewFileSet(), page.source, nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				return err
			}
			text += manpage.Comment(file.Doc.Text())
		}
		text += page.rest + ".SH SEE ALSO\n.BR drawbridge (1),\n.BR drawbridge.toml (5),\n.BR drawbridge\\-checkpassword (8),\n.BR drawbridged (8)\n"
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%s.%d", page.name, page.section)), []byte(text), 0o644); err != nil { //nolint:gosec // G306: for everybody
			return err
		}
	}
	return nil
}
