package doctor

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/doveconf"
	"github.com/drawbridge/drawbridge/internal/postconf"
)

// Both checks what only the two servers' configurations together show: whether logins to Postfix
// reach this Dovecot, and whether mail of Dovecot's submission service keeps its login.
func Both(d DovecotConf, conf PostfixConf, c *config.Config) []Finding {
	p := postfixChecks{conf: conf, config: c}
	all := d.All
	_, apart := forUsers(all, version(d.Version))
	if version(d.Version).is24() {
		all = from24(all)
	}
	for i := range conf.Services {
		s := p.smtpd(i)
		switch {
		case s == nil || !s.sasl:
		case p.asksDoor(s) != foreign: // reported by Postfix
			p.relay(d.File, all)
		default:
			p.saslPath(s, d.File, all, apart)
		}
	}
	if slices.Contains(strings.Fields(all.Get("protocols", "imap pop3 lmtp")), "submission") && all.Get("submission_relay_trusted", "no") == "yes" {
		p.submissionRelay(all)
	}
	return merge(p.findings)
}

// authListeners returns the unix sockets where Dovecot serves clients' authentication.
func authListeners(all doveconf.Section) (offered []string) {
	base := all.Get("base_dir", "/run/dovecot")
	for _, l := range all.One("service", "auth").All("unix_listener") {
		name := l.Name
		if name == "" {
			name = l.Get("path", "")
		}
		if !path.IsAbs(name) {
			name = path.Join(base, name)
		}
		if kind := path.Base(name); strings.HasSuffix(kind, "auth-userdb") || strings.HasSuffix(kind, "auth-master") || strings.HasSuffix(kind, "login") || strings.HasSuffix(kind, "tokenlogin") {
			continue // other protocols than a client's
		}
		offered = append(offered, name)
	}
	return offered
}

// relay checks that the daemon's own SASL service passes logins on to this Dovecot.
func (p *postfixChecks) relay(file string, all doveconf.Section) {
	const check, setting = "daemon.sasl.next", "sasl.next"
	next := p.config.SASL.Next
	if separator := all.Get("auth_master_user_separator", ""); separator != "" && next != "" && separator != p.config.SASL.MasterSeparator {
		p.warn("daemon.sasl.master_separator", "sasl.master_separator", fmt.Sprintf("[sasl]\nmaster_separator = %q", separator),
			"is %q, but Dovecot's auth_master_user_separator is %q: master logins to Postfix are refused", p.config.SASL.MasterSeparator, separator)
	}
	switch {
	case next == "":
	case slices.Contains(authListeners(all), next):
		p.ok(check, setting, "logins that Drawbridge does not decide reach this Dovecot")
	default:
		p.fail(check, setting, fmt.Sprintf("# in %s:\nservice auth {\n  unix_listener %s {\n    mode = 0660\n    user = postfix\n    group = postfix\n  }\n}", file, next),
			"is %s, which is not a listener of this Dovecot's auth service: logins with a mailbox password are temporary failures", next)
	}
}

// saslPath checks that Postfix asks a listener of Dovecot's auth service, or Drawbridge itself
// where Drawbridge's passdb is apart: not asked about Postfix' logins.
func (p *postfixChecks) saslPath(s *smtpd, file string, all doveconf.Section, apart bool) {
	const check, setting = "postfix.sasl.path", "smtpd_sasl_path"
	text := s.value(setting, "smtpd")
	if s.value("smtpd_sasl_type", "cyrus") != "dovecot" || text == "smtpd" {
		return // reported by Postfix
	}
	offered := authListeners(all)
	var asked string
	if server := (postconf.Server{Address: text}); strings.HasPrefix(text, "inet:") {
		_, port, _ := server.HostPort()
		for _, l := range all.One("service", "auth").All("inet_listener") {
			if l.Get("port", "0") == port && !apart {
				p.ok(check, s.where(setting), "logins to %s reach this Dovecot", s.title)
				return
			}
		}
		asked = text
	} else {
		asked, _ = postconf.Server{Address: "unix:" + strings.TrimPrefix(text, "unix:")}.UnixPath(p.queue(), s.chroot)
		if slices.Contains(offered, asked) {
			if apart {
				p.fail(check, s.where(setting), s.line(setting, "private/drawbridge-auth"),
					"asks Dovecot about %s, where Drawbridge's passdb is not asked about Postfix' logins (protocol !smtp): no rule applies to them", s.title)
				return
			}
			p.ok(check, s.where(setting), "logins to %s reach this Dovecot", s.title)
			return
		}
	}
	listener := path.Join(p.queue(), "private", "auth")
	fix := s.line(setting, "private/auth")
	if !slices.Contains(offered, listener) {
		fix += fmt.Sprintf("\n# and in %s:\nservice auth {\n  unix_listener %s {\n    mode = 0660\n    user = postfix\n    group = postfix\n  }\n}", file, listener)
	}
	p.fail(check, s.where(setting), fix, "asks %s, which is not a listener of this Dovecot's auth service: logins to %s do not reach Drawbridge", asked, s.title)
}

