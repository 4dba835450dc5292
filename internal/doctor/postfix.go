package doctor

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/drawbridge/drawbridge/internal/config"
	"github.com/drawbridge/drawbridge/internal/listen"
	"github.com/drawbridge/drawbridge/internal/postconf"
)

// Postfix checks the configuration of a Postfix against the daemon's settings. It looks at no file
// and asks nobody.
func Postfix(conf PostfixConf, c *config.Config) []Finding {
	p := postfixChecks{conf: conf, config: c}
	logins := make(map[string][]string) // smtpd_sasl_service → the services that use it
	for i := range conf.Services {
		s := p.smtpd(i)
		if s == nil {
			continue
		}
		p.policy(s)
		p.data(s)
		p.milter(s)
		p.origin(s)
		if s.sasl {
			p.sasl(s)
			name := s.value("smtpd_sasl_service", "smtp")
			logins[name] = append(logins[name], s.title)
		}
	}
	p.local()
	p.connections()
	p.delimiter()
	p.repeated()
	if len(logins) == 0 {
		p.ok("postfix.sasl", p.main("smtpd_sasl_auth_enable"), "no service accepts logins")
	}
	for _, same := range logins {
		if len(same) > 1 {
			slices.Sort(same)
			p.ok("postfix.sasl.service", conf.Dir+"/master.cf", "Drawbridge cannot distinguish %s; smtpd_sasl_service and login.services can name them", strings.Join(same, ", "))
		}
	}
	return merge(p.findings)
}

// delimiter compares the delimiters of extensions. The rules of an account do not hold for names with
// a delimiter that only Postfix knows.
func (p *postfixChecks) delimiter() {
	const check, setting = "postfix.delimiter", "recipient_delimiter"
	theirs, ours := p.conf.Main[setting], p.config.Login.Subaddress
	if theirs == "" {
		return
	}
	missing := strings.Map(func(r rune) rune {
		if strings.ContainsRune(ours, r) {
			return -1
		}
		return r
	}, theirs)
	if missing == "" {
		p.ok(check, p.main(setting), "the rules of an account hold for its extensions, too")
		return
	}
	p.warn(check, p.main(setting), fmt.Sprintf("[login]\nsubaddress = %q", ours+missing),
		"is %q, and login.subaddress is %q: for Drawbridge ann%sx@ is another account than ann@", theirs, ours, missing[:1])
}

// repeated warns of settings that main.cf has more than once. Every Postfix program then writes a
// warning for each, and with maillog_file postlogd can block on its own.
func (p *postfixChecks) repeated() {
	const check = "postfix.repeated"
	consequence := "Postfix uses the last, and warns of the others whenever one of its programs starts"
	if p.conf.Main["maillog_file"] != "" {
		consequence += "; with maillog_file, its logger can block on these warnings, and all of Postfix with it"
	}
	for _, name := range p.conf.Repeated {
		p.warn(check, p.main(name), "# remove all entries of "+name+" but one", "it has several entries: %s", consequence)
	}
}

// merge combines equal findings about several services.
func merge(f findings) findings {
	merged := make(findings, 0, len(f))
	for _, x := range f {
		place, service, ok := strings.Cut(x.Where, forService)
		at := slices.IndexFunc(merged, func(m Finding) bool {
			other, _, _ := strings.Cut(m.Where, forService)
			return ok && other == place && m.Check == x.Check && m.Severity == x.Severity && m.What == x.What && m.Fix == x.Fix
		})
		if at < 0 {
			merged = append(merged, x)
			continue
		}
		merged[at].Where += ", " + service
	}
	return merged
}

type postfixChecks struct {
	findings
	conf   PostfixConf
	config *config.Config
}

func (p *postfixChecks) main(setting string) string { return p.conf.Dir + "/main.cf: " + setting }

func (p *postfixChecks) queue() string {
	return cmp.Or(strings.TrimSuffix(p.conf.Main["queue_directory"], "/"), "/var/spool/postfix")
}

