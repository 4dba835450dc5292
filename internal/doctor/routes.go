package doctor

import (
	"context"
	"os"
	"slices"
	"strings"

	"github.com/drawbridge/drawbridge/internal/postconf"
)

// routeMaps are the settings whose tables choose another way out than default_transport.
var routeMaps = []string{"transport_maps", "sender_dependent_default_transport_maps"}

// readRoutes lists the words of the tables that choose how mail leaves, by table; nil for a table
// that cannot be listed, as those of a database.
func readRoutes(ctx context.Context, dir string, main map[string]string) map[string][]string {
	routes := make(map[string][]string)
	for _, setting := range routeMaps {
		value := postconf.Expand(main[setting], func(name string) string { return main[name] })
		for _, table := range postconf.SplitList(value) {
			kind, text, _ := strings.Cut(table, ":")
			switch kind {
			case "inline", "static":
			case "texthash", "regexp", "pcre", "cidr":
				data, err := os.ReadFile(text)
				if err != nil {
					data = nil
				}
				text = string(data)
			default:
				out, err := run(ctx, "postmap", "-c", dir, "-s", table)
				if err != nil {
					out = nil
				}
				text = string(out)
			}
			routes[table] = words(text)
		}
	}
	return routes
}

// words returns the words of a table that has keys and values in lines, or within braces.
func words(text string) (list []string) {
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "#") {
			list = append(list, strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n{},=", r) })...)
		}
	}
	return list
}

// routes checks whether mail leaves by another way than the smtpd that asks Drawbridge.
func (p *postfixChecks) routes() {
	const check, name = "postfix.routes", "drawbridge-outgoing"
	var leaves []string // services that send mail out by themselves
	for i := range p.conf.Services {
		s := &p.conf.Services[i]
		if command := s.Command[strings.LastIndex(s.Command, "/")+1:]; command == "smtp" && s.Name != name {
			leaves = append(leaves, s.Name)
		}
	}
	around := func(route string) bool {
		service, _, _ := strings.Cut(route, ":")
		return slices.Contains(leaves, service)
	}
	lookup := func(name string) string { return p.conf.Main[name] }
	well := true
	for table, list := range p.conf.Routes {
		setting := routeMaps[0]
		if !strings.Contains(p.conf.Main[setting], table) {
			setting = routeMaps[1]
		}
		switch i := slices.IndexFunc(list, func(word string) bool { return strings.Contains(word, ":") && around(word) }); {
		case list == nil:
			well = false
			p.warn(check, p.main(setting), "# look for entries of "+table+" that name one of: "+strings.Join(leaves, ", "),
				"the table %s cannot be listed: its entries may lead past the rules about automatic forwarding", table)
		case i >= 0:
			well = false
			p.warn(check, p.main(setting), "# remove the entry from "+table+", or accept that what is forwarded that way is not judged",
				"%s has %s, which leads past the rules about automatic forwarding", table, list[i])
		}
	}
	relay, domains := strings.TrimSpace(postconf.Expand(p.conf.Main["relay_transport"], lookup)), p.conf.Main["relay_domains"]
	if strings.HasPrefix(domains, "${{$compatibility_level}") { // Postfix' default: none
		domains = ""
	}
	if strings.TrimSpace(postconf.Expand(domains, lookup)) != "" && around(relay) {
		well = false
		p.warn(check, p.main("relay_transport"), "relay_transport = $default_transport", "mail for relay_domains leaves by %s, past the rules about automatic forwarding", relay)
	}
	if well {
		p.ok(check, p.main(routeMaps[0]), "nothing leads past the smtpd that asks Drawbridge about outgoing mail")
	}
}

// originals checks whether a client's own original recipient (ORCPT) is forgotten wherever mail is
// taken: else it hides which mailbox forwards.
func (p *postfixChecks) originals() {
	const check, setting = "postfix.orcpt", "smtpd_discard_ehlo_keywords"
	for i := range p.conf.Services {
		s := p.smtpd(i)
		if s == nil || s.local && !s.sasl || s.value("milter_macro_daemon_name", "") == "drawbridge-outgoing" {
			continue
		}
		_, what := p.findMilter(s, "smtpd_milters")
		discards := slices.ContainsFunc(postconf.SplitList(s.value(setting, "")), func(word string) bool { return strings.EqualFold(word, "dsn") })
		if what == "" || discards {
			p.ok(check, s.where(setting), "%s passes on no original recipient that hides who forwards", s.title)
			continue
		}
		p.warn(check, s.where(setting), s.line(setting, strings.TrimPrefix(s.raw(setting)+", dsn", ", ")),
			"%s does not ask the milter (smtpd_milters: %s): a client's original recipient (ORCPT) hides which mailbox forwards", s.title, what)
	}
}