// submissionRelay checks that Postfix takes the login that Dovecot's submission service passes on.
func (p *postfixChecks) submissionRelay(all doveconf.Section) {
	const check, setting = "postfix.submission_relay", "smtpd_authorized_xclient_hosts"
	host, port := all.Get("submission_relay_host", ""), all.Get("submission_relay_port", "25")
	if !loopbackHost(host) && host != p.conf.Main["myhostname"] {
		p.warn(check, p.main(setting), "# on "+host+": "+setting+" = ADDRESS-OF-THIS-DOVECOT",
			"Dovecot's submission service relays to %s, which is not this Postfix: see there that it takes the login (XCLIENT LOGIN) and asks Drawbridge", host)
		return
	}
	for i := range p.conf.Services {
		s := p.smtpd(i)
		if s == nil || s.Type != "inet" || portOf(s.Name) != portOf(port) {
			continue
		}
		if s.value(setting, "") == "" {
			p.fail(check, s.where(setting), s.line(setting, "127.0.0.1"),
				"is empty: %s does not take the login from Dovecot's submission service, so the sender is not checked, and revoked secrets can still send", s.title)
			return
		}
		p.ok(check, s.where(setting), "%s takes the login that Dovecot's submission service passes on", s.title)
		return
	}
	p.fail(check, all.Title()+"submission_relay_port", "submission_relay_port = 25", "Dovecot's submission service relays to port %s, where no smtpd of this Postfix listens", port)
}

// portOf returns the port of a service of master.cf, by number.
func portOf(name string) string {
	name = name[strings.LastIndex(name, ":")+1:]
	if known, ok := map[string]string{"smtp": "25", "submission": "587", "submissions": "465", "smtps": "465"}[name]; ok {
		return known
	}
	return name
}

// connections compares the connections that Postfix may open with those that the daemon takes.
// Every smtpd process keeps one to the policy service, and one to the milter for its session.
func (p *postfixChecks) connections() {
	preset, err := strconv.Atoi(p.conf.Main["default_process_limit"])
	if err != nil || preset <= 0 {
		preset = 100
	}
	for _, door := range []struct {
		check, setting string
		limit          int
		asks           func(*smtpd) bool
	}{
		{"postfix.policy.connections", "policyd.max_connections", p.config.Policyd.MaxConnections, func(s *smtpd) bool {
			return p.walk(s, s.value("smtpd_recipient_restrictions", "")).found || p.walk(s, s.value("smtpd_relay_restrictions", "")).found
		}},
		{"postfix.milter.connections", "milter.max_connections", p.config.Milter.MaxConnections, func(s *smtpd) bool {
			_, what := p.findMilter(s, "smtpd_milters")
			return what == ""
		}},
	} {
		needed, unlimited := 0, ""
		for i := range p.conf.Services {
			s := p.smtpd(i)
			if s == nil || !door.asks(s) {
				continue
			}
			switch n, err := strconv.Atoi(s.ProcessLimit); {
			case err != nil:
				needed += preset
			case n == 0:
				unlimited = s.title
			default:
				needed += n
			}
		}
		where := p.main("default_process_limit")
		table, name, _ := strings.Cut(door.setting, ".")
		switch {
		case unlimited != "":
			p.warn(door.check, p.conf.Dir+"/master.cf: "+unlimited, "# write a number in the column maxproc of "+unlimited,
				"has no process limit (maxproc 0), and %s is %d: connections beyond it wait, and mail with them", door.setting, door.limit)
		case needed > door.limit:
			p.warn(door.check, where, fmt.Sprintf("[%s]\n%s = %d", table, name, needed),
				"Postfix may run %d smtpd processes that ask Drawbridge, and %s is %d: connections beyond it wait, and mail with them", needed, door.setting, door.limit)
		case needed > 0:
			p.ok(door.check, where, "Postfix runs at most %d smtpd processes that ask, and %s is %d", needed, door.setting, door.limit)
		}
	}
}