// smtpd is a service of master.cf that runs an SMTP server, with the settings that hold there.
type smtpd struct {
	postconf.Service
	conf   *PostfixConf
	title  string // "submission/inet"
	sasl   bool   // lets users log in
	local  bool   // reached from this machine only
	chroot bool
}

// smtpd returns the i-th service of master.cf, nil if it is no SMTP server.
func (p *postfixChecks) smtpd(i int) *smtpd {
	m := p.conf.Services[i]
	if m.Command[strings.LastIndex(m.Command, "/")+1:] != "smtpd" {
		return nil
	}
	s := &smtpd{Service: m, conf: &p.conf, title: m.Name + "/" + m.Type}
	s.sasl = s.value("smtpd_sasl_auth_enable", "no") == "yes"
	if at := strings.LastIndex(m.Name, ":"); m.Type == "inet" && at >= 0 {
		s.local = loopbackHost(m.Name[:at])
	} else if m.Type == "inet" || m.Type == "unix" {
		s.local = m.Type == "unix" || slices.ContainsFunc([]string{"loopback-only", "localhost", "127.0.0.1"}, func(v string) bool {
			return v == s.value("inet_interfaces", "all")
		})
	}
	s.chroot = m.Chroot == "y"
	if m.Chroot == "-" {
		level, _ := strconv.ParseFloat(cmp.Or(p.conf.Main["compatibility_level"], "0"), 64)
		s.chroot = level < 1 // as master(8) has it
	}
	return s
}

// value returns a setting as this service sees it, with $name written out.
func (s *smtpd) value(name, preset string) string {
	return cmp.Or(strings.TrimSpace(postconf.Expand(s.raw(name), s.raw)), preset)
}

func (s *smtpd) raw(name string) string {
	if v, ok := s.Overrides[name]; ok {
		return v
	}
	return s.conf.Main[name]
}

const forService = ", for "

// where names the place that sets a setting for this service.
func (s *smtpd) where(setting string) string {
	if _, ok := s.Overrides[setting]; ok {
		return s.conf.Dir + "/master.cf: " + s.title + ": " + setting
	}
	return s.conf.Dir + "/main.cf: " + setting + forService + s.title
}

// line is what to write in the place that sets a setting for this service.
func (s *smtpd) line(setting, value string) string {
	switch _, ok := s.Overrides[setting]; {
	case !ok:
		return setting + " = " + value
	case strings.ContainsAny(value, " \t"):
		return "  -o { " + setting + " = " + value + " }"
	}
	return "  -o " + setting + "=" + value
}

// match says how an address that Postfix asks relates to a listener of ours.
type match uint8

const (
	foreign   match = iota // another program's
	same                   // where the daemon listens
	elsewhere              // called drawbridge, but the daemon does not listen there
	outside                // the daemon's, but not from within the chroot
)

func (p *postfixChecks) match(s postconf.Server, specs []listen.Spec, chroot bool) match {
	inside, isUnix := s.UnixPath(p.queue(), chroot)
	open, _ := s.UnixPath(p.queue(), false)
	host, port, isInet := s.HostPort()
	found := foreign
	if strings.Contains(s.Address, "drawbridge") {
		found = elsewhere
	}
	for _, spec := range specs {
		switch {
		case isUnix && spec.Unix() && inside == spec.Path:
			return same
		case isUnix && spec.Unix() && open == spec.Path:
			found = outside
		case isInet && !spec.Unix() && sameAddress(host, port, spec.Addr):
			return same
		}
	}
	return found
}

// address writes a listener of ours as Postfix asks it, within a chroot or not.
func (p *postfixChecks) address(specs []listen.Spec) string {
	spec := specs[0]
	if !spec.Unix() {
		return "inet:" + spec.Addr.String()
	}
	if inside, ok := strings.CutPrefix(spec.Path, p.queue()+"/"); ok {
		return "unix:" + inside
	}
	return "unix:" + spec.Path
}

