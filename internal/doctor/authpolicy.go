package doctor

import (
	"cmp"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// judgedByPassdb is the attribute that the snippet with a Drawbridge passdb sends.
const judgedByPassdb = "judged=yes"

// policyOnly reports whether Dovecot asks Drawbridge by auth-policy checks alone: there is no
// passdb of Drawbridge's, and the configuration does not expect one.
func (d *dovecotChecks) policyOnly() bool {
	u, err := url.Parse(d.all.Get("auth_policy_server_url", ""))
	return err == nil && u.Path == policyPath && !slices.ContainsFunc(d.all.All("passdb"), isOurs) &&
		!slices.Contains(d.attributes(), judgedByPassdb)
}

// attributes returns what Dovecot sends with a check or a report, as name=value.
func (d *dovecotChecks) attributes() []string {
	const preset = "login=%{requested_username} pwhash=%{hashed_password} remote=%{rip} device_id=%{client_id} protocol=%s session_id=%{session}"
	return strings.Fields(d.all.Get("auth_policy_request_attributes", preset))
}

// policyServer checks Dovecot's auth-policy client: the report how a login ended that the site's
// passdb decided, and the check before a login is accepted.
func (d *dovecotChecks) policyServer() {
	const check = "dovecot.auth_policy"
	text := d.all.Get("auth_policy_server_url", "")
	where := d.at("auth_policy_server_url")
	if !d.asksNext() && text == "" {
		d.ok(check, where, "not needed: no login is passed to the next passdb")
		return
	}
	alone := d.policyOnly()
	problems := len(d.findings)
	defer func() {
		switch {
		case len(d.findings) > problems:
		case alone:
			d.ok(check, where, "asks Drawbridge about every login, and reports how it ended")
		default:
			d.ok(check, where, "reports the next passdb's decision to Drawbridge")
		}
	}()
	if text == "" {
		d.fail(check, where, "auth_policy_server_url = "+policyURL+"\nauth_policy_check_before_auth = no\nauth_policy_check_after_auth = yes"+
			"\nauth_policy_reject_on_fail = yes\nauth_policy_report_after_auth = yes\nauth_policy_server_api_header = Authorization: Bearer KEY\nauth_policy_hash_nonce = RANDOM",
			"is empty: the next passdb's decision is not reported, so wrong mailbox passwords are neither recorded nor counted")
		return
	}
	d.policyAddress(check, where, text)
	header := d.all.Get("auth_policy_server_api_header", "")
	if word, key, _ := strings.Cut(header, ":"); !strings.EqualFold(word, "Authorization") || !strings.HasPrefix(strings.TrimSpace(key), "Bearer ") {
		d.fail(check, d.at("auth_policy_server_api_header"), "auth_policy_server_api_header = Authorization: Bearer KEY",
			"is not \"Authorization: Bearer\" with the key of login.key_file (%s): checks and reports are refused", cmp.Or(d.config.Login.KeyFile, "not set"))
	}
	if d.all.Get("auth_policy_report_after_auth", "yes") != "yes" {
		what := "is off: the next passdb's decision is not reported, so wrong mailbox passwords are neither recorded nor counted"
		if alone {
			what = "is off: logins are not recorded"
		}
		d.fail(check, d.at("auth_policy_report_after_auth"), "auth_policy_report_after_auth = yes", "%s", what)
	}
	d.policyChecks(check, alone)
}

// policyChecks checks when Dovecot asks, what it sends, and what it does without an answer. alone:
// no passdb of Drawbridge judges logins.
func (d *dovecotChecks) policyChecks(check string, alone bool) {
	before := d.all.Get("auth_policy_check_before_auth", "yes") != "no"
	after := d.all.Get("auth_policy_check_after_auth", "yes") != "no"
	switch {
	case alone && !before && !after:
		d.fail(check, d.at("auth_policy_check_after_auth"), "auth_policy_check_after_auth = yes",
			"is off, and so is auth_policy_check_before_auth: Drawbridge is not asked about logins")
	case alone && !after:
		d.warn(check, d.at("auth_policy_check_after_auth"), "auth_policy_check_after_auth = yes",
			"is off: if a passdb gives a login another name (user=), the rules of that name are not evaluated, and refused clients get no reason")
	case !after && !slices.ContainsFunc(d.all.All("passdb"), isVerified):
		d.warn(check, d.at("auth_policy_check_after_auth"), "auth_policy_check_after_auth = yes",
			"is off: if the next passdb gives a login another name (user=), the rules of that name are not evaluated")
	}
	if before && !alone {
		d.warn(check, d.at("auth_policy_check_before_auth"), "auth_policy_check_before_auth = no",
			"is on: every login waits for one more request, which evaluates nothing, since Drawbridge's passdb evaluates the rules of the typed name; "+
				"it does not give clients the reason of a refusal earlier, either")
	}
	if (before || after) && d.all.Get("auth_policy_reject_on_fail", "no") != "yes" {
		d.fail(check, d.at("auth_policy_reject_on_fail"), "auth_policy_reject_on_fail = yes",
			"is off: a login is accepted if Drawbridge does not answer the check")
	}
	if d.all.Get("auth_policy_log_only", "no") == "yes" {
		d.fail(check, d.at("auth_policy_log_only"), "auth_policy_log_only = no", "is on: refusals are only logged, and the logins succeed")
	}
	d.policyAttributes(check, alone, before, after)
}

func (d *dovecotChecks) policyAttributes(check string, alone, before, after bool) {
	const ours = "login=%{requested_username} pwhash=%{hashed_password} remote=%{rip} device_id=%{client_id} protocol=%s session_id=%{session}" +
		" real_remote=%{real_rip} mechanism=%{mechanism} orig_user=%{orig_user} master_user=%{master_user}" +
		" local_ip=%{lip} local_port=%{lport} server_name=%{local_name} client_cert=%{cert}"
	where := d.at("auth_policy_request_attributes")
	snippet, literal := "drawbridge.conf.ext", " "+judgedByPassdb
	if alone {
		snippet, literal = "drawbridge-policy.conf.ext", ""
		if !before {
			literal = " verified=yes"
		}
	}
	fix := "auth_policy_request_attributes = " + ours + literal
	if d.version.is24() {
		fix = "# the auth_policy_request_attributes of " + snippet + " for Dovecot 2.4"
	}
	attributes := d.attributes()
	lacking := func(wanted ...string) string {
		var missing []string
		for _, want := range wanted {
			if !slices.ContainsFunc(attributes, func(a string) bool { return strings.HasPrefix(a, want+"=%") }) {
				missing = append(missing, want)
			}
		}
		return strings.Join(missing, ", ")
	}
	needed := []string{"login", "remote", "protocol", "session_id"}
	if after {
		needed = append(needed, "orig_user", "real_remote")
	}
	judged, verified := slices.Contains(attributes, judgedByPassdb), slices.Contains(attributes, "verified=yes")
	missing, own := lacking(needed...), lacking("local_port", "server_name", "client_cert")
	switch {
	case missing != "":
		d.fail(check, where, fix, "lacks %s: Drawbridge cannot tell which login Dovecot asks or reports about", missing)
	case !alone && !judged:
		d.fail(check, where, fix, "lacks judged=yes: each login is judged and recorded a second time, as if its password were a mailbox password")
	case alone && before && verified:
		d.fail(check, where, fix, "has verified=yes, but auth_policy_check_before_auth is on: whoever guesses passwords gets the reason of a refusal")
	case own != "" && alone:
		d.warn(check, where, fix, "lacks %s: a client type that these prove is not recognised", own)
	case own != "" && after:
		d.warn(check, where, fix,
			"lacks %s: a login that the next passdb maps to another name counts as a third-party client if only these prove its client type", own)
	}
}

func (d *dovecotChecks) policyAddress(check, where, text string) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" {
		d.fail(check, where, "auth_policy_server_url = "+policyURL, "is not a URL") // may contain a password: not shown
		return
	}
	var listens []string
	for _, s := range d.config.Login.Listen {
		if s.Unix() || s.TLS() {
			continue
		}
		listens = append(listens, s.Addr.String())
		if sameAddress(u.Hostname(), cmp.Or(u.Port(), "80"), s.Addr) {
			if u.Scheme != "http" || u.Path != policyPath {
				d.fail(check, where, "auth_policy_server_url = http://"+u.Host+policyPath, "asks %s://%s%s, which Drawbridge does not serve", u.Scheme, u.Host, u.Path)
			}
			return
		}
	}
	if len(listens) == 0 {
		d.fail(check, where, fmt.Sprintf("[login]\nlisten = [\"unix:%s?mode=0660&group=dovecot\", \"inet:127.0.0.1:8481\"]\nkey_file = \"/etc/drawbridge/login.key\"", defaultSocket),
			"asks %s, but login.listen has no inet listener without TLS", u.Host)
		return
	}
	d.fail(check, where, "auth_policy_server_url = http://"+listens[0]+policyPath, "asks %s, but login.listen has %s", u.Host, strings.Join(listens, ", "))
}
