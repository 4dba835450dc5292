package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/drawbridge/drawbridge/internal/adminclient"
	"github.com/drawbridge/drawbridge/internal/config"
)

// mailUse says which kinds of mail rules and groups are in force.
type mailUse struct {
	any        bool
	limits     bool
	forwarding bool
	notices    bool // rules and groups for which the daemon sends messages
}

// checkMailRules checks what mail rules in force need: the policy service at each stage, and a
// Postfix that takes released messages, those sent apart, copies and notices. The settings are nil if
// they are not known.
func checkMailRules(ctx context.Context, conf *PostfixConf, c *config.Config, api, keyFile string) findings {
	var f findings
	use, err := readMailUse(ctx, api, keyFile)
	switch {
	case err != nil || !use.any:
		return nil // daemon.ready reports a daemon that cannot be asked
	case conf != nil && c != nil:
		p := postfixChecks{conf: *conf, config: c}
		p.mailRules(use)
		f = append(f, merge(p.findings)...)
	}
	if use.notices && c != nil {
		const check = "daemon.notify"
		where := "notify.smtp: " + c.Notify.SMTP
		if err := askSMTP(ctx, c.Notify.SMTP); err != nil {
			f.fail(check, where, "# name a Postfix of this site: [notify] smtp = \"127.0.0.1:25\"", "%v: released messages, those sent apart, copies and notices are not sent", plainly(err))
		} else {
			f.ok(check, where, "takes released messages, those sent apart, copies and notices")
		}
	}
	return f
}

// mailRules checks where each smtpd asks the policy service.
func (p *postfixChecks) mailRules(use mailUse) {
	const check, forward = "postfix.mail_rules", "postfix.forward_path"
	for i := range p.conf.Services {
		s := p.smtpd(i)
		if s == nil || s.local && !s.sasl {
			continue
		}
		stages := []struct{ setting, what string }{
			{"smtpd_recipient_restrictions", "mail rules and groups do not apply to messages received here"},
			{"smtpd_data_restrictions", "sending limits do not count messages received here"},
			{"smtpd_end_of_data_restrictions", "sending limits do not count messages received here"},
		}
		submits := s.sasl || len(p.config.Mail.InternalNetworks) > 0
		well := true
		for j, stage := range stages {
			w := p.walk(s, s.value(stage.setting, ""))
			if j == 0 && !w.found {
				w = p.walk(s, s.value("smtpd_relay_restrictions", "")) // evaluated at every recipient as well
			}
			asked := w.found && w.match == same && !w.soft
			if j > 0 && (!use.limits || !submits) || asked && len(w.permits) == 0 {
				continue
			}
			well = false
			add := p.fail
			if asked && !s.sasl {
				add = p.warn // the site may trust the clients that are permitted before
			}
			add(check, s.where(stage.setting), s.line(stage.setting, joinList(s, stage.setting, p.policyText(s), p.without(s, s.raw(stage.setting)))),
				"Drawbridge's policy service is not the first that decides: %s", stage.what)
		}
		if well {
			p.ok(check, s.where(stages[0].setting), "%s asks Drawbridge wherever mail rules in force need it", s.title)
		}
	}
	if !use.forwarding {
		return
	}
	if p.outgoing() {
		p.routes()
		p.originals()
		p.ok(forward, p.main("forward_path"), "what .forward files send out passes Drawbridge")
		return
	}
	if path := strings.TrimSpace(p.conf.Main["forward_path"]); path != "" {
		p.warn(forward, p.main("forward_path"), "forward_path =", "is %s: rules about automatic forwarding do not see what .forward files of system users forward", path)
		return
	}
	p.ok(forward, p.main("forward_path"), "is empty: .forward files are not used")
}