func addresses(specs []listen.Spec) string {
	var list []string
	for _, s := range specs {
		list = append(list, s.Network()+" "+s.Address())
	}
	return strings.Join(list, ", ")
}

// walked describes the part of a restriction list before our policy service.
type walked struct {
	found   bool
	server  postconf.Server
	match   match
	soft    bool     // warn_if_reject stands before it
	permits []string // what ends the list before it
	maybes  []string // what may end it, depending on a table or on another program
}

// walk goes through a restriction list up to our policy service. Restriction classes are entered,
// each once.
func (p *postfixChecks) walk(s *smtpd, text string) walked {
	return p.walkOn(s, text, make(map[string]bool))
}

func (p *postfixChecks) walkOn(s *smtpd, text string, entered map[string]bool) (w walked) {
	classes := postconf.SplitList(s.value("smtpd_restriction_classes", ""))
	for _, r := range postconf.ParseRestrictions(text) {
		switch {
		case r.Name == "check_policy_service":
			w.server = postconf.ParseServer(r.Arg)
			if w.match = p.match(w.server, p.config.Policyd.Listen, s.chroot); w.match != foreign {
				w.found, w.soft = true, w.soft || r.LogOnly
				return w
			}
			w.maybes = append(w.maybes, "check_policy_service "+w.server.Address)
		case slices.Contains(classes, r.Name):
			if entered[r.Name] {
				continue // entered before
			}
			entered[r.Name] = true
			inner := p.walkOn(s, s.value(r.Name, ""), entered)
			inner.permits = append(w.permits, inner.permits...)
			inner.maybes = append(w.maybes, inner.maybes...)
			inner.soft = inner.soft || r.LogOnly
			if w = inner; w.found {
				return w
			}
		case r.Name == "permit" || strings.HasPrefix(r.Name, "permit_"):
			w.permits = append(w.permits, r.Name)
		case strings.HasSuffix(r.Name, "_access"), strings.ContainsAny(r.Name, ":$"):
			w.maybes = append(w.maybes, r.Name)
		case r.Name == "reject" || r.Name == "defer":
			return w
		}
	}
	return w
}

func (p *postfixChecks) policy(s *smtpd) {
	const order, setting = "postfix.policy", "smtpd_recipient_restrictions"
	if len(p.config.Policyd.Listen) == 0 {
		p.ok(order, p.main(setting), "policyd.listen is empty: the policy service is switched off")
		return
	}
	where, policy := s.where(setting), p.policyText(s)
	fix := s.line(setting, joinList(s, setting, policy, p.without(s, s.raw(setting))))
	w := p.walk(s, s.value(setting, ""))
	if relay := p.walk(s, s.value("smtpd_relay_restrictions", "")); !w.found && relay.found {
		w, where = relay, s.where("smtpd_relay_restrictions") // asked at every recipient as well
	}
	switch {
	case !w.found && s.local && !s.sasl:
		p.ok(order, where, "%s takes mail from this machine only, without logins: it need not ask", s.title)
		return
	case !w.found && s.local:
		p.warn(order, where, fix, "Drawbridge is not asked: from this machine, accounts that may not send can still send")
		return
	case !w.found && !s.sasl:
		p.warn(order, where, fix, "Drawbridge is not asked about mail from outside")
		return
	case !w.found:
		p.fail(order, where, fix, "Drawbridge is not asked: an open session can still send after SMTP is switched off or the secret is revoked")
		return
	case w.match == outside:
		p.fail(order, where, fix,
			"%s runs in the chroot %s and does not find %s there", s.title, p.queue(), w.server.Address)
		return
	case w.match == elsewhere:
		p.fail(order, where, fix, "asks %s, but policyd.listen has %s", w.server.Address, addresses(p.config.Policyd.Listen))
		return
	}
	well := len(p.findings)
	if w.soft {
		p.fail(order, where, fix, "warn_if_reject precedes Drawbridge's policy service: refusals are only logged")
	}
	if len(w.permits) > 0 {
		add := p.fail
		if !s.sasl {
			add = p.warn
		}
		add(order, where, fix, "%s before Drawbridge's policy service: clients that it permits are not checked", stand(w.permits))
	}
	if len(w.maybes) > 0 {
		p.warn(order, where, fix, "%s before Drawbridge's policy service, and may permit: clients that it permits are not checked", stand(w.maybes))
	}
	if len(p.findings) == well {
		p.ok(order, where, "%s asks Drawbridge before the first restriction that permits", s.title)
	}
	p.policyDefault(s, where, w.server)
}

