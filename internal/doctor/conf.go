package doctor

import (
	"github.com/drawbridge/drawbridge/internal/doveconf"
	"github.com/drawbridge/drawbridge/internal/postconf"
)

// DovecotConf is the output of doveconf.
type DovecotConf struct {
	File    string // named in findings
	Version string // "2.3.19.1"
	All     doveconf.Section
	// Services contains the configuration as the auth process sees it for one service ("doveconf -f
	// service=imap"), by service. A passdb within "protocol imap { }" is asked before all others,
	// and only this view shows it.
	Services map[string]doveconf.Section
	// Files contains the readable files that passdbs name, by path: settings of ldap and sql, and
	// the names in passwd-files.
	Files map[string]string
	// Domains are the managed domains, with their mailbox_passwords; nil if they are not known. While
	// there is none, a name that passes without rules does no harm.
	Domains map[string]string
}

// PostfixConf is the output of postconf.
type PostfixConf struct {
	Dir      string            // named in findings
	Main     map[string]string // main.cf with the defaults, $name not expanded
	Services []postconf.Service
	Repeated []string            // settings that main.cf has more than once
	Routes   map[string][]string // words of the tables that choose how mail leaves; nil for one that cannot be listed
}