// outgoing checks whether what Postfix sends out passes an smtpd that asks Drawbridge about the
// recipients as they are after expansion.
func (p *postfixChecks) outgoing() bool {
	const check, name = "postfix.outgoing", "drawbridge-outgoing"
	for i := range p.conf.Services {
		s := p.smtpd(i)
		if s == nil || s.value("milter_macro_daemon_name", "") != name {
			continue
		}
		_, next, _ := strings.Cut(strings.TrimSpace(p.conf.Main["default_transport"]), ":")
		switch _, what := p.findMilter(s, "smtpd_milters"); {
		case what != "":
			p.fail(check, s.where("smtpd_milters"), s.line("smtpd_milters", p.milterText(s, "smtpd_milters")), "%s: rules about automatic forwarding are not evaluated here", what)
		case s.value("content_filter", "") == "":
			p.fail(check, s.where("content_filter"), s.line("content_filter", "smtp:"), "is empty: outgoing mail comes back to %s in a loop", s.title)
		case strings.NewReplacer("[", "", "]", "").Replace(next) != s.Name:
			p.warn(check, p.main("default_transport"), "default_transport = "+name+":["+strings.Replace(s.Name, ":", "]:", 1),
				"leads past %s, where rules about automatic forwarding see what aliases send out", s.title)
		default:
			p.ok(check, p.main("default_transport"), "what Postfix sends out passes Drawbridge at %s", s.title)
			return true
		}
		return false
	}
	p.warn(check, p.main("default_transport"), "# add master.cf.drawbridge-outgoing to master.cf, and: default_transport = "+name+":[127.0.0.1]:10027",
		"rules about automatic forwarding do not see what alias_maps and virtual_alias_maps send out")
	return false
}

// readMailUse asks the daemon for the rules and groups of all domains.
func readMailUse(ctx context.Context, api, keyFile string) (use mailUse, err error) {
	client, err := adminclient.New(adminclient.Options{API: api, KeyFile: keyFile, Timeout: answerTime})
	if err != nil {
		return use, err
	}
	defer client.Close()
	now := time.Now()
	err = eachItem(ctx, client, adminclient.Path("v1", "domains"), func(domain listedItem) error {
		err := eachItem(ctx, client, adminclient.Path("v1", "domains", domain.Name, "mail-rules"), func(rule listedItem) error {
			if rule.Enabled != nil && !*rule.Enabled || rule.Until != nil && !rule.Until.After(now) {
				return nil
			}
			use.any = true
			use.limits = use.limits || rule.Kind == "limit"
			use.forwarding = use.forwarding || rule.Kind == "forwarding"
			use.notices = use.notices || rule.Kind == "audit" || rule.Kind == "monitor" || rule.Kind == "filter"
			return nil
		})
		if err != nil {
			return err
		}
		return eachItem(ctx, client, adminclient.Path("v1", "domains", domain.Name, "groups"), func(group listedItem) error {
			use.any = true
			use.notices = use.notices || len(group.Approvers) > 0
			return nil
		})
	})
	return use, err
}

// listedItem has the fields of a domain, a mail rule or a group that are of interest here.
type listedItem struct {
	Name      string
	Kind      string
	Enabled   *bool
	Until     *time.Time
	Approvers []string
}

// eachItem calls do for each item of a list, page by page.
func eachItem(ctx context.Context, client *adminclient.Client, path string, do func(listedItem) error) error {
	for next := ""; ; {
		request := adminclient.Request{Method: http.MethodGet, Path: path}
		if next != "" {
			request.Query = url.Values{"cursor": {next}}
		}
		answer, err := client.Do(ctx, request)
		if err != nil {
			return err
		}
		var page struct {
			Items []listedItem
			Next  string
		}
		if err := json.Unmarshal(answer.Body, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if err := do(item); err != nil {
				return err
			}
		}
		if next = page.Next; next == "" {
			return nil
		}
	}
}

// askSMTP connects to an SMTP server, reads its greeting and ends the session.
func askSMTP(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: answerTime}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // nothing is lost
	if err := conn.SetDeadline(time.Now().Add(answerTime)); err != nil {
		return err
	}
	line, err := bufio.NewReaderSize(conn, maxAnswer).ReadSlice('\n')
	if err != nil {
		return fmt.Errorf("no greeting: %w", err)
	}
	if greeting := strings.TrimSpace(string(line)); !strings.HasPrefix(greeting, "220") {
		return fmt.Errorf("the greeting is %.100q, not 220", greeting)
	}
	_, _ = conn.Write([]byte("QUIT\r\n")) // the greeting says what is asked
	return nil
}