// data checks that the policy service is asked again when a message begins and ends: between its
// recipients and its end a login may be revoked.
func (p *postfixChecks) data(s *smtpd) {
	const check = "postfix.policy.data"
	if len(p.config.Policyd.Listen) == 0 || !s.sasl {
		return
	}
	well := true
	for _, stage := range []struct{ setting, what string }{
		{"smtpd_data_restrictions", "a login that is revoked after RCPT is not refused at DATA"},
		{"smtpd_end_of_data_restrictions", "a login that is revoked while the message is received is not refused at its end"},
	} {
		w := p.walk(s, s.value(stage.setting, ""))
		fix := s.line(stage.setting, joinList(s, stage.setting, p.policyText(s), p.without(s, s.raw(stage.setting))))
		switch {
		case !w.found:
			p.warn(check, s.where(stage.setting), fix, "Drawbridge is not asked: %s", stage.what)
		case w.match != same:
			p.warn(check, s.where(stage.setting), fix, "asks %s, where Drawbridge is not reached: %s", w.server.Address, stage.what)
		case w.soft || len(w.permits) > 0:
			p.warn(check, s.where(stage.setting), fix, "Drawbridge's policy service is not the first that decides: %s", stage.what)
		default:
			continue
		}
		well = false
	}
	if well {
		p.ok(check, s.where("smtpd_data_restrictions"), "%s asks Drawbridge again when a message begins and ends", s.title)
	}
}

func stand(names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) == 1 {
		return names[0] + " comes"
	}
	return strings.Join(names, ", ") + " come"
}

func (p *postfixChecks) policyDefault(s *smtpd, where string, asked postconf.Server) {
	const check, shut = "postfix.policy.default_action", "451 4.3.0 Access rules cannot be read at the moment, please try again later"
	action, fix := asked.Options["default_action"], "{ default_action="+shut+" }"
	if action == "" {
		const setting = "smtpd_policy_service_default_action"
		action, fix = s.value(setting, "451 4.3.5 Server configuration problem"), s.line(setting, shut)
	}
	first, _, _ := strings.Cut(strings.ToUpper(action), " ")
	code, err := strconv.Atoi(first)
	switch {
	case err == nil && code >= 400 && code < 600, first == "REJECT", first == "DEFER", first == "DEFER_IF_PERMIT":
		p.ok(check, where, "while the daemon is away, %s answers %q", s.title, action)
	default:
		p.warn(check, where, fix,
			"default_action is %q: while the daemon is away everybody may send; keep it if that is intended", action)
	}
}

// policyText is the restriction to write: by its name, when main.cf has one for it.
func (p *postfixChecks) policyText(s *smtpd) string {
	const name = "drawbridge_policy"
	if w := p.walk(s, p.conf.Main[name]); w.found && w.match == same {
		return "$" + name
	}
	return "check_policy_service " + p.address(p.config.Policyd.Listen)
}

// without returns the restrictions of a list but for our policy service, each with its argument.
func (p *postfixChecks) without(s *smtpd, text string) (rest []string) {
	words := postconf.SplitList(text)
	for i := 0; i < len(words); i++ {
		item := words[i]
		if postconf.TakesArgument(strings.ToLower(item)) && i+1 < len(words) {
			i++
			item += " " + words[i]
		}
		text := postconf.Expand(item, s.raw)
		class := slices.Contains(postconf.SplitList(s.value("smtpd_restriction_classes", "")), item)
		alone := len(postconf.ParseRestrictions(text)) == 1 && !class // what else comes with it is the site's, and asking twice does no harm
		if alone && p.walk(s, text).found || strings.EqualFold(item, "warn_if_reject") {
			continue
		}
		rest = append(rest, item)
	}
	return rest
}

// joinList writes a list as it is usual in the place that sets it. After -o it has no blanks, if
// that can be helped.
func joinList(s *smtpd, setting, first string, rest []string) string {
	text := strings.Join(append([]string{first}, rest...), ", ")
	if _, ok := s.Overrides[setting]; ok && !strings.Contains(text, "{") {
		return strings.Join(postconf.SplitList(text), ",")
	}
	return text
}

func (p *postfixChecks) milter(s *smtpd) {
	const check, setting = "postfix.milter", "smtpd_milters"
	specs := p.config.Milter.Listen
	where := s.where(setting)
	if len(specs) == 0 {
		p.ok(check, where, "milter.listen is empty: the milter is switched off")
		return
	}
	ours, what := p.findMilter(s, setting)
	if slices.Contains(postconf.SplitList(s.value("receive_override_options", "")), "no_milters") {
		where, what = s.where("receive_override_options"), "no_milters: no milter is asked"
	}
	if what != "" && s.local && !s.sasl {
		p.ok(check, where, "%s takes mail from this machine only, without logins: it need not ask", s.title)
		return
	}
	switch fix := s.line(setting, p.milterText(s, setting)); {
	case what == "":
		p.ok(check, where, "%s asks Drawbridge's milter", s.title)
		p.milterDefault(s, where, ours)
	case s.sasl && !s.local:
		p.fail(check, where, fix, "%s: senders and messages are not checked", what)
	default:
		p.warn(check, where, fix, "%s: mail received here is not checked", what)
	}
	if s.value("smtpd_milter_maps", "") != "" {
		p.warn(check, s.where("smtpd_milter_maps"), "# remove smtpd_milter_maps", "it sets other milters for some clients, which are then not checked")
	}
	p.milterProtocol(s, ours)
}

// findMilter looks for ours in a list of milters, and describes the fault if it is not there.
func (p *postfixChecks) findMilter(s *smtpd, setting string) (ours postconf.Server, what string) {
	what = "Drawbridge's milter is not in it"
	if s.value(setting, "") == "" {
		what = "is empty"
	}
	for _, word := range postconf.SplitList(s.value(setting, "")) {
		one := postconf.ParseServer(word)
		switch p.match(one, p.config.Milter.Listen, s.chroot) {
		case same:
			return one, ""
		case outside:
			what = fmt.Sprintf("%s runs in the chroot %s and does not find %s there", s.title, p.queue(), one.Address)
		case elsewhere:
			what = fmt.Sprintf("asks %s, but milter.listen has %s", one.Address, addresses(p.config.Milter.Listen))
		case foreign:
		}
	}
	return postconf.Server{}, what
}

// milterText is the list of milters to write: ours by its name, when main.cf has one for it, before
// the others.
func (p *postfixChecks) milterText(s *smtpd, setting string) string {
	const name = "drawbridge_milter"
	text := p.address(p.config.Milter.Listen)
	if p.match(postconf.ParseServer(postconf.Expand(p.conf.Main[name], s.raw)), p.config.Milter.Listen, s.chroot) == same {
		text = "$" + name
	}
	for _, word := range postconf.SplitList(s.raw(setting)) {
		if m := p.match(postconf.ParseServer(postconf.Expand(word, s.raw)), p.config.Milter.Listen, s.chroot); m == foreign {
			text += ", " + word
		}
	}
	return text
}

func (p *postfixChecks) milterDefault(s *smtpd, where string, ours postconf.Server) {
	const action = "postfix.milter.default_action"
	switch a := cmp.Or(ours.Options["default_action"], s.value("milter_default_action", "tempfail")); a {
	case "accept":
		p.warn(action, where, "milter_default_action = tempfail", "default_action is accept: while the daemon is away nothing is checked; keep it if that is intended")
	case "tempfail", "shutdown":
		p.ok(action, where, "while the daemon is away, %s defers mail", s.title)
	default:
		p.warn(action, where, "milter_default_action = tempfail", "default_action is %q: while the daemon is away, mail is not deferred but treated so for good", a)
	}
}

// milterProtocol checks which macros Postfix sends to a milter.
func (p *postfixChecks) milterProtocol(s *smtpd, ours postconf.Server) {
	const macros, protocol = "postfix.milter.macros", "postfix.milter.protocol"
	mail := postconf.SplitList(s.value("milter_mail_macros", "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer}"))
	const want = "i {auth_type} {auth_authen} {auth_author} {mail_addr} {mail_host} {mail_mailer} {client_addr} {client_port} {daemon_port}"
	switch {
	case !slices.Contains(mail, "{auth_authen}"):
		p.fail(macros, s.where("milter_mail_macros"), "milter_mail_macros = "+want, "lacks {auth_authen}: the milter does not receive the login and checks no sender")
	case !slices.Contains(mail, "{client_addr}"):
		p.warn(macros, s.where("milter_mail_macros"), "milter_mail_macros = "+want, "lacks {client_addr}: the milter does not receive the client's address")
	default:
		p.ok(macros, s.where("milter_mail_macros"), "the milter receives the login and the client's address")
	}
	version := cmp.Or(ours.Options["protocol"], s.value("milter_protocol", "6"))
	digits, _, _ := strings.Cut(version, " ")
	if n, err := strconv.Atoi(digits); err == nil && n < 2 {
		p.fail(protocol, s.where("milter_protocol"), "milter_protocol = 6", "is %s: Drawbridge's milter needs version 2 or later", version)
	}
}

// local checks the milter of what local programs hand in.
func (p *postfixChecks) local() {
	const check, setting = "postfix.milter.local", "non_smtpd_milters"
	if len(p.config.Milter.Listen) == 0 {
		return
	}
	// cleanup(8) connects, from a chroot or not as its entry says.
	cleanup := &smtpd{conf: &p.conf, title: "cleanup/unix"}
	for _, m := range p.conf.Services {
		if m.Name == "cleanup" && m.Type == "unix" {
			cleanup.Service = m
			cleanup.chroot = m.Chroot == "y"
		}
	}
	if _, what := p.findMilter(cleanup, setting); what != "" {
		p.warn(check, cleanup.where(setting), cleanup.line(setting, p.milterText(cleanup, setting)), "%s: mail submitted by local programs is not checked", what)
		return
	}
	p.ok(check, cleanup.where(setting), "mail submitted by local programs is checked")
}

// origin looks for who may claim another client's address.
func (p *postfixChecks) origin(s *smtpd) {
	const check, setting = "postfix.client_address", "smtpd_authorized_xclient_hosts"
	for _, word := range postconf.SplitList(s.value(setting, "")) {
		switch n, ok := parseNetwork(word); {
		case ok && n.Bits() == 0, strings.HasPrefix(word, "static:"):
			p.fail(check, s.where(setting), s.line(setting, ""), "%s is everyone: any client may claim any address, and policies with a place have no effect", word)
		case ok && isWide(n):
			p.warn(check, s.where(setting), s.line(setting, "ADDRESS-OF-THE-PROXY"), "%s: every host in it may claim any address", word)
		}
	}
	if s.value("smtpd_upstream_proxy_protocol", "") != "" && !s.local {
		p.warn(check, s.where("smtpd_upstream_proxy_protocol"), "# let only the proxy reach this port",
			"clients that reach %s without the proxy may claim any address", s.title)
	}
}

func (p *postfixChecks) sasl(s *smtpd) {
	const kind, service, plain = "postfix.sasl", "postfix.sasl.service", "postfix.sasl.plaintext"
	if t := s.value("smtpd_sasl_type", "cyrus"); t != "dovecot" {
		p.fail(kind, s.where("smtpd_sasl_type"), s.line("smtpd_sasl_type", "dovecot"), "is %q: Dovecot is not asked about logins, and so not Drawbridge", t)
	} else {
		p.ok(kind, s.where("smtpd_sasl_type"), "Dovecot is asked about logins to %s", s.title)
	}
	if path := s.value("smtpd_sasl_path", "smtpd"); path == "smtpd" {
		p.fail(kind, s.where("smtpd_sasl_path"), s.line("smtpd_sasl_path", "private/auth"), "is %q, Cyrus' name: Dovecot is not found there, and nobody can log in", path)
	} else {
		p.door(s)
	}
	switch name := s.value("smtpd_sasl_service", "smtp"); name {
	case "smtp", "submission":
	default:
		switch protocol := p.config.Login.Services[name]; protocol {
		case "smtp":
			p.ok(service, s.where("smtpd_sasl_service"), "login.services names %s: %q", s.title, name)
		case "":
			p.fail(service, s.where("smtpd_sasl_service"), fmt.Sprintf("[login]\nservices = { %q = \"smtp\" }", name),
				"is %q, which login.services does not name: every login there is refused", name)
		default:
			p.fail(service, s.where("smtpd_sasl_service"), fmt.Sprintf("[login]\nservices = { %q = \"smtp\" }", name),
				"is %q, which is %s in login.services", name, protocol)
		}
	}
	level := s.value("smtpd_tls_security_level", "")
	encrypted := level == "encrypt" || s.value("smtpd_enforce_tls", "no") == "yes" || s.value("smtpd_tls_wrappermode", "no") == "yes"
	if !encrypted && !s.local && s.value("smtpd_tls_auth_only", "no") != "yes" {
		p.warn(plain, s.where("smtpd_tls_auth_only"), s.line("smtpd_tls_auth_only", "yes"), "is off: clients may send secrets without encryption")
	}
}

// asksDoor returns how the server that smtpd_sasl_path names relates to sasl.listen.
func (p *postfixChecks) asksDoor(s *smtpd) match {
	text := s.value("smtpd_sasl_path", "smtpd")
	if !strings.HasPrefix(text, "inet:") {
		text = "unix:" + strings.TrimPrefix(text, "unix:")
	}
	return p.match(postconf.Server{Address: text}, p.config.SASL.Listen, s.chroot)
}

// door checks a service that asks Drawbridge itself about logins.
func (p *postfixChecks) door(s *smtpd) {
	const check, setting = "postfix.sasl.path", "smtpd_sasl_path"
	path := s.value(setting, "smtpd")
	switch p.asksDoor(s) {
	case foreign: // Dovecot, probably: see Both
	case same:
		p.ok(check, s.where(setting), "logins to %s go to Drawbridge itself", s.title)
	case outside:
		p.fail(check, s.where(setting), s.line(setting, strings.TrimPrefix(p.address(p.config.SASL.Listen), "unix:")),
			"%s runs in the chroot %s and does not find %s there: nobody can log in", s.title, p.queue(), path)
	case elsewhere:
		if len(p.config.SASL.Listen) == 0 {
			p.fail(check, s.where(setting), "[sasl]\nlisten = [\"unix:"+p.queue()+"/private/drawbridge-auth?mode=0660&group=postfix\"]\nnext = \""+p.queue()+"/private/auth\"",
				"asks %s, but sasl.listen is empty: nobody can log in", path)
			return
		}
		p.fail(check, s.where(setting), s.line(setting, strings.TrimPrefix(p.address(p.config.SASL.Listen), "unix:")),
			"asks %s, but sasl.listen has %s: nobody can log in", path, addresses(p.config.SASL.Listen))
	}
}
